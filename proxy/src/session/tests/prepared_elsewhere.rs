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
            eu: P domicile_a6fa087ed00a5b3d6ed7befd2bce66c7:SELECT 1
            eu: P domicile_d5680fe37a25b1d7b012a474db0217ed:SELECT 2
            eu: S
        B :a | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_a6fa087ed00a5b3d6ed7befd2bce66c7
            eu: E 
            eu: S
        P c:SELECT 3 | B :b | E | S
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: C domicile_d5680fe37a25b1d7b012a474db0217ed
            eu: P domicile_8f62bd600ae3d7765b73ae8aa9b0311e:SELECT 3
            eu: C domicile_a6fa087ed00a5b3d6ed7befd2bce66c7
            eu: P domicile_d5680fe37a25b1d7b012a474db0217ed:SELECT 2
            eu: B :domicile_d5680fe37a25b1d7b012a474db0217ed
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
            eu: B :domicile_8f62bd600ae3d7765b73ae8aa9b0311e
            eu: E 
            eu: B :domicile_d5680fe37a25b1d7b012a474db0217ed
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
            eu: P domicile_340128edb2ae500129143991d37ad5f2:SELECT 'now'
            eu: P domicile_a6fa087ed00a5b3d6ed7befd2bce66c7:SELECT 1
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
            eu: B :domicile_340128edb2ae500129143991d37ad5f2
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
            eu: P domicile_a6fa087ed00a5b3d6ed7befd2bce66c7:SELECT 1
            eu: B :domicile_a6fa087ed00a5b3d6ed7befd2bce66c7
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
            eu: P domicile_340128edb2ae500129143991d37ad5f2:SELECT 'now'
            eu: C domicile
            eu: P domicile:SELECT pg_catalog.set_config('TimeZone', 'Mars', true)
            eu: B domicile:domicile
            eu: E domicile
            eu: C domicile
            eu: B :domicile_340128edb2ae500129143991d37ad5f2
            eu: E 
            eu: S
        P a2:SELECT 'now' | B :a2 | E | S
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: P domicile_dec1ccc06112342e91cb0571418794fc:SELECT 'now'
            eu: B :domicile_dec1ccc06112342e91cb0571418794fc
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
            eu: B :domicile_340128edb2ae500129143991d37ad5f2
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
            eu: P domicile_a29fbeb6277a31e2cb453c3ace74be6c:LISTEN x
            eu: S
        B :s | E | S
          N NOTICE 00000: this session keeps its server connection from now on: LISTEN (HINT)
          2
          C LISTEN
          Z I
            eu: B :domicile_a29fbeb6277a31e2cb453c3ace74be6c
            eu: E 
            eu: S
        P t:SELECT 1 | B :t | E | S
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: P domicile_7a5c0ddb31beaa46a18ce0e4809b7755:SELECT 1
            eu: B :domicile_7a5c0ddb31beaa46a18ce0e4809b7755
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
            eu: P domicile_a6fa087ed00a5b3d6ed7befd2bce66c7:SELECT 1
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
            eu: B :domicile_a6fa087ed00a5b3d6ed7befd2bce66c7
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
            eu: P domicile_f3338c83c25b6f085a93aad006b8a857:SELECT star
            eu: D domicile_f3338c83c25b6f085a93aad006b8a857
            eu: S
        P t:SELECT star 2 | B :t | D P: | E | S
          1
          2
          T
          D eu
          C SELECT 1
          Z I
            eu: P domicile_3dc9fc371d1729e50daf9878e8fdce87:SELECT star 2
            eu: B :domicile_3dc9fc371d1729e50daf9878e8fdce87
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
            eu: P domicile_f3338c83c25b6f085a93aad006b8a857:SELECT star
            eu: D domicile_f3338c83c25b6f085a93aad006b8a857
            eu: B :domicile_f3338c83c25b6f085a93aad006b8a857
            eu: E 
            eu: S
        B :s | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_f3338c83c25b6f085a93aad006b8a857
            eu: E 
            eu: S
        B :t | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: P domicile_3dc9fc371d1729e50daf9878e8fdce87:SELECT star 2
            eu: D domicile_3dc9fc371d1729e50daf9878e8fdce87
            eu: B :domicile_3dc9fc371d1729e50daf9878e8fdce87
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
            eu: B :domicile_f3338c83c25b6f085a93aad006b8a857
            eu: S
        B :s | E | S
          E ERROR 0A000: cached plan must not change result type
          Z I
            eu: C domicile_f3338c83c25b6f085a93aad006b8a857
            eu: P domicile_f3338c83c25b6f085a93aad006b8a857:SELECT star
            eu: D domicile_f3338c83c25b6f085a93aad006b8a857
            eu: E domicile: no such portal
            eu: S
        B :t | E | S
          E ERROR 0A000: cached plan must not change result type
          Z I
            eu: C domicile_3dc9fc371d1729e50daf9878e8fdce87
            eu: P domicile_3dc9fc371d1729e50daf9878e8fdce87:SELECT star 2
            eu: D domicile_3dc9fc371d1729e50daf9878e8fdce87
            eu: E domicile: no such portal
            eu: S
        P u:SELECT star | D S:u | S
          1
          t
          T
          Z I
            eu: C domicile_f3338c83c25b6f085a93aad006b8a857
            eu: P domicile_f3338c83c25b6f085a93aad006b8a857:SELECT star
            eu: D domicile_f3338c83c25b6f085a93aad006b8a857
            eu: S
        B :u | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_f3338c83c25b6f085a93aad006b8a857
            eu: E 
            eu: S
        B :s | E | S
          E ERROR 0A000: cached plan must not change result type
          Z I
            eu: C domicile_f3338c83c25b6f085a93aad006b8a857
            eu: P domicile_f3338c83c25b6f085a93aad006b8a857:SELECT star
            eu: D domicile_f3338c83c25b6f085a93aad006b8a857
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
            eu: C domicile_f3338c83c25b6f085a93aad006b8a857
            eu: P domicile_f3338c83c25b6f085a93aad006b8a857:SELECT star
            eu: D domicile_f3338c83c25b6f085a93aad006b8a857
            eu: B :domicile_f3338c83c25b6f085a93aad006b8a857
            eu: E 
            eu: S
        B :s | E | S
          E ERROR 0A000: cached plan must not change result type
          Z I
            eu: C domicile_f3338c83c25b6f085a93aad006b8a857
            eu: P domicile_f3338c83c25b6f085a93aad006b8a857:SELECT star
            eu: D domicile_f3338c83c25b6f085a93aad006b8a857
            eu: E domicile: no such portal
            eu: S
    "#]],
    );
}
