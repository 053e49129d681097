//! BEGIN to COMMIT, and what the proxy's own errors do to it.

use expect_test::expect;

use super::world::{Setup, bound_to, check, session_mode, transaction_mode};

#[test]
fn begin_waits_for_the_first_statement() {
    check(transaction_mode(), "
        Q BEGIN
        Q SET LOCAL helios.region = 'eu'
        Q SELECT 1
        Q SELECT 2
        Q COMMIT
        Q SHOW helios.region
        Q BEGIN; SET LOCAL helios.region = 'us'; SELECT 1
        Q COMMIT
        Q START TRANSACTION; SET helios.region = 'us'; SELECT 1; COMMIT
        Q SHOW helios.region
    ", expect![[""]]);
}

#[test]
fn a_block_fails_the_transaction_and_rollback_ends_it() {
    check(transaction_mode(), "
        Q BEGIN
        Q SET helios.region = 'antarctica'
        Q SELECT 1
        Q SELECT 2
        Q SHOW helios.region
        Q SAVEPOINT s
        Q ROLLBACK TO s
        Q COMMIT
        Q SHOW helios.region
        Q SET helios.region = 'eu'; SELECT 3
    ", expect![[""]]);
}

#[test]
fn a_block_in_the_message_that_begins_the_transaction() {
    check(transaction_mode(), "
        Q BEGIN; SET helios.region = 'antarctica'; SELECT 1
        Q SELECT 1
        Q ROLLBACK
        Q SHOW helios.region
    ", expect![[""]]);
}

#[test]
fn a_refusal_inside_an_open_transaction_leaves_the_backend_waiting_for_rollback() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        Q BEGIN
        Q SELECT 1
        Q SAVEPOINT s
        Q SET helios.region = 'us'
        Q SELECT 2
        Q ROLLBACK TO s
        Q SELECT 3
        Q SET helios.region = 'us'
        Q COMMIT
        Q SELECT 4
        Q BEGIN; SELECT 1
        Q SET helios.region = 'us'
        Q ROLLBACK; SELECT 5
        Q BEGIN; SELECT 1
        Q SET helios.region = 'us'
        Q ROLLBACK AND CHAIN
        Q COMMIT
    ", expect![[""]]);
}

#[test]
fn errors_of_the_server_are_the_servers() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        Q BEGIN
        Q FAIL
        Q SELECT 1
        Q SET helios.region = 'eu'
        Q COMMIT
        Q SELECT 2
    ", expect![[""]]);
}

#[test]
fn savepoints_and_set_local() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        Q BEGIN; SET LOCAL helios.region = 'us'; SAVEPOINT s; SET helios.region = 'us'; ROLLBACK TO s
        Q COMMIT
        Q SHOW helios.region
        Q BEGIN; SET LOCAL helios.region = 'us'; SELECT 1
        Q COMMIT AND CHAIN
        Q ROLLBACK
        Q BEGIN; SET LOCAL helios.region = 'us'; SELECT 1; COMMIT; SELECT 2
        Q BEGIN; SET LOCAL helios.region = 'us'; SELECT 1
        Q COMMIT; SELECT 2
        Q ROLLBACK
    ", expect![[""]]);
}

#[test]
fn transactions_that_no_backend_sees() {
    check(transaction_mode(), "
        Q BEGIN
        Q BEGIN
        Q SET helios.region = 'eu'
        Q ROLLBACK
        Q SHOW helios.region
        Q BEGIN; SET helios.region = 'eu'; COMMIT
        Q SHOW helios.region
        Q BEGIN; COMMIT; SELECT 1
        Q BEGIN
        Q SET LOCAL helios.region = 'us'
        Q COMMIT; SELECT 1
        Q COMMIT AND CHAIN
        Q BEGIN
        Q COMMIT AND CHAIN
        Q ROLLBACK
    ", expect![[""]]);
}

#[test]
fn set_transaction_waits_with_begin() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        Q BEGIN ISOLATION LEVEL SERIALIZABLE
        Q SET TRANSACTION READ ONLY
        Q SET LOCAL helios.region = 'us'
        Q SELECT 1
        Q COMMIT
    ", expect![[""]]);
}

#[test]
fn settings_of_others_before_the_first_statement() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        Q BEGIN
        Q SET work_mem = '1'; COMMIT
        Q BEGIN
        Q SET work_mem = '1'
        Q COMMIT
    ", expect![[""]]);
}

#[test]
fn a_grant_that_shrinks_under_an_open_transaction() {
    check(Setup { source: bound_to(&["eu", "us"]), ..transaction_mode() }, "
        Q BEGIN
        Q SELECT 1
        !grant us
        Q SELECT 2
        Q COMMIT
        Q BEGIN; SET helios.region = 'us'; SELECT 3
        Q COMMIT
        !grant eu us
        Q SET helios.region = 'eu'
        Q BEGIN; SELECT 1
        !grant us
        Q ROLLBACK
        Q SELECT 4
        Q SET helios.region = 'us'
        Q SELECT 5
    ", expect![[""]]);
}

#[test]
fn session_mode_waits_with_begin_too() {
    check(session_mode(), "
        Q SET helios.region = 'eu'; SELECT 1
        Q BEGIN
        Q SET LOCAL helios.region = 'us'
        Q SELECT 2
        Q COMMIT
        Q SELECT 3
    ", expect![[""]]);
}
