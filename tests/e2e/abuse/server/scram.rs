//! Servers that ask for SCRAM and do not know how to, or want too much.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use domicile_tests::fake::{Conversation, authentication, greeting, ready};
use domicile_tests::message as m;
use domicile_tests::scram::server_final;

use super::{Case, PASSWORD};

const SALT: &[u8] = b"salt of 16 bytes";
const ITERATIONS: u32 = 4096;

/// Asks for SCRAM; the client-first-message-bare, and the nonce in it.
fn asks(with: &mut Conversation) -> io::Result<(String, String)> {
    with.send(&authentication(10, b"SCRAM-SHA-256\0\0"))?;
    let (_, body) = with.message()?;
    let first = String::from_utf8_lossy(&body).into_owned();
    // What is before it says what the client knows of channel binding.
    let (_, bare) = first.split_once(",,").ok_or(io::ErrorKind::InvalidData)?;
    let (_, nonce) = bare.split_once(",r=").ok_or(io::ErrorKind::InvalidData)?;
    Ok((bare.to_owned(), nonce.to_owned()))
}

/// The challenge of a server in order.
fn challenge(nonce: &str) -> String {
    format!("r={nonce}and-ours,s={},i={ITERATIONS}", BASE64.encode(SALT))
}

/// The server-first-message is made of the client's nonce.
fn challenges(name: &str, challenge: impl Fn(&str) -> String + Send + Sync + 'static) -> Case {
    Case::login(name, "08006", move |with| {
        let (_, nonce) = asks(with)?;
        with.send(&authentication(11, challenge(&nonce).as_bytes()))
    })
}

/// After the client's proof, these messages are made of what proves the server.
fn ends(name: &str, messages: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Case {
    Case::login(name, "08006", move |with| {
        let proof = exchange(with)?;
        with.send(&messages(&proof))
    })
}

/// An exchange up to the client's proof; the server-final-message that is due.
fn exchange(with: &mut Conversation) -> io::Result<String> {
    let (bare, nonce) = asks(with)?;
    let challenge = challenge(&nonce);
    with.send(&authentication(11, challenge.as_bytes()))?;
    let (_, last) = with.message()?;
    let last = String::from_utf8_lossy(&last).into_owned();
    let (without_proof, _) = last.split_once(",p=").ok_or(io::ErrorKind::InvalidData)?;
    Ok(server_final(PASSWORD, SALT, ITERATIONS, [&bare, &challenge, without_proof]))
}

pub fn cases() -> Vec<Case> {
    let salt = || BASE64.encode(SALT);
    let mut cases = vec![
        Case::lawful("scram_in_order", m::query("SELECT 1"), "T answer / D good / C SELECT 1 / Z I", |with| {
            let proof = exchange(with)?;
            with.send(&authentication(12, proof.as_bytes()))?;
            with.admit()
        }),
        // PgBouncer copied it to its stack.
        challenges("cve_2026_6665_nonce_60k", move |nonce| format!("r={nonce}{},s={},i=4096", "x".repeat(60_000), salt())),
        challenges("scram_nonce_1k", move |nonce| format!("r={nonce}{},s={},i=4096", "x".repeat(1024), salt())),
        challenges("scram_nonce_not_extended", move |nonce| format!("r={nonce},s={},i=4096", salt())),
        challenges("scram_nonce_another", move |_| format!("r=another,s={},i=4096", salt())),
        challenges("scram_nonce_unprintable", move |nonce| format!("r={nonce}\x01,s={},i=4096", salt())),
        challenges("scram_nonce_empty", move |_| format!("r=,s={},i=4096", salt())),
        challenges("scram_salt_empty", |nonce| format!("r={nonce}x,s=,i=4096")),
        challenges("scram_salt_no_base64", |nonce| format!("r={nonce}x,s=$$$$,i=4096")),
        challenges("scram_salt_60k", |nonce| format!("r={nonce}x,s={},i=4096", "QUJD".repeat(15_000))),
        challenges("scram_extension", move |nonce| format!("m=must,r={nonce}x,s={},i=4096", salt())),
        challenges("scram_salt_before_nonce", move |nonce| format!("s={},r={nonce}x,i=4096", salt())),
        challenges("scram_iterations_missing", move |nonce| format!("r={nonce}x,s={}", salt())),
        challenges("scram_empty", |_| String::new()),
        challenges("scram_error", |_| "e=other-error".to_owned()),
        ends("scram_wrong_signature", |proof| {
            let wrong = if &proof[2..3] == "A" { "B" } else { "A" };
            authentication(12, format!("v={wrong}{}", &proof[3..]).as_bytes())
        }),
        ends("scram_short_signature", |_| authentication(12, b"v=AAAA")),
        ends("scram_empty_signature", |_| authentication(12, b"v=")),
        ends("scram_signature_no_base64", |_| authentication(12, b"v=$")),
        ends("scram_no_signature", |_| authentication(12, b"")),
        ends("scram_final_error", |_| authentication(12, b"e=invalid-proof")),
        ends("scram_second_challenge", |_| authentication(11, b"r=x,s=AAAA,i=4096")),
        ends("scram_begins_anew", |_| authentication(10, b"SCRAM-SHA-256\0\0")),
        ends("scram_ok_without_signature", |_| [authentication(0, b""), greeting(), ready(b'I')].concat()),
        ends("scram_ready_without_signature", |_| ready(b'I')),
        ends("scram_final_twice", |proof| authentication(12, proof.as_bytes()).repeat(2)),
        ends("scram_signed_and_cleartext", |proof| [authentication(12, proof.as_bytes()), authentication(3, b"")].concat()),
        Case::login("scram_ok_in_the_middle", "08006", |with| {
            asks(with)?;
            with.send(&[authentication(0, b""), greeting(), ready(b'I')].concat())
        }),
        Case::login("scram_final_at_once", "08006", |with| {
            asks(with)?;
            with.send(&authentication(12, b"v=AAAA"))
        }),
        Case::login("scram_cleartext_in_the_middle", "08006", |with| {
            asks(with)?;
            with.send(&authentication(3, b""))
        }),
        Case::login("scram_silence_in_the_middle", "08006", |with| asks(with).map(drop)),
    ];
    for iterations in ["0", "-1", "1000001", "2147483647", "4294967296", "18446744073709551616", "4096x", " 4096", ""] {
        cases.push(challenges(&format!("scram_iterations_{iterations:?}"), move |nonce| {
            format!("r={nonce}x,s={},i={iterations}", BASE64.encode(SALT))
        }));
    }
    cases
}
