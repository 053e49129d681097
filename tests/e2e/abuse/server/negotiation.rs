//! Servers that do not begin to encrypt as they should, when the proxy will have nothing else.
//!
//! Whoever sits between the two can say all of this. CVE-2021-23222 (libpq) and CVE-2021-43767 (Odyssey) took what came in one piece
//! with the answer to the SSLRequest for something that had been said encrypted.

use std::io;

use domicile_tests::fake::{Conversation, authentication, error, greeting, ready};

use super::{Case, Tls};

/// The connection is not as secure as it has to be, …
const INSECURE: &str = "08001";
/// … or there is none.
const LOST: &str = "08006";

/// The answer to an SSLRequest.
fn answers(name: &str, sqlstate: &str, bytes: impl Into<Vec<u8>>) -> Case {
    let bytes = bytes.into();
    Case::negotiation(name, sqlstate, move |with| {
        is_asked(with)?;
        with.send(&bytes)
    })
}

/// The same, and the connection is closed behind it.
fn answers_and_closes(name: &str, bytes: impl Into<Vec<u8>>) -> Case {
    let bytes = bytes.into();
    Case::negotiation(name, LOST, move |with| {
        is_asked(with)?;
        with.send(&bytes)?;
        with.close();
        Ok(())
    })
}

/// It agrees, is shown that the proxy has begun, and goes on with these bytes.
fn then(name: &str, sqlstate: &str, bytes: impl Into<Vec<u8>>) -> Case {
    let bytes = bytes.into();
    Case::negotiation(name, sqlstate, move |with| {
        is_asked(with)?;
        with.send(b"S")?;
        // The first record of a handshake: its type and version, then a length that is not needed.
        with.skip(5)?;
        with.send(&bytes)
    })
}

/// Waits for the SSLRequest.
fn is_asked(with: &mut Conversation) -> io::Result<()> {
    match with.packet()? {
        (80_877_103, _) => Ok(()),
        (code, _) => Err(io::Error::other(format!("{code} is no SSLRequest"))),
    }
}

/// What a server says that lets everybody in.
fn welcome() -> Vec<u8> {
    [authentication(0, b""), greeting(), ready(b'I')].concat()
}

fn refusal() -> Vec<u8> {
    error(&["SFATAL", "VFATAL", "C53300", "Msorry, too many clients already"])
}

/// A record of TLS with this content type.
fn record(content: u8, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("a short record");
    [&[content, 3, 3], &length.to_be_bytes()[..], data].concat()
}

pub fn cases(tls: &Tls) -> Vec<Case> {
    let mut cases = vec![
        answers("cve_2021_43767_yes_and_a_welcome", INSECURE, [b"S".to_vec(), welcome()].concat()),
        answers("cve_2021_23222_yes_and_an_error", INSECURE, [b"S".to_vec(), refusal()].concat()),
        answers("ssl_yes_and_a_byte", INSECURE, *b"S\0"),
        answers("ssl_yes_twice", INSECURE, *b"SS"),
        answers("ssl_yes_and_a_record", INSECURE, [b"S".to_vec(), record(22, &[2; 100])].concat()),
        answers("ssl_no", INSECURE, *b"N"),
        answers("ssl_no_and_a_welcome", INSECURE, [b"N".to_vec(), welcome()].concat()),
        answers("ssl_no_twice", INSECURE, *b"NN"),
        // What it says in it is nobody's word, and shown to nobody (CVE-2024-10977, libpq).
        answers("cve_2024_10977_error", INSECURE, refusal()),
        answers("ssl_error_alone", INSECURE, *b"E"),
        answers("ssl_gss", INSECURE, *b"G"),
        answers("ssl_welcome", INSECURE, welcome()),
        answers("ssl_zero", INSECURE, *b"\0"),
        answers("ssl_http", INSECURE, *b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        answers("ssl_a_megabyte", INSECURE, vec![b'S'; 1 << 20]),
        answers("ssl_silence", LOST, []),
        answers_and_closes("ssl_closed", []),
        answers_and_closes("ssl_yes_and_closed", *b"S"),
        then("ssl_yes_and_silence", LOST, []),
        then("ssl_yes_and_unencrypted_welcome", INSECURE, welcome()),
        then("ssl_yes_and_unencrypted_error", INSECURE, refusal()),
        then("ssl_yes_and_zeros", INSECURE, [0; 64]),
        then("ssl_yes_and_alert", INSECURE, record(21, &[2, 40])),
        then("ssl_yes_and_unencrypted_data", INSECURE, record(23, &welcome())),
        then("ssl_yes_and_long_record", INSECURE, [22, 3, 3, 0xff, 0xff, 2, 0, 0, 70]),
        then("ssl_yes_and_half_a_record", LOST, record(22, &[2; 100])[..50].to_vec()),
        then("ssl_yes_and_no_hello", INSECURE, record(22, &[2, 0, 0, 4, 3, 3, 0, 0])),
        then(
            "ssl_yes_and_long_hello",
            INSECURE,
            record(22, &[2, 0xff, 0xff, 0xff]).into_iter().chain(vec![0; 1 << 20]).collect::<Vec<u8>>(),
        ),
    ];
    for (name, bytes) in [("a_welcome", welcome()), ("an_error", refusal()), ("an_end", Vec::new())] {
        let Some(config) = tls.clone() else { continue };
        cases.push(Case::negotiation(&format!("ssl_done_and_unencrypted_{name}"), LOST, move |with| {
            is_asked(with)?;
            with.send(b"S")?;
            with.encrypt(&config)?;
            with.packet()?;
            with.send_unencrypted(&bytes)?;
            if bytes.is_empty() {
                with.close();
            }
            Ok(())
        }));
    }
    cases
}
