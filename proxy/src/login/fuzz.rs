//! Entry points of the fuzzers of logins in `tests/fuzz`: each takes any bytes and panics where a property of this module does not
//! hold.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::Rules;
use super::backend_login::{BackendLogin, Credentials, Fault, Progress};
use super::conversation::{ClientLogin, Step};
use super::random::Chance;
use crate::config::{self, Password, RequireAuth, Secret};
use crate::policy::Policy;
use crate::wire::{Frame, Malformed, Mode, Splitter, parse_error, tag};

/// A configuration that asks for SCRAM, and knows alice by a password and bob by a verifier.
const CONFIGURATION: &str = "listen = [\"127.0.0.1:6432\"]\nfence = \"off\"\n[auth]\nusers = \"users.txt\"\n\
    [admin]\nusers = [\"alice\"]\n[residency]\nunbound = \"client\"\n[regions.eu-west]\n\
    [[nodes]]\nname = \"eu\"\nregion = \"eu-west\"\naddress = \"127.0.0.1:5433\"\n";
const USERS: &str = "\"alice\" \"pencil\"\n\"bob\" \"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
    WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=\"\n";

/// The rules of that configuration, whose files are written to `directory`.
pub fn rules(directory: &Path) -> Rules {
    let file = directory.join("domicile.toml");
    for (file, text) in [(&file, CONFIGURATION), (&directory.join("users.txt"), USERS)] {
        fs::write(file, text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
    let config = config::load(&file, &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let policy = Policy::compile(&config.policy_source(), None).unwrap_or_else(|error| panic!("{error}"));
    Rules::new(config, Arc::new(policy), [7; 32], None, Instant::now())
}

/// Messages that are told before somebody is let in or refused: more would be a loop.
const STEPS_MAX: usize = 16;

/// What a client sends from its first byte on, to a proxy that asks for SCRAM. The first byte says where the rest is cut in two.
///
/// Properties: nobody is let in without a proof, which no fuzzer finds; a refusal is a FATAL ErrorResponse; what is told depends on
/// how the bytes come only where encryption begins.
pub fn client(rules: &Rules, data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let (one, other) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    let whole = conversation(rules, &[bytes]);
    let in_two = conversation(rules, &[one, other]);
    // What is glued behind a request for encryption is refused, and what comes after its answer is not.
    let asks_for_encryption = matches!(bytes.get(4..8), Some([4, 0xd2, 0x16, 0x2f | 0x30]));
    assert!(asks_for_encryption || whole == in_two);
}

/// All that the client is told, and whether it was the last.
fn conversation(rules: &Rules, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
    let chance = Chance { nonce: [1; 18], salt: [1, 2, 3, 4], process_id: 77, secret: [7; 32] };
    let mut login = ClientLogin::new(SocketAddr::from(([10, 0, 0, 1], 50_000)).into(), chance);
    let mut told = Vec::new();
    for piece in pieces {
        login.receive(piece);
        for step in 0.. {
            assert!(step < STEPS_MAX, "the login goes on for ever");
            match login.step(rules, 0) {
                Step::Read => break,
                Step::Send(answer) => told.extend_from_slice(&answer),
                Step::Stretch(derivation) => login.set_keys(derivation.keys()),
                Step::Close(_) | Step::Cancel(_) => return (told, true),
                Step::Refuse(refused) => {
                    let message = refused.refusal.encode();
                    let error = parse_error(message.get(5..).unwrap_or_default());
                    assert!(error.is_some_and(|error| error.severity == "FATAL" && error.sqlstate.is_some()));
                    told.extend_from_slice(&message);
                    return (told, true);
                }
                Step::Admit(_) | Step::Console(..) => panic!("a client was let in without a proof"),
                Step::LookUp(_) => login.found(None),
                Step::Encrypt(..) => panic!("a connection was to be encrypted without a certificate"),
            }
        }
    }
    (told, false)
}

/// What a server sends while the proxy logs in to it with a password.
///
/// Properties: a server that asked for a SCRAM proof is not believed before its own; what it reports is within bounds; the password
/// itself is not sent where that is not allowed; a login ends once.
pub fn server(data: &[u8]) {
    let secret = Some(Secret::Plain(Password::new("the password".to_owned())));
    let credentials = Credentials {
        user: "bob".to_owned(),
        secret,
        keys: None,
        cleartext_allowed: false,
        require_auth: RequireAuth::default(),
    };
    let mut login = BackendLogin::new(credentials, "client".to_owned(), None);
    let (mut splitter, mut at) = (Splitter::default(), 0);
    let (mut is_asked, mut is_proved) = (false, false);
    while let Ok(Some(frame)) = splitter.next::<Malformed>(data, &mut at, |_, _| Ok(Mode::Gather)) {
        let Frame::Whole { tag, range } = frame else { return };
        let message = Bytes::copy_from_slice(data.get(range).unwrap_or_default());
        let code = message.get(5..9);
        is_asked |= tag == tag::backend::AUTHENTICATION && code == Some(&[0, 0, 0, 10]);
        match login.receive(tag, &message) {
            Ok(Progress::Read) => is_proved |= is_asked && code == Some(&[0, 0, 0, 12]),
            Ok(Progress::Send(answer)) => assert!(memchr::memmem::find(&answer, b"the password").is_none()),
            Ok(Progress::Stretch(derivation)) => assert!(login.stretched(&derivation.keys()).is_some()),
            Ok(Progress::Ready) => {
                assert!(!is_asked || is_proved);
                assert!(login.facts.parameters.are_within_bounds());
                assert!(login.receive(tag, &message).is_err());
                return;
            }
            Err(Fault::Protocol(text)) => return assert!(!text.is_empty()),
            Err(Fault::Refused { error, .. }) => return assert_eq!(error, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_hold() {
        let directory = tempfile::tempdir().unwrap();
        let rules = rules(directory.path());
        crate::wire::fuzz::run_seeds("login", |data| client(&rules, data));
        crate::wire::fuzz::run_seeds("backend_login", server);
    }
}
