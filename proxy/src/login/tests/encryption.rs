//! When a client's connection is encrypted, what is refused before it is, and whose certificate admits whom.

use std::net::SocketAddr;

use super::client::{GSS_REQUEST, SSL_REQUEST, chance, startup};
use super::*;
use crate::login::conversation::{ClientLogin, Step};
use crate::observe::LoginOutcome;

/// Rules with a certificate, and what `more` says under `[tls]`.
fn encrypting(more: &str) -> Rules {
    let directory = tempfile::tempdir().unwrap();
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let place = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = (place("server.crt", cert.pem()), place("server.key", signing_key.serialize_pem()));
    let tls = format!("[tls]\ncertificate = \"{certificate}\"\nkey = \"{key}\"\nclient_ca = \"{certificate}\"\n{more}");
    rules("trust", &tls)
}

/// A client that comes from `address`, and what becomes of what it says.
fn client(rules: &Rules, transport: Transport, said: &[&[u8]]) -> String {
    let mut login = ClientLogin::new(transport, chance());
    let mut text = String::new();
    for bytes in said {
        login.receive(bytes);
        loop {
            let step = match login.step(rules, 0) {
                Step::Read => break,
                Step::Send(bytes) => format!("send {}", bytes.escape_ascii()),
                Step::Encrypt(consent, begun) => {
                    login.set_tls(TlsPeer { shown: "TLSv1.3".into(), ..TlsPeer::default() });
                    format!("encrypt {} {}", consent.escape_ascii(), begun.escape_ascii())
                }
                Step::Refuse(refused) => {
                    assert!(refused.refusal.outcome == LoginOutcome::Tls || refused.refusal.outcome == LoginOutcome::Malformed);
                    format!("refuse {} {}", refused.refusal.sqlstate, refused.refusal.message)
                }
                Step::Stretch(_) => panic!("no password is asked for"),
                Step::Close(outcome) => format!("close {}", outcome.as_str()),
                Step::Admit(admitted) => format!("admit {:?}", admitted.login.identity.tls),
                Step::Cancel(_) => "cancel".to_owned(),
                Step::Console(..) => "console".to_owned(),
                Step::LookUp(user) => format!("look up {user}"),
            };
            let is_last = !step.starts_with("send") && !step.starts_with("encrypt");
            text += &format!("{step}\n");
            if is_last {
                return text;
            }
        }
    }
    text
}

fn from_afar() -> Transport {
    SocketAddr::from(([10, 0, 0, 1], 50_000)).into()
}

#[test]
fn encryption_is_begun_where_it_is_wanted() {
    let hello = startup(0, &[("user", "bob")]);
    let allowing = encrypting("mode = \"allow\"\n");
    let admitted = "encrypt S \nadmit Some(\"TLSv1.3\")\n";
    assert_eq!(client(&allowing, from_afar(), &[SSL_REQUEST, &hello]), admitted);
    assert_eq!(client(&allowing, from_afar(), &[GSS_REQUEST, SSL_REQUEST, &hello]), format!("send N\n{admitted}"));
    assert_eq!(client(&allowing, from_afar(), &[&hello]), "admit None\n", "it need not");
    assert_eq!(client(&allowing, from_afar(), &[b"\x16\x03\x01", &hello]), "encrypt  \\x16\\x03\\x01\nadmit Some(\"TLSv1.3\")\n");
    let disabled = encrypting("mode = \"disable\"\n");
    assert_eq!(client(&disabled, from_afar(), &[SSL_REQUEST, &hello]), "send N\nadmit None\n");
    assert_eq!(client(&disabled, from_afar(), &[b"\x16\x03\x01"]), "close malformed\n");
}

#[test]
fn unix_sockets_are_not_encrypted() {
    let requiring = encrypting("mode = \"require\"\n");
    let hello = startup(0, &[("user", "bob")]);
    assert_eq!(client(&requiring, Transport::default(), &[SSL_REQUEST, &hello]), "send N\nadmit None\n");
    assert_eq!(client(&requiring, Transport::default(), &[b"\x16\x03\x01"]), "close malformed\n");
}

#[test]
fn who_does_not_encrypt_is_refused_where_everyone_must() {
    let requiring = encrypting("mode = \"require\"\n");
    let hello = startup(0, &[("user", "bob")]);
    assert_eq!(client(&requiring, from_afar(), &[&hello]), "refuse 28000 connections to this server must be encrypted\n");
    assert_eq!(client(&requiring, from_afar(), &[SSL_REQUEST, &hello]), "encrypt S \nadmit Some(\"TLSv1.3\")\n");
}

/// CVE-2021-23214: what came with an SSLRequest came before the encryption, from anybody.
#[test]
fn bytes_behind_an_ssl_request_are_never_taken_for_text() {
    let allowing = encrypting("mode = \"allow\"\n");
    let glued = [SSL_REQUEST, &startup(0, &[("user", "bob")])].concat();
    assert_eq!(client(&allowing, from_afar(), &[&glued]), "close malformed\n");
}

#[test]
fn inside_of_tls_nothing_is_encrypted_once_more() {
    let allowing = encrypting("mode = \"allow\"\n");
    for again in [SSL_REQUEST, GSS_REQUEST] {
        let said = client(&allowing, from_afar(), &[SSL_REQUEST, again]);
        assert_eq!(said, "encrypt S \nrefuse 0A000 encryption has been asked for already\n");
    }
}

#[test]
fn a_certificate_must_name_the_user_if_that_is_asked_for() {
    let asking = encrypting("mode = \"require\"\nclient_certificate = \"verify-full\"\n");
    let login = |common_name: Option<&str>| {
        let mut login = ClientLogin::new(from_afar(), chance());
        let names = CertificateNames { common_name: common_name.map(str::to_owned), ..CertificateNames::default() };
        login.receive(SSL_REQUEST);
        let Step::Encrypt(..) = login.step(&asking, 0) else { panic!() };
        login.set_tls(TlsPeer { certificate: Some(names), ..TlsPeer::default() });
        login.receive(&startup(0, &[("user", "bob")]));
        match login.step(&asking, 0) {
            Step::Admit(_) => "admitted".to_owned(),
            Step::Refuse(refused) => format!("{} {}", refused.refusal.sqlstate, refused.refusal.message),
            step => panic!("{step:?}"),
        }
    };
    assert_eq!(login(Some("bob")), "admitted");
    for another in [Some("alice"), Some("Bob"), None] {
        assert_eq!(login(another), "28000 certificate authentication failed for user \"bob\"");
    }
}
