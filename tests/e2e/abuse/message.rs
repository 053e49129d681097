//! After the login: headers that lie, types that do not exist, and the simple protocol with bodies that are not what they should
//! be.

use domicile_tests::message as m;

use super::case::Case;

const TYPES: [(u8, &str); 13] = [
    (b'Q', "query"),
    (b'P', "parse"),
    (b'B', "bind"),
    (b'D', "describe"),
    (b'E', "execute"),
    (b'C', "close"),
    (b'S', "sync"),
    (b'H', "flush"),
    (b'F', "function_call"),
    (b'd', "copy_data"),
    (b'c', "copy_done"),
    (b'f', "copy_fail"),
    (b'X', "terminate"),
];

fn header(tag: u8, length: u32) -> Vec<u8> {
    [&[tag], &length.to_be_bytes()[..]].concat()
}

/// The statement would make a table; if it did, `SELECT` of it would not fail.
const HIDDEN: &str = "CREATE TABLE hidden_by_abuse (a int)";

pub fn cases() -> Vec<Case> {
    let mut cases = headers();
    cases.extend(other_protocols());
    cases.extend(queries());
    cases.extend(function_calls());
    cases
}

fn headers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (tag, name) in TYPES {
        for (length, shown) in [(0, "0"), (3, "3"), (u32::MAX, "minus1"), (1 << 31, "2g")] {
            cases.push(Case::sends(format!("msg_len_{shown}_{name}"), "dropped", header(tag, length)));
        }
    }
    for (tag, name) in TYPES {
        if matches!(tag, b'E' | b'D' | b'C' | b'S' | b'H' | b'c' | b'X') {
            cases.push(Case::sends(format!("msg_len_1g_{name}"), "dropped", header(tag, 1 << 30)));
        }
    }
    cases.extend([
        Case::sends("msg_len_1g_query_then_wait", "dropped", header(b'Q', (1 << 30) - 2))
            .directly("waits", "a text is held whole, so the proxy's bound for one is lower"),
        Case::sends("msg_len_200m_query_then_wait", "waits", header(b'Q', 200 << 20)),
        Case::sends("msg_len_1g_bind_then_wait", "waits", header(b'B', (1 << 30) - 2)),
        Case::sends("msg_len_1g_copy_data_then_wait", "waits", header(b'd', (1 << 30) - 2)),
        Case::sends("msg_header_byte_then_wait", "waits", *b"Q"),
        Case::sends("msg_header_half_then_wait", "waits", *b"Q\0\0"),
        Case::within("msg_truncated_close", "closed", |peer| {
            peer.send(&header(b'Q', 100));
            peer.half_close();
        }),
        Case::within("msg_truncated_reset", "gone", |peer| {
            peer.send(&header(b'Q', 100));
            peer.reset_when_dropped();
        }),
    ]);
    let unknown = [0, 1, b'!', b'A', b'G', b'R', b'T', b'Z', b'a', b'q', b'v', b'z', 0x7f, 0x80, 0xff];
    cases.extend(unknown.map(|tag| Case::sends(format!("msg_unknown_type_{tag:02x}"), "F 08P01 / closed", m::message(tag, b""))));
    cases
}

fn other_protocols() -> Vec<Case> {
    let refused = "F 08P01 / closed";
    let startup = m::startup(m::PROTOCOL_3_0, &[("user", "postgres"), ("database", "demo")]);
    vec![
        Case::sends("startup_after_login", refused, startup),
        Case::sends("sslrequest_after_login", refused, m::ssl_request()),
        Case::sends("gssencrequest_after_login", refused, m::gss_request()),
        Case::sends("cancel_after_login", refused, m::cancel_request(1, b"none")),
        Case::sends("client_hello_after_login", refused, *b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"),
        Case::sends("http_after_login", "dropped", *b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        Case::sends("zeros_after_login", refused, [0; 4096]),
        Case::sends("terminate_with_more_behind", "closed", [m::terminate(), m::query(HIDDEN)].concat()),
        Case::sends("terminate_with_body", "closed", m::message(b'X', b"why not")),
        Case::sends("terminate_in_transaction", "C BEGIN / Z T / closed", [m::query("BEGIN"), m::terminate()].concat()),
        Case::within("half_close_while_idle", "closed", |peer| peer.half_close()),
        Case::within("reset_while_idle", "gone", |peer| peer.reset_when_dropped()),
        Case::within("reset_in_transaction", "gone", |peer| {
            peer.quietly("BEGIN; SELECT pg_advisory_xact_lock(4711)");
            peer.reset_when_dropped();
        }),
    ]
}

fn queries() -> Vec<Case> {
    let malformed = "E 08P01 / Z I / alive";
    let hidden = [&b"SELECT 1\0"[..], &m::query(HIDDEN)].concat();
    let raw = |body: &[u8]| m::message(b'Q', body);
    let long = format!("SELECT '{}'", "x".repeat(1 << 20));
    vec![
        Case::sends("query_no_nul", malformed, raw(b"SELECT 1")),
        Case::sends("query_no_body", malformed, raw(b"")),
        Case::sends("query_embedded_nul", malformed, raw(b"SELECT 1\0; SELECT 2\0")),
        Case::sends("query_two_nuls", malformed, raw(b"SELECT 1\0\0")),
        Case::sends("query_nul_first", malformed, raw(b"\0SELECT 1\0")),
        Case::sends("query_hidden_message", malformed, raw(&hidden)),
        Case::within("query_hidden_message_did_nothing", "E 08P01 / Z I / E 42P01 / Z I / alive", move |peer| {
            peer.send(&raw(&hidden));
            peer.until(b'Z');
            peer.send(&m::query("SELECT * FROM hidden_by_abuse"));
        }),
        Case::sends("query_empty", "I / Z I / alive", m::query("")),
        Case::sends("query_semicolons", "I / Z I / alive", m::query(";;;")),
        Case::sends("query_only_comment", "I / Z I / alive", m::query("/* nothing */ -- at all")),
        Case::sends("query_not_utf8", "E 22021 / Z I / alive", raw(b"SELECT '\xff\xfe'\0")),
        Case::sends("query_half_a_character", "E 22021 / Z I / alive", raw(b"SELECT '\xe2\x82'\0")),
        Case::sends("query_byte_order_mark", "E 42601 / Z I / alive", raw("\u{feff}SELECT 1\0".as_bytes())),
        Case::sends("query_unterminated_string", "E 42601 / Z I / alive", m::query("SELECT 'never ends")),
        Case::sends("query_unterminated_comment", "E 42601 / Z I / alive", m::query("SELECT 1 /* never ends")),
        Case::sends(
            "query_megabyte",
            "T ?column? / D xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx / C SELECT 1 / Z I / alive",
            m::query(&long),
        ),
        Case::sends(
            "query_deep_parentheses",
            "E 42601 / Z I / alive",
            m::query(&format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000))),
        ),
        Case::within("query_malformed_in_transaction", "C BEGIN / Z T / E 08P01 / Z E / alive", |peer| {
            peer.send(&[m::query("BEGIN"), m::message(b'Q', b"SELECT 1")].concat());
        }),
        Case::within(
            "query_malformed_in_running_transaction",
            "E 08P01 / Z E / E 25P02 / Z E / C ROLLBACK / Z I / alive",
            |peer| {
                peer.quietly("BEGIN; SELECT 1");
                peer.send(&[m::message(b'Q', b"SELECT 1"), m::query("SELECT 2"), m::query("COMMIT")].concat());
            },
        ),
        Case::sends(
            "query_many_statements",
            "C BEGIN / T ?column? / D 1 / C SELECT 1 / E 22012 / Z E / alive",
            m::query("BEGIN; SELECT 1; SELECT 1/0; SELECT 2"),
        ),
        Case::within("query_byte_at_a_time", "T ?column? / D 1 / C SELECT 1 / Z I / alive", |peer| {
            peer.send_slowly(&m::query("SELECT 1"))
        }),
    ]
}

fn function_calls() -> Vec<Case> {
    let random = 1598_u32.to_be_bytes();
    let body = |tail: &[u8]| m::message(b'F', &[&random, tail].concat());
    let malformed = "E 08P01 / Z I / alive";
    vec![
        Case::sends("function_call_empty", malformed, m::message(b'F', b"")),
        Case::sends("function_call_only_oid", malformed, body(b"")),
        Case::sends("function_call_no_result_format", malformed, body(&[0, 0, 0, 0])),
        Case::sends("function_call_bytes_behind", malformed, body(&[0, 0, 0, 0, 0, 0, 1])),
        Case::sends("function_call_argument_missing", malformed, body(&[0, 0, 0, 1, 0, 0])),
        Case::sends("function_call_argument_len_minus2", malformed, body(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe, 0, 0])),
        Case::sends("function_call_argument_len_2g", malformed, body(&[0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff, 0, 0])),
        Case::sends("function_call_formats_mismatch", malformed, body(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        Case::sends("function_call_unknown", "E 42883 / Z I / alive", m::function_call(0, &[])),
        Case::within("function_call_in_failed_transaction", "E 25P02 / Z E / alive", |peer| {
            peer.quietly("BEGIN; SELECT 1/0");
            peer.send(&m::function_call(1598, &[]));
        }),
    ]
}
