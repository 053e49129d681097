//! Backends that are lost while a session needs them: what its client is told.

use expect_test::expect;

use super::world::{check, session_mode, transaction_mode};

#[test]
fn a_commit_that_was_not_answered_is_unknown() {
    let script = "
        Q SET helios.region = 'eu'
        Q BEGIN; SELECT 1
        !freeze
        Q COMMIT
        !kill eu
        !thaw
        b> Q SET helios.region = 'eu'; BEGIN; SELECT 1
        !freeze
        b> P :COMMIT | B : | E | S
        !kill eu
        !thaw
        c> Q SET helios.region = 'eu'
        !freeze
        c> Q BEGIN; SELECT 1; COMMIT
        !kill eu
        !thaw
    ";
    check(
        transaction_mode(),
        script,
        expect![[r#"
    Q SET helios.region = 'eu'
      C SET
      Z I
    Q BEGIN; SELECT 1
      C BEGIN
      T
      D eu
      C SELECT 1
      Z T
        eu: Q BEGIN; SELECT 1
    !freeze
    Q COMMIT
        eu: Q COMMIT
    !kill eu
      E FATAL 08007: server connection to node "node-eu" was lost; it is not known whether the transaction was committed (HINT)
      closed
    !thaw
    b> Q SET helios.region = 'eu'; BEGIN; SELECT 1
      b: C SET
      b: C BEGIN
      b: T
      b: D eu
      b: C SELECT 1
      b: Z T
        eu: Q                         ; BEGIN; SELECT 1
    !freeze
    b> P :COMMIT | B : | E | S
      b: 1
      b: 2
        eu: C domicile
        eu: P domicile:COMMIT
        eu: B :domicile
        eu: E 
        eu: S
    !kill eu
      b: E FATAL 08007: server connection to node "node-eu" was lost; it is not known whether the transaction was committed (HINT)
      b: closed
    !thaw
    c> Q SET helios.region = 'eu'
      c: C SET
      c: Z I
    !freeze
    c> Q BEGIN; SELECT 1; COMMIT
        eu: Q BEGIN; SELECT 1; COMMIT
    !kill eu
      c: E FATAL 08007: server connection to node "node-eu" was lost; it is not known whether the transaction was committed (HINT)
      c: closed
    !thaw
"#]],
    );
}

#[test]
fn what_was_not_being_committed_is_lost() {
    check(
        session_mode(),
        "
        Q SET helios.region = 'eu'
        Q BEGIN; SELECT 1
        Q COMMIT
        !kill eu
        b> Q SET helios.region = 'eu'
        b> Q BEGIN; SELECT 1
        !freeze
        b> Q ROLLBACK
        !kill eu
        !thaw
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q BEGIN; SELECT 1
          C BEGIN
          T
          D eu
          C SELECT 1
          Z T
            eu: Q BEGIN; SELECT 1
        Q COMMIT
          C COMMIT
          Z I
            eu: Q COMMIT
        !kill eu
          E FATAL 08006: server connection to node "node-eu" was lost
          closed
        b> Q SET helios.region = 'eu'
          b: C SET
          b: Z I
        b> Q BEGIN; SELECT 1
          b: C BEGIN
          b: T
          b: D eu
          b: C SELECT 1
          b: Z T
            eu: Q BEGIN; SELECT 1
        !freeze
        b> Q ROLLBACK
            eu: Q ROLLBACK
        !kill eu
          b: E FATAL 08006: server connection to node "node-eu" was lost
          b: closed
        !thaw
    "#]],
    );
}

#[test]
fn an_idle_backend_that_dies_is_nobodys_loss() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        P s:SELECT 1 | S
        !kill eu
        B :s | E | S
        Q BEGIN
        !kill eu
        Q SELECT 2
        Q COMMIT
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        P s:SELECT 1 | S
          1
          Z I
            eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
            eu: S
        !kill eu
        B :s | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
            eu: B :domicile_8654f43e5d759cd7fee32da0cadcd9ad
            eu: E 
            eu: S
        Q BEGIN
          C BEGIN
          Z T
        !kill eu
        Q SELECT 2
          T
          D eu
          C SELECT 1
          Z T
            eu: Q BEGIN
            eu: Q SELECT 2
        Q COMMIT
          C COMMIT
          Z I
            eu: Q COMMIT
    "#]],
    );
}

#[test]
fn a_backend_that_dies_before_it_has_run_anything_is_replaced_once() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        Q BEGIN
        !freeze
        Q SELECT 1
        !kill eu
        !thaw
        Q COMMIT
        Q SET TimeZone = 'Mars'
        b> Q SET helios.region = 'eu'
        !freeze
        b> Q SELECT 2
        !kill eu
        !thaw
        Q BEGIN
        !freeze
        Q SELECT 1
        !kill eu
        !kill eu
        !thaw
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q BEGIN
          C BEGIN
          Z T
        !freeze
        Q SELECT 1
            eu: Q BEGIN
        !kill eu
            eu: Q BEGIN
        !thaw
          T
          D eu
          C SELECT 1
          Z T
            eu: Q SELECT 1
        Q COMMIT
          C COMMIT
          Z I
            eu: Q COMMIT
        Q SET TimeZone = 'Mars'
          C SET
          S TimeZone=Mars
          Z I
            eu: Q SET TimeZone = 'Mars'
        b> Q SET helios.region = 'eu'
          b: C SET
          b: Z I
        !freeze
        b> Q SELECT 2
            eu: Q SELECT pg_catalog.set_config('TimeZone', 'UTC', false)
        !kill eu
            eu: Q SELECT 2
        !thaw
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
        Q BEGIN
          C BEGIN
          Z T
        !freeze
        Q SELECT 1
            eu: Q SELECT pg_catalog.set_config('TimeZone', 'Mars', false)
        !kill eu
            eu: Q SELECT pg_catalog.set_config('TimeZone', 'Mars', false)
        !kill eu
          E FATAL 08006: server connection to node "node-eu" was lost
          closed
        !thaw
    "#]],
    );
}

/// The server's last words answer the proxy's own statement here, so the client has not heard them.
#[test]
fn a_backend_that_is_terminated_while_settings_are_restored_is_replaced_too() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        Q SET TimeZone = 'Mars'
        b> Q SET helios.region = 'eu'
        !freeze
        b> Q SELECT 2
        !terminate eu
        !thaw
        Q BEGIN
        !freeze
        Q SELECT 1
        !terminate eu
        !terminate eu
        !thaw
    ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q SET TimeZone = 'Mars'
              C SET
              S TimeZone=Mars
              Z I
                eu: Q SET TimeZone = 'Mars'
            b> Q SET helios.region = 'eu'
              b: C SET
              b: Z I
            !freeze
            b> Q SELECT 2
                eu: Q SELECT pg_catalog.set_config('TimeZone', 'UTC', false)
            !terminate eu
                eu: Q SELECT 2
            !thaw
              b: T
              b: D eu
              b: C SELECT 1
              b: Z I
            Q BEGIN
              C BEGIN
              Z T
            !freeze
            Q SELECT 1
                eu: Q SELECT pg_catalog.set_config('TimeZone', 'Mars', false)
            !terminate eu
                eu: Q SELECT pg_catalog.set_config('TimeZone', 'Mars', false)
            !terminate eu
              E FATAL 08006: server connection to node "node-eu" was lost
              closed
            !thaw
        "#]],
    );
}
