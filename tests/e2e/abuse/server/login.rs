//! Servers that do not let the proxy in as they should.

use domicile_tests::fake::{authentication, complete, error, greeting, parameter, ready, row};
use domicile_tests::message as m;

use super::Case;

/// The class of what goes wrong between the proxy and a server.
const BROKEN: &str = "08006";

/// The server sends these bytes instead of its first answer.
fn sends(name: &str, bytes: impl Into<Vec<u8>>) -> Case {
    refused(name, BROKEN, bytes)
}

/// The same with another SQLSTATE.
fn refused(name: &str, sqlstate: &str, bytes: impl Into<Vec<u8>>) -> Case {
    let bytes = bytes.into();
    Case::login(name, sqlstate, move |with| with.send(&bytes))
}

/// The server sends these bytes when it has let the proxy in, and before it is ready.
fn admitted(name: &str, bytes: impl Into<Vec<u8>>) -> Case {
    sends(name, [authentication(0, b""), bytes.into()].concat())
}

/// The server sends these bytes and closes the connection.
fn closes_behind(name: &str, bytes: impl Into<Vec<u8>>) -> Case {
    let bytes = bytes.into();
    Case::login(name, BROKEN, move |with| {
        with.send(&bytes)?;
        with.close();
        Ok(())
    })
}

/// The server sends these bytes over and over again.
fn endless(name: &str, begin: impl Into<Vec<u8>>, bytes: impl Into<Vec<u8>>) -> Case {
    let (begin, bytes) = (begin.into(), bytes.into());
    Case::login(name, BROKEN, move |with| {
        with.send(&begin)?;
        with.flood(&bytes);
        Ok(())
    })
}

/// A header with a length that no body has to follow.
fn header(tag: u8, length: u32) -> Vec<u8> {
    [&[tag], &length.to_be_bytes()[..]].concat()
}

/// Everything up to and with ReadyForQuery.
fn whole() -> Vec<u8> {
    [authentication(0, b""), greeting(), ready(b'I')].concat()
}

pub fn cases() -> Vec<Case> {
    [closing(), lengths(), errors(), requests(), greetings()].into_iter().flatten().collect()
}

fn closing() -> Vec<Case> {
    let whole = whole();
    let mut cases = vec![
        Case::login("login_silence", BROKEN, |_| Ok(())),
        closes_behind("login_closed_at_once", []),
        Case::lawful("login_one_byte_at_a_time", m::query("SELECT 1"), "T answer / D good / C SELECT 1 / Z I", |with| {
            with.send_slowly(&self::whole())
        }),
    ];
    // After each message but the last, and in the middle of each.
    let (mut at, mut number) = (0, 0);
    while at < whole.len() {
        let length = 1 + usize::try_from(u32::from_be_bytes(whole[at + 1..at + 5].try_into().expect("a header"))).expect("short");
        for (where_, end) in [("header", at + 3), ("middle", at + length - 1), ("behind", at + length)] {
            if end < whole.len() {
                cases.push(closes_behind(&format!("login_closed_at_message_{number}_{where_}"), &whole[..end]));
            }
        }
        at += length;
        number += 1;
    }
    cases
}

fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, length) in [("minus_1", u32::MAX), ("0", 0), ("3", 3), ("2g", i32::MAX.unsigned_abs()), ("1m", (1 << 20) + 5)] {
        for tag in *b"RSEN" {
            cases.push(sends(&format!("login_length_{name}_of_{}", char::from(tag)), header(tag, length)));
        }
    }
    cases.extend([
        sends("login_http", "HTTP/1.1 400 Bad Request\r\n\r\n"),
        sends("login_tls_alert", [21, 3, 3, 0, 2, 2, 40]),
        sends("login_zeros", [0; 64]),
        sends("login_unknown_tag", m::message(b'?', b"")),
        sends("login_tag_255", m::message(255, b"")),
    ]);
    cases
}

fn errors() -> Vec<Case> {
    let fatal = |fields: &[&str]| error(&[&["SFATAL", "VFATAL"], fields].concat());
    vec![
        // PgBouncer crashed.
        sends("cve_2026_6666_error_without_sqlstate", fatal(&["Mno"])),
        sends("login_error_without_message", fatal(&["C57P03"])),
        sends("login_error_without_severity", error(&["C57P03", "Mno"])),
        sends("login_error_empty", m::message(b'E', b"")),
        sends("login_error_of_nothing", m::message(b'E', b"\0")),
        // libpq read beyond it (CVE-2022-41862).
        sends("cve_2022_41862_error_without_end", m::message(b'E', b"SFATAL\0VFATAL\0C57P03\0Mno")),
        sends("login_error_bytes_behind", m::message(b'E', b"SFATAL\0C57P03\0Mno\0\0more")),
        sends("login_error_sqlstate_long", fatal(&["C57P031", "Mno"])),
        refused("login_error_starting_up", "57P03", fatal(&["C57P03", "Mthe database system is starting up"])),
        refused("login_error_too_many", "53300", fatal(&["C53300", "Msorry"])),
        Case::asking("login_error_of_the_password", m::query("SELECT 1"), ["F 28P01 / closed"; 2], move |with| {
            with.send(&error(&["SFATAL", "VFATAL", "C28P01", "Mpassword authentication failed"]))
        }),
        // It is asked again in 3.0, and refuses that too.
        refused("login_error_version", "0A000", fatal(&["C0A000", "Munsupported frontend protocol"])),
        sends("login_negotiate_short", m::message(b'v', &[0, 3, 0, 0])),
        sends("login_negotiate_newer", m::message(b'v', &[0, 3, 0, 9, 0, 0, 0, 0])),
        sends("login_negotiate_major", m::message(b'v', &[0, 4, 0, 0, 0, 0, 0, 0])),
        sends("login_negotiate_options", m::message(b'v', &[0, 3, 0, 0, 0, 0, 0, 1, b'x', 0])),
    ]
}

fn requests() -> Vec<Case> {
    let sasl = |mechanisms: &[u8]| authentication(10, mechanisms);
    let mut cases = vec![
        sends("login_authentication_empty", m::message(b'R', b"")),
        sends("login_authentication_short", m::message(b'R', &[0, 0, 0])),
        sends("login_cleartext_not_allowed", authentication(3, b"")),
        sends("login_md5_short_salt", authentication(5, b"abc")),
        sends("login_md5_long_salt", authentication(5, b"abcde")),
        sends("login_sasl_nothing", sasl(b"\0")),
        sends("login_sasl_unknown", sasl(b"OAUTHBEARER\0\0")),
        sends("login_sasl_only_plus", sasl(b"SCRAM-SHA-256-PLUS\0\0")),
        sends("login_sasl_without_end", sasl(b"SCRAM-SHA-256\0")),
        sends("login_sasl_no_utf8", sasl(b"\xff\xfe\0\0")),
        sends("login_sasl_60k_of_mechanisms", sasl(&[&b"X\0".repeat(30_000)[..], b"\0"].concat())),
        Case::login("login_md5_twice", BROKEN, |with| {
            with.send(&authentication(5, b"salt"))?;
            with.message()?;
            with.send(&authentication(5, b"salt"))
        }),
        Case::login("login_wrong_password_without_a_word", BROKEN, |with| {
            with.send(&authentication(5, b"salt"))?;
            with.message()?;
            with.close();
            Ok(())
        }),
    ];
    for method in [1, 2, 4, 6, 7, 8, 9, 11, 12, 13, 99, u32::MAX] {
        cases.push(sends(&format!("login_authentication_{method}"), authentication(method, b"")));
    }
    cases
}

fn greetings() -> Vec<Case> {
    let key = |secret: &[u8]| m::message(b'K', &[&[0, 0, 0, 9], secret].concat());
    let notice = m::message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0");
    vec![
        sends("login_ready_before_ok", ready(b'I')),
        sends("login_parameter_before_ok", parameter("server_version", "15.0")),
        sends("login_key_before_ok", key(b"1234")),
        admitted("login_ok_twice", authentication(0, b"")),
        admitted("login_password_after_ok", authentication(3, b"")),
        admitted("login_negotiate_after_ok", m::message(b'v', &[0, 3, 0, 0, 0, 0, 0, 0])),
        admitted("login_ready_in_transaction", ready(b'T')),
        admitted("login_ready_failed", ready(b'E')),
        admitted("login_ready_unknown", ready(b'?')),
        admitted("login_ready_empty", m::message(b'Z', b"")),
        admitted("login_ready_long", m::message(b'Z', b"II")),
        admitted("login_row", row("x")),
        admitted("login_complete", complete("SELECT 1")),
        admitted("login_copy_in", m::message(b'G', &[0, 0, 0])),
        admitted("login_notification", m::message(b'A', b"\0\0\0\x01channel\0payload\0")),
        admitted("login_parameter_without_value", m::message(b'S', b"name\0")),
        admitted("login_parameter_without_end", m::message(b'S', b"name\0value")),
        admitted("login_parameter_bytes_behind", m::message(b'S', b"name\0value\0more")),
        // Statements in it can not be read as the server reads them.
        admitted("login_encoding_sjis", parameter("client_encoding", "SJIS")),
        admitted("login_encoding_gb18030", parameter("Client_Encoding", "gb-18030")),
        admitted("login_key_short", key(b"123")),
        admitted("login_key_257", key(&[1; 257])),
        admitted("login_more_behind_ready", [greeting(), ready(b'I'), row("x")].concat()),
        admitted("login_ready_twice", [greeting(), ready(b'I'), ready(b'I')].concat()),
        endless("login_endless_notices", [], notice.clone()),
        endless("login_endless_notices_after_ok", authentication(0, b""), notice),
        endless("login_endless_parameters", authentication(0, b""), parameter("TimeZone", "UTC")),
        endless("login_endless_keys", authentication(0, b""), key(b"1234")),
        endless("login_endless_negotiation", [], m::message(b'v', &[0, 3, 0, 0, 0, 0, 0, 0])),
        Case::login("login_parameter_flood", BROKEN, |with| {
            with.send(&authentication(0, b""))?;
            let flood: Vec<u8> = (0..40_000).flat_map(|number| parameter(&format!("p{number}"), "")).collect();
            with.flood(&flood);
            Ok(())
        }),
    ]
}
