//! SET, RESET and their kin, and what a transaction pool does about what they leave behind.

use expect_test::expect;

use super::world::{check, transaction_mode};

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
          C SET
          C SET
          T
          D us
          C SELECT 1
          Z I
            us: Q SET work_mem = '1';                         ; SELECT 2
            us: Q DISCARD ALL
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
fn texts_that_cannot_be_read_go_nowhere() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        Q SELEC 1; SELECT 2
        Q SET helios.region =
        Q SET standard_conforming_strings = off
        Q SET client_encoding = 'SJIS'
        Q SELECT set_config('helios.region', 'us', false), 1
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q SELEC 1; SELECT 2
          E ERROR 42601: syntax error at or near "SELEC"
          Z I
        Q SET helios.region =
          E ERROR 42601: syntax error at end of input
          Z I
        Q SET standard_conforming_strings = off
          E ERROR 22023: invalid value for parameter "standard_conforming_strings": "off" (HINT)
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
fn a_transaction_pool_refuses_what_it_cannot_keep() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'
        Q PREPARE p AS SELECT 1
        Q LISTEN c
        Q CREATE TEMP TABLE t (i int)
        Q DECLARE c CURSOR WITH HOLD FOR SELECT 1
        Q SELECT pg_advisory_lock(1)
        Q SELECT pg_advisory_xact_lock(1)
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q PREPARE p AS SELECT 1
          E ERROR 0A000: PREPARE and EXECUTE are not supported in transaction pooling mode (HINT)
          Z I
        Q LISTEN c
          E ERROR 0A000: LISTEN and UNLISTEN are not supported in transaction pooling mode (HINT)
          Z I
        Q CREATE TEMP TABLE t (i int)
          E ERROR 0A000: temporary tables are not supported in transaction pooling mode (HINT)
          Z I
        Q DECLARE c CURSOR WITH HOLD FOR SELECT 1
          E ERROR 0A000: cursors WITH HOLD are not supported in transaction pooling mode (HINT)
          Z I
        Q SELECT pg_advisory_lock(1)
          E ERROR 0A000: session-level advisory locks are not supported in transaction pooling mode (HINT)
          Z I
        Q SELECT pg_advisory_xact_lock(1)
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT pg_advisory_xact_lock(1)
    "#]],
    );
}

#[test]
fn what_was_left_behind_is_reset_before_anyone_else_gets_the_backend() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'; SET work_mem = '1'
        b> Q SET helios.region = 'eu'; SELECT 1
        Q SELECT set_config('work_mem', '1', false)
    ",
        expect![[r#"
        Q SET helios.region = 'eu'; SET work_mem = '1'
          C SET
          C SET
          Z I
            eu: Q                         ; SET work_mem = '1'
            eu: Q DISCARD ALL
        b> Q SET helios.region = 'eu'; SELECT 1
          b: C SET
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: Q                         ; SELECT 1
        Q SELECT set_config('work_mem', '1', false)
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT set_config('work_mem', '1', false)
            eu: Q DISCARD ALL
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
