//! Prepared statements in transaction mode where the next backend is not as the last one was: it has forgotten them, has other
//! settings, another table, or may not be used at all.

use expect_test::expect;

use super::world::{Setup, check, transaction_mode};

/// Two backends, and a client `z` that keeps the first one busy when it is in a transaction.
fn two_backends() -> Setup {
    Setup { size: 2, ..transaction_mode() }
}

#[test]
fn a_backend_keeps_so_many_statements() {
    check(
        Setup { prepared_statements: 2, ..two_backends() },
        "
        Q SET helios.region = 'eu'
        P a:SELECT 1 | P b:SELECT 2 | S
        B :a | E | S
        P c:SELECT 3 | B :b | E | S
        P :SELECT fail | B : | E | P d:SELECT 4 | S
        B :c | E | B :b | E | S
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        P a:SELECT 1 | P b:SELECT 2 | S
          1
          1
          Z I
            eu: P domicile_c02f882c6ce2153d3cffd1bab00c966d:SELECT 1
            eu: P domicile_7a40497d404f2c784b25e64b386e401c:SELECT 2
            eu: S
        B :a | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_c02f882c6ce2153d3cffd1bab00c966d
            eu: E 
            eu: S
        P c:SELECT 3 | B :b | E | S
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: C domicile_7a40497d404f2c784b25e64b386e401c
            eu: P domicile_c98e20821ad4c014cdbc574e56e98b6a:SELECT 3
            eu: C domicile_c02f882c6ce2153d3cffd1bab00c966d
            eu: P domicile_7a40497d404f2c784b25e64b386e401c:SELECT 2
            eu: B :domicile_7a40497d404f2c784b25e64b386e401c
            eu: E 
            eu: S
        P :SELECT fail | B : | E | P d:SELECT 4 | S
          1
          2
          E ERROR 01000: it fails
          Z I
            eu: P :SELECT fail
            eu: B :
            eu: E 
            eu: S
        B :c | E | B :b | E | S
          2
          D eu
          C SELECT 1
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_c98e20821ad4c014cdbc574e56e98b6a
            eu: E 
            eu: B :domicile_7a40497d404f2c784b25e64b386e401c
            eu: E 
            eu: S
    "#]],
    );
}

#[test]
fn constants_are_read_under_the_settings_of_their_parse() {
    check(
        two_backends(),
        "
        Q SET helios.region = 'eu'
        z> Q SET helios.region = 'eu'
        P a:SELECT 'now' | P b:SELECT 1 | S
        P :SELECT 'now' | S
        Q SET TimeZone = 'Mars'
        B :a | E | S
        z> Q BEGIN; SELECT 0
        B :b | E | S
        B :a | E | S
        P a2:SELECT 'now' | B :a2 | E | S
        Q SET TimeZone = 'UTC'
        B :a | E | S
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        z> Q SET helios.region = 'eu'
          z: C SET
          z: Z I
        P a:SELECT 'now' | P b:SELECT 1 | S
          1
          1
          Z I
            eu: P domicile_c9da222ad44cb20342e1e28a94a4844d:SELECT 'now'
            eu: P domicile_c02f882c6ce2153d3cffd1bab00c966d:SELECT 1
            eu: S
        P :SELECT 'now' | S
          1
          Z I
            eu: P :SELECT 'now'
            eu: S
        Q SET TimeZone = 'Mars'
          C SET
          S TimeZone=Mars
          Z I
            eu: Q SET TimeZone = 'Mars'
        B :a | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_c9da222ad44cb20342e1e28a94a4844d
            eu: E 
            eu: S
        z> Q BEGIN; SELECT 0
          z: C BEGIN
          z: T
          z: D eu
          z: C SELECT 1
          z: Z T
            eu: Q SELECT pg_catalog.set_config('TimeZone', 'UTC', false)
            eu: Q BEGIN; SELECT 0
        B :b | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT pg_catalog.set_config('TimeZone', 'Mars', false)
            eu: P domicile_c02f882c6ce2153d3cffd1bab00c966d:SELECT 1
            eu: B :domicile_c02f882c6ce2153d3cffd1bab00c966d
            eu: E 
            eu: S
        B :a | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: C domicile
            eu: P domicile:SELECT pg_catalog.set_config('TimeZone', 'UTC', true)
            eu: B domicile:domicile
            eu: E domicile
            eu: C domicile
            eu: P domicile_c9da222ad44cb20342e1e28a94a4844d:SELECT 'now'
            eu: C domicile
            eu: P domicile:SELECT pg_catalog.set_config('TimeZone', 'Mars', true)
            eu: B domicile:domicile
            eu: E domicile
            eu: C domicile
            eu: B :domicile_c9da222ad44cb20342e1e28a94a4844d
            eu: E 
            eu: S
        P a2:SELECT 'now' | B :a2 | E | S
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: P domicile_69ea58cd8085ca08171a2f252e154460:SELECT 'now'
            eu: B :domicile_69ea58cd8085ca08171a2f252e154460
            eu: E 
            eu: S
        Q SET TimeZone = 'UTC'
          C SET
          S TimeZone=UTC
          Z I
            eu: Q SET TimeZone = 'UTC'
        B :a | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_c9da222ad44cb20342e1e28a94a4844d
            eu: E 
            eu: S
    "#]],
    );
}

#[test]
fn what_a_statement_leaves_behind_keeps_the_backend_when_it_is_bound() {
    check(
        two_backends(),
        "
        Q SET helios.region = 'eu'
        P s:LISTEN x | S
        B :s | E | S
        P t:SELECT 1 | B :t | E | S
        B :native | E | S
        C S:native | S
        Q DEALLOCATE ALL
        B :t | E | S
        X
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        P s:LISTEN x | S
          1
          Z I
            eu: P domicile_799cc702e23dc67cf795cee520380cc8:LISTEN x
            eu: S
        B :s | E | S
          N NOTICE 00000: this session keeps its server connection from now on: LISTEN (HINT)
          2
          C LISTEN
          Z I
            eu: B :domicile_799cc702e23dc67cf795cee520380cc8
            eu: E 
            eu: S
        P t:SELECT 1 | B :t | E | S
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: P domicile_a54cd067a430080071c5cf0cd1a21c57:SELECT 1
            eu: B :domicile_a54cd067a430080071c5cf0cd1a21c57
            eu: E 
            eu: S
        B :native | E | S
          E ERROR 26000: prepared statement "native" does not exist
          Z I
            eu: B :native
            eu: S
        C S:native | S
          3
          Z I
            eu: C native
            eu: S
        Q DEALLOCATE ALL
          C DEALLOCATE ALL
          Z I
            eu: Q DEALLOCATE ALL
        B :t | E | S
          E ERROR 26000: prepared statement "t" does not exist
          Z I
            eu: B :t
            eu: S
        X
          closed
            eu: Q DISCARD ALL
    "#]],
    );
}

#[test]
fn a_blocked_region_prepares_nothing() {
    check(
        two_backends(),
        "
        P s:SELECT 1 | B :s | E | S
        B :s | S
        Q SET helios.region = 'eu'
        P s:SELECT 1 | S
        Q RESET helios.region
        B :s | E | S
        Q SET helios.region = 'eu'
        B :s | E | S
    ",
        expect![[r#"
        P s:SELECT 1 | B :s | E | S
          audit: denied "" at Parse by residency.unbound
          E ERROR 42000: blocked: no region is set for this session
          Z I
        B :s | S
          E ERROR 26000: prepared statement "s" does not exist
          Z I
        Q SET helios.region = 'eu'
          C SET
          Z I
        P s:SELECT 1 | S
          1
          Z I
            eu: P domicile_c02f882c6ce2153d3cffd1bab00c966d:SELECT 1
            eu: S
        Q RESET helios.region
          C RESET
          Z I
        B :s | E | S
          audit: denied "" at Bind by residency.unbound
          E ERROR 42000: blocked: no region is set for this session
          Z I
        Q SET helios.region = 'eu'
          C SET
          Z I
        B :s | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_c02f882c6ce2153d3cffd1bab00c966d
            eu: E 
            eu: S
    "#]],
    );
}

#[test]
fn a_statement_returns_what_its_client_was_told() {
    check(
        two_backends(),
        "
        Q SET helios.region = 'eu'
        z> Q SET helios.region = 'eu'
        P s:SELECT star | D S:s | S
        P t:SELECT star 2 | B :t | D P: | E | S
        z> Q BEGIN; SELECT 0
        B :s | E | S
        B :s | E | S
        B :t | E | S
        z> Q COMMIT
        Q ALTER TABLE
        B :s | E | S
        B :s | E | S
        B :t | E | S
        P u:SELECT star | D S:u | S
        B :u | E | S
        B :s | E | S
        z> Q BEGIN; SELECT 0
        B :u | E | S
        B :s | E | S
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        z> Q SET helios.region = 'eu'
          z: C SET
          z: Z I
        P s:SELECT star | D S:s | S
          1
          t
          T
          Z I
            eu: P domicile_87290138a01a90bd266172fc3e29cc5f:SELECT star
            eu: D domicile_87290138a01a90bd266172fc3e29cc5f
            eu: S
        P t:SELECT star 2 | B :t | D P: | E | S
          1
          2
          T
          D eu
          C SELECT 1
          Z I
            eu: P domicile_9f909cabe82a68345dd3ef6042c8dda2:SELECT star 2
            eu: B :domicile_9f909cabe82a68345dd3ef6042c8dda2
            eu: D 
            eu: E 
            eu: S
        z> Q BEGIN; SELECT 0
          z: C BEGIN
          z: T
          z: D eu
          z: C SELECT 1
          z: Z T
            eu: Q BEGIN; SELECT 0
        B :s | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: P domicile_87290138a01a90bd266172fc3e29cc5f:SELECT star
            eu: D domicile_87290138a01a90bd266172fc3e29cc5f
            eu: B :domicile_87290138a01a90bd266172fc3e29cc5f
            eu: E 
            eu: S
        B :s | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_87290138a01a90bd266172fc3e29cc5f
            eu: E 
            eu: S
        B :t | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: P domicile_9f909cabe82a68345dd3ef6042c8dda2:SELECT star 2
            eu: D domicile_9f909cabe82a68345dd3ef6042c8dda2
            eu: B :domicile_9f909cabe82a68345dd3ef6042c8dda2
            eu: E 
            eu: S
        z> Q COMMIT
          z: C COMMIT
          z: Z I
            eu: Q COMMIT
        Q ALTER TABLE
          C ALTER TABLE
          Z I
            eu: Q ALTER TABLE
        B :s | E | S
          E ERROR 0A000: cached plan must not change result type
          Z I
            eu: B :domicile_87290138a01a90bd266172fc3e29cc5f
            eu: S
        B :s | E | S
          E ERROR 0A000: cached plan must not change result type
          Z I
            eu: C domicile_87290138a01a90bd266172fc3e29cc5f
            eu: P domicile_87290138a01a90bd266172fc3e29cc5f:SELECT star
            eu: D domicile_87290138a01a90bd266172fc3e29cc5f
            eu: E domicile: no such portal
            eu: S
        B :t | E | S
          E ERROR 0A000: cached plan must not change result type
          Z I
            eu: C domicile_9f909cabe82a68345dd3ef6042c8dda2
            eu: P domicile_9f909cabe82a68345dd3ef6042c8dda2:SELECT star 2
            eu: D domicile_9f909cabe82a68345dd3ef6042c8dda2
            eu: E domicile: no such portal
            eu: S
        P u:SELECT star | D S:u | S
          1
          t
          T
          Z I
            eu: C domicile_87290138a01a90bd266172fc3e29cc5f
            eu: P domicile_87290138a01a90bd266172fc3e29cc5f:SELECT star
            eu: D domicile_87290138a01a90bd266172fc3e29cc5f
            eu: S
        B :u | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_87290138a01a90bd266172fc3e29cc5f
            eu: E 
            eu: S
        B :s | E | S
          E ERROR 0A000: cached plan must not change result type
          Z I
            eu: C domicile_87290138a01a90bd266172fc3e29cc5f
            eu: P domicile_87290138a01a90bd266172fc3e29cc5f:SELECT star
            eu: D domicile_87290138a01a90bd266172fc3e29cc5f
            eu: E domicile: no such portal
            eu: S
        z> Q BEGIN; SELECT 0
          z: C BEGIN
          z: T
          z: D eu
          z: C SELECT 1
          z: Z T
            eu: Q BEGIN; SELECT 0
        B :u | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: C domicile_87290138a01a90bd266172fc3e29cc5f
            eu: P domicile_87290138a01a90bd266172fc3e29cc5f:SELECT star
            eu: D domicile_87290138a01a90bd266172fc3e29cc5f
            eu: B :domicile_87290138a01a90bd266172fc3e29cc5f
            eu: E 
            eu: S
        B :s | E | S
          E ERROR 0A000: cached plan must not change result type
          Z I
            eu: C domicile_87290138a01a90bd266172fc3e29cc5f
            eu: P domicile_87290138a01a90bd266172fc3e29cc5f:SELECT star
            eu: D domicile_87290138a01a90bd266172fc3e29cc5f
            eu: E domicile: no such portal
            eu: S
    "#]],
    );
}
