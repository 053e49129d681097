//! How clients prove who they are, or fail to.

use expect_test::{Expect, expect};

use super::super::scram::{Channel, ClientFirst, Keys, MECHANISM};
use super::client::{Conversation, chance, check, messages, startup};
use super::*;
use crate::config::Secret;
use crate::observe::LoginOutcome;
use crate::wire::frontend::{password, sasl_initial, sasl_response};

#[test]
fn passwords_in_clear_text() {
    let rules = rules("password", "");
    let outcome = |user: &str, text: &str| {
        let mut conversation = Conversation::new(&rules);
        conversation.say(&startup(0, &[("user", user)]));
        conversation.say(&password(text.as_bytes()));
        conversation.outcome().unwrap()
    };
    assert_eq!(outcome("alice", "pencil"), LoginOutcome::Admitted);
    assert_eq!(outcome("bob", "secret"), LoginOutcome::Admitted);
    for (user, text) in
        [("alice", "secret"), ("bob", "secre"), ("bob", "secrets"), ("bob", ""), ("carol", "x"), ("nobody", "secret")]
    {
        assert_eq!(outcome(user, text), LoginOutcome::Password, "{user} {text}");
    }
    // "dave" is not in the file.
    check(
        &rules,
        &[&startup(0, &[("user", "dave")]), &password(b"secret")],
        &expect![[r#"
        R \x00\x00\x00\x03
        E FATAL 28P01 password authentication failed for user "dave"
        = password
    "#]],
    );
}

#[test]
fn passwords_by_md5() {
    let rules = rules("md5", "");
    let outcome = |user: &str, digest: [u8; 32]| {
        let mut conversation = Conversation::new(&rules);
        conversation.say(&startup(0, &[("user", user)]));
        conversation.say(&password(&md5::answer(&digest, chance().salt)));
        conversation.outcome().unwrap()
    };
    assert_eq!(outcome("bob", md5::digest(b"secret", "bob")), LoginOutcome::Admitted);
    assert_eq!(outcome("carol", *b"5eb5ffe0ee4ae5c6b0f9c7b8d3e1cafe"), LoginOutcome::Admitted);
    assert_eq!(outcome("bob", md5::digest(b"wrong", "bob")), LoginOutcome::Password);
    // Nobody's digest is no digest.
    assert_eq!(outcome("nobody", [0; 32]), LoginOutcome::Password);
    // alice has a SCRAM verifier and is asked for that.
    let mut conversation = Conversation::new(&rules);
    conversation.say(&startup(0, &[("user", "alice")]));
    assert_eq!(conversation.transcript(), "R \\x00\\x00\\x00\\nSCRAM-SHA-256\\x00\\x00\n…\n");
}

const QUERY: &str = "[auth.query]\nregion = \"eu-west\"\nuser = \"asker\"\n";

#[test]
fn a_user_that_the_file_does_not_have_is_looked_up() {
    let outcome = |method: &str, user: &str, text: &str, stored: Option<&str>| {
        let rules = rules(method, QUERY);
        let mut conversation = Conversation::new(&rules);
        conversation.stored = stored.and_then(Secret::parse);
        conversation.say(&startup(0, &[("user", user)]));
        conversation.say(&password(text.as_bytes()));
        conversation.outcome().unwrap()
    };
    assert_eq!(outcome("password", "dora", "pass", Some("pass")), LoginOutcome::Admitted);
    assert_eq!(outcome("password", "dora", "word", Some("pass")), LoginOutcome::Password);
    assert_eq!(outcome("password", "dora", "pass", None), LoginOutcome::Password);
    // What the file says of a user counts alone.
    assert_eq!(outcome("password", "bob", "pass", Some("pass")), LoginOutcome::Password);
    assert_eq!(outcome("password", "bob", "secret", Some("pass")), LoginOutcome::Admitted);
    // Nobody is looked up who has no password to show.
    assert_eq!(outcome("trust", "dora", "", None), LoginOutcome::Admitted);
}

#[test]
fn a_password_that_is_looked_up_may_change() {
    let rules = rules("scram-sha-256", QUERY);
    let outcome = |text: &str, stored: &str| {
        let mut conversation = Conversation::new(&rules);
        conversation.stored = Secret::parse(stored);
        let (_, conversation) = scram_of(conversation, "dora", text);
        conversation.outcome().unwrap()
    };
    assert_eq!(outcome("old", "old"), LoginOutcome::Admitted);
    assert_eq!(outcome("old", "new"), LoginOutcome::Password);
    assert_eq!(outcome("new", "new"), LoginOutcome::Admitted);
}

/// Logs in by SCRAM; the salt that was asked with, and the end.
fn by_scram<'a>(rules: &'a Rules, user: &str, text: &str) -> (Vec<u8>, Conversation<'a>) {
    scram_of(Conversation::new(rules), user, text)
}

fn scram_of<'a>(mut conversation: Conversation<'a>, user: &str, text: &str) -> (Vec<u8>, Conversation<'a>) {
    conversation.say(&startup(0, &[("user", user)]));
    let (client, first) = ClientFirst::begin("client".to_owned(), Channel::None);
    let challenge = conversation.say(&sasl_initial(MECHANISM, &first));
    let client = client.receive(&challenge[9..]).unwrap();
    let salt = client.salt.clone();
    let keys = Keys::derive(text.as_bytes(), &salt, client.iterations);
    let (client, proof) = client.answer(&keys);
    let answer = conversation.say(&sasl_response(&proof));
    if conversation.outcome() == Some(LoginOutcome::Admitted) {
        let last = messages(&answer).remove(0);
        client.receive(&last.1[4..]).unwrap();
    }
    (salt, conversation)
}

#[test]
fn passwords_by_scram() {
    let rules = rules("scram-sha-256", "");
    let outcome = |user: &str, text: &str| by_scram(&rules, user, text).1.outcome().unwrap();
    assert_eq!(outcome("alice", "pencil"), LoginOutcome::Admitted);
    assert_eq!(outcome("bob", "secret"), LoginOutcome::Admitted);
    assert_eq!(outcome("bob", "secret"), LoginOutcome::Admitted);
    for (user, text) in [("alice", "secret"), ("bob", "Secret"), ("carol", "x"), ("nobody", "x")] {
        assert_eq!(outcome(user, text), LoginOutcome::Password, "{user}");
    }
}

#[test]
fn nobody_learns_which_users_exist() {
    let rules = rules("scram-sha-256", "");
    let told = |user: &str| {
        let (salt, conversation) = by_scram(&rules, user, "wrong");
        let transcript = conversation.transcript().replace(user, "<user>");
        let lines: Vec<String> = transcript.lines().map(|line| line.split(",s=").next().unwrap().to_owned()).collect();
        (salt, lines)
    };
    let (bob, nobody) = (told("bob"), told("nobody"));
    assert_eq!(bob.1, nobody.1);
    // The salts differ, have the same length, and stay the same.
    assert_ne!(bob.0, nobody.0);
    assert_eq!(bob.0.len(), nobody.0.len());
    assert_eq!((told("bob").0, told("nobody").0), (bob.0, nobody.0));
}

#[test]
fn who_has_no_verifier_is_asked_for_as_many_iterations_as_most_have() {
    let key = "A".repeat(43) + "=";
    let verifier = |(name, iterations): (&str, u32)| format!("\"{name}\" \"SCRAM-SHA-256${iterations}:c2FsdA==${key}:{key}\"\n");
    for (stored, expected) in [
        (&[][..], 4096),
        (&[("a", 600_000), ("b", 4096), ("c", 600_000)], 600_000),
        (&[("a", 9000), ("b", 5000)], 5000),
        // No login does more work than this.
        (&[("a", u32::MAX)], 1_000_000),
    ] {
        let users = stored.iter().copied().map(verifier).collect::<String>()
            + "\"bob\" \"secret\"\n\"carol\" \"md5"
            + &"0".repeat(32)
            + "\"\n";
        let rules = rules_of("method = \"scram-sha-256\"", "", &[("users.txt", &users)]);
        // bob's password is known, and is stretched as often: not where that would take the test too long.
        for user in ["carol", "nobody", "bob"].into_iter().filter(|user| *user != "bob" || expected < 10_000) {
            let mut conversation = Conversation::new(&rules);
            conversation.say(&startup(0, &[("user", user)]));
            let (_, first) = ClientFirst::begin("client".to_owned(), Channel::None);
            conversation.say(&sasl_initial(MECHANISM, &first));
            let transcript = conversation.transcript();
            assert!(transcript.contains(&format!(",i={expected}\n")), "{user} of {stored:?}: {transcript}");
        }
    }
}

#[test]
fn an_exchange_goes_by_the_rules() {
    let rules = rules("scram-sha-256", "");
    let check = |answers: &[&[u8]], expected: &Expect| {
        let mut conversation = Conversation::new(&rules);
        conversation.say(&startup(0, &[("user", "bob")]));
        let asked = conversation.told.len();
        answers.iter().for_each(|answer| drop(conversation.say(answer)));
        conversation.told.drain(..asked);
        expected.assert_eq(&conversation.transcript());
    };
    check(
        &[b"Q\0\0\0\x0dSELECT 1\0"],
        &expect![[r#"
        E FATAL 08P01 expected password response, got message type 81
        = malformed
    "#]],
    );
    check(
        &[b"p\0\0\0\x03"],
        &expect![[r#"
        E FATAL 08P01 invalid message length
        = malformed
    "#]],
    );
    check(
        &[b"p\0\x01\0\x04"],
        &expect![[r#"
        E FATAL 08P01 invalid message length
        = malformed
    "#]],
    );
    check(
        &[b"p\0\0\0\x0dSCRAM\0\0\0\0"],
        &expect![[r#"
        E FATAL 08P01 invalid SASL initial response
        = malformed
    "#]],
    );
    check(
        &[&sasl_initial("SCRAM-SHA-256-PLUS", b"n,,n=,r=x")],
        &expect![[r#"
        E FATAL 08P01 client selected an invalid SASL authentication mechanism
        = malformed
    "#]],
    );
    // Lengths -2 and one too many.
    check(
        &[b"p\0\0\0\x16SCRAM-SHA-256\0\xff\xff\xff\xfe"],
        &expect![[r#"
        E FATAL 08P01 invalid SASL initial response
        = malformed
    "#]],
    );
    check(
        &[b"p\0\0\0\x17SCRAM-SHA-256\0\0\0\0\x02n"],
        &expect![[r#"
        E FATAL 08P01 invalid SASL initial response
        = malformed
    "#]],
    );
    check(
        &[&sasl_initial(MECHANISM, b"p=tls-unique,,n=,r=x")],
        &expect![[r#"
        E FATAL 08P01 malformed SCRAM message
        = malformed
    "#]],
    );
    check(
        &[&sasl_initial(MECHANISM, b"n,a=carol,n=,r=x")],
        &expect![[r#"
        E FATAL 0A000 client uses authorization identity, but it is not supported
        = unsupported
    "#]],
    );
    check(
        &[&sasl_initial(MECHANISM, b"n,,n=,r=x"), &sasl_response(b"c=biws,r=y,p=AA==")],
        &expect![[r#"
        R \x00\x00\x00\x0br=xAQEBAQEBAQEBAQEBAQEBAQEB,s=JlWpkJo0KKtOeksJPFYn5w==,i=4096
        E FATAL 08P01 malformed SCRAM message
        = malformed
    "#]],
    );
    // No first word (length -1): the server asks again with an empty challenge.
    check(
        &[b"p\0\0\0\x16SCRAM-SHA-256\0\xff\xff\xff\xff", &sasl_response(b"n,,n=,r=x")],
        &expect![[r#"
        R \x00\x00\x00\x0b
        R \x00\x00\x00\x0br=xAQEBAQEBAQEBAQEBAQEBAQEB,s=JlWpkJo0KKtOeksJPFYn5w==,i=4096
        …
    "#]],
    );
}
