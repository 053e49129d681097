//! Minor versions of the protocol: what clients and servers are asked for, and what becomes of a key by it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use super::client::{Conversation, messages, startup};
use super::sockets::open_at;
use super::*;
use crate::wire::backend::{authentication_ok, backend_key_data, ready_for_query};
use crate::wire::startup::encode_negotiate;
use crate::wire::{Report, Severity, SqlState, TransactionStatus, encode_error};

/// What a client of protocol 3.`minor` is told first, and the bytes of its secret.
fn greeted(minor: u8, extension: &[(&str, &str)]) -> (String, usize) {
    let rules = rules("trust", "");
    let mut conversation = Conversation::new(&rules);
    let told = conversation.say(&startup(minor, &[&[("user", "bob")], extension].concat()));
    let (tag, body) = messages(&told).remove(0);
    (format!("{tag} {}", body.escape_ascii()), conversation.secret_bytes())
}

#[test]
fn a_client_gets_the_version_that_it_asks_for() {
    let ok = r"R \x00\x00\x00\x00".to_owned();
    assert_eq!(greeted(0, &[]), (ok.clone(), 4));
    // There is no such version, and PostgreSQL 18 does not mind.
    assert_eq!(greeted(1, &[]), (ok.clone(), 4));
    assert_eq!(greeted(2, &[]), (ok, 32));
}

#[test]
fn what_is_not_spoken_is_negotiated() {
    let later = r"v \x00\x03\x00\x02\x00\x00\x00\x00".to_owned();
    assert_eq!(greeted(3, &[]), (later, 32));
    let option = [("_pq_.x", "1")];
    assert_eq!(greeted(0, &option), (r"v \x00\x03\x00\x00\x00\x00\x00\x01_pq_.x\x00".to_owned(), 4));
    assert_eq!(greeted(2, &option), (r"v \x00\x03\x00\x02\x00\x00\x00\x01_pq_.x\x00".to_owned(), 32));
}

/// A server that answers each login with one of these, and the minor versions that it was asked for.
fn asked_for(answers: Vec<Vec<u8>>) -> (Vec<u8>, bool) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut hello = [0; 4096];
            assert!(stream.read(&mut hello).unwrap() > 8);
            asked.push(hello[7]);
            stream.write_all(&answer).unwrap();
        }
        asked
    });
    let opened = open_at(port).is_ok();
    (server.join().unwrap(), opened)
}

fn ready(before: &[u8]) -> Vec<u8> {
    let key = backend_key_data(7, &[9; 256]);
    [before, &authentication_ok(), &key, &ready_for_query(TransactionStatus::Idle)].concat()
}

#[test]
fn a_server_is_asked_for_the_latest_version() {
    assert_eq!(asked_for(vec![ready(b"")]), (vec![2], true));
    assert_eq!(asked_for(vec![ready(&encode_negotiate(0, &[]))]), (vec![2], true));
    // What it speaks must not be later, and there was no extension for it to refuse.
    assert_eq!(asked_for(vec![ready(&encode_negotiate(2, &[]))]), (vec![2], false));
    assert_eq!(asked_for(vec![ready(&encode_negotiate(0, &["_pq_.x".to_owned()]))]), (vec![2], false));
    assert_eq!(asked_for(vec![ready(&[&authentication_ok()[..], &encode_negotiate(0, &[])].concat())]), (vec![2], false));
}

#[test]
fn a_server_that_does_not_negotiate_is_asked_again() {
    let error = encode_error(&Report {
        severity: Severity::Fatal,
        sqlstate: SqlState::FEATURE_NOT_SUPPORTED,
        message: "unsupported frontend protocol 3.2: server supports 2.0 to 3.0",
        detail: None,
        hint: None,
        position: None,
    });
    assert_eq!(asked_for(vec![error.to_vec(), ready(b"")]), (vec![2, 0], true));
    assert_eq!(asked_for(vec![error.to_vec(), error.to_vec()]), (vec![2, 0], false));
}
