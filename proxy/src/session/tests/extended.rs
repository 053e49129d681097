//! Parse, Bind, Describe, Execute, Close, Sync.

use expect_test::expect;

use super::world::{check, session_mode, transaction_mode};

#[test]
fn a_statement_from_parse_to_sync() {
    check(transaction_mode(), "
        P :SET helios.region = 'eu' | B : | D P: | E | S
        P :SELECT 1 | B : | D P: | E | S
        P :SELECT 1 | D S: | H
        B : | E | S
        S
        P :  | B : | D P: | E | S
    ", expect![[r#"
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
    "#]]);
}

#[test]
fn a_block_discards_up_to_sync() {
    check(transaction_mode(), "
        P :SET helios.region = 'antarctica' | B : | E | S
        P :SELECT 1 | B : | D P: | E | S
        P :SELECT 1 | S
        P :SET helios.region = 'eu' | B : | E | P :SELECT 1 | B : | E | S
    ", expect![[r#"
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
    "#]]);
}

#[test]
fn settings_are_undone_with_their_unit() {
    check(transaction_mode(), "
        P :SET helios.region = 'eu' | B : | E | P :SELECT fail | B : | E | S
        Q SHOW helios.region
        P :SET helios.region = 'antarctica' | B : | E | P :SELECT 1 | B : | E | S
        Q SHOW helios.region
        P :SET LOCAL helios.region = 'us' | B : | E | P :SELECT 1 | B : | E | S
        Q SHOW helios.region
    ", expect![[r#"
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
    "#]]);
}

#[test]
fn a_refusal_behind_statements_of_the_unit_aborts_them() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        P :INSERT 1 | B : | E | P :SET helios.region = 'us' | B : | E | P :INSERT 2 | B : | E | S
        P :INSERT 1 | B : | E | P :SET helios.region = 'eu' | B : | E | P :SELECT 2 | B : | E | S
        Q SHOW helios.region
        P :INSERT 1 | B : | E | P :LISTEN x | B : | E | S
    ", expect![[r#"
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
          E ERROR 0A000: LISTEN and UNLISTEN are not supported in transaction pooling mode (HINT)
          Z I
            eu: P :INSERT 1
            eu: B :
            eu: E 
            eu: E domicile: no such portal
            eu: S
    "#]]);
}

#[test]
fn transactions_in_units() {
    check(transaction_mode(), "
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
    ", expect![[r#"
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
        P :SELECT 1 | S
          E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
          Z E
        P :COMMIT | B : | E | S
          1
          2
          C ROLLBACK
          Z I
            eu: C domicile
            eu: P domicile:ROLLBACK
            eu: B :domicile
            eu: E 
            eu: S
        P :COMMIT | B : | E | S
          1
          2
          N WARNING 25P01: there is no transaction in progress
          C COMMIT
          Z I
    "#]]);
}

#[test]
fn named_statements_in_session_mode() {
    check(session_mode(), "
        Q SET helios.region = 'eu'
        P s:SELECT 1 | S
        B :s | E | S
        P r:SET helios.region = 'us' | P r:SELECT 1 | S
        P r:SET helios.region = 'us' | S
        B p:r | D S:r | E p | S
        B :s | E | S
        C S:r | B :r | S
        P x:SHOW helios.region | D S:x | B :x | D P: | E | S
    ", expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        P s:SELECT 1 | S
          1
          Z I
            eu: P s:SELECT 1
            eu: S
        B :s | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :s
            eu: E 
            eu: S
        P r:SET helios.region = 'us' | P r:SELECT 1 | S
          1
          E ERROR 42P05: prepared statement "r" already exists
          Z I
        P r:SET helios.region = 'us' | S
          E ERROR 42P05: prepared statement "r" already exists
          Z I
        B p:r | D S:r | E p | S
          2
          t
          n
          C SET
          Z I
        B :s | E | S
          N NOTICE 00000: the session leaves its region; prepared statements, temporary tables and settings made there are gone
          E ERROR 26000: prepared statement "s" does not exist
          Z I
            eu: Q DISCARD ALL
            us: B :s
            us: S
        C S:r | B :r | S
          3
          E ERROR 26000: prepared statement "r" does not exist
          Z I
            us: B :r
            us: S
        P x:SHOW helios.region | D S:x | B :x | D P: | E | S
          1
          t
          T
          2
          T
          D us
          C SHOW
          Z I
    "#]]);
}

#[test]
fn named_statements_in_transaction_mode_are_refused() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        P s:SELECT 1 | B :s | E | S
        C S:s | S
        P r:SET helios.region = 'us' | B :r | E | S
        B :r | E | S
    ", expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        P s:SELECT 1 | B :s | E | S
          E ERROR 0A000: named prepared statements are not supported in transaction pooling mode (HINT)
          Z I
        C S:s | S
          3
          Z I
        P r:SET helios.region = 'us' | B :r | E | S
          1
          2
          C SET
          Z I
        B :r | E | S
          2
          C SET
          Z I
    "#]]);
}

#[test]
fn pipelines_of_units() {
    check(transaction_mode(), "
        P :SET helios.region = 'eu' | B : | E | S | P :SELECT 1 | B : | E | S | P :SELECT fail | B : | E | P :SELECT 2 | S | P :SELECT 3 | B : | E | S
        P :SELECT 1 | B : | E | S | P :SET helios.region = 'us' | B : | E | S | P :SELECT 2 | B : | E | S
        P :SELECT 1 | B : | E | S | P :SET helios.region = 'antarctica' | B : | E | S | P :SELECT 2 | B : | E | S | Q SELECT 3
    ", expect![[r#"
        P :SET helios.region = 'eu' | B : | E | S | P :SELECT 1 | B : | E | S | P :SELECT fail | B : | E | P :SELECT 2 | S | P :SELECT 3 | B : | E | S
          1
          2
          C SET
          Z I
          1
          2
          D eu
          C SELECT 1
          Z I
          1
          2
          E ERROR 01000: it fails
          Z I
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: P :SELECT 1
            eu: B :
            eu: E 
            eu: S
            eu: P :SELECT fail
            eu: B :
            eu: E 
            eu: S
            eu: P :SELECT 3
            eu: B :
            eu: E 
            eu: S
        P :SELECT 1 | B : | E | S | P :SET helios.region = 'us' | B : | E | S | P :SELECT 2 | B : | E | S
          1
          2
          D eu
          C SELECT 1
          Z I
          1
          2
          C SET
          Z I
          1
          2
          D us
          C SELECT 1
          Z I
            eu: P :SELECT 1
            eu: B :
            eu: E 
            eu: S
            us: P :SELECT 2
            us: B :
            us: E 
            us: S
        P :SELECT 1 | B : | E | S | P :SET helios.region = 'antarctica' | B : | E | S | P :SELECT 2 | B : | E | S | Q SELECT 3
          1
          2
          D us
          C SELECT 1
          Z I
          1
          2
          C SET
          Z I
          audit: denied "antarctica" at Parse by residency.unbound
          E ERROR 42000: blocked: no in-region replica for user
          Z I
          audit: denied "antarctica" at Query by residency.unbound
          E ERROR 42000: blocked: no in-region replica for user
          Z I
            us: P :SELECT 1
            us: B :
            us: E 
            us: S
    "#]]);
}

#[test]
fn copy_in_the_extended_protocol() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        P :COPY t FROM STDIN | B : | E
        d 1 | c | S
        P :COPY t FROM STDIN | B : | E | S
        d 1 | c | S
        P :COPY t FROM STDIN | B : | E
        d 1 | f no | S
        P :COPY t TO STDOUT | B : | E | S
        Q SELECT 1
    ", expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        P :COPY t FROM STDIN | B : | E
          1
          2
          G
            eu: P :COPY t FROM STDIN
            eu: B :
            eu: E 
        d 1 | c | S
          C COPY 1
          Z I
            eu: d
            eu: c
            eu: S
        P :COPY t FROM STDIN | B : | E | S
          1
          2
          G
            eu: P :COPY t FROM STDIN
            eu: B :
            eu: E 
            eu: S
        d 1 | c | S
          C COPY 1
          Z I
            eu: d
            eu: c
            eu: S
        P :COPY t FROM STDIN | B : | E
          1
          2
          G
            eu: P :COPY t FROM STDIN
            eu: B :
            eu: E 
        d 1 | f no | S
          E ERROR 57014: COPY from stdin failed
          Z I
            eu: d
            eu: f
            eu: S
        P :COPY t TO STDOUT | B : | E | S
          1
          2
          H
          d
          c
          C COPY 1
          Z I
            eu: P :COPY t TO STDOUT
            eu: B :
            eu: E 
            eu: S
        Q SELECT 1
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 1
    "#]]);
}

#[test]
fn a_query_behind_messages_without_sync() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        P :SELECT 1 | B : | E | Q SELECT 2
        S
        P :SELECT 1 | B : | E | Q SET helios.region = 'us'
        S
    ", expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        P :SELECT 1 | B : | E | Q SELECT 2
          1
          2
          D eu
          C SELECT 1
          T
          D eu
          C SELECT 1
          Z I
            eu: P :SELECT 1
            eu: B :
            eu: E 
            eu: Q SELECT 2
        S
          Z I
            eu: S
        P :SELECT 1 | B : | E | Q SET helios.region = 'us'
          1
          2
          D eu
          C SELECT 1
          E ERROR 25001: the region cannot change after a statement of the transaction has run (HINT)
          Z I
            eu: P :SELECT 1
            eu: B :
            eu: E 
            eu: E domicile: no such portal
            eu: S
        S
          Z I
    "#]]);
}

#[test]
fn wrong_counts_and_hidden_bytes() {
    check(transaction_mode(), "
        P :SHOW helios.region | S
        raw 42 00 00 00 10 00 00 00 00 00 01 00 00 00 00 00 00 | S
        raw 51 00 00 00 0a 61 00 62 62 62 00
        raw 45 00 00 00 05 00 | S
        Q SHOW helios.region
        raw 7a 00 00 00 04
    ", expect![[r#"
        P :SHOW helios.region | S
          1
          Z I
        raw 42 00 00 00 10 00 00 00 00 00 01 00 00 00 00 00 00 | S
          E ERROR 08P01: bind message supplies 1 parameters, but prepared statement "" requires 0
          Z I
        raw 51 00 00 00 0a 61 00 62 62 62 00
          E ERROR 08P01: invalid message format
          Z I
        raw 45 00 00 00 05 00 | S
          E ERROR 08P01: invalid message format
          Z I
        Q SHOW helios.region
          T
          D 
          C SHOW
          Z I
        raw 7a 00 00 00 04
          E FATAL 08P01: invalid frontend message type 122
          closed
    "#]]);
}
