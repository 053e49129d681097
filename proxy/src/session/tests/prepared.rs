//! Prepared statements in transaction mode: every client has its own, whichever backend it meets.

use expect_test::expect;

use super::world::{Setup, check, transaction_mode};

/// Two backends, and a client `z` that keeps the first one busy when it is in a transaction.
fn two_backends() -> Setup {
    Setup { size: 2, ..transaction_mode() }
}

#[test]
fn a_named_statement_is_prepared_where_it_is_needed_and_shared() {
    check(
        two_backends(),
        "
        Q SET helios.region = 'eu'
        b> Q SET helios.region = 'eu'
        z> Q SET helios.region = 'eu'
        P s:SELECT 1 | D S:s | S
        B :s | E | S
        b> P other:SELECT 1 | B :other | E | S
        z> Q BEGIN; SELECT 0
        B :s | D P: | E | S
        B :s | E | S
        z> Q COMMIT
        b> B :s | E | S
        Q SET helios.region = 'us'
        B :s | E | S
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        b> Q SET helios.region = 'eu'
          b: C SET
          b: Z I
        z> Q SET helios.region = 'eu'
          z: C SET
          z: Z I
        P s:SELECT 1 | D S:s | S
          1
          t
          T
          Z I
            eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
            eu: D domicile_8654f43e5d759cd7fee32da0cadcd9ad
            eu: S
        B :s | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_8654f43e5d759cd7fee32da0cadcd9ad
            eu: E 
            eu: S
        b> P other:SELECT 1 | B :other | E | S
          b: 1
          b: 2
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: C domicile_8654f43e5d759cd7fee32da0cadcd9ad
            eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
            eu: B :domicile_8654f43e5d759cd7fee32da0cadcd9ad
            eu: E 
            eu: S
        z> Q BEGIN; SELECT 0
          z: C BEGIN
          z: T
          z: D eu
          z: C SELECT 1
          z: Z T
            eu: Q BEGIN; SELECT 0
        B :s | D P: | E | S
          2
          T
          D eu
          C SELECT 1
          Z I
            eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
            eu: D domicile_8654f43e5d759cd7fee32da0cadcd9ad
            eu: B :domicile_8654f43e5d759cd7fee32da0cadcd9ad
            eu: D 
            eu: E 
            eu: S
        B :s | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_8654f43e5d759cd7fee32da0cadcd9ad
            eu: E 
            eu: S
        z> Q COMMIT
          z: C COMMIT
          z: Z I
            eu: Q COMMIT
        b> B :s | E | S
          b: E ERROR 26000: prepared statement "s" does not exist
          b: Z I
        Q SET helios.region = 'us'
          C SET
          Z I
        B :s | E | S
          2
          D us
          C SELECT 1
          Z I
            us: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
            us: D domicile_8654f43e5d759cd7fee32da0cadcd9ad
            us: B :domicile_8654f43e5d759cd7fee32da0cadcd9ad
            us: E 
            us: S
    "#]],
    );
}

#[test]
fn names_are_the_sessions_own() {
    check(
        two_backends(),
        "
        Q SET helios.region = 'eu'
        P s:SELECT 1 | P s:SELECT 2 | S
        P s:SELECT 2 | S
        C S:s | C S:s | S
        P s:SELECT 2 | B :s | E | C S:s | B :s | E | S
        B :s | S
        D S:s | S
        D S: | S
        P s:SELECT 1 | S
        P t:SELECT 2 | S
        Q DEALLOCATE s
        B :s | S
        B :t | E | S
        Q DISCARD ALL
        Q SET helios.region = 'eu'
        B :t | E | S
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        P s:SELECT 1 | P s:SELECT 2 | S
          1
          E ERROR 42P05: prepared statement "s" already exists
          Z I
            eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
            eu: E domicile: no such portal
            eu: S
        P s:SELECT 2 | S
          E ERROR 42P05: prepared statement "s" already exists
          Z I
        C S:s | C S:s | S
          3
          3
          Z I
        P s:SELECT 2 | B :s | E | C S:s | B :s | E | S
          1
          2
          D eu
          C SELECT 1
          3
          E ERROR 26000: prepared statement "s" does not exist
          Z I
            eu: P domicile_16902ce2ffcb27f8c1d8f7b4ef8a8106:SELECT 2
            eu: B :domicile_16902ce2ffcb27f8c1d8f7b4ef8a8106
            eu: E 
            eu: E domicile: no such portal
            eu: S
        B :s | S
          E ERROR 26000: prepared statement "s" does not exist
          Z I
        D S:s | S
          E ERROR 26000: prepared statement "s" does not exist
          Z I
        D S: | S
          E ERROR 26000: unnamed prepared statement does not exist
          Z I
        P s:SELECT 1 | S
          1
          Z I
            eu: C domicile_8654f43e5d759cd7fee32da0cadcd9ad
            eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
            eu: S
        P t:SELECT 2 | S
          1
          Z I
            eu: C domicile_16902ce2ffcb27f8c1d8f7b4ef8a8106
            eu: P domicile_16902ce2ffcb27f8c1d8f7b4ef8a8106:SELECT 2
            eu: S
        Q DEALLOCATE s
          C DEALLOCATE
          Z I
        B :s | S
          E ERROR 26000: prepared statement "s" does not exist
          Z I
        B :t | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_16902ce2ffcb27f8c1d8f7b4ef8a8106
            eu: E 
            eu: S
        Q DISCARD ALL
          C DISCARD ALL
          Z I
        Q SET helios.region = 'eu'
          C SET
          Z I
        B :t | E | S
          E ERROR 26000: prepared statement "t" does not exist
          Z I
    "#]],
    );
}

#[test]
fn a_failed_pipeline_leaves_no_statement_that_was_not_parsed() {
    check(
        two_backends(),
        "
        Q SET helios.region = 'eu'
        P a:SELECT fail | B :a | E | P b:SELECT 1 | P c:SELECT fail | C S:a | S
        B :b | S
        B :c | S
        C S:a | S
        P :SELECT fail | B : | E | P b:SELECT 1 | S | P b:SELECT 1 | B :b | E | S
        P b2:SELECT 1 | S
        P :SELECT fail | B : | E | P b3:SELECT 1 | C S:b2 | S | B :b3 | S | B :b2 | E | S
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        P a:SELECT fail | B :a | E | P b:SELECT 1 | P c:SELECT fail | C S:a | S
          1
          2
          E ERROR 01000: it fails
          Z I
            eu: P domicile_d75edd76a90acb9211bd6aef87106ed4:SELECT fail
            eu: B :domicile_d75edd76a90acb9211bd6aef87106ed4
            eu: E 
            eu: S
        B :b | S
          E ERROR 26000: prepared statement "b" does not exist
          Z I
        B :c | S
          E ERROR 26000: prepared statement "c" does not exist
          Z I
        C S:a | S
          3
          Z I
        P :SELECT fail | B : | E | P b:SELECT 1 | S | P b:SELECT 1 | B :b | E | S
          1
          2
          E ERROR 01000: it fails
          Z I
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: P :SELECT fail
            eu: B :
            eu: E 
            eu: S
            eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
            eu: B :domicile_8654f43e5d759cd7fee32da0cadcd9ad
            eu: E 
            eu: S
        P b2:SELECT 1 | S
          1
          Z I
            eu: C domicile_8654f43e5d759cd7fee32da0cadcd9ad
            eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
            eu: S
        P :SELECT fail | B : | E | P b3:SELECT 1 | C S:b2 | S | B :b3 | S | B :b2 | E | S
          1
          2
          E ERROR 01000: it fails
          Z I
          E ERROR 26000: prepared statement "b3" does not exist
          Z I
          2
          D eu
          C SELECT 1
          Z I
            eu: P :SELECT fail
            eu: B :
            eu: E 
            eu: S
            eu: B :domicile_8654f43e5d759cd7fee32da0cadcd9ad
            eu: E 
            eu: S
    "#]],
    );
}

#[test]
fn a_failed_transaction_takes_no_statement() {
    check(
        two_backends(),
        "
        Q SET helios.region = 'eu'
        P a:SELECT 1 | S
        Q BEGIN
        Q SELECT fail
        P b:SELECT 1 | S
        P c:SELECT 2 | S
        B :a | E | S
        Q ROLLBACK
        B :b | S
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        P a:SELECT 1 | S
          1
          Z I
            eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
            eu: S
        Q BEGIN
          C BEGIN
          Z T
        Q SELECT fail
          E ERROR 01000: it fails
          Z E
            eu: Q BEGIN
            eu: Q SELECT fail
        P b:SELECT 1 | S
          E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
          Z E
        P c:SELECT 2 | S
          E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
          Z E
        B :a | E | S
          E ERROR 25P02: aborted (says the server)
          Z E
            eu: B :domicile_8654f43e5d759cd7fee32da0cadcd9ad
            eu: S
        Q ROLLBACK
          C ROLLBACK
          Z I
            eu: Q ROLLBACK
        B :b | S
          E ERROR 26000: prepared statement "b" does not exist
          Z I
    "#]],
    );
}

#[test]
fn the_unnamed_statement_outlives_its_backend() {
    check(
        two_backends(),
        "
        Q SET helios.region = 'eu'
        z> Q SET helios.region = 'eu'
        P :SELECT 1 | D S: | S
        B : | E | S
        z> Q BEGIN; SELECT 0
        B : | E | S
        B : | E | S
        z> Q COMMIT
        Q SELECT 2
        B : | E | S
        P :SELECT 1 | S
        C S: | B : | E | S
        P :SELECT fail | B : | E | P :SELECT 3 | S
        B : | E | S
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        z> Q SET helios.region = 'eu'
          z: C SET
          z: Z I
        P :SELECT 1 | D S: | S
          1
          t
          T
          Z I
            eu: P :SELECT 1
            eu: D 
            eu: S
        B : | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :
            eu: E 
            eu: S
        z> Q BEGIN; SELECT 0
          z: C BEGIN
          z: T
          z: D eu
          z: C SELECT 1
          z: Z T
            eu: Q BEGIN; SELECT 0
        B : | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: P :SELECT 1
            eu: B :
            eu: E 
            eu: S
        B : | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :
            eu: E 
            eu: S
        z> Q COMMIT
          z: C COMMIT
          z: Z I
            eu: Q COMMIT
        Q SELECT 2
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 2
        B : | E | S
          E ERROR 26000: unnamed prepared statement does not exist
          Z I
        P :SELECT 1 | S
          1
          Z I
            eu: P :SELECT 1
            eu: S
        C S: | B : | E | S
          3
          E ERROR 26000: unnamed prepared statement does not exist
          Z I
        P :SELECT fail | B : | E | P :SELECT 3 | S
          1
          2
          E ERROR 01000: it fails
          Z I
            eu: P :SELECT fail
            eu: B :
            eu: E 
            eu: S
        B : | E | S
          2
          E ERROR 01000: it fails
          Z I
            eu: B :
            eu: E 
            eu: S
    "#]],
    );
}
