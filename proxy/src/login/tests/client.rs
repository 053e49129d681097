//! What clients may ask for, what they are granted, and what they are told.

use std::net::SocketAddr;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::super::conversation::{ClientLogin, Step};
use super::super::random::Chance;
use super::super::scram::MECHANISM;
use super::*;
use crate::config::Secret;
use crate::observe::LoginOutcome;
use crate::session::{Login, encode_greeting};
use crate::wire::frontend::{query, sasl_initial};
use crate::wire::startup::{Replication, encode_cancel};
use crate::wire::{Frame, Malformed, Mode, Splitter, parse_error};

pub(super) const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
pub(super) const GSS_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";

pub(super) fn chance() -> Chance {
    Chance { nonce: [1; 18], salt: [1, 2, 3, 4], process_id: 77, secret: *b"key!----------------------------" }
}

/// A StartupMessage of protocol 3.`minor`.
pub(super) fn startup(minor: u8, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 0, 3, 0, minor];
    for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    bytes.push(0);
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// A client that notes down what it is told.
pub(super) struct Conversation<'a> {
    rules: &'a Rules,
    login: ClientLogin,
    clients: u64,
    pub(super) told: Vec<u8>,
    /// What is found for whoever is looked up.
    pub(super) stored: Option<Secret>,
    end: Option<Step>,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(rules: &'a Rules) -> Self {
        let login = ClientLogin::new(SocketAddr::from(([10, 0, 0, 1], 50_000)).into(), chance());
        Self { rules, login, clients: 0, told: Vec::new(), stored: None, end: None }
    }

    /// Sends, and gives the answer.
    pub(super) fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.login.receive(bytes);
        let before = self.told.len();
        while self.end.is_none() {
            match self.login.step(self.rules, self.clients) {
                Step::Read => break,
                Step::LookUp(_) => self.login.found(self.stored.clone()),
                Step::Send(bytes) => self.told.extend_from_slice(&bytes),
                Step::Stretch(derivation) => self.login.set_keys(derivation.keys()),
                Step::Admit(admitted) => {
                    let Login { before, told, secret, .. } = &admitted.login;
                    self.told.extend_from_slice(&encode_greeting(before, told, 77, secret));
                    self.end = Some(Step::Admit(admitted));
                }
                Step::Refuse(refused) => {
                    self.told.extend_from_slice(&refused.refusal.encode());
                    self.end = Some(Step::Refuse(refused));
                }
                Step::Console(greeting, client) => {
                    self.told.extend_from_slice(&greeting);
                    self.end = Some(Step::Console(greeting, client));
                }
                step @ (Step::Close(_) | Step::Cancel(_) | Step::Encrypt(..)) => self.end = Some(step),
            }
        }
        self.told[before..].to_vec()
    }

    pub(super) fn end(&self) -> Option<&Step> {
        self.end.as_ref()
    }

    pub(super) fn outcome(&self) -> Option<LoginOutcome> {
        match self.end.as_ref()? {
            Step::Close(outcome) => Some(*outcome),
            Step::Refuse(refused) => Some(refused.refusal.outcome),
            Step::Admit(_) | Step::Console(..) => Some(LoginOutcome::Admitted),
            Step::Cancel(_) => Some(LoginOutcome::Cancel),
            Step::Read | Step::Send(_) | Step::LookUp(_) | Step::Stretch(_) | Step::Encrypt(..) => None,
        }
    }

    /// Bytes of the secret that it was given.
    pub(super) fn secret_bytes(&self) -> usize {
        match &self.end {
            Some(Step::Admit(admitted)) => admitted.login.secret.bytes().len(),
            end => panic!("{end:?}"),
        }
    }

    /// All that was told, a line a message, and how it ended.
    pub(super) fn transcript(&self) -> String {
        let plain = self.told.iter().take_while(|byte| **byte == b'N').count();
        let mut text = "N\n".repeat(plain);
        for (tag, body) in messages(&self.told[plain..]) {
            let body = match parse_error(&body) {
                Some(error) if tag == 'E' => {
                    format!("{} {} {}", error.severity, error.sqlstate.unwrap(), error.message)
                }
                _ => body.escape_ascii().to_string(),
            };
            text += &format!("{tag} {body}\n");
        }
        text + &self.outcome().map_or("…\n".to_owned(), |outcome| format!("= {}\n", outcome.as_str()))
    }
}

pub(super) fn messages(bytes: &[u8]) -> Vec<(char, Vec<u8>)> {
    let (mut splitter, mut at, mut messages) = (Splitter::default(), 0, Vec::new());
    while let Some(frame) = splitter.next::<Malformed>(bytes, &mut at, |_, _| Ok(Mode::Gather)).unwrap() {
        let Frame::Whole { tag, range } = frame else { panic!("{frame:?}") };
        messages.push((char::from(tag), bytes[range][5..].to_vec()));
    }
    assert!(splitter.at_boundary());
    messages
}

pub(super) fn check(rules: &Rules, said: &[&[u8]], expected: &Expect) {
    let mut whole = Conversation::new(rules);
    said.iter().for_each(|bytes| drop(whole.say(bytes)));
    // The same, a byte at a time.
    let mut pieces = Conversation::new(rules);
    said.concat().into_iter().for_each(|byte| drop(pieces.say(&[byte])));
    assert_eq!(whole.transcript(), pieces.transcript());
    expected.assert_eq(&whole.transcript());
}

#[test]
fn a_trusted_client_is_greeted_at_once() {
    check(
        &rules("trust", ""),
        &[&startup(0, &[("user", "bob"), ("application_name", "psql"), ("client_encoding", "utf-8")])],
        &expect![[r#"
            R \x00\x00\x00\x00
            S application_name\x00psql\x00
            S client_encoding\x00UTF8\x00
            S DateStyle\x00ISO, MDY\x00
            S default_transaction_read_only\x00off\x00
            S in_hot_standby\x00off\x00
            S integer_datetimes\x00on\x00
            S IntervalStyle\x00postgres\x00
            S is_superuser\x00off\x00
            S server_encoding\x00UTF8\x00
            S server_version\x0015.0\x00
            S standard_conforming_strings\x00on\x00
            S TimeZone\x00Etc/UTC\x00
            S session_authorization\x00bob\x00
            K \x00\x00\x00Mkey!
            Z I
            = admitted
        "#]],
    );
}

#[test]
fn encryption_is_declined_once_of_each_kind() {
    let rules = rules("trust", "");
    let [ssl, gss] = [SSL_REQUEST, GSS_REQUEST];
    let hello = startup(0, &[("user", "")]);
    check(
        &rules,
        &[gss, ssl, &hello],
        &expect![[r#"
        N
        N
        E FATAL 28000 no PostgreSQL user name specified in startup packet
        = malformed
    "#]],
    );
    check(
        &rules,
        &[ssl, ssl],
        &expect![[r#"
            N
            E FATAL 0A000 encryption has been asked for already
            = malformed
        "#]],
    );
    check(
        &rules,
        &[gss, gss],
        &expect![[r#"
            N
            E FATAL 0A000 encryption has been asked for already
            = malformed
        "#]],
    );
}

#[test]
fn bytes_glued_behind_an_encryption_request_are_not_looked_at() {
    let rules = rules("trust", "");
    for request in [SSL_REQUEST, GSS_REQUEST] {
        let mut conversation = Conversation::new(&rules);
        conversation.say(&[request, &startup(0, &[("user", "bob")])[..]].concat());
        assert_eq!(conversation.transcript(), "= malformed\n");
    }
}

#[test]
fn nonsense_is_not_waited_for() {
    let rules = rules("trust", "");
    for (said, expected) in [
        (&b"GET / HTTP"[..], "= malformed\n"),
        (&[0; 4], "= malformed\n"),
        (b"\0\0\x27\x15", "= malformed\n"),
        (b"\x16\x03\x01\x02", "= malformed\n"),
        (b"\0\0\0\x08\0\x02\0\0", "E FATAL 0A000 unsupported frontend protocol 2.0: server supports 3.0 to 3.2\n= unsupported\n"),
        (&encode_cancel(77, b"key!"), "= cancel\n"),
    ] {
        let mut conversation = Conversation::new(&rules);
        conversation.say(said);
        assert_eq!(conversation.transcript(), expected, "{}", said.escape_ascii());
    }
}

#[test]
fn what_is_not_spoken_is_negotiated_away() {
    let hello = startup(2, &[("user", "bob"), ("_pq_.fancy", "1")]);
    check(
        &rules("password", ""),
        &[&hello],
        &expect![[r#"
            v \x00\x03\x00\x02\x00\x00\x00\x01_pq_.fancy\x00
            R \x00\x00\x00\x03
            …
        "#]],
    );
}

/// How a login ends that asks for replication, and what its session is for.
fn replication(rules: &Rules, user: &str, database: &str, wish: &str) -> Result<Replication, (String, Option<&'static str>)> {
    let mut conversation = Conversation::new(rules);
    conversation.say(&startup(0, &[("user", user), ("database", database), ("replication", wish)]));
    match conversation.end {
        Some(Step::Admit(admitted)) => Ok(admitted.login.identity.replication),
        Some(Step::Refuse(refused)) => Err((refused.refusal.sqlstate.to_string(), refused.refusal.hint)),
        _ => panic!("no end"),
    }
}

#[test]
fn replication_is_for_those_whose_bind_rule_permits_it() {
    let rules = rules(
        "trust",
        "[[residency.bind]]\nuser = \"bob\"\nregions = [\"eu-west\"]\nreplication = true\n\
         [[residency.bind]]\nuser = \"carol\"\nregions = [\"eu-west\"]\n[admin]\nusers = [\"bob\"]",
    );
    assert_eq!(replication(&rules, "bob", "shop", "database"), Ok(Replication::Database));
    for wish in ["true", "ON", "yes", "1"] {
        assert_eq!(replication(&rules, "bob", "replication", wish), Ok(Replication::Physical));
    }
    let refused = Err(("0A000".to_owned(), Some("The bind rule of this login permits them with replication = true.")));
    for wish in ["true", "database"] {
        for (user, database) in [("carol", "shop"), ("alice", "shop"), ("bob", "pgbouncer")] {
            assert_eq!(replication(&rules, user, database, wish), refused, "{user} {wish}");
        }
    }
    // PostgreSQL's other words for a boolean ask for an ordinary session, and what is none of them is an error.
    for wish in ["false", "off", "No", "0"] {
        assert_eq!(replication(&rules, "carol", "shop", wish), Ok(Replication::None));
    }
    assert_eq!(replication(&rules, "bob", "shop", "logical"), Err(("22023".to_owned(), None)));
}

#[test]
fn who_has_not_proved_who_he_is_does_not_learn_whether_he_may_replicate() {
    let asked = expect![[r#"
        R \x00\x00\x00\x03
        …
    "#]];
    check(&rules("password", ""), &[&startup(0, &[("user", "bob"), ("replication", "true")])], &asked);
}

#[test]
fn there_is_room_for_so_many_clients() {
    let rules = rules("password", "[limits]\nmax_clients = 3");
    for (clients, expected) in [(2, None), (3, Some(LoginOutcome::TooMany))] {
        let mut conversation = Conversation::new(&rules);
        conversation.clients = clients;
        conversation.say(&startup(0, &[("user", "bob")]));
        assert_eq!(conversation.outcome(), expected);
        assert_eq!(conversation.login.claims_to_be().is_some(), expected.is_none());
    }
}

#[test]
fn the_residency_rules_admit() {
    let bind = "[[residency.bind]]\nuser = \"bob\"\nfrom = \"10.0.0.0/8\"\nregions = [\"us-east\"]";
    let rules = rules("trust", bind);
    let outcome = |parameters: &[(&str, &str)]| {
        let mut conversation = Conversation::new(&rules);
        conversation.say(&startup(0, parameters));
        match conversation.end {
            Some(Step::Admit(admitted)) => format!("{:?}", admitted.login.identity.startup_region),
            Some(Step::Refuse(refused)) => {
                let audit = refused.audit.map(|record| format!("{} {} {:?}", record.rule, record.reason.as_str(), record.region));
                format!("{} {} {audit:?}", refused.refusal.sqlstate, refused.refusal.message)
            }
            end => format!("{end:?}"),
        }
    };
    assert_eq!(outcome(&[("user", "bob")]), "None");
    assert_eq!(outcome(&[("user", "bob"), ("helios.region", "us-east")]), "Some(\"us-east\")");
    assert_eq!(outcome(&[("user", "bob"), ("options", "-c Domicile.Region=us-east")]), "Some(\"us-east\")");
    assert_eq!(outcome(&[("user", "bob"), ("helios.region", "")]), "Some(\"\")");
    let refused = "42501 permission denied for region \"eu-west\" Some(\"residency.bind[0] not_granted \\\"eu-west\\\"\")";
    assert_eq!(outcome(&[("user", "bob"), ("helios.region", "eu-west")]), refused);
    // All names of the parameter are one value: the last one counts.
    assert_eq!(outcome(&[("user", "bob"), ("helios.region", "us-east"), ("domicile.region", "eu-west")]), refused);
    // Any other user may choose (`unbound = "client"`).
    assert_eq!(outcome(&[("user", "eve"), ("helios.region", "antarctica")]), "Some(\"antarctica\")");
}

#[test]
fn nobody_is_admitted_without_a_rule() {
    let mut rules = rules("trust", "");
    rules.config.residency.unbound = crate::policy::Unbound::Block;
    rules.policy = Arc::new(Policy::compile(&rules.config.policy_source(), None).unwrap());
    check(
        &rules,
        &[&startup(0, &[("user", "bob"), ("database", "demo")])],
        &expect![[r#"
        E FATAL 28000 no residency rule admits user "bob" to database "demo"
        = denied
    "#]],
    );
}

#[test]
fn settings_that_make_texts_read_differently_are_refused() {
    let rules = rules("trust", "");
    let sqlstate = |name: &str, value: &str| {
        let mut conversation = Conversation::new(&rules);
        conversation.say(&startup(0, &[("user", "bob"), (name, value)]));
        match conversation.end {
            Some(Step::Refuse(refused)) => refused.refusal.sqlstate.to_string(),
            _ => String::new(),
        }
    };
    for value in ["SJIS", "big5", "GB18030", "Shift_JIS_2004", "'uhc'", "win-932"] {
        assert_eq!(sqlstate("Client_Encoding", value), "22023", "{value}");
    }
    for value in ["UTF8", "LATIN1", "EUC_JP", "SQL_ASCII"] {
        assert_eq!(sqlstate("client_encoding", value), "", "{value}");
    }
}

#[test]
fn pools_are_named_by_canonical_settings() {
    let rules = rules("trust", "");
    let identity = |parameters: &[(&str, &str)]| {
        let mut conversation = Conversation::new(&rules);
        conversation.say(&startup(0, &[&[("user", "bob")], parameters].concat()));
        match conversation.end {
            Some(Step::Admit(admitted)) => admitted.login.identity.settings,
            end => panic!("{end:?}"),
        }
    };
    let settings = identity(&[("DateStyle", "ISO"), ("application_name", "x"), ("helios.region", "eu-west")]);
    assert_eq!(format!("{settings:?}"), r#"[("application_name", "x"), ("datestyle", "ISO")]"#);
    assert_eq!(settings, identity(&[("options", "-c datestyle=ISO"), ("application_name", "x")]));
}

#[test]
fn parameters_come_from_a_node_of_the_grant() {
    let rules = rules("trust", "[[residency.bind]]\nuser = \"bob\"\nregions = [\"us-east\"]");
    let report = |node: usize, encoding: &str| {
        let parameters = [("server_encoding", encoding), ("is_superuser", "on"), ("DateStyle", "ISO, DMY"), ("TimeZone", "CET")];
        rules.nodes[node].state.borrow_mut().parameters = Some(Arc::new(parameters.into_iter().collect()));
    };
    report(0, "LATIN1");
    let told = |user: &str, name: &str| {
        let mut conversation = Conversation::new(&rules);
        conversation.say(&startup(0, &[("user", user), ("helios.region", "us-east"), ("timezone", "UTC"), ("datestyle", "SQL")]));
        match conversation.end {
            Some(Step::Admit(admitted)) => admitted.login.told.get(name).unwrap_or("-").to_owned(),
            end => panic!("{end:?}"),
        }
    };
    // The only node that has been asked is outside bob's grant; another user may go there.
    assert_eq!(told("bob", "server_encoding"), "UTF8");
    assert_eq!(told("eve", "server_encoding"), "LATIN1");
    report(1, "EUC_JP");
    assert_eq!(told("bob", "server_encoding"), "EUC_JP");
    assert_eq!(told("eve", "server_encoding"), "EUC_JP");
    assert_eq!(told("bob", "is_superuser"), "off");
    assert_eq!(told("prober", "is_superuser"), "on");
    assert_eq!(told("bob", "session_authorization"), "bob");
    assert_eq!(told("bob", "DateStyle"), "SQL, DMY");
    assert_eq!(told("bob", "TimeZone"), "UTC");
}

#[test]
fn what_stands_behind_a_login_belongs_to_the_session() {
    let rules = rules("trust", "");
    let mut conversation = Conversation::new(&rules);
    conversation.say(&[&startup(0, &[("user", "bob")])[..], &query(b"SELECT 1"), b"P\0"].concat());
    let Some(Step::Admit(admitted)) = conversation.end else { panic!("{:?}", conversation.end) };
    assert_eq!(admitted.early, [&query(b"SELECT 1")[..], b"P\0"].concat());
}

#[test]
fn garbage_never_panics() {
    let rules = ["password", "md5", "scram-sha-256"].map(|method| rules(method, ""));
    let good = [startup(0, &[("user", "bob")]), sasl_initial(MECHANISM, b"n,,n=,r=x").to_vec()].concat();
    proptest!(|(noise in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..=good.len(), method in 0..3usize)| {
        Conversation::new(&rules[method]).say(&noise);
        // A good beginning, then noise.
        let mut conversation = Conversation::new(&rules[method]);
        conversation.say(&[&good[..cut], &noise].concat());
        prop_assert_ne!(conversation.outcome(), Some(LoginOutcome::Admitted));
    });
}
