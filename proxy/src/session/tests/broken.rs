//! Servers that break the protocol in the middle of an answer.

use super::world::{Cut, World, session_mode, transaction_mode};

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
