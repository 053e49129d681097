//! Servers that are down, break, or misbehave; clients that leave; pools that are full; an end of work.

use expect_test::expect;

use super::world::{Setup, check, session_mode, transaction_mode};

#[test]
fn a_region_that_is_down_is_an_error_and_never_a_detour() {
    check(
        transaction_mode(),
        "
        !down eu
        Q SET helios.region = 'eu'; SELECT 1
        Q SELECT 1
        Q SET helios.region = 'us'; SELECT 1
        !up eu
        Q SET helios.region = 'eu'; SELECT 1
        !kill eu
        !down eu
        P :SET helios.region = 'eu' | B : | E | P :SELECT 1 | B : | E | S
        Q BEGIN; SET helios.region = 'eu'; SELECT 1
        Q ROLLBACK
        Q BEGIN
        Q SELECT 1
        Q SELECT 1
        Q ROLLBACK
    ",
        expect![[r#"
        !down eu
        Q SET helios.region = 'eu'; SELECT 1
          C SET
          E ERROR 08006: node "node-eu" of region "eu" refused the connection (HINT)
          Z I
        Q SELECT 1
          audit: denied "" at Query by residency.unbound
          E ERROR 42000: blocked: no region is set for this session
          Z I
        Q SET helios.region = 'us'; SELECT 1
          C SET
          T
          D us
          C SELECT 1
          Z I
            us: Q                         ; SELECT 1
        !up eu
        Q SET helios.region = 'eu'; SELECT 1
          C SET
          T
          D eu
          C SELECT 1
          Z I
            eu: Q                         ; SELECT 1
        !kill eu
        !down eu
        P :SET helios.region = 'eu' | B : | E | P :SELECT 1 | B : | E | S
          1
          2
          C SET
          E ERROR 08006: node "node-eu" of region "eu" refused the connection (HINT)
          Z I
        Q BEGIN; SET helios.region = 'eu'; SELECT 1
          C BEGIN
          C SET
          E ERROR 08006: node "node-eu" of region "eu" refused the connection (HINT)
          Z E
        Q ROLLBACK
          C ROLLBACK
          Z I
        Q BEGIN
          C BEGIN
          Z T
        Q SELECT 1
          E ERROR 08006: node "node-eu" of region "eu" refused the connection (HINT)
          Z E
        Q SELECT 1
          E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
          Z E
        Q ROLLBACK
          C ROLLBACK
          Z I
    "#]],
    );
}

#[test]
fn a_backend_that_breaks_takes_its_session_with_it_and_no_other() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'; SELECT 1
        b> Q SET helios.region = 'eu'
        !kill eu
        Q SELECT 2
        !freeze
        Q SELECT 3
        !kill eu
        b> Q SELECT 4
        !thaw
        b> Q BEGIN; SELECT 5
        !kill eu
    ",
        expect![[r#"
        Q SET helios.region = 'eu'; SELECT 1
          C SET
          T
          D eu
          C SELECT 1
          Z I
            eu: Q                         ; SELECT 1
        b> Q SET helios.region = 'eu'
          b: C SET
          b: Z I
        !kill eu
        Q SELECT 2
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 2
        !freeze
        Q SELECT 3
            eu: Q SELECT 3
        !kill eu
          E FATAL 08006: server connection to node "node-eu" was lost
          closed
        b> Q SELECT 4
            eu: Q SELECT 4
        !thaw
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
        b> Q BEGIN; SELECT 5
          b: C BEGIN
          b: T
          b: D eu
          b: C SELECT 1
          b: Z T
            eu: Q BEGIN; SELECT 5
        !kill eu
          b: E FATAL 08006: server connection to node "node-eu" was lost
          b: closed
    "#]],
    );
}

#[test]
fn a_client_that_leaves_takes_its_transaction_with_it() {
    check(
        Setup { size: 1, ..transaction_mode() },
        "
        Q SET helios.region = 'eu'; BEGIN; SELECT 1
        b> Q SET helios.region = 'eu'; SELECT 2
        !leave a
        b> Q SELECT 3
    ",
        expect![[r#"
        Q SET helios.region = 'eu'; BEGIN; SELECT 1
          C SET
          C BEGIN
          T
          D eu
          C SELECT 1
          Z T
            eu: Q                         ; BEGIN; SELECT 1
        b> Q SET helios.region = 'eu'; SELECT 2
        !leave a
            eu: closed: Abrupt
          b: C SET
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: Q                         ; SELECT 2
        b> Q SELECT 3
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: Q SELECT 3
    "#]],
    );
}

#[test]
fn a_client_that_leaves_while_a_reply_is_owed() {
    check(
        Setup { size: 1, ..transaction_mode() },
        "
        !freeze
        Q SET helios.region = 'eu'; SELECT 1
        !leave a
        !thaw
        b> Q SET helios.region = 'eu'; SELECT 2
        b> P :SELECT 1 | H
        !leave b
        c> Q SET helios.region = 'eu'; SELECT 3
    ",
        expect![[r#"
        !freeze
        Q SET helios.region = 'eu'; SELECT 1
          C SET
            eu: Q                         ; SELECT 1
        !leave a
            eu: closed: Abrupt
        !thaw
        b> Q SET helios.region = 'eu'; SELECT 2
          b: C SET
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: Q                         ; SELECT 2
        b> P :SELECT 1 | H
          b: 1
            eu: P :SELECT 1
        !leave b
            eu: closed: Abrupt
        c> Q SET helios.region = 'eu'; SELECT 3
          c: C SET
          c: T
          c: D eu
          c: C SELECT 1
          c: Z I
            eu: Q                         ; SELECT 3
    "#]],
    );
}

#[test]
fn waiting_is_first_come_first_served_and_ends() {
    check(
        Setup { size: 1, ..transaction_mode() },
        "
        Q SET helios.region = 'eu'; BEGIN; SELECT 1
        b> Q SET helios.region = 'eu'; SELECT 2 | Q SHOW helios.region
        c> Q SET helios.region = 'eu'; SELECT 3
        Q COMMIT
        Q BEGIN; SELECT 1
        b> Q SELECT 4
        c> P :SELECT 5 | B : | E | S
        !tick 130
        b> Q SELECT 6
        Q COMMIT
        b> Q SHOW helios.region
    ",
        expect![[r#"
        Q SET helios.region = 'eu'; BEGIN; SELECT 1
          C SET
          C BEGIN
          T
          D eu
          C SELECT 1
          Z T
            eu: Q                         ; BEGIN; SELECT 1
        b> Q SET helios.region = 'eu'; SELECT 2 | Q SHOW helios.region
        c> Q SET helios.region = 'eu'; SELECT 3
        Q COMMIT
          C COMMIT
          Z I
          b: C SET
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
          b: T
          b: D eu
          b: C SHOW
          b: Z I
          c: C SET
          c: T
          c: D eu
          c: C SELECT 1
          c: Z I
            eu: Q COMMIT
            eu: Q                         ; SELECT 2
            eu: Q                         ; SELECT 3
        Q BEGIN; SELECT 1
          C BEGIN
          T
          D eu
          C SELECT 1
          Z T
            eu: Q BEGIN; SELECT 1
        b> Q SELECT 4
        c> P :SELECT 5 | B : | E | S
        !tick 130
          b: E ERROR 53300: no server connection for user "app" and database "demo" became free within 120 s (HINT)
          b: Z I
          c: E ERROR 53300: no server connection for user "app" and database "demo" became free within 120 s (HINT)
          c: Z I
        b> Q SELECT 6
        Q COMMIT
          C COMMIT
          Z I
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: Q COMMIT
            eu: Q SELECT 6
        b> Q SHOW helios.region
          b: T
          b: D eu
          b: C SHOW
          b: Z I
    "#]],
    );
}

#[test]
fn a_backend_that_says_what_nobody_asked_for() {
    check(
        session_mode(),
        "
        Q SET helios.region = 'eu'; SELECT 1
        !server eu notice
        !server eu timezone
        Q SELECT 2
        !server eu row
        b> Q SET helios.region = 'eu'; SELECT 1
        !server eu idle
        c> Q SET helios.region = 'eu'; SELECT 1
        !server eu sjis
    ",
        expect![[r#"
        Q SET helios.region = 'eu'; SELECT 1
          C SET
          T
          D eu
          C SELECT 1
          Z I
            eu: Q                         ; SELECT 1
        !server eu notice
          N WARNING 25P01: there is no transaction in progress
        !server eu timezone
          S TimeZone=Mars
        Q SELECT 2
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 2
        !server eu row
          E FATAL 08006: node "node-eu" broke the protocol
          closed
            eu: closed: Abrupt
        b> Q SET helios.region = 'eu'; SELECT 1
          b: C SET
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: Q                         ; SELECT 1
        !server eu idle
          b: E FATAL 08006: node "node-eu" broke the protocol
          b: closed
            eu: closed: Abrupt
        c> Q SET helios.region = 'eu'; SELECT 1
          c: C SET
          c: T
          c: D eu
          c: C SELECT 1
          c: Z I
            eu: Q                         ; SELECT 1
        !server eu sjis
          c: E FATAL 08006: node "node-eu" broke the protocol
          c: closed
            eu: closed: Abrupt
    "#]],
    );
}

#[test]
fn an_idle_backend_that_speaks_is_closed() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'; SELECT 1
        !server eu timezone
        Q SELECT 2
        !server eu notice
        Q SELECT 3
    ",
        expect![[r#"
        Q SET helios.region = 'eu'; SELECT 1
          C SET
          T
          D eu
          C SELECT 1
          Z I
            eu: Q                         ; SELECT 1
        !server eu timezone
        Q SELECT 2
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT pg_catalog.set_config('TimeZone', 'UTC', false)
            eu: Q SELECT 2
        !server eu notice
            eu: closed: Abrupt
        Q SELECT 3
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 3
    "#]],
    );
}

#[test]
fn an_end_of_work_waits_for_transactions() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'; BEGIN; SELECT 1
        b> Q SET helios.region = 'eu'; SELECT 1
        !drain
        Q SELECT 2
        Q COMMIT
    ",
        expect![[r#"
        Q SET helios.region = 'eu'; BEGIN; SELECT 1
          C SET
          C BEGIN
          T
          D eu
          C SELECT 1
          Z T
            eu: Q                         ; BEGIN; SELECT 1
        b> Q SET helios.region = 'eu'; SELECT 1
          b: C SET
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: Q                         ; SELECT 1
        !drain
          b: E FATAL 57P01: terminating connection due to administrator command
          b: closed
            eu: closed: Terminate
        Q SELECT 2
          T
          D eu
          C SELECT 1
          Z T
            eu: Q SELECT 2
        Q COMMIT
          C COMMIT
          Z I
            eu: Q COMMIT
            eu: closed: Terminate
          E FATAL 57P01: terminating connection due to administrator command
          closed
    "#]],
    );
}

#[test]
fn a_node_that_leaves_its_region_takes_its_sessions_with_it() {
    check(
        session_mode(),
        "
        Q SET helios.region = 'eu'; SELECT 1
        b> Q SET helios.region = 'us'
        !nodes moved
        b> Q SELECT 2
    ",
        expect![[r#"
            Q SET helios.region = 'eu'; SELECT 1
              C SET
              T
              D eu
              C SELECT 1
              Z I
                eu: Q                         ; SELECT 1
            b> Q SET helios.region = 'us'
              b: C SET
              b: Z I
            !nodes moved
              E FATAL 57P01: the server of this session does not belong to its region any more
              closed
                eu: closed: Abrupt
            b> Q SELECT 2
              b: T
              b: D us
              b: C SELECT 1
              b: Z I
                us: Q SELECT 2
        "#]],
    );
}

#[test]
fn a_node_that_is_reached_in_another_way_is_left_between_transactions() {
    check(
        session_mode(),
        "
        Q SET helios.region = 'eu'; SELECT 1
        b> Q SET helios.region = 'eu'; BEGIN; SELECT 1
        !nodes changed
        Q SELECT 2
        b> Q SELECT 2
        b> Q COMMIT
        b> Q SELECT 3
    ",
        expect![[r#"
            Q SET helios.region = 'eu'; SELECT 1
              C SET
              T
              D eu
              C SELECT 1
              Z I
                eu: Q                         ; SELECT 1
            b> Q SET helios.region = 'eu'; BEGIN; SELECT 1
              b: C SET
              b: C BEGIN
              b: T
              b: D eu
              b: C SELECT 1
              b: Z T
                eu: Q                         ; BEGIN; SELECT 1
            !nodes changed
            Q SELECT 2
              N NOTICE 00000: the node of this session has been reconfigured; prepared statements, temporary tables and settings made there are gone
                eu: Q DISCARD ALL
                eu: closed: Terminate
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 2
            b> Q SELECT 2
              b: T
              b: D eu
              b: C SELECT 1
              b: Z T
                eu: Q SELECT 2
            b> Q COMMIT
              b: C COMMIT
              b: Z I
                eu: Q COMMIT
            b> Q SELECT 3
              b: N NOTICE 00000: the node of this session has been reconfigured; prepared statements, temporary tables and settings made there are gone
                eu: Q DISCARD ALL
                eu: closed: Terminate
              b: T
              b: D eu
              b: C SELECT 1
              b: Z I
                eu: Q SELECT 3
        "#]],
    );
}
