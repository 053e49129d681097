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
    ", expect![[""]]);
}

#[test]
fn a_block_discards_up_to_sync() {
    check(transaction_mode(), "
        P :SET helios.region = 'antarctica' | B : | E | S
        P :SELECT 1 | B : | D P: | E | S
        P :SELECT 1 | S
        P :SET helios.region = 'eu' | B : | E | P :SELECT 1 | B : | E | S
    ", expect![[""]]);
}

#[test]
fn settings_are_undone_with_their_unit() {
    check(transaction_mode(), "
        P :SET helios.region = 'eu' | B : | E | P :FAIL | B : | E | S
        Q SHOW helios.region
        P :SET helios.region = 'antarctica' | B : | E | P :SELECT 1 | B : | E | S
        Q SHOW helios.region
        P :SET LOCAL helios.region = 'us' | B : | E | P :SELECT 1 | B : | E | S
        Q SHOW helios.region
    ", expect![[""]]);
}

#[test]
fn a_refusal_behind_statements_of_the_unit_aborts_them() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        P :INSERT 1 | B : | E | P :SET helios.region = 'us' | B : | E | P :INSERT 2 | B : | E | S
        P :INSERT 1 | B : | E | P :SET helios.region = 'eu' | B : | E | P :SELECT 2 | B : | E | S
        Q SHOW helios.region
        P :INSERT 1 | B : | E | P :LISTEN x | B : | E | S
    ", expect![[""]]);
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
        P :FAIL | B : | E | S
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
    ", expect![[""]]);
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
    ", expect![[""]]);
}

#[test]
fn named_statements_in_transaction_mode_are_refused() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        P s:SELECT 1 | B :s | E | S
        C S:s | S
        P r:SET helios.region = 'us' | B :r | E | S
        B :r | E | S
    ", expect![[""]]);
}

#[test]
fn pipelines_of_units() {
    check(transaction_mode(), "
        P :SET helios.region = 'eu' | B : | E | S | P :SELECT 1 | B : | E | S | P :FAIL | B : | E | P :SELECT 2 | S | P :SELECT 3 | B : | E | S
        P :SELECT 1 | B : | E | S | P :SET helios.region = 'us' | B : | E | S | P :SELECT 2 | B : | E | S
        P :SELECT 1 | B : | E | S | P :SET helios.region = 'antarctica' | B : | E | S | P :SELECT 2 | B : | E | S | Q SELECT 3
    ", expect![[""]]);
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
    ", expect![[""]]);
}

#[test]
fn a_query_behind_messages_without_sync() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        P :SELECT 1 | B : | E | Q SELECT 2
        S
        P :SELECT 1 | B : | E | Q SET helios.region = 'us'
        S
    ", expect![[""]]);
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
    ", expect![[""]]);
}
