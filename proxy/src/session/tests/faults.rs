//! Servers that are down, break, or misbehave; clients that leave; pools that are full; an end of work.

use expect_test::expect;

use super::world::{Setup, check, session_mode, transaction_mode};

#[test]
fn a_region_that_is_down_is_an_error_and_never_a_detour() {
    check(transaction_mode(), "
        !down eu
        Q SET helios.region = 'eu'; SELECT 1
        Q SELECT 1
        Q SET helios.region = 'us'; SELECT 1
        !up eu
        Q SET helios.region = 'eu'; SELECT 1
        !kill eu
        !down eu
        P :SET helios.region = 'eu' | B : | E | P :SELECT 1 | B : | E | S
        Q BEGIN; SET helios.region = 'eu'; SELECT 1
        Q ROLLBACK
        Q BEGIN
        Q SELECT 1
        Q SELECT 1
        Q ROLLBACK
    ", expect![[""]]);
}

#[test]
fn a_backend_that_breaks_takes_its_session_with_it_and_no_other() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'; SELECT 1
        b> Q SET helios.region = 'eu'
        !kill eu
        Q SELECT 2
        !freeze
        Q SELECT 3
        !kill eu
        b> Q SELECT 4
        !thaw
        b> Q BEGIN; SELECT 5
        !kill eu
    ", expect![[""]]);
}

#[test]
fn a_client_that_leaves_takes_its_transaction_with_it() {
    check(Setup { size: 1, ..transaction_mode() }, "
        Q SET helios.region = 'eu'; BEGIN; SELECT 1
        b> Q SET helios.region = 'eu'; SELECT 2
        !leave a
        b> Q SELECT 3
    ", expect![[""]]);
}

#[test]
fn a_client_that_leaves_while_a_reply_is_owed() {
    check(Setup { size: 1, ..transaction_mode() }, "
        !freeze
        Q SET helios.region = 'eu'; SELECT 1
        !leave a
        !thaw
        b> Q SET helios.region = 'eu'; SELECT 2
        b> P :SELECT 1 | H
        !leave b
        c> Q SET helios.region = 'eu'; SELECT 3
    ", expect![[""]]);
}

#[test]
fn waiting_is_first_come_first_served_and_ends() {
    check(Setup { size: 1, ..transaction_mode() }, "
        Q SET helios.region = 'eu'; BEGIN; SELECT 1
        b> Q SET helios.region = 'eu'; SELECT 2 | Q SHOW helios.region
        c> Q SET helios.region = 'eu'; SELECT 3
        Q COMMIT
        Q BEGIN; SELECT 1
        b> Q SELECT 4
        c> P :SELECT 5 | B : | E | S
        !tick 130
        b> Q SELECT 6
        Q COMMIT
        b> Q SHOW helios.region
    ", expect![[""]]);
}

#[test]
fn begin_that_the_server_refuses() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'
        P :BEGIN BAD | B : | E | S
        Q SELECT 1
    ", expect![[""]]);
}

#[test]
fn a_backend_that_says_what_nobody_asked_for() {
    check(session_mode(), "
        Q SET helios.region = 'eu'; SELECT 1
        !server eu notice
        !server eu timezone
        Q SELECT 2
        !server eu row
        b> Q SET helios.region = 'eu'; SELECT 1
        !server eu idle
        c> Q SET helios.region = 'eu'; SELECT 1
        !server eu sjis
    ", expect![[""]]);
}

#[test]
fn an_idle_backend_that_speaks_is_closed() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'; SELECT 1
        !server eu timezone
        Q SELECT 2
        !server eu notice
        Q SELECT 3
    ", expect![[""]]);
}

#[test]
fn an_end_of_work_waits_for_transactions() {
    check(transaction_mode(), "
        Q SET helios.region = 'eu'; BEGIN; SELECT 1
        b> Q SET helios.region = 'eu'; SELECT 1
        !drain
        Q SELECT 2
        Q COMMIT
    ", expect![[""]]);
}
