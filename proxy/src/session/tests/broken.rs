//! Servers that break the protocol in the middle of an answer.

use expect_test::expect;

use super::world::{Cut, Setup, World, bound_to, check, session_mode, transaction_mode};

/// A client's message is answered with these: what it gets. Nobody else notices, and the next session has another backend.
#[track_caller]
fn answer(asked: &str, messages: &str, expected: &str) {
    let broken = "E FATAL 08006: node \"node-eu\" broke the protocol / closed / eu: closed: Abrupt";
    let expected = expected.replace("broken", broken);
    for setup in [transaction_mode(), session_mode()] {
        let script = format!(
            "
            b> Q SET helios.region = 'us'; SELECT 1
            Q SET helios.region = 'eu'
            !freeze
            {asked}
            !server eu {messages}
            !thaw
            b> Q SELECT 2
            c> Q SET helios.region = 'eu'; SELECT 3
        "
        );
        let said = World::new(&setup).play(&script, Cut::Whole);
        let (_, answered) = said.split_once(&format!("!server eu {messages}\n")).unwrap();
        let (answered, afterwards) = answered.split_once("!thaw\n").unwrap();
        let answered: Vec<&str> = answered.lines().map(str::trim).collect();
        assert_eq!(answered.join(" / "), expected, "{asked} {messages}");
        for name in ["b", "c"] {
            assert!(afterwards.contains(&format!("  {name}: C SELECT 1\n  {name}: Z I\n")), "{afterwards}");
        }
    }
}

#[test]
fn an_answer_to_a_query_out_of_order_ends_its_session_only() {
    for (messages, expected) in [
        ("row", "broken"),
        ("idle", "broken"),
        ("columns+row+idle", "T / D x / broken"),
        ("done+row", "C SELECT 1 / broken"),
        ("wal", "broken"),
        ("copyboth", "broken"),
        ("copyin+idle", "G / broken"),
        ("copyin+wal", "G / broken"),
        ("columns+copyin", "T / broken"),
        ("error-without-sqlstate", "broken"),
        ("error-without-end", "broken"),
        ("sjis", "broken"),
        ("latin1-encoding", "broken"),
    ] {
        answer("Q SELECT 1", messages, expected);
    }
}

#[test]
fn an_answer_to_an_execute_out_of_order_ends_its_session_only() {
    let answer = |messages, expected| answer("P :SELECT 1 | B : | E | S", &format!("parsed+bound+{messages}"), expected);
    answer("done+done", "1 / 2 / C SELECT 1 / broken");
    answer("columns", "1 / 2 / broken");
    answer("copyin+done+row", "1 / 2 / G / C SELECT 1 / broken");
    answer("copyboth", "1 / 2 / broken");
    answer("idle", "1 / 2 / broken");
    answer("error-without-sqlstate", "1 / 2 / broken");
}

#[test]
fn the_settings_that_a_server_reports_are_bounded() {
    // Two are known from the login.
    let told: String = (0..254).map(|number| format!("S s{number}=x / ")).collect();
    answer("Q SELECT 1", "settings", &format!("{told}broken"));
}

#[test]
fn a_setting_in_another_encoding_goes_to_its_client_who_keeps_the_backend() {
    check(
        Setup { size: 1, ..transaction_mode() },
        "
        Q SET helios.region = 'eu'; SELECT 1
        !freeze
        Q SELECT 2
        !server eu latin1
        !thaw
        Q SELECT 3
        b> Q SET helios.region = 'eu'; SELECT 4
        X
    ",
        expect![[r#"
            Q SET helios.region = 'eu'; SELECT 1
              C SET
              T
              D eu
              C SELECT 1
              Z I
                eu: Q                         ; SELECT 1
            !freeze
            Q SELECT 2
                eu: Q SELECT 2
            !server eu latin1
              S search_path=d�j�
            !thaw
              T
              D eu
              C SELECT 1
              Z I
              N NOTICE 00000: this session keeps its server connection from now on: SET (HINT)
            Q SELECT 3
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 3
            b> Q SET helios.region = 'eu'; SELECT 4
            X
              closed
              b: C SET
              b: T
              b: D eu
              b: C SELECT 1
              b: Z I
                eu: Q DISCARD ALL
                eu: Q                         ; SELECT 4
        "#]],
    );
}

#[test]
fn who_has_begun_a_message_while_nobody_asked_serves_nobody() {
    check(
        transaction_mode(),
        "
        Q SET helios.region = 'eu'; SELECT 1
        !server eu half
        Q SELECT 2
    ",
        expect![[r#"
            Q SET helios.region = 'eu'; SELECT 1
              C SET
              T
              D eu
              C SELECT 1
              Z I
                eu: Q                         ; SELECT 1
            !server eu half
                eu: closed: Abrupt
            Q SELECT 2
              T
              D eu
              C SELECT 1
              Z I
                eu: Q SELECT 2
        "#]],
    );
}

#[test]
fn a_reset_that_is_answered_with_more_than_that_it_is_done_ends_the_backend() {
    for junk in ["columns+row+done+idle", "copyin", "idle", "done+wal", "done+columns", "done+idle+half"] {
        let script = format!(
            "
            Q SELECT 1
            !freeze
            X
            !server eu {junk}
            !thaw
            b> Q SELECT 2
        "
        );
        let setup = Setup { size: 1, source: bound_to(&["eu"]), ..session_mode() };
        let said = World::new(&setup).play(&script, Cut::Whole);
        assert!(said.contains("eu: closed: Abrupt"), "{junk}: {said}");
        assert!(said.contains("  b: C SELECT 1\n  b: Z I\n"), "{junk}: {said}");
    }
}

/// A session waits while another one is answered, and what is glued behind the answer must not reach it.
#[test]
fn what_comes_behind_an_answer_does_not_meet_whoever_waits() {
    for glued in ["row", "idle", "half", "notice", "error-without-sqlstate", "terminated", "latin1", "sjis"] {
        let script = format!(
            "
            !freeze
            Q SELECT 1
            b> Q SELECT 2
            !server eu columns+row+done+idle+{glued}
            !thaw
        "
        );
        let setup = Setup { size: 1, source: bound_to(&["eu"]), ..transaction_mode() };
        let said = World::new(&setup).play(&script, Cut::Whole);
        let (_, said) = said.split_once(&format!("+{glued}\n")).unwrap();
        let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.starts_with("!")).collect();
        let expected =
            "T / D x / C SELECT 1 / Z I / eu: closed: Abrupt / eu: Q SELECT 2 / b: T / b: D eu / b: C SELECT 1 / b: Z I";
        assert_eq!(said.join(" / "), expected, "{glued}");
    }
}
