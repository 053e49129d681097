//! Query.

use expect_test::expect;

use super::world::{bound_to, check, session_mode, source, transaction_mode, Setup};
use crate::policy::NoRegion;

#[test]
fn the_seeds_calls() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'; SELECT 1
        Q SET helios.region = 'us'; SELECT 1
        Q SET helios.region = 'antarctica'; SELECT 1
        Q SELECT 2
        Q SET helios.region = 'us'
        Q SELECT 3
    ", expect![[""]]);
}

#[test]
fn without_a_region_nothing_is_served_but_what_needs_no_backend() {
    check(transaction_mode(), "
        Q SELECT 1
        Q
        Q SHOW helios.region
        Q SHOW domicile.node
        Q BEGIN
        Q COMMIT
        Q ROLLBACK
        Q RESET ALL
        Q DISCARD ALL
        F
    ", expect![[""]]);
}

#[test]
fn the_default_region_serves_where_no_region_is_required() {
    let source = crate::policy::Source { no_region: NoRegion::Default, default_region: Some("us".into()), ..source() };
    check(Setup { source, ..transaction_mode() }, "
        Q SELECT 1
        Q SET helios.region = ''; SELECT 2
        Q SET helios.region = 'antarctica'; SELECT 2
    ", expect![[""]]);
}

#[test]
fn a_dry_run_serves_and_says_so() {
    let source = crate::policy::Source { enforce: false, default_region: Some("us".into()), ..source() };
    check(Setup { source, ..transaction_mode() }, "Q SET helios.region = 'antarctica'; SELECT 2", expect![[""]]);
}

#[test]
fn a_grant_is_never_left() {
    check(Setup { source: bound_to(&["eu"]), ..transaction_mode() }, "
        Q SELECT 1
        Q SET helios.region = 'us'
        Q SELECT 1; SET helios.region = 'us'
        Q SET helios.region = 'us'; SELECT 1
        Q SELECT set_config('helios.region', 'us', false)
        Q SHOW helios.region
    ", expect![[""]]);
}

#[test]
fn answers_stand_in_the_order_of_their_statements() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'; SHOW helios.region; SELECT 1; SET helios.region = 'eu'; SHOW domicile.region; SELECT 2; RESET foo
        Q SELECT 1; SHOW helios.region; FAIL; SHOW helios.region; SELECT 2
        Q SELECT set_config('helios.region', 'us', false) AS x; SELECT 1
    ", expect![[""]]);
}

#[test]
fn the_region_changes_only_before_the_first_statement() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        Q SELECT 1; SET helios.region = 'us'; SELECT 2
        Q SET work_mem = '1'; SET helios.region = 'us'; SELECT 2
        Q SELECT 1; COMMIT; SET helios.region = 'eu'
        Q SHOW helios.region
    ", expect![[""]]);
}

#[test]
fn a_failed_message_undoes_its_settings() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        Q SET helios.region = 'us'; FAIL
        Q SHOW helios.region
        Q SET helios.region = 'us'; SET LOCAL helios.region = 'eu'; SELECT 1
        Q SHOW helios.region
        Q SET LOCAL helios.region = 'eu'
        Q SHOW helios.region
        Q RESET helios.region
        Q SET helios.region TO DEFAULT
        Q SHOW helios.region
    ", expect![[""]]);
}

#[test]
fn texts_that_cannot_be_read_go_nowhere() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        Q SELEC 1; SELECT 2
        Q SET helios.region =
        Q SET standard_conforming_strings = off
        Q SET client_encoding = 'SJIS'
        Q SELECT set_config('helios.region', 'us', false), 1
    ", expect![[""]]);
}

#[test]
fn a_transaction_pool_refuses_what_it_cannot_keep() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        Q PREPARE p AS SELECT 1
        Q LISTEN c
        Q CREATE TEMP TABLE t (i int)
        Q DECLARE c CURSOR WITH HOLD FOR SELECT 1
        Q SELECT pg_advisory_lock(1)
        Q SELECT pg_advisory_xact_lock(1)
    ", expect![[""]]);
}

#[test]
fn what_was_left_behind_is_reset_before_anyone_else_gets_the_backend() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'; SET work_mem = '1'
        b> Q SET helios.region = 'eu'; SELECT 1
        Q SELECT set_config('work_mem', '1', false)
    ", expect![[""]]);
}

#[test]
fn copy_in_and_out() {
    check(transaction_mode(), "
        d stray
        Q SET helios.region = 'eu'; COPY t FROM STDIN
        d 1 | d 2 | c
        Q COPY t FROM STDIN | d 1 | f no
        Q COPY t TO STDOUT
        Q SET helios.region = 'antarctica'; COPY t FROM STDIN
        d 1 | c
        Q SET helios.region = 'antarctica'; COPY t TO STDOUT
    ", expect![[""]]);
}

#[test]
fn queries_may_be_sent_without_waiting() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        Q SELECT 1 | Q SELECT 2 | Q SET helios.region = 'us' | Q SELECT 3 | Q BEGIN | Q SELECT 4 | Q FAIL | Q SELECT 5 | Q ROLLBACK | Q SELECT 6
    ", expect![[""]]);
}

#[test]
fn session_mode_keeps_the_backend_and_resets_it() {
    check(session_mode(), "
        Q SET helios.region = 'eu'; SELECT 1
        Q SET work_mem = '1'
        Q RESET ALL
        Q SELECT 2
        Q DISCARD ALL
        Q SET helios.region = 'us'
        Q SELECT 3
        X
    ", expect![[""]]);
}
