//! In session mode a login ends with the backend of its start region.

use expect_test::expect;

use super::world::{Setup, bound_to, check, session_mode};

/// All clients begin in Europe, where there is one backend.
fn european() -> Setup {
    Setup { size: 1, source: bound_to(&["eu", "us"]), ..session_mode() }
}

#[test]
fn a_login_waits_for_a_backend_and_what_comes_behind_it_waits_too() {
    check(
        european(),
        "
        Q SELECT 1
        b> Q SELECT 2
        X
        b> Q SELECT 3
        ",
        expect![[r#"
            Q SELECT 1
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 1
            b> Q SELECT 2
            X
              closed
              b: T
              b: D eu
              b: C SELECT 1
              b: Z I
                eu: Q DISCARD ALL
                eu: Q SELECT 2
            b> Q SELECT 3
              b: T
              b: D eu
              b: C SELECT 1
              b: Z I
                eu: Q SELECT 3
        "#]],
    );
}

#[test]
fn a_login_fails_where_the_region_is_down() {
    check(
        european(),
        "
        !down eu
        Q SELECT 1
        !up eu
        b> Q SELECT 2
        ",
        expect![[r#"
            !down eu
            Q SELECT 1
              E FATAL 08006: node "node-eu" of region "eu" refused the connection (HINT)
              closed
            !up eu
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
fn a_login_that_has_waited_too_long_fails() {
    check(
        european(),
        "
        Q SELECT 1
        b> Q SELECT 2
        !tick 130
        Q SELECT 3
        ",
        expect![[r#"
            Q SELECT 1
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 1
            b> Q SELECT 2
            !tick 130
              b: E FATAL 53300: no server connection for user "app" and database "demo" became free within 120 s (HINT)
              b: closed
            Q SELECT 3
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 3
        "#]],
    );
}

#[test]
fn a_client_that_gives_up_while_it_waits_leaves_nothing_behind() {
    check(
        european(),
        "
        Q SELECT 1
        b> Q SELECT 2
        !leave b
        X
        c> Q SELECT 3
        ",
        expect![[r#"
            Q SELECT 1
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 1
            b> Q SELECT 2
            !leave b
            X
              closed
                eu: Q DISCARD ALL
            c> Q SELECT 3
              c: T
              c: D eu
              c: C SELECT 1
              c: Z I
                eu: Q SELECT 3
        "#]],
    );
}

#[test]
fn a_backend_that_was_not_used_is_left_without_a_word() {
    check(
        european(),
        "
        Q SET helios.region = 'us'
        Q SELECT 1
        Q SET helios.region = 'eu'
        Q SELECT 2
        ",
        expect![[r#"
            Q SET helios.region = 'us'
              C SET
              Z I
            Q SELECT 1
              T
              D us
              C SELECT 1
              Z I
                eu: Q DISCARD ALL
                us: Q SELECT 1
            Q SET helios.region = 'eu'
              C SET
              Z I
            Q SELECT 2
              N NOTICE 00000: the session leaves its region; prepared statements, temporary tables and settings made there are gone
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 2
                us: Q DISCARD ALL
        "#]],
    );
}
