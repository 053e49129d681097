//! SCRAM, both sides: against each other, against the examples of RFC 7677, and against nonsense.

use proptest::prelude::*;

use super::*;

/// RFC 7677, section 3: the user `user` with the password `pencil`.
const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const CLIENT_FINAL: &str =
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn salt() -> Vec<u8> {
    decode_base64(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap()
}

fn server(doomed: bool) -> ServerFirst {
    let verifier = Keys::derive(b"pencil", &salt(), ITERATIONS).verifier(&salt(), ITERATIONS);
    ServerFirst::new(verifier, doomed, SERVER_NONCE.to_owned(), None)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_server_answers_as_rfc_7677() {
    let (server, answer) = server(false).receive(CLIENT_FIRST.as_bytes()).unwrap();
    assert_eq!(text(&answer), SERVER_FIRST);
    let (last, keys) = server.receive(CLIENT_FINAL.as_bytes()).unwrap();
    assert_eq!(text(&last), SERVER_FINAL);
    // They are worth as much as the password, towards a server that has the same verifier.
    let known = Keys::derive(b"pencil", &salt(), ITERATIONS);
    assert_eq!((keys.client_key, keys.server_key), (known.client_key, known.server_key));
}

#[test]
fn the_client_answers_as_rfc_7677() {
    let client = client::ClientFirst::of_user("user", CLIENT_NONCE.to_owned(), Channel::None);
    let (client, answer) = proof(client.receive(SERVER_FIRST.as_bytes()).unwrap(), b"pencil");
    assert_eq!(text(&answer), CLIENT_FINAL);
    assert_eq!(client.receive(SERVER_FINAL.as_bytes()), Ok(()));
}

/// Stretches the password, and the client's answer.
fn proof(client: ClientChallenged, password: &[u8]) -> (ClientFinal, Vec<u8>) {
    let keys = Keys::derive(password, &client.salt, client.iterations);
    client.answer(&keys)
}

/// A whole exchange of the two sides; the client's and the server's verdict.
fn converse(password: &[u8], verifier: Verifier, doomed: bool) -> (Result<(), ScramError>, Result<(), ScramError>) {
    let (client, first) = ClientFirst::begin(nonce(&[1; NONCE_BYTES]), Channel::None);
    let (server, challenge) = ServerFirst::new(verifier, doomed, nonce(&[2; NONCE_BYTES]), None).receive(&first).unwrap();
    let (client, proof) = self::proof(client.receive(&challenge).unwrap(), password);
    match server.receive(&proof) {
        Ok((signature, _)) => (client.receive(&signature), Ok(())),
        Err(error) => (Err(error), Err(error)),
    }
}

#[test]
fn the_right_password_convinces_both_sides_and_no_other_does() {
    let verifier = |password: &[u8]| Keys::derive(password, b"salt", 10).verifier(b"salt", 10);
    assert_eq!(converse(b"secret", verifier(b"secret"), false), (Ok(()), Ok(())));
    assert_eq!(converse(b"secret", verifier(b"Secret"), false).1, Err(ScramError::Mismatch));
    assert_eq!(converse(b"secret", verifier(b"secret"), true).1, Err(ScramError::Mismatch));
    // SASLprep: U+00AD is mapped to nothing, U+2168 to "IX" (RFC 4013, section 3).
    assert_eq!(converse("I\u{ad}X".as_bytes(), verifier("\u{2168}".as_bytes()), false), (Ok(()), Ok(())));
    // Not UTF-8: taken as it is.
    assert_eq!(converse(b"\xff\xfe", verifier(b"\xff\xfe"), false), (Ok(()), Ok(())));
}

#[test]
fn a_verifier_admits_the_password_it_was_made_from() {
    let verifier = Keys::derive(b"pencil", &salt(), ITERATIONS).verifier(&salt(), ITERATIONS);
    let admits = |password: &[u8]| Keys::derive(password, &salt(), ITERATIONS).open(&verifier.stored_key);
    assert!(admits(b"pencil") && !admits(b"Pencil") && !admits(b""));
}

#[test]
fn a_server_that_does_not_know_the_password_is_found_out() {
    let mut verifier = Keys::derive(b"secret", b"salt", 10).verifier(b"salt", 10);
    verifier.server_key[0] ^= 1;
    assert_eq!(converse(b"secret", verifier, false), (Err(ScramError::Mismatch), Ok(())));
}

#[test]
fn the_server_refuses_what_postgresql_refuses() {
    let first = |message: &str| server(false).receive(message.as_bytes()).err();
    for message in
        ["", "n", "n,", "n,,", "x,,n=,r=a", "p=tls-server-end-point,,n=,r=a", "n,,r=a", "n,,n=a", "n,,n=,r=a\x07", "n,,n=,r=a,1"]
    {
        assert!(matches!(first(message), Some(ScramError::Malformed(_))), "{message:?}");
    }
    for message in ["n,a=other,n=,r=a", "n,,m=ext,n=,r=a"] {
        assert!(matches!(first(message), Some(ScramError::Unsupported(_))), "{message:?}");
    }
    assert_eq!(first("y,,n=,r=a,x=ignored"), None);

    let last = |message: &str| server(false).receive(CLIENT_FIRST.as_bytes()).unwrap().0.receive(message.as_bytes()).err();
    for message in [
        String::new(),
        CLIENT_FINAL.replace("biws", "eSws"),
        CLIENT_FINAL.replace("k0,", "k1,"),
        CLIENT_FINAL.replace(",p=", ",q="),
        CLIENT_FINAL.replace("p=dHzb", "p=dHz"),
        CLIENT_FINAL.replace("VQ=", "VQ=,x=y"),
    ] {
        assert!(matches!(last(&message), Some(ScramError::Malformed(_))), "{message:?}");
    }
    assert_eq!(last(&CLIENT_FINAL.replace("p=dHzb", "p=dHzc")), Some(ScramError::Mismatch));
}

#[test]
fn the_client_bounds_what_a_server_may_ask() {
    let challenge = |message: &str| {
        let (client, _) = ClientFirst::begin("abc".to_owned(), Channel::None);
        client.receive(message.as_bytes()).err()
    };
    for message in [
        String::new(),
        "r=abc,s=c2FsdA==,i=4096".to_owned(),
        "r=xyz123,s=c2FsdA==,i=4096".to_owned(),
        format!("r=abc{},s=c2FsdA==,i=4096", "x".repeat(crate::limits::SCRAM_NONCE_BYTES_MAX)),
        "r=abc1,s=,i=4096".to_owned(),
        "r=abc1,s=*,i=4096".to_owned(),
        format!("r=abc1,s={},i=4096", "A".repeat(2048)),
        "r=abc1,s=c2FsdA==,i=0".to_owned(),
        "r=abc1,s=c2FsdA==,i=-1".to_owned(),
        format!("r=abc1,s=c2FsdA==,i={}", crate::limits::SCRAM_ITERATIONS_MAX + 1),
        "r=abc1,s=c2FsdA==,i=99999999999999999999".to_owned(),
    ] {
        assert!(matches!(challenge(&message), Some(ScramError::Malformed(_))), "{message:?}");
    }
    assert!(matches!(challenge("m=ext,r=abc1,s=c2FsdA==,i=1"), Some(ScramError::Unsupported(_))));
}

/// An exchange in which the client is bound to `channel`, and the server, whose certificate hashes to `end_point`, is asked for
/// `mechanism`.
fn bind(mechanism: &str, channel: Channel, end_point: Option<&[u8]>) -> Result<(), ScramError> {
    let verifier = Keys::derive(b"secret", b"salt", 10).verifier(b"salt", 10);
    let (client, first) = ClientFirst::begin(nonce(&[1; NONCE_BYTES]), channel);
    let server = ServerFirst::new(verifier, false, nonce(&[2; NONCE_BYTES]), end_point.map(Into::into));
    let (server, challenge) = server.choose(mechanism.as_bytes()).expect("it is offered").receive(&first)?;
    let (client, proof) = self::proof(client.receive(&challenge)?, b"secret");
    client.receive(&server.receive(&proof)?.0)
}

#[test]
fn an_exchange_is_bound_to_the_certificate_that_the_client_has_seen() {
    let seen = |hash: &[u8]| Channel::EndPoint(hash.into());
    assert_eq!(bind(MECHANISM_PLUS, seen(b"hash"), Some(b"hash")), Ok(()));
    assert_eq!(bind(MECHANISM_PLUS, seen(b"another"), Some(b"hash")), Err(ScramError::OtherChannel));
    assert_eq!(bind(MECHANISM, Channel::None, Some(b"hash")), Ok(()), "a client need not be able to");
    assert_eq!(bind(MECHANISM, Channel::NotOffered, None), Ok(()));
    assert_eq!(bind(MECHANISM, Channel::NotOffered, Some(b"hash")), Err(ScramError::Downgraded));
    for (mechanism, channel) in
        [(MECHANISM_PLUS, Channel::None), (MECHANISM_PLUS, Channel::NotOffered), (MECHANISM, seen(b"hash"))]
    {
        let result = bind(mechanism, channel.clone(), Some(b"hash"));
        assert!(matches!(result, Err(ScramError::Malformed(_))), "{mechanism} with {channel:?}: {result:?}");
    }
}

#[test]
fn only_what_can_be_had_is_offered() {
    let server = |end_point: Option<&[u8]>| {
        let verifier = Verifier { iterations: 1, salt: vec![1], stored_key: [0; 32], server_key: [0; 32] };
        ServerFirst::new(verifier, false, SERVER_NONCE.to_owned(), end_point.map(Into::into))
    };
    assert_eq!(server(None).mechanisms(), [MECHANISM]);
    assert_eq!(server(Some(b"hash")).mechanisms(), [MECHANISM_PLUS, MECHANISM]);
    assert!(server(None).choose(MECHANISM_PLUS.as_bytes()).is_none());
    assert!(server(Some(b"hash")).choose(b"SCRAM-SHA-1").is_none());
}

proptest! {
    #[test]
    fn garbage_never_panics(message in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..200usize) {
        // Each state is given noise, and a good message with noise behind any part of it.
        let spoil = |good: &str| [&good.as_bytes()[..cut.min(good.len())], &message].concat();
        for message in [message.clone(), spoil(CLIENT_FIRST), spoil(CLIENT_FINAL), spoil(SERVER_FIRST), spoil(SERVER_FINAL)] {
            let verifier = Verifier { iterations: 1, salt: vec![1], stored_key: [0; 32], server_key: [0; 32] };
            if let Ok((server, _)) = ServerFirst::new(verifier.clone(), false, SERVER_NONCE.to_owned(), None).receive(&message) {
                prop_assert!(server.receive(&message).is_err());
            }
            let (server, _) = ServerFirst::new(verifier, false, SERVER_NONCE.to_owned(), None).receive(CLIENT_FIRST.as_bytes()).unwrap();
            prop_assert!(server.receive(&message).is_err());
            let client = client::ClientFirst::of_user("user", CLIENT_NONCE.to_owned(), Channel::None);
            if let Ok(client) = client.receive(&message) {
                let (client, _) = client.answer(&Keys::derive(b"pencil", b"salt", 1));
                prop_assert!(client.receive(&message).is_err());
            }
        }
    }
}
