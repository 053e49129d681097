//! Transactions that change the region, that no backend sees, or whose grant shrinks.

use expect_test::expect;

use super::world::{Setup, bound_to, check, session_mode, transaction_mode};

#[test]
fn savepoints_and_set_local() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        Q BEGIN; SET LOCAL helios.region = 'us'; SAVEPOINT s; SET helios.region = 'us'; ROLLBACK TO s
        Q COMMIT
        Q SHOW helios.region
        Q BEGIN; SET LOCAL helios.region = 'us'; SELECT 1
        Q COMMIT AND CHAIN
        Q ROLLBACK
        Q BEGIN; SET LOCAL helios.region = 'us'; SELECT 1; COMMIT; SELECT 2
        Q BEGIN; SET LOCAL helios.region = 'us'; SELECT 1
        Q COMMIT; SELECT 2
        Q ROLLBACK
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q BEGIN; SET LOCAL helios.region = 'us'; SAVEPOINT s; SET helios.region = 'us'; ROLLBACK TO s
          C BEGIN
          C SET
          C SAVEPOINT
          C SET
          C ROLLBACK
          Z T
            us: Q BEGIN;                               ; SAVEPOINT s;                         ; ROLLBACK TO s
        Q COMMIT
          C COMMIT
          Z I
            us: Q COMMIT
        Q SHOW helios.region
          T
          D eu
          C SHOW
          Z I
        Q BEGIN; SET LOCAL helios.region = 'us'; SELECT 1
          C BEGIN
          C SET
          T
          D us
          C SELECT 1
          Z T
            us: Q BEGIN;                               ; SELECT 1
        Q COMMIT AND CHAIN
          E ERROR 0A000: the end of this transaction changes the region, and statements that follow it would run in another one (HINT)
          Z E
            us: E domicile: no such portal
            us: S
        Q ROLLBACK
          C ROLLBACK
          Z I
            us: Q ROLLBACK
        Q BEGIN; SET LOCAL helios.region = 'us'; SELECT 1; COMMIT; SELECT 2
          E ERROR 0A000: the end of this transaction changes the region, and statements that follow it would run in another one (HINT)
          Z I
        Q BEGIN; SET LOCAL helios.region = 'us'; SELECT 1
          C BEGIN
          C SET
          T
          D us
          C SELECT 1
          Z T
            us: Q BEGIN;                               ; SELECT 1
        Q COMMIT; SELECT 2
          E ERROR 0A000: the end of this transaction changes the region, and statements that follow it would run in another one (HINT)
          Z E
            us: E domicile: no such portal
            us: S
        Q ROLLBACK
          C ROLLBACK
          Z I
            us: Q ROLLBACK
    "#]],
    );
}

#[test]
fn transactions_that_no_backend_sees() {
    check(
        transaction_mode(),
        "
        Q BEGIN
        Q BEGIN
        Q SET helios.region = 'eu'
        Q ROLLBACK
        Q SHOW helios.region
        Q BEGIN; SET helios.region = 'eu'; COMMIT
        Q SHOW helios.region
        Q BEGIN; COMMIT; SELECT 1
        Q BEGIN
        Q SET LOCAL helios.region = 'us'
        Q COMMIT; SELECT 1
        Q COMMIT AND CHAIN
        Q BEGIN
        Q COMMIT AND CHAIN
        Q ROLLBACK
    ",
        expect![[r#"
        Q BEGIN
          C BEGIN
          Z T
        Q BEGIN
          N WARNING 25001: there is already a transaction in progress
          C BEGIN
          Z T
        Q SET helios.region = 'eu'
          C SET
          Z T
        Q ROLLBACK
          C ROLLBACK
          Z I
        Q SHOW helios.region
          T
          D 
          C SHOW
          Z I
        Q BEGIN; SET helios.region = 'eu'; COMMIT
          C BEGIN
          C SET
          C COMMIT
          Z I
        Q SHOW helios.region
          T
          D eu
          C SHOW
          Z I
        Q BEGIN; COMMIT; SELECT 1
          C BEGIN
          C COMMIT
          T
          D eu
          C SELECT 1
          Z I
            eu: Q      ;       ; SELECT 1
        Q BEGIN
          C BEGIN
          Z T
        Q SET LOCAL helios.region = 'us'
          C SET
          Z T
        Q COMMIT; SELECT 1
          C COMMIT
          T
          D eu
          C SELECT 1
          Z I
            eu: Q       ; SELECT 1
        Q COMMIT AND CHAIN
          E ERROR 25P01: COMMIT AND CHAIN can only be used in transaction blocks
          Z I
        Q BEGIN
          C BEGIN
          Z T
        Q COMMIT AND CHAIN
          C COMMIT
          Z T
        Q ROLLBACK
          C ROLLBACK
          Z I
    "#]],
    );
}

#[test]
fn set_transaction_waits_with_begin() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        Q BEGIN ISOLATION LEVEL SERIALIZABLE
        Q SET TRANSACTION READ ONLY
        Q SET LOCAL helios.region = 'us'
        Q SELECT 1
        Q COMMIT
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q BEGIN ISOLATION LEVEL SERIALIZABLE
          C BEGIN
          Z T
        Q SET TRANSACTION READ ONLY
          C SET
          Z T
        Q SET LOCAL helios.region = 'us'
          C SET
          Z T
        Q SELECT 1
          T
          D us
          C SELECT 1
          Z T
            us: Q BEGIN ISOLATION LEVEL SERIALIZABLE;SET TRANSACTION READ ONLY
            us: Q SELECT 1
        Q COMMIT
          C COMMIT
          Z I
            us: Q COMMIT
    "#]],
    );
}

#[test]
fn settings_of_others_before_the_first_statement() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        Q BEGIN
        Q SET work_mem = '1'; COMMIT
        Q BEGIN
        Q SET work_mem = '1'
        Q COMMIT
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q BEGIN
          C BEGIN
          Z T
        Q SET work_mem = '1'; COMMIT
          N NOTICE 00000: this session keeps its server connection from now on: SET (HINT)
          C SET
          C COMMIT
          Z I
            eu: Q BEGIN
            eu: Q SET work_mem = '1'; COMMIT
        Q BEGIN
          C BEGIN
          Z T
        Q SET work_mem = '1'
          C SET
          Z T
            eu: Q BEGIN
            eu: Q SET work_mem = '1'
        Q COMMIT
          C COMMIT
          Z I
            eu: Q COMMIT
    "#]],
    );
}

#[test]
fn a_grant_that_shrinks_under_an_open_transaction() {
    check(
        Setup { source: bound_to(&["eu", "us"]), ..transaction_mode() },
        "
        Q BEGIN
        Q SELECT 1
        !grant us
        Q SELECT 2
        Q COMMIT
        Q BEGIN; SET helios.region = 'us'; SELECT 3
        Q COMMIT
        !grant eu us
        Q SET helios.region = 'eu'
        Q BEGIN; SELECT 1
        !grant us
        Q ROLLBACK
        Q SELECT 4
        Q SET helios.region = 'us'
        Q SELECT 5
    ",
        expect![[r#"
        Q BEGIN
          C BEGIN
          Z T
        Q SELECT 1
          T
          D eu
          C SELECT 1
          Z T
            eu: Q BEGIN
            eu: Q SELECT 1
        !grant us
        Q SELECT 2
          audit: denied "eu" at Query by residency.bind[0]
          E ERROR 42501: permission denied for region "eu"
          Z E
            eu: E domicile: no such portal
            eu: S
        Q COMMIT
          C ROLLBACK
          Z I
            eu: Q COMMIT
        Q BEGIN; SET helios.region = 'us'; SELECT 3
          C BEGIN
          C SET
          T
          D us
          C SELECT 1
          Z T
            us: Q BEGIN;                         ; SELECT 3
        Q COMMIT
          C COMMIT
          Z I
            us: Q COMMIT
        !grant eu us
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
        !grant us
        Q ROLLBACK
          C ROLLBACK
          Z I
            eu: Q ROLLBACK
        Q SELECT 4
          audit: denied "eu" at Query by residency.bind[0]
          E ERROR 42501: permission denied for region "eu"
          Z I
        Q SET helios.region = 'us'
          C SET
          Z I
        Q SELECT 5
          T
          D us
          C SELECT 1
          Z I
            us: Q SELECT 5
    "#]],
    );
}

#[test]
fn session_mode_waits_with_begin_too() {
    check(
        session_mode(),
        "
        Q SET helios.region = 'eu'; SELECT 1
        Q BEGIN
        Q SET LOCAL helios.region = 'us'
        Q SELECT 2
        Q COMMIT
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
        Q BEGIN
          C BEGIN
          Z T
        Q SET LOCAL helios.region = 'us'
          C SET
          Z T
        Q SELECT 2
          N NOTICE 00000: the session leaves its region; prepared statements, temporary tables and settings made there are gone
          T
          D us
          C SELECT 1
          Z T
            eu: Q DISCARD ALL
            us: Q BEGIN
            us: Q SELECT 2
        Q COMMIT
          C COMMIT
          Z I
            us: Q COMMIT
        Q SELECT 3
          N NOTICE 00000: the session leaves its region; prepared statements, temporary tables and settings made there are gone
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 3
            us: Q DISCARD ALL
    "#]],
    );
}
