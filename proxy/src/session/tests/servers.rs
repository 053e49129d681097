//! Which servers of its region a session gets: its bind rule says it, a pool never mixes them, and a reload may change it.

use expect_test::expect;

use super::world::{Setup, bound_to, check, session_mode, transaction_mode};
use crate::target::TargetSessionAttrs;

#[test]
fn a_reload_that_names_other_servers_is_followed_between_transactions() {
    check(
        Setup { source: bound_to(&["eu"]), ..transaction_mode() },
        "
        Q SELECT 1
        Q BEGIN; SELECT 2
        !target standby
        Q SELECT 3
        Q COMMIT
        Q SELECT 4
        !target read-write
        Q SELECT 5
    ",
        expect![[r#"
            Q SELECT 1
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 1
            Q BEGIN; SELECT 2
              C BEGIN
              T
              D eu
              C SELECT 1
              Z T
                eu: Q BEGIN; SELECT 2
            !target standby
            Q SELECT 3
              T
              D eu
              C SELECT 1
              Z T
                eu: Q SELECT 3
            Q COMMIT
              C COMMIT
              Z I
                eu: Q COMMIT
            Q SELECT 4
              open: eu, standby
              S in_hot_standby=on
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 4
            !target read-write
            Q SELECT 5
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 5
        "#]],
    );
}

#[test]
fn a_session_that_holds_its_backend_changes_it_between_transactions() {
    check(
        Setup { source: bound_to(&["eu"]), ..session_mode() },
        "
        Q SELECT 1
        !target prefer-standby
        Q SELECT 2
    ",
        expect![[r#"
            Q SELECT 1
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 1
            !target prefer-standby
            Q SELECT 2
              N NOTICE 00000: the node of this session has been reconfigured; prepared statements, temporary tables and settings made there are gone
              open: eu, prefer-standby
              S in_hot_standby=on
              T
              D eu
              C SELECT 1
              Z I
                eu: Q DISCARD ALL
                eu: Q SELECT 2
        "#]],
    );
}

#[test]
fn a_server_that_is_promoted_under_a_session_is_left_after_the_transaction() {
    let mut source = bound_to(&["eu"]);
    source.binds[0].target = TargetSessionAttrs::Standby;
    check(
        Setup { source, ..transaction_mode() },
        "
        Q SELECT 1
        !server eu promoted
        !tick 1
        Q BEGIN; SELECT 2
        !server eu promoted
        Q SELECT 3
        Q COMMIT
        Q SELECT 4
    ",
        expect![[r#"
            Q SELECT 1
              open: eu, standby
              S in_hot_standby=on
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 1
            !server eu promoted
            !tick 1
                eu: closed: Terminate
            Q BEGIN; SELECT 2
              open: eu, standby
              C BEGIN
              T
              D eu
              C SELECT 1
              Z T
                eu: Q BEGIN; SELECT 2
            !server eu promoted
              S in_hot_standby=off
            Q SELECT 3
              T
              D eu
              C SELECT 1
              Z T
                eu: Q SELECT 3
            Q COMMIT
              C COMMIT
              Z I
                eu: Q COMMIT
                eu: closed: Terminate
            Q SELECT 4
              open: eu, standby
              S in_hot_standby=on
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 4
        "#]],
    );
}

#[test]
fn a_region_that_is_down_is_answered_in_the_servers_words_or_ours_and_the_session_goes_on() {
    check(
        Setup { source: bound_to(&["eu", "us"]), ..transaction_mode() },
        "
        !down eu silent
        Q SELECT 1
        !up eu
        !down eu starting
        Q SELECT 2
        !up eu
        !down eu unfit
        P :SELECT 3 | B : | E | S
        !up eu
        Q SELECT 4
    ",
        expect![[r#"
            !down eu silent
            Q SELECT 1
              E ERROR 08006: node "node-eu" of region "eu" did not answer in time (HINT)
              Z I
            !up eu
            !down eu starting
            Q SELECT 2
              E ERROR 57P03: the database system is starting up (HINT)
              Z I
            !up eu
            !down eu unfit
            P :SELECT 3 | B : | E | S
              E ERROR 08006: region "eu" has no server for target_session_attrs = "read-write" at the moment (HINT)
              Z I
            !up eu
            Q SELECT 4
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 4
        "#]],
    );
}
