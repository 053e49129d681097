//! Texts that are made to be expensive: every one is answered in bounded time and stack.

use std::thread;

use super::*;
use crate::limits::{SQL_CALLS_MAX, SQL_TEXT_BYTES_MAX};

/// What a text says, read on a thread with a stack of 1 MiB, which is less than any worker has.
fn say_on_a_small_stack(text: String) -> String {
    thread::Builder::new().stack_size(1 << 20).spawn(move || say(text)).unwrap().join().unwrap()
}

fn check_deep(text: String, expected: &str) {
    let start: String = text.chars().take(60).collect();
    assert!(say_on_a_small_stack(text).starts_with(expected), "{start}");
}

#[test]
fn deep_nesting_overflows_nothing() {
    let nested = |open: &str, close: &str, depth: usize| format!(";SELECT {}1{}", open.repeat(depth), close.repeat(depth));
    check_deep(nested("(", ")", 4_000), "other");
    check_deep(nested("(", ")", 100_000), "54001");
    check_deep(nested("NOT ", "", 100_000), "54001");
    check_deep(nested("- ", "", 4_000), "other");
    check_deep(nested("CASE WHEN true THEN ", " END", 100_000 / 8), "54001");
    check_deep(nested("(SELECT * FROM ", ") x", 10_000), "54001");
    check_deep(nested("ARRAY[", "]", 100_000), "54001");
    check_deep(nested("f(", ")", 4_000), "other");
    check_deep(format!(";SELECT 1{}", "+1".repeat(40_000)), "other");
    check_deep(format!(";SELECT 1{}", " AND true".repeat(20_000)), "other");
    check_deep(format!(";SELECT 1{}", " UNION SELECT 1".repeat(12_000)), "other");
    check_deep(format!(";SELECT 1{}", "::int".repeat(30_000)), "other");
    check_deep(format!(";SELECT a{}", "[1]".repeat(40_000)), "other");
    check_deep(format!(";SELECT 1 IN (1{})", ",1".repeat(80_000)), "other");
    check_deep(format!("SELECT {} set_config('helios.region', 'eu', false)", "NOT ".repeat(15)), "refused 0A000");
    check_deep(format!("{} set_config('helios.region', 'eu', false){}", "SELECT (".repeat(5), ")".repeat(5)), "refused 0A000");
    check_deep(format!("SELECT {}set_config('helios.region', 'eu', false){}", "f(".repeat(5), ")".repeat(5)), "refused 0A000");
    check_deep(
        format!("SELECT {}set_config('helios.region', 'eu', false){}", "(".repeat(4_000), ")".repeat(4_000)),
        "refused 0A000",
    );
    check_deep(format!("PREPARE p AS SELECT {}1", "NOT ".repeat(4_000)), "other, Prepare");
    check_deep(nested("set_config('a','b',", ")", 500), "54001");
}

#[test]
fn long_texts_take_bounded_time() {
    let most = SQL_TEXT_BYTES_MAX;
    check_deep(";".repeat(most / 16), "");
    check_deep("end;".repeat(most / 32), "54001 SET and transaction statements are too long");
    check_deep("SELECT 1;".repeat(most / 64), "other | other");
    check_deep("DO '';".repeat(most / 64), "other, Setting | other, Setting");
    check_deep(format!("; {}", " ".repeat(most)), "54001");
    check_deep(format!("SET search_path = a{}", ", a".repeat(30_000)), "54001");
    check_deep(format!(";SELECT 1 {} 1", "+".repeat(most / 64)), "54001");
    check_deep(format!(";SELECT 1 {} 1", "+-".repeat(most / 64)), "54001");
    check_deep(format!(";SELECT 1 {}", "/*".repeat(most / 64)), "54001");
    check_deep(format!(";SELECT 1 {}{}", "/*".repeat(most / 64), "*/".repeat(most / 64)), "54001");
    check_deep(format!(";SELECT 1 /{}/", "*".repeat(most / 8)), "other");
    check_deep(format!(";SELECT 1 {}\n", "-".repeat(most / 8)), "other");
    check_deep(format!(";SELECT '{}'", "+--+==".repeat(10)), "other");
    check_deep(format!(";SELECT {}1", r#"U&"a"(1),"#.repeat(SQL_CALLS_MAX + 1)), "54001");
    check_deep(format!("SELECT {}1", "set_config('a', 'b', true),".repeat(SQL_CALLS_MAX + 1)), "54001");
    check_deep(format!("SELECT {}1", "set_config('a', 'b', false),".repeat(SQL_CALLS_MAX)), "other, Setting");
}

#[test]
fn a_plain_text_may_have_any_length() {
    assert_eq!(say(format!("INSERT INTO t VALUES (1){}", ",(2)".repeat(SQL_TEXT_BYTES_MAX))), "plain");
}
