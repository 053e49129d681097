//! While a client proves who it is: SCRAM spoken wrongly in every way, and everything that is no answer to the question.

use domicile_tests::message as m;
use domicile_tests::scram::Scram;

use super::case::Case;
use super::peer::{Peer, sasl_initial};

const FAILED: &str = "F 28P01 / closed";
const SHORTER: &str = "a SCRAM message of more than 1024 bytes is no answer to it; the proxy knows one bound for every method";
const LENGTH: &str = "a message that does not come is a failed login to it";
const MECHANISM: &str = "SCRAM-SHA-256";

/// Bytes that are sent in answer to AuthenticationSASL.
fn asked(name: &str, expected: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    let bytes = bytes.into();
    Case::new(name, expected, move |peer| {
        peer.startup(&[]);
        peer.until_asked();
        peer.send(&bytes);
    })
}

/// A SASLInitialResponse with this client-first-message.
fn first(name: &str, expected: &'static str, message: &str) -> Case {
    asked(name, expected, sasl_initial(MECHANISM, message.as_bytes()))
}

/// A SASLInitialResponse with this length word before these bytes.
fn announced(name: &str, expected: &'static str, length: u32, data: &str) -> Case {
    let body = [MECHANISM.as_bytes(), &[0], &length.to_be_bytes(), data.as_bytes()].concat();
    asked(name, expected, m::password(&body))
}

/// Begins an exchange and gives the right client-final-message.
fn right_proof(peer: &mut Peer<'_>) -> String {
    let scram = Scram::new().expect("random bytes");
    peer.startup(&[]);
    peer.until_asked();
    peer.send(&sasl_initial(MECHANISM, scram.first().as_bytes()));
    let challenge = peer.challenge();
    scram.last("postgres", &challenge).expect("a challenge").message
}

/// The client-final-message is the right one, changed.
fn changed(name: &str, expected: &'static str, change: fn(String) -> Vec<u8>) -> Case {
    Case::new(name, expected, move |peer| {
        let proof = right_proof(peer);
        peer.send(&m::password(&change(proof)));
    })
}

/// The proof in front of its base64, and that.
fn parts(message: &str) -> (&str, &str) {
    let at = message.rfind(",p=").expect("a proof") + 3;
    message.split_at(at)
}

pub fn cases() -> Vec<Case> {
    let mut cases = first_messages();
    cases.extend(last_messages());
    cases.extend(other_messages());
    cases.extend(users());
    cases
}

fn first_messages() -> Vec<Case> {
    let good = "n,,n=,r=fyko+d2lbbFgONRv9qkxdawL";
    let refused = "F 08P01 / closed";
    let long_nonce = format!("n,,n=,r={}", "x".repeat(60_000));
    let body = |text: &[u8]| m::password(text);
    vec![
        // PgBouncer: the length of the first message was believed, and it died before anybody had logged in.
        announced("cve_2026_6664_scram_first_len_minus2", refused, u32::MAX - 1, good),
        announced("cve_2026_6664_scram_first_len_minus1_with_data", refused, u32::MAX, good),
        announced("cve_2026_6664_scram_first_len_2g", refused, 1 << 31, good),
        announced("cve_2026_6664_scram_first_len_2g_less_1", refused, i32::MAX.unsigned_abs(), good),
        announced("cve_2026_6664_scram_first_len_wraps", refused, u32::MAX - 17, good),
        announced("scram_first_len_minus1", "R 11 / waits", u32::MAX, ""),
        announced("scram_first_len_one_more", refused, 33, good),
        announced("scram_first_len_one_less", refused, 31, good),
        announced("scram_first_len_0", refused, 0, ""),
        asked("scram_first_no_nul", refused, body(b"SCRAM-SHA-256")),
        asked("scram_first_no_length", refused, body(b"SCRAM-SHA-256\0")),
        asked("scram_first_half_length", refused, body(b"SCRAM-SHA-256\0\0\0")),
        asked("scram_first_empty_body", refused, body(b"")),
        asked("scram_first_no_mechanism", refused, sasl_initial("", good.as_bytes())),
        asked("scram_first_other_mechanism", refused, sasl_initial("PLAIN", b"\0postgres\0postgres")),
        asked("scram_first_plus_without_tls", refused, sasl_initial("SCRAM-SHA-256-PLUS", good.as_bytes())),
        first("scram_first_nonce_60kb", "R 11 / waits", &long_nonce).directly(FAILED, SHORTER),
        first("scram_first_nonce_empty", "R 11 / waits", "n,,n=,r="),
        // Where channel binding is offered, that is a downgrade.
        first("scram_first_gs2_y", "R 11 / waits", "y,,n=,r=abc").unencrypted(),
        first("scram_first_gs2_p", refused, "p=tls-server-end-point,,n=,r=abc"),
        first("scram_first_gs2_x", refused, "x,,n=,r=abc"),
        first("scram_first_authzid", "F 0A000 / closed", "n,a=admin,n=,r=abc"),
        first("scram_first_extension", "F 0A000 / closed", "n,,m=ext,n=,r=abc"),
        first("scram_first_no_name", refused, "n,,r=abc"),
        first("scram_first_no_nonce", refused, "n,,n="),
        first("scram_first_commas", refused, ",,,,,,,,,,,,,,"),
        first("scram_first_one_letter", refused, "n"),
        first("scram_first_nonce_not_printable", refused, "n,,n=,r=a\x07b"),
        first("scram_first_nul_inside", refused, "n,,n=,r=abc\0,x=y"),
        first("scram_first_other_user", "R 11 / waits", "n,,n=somebody=2Celse,r=abc"),
        first("scram_first_more_attributes", "R 11 / waits", "n,,n=,r=abc,x=1,y=2"),
        first("scram_first_attribute_without_value", refused, "n,,n=,r=abc,x"),
    ]
}

fn last_messages() -> Vec<Case> {
    let refused = "F 08P01 / closed";
    vec![
        changed("scram_wrong_proof", "F 28P01 / closed", |message| {
            let (before, proof) = parts(&message);
            let first = if proof.starts_with('A') { 'B' } else { 'A' };
            format!("{before}{first}{}", &proof[1..]).into_bytes()
        }),
        changed("scram_zero_proof", "F 28P01 / closed", |message| {
            format!("{}{}=", parts(&message).0, "A".repeat(43)).into_bytes()
        }),
        changed("scram_short_proof", refused, |message| {
            let (before, proof) = parts(&message);
            format!("{before}{}", &proof[..40]).into_bytes()
        }),
        changed("scram_long_proof", refused, |message| format!("{}{}", parts(&message).0, "A".repeat(48)).into_bytes()),
        changed("scram_very_long_proof", refused, |message| format!("{}{}", parts(&message).0, "A".repeat(60_000)).into_bytes())
            .directly(FAILED, SHORTER),
        changed("scram_empty_proof", refused, |message| parts(&message).0.as_bytes().to_vec()),
        changed("scram_no_proof", refused, |message| message.as_bytes()[..message.len() - 47].to_vec()),
        changed("scram_proof_not_base64", refused, |message| format!("{}{}=", parts(&message).0, "*".repeat(43)).into_bytes()),
        changed("scram_nonce_changed", refused, |message| message.replacen(",r=", ",r=x", 1).into_bytes()),
        changed("scram_nonce_missing", refused, |message| message.replacen(",r=", ",q=", 1).into_bytes()),
        changed("scram_nonce_cut", refused, |message| {
            let (before, proof) = parts(&message);
            format!("{},p={proof}", &before[..before.len() - 7]).into_bytes()
        }),
        changed("scram_binding_changed", refused, |message| message.replacen("c=biws", "c=eSws", 1).into_bytes()),
        changed("scram_binding_missing", refused, |message| message.as_bytes()[7..].to_vec()),
        changed("scram_bytes_behind_proof", refused, |message| format!("{message},x=y").into_bytes()),
        changed("scram_nul_in_last", refused, |message| [message.as_bytes(), b"\0"].concat()),
        changed("scram_empty_last", refused, |_| Vec::new()),
        changed("scram_last_not_utf8", refused, |_| vec![0xff; 100]),
        Case::new("scram_proof_of_another_exchange", refused, |peer| {
            let replayed = right_proof(&mut peer.another());
            right_proof(peer);
            peer.send(&m::password(replayed.as_bytes()));
        }),
        Case::new("scram_proof_glued_to_first", "R 11 / F 08P01 / closed", |peer| {
            peer.startup(&[]);
            peer.until_asked();
            peer.send(&[sasl_initial(MECHANISM, b"n,,n=,r=abc"), m::password(b"c=biws,r=abc,p=AAAA")].concat());
        }),
        Case::new("scram_first_twice", refused, |peer| {
            right_proof(peer);
            peer.send(&sasl_initial(MECHANISM, b"n,,n=,r=abc"));
        }),
        Case::new("auth_query_glued_to_proof", "R 12 / R 0 / Z I / T ?column? / D 1 / C SELECT 1 / Z I / alive", |peer| {
            let proof = right_proof(peer);
            peer.send(&[m::password(proof.as_bytes()), m::query("SELECT 1")].concat());
        }),
        Case::new("auth_byte_at_a_time", "R 12 / R 0 / Z I / alive", |peer| {
            let proof = right_proof(peer);
            peer.send_slowly(&m::password(proof.as_bytes()));
        }),
        Case::new("auth_half_close_behind_proof", "R 12 / R 0 / Z I / closed", |peer| {
            let proof = right_proof(peer);
            peer.send(&m::password(proof.as_bytes()));
            peer.half_close();
        }),
        Case::new("auth_reset_behind_proof", "gone", |peer| {
            let proof = right_proof(peer);
            peer.send(&m::password(proof.as_bytes()));
            peer.reset_when_dropped();
        }),
    ]
}

fn other_messages() -> Vec<Case> {
    let announce = |length: u32| [&b"p"[..], &length.to_be_bytes()].concat();
    let refused = "F 08P01 / closed";
    vec![
        asked("auth_query_instead", refused, m::query("SELECT 1")),
        asked("auth_terminate_instead", refused, m::terminate()),
        asked("auth_sync_instead", refused, m::sync()),
        asked("auth_unknown_type", refused, m::message(b'\0', b"")),
        asked("auth_len_0", "dropped", announce(0)).directly(FAILED, LENGTH),
        asked("auth_len_3", "dropped", announce(3)).directly(FAILED, LENGTH),
        asked("auth_len_minus1", "dropped", announce(u32::MAX)).directly(FAILED, LENGTH),
        asked("auth_len_65540", "dropped", announce(65_540)).directly(FAILED, LENGTH),
        asked("auth_len_1g", "dropped", announce(1 << 30)).directly(FAILED, LENGTH),
        asked("auth_len_2g", "dropped", announce(1 << 31)).directly(FAILED, LENGTH),
        asked("auth_truncated_wait", "waits", announce(100)),
        asked("auth_nothing_wait", "waits", *b""),
        Case::new("auth_truncated_close", "dropped", move |peer| {
            peer.startup(&[]);
            peer.until_asked();
            peer.send(&announce(100));
            peer.half_close();
        })
        .directly(FAILED, LENGTH),
        Case::new("auth_sslrequest_instead", refused, |peer| {
            peer.startup(&[]);
            peer.until_asked();
            peer.send(&m::ssl_request());
        }),
        Case::sends("password_after_login", refused, m::password(b"postgres\0")),
    ]
}

/// A user who does not exist goes through the same steps as one whose password is wrong. PgBouncer took him for the user whose
/// connections asked for passwords (CVE-2015-6817); Pgpool-II let the server decide in ways that did not (CVE-2025-46801).
fn users() -> Vec<Case> {
    let steps = |name: &str, user: &'static str, password: &'static str| {
        Case::new(name, "R 11 / F 28P01 / closed", move |peer| {
            peer.send(&m::startup(m::PROTOCOL_3_0, &[("user", user), ("database", "demo")]));
            peer.until_asked();
            let scram = Scram::new().expect("random bytes");
            peer.send(&sasl_initial(MECHANISM, scram.first().as_bytes()));
            let challenge = peer.challenge();
            peer.found("R 11");
            peer.send(&m::password(scram.last(password, &challenge).expect("a challenge").message.as_bytes()));
        })
    };
    let mut cases = vec![
        steps("auth_wrong_password", "postgres", "wrong"),
        steps("cve_2015_6817_unknown_user", "nobody", "wrong"),
        steps("auth_odd_user", "\"; --", "wrong"),
        // PostgreSQL itself let in who had none.
        steps("cve_2017_7546_empty_password", "postgres", ""),
        steps("cve_2017_7546_empty_password_of_nobody", "nobody", ""),
    ];
    cases.push(Case::new("auth_unknown_user_malformed", "F 08P01 / closed", |peer| {
        peer.send(&m::startup(m::PROTOCOL_3_0, &[("user", "nobody"), ("database", "demo")]));
        peer.until_asked();
        peer.send(&sasl_initial(MECHANISM, b"n,,"));
    }));
    cases
}
