//! The extended protocol with wrong counts, wrong names, and messages inside messages.

use domicile_tests::message as m;

use super::case::Case;

const MALFORMED: &str = "E 08P01 / Z I / alive";

/// The messages, then Sync.
fn synced(name: &str, expected: &'static str, messages: &[Vec<u8>]) -> Case {
    Case::sends(name, expected, [messages.concat(), m::sync()].concat())
}

/// Parse of the unnamed statement, and a Bind with this body.
fn bind(name: &str, expected: &'static str, text: &str, body: &[u8]) -> Case {
    synced(name, expected, &[m::parse("", text), m::message(b'B', body)])
}

pub fn cases() -> Vec<Case> {
    let mut cases = parses();
    cases.extend(binds());
    cases.extend(names());
    cases.extend(units());
    cases
}

fn parses() -> Vec<Case> {
    let parse = |name: &str, expected, body: &[u8]| synced(name, expected, &[m::message(b'P', body)]);
    let hidden = [&b"\0SELECT 1\0"[..], &m::query("SELECT 'hidden'"), &[0, 0]].concat();
    vec![
        parse("parse_empty", MALFORMED, b""),
        parse("parse_no_text", MALFORMED, b"\0"),
        parse("parse_text_without_nul", MALFORMED, b"\0SELECT 1"),
        parse("parse_no_count", MALFORMED, b"\0SELECT 1\0"),
        parse("parse_half_count", MALFORMED, b"\0SELECT 1\0\0"),
        parse("parse_type_missing", MALFORMED, b"\0SELECT 1\0\0\x01"),
        parse("parse_type_cut", MALFORMED, b"\0SELECT 1\0\0\x01\0\0\0"),
        parse("parse_count_65535", MALFORMED, b"\0SELECT 1\0\xff\xff"),
        parse("parse_bytes_behind", MALFORMED, b"\0SELECT 1\0\0\0hidden"),
        parse("parse_text_twice", MALFORMED, b"\0SELECT 1\0SELECT 2\0\0\0"),
        parse("parse_hidden_message", MALFORMED, &hidden),
        parse("parse_unknown_type", "E XX000 / Z I / alive", b"\0SELECT $1\0\0\x01\x7f\xff\xff\xff"),
        parse("parse_not_utf8", "E 22021 / Z I / alive", b"\0SELECT '\xff\xfe'\0\0\0"),
        parse("parse_two_statements", "E 42601 / Z I / alive", b"\0SELECT 1; SELECT 2\0\0\0"),
        parse("parse_syntax_error", "E 42601 / Z I / alive", b"\0SELEC 1\0\0\0"),
        synced("parse_empty_text", "1 / 2 / I / Z I / alive", &[m::parse("", ""), m::bind("", "", &[]), m::execute("", 0)]),
    ]
}

fn binds() -> Vec<Case> {
    let malformed = "1 / E 08P01 / Z I / alive";
    let hidden = [&b"\0\0\0\0\0\x01\0\0\0\x01"[..], &m::query("SELECT 'hidden'"), &[0, 0]].concat();
    vec![
        bind("bind_empty", malformed, "SELECT 1", b""),
        bind("bind_one_name", malformed, "SELECT 1", b"\0"),
        bind("bind_no_counts", malformed, "SELECT 1", b"\0\0"),
        bind("bind_no_parameter_count", malformed, "SELECT 1", b"\0\0\0\0"),
        bind("bind_no_result_formats", malformed, "SELECT 1", b"\0\0\0\0\0\0"),
        bind("bind_bytes_behind", malformed, "SELECT 1", b"\0\0\0\0\0\0\0\0x"),
        bind("bind_too_few", malformed, "SELECT $1::text", b"\0\0\0\0\0\0\0\0"),
        bind("bind_too_many", malformed, "SELECT 1", b"\0\0\0\0\0\x01\0\0\0\x01x\0\0"),
        bind("bind_value_missing", malformed, "SELECT $1::text", b"\0\0\0\0\0\x01\0\0"),
        bind("bind_value_cut", malformed, "SELECT $1::text", b"\0\0\0\0\0\x01\0\0\0\x09x\0\0"),
        // The lengths by which pgx, and others, were made to send one parameter as many messages.
        bind("cve_2024_27304_bind_len_minus2", malformed, "SELECT $1::text", b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"),
        bind("cve_2024_27304_bind_len_2g", malformed, "SELECT $1::text", b"\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0"),
        bind("cve_2024_27304_bind_len_minus_2g", malformed, "SELECT $1::text", b"\0\0\0\0\0\x01\x80\0\0\0\0\0"),
        bind("bind_count_65535", malformed, "SELECT $1::text", b"\0\0\0\0\xff\xff\0\0\0\x01x\0\0"),
        bind("bind_hidden_message", malformed, "SELECT $1::text", &hidden),
        bind("bind_formats_mismatch", malformed, "SELECT $1::text", b"\0\0\0\x02\0\0\0\0\0\x01\0\0\0\x01x\0\0"),
        bind("bind_result_formats_mismatch", malformed, "SELECT 1", b"\0\0\0\0\0\0\0\x02\0\0\0\0"),
        bind("bind_format_7", "1 / E 22023 / Z I / alive", "SELECT $1::text", b"\0\0\0\x01\0\x07\0\x01\0\0\0\x01x\0\0"),
        bind("bind_nul_in_value", "1 / E 22021 / Z I / alive", "SELECT $1::text", b"\0\0\0\0\0\x01\0\0\0\x03a\0b\0\0"),
        bind("bind_value_not_utf8", "1 / E 22021 / Z I / alive", "SELECT $1::text", b"\0\0\0\0\0\x01\0\0\0\x02\xff\xfe\0\0"),
        bind("bind_value_of_another_type", "1 / E 22P02 / Z I / alive", "SELECT $1::int", b"\0\0\0\0\0\x01\0\0\0\x01x\0\0"),
        bind("bind_null", "1 / 2 / Z I / alive", "SELECT $1::text", b"\0\0\0\0\0\x01\xff\xff\xff\xff\0\0"),
        bind("bind_counts_of_a_local_statement", malformed, "SHOW helios.region", b"\0\0\0\0\0\x01")
            .directly("E 42704 / Z I / alive", "the region is the proxy's"),
        bind("bind_too_many_for_begin", malformed, "BEGIN", b"\0\0\0\0\0\x01\0\0\0\x01x\0\0"),
        bind("bind_malformed_for_begin", malformed, "BEGIN", b"\0\0\0\0\0\0"),
    ]
}

fn names() -> Vec<Case> {
    let raw = |name: &str, expected, tag, body: &[u8]| synced(name, expected, &[m::message(tag, body)]);
    let no_statement = "E 26000 / Z I / alive";
    let no_portal = "E 34000 / Z I / alive";
    vec![
        raw("describe_empty", MALFORMED, b'D', b""),
        raw("describe_no_name", MALFORMED, b'D', b"S"),
        raw("describe_no_nul", MALFORMED, b'D', b"Sname"),
        raw("describe_wrong_kind", MALFORMED, b'D', b"Xname\0"),
        raw("describe_bytes_behind", MALFORMED, b'D', b"Sname\0x"),
        raw("close_empty", MALFORMED, b'C', b""),
        raw("close_no_nul", MALFORMED, b'C', b"Pname"),
        raw("close_wrong_kind", MALFORMED, b'C', b"Xname\0"),
        raw("close_bytes_behind", MALFORMED, b'C', b"Pname\0x"),
        raw("execute_empty", MALFORMED, b'E', b""),
        raw("execute_no_count", MALFORMED, b'E', b"\0"),
        raw("execute_count_cut", MALFORMED, b'E', b"\0\0\0"),
        raw("execute_bytes_behind", MALFORMED, b'E', b"\0\0\0\0\0x"),
        synced("describe_unknown_statement", no_statement, &[m::describe_statement("never")]),
        synced("describe_unknown_portal", no_portal, &[m::describe_portal("never")]),
        synced("bind_unknown_statement", no_statement, &[m::bind("", "never", &[])]),
        synced("execute_unknown_portal", no_portal, &[m::execute("never", 0)]),
        synced("close_unknown", "3 / 3 / Z I / alive", &[m::close_statement("never"), m::message(b'C', b"Pnever\0")]),
        synced("parse_name_twice", "1 / E 42P05 / Z I / alive", &[m::parse("twice", "SELECT 1"), m::parse("twice", "SELECT 2")]),
        synced(
            "portal_name_twice",
            "1 / 2 / E 42P03 / Z I / alive",
            &[m::parse("", "SELECT 1"), m::bind("twice", "", &[]), m::bind("twice", "", &[])],
        ),
        synced("unnamed_after_query", "I / Z I / E 26000 / Z I / alive", &[m::query(""), m::bind("", "", &[])]),
        synced(
            "names_with_quotes",
            "1 / 2 / D 1 / C SELECT 1 / Z I / alive",
            &[m::parse("\"; --", "SELECT 1"), m::bind("'", "\"; --", &[]), m::execute("'", 0)],
        ),
    ]
}

fn units() -> Vec<Case> {
    let one = || m::prepared("", "SELECT 1");
    vec![
        Case::sends("sync_with_body", MALFORMED, m::message(b'S', b"x")),
        Case::sends("flush_with_body", MALFORMED, [m::message(b'H', b"x"), m::sync()].concat()),
        Case::sends(
            "sync_with_body_in_unit",
            "1 / 2 / T ?column? / D 1 / C SELECT 1 / E 08P01 / Z I / alive",
            [one(), m::message(b'S', b"x")].concat(),
        ),
        Case::sends(
            "flush_with_body_in_unit",
            "1 / E 08P01 / Z I / alive",
            [m::parse("", "SELECT 1"), m::message(b'H', b"x"), one(), m::sync()].concat(),
        ),
        Case::within("sync_with_body_in_transaction", "E 08P01 / Z E / alive", |peer| {
            peer.quietly("BEGIN; SELECT 1");
            peer.send(&m::message(b'S', b"x"));
        }),
        synced(
            "error_skips_to_sync",
            "E 42601 / Z I / alive",
            &[
                m::parse("", "SELEC"),
                m::bind("", "", &[]),
                m::execute("", 0),
                m::flush(),
                m::query("SELECT 1"),
                m::message(b'D', b"nonsense"),
            ],
        ),
        synced("malformed_skips_to_sync", MALFORMED, &[m::message(b'B', b"x"), one(), one()]),
        Case::sends(
            "unknown_type_while_skipping",
            "E 42601 / F 08P01 / closed",
            [m::parse("", "SELEC"), m::message(b'!', b""), m::sync()].concat(),
        ),
        Case::sends("bad_length_while_skipping", "E 42601 / dropped", [m::parse("", "SELEC"), b"S\0\0\0\x03".to_vec()].concat()),
        Case::sends("sync_3_times", "Z I / Z I / Z I / alive", m::sync().repeat(3)),
        Case::within("parse_flush_idle_then_bind", "1 / 2 / D 1 / C SELECT 1 / Z I / alive", |peer| {
            peer.send(&[m::parse("", "SELECT 1"), m::flush()].concat());
            peer.until(b'1');
            peer.send(&[m::bind("", "", &[]), m::execute("", 0), m::sync()].concat());
        }),
        Case::within(
            "flush_without_sync_then_query",
            "1 / 2 / T ?column? / D 1 / C SELECT 1 / T ?column? / D 2 / C SELECT 1 / Z I / alive",
            move |peer| {
                peer.send(&[one(), m::flush()].concat());
                peer.until(b'C');
                peer.send(&m::query("SELECT 2"));
            },
        ),
        Case::within("flush_then_terminate", "1 / closed", |peer| {
            peer.send(&[m::parse("", "SELECT 1"), m::flush()].concat());
            peer.until(b'1');
            peer.send(&m::terminate());
        }),
        Case::within("flush_then_reset", "gone", |peer| {
            peer.send(&[m::prepared("", "SELECT pg_advisory_xact_lock(4712)"), m::flush()].concat());
            peer.skip_one(b'C');
            peer.reset_when_dropped();
        }),
        Case::within("extended_byte_at_a_time", "1 / 2 / T ?column? / D 1 / C SELECT 1 / Z I / alive", |peer| {
            peer.send_slowly(&[m::prepared("", "SELECT 1"), m::sync()].concat());
        }),
        synced(
            "execute_negative_rows",
            "1 / 2 / D 1 / C SELECT 1 / Z I / alive",
            &[m::parse("", "SELECT 1"), m::bind("", "", &[]), m::execute("", u32::MAX)],
        ),
        synced(
            "execute_suspended_and_left",
            "1 / 2 / D 1 / s / Z I / alive",
            &[m::parse("", "SELECT generate_series(1, 9)"), m::bind("", "", &[]), m::execute("", 1)],
        ),
        Case::sends(
            "portal_after_its_transaction",
            "1 / 2 / Z I / E 34000 / Z I / alive",
            [m::parse("", "SELECT 1"), m::bind("p", "", &[]), m::sync(), m::execute("p", 0), m::sync()].concat(),
        ),
        Case::sends(
            "execute_twice",
            "1 / 2 / D 1 / C SELECT 1 / C SELECT 0 / Z I / alive",
            [m::parse("", "SELECT 1"), m::bind("", "", &[]), m::execute("", 0), m::execute("", 0), m::sync()].concat(),
        ),
    ]
}
