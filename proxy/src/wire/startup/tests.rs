//! Startup packets, as PostgreSQL takes and refuses them.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::wire::sqlstate::SqlState;

/// A StartupMessage of protocol 3.0 whose body is `body`, terminator and all.
fn startup(body: &[u8]) -> Vec<u8> {
    versioned(3, 0, body)
}

fn versioned(major: u16, minor: u16, body: &[u8]) -> Vec<u8> {
    packet(body.len() + 4, |buffer| {
        put_version(buffer, major, minor);
        buffer.extend_from_slice(body);
    })
    .to_vec()
}

fn with_length(length: u32, rest: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes(), rest].concat()
}

fn message_of(packet: &[u8]) -> StartupMessage {
    match parse(packet) {
        Ok(Some((StartupPacket::Startup(message), bytes))) if bytes == packet.len() => message,
        other => panic!("{other:?}"),
    }
}

fn check(body: &[u8], expected: Expect) {
    let said = match parse(&startup(body)) {
        Ok(Some((StartupPacket::Startup(message), _))) => {
            let StartupMessage { user, database, replication, parameters, .. } = message;
            format!("{user}@{database} {replication:?} {parameters:?}")
        }
        Err(error) => format!("{} {error}", error.sqlstate()),
        other => format!("{other:?}"),
    };
    expected.assert_eq(&said);
}

#[test]
fn requests_without_a_body() {
    assert_eq!(parse(&with_length(8, b"\x04\xd2\x16\x2f")), Ok(Some((StartupPacket::Ssl, 8))));
    assert_eq!(parse(&with_length(8, b"\x04\xd2\x16\x30")), Ok(Some((StartupPacket::Gss, 8))));
    // What stands behind the request is not part of it; the login must not use it.
    assert_eq!(parse(&with_length(8, b"\x04\xd2\x16\x2fmore")), Ok(Some((StartupPacket::Ssl, 8))));
    assert_eq!(parse(&with_length(9, b"\x04\xd2\x16\x2f!")), Err(StartupError::InvalidLength(9)));
}

#[test]
fn a_cancel_request_has_a_key_of_1_to_256_bytes() {
    for secret in [&b"k"[..], b"four", &[7; 256]] {
        let packet = encode_cancel(77, secret);
        let expected = CancelRequest { process_id: 77, secret: secret.into() };
        assert_eq!(parse(&packet), Ok(Some((StartupPacket::Cancel(expected), packet.len()))));
    }
    for packet in [encode_cancel(77, b""), encode_cancel(77, &[7; 257])] {
        let length = u32::try_from(packet.len()).unwrap();
        assert_eq!(parse(&packet), Err(StartupError::InvalidLength(length)));
    }
    assert!(!format!("{:?}", parse(&encode_cancel(77, b"sesame"))).contains("115"), "the secret is not for logs");
}

#[test]
fn nonsense_is_refused_by_its_first_bytes_and_without_a_word() {
    let too_long = u32::try_from(STARTUP_PACKET_BYTES_MAX + 1).unwrap();
    for length in [0, 1, 3, 4, 7, too_long, 1 << 30, 1 << 31, u32::MAX] {
        let error = parse(&length.to_be_bytes()).unwrap_err();
        assert_eq!(error, StartupError::InvalidLength(length));
        assert!(!error.answers());
    }
    assert!(matches!(parse(b"GET / HTTP/1.1\r\n"), Err(StartupError::InvalidLength(_))));
    assert!(matches!(parse(b"\x16\x03\x01\x02\0\x01"), Err(StartupError::InvalidLength(_))));
}

#[test]
fn other_versions_are_refused_before_their_body_is_here() {
    for (major, minor) in [(0, 0), (1, 0), (2, 0), (4, 0), (65535, 65535), (1234, 5677), (1234, 5681)] {
        let error = parse(&versioned(major, minor, &[0; 100])[..8]).unwrap_err();
        assert_eq!(error, StartupError::UnsupportedVersion { major, minor });
        assert_eq!(error.sqlstate(), SqlState::FEATURE_NOT_SUPPORTED);
        assert!(error.answers());
    }
}

#[test]
fn minor_versions_and_protocol_options_are_negotiable() {
    let message = message_of(&versioned(3, 9999, b"user\0u\0_pq_.x\x001\0_pq_.y\x002\0\0"));
    assert_eq!(message.protocol_minor, 9999);
    assert_eq!(message.unknown_protocol_options, ["_pq_.x", "_pq_.y"]);
    assert_eq!(message.parameters, []);
    expect![[r"v\x00\x00\x00\x1a\x00\x03\x00\x00\x00\x00\x00\x02_pq_.x\x00_pq_.y\x00"]]
        .assert_eq(&encode_negotiate(0, &message.unknown_protocol_options).escape_ascii().to_string());
}

#[test]
fn user_and_database() {
    check(b"user\0alice\0database\0shop\0\0", expect!["alice@shop None []"]);
    check(b"user\0alice\0\0", expect!["alice@alice None []"]);
    check(b"user\0alice\0database\0\0\0", expect!["alice@alice None []"]);
    check(b"user\0a\0database\0x\0user\0b\0database\0y\0\0", expect!["b@y None []"]);
    check(b"user\0a\0user\0\0\0", expect!["28000 no PostgreSQL user name specified in startup packet"]);
    check(b"database\0shop\0\0", expect!["28000 no PostgreSQL user name specified in startup packet"]);
    check(b"\0", expect!["28000 no PostgreSQL user name specified in startup packet"]);
}

#[test]
fn names_are_cut_where_postgresql_cuts_them() {
    let long = "x".repeat(64);
    let message = message_of(&startup(format!("user\0{long}\0\0").as_bytes()));
    assert_eq!((message.user.len(), message.database.len()), (63, 63));
    // A name that is cut inside a character is no name.
    let split = format!("{}é", "x".repeat(62));
    check(
        format!("user\0{split}\0\0").as_bytes(),
        expect![[r#"22021 invalid byte sequence for encoding "UTF8" in startup packet"#]],
    );
}

#[test]
fn the_list_ends_where_the_packet_ends() {
    let expected = || expect!["08P01 invalid startup packet layout: expected terminator as last byte"];
    check(b"", expected());
    check(b"user\0alice\0", expected());
    check(b"user\0alice", expected());
    check(b"user\0", expected());
    check(b"user", expected());
    check(b"user\0alice\0\0\0", expected());
    check(b"user\0alice\0\0user\0root\0\0", expected());
}

#[test]
fn replication_is_a_boolean_or_a_word() {
    let check = |value: &str, expected| {
        let packet = startup(format!("user\0u\0replication\0{value}\0\0").as_bytes());
        match expected {
            Some(expected) => assert_eq!(message_of(&packet).replication, expected, "{value}"),
            None => assert_eq!(parse(&packet), Err(StartupError::InvalidReplication(value.into())), "{value}"),
        }
    };
    for value in ["true", "TRUE", "t", "tru", "yes", "y", "on", "oN", "1"] {
        check(value, Some(Replication::Physical));
    }
    for value in ["false", "f", "no", "N", "off", "of", "0"] {
        check(value, Some(Replication::None));
    }
    check("database", Some(Replication::Database));
    for value in ["", "o", "maybe", "truee", "Database", "10", "00", " true"] {
        check(value, None);
    }
}

#[test]
fn settings_of_options_come_before_those_of_the_packet() {
    check(
        b"user\0u\0a\x001\0options\0-c b=2 --a=3 -cB=4\0c\x005\0\0",
        expect![[r#"u@u None [("B", "4"), ("a", "1"), ("c", "5")]"#]],
    );
    // Of two `options` the last one counts alone.
    check(b"user\0u\0options\0-c a=1\0options\0-c b=2\0\0", expect![[r#"u@u None [("b", "2")]"#]]);
    check(b"user\0u\0A\x001\0a\x002\0\0", expect![[r#"u@u None [("a", "2")]"#]]);
    check(b"user\0u\0options\0-c a\0\0", expect!["42601 -c a requires a value"]);
    check(b"user\0u\0options\0a=1\0\0", expect!["42601 invalid command-line argument for server process: a=1"]);
}

#[test]
fn no_setting_can_become_a_word_of_the_protocol() {
    let expected = |name: &str| format!("42704 unrecognized configuration parameter \"{name}\"");
    for name in ["user", "USER", "database", "replication", "options", "_pq_.x", "_PQ_.x", ""] {
        let error = parse(&startup(format!("user\0u\0options\0-c {name}=root\0\0").as_bytes())).unwrap_err();
        assert_eq!(format!("{} {error}", error.sqlstate()), expected(name));
    }
    check(b"user\0u\0User\0root\0\0", expect![[r#"42704 unrecognized configuration parameter "User""#]]);
    // A dash is an underscore in `options`.
    check(b"user\0u\0options\0--_pq-.x=1\0\0", expect![[r#"42704 unrecognized configuration parameter "_pq_.x""#]]);
    let packet = encode_startup(
        0,
        "u",
        "d",
        Replication::None,
        &[("User", "root"), ("", "x"), ("replication", "1"), ("_pq_.x", "1"), ("a", "b")],
    );
    assert_eq!(packet, startup(b"user\0u\0database\0d\0a\0b\0\0"));
}

#[test]
fn text_must_be_utf8() {
    for body in [
        &b"user\0\xff\0\0"[..],
        b"user\0u\0database\0\xff\0\0",
        b"user\0u\0\xff\0x\0\0",
        b"user\0u\0a\0\xff\0\0",
        b"user\0u\0options\0\xff\0\0",
    ] {
        assert_eq!(parse(&startup(body)), Err(StartupError::NotUtf8));
    }
}

#[test]
fn many_settings_are_read_in_no_time() {
    let body = [&b"user\0u\0"[..], &b"a\0\0".repeat(3000), b"\0"].concat();
    assert_eq!(message_of(&startup(&body)).parameters, [("a".to_owned(), String::new())]);
}

proptest! {
    #[test]
    fn what_is_written_to_a_backend_reads_back(
        user in "[a-zA-Z0-9_é]{1,20}",
        database in "[a-zA-Z0-9_ ]{1,20}",
        replication in prop::sample::select(vec![Replication::None, Replication::Physical, Replication::Database]),
        settings in prop::collection::btree_map("[a-z]{1,3}\\.[a-z]{1,8}", "[^\0]{0,20}", 0..8),
    ) {
        let settings: Vec<(String, String)> = settings.into_iter().collect();
        let message = message_of(&encode_startup(0, &user, &database, replication, &settings));
        let expected = StartupMessage {
            protocol_minor: 0,
            user,
            database,
            replication,
            parameters: settings,
            unknown_protocol_options: Vec::new(),
        };
        prop_assert_eq!(message, expected);
    }
}
