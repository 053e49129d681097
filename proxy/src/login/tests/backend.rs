//! What servers may say to a proxy that logs in to them.

use bytes::Bytes;
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::super::backend_login::{BackendLogin, Credentials, Fault, Progress};
use super::super::scram::{self, Keys, MECHANISM, ServerFirst, Verifier};
use super::*;
use crate::config::{Password, RequireAuth, Secret};
use crate::wire::backend::{
    TransactionStatus, authentication_cleartext, authentication_md5, authentication_ok, authentication_sasl,
    authentication_sasl_continue, authentication_sasl_final, backend_key_data, parameter_status, ready_for_query,
};
use crate::wire::frame::body;
use crate::wire::frontend::{password, sasl_initial_fields};
use crate::wire::{Report, Severity, SqlState, encode_error, encode_notice};

fn plain(text: &str) -> Option<Secret> {
    Some(Secret::Plain(Password::new(text.to_owned())))
}

fn login(secret: Option<Secret>, cleartext_allowed: bool) -> BackendLogin {
    requiring(secret, cleartext_allowed, RequireAuth::default())
}

fn requiring(secret: Option<Secret>, cleartext_allowed: bool, require_auth: RequireAuth) -> BackendLogin {
    BackendLogin::new(
        Credentials { user: "bob".to_owned(), secret, keys: None, cleartext_allowed, require_auth },
        "client".to_owned(),
        None,
    )
}

fn hear(login: &mut BackendLogin, message: &Bytes) -> Result<Progress, Fault> {
    Ok(match login.receive(message[0], message)? {
        Progress::Stretch(derivation) => Progress::Send(login.stretched(&derivation.keys()).unwrap()),
        progress => progress,
    })
}

/// Why a login ends at the last of these messages.
fn fault(secret: Option<Secret>, messages: &[Bytes]) -> String {
    let mut login = login(secret, false);
    let (last, before) = messages.split_last().unwrap();
    before.iter().for_each(|message| drop(hear(&mut login, message).unwrap()));
    match hear(&mut login, last) {
        Err(Fault::Protocol(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn report(severity: Severity) -> Report<'static> {
    let sqlstate = SqlState::INVALID_CATALOG_NAME;
    Report { severity, sqlstate, message: "no such database", detail: None, hint: None, position: None }
}

#[test]
fn a_server_tells_what_it_is() {
    let mut login = login(None, false);
    let messages = [
        authentication_ok(),
        parameter_status("server_version", "15.18"),
        parameter_status("TimeZone", "UTC"),
        parameter_status("TimeZone", "CET"),
        encode_notice(&report(Severity::Warning)),
        backend_key_data(42, b"secret"),
    ];
    for message in &messages {
        assert_eq!(hear(&mut login, message), Ok(Progress::Read));
    }
    assert_eq!(hear(&mut login, &ready_for_query(TransactionStatus::Idle)), Ok(Progress::Ready));
    let parameters: Vec<_> = login.facts.parameters.iter().collect();
    assert_eq!(parameters, [("server_version", "15.18"), ("TimeZone", "CET")]);
    assert_eq!((login.facts.process_id, login.facts.secret.bytes()), (42, &b"secret"[..]));
}

#[test]
fn passwords_go_where_they_may() {
    let answer = |secret, allowed, request: Bytes| match hear(&mut login(secret, allowed), &request) {
        Ok(Progress::Send(answer)) => answer,
        other => panic!("{other:?}"),
    };
    assert_eq!(answer(plain("secret"), true, authentication_cleartext()), password(b"secret"));
    let digest = md5::digest(b"secret", "bob");
    let hashed = password(&md5::answer(&digest, *b"salt"));
    assert_eq!(answer(plain("secret"), false, authentication_md5(*b"salt")), hashed);
    assert_eq!(answer(Some(Secret::Md5(digest.into())), false, authentication_md5(*b"salt")), hashed);

    let refused = fault(plain("secret"), &[authentication_cleartext()]);
    assert_eq!(refused, "it asks for the password in clear text, which auth.backend_cleartext does not allow");
    for request in [authentication_cleartext(), authentication_md5(*b"salt"), authentication_sasl(&[MECHANISM])] {
        let text = fault(None, &[request]);
        assert!(text.contains("user \"bob\"") && text.contains("set password for the node"), "{text}");
    }
    let verifier = rules("trust", "").config.auth.users.get("alice").cloned();
    assert!(fault(verifier, &[authentication_sasl(&[MECHANISM])]).contains("no password is known"));
}

/// A login by SCRAM against a server that knows `known`; the server's last words are changed by `change`.
fn by_scram(known: &str, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Result<BackendLogin, Fault> {
    let mut login = login(plain("secret"), false);
    let Progress::Send(first) = hear(&mut login, &authentication_sasl(&["SCRAM-SHA-256-PLUS", MECHANISM]))? else { panic!() };
    let (mechanism, first) = sasl_initial_fields(body(&first)).unwrap();
    assert_eq!(mechanism, MECHANISM.as_bytes());
    let verifier = Keys::derive(known.as_bytes(), b"salt", 10).verifier(b"salt", 10);
    let server = ServerFirst::new(verifier, false, scram::nonce(&[2; 18]), None);
    let (server, challenge) = server.receive(first.unwrap()).unwrap();
    let Progress::Send(proof) = hear(&mut login, &authentication_sasl_continue(&challenge))? else { panic!() };
    let last = server.receive(body(&proof)).map_or_else(|_| Vec::new(), |(last, _)| last);
    assert_eq!(hear(&mut login, &authentication_sasl_final(&change(last)))?, Progress::Read);
    assert_eq!(hear(&mut login, &authentication_ok())?, Progress::Read);
    Ok(login)
}

#[test]
fn keys_that_the_user_has_shown_open_a_server_with_the_same_verifier() {
    let verifier = |password: &[u8], salt: &[u8]| Keys::derive(password, salt, 10).verifier(salt, 10);
    let known = verifier(b"secret", b"salt");
    let secret = || {
        let (stored_key, server_key) = (Zeroizing::new(known.stored_key), Zeroizing::new(known.server_key));
        Some(Secret::Scram { iterations: 10, salt: b"salt".to_vec(), stored_key, server_key })
    };
    let log_in = |server: Verifier| {
        let keys = Some(Keys::derive(b"secret", b"salt", 10));
        let require_auth = RequireAuth::default();
        let credentials = Credentials { user: "bob".to_owned(), secret: secret(), keys, cleartext_allowed: false, require_auth };
        let mut login = BackendLogin::new(credentials, "client".to_owned(), None);
        let Progress::Send(first) = hear(&mut login, &authentication_sasl(&[MECHANISM]))? else { panic!() };
        let (_, first) = sasl_initial_fields(body(&first)).unwrap();
        let (server, challenge) = ServerFirst::new(server, false, scram::nonce(&[2; 18]), None).receive(first.unwrap()).unwrap();
        let Progress::Send(proof) = hear(&mut login, &authentication_sasl_continue(&challenge))? else { panic!() };
        let (last, _) = server.receive(body(&proof)).expect("the proof is right");
        hear(&mut login, &authentication_sasl_final(&last))
    };
    assert_eq!(log_in(known.clone()), Ok(Progress::Read));
    let Err(Fault::Protocol(text)) = log_in(verifier(b"secret", b"pepper")) else { panic!("another salt") };
    assert!(text.contains("another one than the proxy has"), "{text}");
}

/// What is said to a server that begins so, where a node's `require_auth` is this.
fn required(require_auth: &str, request: &Bytes) -> Result<Progress, Fault> {
    let rules = rules("trust", &format!("require_auth = {require_auth}"));
    let require_auth = rules.config.nodes[1].require_auth.clone();
    hear(&mut requiring(plain("secret"), true, require_auth), request)
}

#[test]
fn a_server_that_asks_for_less_than_is_required_gets_nothing() {
    let requests = [
        ("none", authentication_ok()),
        ("password", authentication_cleartext()),
        ("md5", authentication_md5(*b"salt")),
        ("scram-sha-256", authentication_sasl(&[MECHANISM])),
    ];
    for (require_auth, allowed) in [
        ("[\"scram-sha-256\"]", &["scram-sha-256"][..]),
        ("[\"md5\", \"scram-sha-256\"]", &["md5", "scram-sha-256"]),
        ("[\"none\"]", &["none"]),
        ("[\"!password\", \"!none\"]", &["md5", "scram-sha-256"]),
        ("[\"!none\", \"!md5\", \"!password\"]", &["scram-sha-256"]),
    ] {
        for (method, request) in &requests {
            let answer = required(require_auth, request);
            match &answer {
                Ok(_) => assert!(allowed.contains(method), "{require_auth} {method}"),
                Err(Fault::Protocol(text)) => {
                    let end = format!("and require_auth of the node allows only {}", allowed.join(", "));
                    assert!(!allowed.contains(method) && text.ends_with(&end), "{require_auth} {method}: {text}");
                }
                Err(fault @ Fault::Refused { .. }) => panic!("{fault:?}"),
            }
        }
    }
    // Nor does one that has begun well.
    let rules = rules("trust", "require_auth = [\"scram-sha-256\"]");
    let mut login = requiring(plain("secret"), true, rules.config.nodes[1].require_auth.clone());
    hear(&mut login, &authentication_sasl(&[MECHANISM])).unwrap();
    let out_of_place = Fault::Protocol("it sent an authentication request out of place".to_owned());
    assert_eq!(hear(&mut login, &authentication_ok()), Err(out_of_place));
}

#[test]
fn a_server_proves_that_it_knows_the_password() {
    assert!(by_scram("secret", |last| last).is_ok());
    let forged = by_scram("secret", |mut last| {
        last[5] ^= 1;
        last
    });
    assert!(matches!(forged, Err(Fault::Protocol(text)) if text.contains("does not know the password")));
    assert!(by_scram("other", |last| last).is_err());
}

#[test]
fn a_login_is_bound_to_the_certificate_where_the_server_offers_that() {
    let begin = |offered: &[&str]| {
        let (secret, require_auth) = (plain("secret"), RequireAuth::default());
        let credentials = Credentials { user: "bob".to_owned(), secret, keys: None, cleartext_allowed: false, require_auth };
        let mut login = BackendLogin::new(credentials, "client".to_owned(), Some(b"hash".as_slice().into()));
        let Ok(Progress::Send(first)) = hear(&mut login, &authentication_sasl(offered)) else { panic!() };
        let (mechanism, message) = sasl_initial_fields(body(&first)).unwrap();
        (String::from_utf8_lossy(mechanism).into_owned(), String::from_utf8_lossy(message.unwrap()).into_owned())
    };
    let (mechanism, first) = begin(&["SCRAM-SHA-256-PLUS", MECHANISM]);
    assert_eq!((&*mechanism, first.starts_with("p=tls-server-end-point,,")), ("SCRAM-SHA-256-PLUS", true), "{first}");
    let (mechanism, first) = begin(&[MECHANISM]);
    assert_eq!((&*mechanism, first.starts_with("y,,")), (MECHANISM, true), "a server that did offer it learns so: {first}");
}

#[test]
fn a_server_may_not_skip_its_proof() {
    let begin = [authentication_sasl(&[MECHANISM])];
    for request in
        [authentication_ok(), authentication_cleartext(), authentication_md5(*b"salt"), authentication_sasl_final(b"v=")]
    {
        let messages = [&begin[..], &[request]].concat();
        assert_eq!(fault(plain("secret"), &messages), "it sent an authentication request out of place");
    }
    let text = fault(plain("secret"), &[authentication_sasl(&["SCRAM-SHA-256-PLUS"])]);
    assert_eq!(text, "it does not offer SCRAM-SHA-256");
}

#[test]
fn servers_that_break_the_protocol_are_given_up() {
    let ok = authentication_ok;
    let message = |bytes: &'static [u8]| Bytes::from_static(bytes);
    for messages in [
        vec![ready_for_query(TransactionStatus::Idle)],
        vec![parameter_status("a", "b")],
        vec![ok(), ok()],
        vec![ok(), ready_for_query(TransactionStatus::InTransaction)],
        vec![ok(), message(b"Z\0\0\0\x04")],
        vec![ok(), message(b"S\0\0\0\x06ab")],
        vec![ok(), message(b"K\0\0\0\x06ab")],
        vec![message(b"R\0\0\0\x04")],
        vec![message(b"R\0\0\0\x08\0\0\0\x07")],
        vec![message(b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0")],
        vec![ok(), message(b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0")],
        vec![message(b"\x01\0\0\0\x04")],
        vec![message(b"E\0\0\0\x05\0")],
        vec![message(b"E\0\0\0\x11SFATAL\0Mno\0\0")],
        vec![ok(), parameter_status("long", &"x".repeat(1 << 20))],
        vec![ok(), parameter_status("client_encoding", "SJIS")],
        [ok()].into_iter().chain((0..257).map(|number| parameter_status(&number.to_string(), "x"))).collect(),
    ] {
        assert!(fault(None, &messages).starts_with("it "), "{messages:?}");
    }
}

#[test]
fn a_refusal_keeps_the_servers_own_words() {
    let error = encode_error(&report(Severity::Fatal));
    let expected = Fault::Refused { error: error.clone(), sqlstate: SqlState::INVALID_CATALOG_NAME };
    assert_eq!(hear(&mut login(None, false), &error), Err(expected));
}

proptest! {
    #[test]
    fn garbage_never_panics(messages in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..8)) {
        let mut login = login(plain("secret"), true);
        for (tag, noise) in messages {
            let tag = if tag < 128 { b"RRRESKZNv"[usize::from(tag) % 9] } else { tag };
            let message = Bytes::from([&[tag, 0, 0, 0, 0][..], &noise].concat());
            if login.receive(tag, &message).is_err() {
                break;
            }
        }
    }
}
