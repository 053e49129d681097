//! What sessions leave behind in their backends: kept for them, refused, or thrown away, and never seen by others.

use expect_test::expect;

use super::world::{Cut, Setup, World, bound_to, check, transaction_mode};
use crate::pool::StatePolicy;

/// One backend for all.
fn one_backend() -> Setup {
    Setup { size: 1, ..transaction_mode() }
}

#[test]
fn what_is_left_behind_keeps_the_backend() {
    check(
        one_backend(),
        "
        Q SET helios.region = 'eu'
        Q PREPARE p AS SELECT 1
        Q LISTEN c
        Q CREATE TEMP TABLE t (i int)
        Q DECLARE c CURSOR WITH HOLD FOR SELECT 1
        Q SELECT pg_advisory_lock(1)
        b> Q SET helios.region = 'eu'
        b> Q SELECT 2
        Q SELECT 3
        X
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q PREPARE p AS SELECT 1
          N NOTICE 00000: this session keeps its server connection from now on: PREPARE (HINT)
          C PREPARE
          Z I
            eu: Q PREPARE p AS SELECT 1
        Q LISTEN c
          C LISTEN
          Z I
            eu: Q LISTEN c
        Q CREATE TEMP TABLE t (i int)
          C CREATE
          Z I
            eu: Q CREATE TEMP TABLE t (i int)
        Q DECLARE c CURSOR WITH HOLD FOR SELECT 1
          C DECLARE
          Z I
            eu: Q DECLARE c CURSOR WITH HOLD FOR SELECT 1
        Q SELECT pg_advisory_lock(1)
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT pg_advisory_lock(1)
        b> Q SET helios.region = 'eu'
          b: C SET
          b: Z I
        b> Q SELECT 2
        Q SELECT 3
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 3
        X
          closed
            eu: closed: Terminate
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: Q SELECT 2
    "#]],
    );
}

#[test]
fn what_ends_with_its_transaction_keeps_nothing() {
    check(
        one_backend(),
        "
        Q SET helios.region = 'eu'
        Q BEGIN; SET LOCAL work_mem = '1MB'; SELECT set_config('work_mem', '2MB', true); SELECT pg_advisory_xact_lock(1); COMMIT
        Q BEGIN; CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1; COMMIT
        Q RESET work_mem
        b> Q SET helios.region = 'eu'
        b> Q SELECT 2
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q BEGIN; SET LOCAL work_mem = '1MB'; SELECT set_config('work_mem', '2MB', true); SELECT pg_advisory_xact_lock(1); COMMIT
          C BEGIN
          C SET
          T
          D eu
          C SELECT 1
          T
          D eu
          C SELECT 1
          C COMMIT
          Z I
            eu: Q BEGIN; SET LOCAL work_mem = '1MB'; SELECT set_config('work_mem', '2MB', true); SELECT pg_advisory_xact_lock(1); COMMIT
        Q BEGIN; CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1; COMMIT
          C BEGIN
          C CREATE
          C COMMIT
          Z I
            eu: Q BEGIN; CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1; COMMIT
        Q RESET work_mem
          C RESET
          Z I
            eu: Q RESET work_mem
        b> Q SET helios.region = 'eu'
          b: C SET
          b: Z I
        b> Q SELECT 2
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: Q SELECT 2
    "#]],
    );
}

#[test]
fn discard_all_gives_the_backend_back() {
    check(
        one_backend(),
        "
        Q SET helios.region = 'eu'
        Q SET work_mem = '1MB'
        Q DISCARD ALL
        Q SET helios.region = 'eu'; SET work_mem = '1MB'
        P :DISCARD ALL | B : | E | S
        Q SET helios.region = 'eu'; SET ROLE alice
        Q SET helios.region = 'us'
        Q SELECT 1
        Q DISCARD ALL
        Q SET helios.region = 'us'
        Q SELECT 1
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q SET work_mem = '1MB'
          N NOTICE 00000: this session keeps its server connection from now on: SET (HINT)
          C SET
          Z I
            eu: Q SET work_mem = '1MB'
        Q DISCARD ALL
          C DISCARD ALL
          Z I
            eu: Q DISCARD ALL
        Q SET helios.region = 'eu'; SET work_mem = '1MB'
          N NOTICE 00000: this session keeps its server connection from now on: SET (HINT)
          C SET
          C SET
          Z I
            eu: Q                         ; SET work_mem = '1MB'
        P :DISCARD ALL | B : | E | S
          1
          2
          C DISCARD ALL
          Z I
            eu: Q DISCARD ALL
        Q SET helios.region = 'eu'; SET ROLE alice
          N NOTICE 00000: this session keeps its server connection from now on: SET ROLE (HINT)
          C SET
          C SET
          Z I
            eu: Q                         ; SET ROLE alice
        Q SET helios.region = 'us'
          C SET
          Z I
        Q SELECT 1
          E ERROR 55006: the session keeps its server connection and cannot leave its region: SET ROLE (HINT)
          Z I
        Q DISCARD ALL
          C DISCARD ALL
          Z I
            eu: Q DISCARD ALL
        Q SET helios.region = 'us'
          C SET
          Z I
        Q SELECT 1
          T
          D us
          C SELECT 1
          Z I
            us: Q SELECT 1
    "#]],
    );
}

#[test]
fn a_transaction_that_fails_does_not_undo_the_keeping() {
    check(
        one_backend(),
        "
        Q SET helios.region = 'eu'
        Q BEGIN
        Q SET SESSION AUTHORIZATION alice
        Q SELECT fail
        Q ROLLBACK
        Q SELECT 1
        X
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q BEGIN
          C BEGIN
          Z T
        Q SET SESSION AUTHORIZATION alice
          N NOTICE 00000: this session keeps its server connection from now on: SET SESSION AUTHORIZATION (HINT)
          C SET
          Z T
            eu: Q BEGIN
            eu: Q SET SESSION AUTHORIZATION alice
        Q SELECT fail
          E ERROR 01000: it fails
          Z E
            eu: Q SELECT fail
        Q ROLLBACK
          C ROLLBACK
          Z I
            eu: Q ROLLBACK
        Q SELECT 1
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 1
        X
          closed
            eu: Q DISCARD ALL
    "#]],
    );
}

#[test]
fn a_pool_may_refuse_it() {
    check(
        Setup { session_state: StatePolicy::Refuse, ..transaction_mode() },
        "
        Q SET helios.region = 'eu'
        Q PREPARE p AS SELECT 1
        Q LISTEN c
        Q CREATE TEMP TABLE t (i int)
        Q DECLARE c CURSOR WITH HOLD FOR SELECT 1
        Q SELECT pg_advisory_lock(1)
        Q SELECT pg_advisory_xact_lock(1)
        Q SELECT 1; SET work_mem = '1MB'
        P :SET ROLE alice | S
        Q SET TimeZone = 'UTC'
        Q SELECT currval('s')
        Q LOAD 'x'
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
        Q SELECT 1; SET work_mem = '1MB'
          E ERROR 0A000: SET of this setting and DO are not supported in transaction pooling mode (HINT)
          Z I
        P :SET ROLE alice | S
          E ERROR 0A000: SET ROLE is not supported in transaction pooling mode (HINT)
          Z I
        Q SET TimeZone = 'UTC'
          C SET
          Z I
            eu: Q SET TimeZone = 'UTC'
        Q SELECT currval('s')
          E ERROR 0A000: currval and lastval are not supported in transaction pooling mode (HINT)
          Z I
        Q LOAD 'x'
          E ERROR 0A000: LOAD is not supported in transaction pooling mode (HINT)
          Z I
    "#]],
    );
}

#[test]
fn a_pool_may_throw_it_away() {
    check(
        Setup { session_state: StatePolicy::Allow, ..one_backend() },
        "
        Q SET helios.region = 'eu'; SET work_mem = '1'
        Q SELECT 1
        Q SELECT set_config('work_mem', '1', false)
        P :DO '' | B : | E | S
    ",
        expect![[r#"
        Q SET helios.region = 'eu'; SET work_mem = '1'
          C SET
          C SET
          Z I
            eu: Q                         ; SET work_mem = '1'
            eu: Q DISCARD ALL
        Q SELECT 1
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 1
        Q SELECT set_config('work_mem', '1', false)
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT set_config('work_mem', '1', false)
            eu: Q DISCARD ALL
        P :DO '' | B : | E | S
          1
          2
          C DO
          Z I
            eu: P :DO ''
            eu: B :
            eu: E 
            eu: S
            eu: Q DISCARD ALL
    "#]],
    );
}

#[test]
fn a_library_cannot_be_unloaded_so_its_backend_is_closed() {
    check(
        one_backend(),
        "
        Q SET helios.region = 'eu'
        Q LOAD 'auto_explain'
        Q SELECT 1
        X
        b> Q SET helios.region = 'eu'
        b> Q SELECT 2
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q LOAD 'auto_explain'
          N NOTICE 00000: this session keeps its server connection from now on: LOAD (HINT)
          C LOAD
          Z I
            eu: Q LOAD 'auto_explain'
        Q SELECT 1
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 1
        X
          closed
            eu: closed: Terminate
        b> Q SET helios.region = 'eu'
          b: C SET
          b: Z I
        b> Q SELECT 2
          b: T
          b: D eu
          b: C SELECT 1
          b: Z I
            eu: Q SELECT 2
    "#]],
    );
}

#[test]
fn what_sequences_others_have_used_is_not_to_be_read() {
    check(
        one_backend(),
        "
        Q SET helios.region = 'eu'
        Q SELECT currval('s')
        Q SELECT nextval('s')
        Q SELECT currval('s')
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q SELECT currval('s')
          N NOTICE 00000: this session keeps its server connection from now on: currval (HINT)
          T
          D eu
          C SELECT 1
          Z I
            eu: Q DISCARD SEQUENCES
            eu: Q SELECT currval('s')
        Q SELECT nextval('s')
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT nextval('s')
        Q SELECT currval('s')
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT currval('s')
    "#]],
    );
}

#[test]
fn deallocate_knows_whose_a_statement_is() {
    check(
        one_backend(),
        "
        Q SET helios.region = 'eu'
        P begin:BEGIN | S
        Q DEALLOCATE begin
        Q DEALLOCATE begin
        Q DEALLOCATE ALL
        P :DEALLOCATE nothing | B : | E | S
        Q SELECT 1; DEALLOCATE ALL; SELECT 2
        P begin:BEGIN | S
        Q PREPARE p AS SELECT 1
        Q DEALLOCATE begin
        Q DEALLOCATE p
        Q DEALLOCATE ALL
        Q DISCARD ALL
        Q SET helios.region = 'eu'
        Q PREPARE p AS SELECT 1; DEALLOCATE p; DEALLOCATE ALL
    ",
        expect![[r#"
        Q SET helios.region = 'eu'
          C SET
          Z I
        P begin:BEGIN | S
          1
          Z I
        Q DEALLOCATE begin
          C DEALLOCATE
          Z I
        Q DEALLOCATE begin
          E ERROR 26000: prepared statement "begin" does not exist
          Z I
        Q DEALLOCATE ALL
          C DEALLOCATE ALL
          Z I
        P :DEALLOCATE nothing | B : | E | S
          1
          2
          E ERROR 26000: prepared statement "nothing" does not exist
          Z I
        Q SELECT 1; DEALLOCATE ALL; SELECT 2
          T
          D eu
          C SELECT 1
          C DEALLOCATE ALL
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 1;               ; SELECT 2
        P begin:BEGIN | S
          1
          Z I
        Q PREPARE p AS SELECT 1
          N NOTICE 00000: this session keeps its server connection from now on: PREPARE (HINT)
          C PREPARE
          Z I
            eu: Q PREPARE p AS SELECT 1
        Q DEALLOCATE begin
          C DEALLOCATE
          Z I
        Q DEALLOCATE p
          C DEALLOCATE
          Z I
            eu: Q DEALLOCATE p
        Q DEALLOCATE ALL
          C DEALLOCATE ALL
          Z I
            eu: Q DEALLOCATE ALL
        Q DISCARD ALL
          C DISCARD ALL
          Z I
            eu: Q DISCARD ALL
        Q SET helios.region = 'eu'
          C SET
          Z I
        Q PREPARE p AS SELECT 1; DEALLOCATE p; DEALLOCATE ALL
          N NOTICE 00000: this session keeps its server connection from now on: PREPARE (HINT)
          C PREPARE
          C DEALLOCATE
          C DEALLOCATE ALL
          Z I
            eu: Q PREPARE p AS SELECT 1; DEALLOCATE p; DEALLOCATE ALL
    "#]],
    );
}

#[test]
fn what_is_sent_behind_discard_all_is_not_discarded() {
    let setup = Setup { size: 1, source: bound_to(&["eu"]), ..transaction_mode() };
    // Byte by byte the connection has been given back in between.
    let said = World::new(&setup).play(
        "
        Q LISTEN x
        Q DISCARD ALL | P :CREATE TEMP TABLE t (a int) | B : | E | S
        Q SELECT 1
        Q DISCARD ALL
    ",
        Cut::Whole,
    );
    expect![[r#"
        Q LISTEN x
          N NOTICE 00000: this session keeps its server connection from now on: LISTEN (HINT)
          C LISTEN
          Z I
            eu: Q LISTEN x
        Q DISCARD ALL | P :CREATE TEMP TABLE t (a int) | B : | E | S
          C DISCARD ALL
          Z I
          1
          N NOTICE 00000: this session keeps its server connection from now on: temporary table (HINT)
          2
          C CREATE
          Z I
            eu: Q DISCARD ALL
            eu: P :CREATE TEMP TABLE t (a int)
            eu: B :
            eu: E 
            eu: S
        Q SELECT 1
          T
          D eu
          C SELECT 1
          Z I
            eu: Q SELECT 1
        Q DISCARD ALL
          C DISCARD ALL
          Z I
            eu: Q DISCARD ALL
            eu: closed: Terminate
    "#]]
    .assert_eq(&said);
}
