//! BEGIN to COMMIT, and what the proxy's own errors do to it.

use expect_test::expect;

use super::world::{check, transaction_mode};

#[test]
fn begin_waits_for_the_first_statement() {
    check(
        transaction_mode(),
        "
        Q BEGIN
        Q SET LOCAL helios.region = 'eu'
        Q SELECT 1
        Q SELECT 2
        Q COMMIT
        Q SHOW helios.region
        Q BEGIN; SET LOCAL helios.region = 'us'; SELECT 1
        Q COMMIT
        Q START TRANSACTION; SET helios.region = 'us'; SELECT 1; COMMIT
        Q SHOW helios.region
    ",
        expect![[r#"
        Q BEGIN
          C BEGIN
          Z T
        Q SET LOCAL helios.region = 'eu'
          C SET
          Z T
        Q SELECT 1
          T
          D eu
          C SELECT 1
          Z T
            eu: Q BEGIN
            eu: Q SELECT 1
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
        Q SHOW helios.region
          T
          D 
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
        Q COMMIT
          C COMMIT
          Z I
            us: Q COMMIT
        Q START TRANSACTION; SET helios.region = 'us'; SELECT 1; COMMIT
          C BEGIN
          C SET
          T
          D us
          C SELECT 1
          C COMMIT
          Z I
            us: Q START TRANSACTION;                         ; SELECT 1; COMMIT
        Q SHOW helios.region
          T
          D us
          C SHOW
          Z I
    "#]],
    );
}

#[test]
fn a_block_fails_the_transaction_and_rollback_ends_it() {
    check(
        transaction_mode(),
        "
        Q BEGIN
        Q SET helios.region = 'antarctica'
        Q SELECT 1
        Q SELECT 2
        Q SHOW helios.region
        Q SAVEPOINT s
        Q ROLLBACK TO s
        Q COMMIT
        Q SHOW helios.region
        Q SET helios.region = 'eu'; SELECT 3
    ",
        expect![[r#"
        Q BEGIN
          C BEGIN
          Z T
        Q SET helios.region = 'antarctica'
          C SET
          Z T
        Q SELECT 1
          audit: denied "antarctica" at Query by residency.unbound
          E ERROR 42000: blocked: no in-region replica for user
          Z E
        Q SELECT 2
          E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
          Z E
        Q SHOW helios.region
          E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
          Z E
        Q SAVEPOINT s
          E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
          Z E
        Q ROLLBACK TO s
          E ERROR 3B001: savepoint "s" does not exist
          Z E
        Q COMMIT
          C ROLLBACK
          Z I
        Q SHOW helios.region
          T
          D 
          C SHOW
          Z I
        Q SET helios.region = 'eu'; SELECT 3
          C SET
          T
          D eu
          C SELECT 1
          Z I
            eu: Q                         ; SELECT 3
    "#]],
    );
}

#[test]
fn a_block_in_the_message_that_begins_the_transaction() {
    check(
        transaction_mode(),
        "
        Q BEGIN; SET helios.region = 'antarctica'; SELECT 1
        Q SELECT 1
        Q ROLLBACK
        Q SHOW helios.region
    ",
        expect![[r#"
        Q BEGIN; SET helios.region = 'antarctica'; SELECT 1
          audit: denied "antarctica" at Query by residency.unbound
          C BEGIN
          C SET
          E ERROR 42000: blocked: no in-region replica for user
          Z E
        Q SELECT 1
          E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
          Z E
        Q ROLLBACK
          C ROLLBACK
          Z I
        Q SHOW helios.region
          T
          D 
          C SHOW
          Z I
    "#]],
    );
}

#[test]
fn a_refusal_inside_an_open_transaction_leaves_the_backend_waiting_for_rollback() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        Q BEGIN
        Q SELECT 1
        Q SAVEPOINT s
        Q SET helios.region = 'us'
        Q SELECT 2
        Q ROLLBACK TO s
        Q SELECT 3
        Q SET helios.region = 'us'
        Q COMMIT
        Q SELECT 4
        Q BEGIN; SELECT 1
        Q SET helios.region = 'us'
        Q ROLLBACK; SELECT 5
        Q BEGIN; SELECT 1
        Q SET helios.region = 'us'
        Q ROLLBACK AND CHAIN
        Q COMMIT
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
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
        Q SAVEPOINT s
          C SAVEPOINT
          Z T
            eu: Q SAVEPOINT s
        Q SET helios.region = 'us'
          E ERROR 25001: the region cannot change after a statement of the transaction has run (HINT)
          Z E
            eu: E domicile: no such portal
            eu: S
        Q SELECT 2
          E ERROR 25P02: aborted (says the server)
          Z E
            eu: Q SELECT 2
        Q ROLLBACK TO s
          C ROLLBACK
          Z T
            eu: Q ROLLBACK TO s
        Q SELECT 3
          T
          D eu
          C SELECT 1
          Z T
            eu: Q SELECT 3
        Q SET helios.region = 'us'
          E ERROR 25001: the region cannot change after a statement of the transaction has run (HINT)
          Z E
            eu: E domicile: no such portal
            eu: S
        Q COMMIT
          C ROLLBACK
          Z I
            eu: Q COMMIT
        Q SELECT 4
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 4
        Q BEGIN; SELECT 1
          C BEGIN
          T
          D eu
          C SELECT 1
          Z T
            eu: Q BEGIN; SELECT 1
        Q SET helios.region = 'us'
          E ERROR 25001: the region cannot change after a statement of the transaction has run (HINT)
          Z E
            eu: E domicile: no such portal
            eu: S
        Q ROLLBACK; SELECT 5
          C ROLLBACK
          T
          D eu
          C SELECT 1
          Z I
            eu: Q ROLLBACK; SELECT 5
        Q BEGIN; SELECT 1
          C BEGIN
          T
          D eu
          C SELECT 1
          Z T
            eu: Q BEGIN; SELECT 1
        Q SET helios.region = 'us'
          E ERROR 25001: the region cannot change after a statement of the transaction has run (HINT)
          Z E
            eu: E domicile: no such portal
            eu: S
        Q ROLLBACK AND CHAIN
          C ROLLBACK
          Z T
            eu: Q ROLLBACK AND CHAIN
        Q COMMIT
          C COMMIT
          Z I
            eu: Q COMMIT
    "#]],
    );
}

#[test]
fn errors_of_the_server_are_the_servers() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        Q BEGIN
        Q SELECT fail
        Q SELECT 1
        Q SET helios.region = 'eu'
        Q COMMIT
        Q SELECT 2
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q BEGIN
          C BEGIN
          Z T
        Q SELECT fail
          E ERROR 01000: it fails
          Z E
            eu: Q BEGIN
            eu: Q SELECT fail
        Q SELECT 1
          E ERROR 25P02: aborted (says the server)
          Z E
            eu: Q SELECT 1
        Q SET helios.region = 'eu'
          E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
          Z E
        Q COMMIT
          C ROLLBACK
          Z I
            eu: Q COMMIT
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
fn begin_that_the_server_refuses() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        Q BEGIN DEFERRABLE
        Q SELECT 1
        Q SELECT 2
        Q ROLLBACK
        P :BEGIN DEFERRABLE | B : | E | P :SELECT 1 | B : | E | S
        P :ROLLBACK | B : | E | S
        P :BEGIN DEFERRABLE | B : | E | P :SAVEPOINT s | B : | E | S
        Q ROLLBACK
        Q BEGIN DEFERRABLE
        F
        Q ROLLBACK
        Q SELECT 3
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q BEGIN DEFERRABLE
          C BEGIN
          Z T
        Q SELECT 1
          E ERROR 22023: bad transaction mode
          Z E
            eu: Q BEGIN DEFERRABLE
        Q SELECT 2
          E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
          Z E
        Q ROLLBACK
          C ROLLBACK
          Z I
        P :BEGIN DEFERRABLE | B : | E | P :SELECT 1 | B : | E | S
          1
          2
          C BEGIN
          E ERROR 22023: bad transaction mode
          Z E
            eu: Q BEGIN DEFERRABLE
        P :ROLLBACK | B : | E | S
          1
          2
          C ROLLBACK
          Z I
        P :BEGIN DEFERRABLE | B : | E | P :SAVEPOINT s | B : | E | S
          1
          2
          C BEGIN
          1
          2
          E ERROR 22023: bad transaction mode
          Z E
            eu: Q BEGIN DEFERRABLE
        Q ROLLBACK
          C ROLLBACK
          Z I
        Q BEGIN DEFERRABLE
          C BEGIN
          Z T
        F
          E ERROR 22023: bad transaction mode
          Z E
            eu: Q BEGIN DEFERRABLE
        Q ROLLBACK
          C ROLLBACK
          Z I
        Q SELECT 3
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 3
    "#]],
    );
}
