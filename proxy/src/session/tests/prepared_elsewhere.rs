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
            eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
            eu: P domicile_16902ce2ffcb27f8c1d8f7b4ef8a8106:SELECT 2
            eu: S
        B :a | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_8654f43e5d759cd7fee32da0cadcd9ad
            eu: E 
            eu: S
        P c:SELECT 3 | B :b | E | S
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: C domicile_16902ce2ffcb27f8c1d8f7b4ef8a8106
            eu: P domicile_9319f29a04e2e8f53cbab7829a6d64e9:SELECT 3
            eu: C domicile_8654f43e5d759cd7fee32da0cadcd9ad
            eu: P domicile_16902ce2ffcb27f8c1d8f7b4ef8a8106:SELECT 2
            eu: B :domicile_16902ce2ffcb27f8c1d8f7b4ef8a8106
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
            eu: B :domicile_9319f29a04e2e8f53cbab7829a6d64e9
            eu: E 
            eu: B :domicile_16902ce2ffcb27f8c1d8f7b4ef8a8106
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
            eu: P domicile_6eaa5b963034a46bc5fe552e1b81750f:SELECT 'now'
            eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
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
            eu: B :domicile_6eaa5b963034a46bc5fe552e1b81750f
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
            eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
            eu: B :domicile_8654f43e5d759cd7fee32da0cadcd9ad
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
            eu: P domicile_6eaa5b963034a46bc5fe552e1b81750f:SELECT 'now'
            eu: C domicile
            eu: P domicile:SELECT pg_catalog.set_config('TimeZone', 'Mars', true)
            eu: B domicile:domicile
            eu: E domicile
            eu: C domicile
            eu: B :domicile_6eaa5b963034a46bc5fe552e1b81750f
            eu: E 
            eu: S
        P a2:SELECT 'now' | B :a2 | E | S
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: P domicile_b335fdfab2460e7d549315f1a30a7a45:SELECT 'now'
            eu: B :domicile_b335fdfab2460e7d549315f1a30a7a45
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
            eu: B :domicile_6eaa5b963034a46bc5fe552e1b81750f
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
            eu: P domicile_b02cfaaa0016f954a5cd0f1e958b928c:LISTEN x
            eu: S
        B :s | E | S
          N NOTICE 00000: this session keeps its server connection from now on: LISTEN (HINT)
          2
          C LISTEN
          Z I
            eu: B :domicile_b02cfaaa0016f954a5cd0f1e958b928c
            eu: E 
            eu: S
        P t:SELECT 1 | B :t | E | S
          1
          2
          D eu
          C SELECT 1
          Z I
            eu: P domicile_146abde0b86d33b4129054b7bab54e99:SELECT 1
            eu: B :domicile_146abde0b86d33b4129054b7bab54e99
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
            eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
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
            eu: B :domicile_8654f43e5d759cd7fee32da0cadcd9ad
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
        Q ALTER TABLE t ADD a int
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
            eu: P domicile_50287868659689207a72a7ac229e97cf:SELECT star
            eu: D domicile_50287868659689207a72a7ac229e97cf
            eu: S
        P t:SELECT star 2 | B :t | D P: | E | S
          1
          2
          T
          D eu
          C SELECT 1
          Z I
            eu: P domicile_e5c039512b28d0bbd33333df34b7f981:SELECT star 2
            eu: B :domicile_e5c039512b28d0bbd33333df34b7f981
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
            eu: P domicile_50287868659689207a72a7ac229e97cf:SELECT star
            eu: D domicile_50287868659689207a72a7ac229e97cf
            eu: B :domicile_50287868659689207a72a7ac229e97cf
            eu: E 
            eu: S
        B :s | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_50287868659689207a72a7ac229e97cf
            eu: E 
            eu: S
        B :t | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: P domicile_e5c039512b28d0bbd33333df34b7f981:SELECT star 2
            eu: D domicile_e5c039512b28d0bbd33333df34b7f981
            eu: B :domicile_e5c039512b28d0bbd33333df34b7f981
            eu: E 
            eu: S
        z> Q COMMIT
          z: C COMMIT
          z: Z I
            eu: Q COMMIT
        Q ALTER TABLE t ADD a int
          C ALTER TABLE
          Z I
            eu: Q ALTER TABLE t ADD a int
        B :s | E | S
          E ERROR 0A000: cached plan must not change result type
          Z I
            eu: B :domicile_50287868659689207a72a7ac229e97cf
            eu: S
        B :s | E | S
          E ERROR 0A000: cached plan must not change result type
          Z I
            eu: C domicile_50287868659689207a72a7ac229e97cf
            eu: P domicile_50287868659689207a72a7ac229e97cf:SELECT star
            eu: D domicile_50287868659689207a72a7ac229e97cf
            eu: E domicile: no such portal
            eu: S
        B :t | E | S
          E ERROR 0A000: cached plan must not change result type
          Z I
            eu: C domicile_e5c039512b28d0bbd33333df34b7f981
            eu: P domicile_e5c039512b28d0bbd33333df34b7f981:SELECT star 2
            eu: D domicile_e5c039512b28d0bbd33333df34b7f981
            eu: E domicile: no such portal
            eu: S
        P u:SELECT star | D S:u | S
          1
          t
          T
          Z I
            eu: C domicile_50287868659689207a72a7ac229e97cf
            eu: P domicile_50287868659689207a72a7ac229e97cf:SELECT star
            eu: D domicile_50287868659689207a72a7ac229e97cf
            eu: S
        B :u | E | S
          2
          D eu
          C SELECT 1
          Z I
            eu: B :domicile_50287868659689207a72a7ac229e97cf
            eu: E 
            eu: S
        B :s | E | S
          E ERROR 0A000: cached plan must not change result type
          Z I
            eu: C domicile_50287868659689207a72a7ac229e97cf
            eu: P domicile_50287868659689207a72a7ac229e97cf:SELECT star
            eu: D domicile_50287868659689207a72a7ac229e97cf
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
            eu: C domicile_50287868659689207a72a7ac229e97cf
            eu: P domicile_50287868659689207a72a7ac229e97cf:SELECT star
            eu: D domicile_50287868659689207a72a7ac229e97cf
            eu: B :domicile_50287868659689207a72a7ac229e97cf
            eu: E 
            eu: S
        B :s | E | S
          E ERROR 0A000: cached plan must not change result type
          Z I
            eu: C domicile_50287868659689207a72a7ac229e97cf
            eu: P domicile_50287868659689207a72a7ac229e97cf:SELECT star
            eu: D domicile_50287868659689207a72a7ac229e97cf
            eu: E domicile: no such portal
            eu: S
    "#]],
    );
}
