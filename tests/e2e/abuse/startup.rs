//! Before anybody is known: packets without a tag, and requests for encryption.

use domicile_tests::message as m;

use super::case::Case;

/// The first bytes of a ClientHello, as a client of direct TLS sends them.
const CLIENT_HELLO: &[u8] = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
const GSSAPI: &str = "it may be built with GSSAPI, and agree";
const PROTOCOL_2: &str = "PostgreSQL answers protocols before 3 in the form of protocol 2";

fn packet(parameters: &[(&str, &str)]) -> Vec<u8> {
    m::startup(m::PROTOCOL_3_0, parameters)
}

/// StartupMessage of `postgres` for `demo` with these bytes where its parameters end.
fn with_tail(tail: &[u8]) -> Vec<u8> {
    m::packet(m::PROTOCOL_3_0, &[b"user\0postgres\0database\0demo\0", tail].concat())
}

/// A StartupMessage that has this length in all.
fn of_length(length: usize) -> Vec<u8> {
    let mut body = b"user\0postgres\0database\0demo\0application_name\0".to_vec();
    body.resize(length - 8 - 2, b'x');
    body.extend([0, 0]);
    m::packet(m::PROTOCOL_3_0, &body)
}

/// Whatever the proxy learns of them only when it opens a backend, a server says at once: so a statement follows.
fn refused_setting(name: &str, expected: &'static str, setting: (&'static str, &'static str)) -> Case {
    Case::new(format!("startup_{name}"), expected, move |peer| {
        peer.startup(&[setting]);
        peer.authenticate();
        peer.send(&m::query("SELECT 1"));
    })
}

pub fn cases() -> Vec<Case> {
    let mut cases = nonsense();
    cases.extend(versions());
    cases.extend(parameters());
    cases.extend(settings());
    cases.extend(encryption().into_iter().map(Case::unencrypted));
    cases
}

fn nonsense() -> Vec<Case> {
    let random: Vec<u8> = (0..4096_u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0] | 1).collect();
    let mut cases: Vec<Case> = [0_u32, 3, 4, 7, 1 << 30, i32::MAX.unsigned_abs(), 1 << 31, u32::MAX]
        .into_iter()
        .map(|length| Case::bytes(format!("startup_len_{length}"), "dropped", [length.to_be_bytes(), [0, 3, 0, 0]].concat()))
        .collect();
    cases.extend([
        Case::bytes("startup_len_8", "dropped", m::packet(m::PROTOCOL_3_0, b"")),
        Case::bytes("startup_len_10005", "dropped", of_length(10_005)),
        Case::bytes("startup_20kb_params", "dropped", of_length(20_000)),
        Case::new("startup_len_10004", "R 10 / gone", |peer| {
            peer.send(&of_length(10_004));
            peer.until(b'R');
        }),
        // The proxy needs some room for what it tells servers of the region.
        Case::new("startup_len_9800", "alive", |peer| {
            peer.send(&of_length(9_800));
            peer.authenticate();
        }),
        Case::bytes("http_get", "dropped", *b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        Case::bytes("ssh_banner", "dropped", *b"SSH-2.0-OpenSSH_9.2\r\n"),
        Case::bytes("redis_ping", "dropped", *b"*1\r\n$4\r\nPING\r\n"),
        Case::bytes("tls_hello_direct_garbage", "dropped", CLIENT_HELLO),
        Case::bytes("zeros_4k", "dropped", [0; 4096]),
        Case::bytes("ones_4k", "dropped", [0xff; 4096]),
        Case::bytes("random_4k", "dropped", random),
        // PgBouncer looked for the user of one who had not named any.
        Case::bytes("cve_2015_4054_password_before_startup", "dropped", m::password(b"postgres\0")),
        Case::new("connect_and_wait", "waits", |_| {}),
        Case::new("connect_and_close", "closed", |peer| peer.half_close()),
        Case::new("connect_and_reset", "gone", |peer| peer.reset_when_dropped()),
        Case::bytes("startup_one_byte_wait", "waits", [0]),
        Case::bytes("startup_truncated_wait", "waits", packet(&[("user", "postgres")])[..20].to_vec()),
        Case::new("startup_truncated_close", "dropped", |peer| {
            peer.send(&packet(&[("user", "postgres")])[..20]);
            peer.half_close();
        }),
        Case::new("startup_byte_at_a_time", "alive", |peer| {
            peer.send_slowly(&packet(&[("user", "postgres"), ("database", "demo")]));
            peer.authenticate();
        }),
        Case::new("startup_twice", "F 08P01 / closed", |peer| {
            peer.startup(&[]);
            peer.until_asked();
            peer.startup(&[]);
        }),
        Case::new("query_glued_behind_startup", "F 08P01 / closed", |peer| {
            peer.send(&[packet(&[("user", "postgres"), ("database", "demo")]), m::query("SELECT 1")].concat());
            peer.until_asked();
        }),
        Case::new("cancel_behind_startup", "F 08P01 / closed", |peer| {
            peer.startup(&[]);
            peer.until_asked();
            peer.send(&m::cancel_request(1, b"none"));
        }),
    ]);
    cases
}

fn versions() -> Vec<Case> {
    let body = b"user\0postgres\0database\0demo\0\0";
    let login = |name: &str, version: u32, expected| {
        let packet = m::packet(version, body);
        Case::new(name, expected, move |peer| {
            peer.send(&packet);
            peer.authenticate();
        })
    };
    let old = |name: &str, version| Case::bytes(name, "F 0A000 / closed", m::packet(version, body)).not_directly(PROTOCOL_2);
    let newer = "PostgreSQL 15 speaks no minor version but 0";
    vec![
        old("proto_0_0", 0),
        old("proto_1_0", 1 << 16),
        old("proto_2_0", 2 << 16),
        Case::bytes("proto_4_0", "F 0A000 / closed", m::packet(4 << 16, body)),
        Case::bytes("proto_65535", "F 0A000 / closed", m::packet(0xffff_ffff, body)),
        Case::bytes("proto_1234_9999", "F 0A000 / closed", m::packet(1234 << 16 | 9999, body)),
        login("proto_3_1", 3 << 16 | 1, "alive").directly("v / alive", newer),
        login("proto_3_2", 3 << 16 | 2, "alive").directly("v / alive", newer),
        login("proto_3_9999", 3 << 16 | 9999, "v / alive"),
        Case::new("pq_unknown_option", "v / alive", |peer| {
            peer.startup(&[("_pq_.unknown", "1"), ("_pq_.", "")]);
            peer.authenticate();
        }),
    ]
}

fn parameters() -> Vec<Case> {
    let long = "postgres".repeat(40);
    vec![
        Case::bytes("startup_no_user", "F 28000 / closed", packet(&[("database", "demo")])),
        Case::bytes("startup_empty_user", "F 28000 / closed", packet(&[("user", ""), ("database", "demo")])),
        Case::bytes("startup_nothing", "F 28000 / closed", packet(&[])),
        Case::bytes("startup_no_terminator", "F 08P01 / closed", with_tail(b"")),
        Case::bytes("startup_name_without_value", "F 08P01 / closed", with_tail(b"application_name\0")),
        Case::bytes("startup_name_without_nul", "F 08P01 / closed", with_tail(b"application_name")),
        Case::bytes("startup_value_without_nul", "F 08P01 / closed", with_tail(b"application_name\0x")),
        Case::bytes("startup_bytes_behind_terminator", "F 08P01 / closed", with_tail(b"\0hidden\0query\0\0")),
        Case::bytes("startup_two_terminators", "F 08P01 / closed", with_tail(b"\0\0")),
        Case::new("startup_user_twice", "alive", |peer| {
            peer.send(&packet(&[("user", "nobody"), ("database", "demo"), ("user", "postgres")]));
            peer.authenticate();
        }),
        Case::new("startup_database_twice", "alive", |peer| {
            peer.send(&packet(&[("user", "postgres"), ("database", "nowhere"), ("database", "demo")]));
            peer.authenticate();
        }),
        Case::new("startup_no_database", "alive", |peer| {
            peer.send(&packet(&[("user", "postgres")]));
            peer.authenticate();
        }),
        Case::new("startup_long_user", "F 28P01 / closed", move |peer| {
            peer.send(&packet(&[("user", &long), ("database", "demo")]));
            peer.authenticate();
        }),
        Case::new("startup_user_not_utf8", "F 22021 / closed", |peer| {
            peer.send(&m::packet(m::PROTOCOL_3_0, b"user\0\xff\xfe\0database\0demo\0\0"));
            peer.authenticate();
        })
        .directly("F 28P01 / closed", "names in policies, logs and files are UTF-8"),
        Case::new("startup_many_parameters", "alive", |peer| {
            peer.startup(&[("application_name", "many"); 350]);
            peer.authenticate();
        }),
        Case::new("startup_unknown_database", "F 3D000 / closed", |peer| {
            peer.send(&packet(&[("user", "postgres"), ("database", "nowhere")]));
            peer.authenticate();
            peer.send(&m::query("SELECT 1"));
        }),
        // PgBouncer could not make a pool of that name, and went on with none.
        Case::new("cve_2012_4575_long_database", "F 3D000 / closed", |peer| {
            peer.send(&packet(&[("user", "postgres"), ("database", &"x".repeat(9000))]));
            peer.authenticate();
            peer.send(&m::query("SELECT 1"));
        }),
        Case::new("startup_database_with_quotes", "F 3D000 / closed", |peer| {
            peer.send(&packet(&[("user", "postgres"), ("database", "no\"where'; DROP TABLE users; --")]));
            peer.authenticate();
            peer.send(&m::query("SELECT 1"));
        }),
    ]
}

fn settings() -> Vec<Case> {
    let policy = "who may replicate is a rule of the proxy's";
    let replication = |value: &'static str, expected| {
        Case::new(format!("startup_replication_{value}"), expected, move |peer| {
            peer.startup(&[("replication", value)]);
            peer.authenticate();
        })
    };
    vec![
        refused_setting("unknown_guc", "F 42704 / closed", ("no_such_setting", "1")),
        refused_setting("bad_value", "F 22023 / closed", ("work_mem", "plenty")),
        refused_setting("bad_encoding", "F 22023 / closed", ("client_encoding", "nonsense")),
        refused_setting("options_unknown", "F 42704 / closed", ("options", "-c no_such_setting=1")),
        refused_setting("options_switch", "F 42601 / closed", ("options", "-Z")),
        refused_setting("options_word", "F 42601 / closed", ("options", "word")),
        refused_setting("options_without_value", "F 42601 / closed", ("options", "--work_mem")),
        refused_setting("superuser_only", "T ?column? / D 1 / C SELECT 1 / Z I / alive", ("log_statement", "all")),
        refused_setting("encoding_with_ascii_inside", "F 22023 / closed", ("client_encoding", "SJIS"))
            .directly("T ?column? / D 1 / C SELECT 1 / Z I / alive", "the proxy could not read its texts as the server does"),
        Case::new("startup_guc_injection", "T application_name / D x'; SELECT 'y / C SHOW / Z I / alive", |peer| {
            peer.startup(&[("application_name", "x'; SELECT 'y")]);
            peer.authenticate();
            peer.send(&m::query("SHOW application_name"));
        }),
        // Quoting functions of libpq took the quote for the second half of a character.
        Case::new("cve_2025_1094_quote_behind_half_a_character", "F 22021 / closed", |peer| {
            peer.send(&with_tail(b"application_name\0\xc0'; SELECT 'injected'; --\0\0"));
            peer.authenticate();
            peer.send(&m::query("SELECT 1"));
        })
        .directly("T ?column? / D 1 / C SELECT 1 / Z I / alive", "the settings that the proxy keeps are UTF-8"),
        // PgBouncer ran the query that looks up passwords under the search_path of whoever was not yet logged in.
        Case::new("cve_2025_12819_search_path_in_startup", "T search_path / D evil / C SHOW / Z I / alive", |peer| {
            peer.startup(&[("search_path", "evil")]);
            peer.authenticate();
            peer.send(&m::query("SHOW search_path"));
        }),
        Case::new("startup_options_user", "F 42704 / closed", |peer| {
            peer.startup(&[("options", "-c user=somebody -c replication=true")]);
            peer.authenticate();
            peer.send(&m::query("SELECT 1"));
        }),
        replication("maybe", "F 22023 / closed"),
        replication("off", "alive"),
        replication("0", "alive"),
        replication("true", "F 0A000 / closed").not_directly(policy),
        replication("database", "F 0A000 / closed").not_directly(policy),
    ]
}

fn encryption() -> Vec<Case> {
    let login_after = |name: &str, expected, requests: &'static [fn() -> Vec<u8>]| {
        Case::new(name, expected, move |peer| {
            for request in requests {
                peer.send(&request());
                peer.byte();
            }
            peer.login();
        })
    };
    let ways: &'static [fn() -> Vec<u8>] = &[m::ssl_request, m::gss_request, m::ssl_request];
    let glued = |name: &str, request: fn() -> Vec<u8>| {
        Case::new(name, "dropped | N / dropped", move |peer| {
            peer.send(&[request(), packet(&[("user", "postgres"), ("database", "demo")])].concat());
            peer.byte();
        })
    };
    vec![
        login_after("sslrequest_then_login", "N / alive", &ways[..1]),
        login_after("gssencrequest_then_login", "N / alive", &ways[1..2]).not_directly(GSSAPI),
        login_after("sslrequest_and_gssencrequest", "N / N / alive", &ways[..2]).not_directly(GSSAPI),
        login_after("gssencrequest_and_sslrequest", "N / N / alive", &ways[1..]).not_directly(GSSAPI),
        Case::new("double_sslrequest", "N / F 0A000 / closed", |peer| {
            peer.send(&m::ssl_request());
            peer.byte();
            peer.send(&m::ssl_request());
        }),
        Case::new("double_gssencrequest", "N / F 0A000 / closed", |peer| {
            peer.send(&m::gss_request());
            peer.byte();
            peer.send(&m::gss_request());
        })
        .not_directly(GSSAPI),
        // Also PgBouncer's CVE-2021-3935 and Odyssey's CVE-2021-43766: what is sent before the handshake was taken for encrypted.
        glued("cve_2021_23214_ssl_plaintext_injection", m::ssl_request),
        glued("cve_2021_3935_gss_plaintext_injection", m::gss_request).not_directly(GSSAPI),
        Case::new("cve_2021_43766_query_behind_sslrequest", "dropped | N / dropped", |peer| {
            peer.send(&[m::ssl_request(), m::query("SELECT 1")].concat());
            peer.byte();
        }),
        Case::new("sslrequest_byte_at_a_time", "N / alive", |peer| {
            peer.send_slowly(&m::ssl_request());
            peer.byte();
            peer.login();
        }),
        Case::new("sslrequest_then_client_hello", "N / dropped", |peer| {
            peer.send(&m::ssl_request());
            peer.byte();
            peer.send(CLIENT_HELLO);
        }),
        Case::new("sslrequest_then_close", "N / closed", |peer| {
            peer.send(&m::ssl_request());
            peer.byte();
            peer.half_close();
        }),
        Case::new("sslrequest_then_cancel", "N / closed", |peer| {
            peer.send(&m::ssl_request());
            peer.byte();
            peer.send(&m::cancel_request(1, b"none"));
        }),
        Case::bytes("sslrequest_with_body", "dropped", m::packet(80_877_103, b"body"))
            .not_directly("it overlooks the body and declines"),
        Case::bytes("gssencrequest_with_body", "dropped", m::packet(80_877_104, b"body"))
            .not_directly("it overlooks the body and declines"),
    ]
}
