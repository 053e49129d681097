//! The extended protocol across units: named statements, pipelines, COPY, and what does not fit together.

use expect_test::expect;

use super::world::{check, session_mode, transaction_mode};

#[test]
fn named_statements_in_session_mode() {
    check(
        session_mode(),
        "
        Q SET helios.region = 'eu'
        P s:SELECT 1 | S
        B :s | E | S
        P r:SET helios.region = 'us' | P r:SELECT 1 | S
        P r:SET helios.region = 'us' | S
        B p:r | D S:r | E p | S
        B :s | E | S
        C S:r | B :r | S
        P x:SHOW helios.region | D S:x | B :x | D P: | E | S
    ",
        expect![[r#"
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
    "#]],
    );
}

#[test]
fn named_statements_in_transaction_mode_are_refused() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        P s:SELECT 1 | B :s | E | S
        C S:s | S
        P r:SET helios.region = 'us' | B :r | E | S
        B :r | E | S
    ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            P s:SELECT 1 | B :s | E | S
              1
              2
              D eu
              C SELECT 1
              Z I
                eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
                eu: B :domicile_8654f43e5d759cd7fee32da0cadcd9ad
                eu: E 
                eu: S
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
        "#]],
    );
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
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        P :COPY t FROM STDIN | B : | E
        d 1 | c | S
        P :COPY t FROM STDIN | B : | E | S
        d 1 | c | S
        P :COPY t FROM STDIN | B : | E
        d 1 | f no | S
        P :COPY t TO STDOUT | B : | E | S
        Q SELECT 1
    ",
        expect![[r#"
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
    "#]],
    );
}

#[test]
fn a_query_behind_messages_without_sync() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        P :SELECT 1 | B : | E | Q SELECT 2
        S
        P :SELECT 1 | B : | E | Q SET helios.region = 'us'
        S
    ",
        expect![[r#"
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
    "#]],
    );
}

#[test]
fn wrong_counts_and_hidden_bytes() {
    check(
        transaction_mode(),
        "
        P :SHOW helios.region | S
        raw 42 00 00 00 10 00 00 00 00 00 01 00 00 00 00 00 00 | S
        raw 51 00 00 00 0a 61 00 62 62 62 00
        raw 45 00 00 00 05 00 | S
        Q SHOW helios.region
        raw 7a 00 00 00 04
    ",
        expect![[r#"
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
    "#]],
    );
}

#[test]
fn a_sync_or_flush_with_a_body_is_an_error_as_in_a_server() {
    check(
        transaction_mode(),
        "
        raw 53 00 00 00 05 78
        raw 48 00 00 00 05 78 | P :SELECT 1 | S
        Q BEGIN
        raw 53 00 00 00 05 78
        Q ROLLBACK
        Q SET helios.region = 'eu'; SELECT 1
        P :SELECT 2 | B : | E | raw 53 00 00 00 05 78
        P :SELECT 3 | raw 48 00 00 00 05 78 | B : | S
        Q BEGIN; SELECT 4
        raw 53 00 00 00 05 78
        Q ROLLBACK
    ",
        expect![[r#"
            raw 53 00 00 00 05 78
              E ERROR 08P01: invalid message format
              Z I
            raw 48 00 00 00 05 78 | P :SELECT 1 | S
              E ERROR 08P01: invalid message format
              Z I
            Q BEGIN
              C BEGIN
              Z T
            raw 53 00 00 00 05 78
              E ERROR 08P01: invalid message format
              Z E
            Q ROLLBACK
              C ROLLBACK
              Z I
            Q SET helios.region = 'eu'; SELECT 1
              C SET
              T
              D eu
              C SELECT 1
              Z I
                eu: Q                         ; SELECT 1
            P :SELECT 2 | B : | E | raw 53 00 00 00 05 78
              1
              2
              D eu
              C SELECT 1
              E ERROR 08P01: invalid message format
              Z I
                eu: P :SELECT 2
                eu: B :
                eu: E 
                eu: S
            P :SELECT 3 | raw 48 00 00 00 05 78 | B : | S
              1
              E ERROR 08P01: invalid message format
              Z I
                eu: P :SELECT 3
                eu: E domicile: no such portal
                eu: S
            Q BEGIN; SELECT 4
              C BEGIN
              T
              D eu
              C SELECT 1
              Z T
                eu: Q BEGIN; SELECT 4
            raw 53 00 00 00 05 78
              E ERROR 08P01: invalid message format
              Z E
                eu: S
            Q ROLLBACK
              C ROLLBACK
              Z I
                eu: Q ROLLBACK
        "#]],
    );
}
