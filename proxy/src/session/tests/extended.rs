//! Parse, Bind, Describe, Execute, Close, Sync.

use expect_test::expect;

use super::world::{Setup, bound_to, check, transaction_mode};

#[test]
fn a_statement_from_parse_to_sync() {
    check(
        transaction_mode(),
        "
        P :SET helios.region = 'eu' | B : | D P: | E | S
        P :SELECT 1 | B : | D P: | E | S
        P :SELECT 1 | D S: | H
        B : | E | S
        S
        P :  | B : | D P: | E | S
    ",
        expect![[r#"
        P :SET helios.region = 'eu' | B : | D P: | E | S
          1
          2
          n
          C SET
          Z I
        P :SELECT 1 | B : | D P: | E | S
          1
          2
          T
          D eu
          C SELECT 1
          Z I
            eu: P :SELECT 1
            eu: B :
            eu: D 
            eu: E 
            eu: S
        P :SELECT 1 | D S: | H
          1
          t
          T
            eu: P :SELECT 1
            eu: D 
        B : | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :
            eu: E 
            eu: S
        S
          Z I
        P :  | B : | D P: | E | S
          1
          2
          n
          I
          Z I
    "#]],
    );
}

#[test]
fn a_block_discards_up_to_sync() {
    check(
        transaction_mode(),
        "
        P :SET helios.region = 'antarctica' | B : | E | S
        P :SELECT 1 | B : | D P: | E | S
        P :SELECT 1 | S
        P :SET helios.region = 'eu' | B : | E | P :SELECT 1 | B : | E | S
    ",
        expect![[r#"
        P :SET helios.region = 'antarctica' | B : | E | S
          1
          2
          C SET
          Z I
        P :SELECT 1 | B : | D P: | E | S
          audit: denied "antarctica" at Parse by residency.unbound
          E ERROR 42000: blocked: no in-region replica for user
          Z I
        P :SELECT 1 | S
          audit: denied "antarctica" at Parse by residency.unbound
          E ERROR 42000: blocked: no in-region replica for user
          Z I
        P :SET helios.region = 'eu' | B : | E | P :SELECT 1 | B : | E | S
          1
          2
          C SET
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: P :SELECT 1
            eu: B :
            eu: E 
            eu: S
    "#]],
    );
}

#[test]
fn settings_are_undone_with_their_unit() {
    check(
        transaction_mode(),
        "
        P :SET helios.region = 'eu' | B : | E | P :SELECT fail | B : | E | S
        Q SHOW helios.region
        P :SET helios.region = 'antarctica' | B : | E | P :SELECT 1 | B : | E | S
        Q SHOW helios.region
        P :SET LOCAL helios.region = 'us' | B : | E | P :SELECT 1 | B : | E | S
        Q SHOW helios.region
    ",
        expect![[r#"
        P :SET helios.region = 'eu' | B : | E | P :SELECT fail | B : | E | S
          1
          2
          C SET
          1
          2
          E ERROR 01000: it fails
          Z I
            eu: P :SELECT fail
            eu: B :
            eu: E 
            eu: S
        Q SHOW helios.region
          T
          D 
          C SHOW
          Z I
        P :SET helios.region = 'antarctica' | B : | E | P :SELECT 1 | B : | E | S
          1
          2
          C SET
          audit: denied "antarctica" at Parse by residency.unbound
          E ERROR 42000: blocked: no in-region replica for user
          Z I
        Q SHOW helios.region
          T
          D 
          C SHOW
          Z I
        P :SET LOCAL helios.region = 'us' | B : | E | P :SELECT 1 | B : | E | S
          1
          2
          N WARNING 25P01: SET LOCAL can only be used in transaction blocks
          C SET
          1
          2
          D us
          C SELECT 1
          Z I
            us: P :SELECT 1
            us: B :
            us: E 
            us: S
        Q SHOW helios.region
          T
          D 
          C SHOW
          Z I
    "#]],
    );
}

#[test]
fn a_refusal_behind_statements_of_the_unit_aborts_them() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        P :INSERT 1 | B : | E | P :SET helios.region = 'us' | B : | E | P :INSERT 2 | B : | E | S
        P :INSERT 1 | B : | E | P :SET helios.region = 'eu' | B : | E | P :SELECT 2 | B : | E | S
        Q SHOW helios.region
        P :INSERT 1 | B : | E | P :LISTEN x | B : | E | S
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        P :INSERT 1 | B : | E | P :SET helios.region = 'us' | B : | E | P :INSERT 2 | B : | E | S
          1
          2
          C INSERT 0 1
          1
          2
          E ERROR 25001: the region cannot change after a statement of the transaction has run (HINT)
          Z I
            eu: P :INSERT 1
            eu: B :
            eu: E 
            eu: E domicile: no such portal
            eu: S
        P :INSERT 1 | B : | E | P :SET helios.region = 'eu' | B : | E | P :SELECT 2 | B : | E | S
          1
          2
          C INSERT 0 1
          1
          2
          C SET
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: P :INSERT 1
            eu: B :
            eu: E 
            eu: P :SELECT 2
            eu: B :
            eu: E 
            eu: S
        Q SHOW helios.region
          T
          D eu
          C SHOW
          Z I
        P :INSERT 1 | B : | E | P :LISTEN x | B : | E | S
          1
          2
          C INSERT 0 1
          1
          N NOTICE 00000: this session keeps its server connection from now on: LISTEN (HINT)
          2
          C LISTEN
          Z I
            eu: P :INSERT 1
            eu: B :
            eu: E 
            eu: P :LISTEN x
            eu: B :
            eu: E 
            eu: S
    "#]],
    );
}

#[test]
fn transactions_in_units() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        P :BEGIN | B : | E | P :SELECT 1 | B : | E | S
        P :COMMIT | B : | D P: | E | S
        P :BEGIN | B : | E | S
        P :SET LOCAL helios.region = 'us' | B : | E | S
        P :SELECT 1 | B : | E | S
        P :SAVEPOINT s | B : | E | S
        P :SELECT fail | B : | E | S
        P :SELECT 1 | B : | E | S
        P :ROLLBACK TO s | B : | E | S
        P :COMMIT | B : | E | S
        Q SHOW helios.region
        P :BEGIN | B : | E | P :SELECT 1 | B : | E | P :COMMIT | B : | E | S
        P :BEGIN | B : | E | P :SET helios.region = 'antarctica' | B : | E | P :SELECT 1 | B : | E | S
        P :SELECT 1 | S
        P :ROLLBACK | B : | E | S
        P :BEGIN | B : | E | P :SELECT 1 | B : | E | S
        P :SET helios.region = 'us' | B : | E | S
        P :SELECT 1 | S
        P :COMMIT | B : | E | S
        P :COMMIT | B : | E | S
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        P :BEGIN | B : | E | P :SELECT 1 | B : | E | S
          1
          2
          C BEGIN
          1
          2
          D eu
          C SELECT 1
          Z T
            eu: Q BEGIN
            eu: P :SELECT 1
            eu: B :
            eu: E 
            eu: S
        P :COMMIT | B : | D P: | E | S
          1
          2
          n
          C COMMIT
          Z I
            eu: C domicile
            eu: P domicile:COMMIT
            eu: B :domicile
            eu: E 
            eu: S
        P :BEGIN | B : | E | S
          1
          2
          C BEGIN
          Z T
        P :SET LOCAL helios.region = 'us' | B : | E | S
          1
          2
          C SET
          Z T
        P :SELECT 1 | B : | E | S
          1
          2
          D us
          C SELECT 1
          Z T
            us: Q BEGIN
            us: P :SELECT 1
            us: B :
            us: E 
            us: S
        P :SAVEPOINT s | B : | E | S
          1
          2
          C SAVEPOINT
          Z T
            us: C domicile
            us: P domicile:SAVEPOINT s
            us: B :domicile
            us: E 
            us: S
        P :SELECT fail | B : | E | S
          1
          2
          E ERROR 01000: it fails
          Z E
            us: P :SELECT fail
            us: B :
            us: E 
            us: S
        P :SELECT 1 | B : | E | S
          E ERROR 25P02: aborted (says the server)
          Z E
            us: P :SELECT 1
            us: S
        P :ROLLBACK TO s | B : | E | S
          1
          2
          C ROLLBACK
          Z T
            us: C domicile
            us: P domicile:ROLLBACK TO s
            us: B :domicile
            us: E 
            us: S
        P :COMMIT | B : | E | S
          1
          2
          C COMMIT
          Z I
            us: C domicile
            us: P domicile:COMMIT
            us: B :domicile
            us: E 
            us: S
        Q SHOW helios.region
          T
          D eu
          C SHOW
          Z I
        P :BEGIN | B : | E | P :SELECT 1 | B : | E | P :COMMIT | B : | E | S
          1
          2
          C BEGIN
          1
          2
          D eu
          C SELECT 1
          1
          2
          C COMMIT
          Z I
            eu: Q BEGIN
            eu: P :SELECT 1
            eu: B :
            eu: E 
            eu: C domicile
            eu: P domicile:COMMIT
            eu: B :domicile
            eu: E 
            eu: S
        P :BEGIN | B : | E | P :SET helios.region = 'antarctica' | B : | E | P :SELECT 1 | B : | E | S
          1
          2
          C BEGIN
          1
          2
          C SET
          audit: denied "antarctica" at Parse by residency.unbound
          E ERROR 42000: blocked: no in-region replica for user
          Z E
        P :SELECT 1 | S
          E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
          Z E
        P :ROLLBACK | B : | E | S
          1
          2
          C ROLLBACK
          Z I
        P :BEGIN | B : | E | P :SELECT 1 | B : | E | S
          1
          2
          C BEGIN
          1
          2
          D eu
          C SELECT 1
          Z T
            eu: Q BEGIN
            eu: P :SELECT 1
            eu: B :
            eu: E 
            eu: S
        P :SET helios.region = 'us' | B : | E | S
          1
          2
          E ERROR 25001: the region cannot change after a statement of the transaction has run (HINT)
          Z E
            eu: E domicile: no such portal
            eu: S
        P :SELECT 1 | S
          E ERROR 25P02: aborted (says the server)
          Z E
            eu: P :SELECT 1
            eu: S
        P :COMMIT | B : | E | S
          1
          2
          C ROLLBACK
          Z I
            eu: C domicile
            eu: P domicile:COMMIT
            eu: B :domicile
            eu: E 
            eu: S
        P :COMMIT | B : | E | S
          1
          2
          N WARNING 25P01: there is no transaction in progress
          C COMMIT
          Z I
    "#]],
    );
}

#[test]
fn rollback_is_let_through_when_the_grant_has_shrunk() {
    check(
        Setup { source: bound_to(&["eu", "us"]), ..transaction_mode() },
        "
        P :BEGIN | B : | E | P :SELECT 1 | B : | E | S
        !grant us
        P :ROLLBACK | B : | E | S
        P :SELECT 1 | B : | E | S
    ",
        expect![[r#"
        P :BEGIN | B : | E | P :SELECT 1 | B : | E | S
          1
          2
          C BEGIN
          1
          2
          D eu
          C SELECT 1
          Z T
            eu: Q BEGIN
            eu: P :SELECT 1
            eu: B :
            eu: E 
            eu: S
        !grant us
        P :ROLLBACK | B : | E | S
          1
          2
          C ROLLBACK
          Z I
            eu: C domicile
            eu: P domicile:ROLLBACK
            eu: B :domicile
            eu: E 
            eu: S
        P :SELECT 1 | B : | E | S
          audit: denied "eu" at Parse by residency.bind[0]
          E ERROR 42501: permission denied for region "eu"
          Z I
    "#]],
    );
}
