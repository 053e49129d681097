//! Servers that let the proxy in and then answer as none would, or speak when nobody has asked.

use std::thread;
use std::time::Duration;

use domicile_tests::fake::{Conversation, columns, complete, error, parameter, ready, row};
use domicile_tests::message as m;

use super::Case;

/// Long enough for what was sent before to have been dealt with.
const PAUSE: Duration = Duration::from_millis(50);
/// A session ends, because its server broke the protocol or is gone.
const ENDS: &str = "F 08006 / closed";
/// More than was asked for, but in order.
const TWICE: &str = "T answer / D good / C SELECT 1 / C SELECT 1 / Z I";
/// An answer in order.
const GOOD: &str = "T answer / D good / C SELECT 1 / Z I";

/// A Query is answered with these bytes; what the client gets.
fn answers(name: &str, bytes: impl Into<Vec<u8>>, expected: &str) -> Case {
    answers_to(name, m::query("SELECT 1"), b'Q', bytes, expected)
}

/// A client sends `asks`, and the message of this tag in it is answered with these bytes.
fn answers_to(name: &str, asks: Vec<u8>, tag: u8, bytes: impl Into<Vec<u8>>, expected: &str) -> Case {
    let bytes = bytes.into();
    Case::asking(name, asks, [expected; 2], move |with| {
        with.admit()?;
        with.serve_until(tag)?;
        with.send(&bytes)
    })
}

/// A Query is answered with these bytes, which a server may send.
fn lawful(name: &str, asks: &str, bytes: impl Into<Vec<u8>>, expected: &str) -> Case {
    let bytes = bytes.into();
    Case::lawful(name, m::query(asks), expected, move |with| {
        with.admit()?;
        with.serve_until(b'Q')?;
        with.send(&bytes)
    })
}

/// The same, and the connection is closed behind it.
fn answers_and_closes(name: &str, asks: &str, bytes: impl Into<Vec<u8>>, expected: &str) -> Case {
    let bytes = bytes.into();
    Case::asking(name, m::query(asks), [expected; 2], move |with| {
        with.admit()?;
        with.serve_until(b'Q')?;
        with.send(&bytes)?;
        with.close();
        Ok(())
    })
}

/// Parse, Bind, Execute and Sync are answered with these bytes.
fn pipeline(name: &str, bytes: impl Into<Vec<u8>>, expected: &str) -> Case {
    let asks = [m::parse("", "SELECT 1"), m::bind("", "", &[]), m::execute("", 0), m::sync()].concat();
    answers_to(name, asks, b'P', bytes, expected)
}

/// A Query is answered as it should be, and then the server says this. In transaction mode the backend is nobody's by then.
fn afterwards(name: &str, bytes: impl Into<Vec<u8>>) -> Case {
    let bytes = bytes.into();
    Case::asking(name, m::query("SELECT 1"), [GOOD; 2], move |with| {
        with.admit()?;
        with.serve_until(b'Q')?;
        with.send(&good())?;
        thread::sleep(PAUSE);
        with.send(&bytes)
    })
}

/// The same in one piece.
fn glued(name: &str, bytes: impl Into<Vec<u8>>) -> Case {
    answers(name, [good(), bytes.into()].concat(), GOOD)
}

fn good() -> Vec<u8> {
    [good_rows(), ready(b'I')].concat()
}

fn good_rows() -> Vec<u8> {
    [columns(), row("good"), complete("SELECT 1")].concat()
}

/// A session leaves something behind and then its server, which is to forget it (DISCARD ALL); it answers with these bytes.
fn reset(name: &str, bytes: impl Into<Vec<u8>>) -> Case {
    let bytes = bytes.into();
    Case::asking(name, m::query("SET work_mem = '1MB'"), ["C SET / Z I"; 2], move |with| {
        with.admit()?;
        with.serve_until(b'Q')?;
        with.send(&[complete("SET"), ready(b'I')].concat())?;
        with.serve_until(b'Q')?;
        with.send(&bytes)
    })
}

fn header(tag: u8, length: u32) -> Vec<u8> {
    [&[tag], &length.to_be_bytes()[..]].concat()
}

pub fn cases() -> Vec<Case> {
    [queries(), errors(), reports(), lengths(), pipelines(), endings(), idle(), resets()].into_iter().flatten().collect()
}

fn queries() -> Vec<Case> {
    vec![
        answers("query_ready_at_once", ready(b'I'), ENDS),
        answers("query_row_without_description", [row("x"), complete("SELECT 1"), ready(b'I')].concat(), ENDS),
        answers("query_row_behind_completion", [complete("SELECT 1"), row("x")].concat(), &format!("C SELECT 1 / {ENDS}")),
        answers(
            "query_ready_before_completion",
            [columns(), row("x"), ready(b'I')].concat(),
            &format!("T answer / D x / {ENDS}"),
        ),
        answers("query_copy_in_and_ready", [m::message(b'G', &[0; 3]), ready(b'I')].concat(), &format!("G / {ENDS}")),
        answers("query_copy_in_and_data", [m::message(b'G', &[0; 3]), m::copy_data("x")].concat(), &format!("G / {ENDS}")),
        answers("query_copy_out_and_rows", [m::message(b'H', &[0; 3]), row("x")].concat(), &format!("H / {ENDS}")),
        answers("query_copy_data_unasked", m::copy_data("x"), ENDS),
        answers("query_copy_done_unasked", m::copy_done(), ENDS),
        // What a statement is, only its server knows. A client takes these for the results of several.
        lawful("query_two_completions", "SELECT 1", [good_rows(), complete("SELECT 1"), ready(b'I')].concat(), TWICE),
        lawful(
            "query_copy_out_of_a_select",
            "SELECT 1",
            [m::message(b'H', &[0; 3]), m::copy_data("x"), m::copy_done(), complete("COPY 1"), ready(b'I')].concat(),
            "H / d x / c / C COPY 1 / Z I",
        ),
        answers("query_copy_both", m::message(b'W', &[0; 3]), ENDS),
        answers("query_no_data", m::message(b'n', b""), ENDS),
        answers("query_parse_complete", m::message(b'1', b""), ENDS),
        answers("query_portal_suspended", m::message(b's', b""), ENDS),
        answers("query_function_result", m::message(b'V', &[255; 4]), ENDS),
        answers("query_key", m::message(b'K', &[0, 0, 0, 1, 1, 2, 3, 4]), ENDS),
        answers("query_authentication_request", domicile_tests::fake::authentication(3, b""), ENDS),
        answers("query_authentication_ok", domicile_tests::fake::authentication(0, b""), ENDS),
        answers("query_negotiation", m::message(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]), ENDS),
        answers("query_unknown_tag", m::message(b'?', b""), ENDS),
        answers("query_tag_0", m::message(0, b""), ENDS),
        answers("query_a_clients_message", m::query("SELECT 1"), ENDS),
        answers("query_ready_unknown", [complete("X"), ready(b'?')].concat(), &format!("C X / {ENDS}")),
        answers("query_ready_empty", [complete("X"), m::message(b'Z', b"")].concat(), &format!("C X / {ENDS}")),
        answers("query_ready_long", [complete("X"), m::message(b'Z', b"II")].concat(), &format!("C X / {ENDS}")),
        answers_to(
            "function_call_row",
            m::function_call(1, &[]),
            b'F',
            [m::message(b'V', &[255; 4]), row("x")].concat(),
            &format!("V NULL / {ENDS}"),
        ),
        Case::lawful("query_answer_one_byte_at_a_time", m::query("SELECT 1"), GOOD, |with| {
            with.admit()?;
            with.serve_until(b'Q')?;
            with.send_slowly(&good())
        }),
        // It says that there is a transaction, and there is none. Who is told so by ReadyForQuery knows it.
        lawful(
            "begin_that_begins_nothing",
            "BEGIN; SELECT 1",
            [complete("BEGIN"), good()].concat(),
            &format!("C BEGIN / {GOOD}"),
        ),
    ]
}

fn errors() -> Vec<Case> {
    let fields = |fields: &[&str]| error(&[&["SERROR", "VERROR"], fields].concat());
    let then_ready = |error: Vec<u8>| [error, ready(b'I')].concat();
    vec![
        answers("query_error_without_sqlstate", then_ready(fields(&["Mno"])), ENDS),
        answers("query_error_without_message", then_ready(fields(&["C22000"])), ENDS),
        answers("query_error_without_severity", then_ready(error(&["C22000", "Mno"])), ENDS),
        answers("query_error_empty", then_ready(m::message(b'E', b"")), ENDS),
        answers("query_error_of_nothing", then_ready(m::message(b'E', b"\0")), ENDS),
        answers("query_error_without_end", then_ready(m::message(b'E', b"SERROR\0VERROR\0C22000\0Mno")), ENDS),
        answers("query_error_bytes_behind", then_ready(m::message(b'E', b"SERROR\0VERROR\0C22000\0Mno\0\0more")), ENDS),
        answers("query_error_long_without_sqlstate", fields(&[&format!("M{}", "x".repeat(2 << 20))]), ENDS),
        answers("query_error_and_rows", [fields(&["C22000", "Mno"]), columns()].concat(), &format!("E 22000 / {ENDS}")),
        lawful(
            "query_error_long",
            "SELECT 1",
            then_ready(fields(&["C22000", &format!("M{}", "x".repeat(2 << 20))])),
            "E 22000 / Z I",
        ),
        answers_and_closes("query_fatal", "SELECT 1", error(&["SFATAL", "VFATAL", "C57P01", "Mterminating"]), "F 57P01 / closed"),
        pipeline("pipeline_error_without_sqlstate", then_ready(fields(&["Mno"])), ENDS),
    ]
}

fn reports() -> Vec<Case> {
    let settings: Vec<u8> = (0..1000).flat_map(|number| parameter(&format!("setting{number}"), "x")).collect();
    vec![
        answers("query_encoding_sjis", parameter("client_encoding", "SJIS"), ENDS),
        answers("query_encoding_big5", [columns(), parameter("client_encoding", "BIG5")].concat(), &format!("T answer / {ENDS}")),
        answers("query_parameter_without_value", m::message(b'S', b"name\0"), ENDS),
        answers("query_parameter_empty", m::message(b'S', b""), ENDS),
        answers("query_parameter_bytes_behind", m::message(b'S', b"name\0value\0more"), ENDS),
        answers("query_parameter_name_no_utf8", m::message(b'S', b"\xff\0value\0"), ENDS),
        answers("query_encoding_no_utf8", m::message(b'S', b"Client_Encoding\0\xff\0"), ENDS),
        // Settings are reported in the client's encoding.
        lawful("query_parameter_no_utf8", "SELECT 1", [m::message(b'S', b"search_path\0d\xe9j\xe0\0"), good()].concat(), GOOD),
        answers("query_1000_settings", settings, ENDS),
        lawful("query_notification", "SELECT 1", [m::message(b'A', b"\0\0\0\x01channel\0payload\0"), good()].concat(), GOOD),
        lawful("query_notice_without_fields", "SELECT 1", [m::message(b'N', b"\0"), good()].concat(), GOOD),
    ]
}

fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, length) in [("minus_1", u32::MAX), ("0", 0), ("3", 3), ("1g", (1 << 30) + 3), ("2g", i32::MAX.unsigned_abs())] {
        for tag in *b"TDCEZNSd" {
            cases.push(answers(&format!("query_length_{name}_of_{}", char::from(tag)), header(tag, length), ENDS));
        }
    }
    for tag in *b"CZS1" {
        cases.push(answers(&format!("query_length_2m_of_{}", char::from(tag)), header(tag, 2 << 20), ENDS));
    }
    cases
}

fn pipelines() -> Vec<Case> {
    let parsed = || [m::message(b'1', b""), m::message(b'2', b"")].concat();
    let behind = |bytes: Vec<u8>| [parsed(), bytes].concat();
    let broken = format!("1 / 2 / {ENDS}");
    let completed = format!("1 / 2 / C SELECT 1 / {ENDS}");
    vec![
        pipeline("pipeline_bind_before_parse", m::message(b'2', b""), ENDS),
        pipeline("pipeline_parse_twice", m::message(b'1', b"").repeat(2), &format!("1 / {ENDS}")),
        pipeline("pipeline_parameter_description", m::message(b't', &[0, 0]), ENDS),
        pipeline("pipeline_ready_at_once", ready(b'I'), ENDS),
        pipeline("pipeline_row_description", behind(columns()), &broken),
        pipeline("pipeline_no_data", behind(m::message(b'n', b"")), &broken),
        pipeline("pipeline_close_complete", behind(m::message(b'3', b"")), &broken),
        pipeline("pipeline_two_completions", behind(complete("SELECT 1").repeat(2)), &completed),
        pipeline("pipeline_row_behind_completion", behind([complete("SELECT 1"), row("x")].concat()), &completed),
        pipeline("pipeline_copy_both", behind(m::message(b'W', &[0; 3])), &broken),
        pipeline("pipeline_copy_data_unasked", behind(m::copy_data("x")), &broken),
        pipeline("pipeline_ready_before_completion", behind([row("x"), ready(b'I')].concat()), &format!("1 / 2 / D x / {ENDS}")),
    ]
}

fn endings() -> Vec<Case> {
    let half_a_row = [columns(), m::message(b'D', &[0; 1000])[..500].to_vec()].concat();
    let half_an_error = error(&["SERROR", "VERROR", "C22000", "Mno"])[..20].to_vec();
    let begun = |with: &mut Conversation, status| {
        with.admit()?;
        with.serve_until(b'Q')?;
        with.send(&[complete("BEGIN"), complete("INSERT 0 1"), ready(status)].concat())
    };
    vec![
        answers_and_closes("query_closed", "SELECT 1", [], ENDS),
        answers_and_closes(
            "query_closed_between_rows",
            "SELECT 1",
            [columns(), row("x")].concat(),
            &format!("T answer / D x / {ENDS}"),
        ),
        // In the middle of a message nothing can be said any more.
        answers_and_closes("query_closed_in_a_row", "SELECT 1", half_a_row, "T answer / closed"),
        answers_and_closes("query_closed_in_an_error", "SELECT 1", half_an_error, ENDS),
        answers_and_closes("query_closed_in_a_header", "SELECT 1", [b'Z', 0], ENDS),
        answers_and_closes("query_closed_before_ready", "SELECT 1", complete("SELECT 1"), &format!("C SELECT 1 / {ENDS}")),
        answers_and_closes("commit_closed", "BEGIN; INSERT INTO t VALUES (1); COMMIT", [], "F 08007 / closed"),
        // Whoever says that a transaction is open has a session that stays, and loses it.
        Case::asking(
            "transaction_closed",
            m::query("BEGIN; INSERT INTO t VALUES (1)"),
            ["C BEGIN / C INSERT 0 1 / Z T"; 2],
            move |with| {
                begun(with, b'T')?;
                thread::sleep(PAUSE);
                with.close();
                Ok(())
            },
        ),
    ]
}

fn idle() -> Vec<Case> {
    let fatal = |fields: &[&str]| error(&[&["SFATAL", "VFATAL"], fields].concat());
    vec![
        glued("glued_ready", ready(b'I')),
        glued("glued_row", row("x")),
        glued("glued_half_a_header", [b'S', 0]),
        glued("glued_half_a_setting", parameter("TimeZone", "UTC")[..10].to_vec()),
        afterwards("idle_half_a_header", [b'S', 0]),
        afterwards("idle_half_a_setting", parameter("TimeZone", "UTC")[..10].to_vec()),
        glued("glued_length_minus_1", header(b'Z', u32::MAX)),
        afterwards("idle_ready", ready(b'I')),
        afterwards("idle_row", row("x")),
        afterwards("idle_complete", complete("SELECT 1")),
        afterwards("idle_copy_in", m::message(b'G', &[0; 3])),
        afterwards("idle_authentication_request", domicile_tests::fake::authentication(3, b"")),
        afterwards("idle_error_without_sqlstate", fatal(&["Mno"])),
        afterwards("idle_length_minus_1", header(b'N', u32::MAX)),
        afterwards("idle_encoding_sjis", parameter("client_encoding", "SJIS")),
        afterwards("idle_unknown_tag", m::message(b'?', b"")),
    ]
}

fn resets() -> Vec<Case> {
    let done = || complete("DISCARD ALL");
    vec![
        reset("reset_silence", []),
        reset("reset_ready_at_once", ready(b'I')),
        reset("reset_rows", good()),
        reset("reset_in_transaction", [done(), ready(b'T')].concat()),
        reset("reset_failed_transaction", [done(), ready(b'E')].concat()),
        reset("reset_error", [error(&["SERROR", "VERROR", "C0A000", "Mno"]), ready(b'I')].concat()),
        reset("reset_error_without_sqlstate", [error(&["SERROR", "VERROR", "Mno"]), ready(b'I')].concat()),
        reset("reset_empty", [m::message(b'I', b""), ready(b'I')].concat()),
        reset("reset_copy_in", m::message(b'G', &[0; 3])),
        reset("reset_parse_complete", m::message(b'1', b"")),
        reset("reset_unknown_tag", m::message(b'?', b"")),
        reset("reset_length_minus_1", header(b'C', u32::MAX)),
        reset("reset_another_setting", [done(), parameter("standard_conforming_strings", "off"), ready(b'I')].concat()),
        reset("reset_and_a_row", [done(), ready(b'I'), row("x")].concat()),
        reset("reset_and_half_a_header", [done(), ready(b'I'), vec![b'S', 0]].concat()),
    ]
}
