//! Cancel requests reach what their session is doing, and nobody else.

use expect_test::expect;

use super::world::{Setup, check, session_mode, transaction_mode};

fn one_backend() -> Setup {
    Setup { size: 1, ..transaction_mode() }
}

#[test]
fn a_running_statement_is_cancelled_and_its_backend_withheld_until_that_is_over() {
    check(
        one_backend(),
        "
        Q SET helios.region = 'eu'
        b> Q SET helios.region = 'eu'
        !freeze
        Q SELECT 1
        !cancel a
        !cancel a
        b> Q SELECT 2
        !thaw
        !cancel a
        !cancelled
        ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            b> Q SET helios.region = 'eu'
              b: C SET
              b: Z I
            !freeze
            Q SELECT 1
                eu: Q SELECT 1
            !cancel a
              cancel: process 1 of node node-eu at None
            !cancel a
              cancel: done
            b> Q SELECT 2
            !thaw
              T
              D eu
              C SELECT 1
              Z I
            !cancel a
              cancel: done
            !cancelled
              cancel: done
              b: T
              b: D eu
              b: C SELECT 1
              b: Z I
                eu: Q SELECT 2
        "#]],
    );
}

#[test]
fn what_is_not_running_is_not_cancelled() {
    check(
        one_backend(),
        "
        Q SET helios.region = 'eu'
        !cancel a
        Q SELECT 1
        !cancel a
        !cancel a wrong
        Q BEGIN
        Q SELECT 2
        !cancel a
        Q COMMIT
        ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            !cancel a
              cancel: done
            Q SELECT 1
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 1
            !cancel a
              cancel: done
            !cancel a wrong
              cancel: unknown
            Q BEGIN
              C BEGIN
              Z T
            Q SELECT 2
              T
              D eu
              C SELECT 1
              Z T
                eu: Q BEGIN
                eu: Q SELECT 2
            !cancel a
              cancel: done
            Q COMMIT
              C COMMIT
              Z I
                eu: Q COMMIT
        "#]],
    );
}

#[test]
fn a_request_that_comes_while_one_is_on_its_way_follows_it() {
    check(
        one_backend(),
        "
        Q SET helios.region = 'eu'
        Q BEGIN; SELECT 0
        !freeze
        Q SELECT 1
        !cancel a
        !thaw
        !freeze
        Q SELECT 2
        !cancel a
        !cancelled
        !thaw
        !cancelled
        Q SELECT 3
        ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q BEGIN; SELECT 0
              C BEGIN
              T
              D eu
              C SELECT 1
              Z T
                eu: Q BEGIN; SELECT 0
            !freeze
            Q SELECT 1
                eu: Q SELECT 1
            !cancel a
              cancel: process 1 of node node-eu at None
            !thaw
              T
              D eu
              C SELECT 1
              Z T
            !freeze
            Q SELECT 2
                eu: Q SELECT 2
            !cancel a
              cancel: done
            !cancelled
              cancel: process 1 of node node-eu at None
            !thaw
              T
              D eu
              C SELECT 1
              Z T
            !cancelled
              cancel: done
            Q SELECT 3
              T
              D eu
              C SELECT 1
              Z T
                eu: Q SELECT 3
        "#]],
    );
}

#[test]
fn a_backend_of_which_nobody_knows_whether_it_is_being_cancelled_is_closed() {
    check(
        one_backend(),
        "
        Q SET helios.region = 'eu'
        b> Q SET helios.region = 'eu'
        !freeze
        Q SELECT 1
        !cancel a
        !thaw
        b> Q SELECT 2
        !cancelled badly
        ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            b> Q SET helios.region = 'eu'
              b: C SET
              b: Z I
            !freeze
            Q SELECT 1
                eu: Q SELECT 1
            !cancel a
              cancel: process 1 of node node-eu at None
            !thaw
              T
              D eu
              C SELECT 1
              Z I
            b> Q SELECT 2
            !cancelled badly
              cancel: done
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
fn a_session_that_waits_for_a_backend_is_answered_by_the_proxy() {
    check(
        one_backend(),
        "
        Q SET helios.region = 'eu'
        Q BEGIN; SELECT 1
        b> Q SET helios.region = 'eu'
        b> Q SELECT 2
        !cancel b
        b> P :SELECT 3 | B : | E | S
        !cancel b
        b> Q BEGIN
        b> Q SELECT 4
        !cancel b
        b> Q SELECT 5
        b> Q ROLLBACK
        Q COMMIT
        b> Q SELECT 6
        ",
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
            b> Q SET helios.region = 'eu'
              b: C SET
              b: Z I
            b> Q SELECT 2
            !cancel b
              cancel: done
              b: E ERROR 57014: canceling statement due to user request
              b: Z I
            b> P :SELECT 3 | B : | E | S
            !cancel b
              cancel: done
              b: E ERROR 57014: canceling statement due to user request
              b: Z I
            b> Q BEGIN
              b: C BEGIN
              b: Z T
            b> Q SELECT 4
            !cancel b
              cancel: done
              b: E ERROR 57014: canceling statement due to user request
              b: Z E
            b> Q SELECT 5
              b: E ERROR 25P02: current transaction is aborted, commands ignored until end of transaction block
              b: Z E
            b> Q ROLLBACK
              b: C ROLLBACK
              b: Z I
            Q COMMIT
              C COMMIT
              Z I
                eu: Q COMMIT
            b> Q SELECT 6
              b: T
              b: D eu
              b: C SELECT 1
              b: Z I
                eu: Q SELECT 6
        "#]],
    );
}

#[test]
fn a_preamble_is_cancelled_like_the_statement_it_stands_before() {
    check(
        one_backend(),
        "
        Q SET helios.region = 'eu'
        Q BEGIN
        !freeze
        Q SELECT 1
        !cancel a
        !thaw
        !cancelled
        Q COMMIT
        ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q BEGIN
              C BEGIN
              Z T
            !freeze
            Q SELECT 1
                eu: Q BEGIN
            !cancel a
              cancel: process 1 of node node-eu at None
            !thaw
              T
              D eu
              C SELECT 1
              Z T
                eu: Q SELECT 1
            !cancelled
              cancel: done
            Q COMMIT
              C COMMIT
              Z I
                eu: Q COMMIT
        "#]],
    );
}

#[test]
fn a_session_that_leaves_takes_its_backend_along_only_if_it_owes_something() {
    check(
        one_backend(),
        "
        Q SET helios.region = 'eu'
        !freeze
        Q SELECT 1
        !cancel a
        !leave a
        !thaw
        !cancelled
        b> Q SET helios.region = 'eu'
        b> Q SELECT 2
        ",
        expect![[r#"
            Q SET helios.region = 'eu'
              C SET
              Z I
            !freeze
            Q SELECT 1
                eu: Q SELECT 1
            !cancel a
              cancel: process 1 of node node-eu at None
            !leave a
                eu: closed: Abrupt
            !thaw
            !cancelled
              cancel: done
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
fn in_session_mode_the_key_is_of_the_session_too() {
    check(
        Setup { size: 1, ..session_mode() },
        "
        Q SET helios.region = 'eu'
        Q SELECT 1
        !cancel a
        !freeze
        Q SELECT 2
        !cancel a
        !cancel a wrong
        !thaw
        X
        !cancelled
        ",
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
            !cancel a
              cancel: done
            !freeze
            Q SELECT 2
                eu: Q SELECT 2
            !cancel a
              cancel: process 1 of node node-eu at None
            !cancel a wrong
              cancel: unknown
            !thaw
              T
              D eu
              C SELECT 1
              Z I
            X
              closed
            !cancelled
              cancel: done
                eu: Q DISCARD ALL
        "#]],
    );
}
