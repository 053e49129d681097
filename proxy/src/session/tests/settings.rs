//! SET, RESET and their kin, and what a transaction pool does about what they leave behind.

use expect_test::expect;

use super::world::{Setup, check, transaction_mode};

#[test]
fn the_region_changes_only_before_the_first_statement() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        Q SELECT 1; SET helios.region = 'us'; SELECT 2
        Q SET work_mem = '1'; SET helios.region = 'us'; SELECT 2
        Q SELECT 1; COMMIT; SET helios.region = 'eu'
        Q SHOW helios.region
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q SELECT 1; SET helios.region = 'us'; SELECT 2
          E ERROR 25001: the region cannot change after a statement of the transaction has run (HINT)
          Z I
        Q SET work_mem = '1'; SET helios.region = 'us'; SELECT 2
          N NOTICE 00000: this session keeps its server connection from now on: SET (HINT)
          C SET
          C SET
          T
          D us
          C SELECT 1
          Z I
            us: Q SET work_mem = '1';                         ; SELECT 2
        Q SELECT 1; COMMIT; SET helios.region = 'eu'
          E ERROR 25001: the region cannot change after a statement of the transaction has run (HINT)
          Z I
        Q SHOW helios.region
          T
          D us
          C SHOW
          Z I
    "#]],
    );
}

#[test]
fn a_failed_message_undoes_its_settings() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        Q SET helios.region = 'us'; SELECT fail
        Q SHOW helios.region
        Q SET helios.region = 'us'; SET LOCAL helios.region = 'eu'; SELECT 1
        Q SHOW helios.region
        Q SET LOCAL helios.region = 'eu'
        Q SHOW helios.region
        Q RESET helios.region
        Q SET helios.region TO DEFAULT
        Q SHOW helios.region
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q SET helios.region = 'us'; SELECT fail
          C SET
          E ERROR 01000: it fails
          Z I
            us: Q                         ; SELECT fail
        Q SHOW helios.region
          T
          D eu
          C SHOW
          Z I
        Q SET helios.region = 'us'; SET LOCAL helios.region = 'eu'; SELECT 1
          C SET
          C SET
          T
          D eu
          C SELECT 1
          Z I
            eu: Q                         ;                               ; SELECT 1
        Q SHOW helios.region
          T
          D us
          C SHOW
          Z I
        Q SET LOCAL helios.region = 'eu'
          N WARNING 25P01: SET LOCAL can only be used in transaction blocks
          C SET
          Z I
        Q SHOW helios.region
          T
          D us
          C SHOW
          Z I
        Q RESET helios.region
          C RESET
          Z I
        Q SET helios.region TO DEFAULT
          C SET
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
fn texts_that_cannot_be_read_run_nowhere() {
    check(
        transaction_mode(),
        "
        Q SELEC 1
        Q SET helios.region = 'eu'
        Q SELEC 1; SELECT 2
        Q SET helios.region =
        Q BEGIN
        Q SELEC 1
        Q SELEC 1
        Q ROLLBACK
        Q BEGIN
        Q NEWER than the grammar
        Q ROLLBACK
        P s:SELECT 1 | B :s | E
        Q SELEC 1
        P :SELECT 1 | S
        Q SELEC 1
        B : | E | S
        Q SET client_encoding = 'SJIS'
        Q SELECT set_config('helios.region', 'us', false), 1
    ",
        expect![[r#"
            Q SELEC 1
              E ERROR 42601: syntax error at or near "SELEC"
              Z I
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q SELEC 1; SELECT 2
              E ERROR 42601: the server's own words
              Z I
                eu: P :SELEC 1; SELECT 2
                eu: S
            Q SET helios.region =
              E ERROR 42601: syntax error at end of input
              Z I
                eu: P :SET helios.region =
                eu: E domicile: no such portal
                eu: S
            Q BEGIN
              C BEGIN
              Z T
            Q SELEC 1
              E ERROR 42601: the server's own words
              Z E
                eu: Q BEGIN
                eu: P :SELEC 1
                eu: S
            Q SELEC 1
              E ERROR 42601: the server's own words
              Z E
                eu: P :SELEC 1
                eu: S
            Q ROLLBACK
              C ROLLBACK
              Z I
                eu: Q ROLLBACK
            Q BEGIN
              C BEGIN
              Z T
            Q NEWER than the grammar
              E ERROR 42601: syntax error at or near "NEWER"
              Z E
                eu: Q BEGIN
                eu: P :NEWER than the grammar
                eu: E domicile: no such portal
                eu: S
            Q ROLLBACK
              C ROLLBACK
              Z I
                eu: Q ROLLBACK
            P s:SELECT 1 | B :s | E
              1
              2
              D eu
              C SELECT 1
                eu: P domicile_8654f43e5d759cd7fee32da0cadcd9ad:SELECT 1
                eu: B :domicile_8654f43e5d759cd7fee32da0cadcd9ad
                eu: E 
            Q SELEC 1
              E ERROR 42601: the server's own words
              Z I
                eu: P :SELEC 1
                eu: S
            P :SELECT 1 | S
              1
              Z I
                eu: P :SELECT 1
                eu: S
            Q SELEC 1
              E ERROR 42601: the server's own words
              Z I
                eu: P :SELEC 1
                eu: S
            B : | E | S
              E ERROR 26000: unnamed prepared statement does not exist
              Z I
            Q SET client_encoding = 'SJIS'
              E ERROR 22023: invalid value for parameter "client_encoding": "SJIS" (HINT)
              Z I
            Q SELECT set_config('helios.region', 'us', false), 1
              E ERROR 0A000: set_config of the region is not supported in this form (HINT)
              Z I
        "#]],
    );
}

#[test]
fn a_name_that_no_region_can_have_is_not_kept() {
    check(
        transaction_mode(),
        &"
        Q SET helios.region = 'LONG'
        Q SELECT set_config('helios.region', 'LONG', false)
        P :SET helios.region = 'LONG' | B : | E | S
        Q SHOW helios.region
    "
        .replace("LONG", &"x".repeat(64)),
        expect![[r#"
            Q SET helios.region = 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'
              E ERROR 22023: a region name has at most 63 bytes
              Z I
            Q SELECT set_config('helios.region', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', false)
              E ERROR 22023: a region name has at most 63 bytes
              Z I
            P :SET helios.region = 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' | B : | E | S
              1
              2
              E ERROR 22023: a region name has at most 63 bytes
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
fn a_prepared_statement_of_the_proxys_own_has_a_bound() {
    check(
        transaction_mode(),
        &"P :BEGIN /* LONG */ READ ONLY | B : | E | S".replace("LONG", &"x".repeat(9000)),
        expect![[r#"
            P :BEGIN /* xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx …
              E ERROR 54000: too many bytes in a prepared statement of the proxy's own in one session
              Z I
        "#]],
    );
}

#[test]
fn discard_all_stands_alone() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        Q SET helios.region = 'eu'; DISCARD ALL
        Q BEGIN
        Q DISCARD ALL
        Q ROLLBACK
        Q DISCARD ALL
        Q SHOW helios.region
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q SET helios.region = 'eu'; DISCARD ALL
          E ERROR 25001: DISCARD ALL cannot run inside a transaction block
          Z I
        Q BEGIN
          C BEGIN
          Z T
        Q DISCARD ALL
          E ERROR 25001: DISCARD ALL cannot run inside a transaction block
          Z E
        Q ROLLBACK
          C ROLLBACK
          Z I
        Q DISCARD ALL
          C DISCARD ALL
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
fn settings_that_servers_report_follow_their_session() {
    check(
        Setup { size: 1, ..transaction_mode() },
        "
        Q SET helios.region = 'eu'
        b> Q SET helios.region = 'eu'
        Q SET TimeZone = 'Mars'
        b> Q SELECT 1
        b> P :SELECT 1 | B : | E | S
        Q SELECT 2
        Q BEGIN
        b> Q SET TimeZone = 'Venus'
        Q SELECT 3
        Q COMMIT
        Q RESET ALL
        Q DISCARD ALL
        b> Q DISCARD ALL
        b> Q SET helios.region = 'eu'; SELECT 4
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        b> Q SET helios.region = 'eu'
          b: C SET
          b: Z I
        Q SET TimeZone = 'Mars'
          C SET
          S TimeZone=Mars
          Z I
            eu: Q SET TimeZone = 'Mars'
        b> Q SELECT 1
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: Q SELECT pg_catalog.set_config('TimeZone', 'UTC', false)
            eu: Q SELECT 1
        b> P :SELECT 1 | B : | E | S
          b: 1
          b: 2
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: P :SELECT 1
            eu: B :
            eu: E 
            eu: S
        Q SELECT 2
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT pg_catalog.set_config('TimeZone', 'Mars', false)
            eu: Q SELECT 2
        Q BEGIN
          C BEGIN
          Z T
        b> Q SET TimeZone = 'Venus'
          b: C SET
          b: S TimeZone=Venus
          b: Z I
            eu: Q SELECT pg_catalog.set_config('TimeZone', 'UTC', false)
            eu: Q SET TimeZone = 'Venus'
        Q SELECT 3
          T
          D eu
          C SELECT 1
          Z T
            eu: Q SELECT pg_catalog.set_config('TimeZone', 'Mars', false)
            eu: Q BEGIN
            eu: Q SELECT 3
        Q COMMIT
          C COMMIT
          Z I
            eu: Q COMMIT
        Q RESET ALL
          C RESET
          S TimeZone=UTC
          Z I
        Q DISCARD ALL
          C DISCARD ALL
          Z I
        b> Q DISCARD ALL
          b: C DISCARD ALL
          b: S TimeZone=UTC
          b: Z I
        b> Q SET helios.region = 'eu'; SELECT 4
          b: C SET
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: Q SELECT pg_catalog.set_config('TimeZone', 'UTC', false)
            eu: Q                         ; SELECT 4
    "#]],
    );
}
