//! What takes too long is ended in PostgreSQL's words, and nothing else is.

use std::time::Duration;

use expect_test::expect;

use super::world::{Setup, check, transaction_mode};
use crate::session::Timeouts;

fn with(timeouts: Timeouts) -> Setup {
    Setup { timeouts, ..transaction_mode() }
}

const TEN: Duration = Duration::from_secs(10);

#[test]
fn a_statement_is_cancelled_at_its_server_and_the_session_goes_on() {
    check(
        with(Timeouts { query: TEN, ..Timeouts::default() }),
        "
        Q SET helios.region = 'eu'
        Q SELECT 1
        !tick 100
        !tick 100
        !freeze
        Q SELECT sleep
        !tick 9
        !tick 1
        !tick 1
        !tick 1
        !thaw
        !cancelled
        Q SELECT 2
        ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q SELECT 1
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 1
            !tick 100
            !tick 100
            !freeze
            Q SELECT sleep
                eu: Q SELECT sleep
            !tick 9
            !tick 1
            !tick 1
              cancel: process 1 of node node-eu at None
            !tick 1
            !thaw
              E ERROR 57014: canceling statement due to statement timeout
              Z I
            !cancelled
              cancel: done
            Q SELECT 2
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 2
        "#]],
    );
}

#[test]
fn a_transaction_fails_by_the_cancel_and_what_comes_behind_it_waits_for_its_end() {
    check(
        with(Timeouts { query: TEN, ..Timeouts::default() }),
        "
        Q SET helios.region = 'eu'
        Q BEGIN; SELECT 0
        !freeze
        P :SELECT sleep | B : | E | S
        !tick 10
        !tick 1
        Q ROLLBACK
        !thaw
        !cancelled
        Q SELECT 2
        ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q BEGIN; SELECT 0
              C BEGIN
              T
              D eu
              C SELECT 1
              Z T
                eu: Q BEGIN; SELECT 0
            !freeze
            P :SELECT sleep | B : | E | S
                eu: P :SELECT sleep
                eu: B :
                eu: E 
                eu: S
            !tick 10
            !tick 1
              cancel: process 1 of node node-eu at None
            Q ROLLBACK
            !thaw
              1
              2
              E ERROR 57014: canceling statement due to statement timeout
              Z E
            !cancelled
              cancel: done
              C ROLLBACK
              Z I
                eu: Q ROLLBACK
            Q SELECT 2
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 2
        "#]],
    );
}

#[test]
fn a_server_that_does_not_obey_is_left() {
    check(
        with(Timeouts { query: TEN, ..Timeouts::default() }),
        "
        Q SET helios.region = 'eu'
        !freeze
        Q SELECT sleep
        !tick 11
        !tick 1
        !cancelled
        Q SELECT 1
        !tick 8
        !tick 1
        !tick 1
        !tick 1
        ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            !freeze
            Q SELECT sleep
                eu: Q SELECT sleep
            !tick 11
            !tick 1
              cancel: process 1 of node node-eu at None
            !cancelled
              cancel: done
            Q SELECT 1
                eu: Q SELECT 1
            !tick 8
            !tick 1
            !tick 1
            !tick 1
              cancel: process 1 of node node-eu at None
              E FATAL 57014: canceling statement due to statement timeout
              closed
                eu: closed: Abrupt
        "#]],
    );
}

#[test]
fn a_transaction_lasts_no_longer_than_it_may_whether_it_works_or_not() {
    check(
        with(Timeouts { transaction: TEN, ..Timeouts::default() }),
        "
        Q SET helios.region = 'eu'
        Q BEGIN
        !tick 9
        Q SELECT 1
        !tick 1
        !tick 1
        b> Q SET helios.region = 'eu'
        !freeze
        b> Q SELECT sleep
        !tick 10
        !tick 1
        !thaw
        c> Q SET helios.region = 'eu'
        c> Q BEGIN; SELECT 1
        !tick 9
        c> Q COMMIT; BEGIN; SELECT 1
        !tick 9
        c> Q COMMIT
        !tick 90
        !tick 1
        ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q BEGIN
              C BEGIN
              Z T
            !tick 9
            Q SELECT 1
              T
              D eu
              C SELECT 1
              Z T
                eu: Q BEGIN
                eu: Q SELECT 1
            !tick 1
            !tick 1
              E FATAL 25P04: terminating connection due to transaction timeout
              closed
                eu: closed: Abrupt
            b> Q SET helios.region = 'eu'
              b: C SET
              b: Z I
            !freeze
            b> Q SELECT sleep
                eu: Q SELECT sleep
            !tick 10
            !tick 1
              cancel: process 1 of node node-eu at None
              b: E FATAL 25P04: terminating connection due to transaction timeout
              b: closed
                eu: closed: Abrupt
            !thaw
            c> Q SET helios.region = 'eu'
              c: C SET
              c: Z I
            c> Q BEGIN; SELECT 1
              c: C BEGIN
              c: T
              c: D eu
              c: C SELECT 1
              c: Z T
                eu: Q BEGIN; SELECT 1
            !tick 9
            c> Q COMMIT; BEGIN; SELECT 1
              c: C COMMIT
              c: C BEGIN
              c: T
              c: D eu
              c: C SELECT 1
              c: Z T
                eu: Q COMMIT; BEGIN; SELECT 1
            !tick 9
            c> Q COMMIT
              c: C COMMIT
              c: Z I
                eu: Q COMMIT
            !tick 90
            !tick 1
        "#]],
    );
}

#[test]
fn nothing_may_happen_in_a_transaction_for_so_long() {
    check(
        with(Timeouts { idle_in_transaction: TEN, ..Timeouts::default() }),
        "
        Q SET helios.region = 'eu'
        !tick 90
        !tick 1
        Q BEGIN; SELECT 1
        !tick 9
        Q SELECT 1
        !tick 9
        !tick 1
        !tick 1
        b> Q BEGIN
        b> Q SELECT 1
        !tick 11
        !tick 1
        c> Q SET helios.region = 'eu'
        c> Q BEGIN
        c> P :SELECT 1 | B : | E | H
        !tick 90
        !tick 1
        ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            !tick 90
            !tick 1
            Q BEGIN; SELECT 1
              C BEGIN
              T
              D eu
              C SELECT 1
              Z T
                eu: Q BEGIN; SELECT 1
            !tick 9
            Q SELECT 1
              T
              D eu
              C SELECT 1
              Z T
                eu: Q SELECT 1
            !tick 9
            !tick 1
            !tick 1
              E FATAL 25P03: terminating connection due to idle-in-transaction timeout
              closed
                eu: closed: Abrupt
            b> Q BEGIN
              b: C BEGIN
              b: Z T
            b> Q SELECT 1
              audit: denied "" at Query by residency.unbound
              b: E ERROR 42000: blocked: no region is set for this session
              b: Z E
            !tick 11
            !tick 1
              b: E FATAL 25P03: terminating connection due to idle-in-transaction timeout
              b: closed
            c> Q SET helios.region = 'eu'
              c: C SET
              c: Z I
            c> Q BEGIN
              c: C BEGIN
              c: Z T
            c> P :SELECT 1 | B : | E | H
              c: 1
              c: 2
              c: D eu
              c: C SELECT 1
                eu: Q BEGIN
                eu: P :SELECT 1
                eu: B :
                eu: E 
            !tick 90
            !tick 1
        "#]],
    );
}

#[test]
fn a_client_may_do_nothing_for_so_long_outside_of_a_transaction() {
    let timeouts = Timeouts { client_idle: TEN, ..Timeouts::default() };
    check(
        with(timeouts),
        "
        Q SET helios.region = 'eu'
        !tick 9
        Q SELECT 1
        !tick 9
        !freeze
        Q SELECT 2
        !tick 90
        !tick 1
        !thaw
        !tick 9
        Q BEGIN
        !tick 90
        !tick 1
        Q COMMIT
        !tick 10
        !tick 1
        ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            !tick 9
            Q SELECT 1
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 1
            !tick 9
            !freeze
            Q SELECT 2
                eu: Q SELECT 2
            !tick 90
            !tick 1
            !thaw
              T
              D eu
              C SELECT 1
              Z I
            !tick 9
            Q BEGIN
              C BEGIN
              Z T
            !tick 90
            !tick 1
            Q COMMIT
              C COMMIT
              Z I
            !tick 10
            !tick 1
              E FATAL 57P05: terminating connection due to idle-session timeout
              closed
        "#]],
    );
}

#[test]
fn a_stream_has_no_timeout() {
    check(
        Setup {
            timeouts: Timeouts { query: TEN, transaction: TEN, idle_in_transaction: TEN, client_idle: TEN },
            source: super::world::bound_to(&["eu"]),
            ..transaction_mode()
        },
        "
        !replicate a physical
        Q START_REPLICATION 0/0
        !tick 90
        !tick 90
        !server eu wal
        ",
        expect![[r#"
            !replicate a physical
              open: eu, for physical replication
            Q START_REPLICATION 0/0
              W
              d
                eu: Q START_REPLICATION 0/0
            !tick 90
            !tick 90
            !server eu wal
              d
        "#]],
    );
}
