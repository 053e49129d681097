//! What an operator does to sessions: they wait in order while nothing may be lent, and end at once when they are killed.

use expect_test::expect;

use super::world::{Setup, check, session_mode, transaction_mode};
use crate::pool::{Scope, session_id};
use crate::session::Operation;

/// `pause`, `pause demo`, `resume`, `kill`, `recall`, `kill_client 1` (the first session that there was).
pub(super) fn operation(words: &str) -> Operation {
    let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
    let scope = || if rest.is_empty() { Scope::All } else { Scope::Database(rest.into()) };
    match verb {
        "pause" => Operation::Pause(scope()),
        "resume" => Operation::Resume(scope()),
        "kill" => Operation::Kill(scope()),
        "recall" => Operation::Recall(scope()),
        "kill_client" => Operation::KillClient(session_id(rest.parse().unwrap(), 0)),
        other => panic!("unknown operation {other}"),
    }
}

#[test]
fn during_a_pause_transactions_end_and_what_comes_then_waits_in_order() {
    check(
        Setup { size: 1, ..transaction_mode() },
        "Q SET helios.region = 'eu'
         Q BEGIN; SELECT 1
         !operate pause demo
         b> Q SET helios.region = 'eu'; SELECT 'b'
         c> Q SET helios.region = 'eu'; SELECT 'c'
         Q SELECT 2
         Q COMMIT
         Q SELECT 'a'
         Q SET helios.region = 'us'
         !operate resume demo",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q BEGIN; SELECT 1
              C BEGIN
              T
              D eu
              C SELECT 1
              Z T
                eu: Q BEGIN; SELECT 1
            !operate pause demo
            b> Q SET helios.region = 'eu'; SELECT 'b'
            c> Q SET helios.region = 'eu'; SELECT 'c'
            Q SELECT 2
              T
              D eu
              C SELECT 1
              Z T
                eu: Q SELECT 2
            Q COMMIT
              C COMMIT
              Z I
                eu: Q COMMIT
                eu: closed: Terminate
            Q SELECT 'a'
            Q SET helios.region = 'us'
            !operate resume demo
              b: C SET
              b: T
              b: D eu
              b: C SELECT 1
              b: Z I
              c: C SET
              c: T
              c: D eu
              c: C SELECT 1
              c: Z I
              T
              D eu
              C SELECT 1
              Z I
              C SET
              Z I
                eu: Q                         ; SELECT 'b'
                eu: Q                         ; SELECT 'c'
                eu: Q SELECT 'a'
        "#]],
    );
}

#[test]
fn a_pipeline_that_was_begun_before_a_pause_is_answered_whole() {
    check(
        transaction_mode(),
        "Q SET helios.region = 'eu'
         P :SELECT 1 | B : | E
         !operate pause
         P :SELECT 2 | B : | E | S
         P :SELECT 3 | B : | E | S
         !operate resume",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            P :SELECT 1 | B : | E
              1
              2
              D eu
              C SELECT 1
                eu: P :SELECT 1
                eu: B :
                eu: E 
            !operate pause
            P :SELECT 2 | B : | E | S
              1
              2
              D eu
              C SELECT 1
              Z I
                eu: P :SELECT 2
                eu: B :
                eu: E 
                eu: S
                eu: closed: Terminate
            P :SELECT 3 | B : | E | S
            !operate resume
              1
              2
              D eu
              C SELECT 1
              Z I
                eu: P :SELECT 3
                eu: B :
                eu: E 
                eu: S
        "#]],
    );
}

#[test]
fn a_kill_ends_what_is_idle_what_waits_and_what_runs() {
    check(
        Setup { size: 1, ..transaction_mode() },
        "Q SET helios.region = 'eu'
         Q BEGIN; SELECT 1
         b> Q SET helios.region = 'eu'; SELECT 'b'
         c> Q SELECT 'no region'
         !operate kill other
         Q SELECT 2
         !operate kill demo
         d> Q SET helios.region = 'eu'; SELECT 'd'
         !operate resume demo",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q BEGIN; SELECT 1
              C BEGIN
              T
              D eu
              C SELECT 1
              Z T
                eu: Q BEGIN; SELECT 1
            b> Q SET helios.region = 'eu'; SELECT 'b'
            c> Q SELECT 'no region'
              audit: denied "" at Query by residency.unbound
              c: E ERROR 42000: blocked: no region is set for this session
              c: Z I
            !operate kill other
            Q SELECT 2
              T
              D eu
              C SELECT 1
              Z T
                eu: Q SELECT 2
            !operate kill demo
              E FATAL 57P01: terminating connection due to administrator command
              closed
              b: E FATAL 57P01: terminating connection due to administrator command
              b: closed
              c: E FATAL 57P01: terminating connection due to administrator command
              c: closed
                eu: closed: Abrupt
            d> Q SET helios.region = 'eu'; SELECT 'd'
            !operate resume demo
              d: C SET
              d: T
              d: D eu
              d: C SELECT 1
              d: Z I
                eu: Q                         ; SELECT 'd'
        "#]],
    );
}

#[test]
fn one_client_is_ended_and_its_backend_serves_the_next() {
    check(
        Setup { size: 1, ..session_mode() },
        "Q SET helios.region = 'eu'
         Q SELECT 1
         b> Q SET helios.region = 'eu'; SELECT 'b'
         !operate kill_client 7
         !operate kill_client 1",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q SELECT 1
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 1
            b> Q SET helios.region = 'eu'; SELECT 'b'
            !operate kill_client 7
            !operate kill_client 1
              E FATAL 57P01: terminating connection due to administrator command
              closed
              b: C SET
              b: T
              b: D eu
              b: C SELECT 1
              b: Z I
                eu: Q DISCARD ALL
                eu: Q                         ; SELECT 'b'
        "#]],
    );
}

/// A session that goes on behind a recall.
const RECALLED: &str = "Q SET helios.region = 'eu'
    Q BEGIN; SELECT 1
    !operate recall
    Q SELECT 2; COMMIT
    Q SELECT 3
    X";

#[test]
fn a_session_keeps_its_recalled_backend_in_session_mode() {
    check(
        session_mode(),
        RECALLED,
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q BEGIN; SELECT 1
              C BEGIN
              T
              D eu
              C SELECT 1
              Z T
                eu: Q BEGIN; SELECT 1
            !operate recall
            Q SELECT 2; COMMIT
              T
              D eu
              C SELECT 1
              C COMMIT
              Z I
                eu: Q SELECT 2; COMMIT
            Q SELECT 3
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 3
            X
              closed
                eu: Q DISCARD ALL
                eu: closed: Terminate
        "#]],
    );
}

#[test]
fn a_recalled_backend_is_closed_behind_its_transaction_in_transaction_mode() {
    check(
        transaction_mode(),
        RECALLED,
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q BEGIN; SELECT 1
              C BEGIN
              T
              D eu
              C SELECT 1
              Z T
                eu: Q BEGIN; SELECT 1
            !operate recall
            Q SELECT 2; COMMIT
              T
              D eu
              C SELECT 1
              C COMMIT
              Z I
                eu: Q SELECT 2; COMMIT
                eu: closed: Terminate
            Q SELECT 3
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 3
            X
              closed
        "#]],
    );
}

#[test]
fn those_who_wait_for_the_end_of_a_pause_go_when_the_process_ends() {
    check(
        transaction_mode(),
        "Q SET helios.region = 'eu'
         !operate pause
         Q SELECT 1
         b> Q SET helios.region = 'eu'; BEGIN
         !drain
         b> Q SELECT 2",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            !operate pause
            Q SELECT 1
            b> Q SET helios.region = 'eu'; BEGIN
              b: C SET
              b: C BEGIN
              b: Z T
            !drain
              E FATAL 57P01: terminating connection due to administrator command
              closed
            b> Q SELECT 2
        "#]],
    );
}
