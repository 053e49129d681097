//! A client proves who it is: the server's side of `password`, `md5`, `scram-sha-256`, `jwt` and `oauth`, without I/O.
//!
//! A user that does not exist and a password that is wrong go through the same messages and end in the same words. What a client
//! is entitled to is not decided here.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::hba::{Demand, UserMap};
use super::md5;
use super::oauth;
use super::random::Chance;
use super::refusal::Refusal;
use super::scram::{self, Keys, ScramError, ServerFinal, ServerFirst, Verifier, equal};
use super::stretch::Derivation;
use super::token;
use super::transport::Transport;
use crate::config::{AuthMethod, Jwt, Secret, Users};
use crate::limits::SCRAM_ITERATIONS_MAX;
use crate::observe::LoginOutcome;
use crate::policy::Claims;
use crate::wire::SqlState;
use crate::wire::backend::{
    authentication_cleartext, authentication_md5, authentication_sasl, authentication_sasl_continue, authentication_sasl_final,
};
use crate::wire::frontend::{password_text, sasl_initial_fields};

const UNKNOWN_USER: &str = "there is no such user, or it has no password";
const UNUSABLE_SECRET: &str = "the user has a secret of another kind than it is asked for";
const NO_KEYS: &str = "no tokens are good here";
const NO_TOKEN: &str = "it has no token";
const WRONG_PASSWORD: &str = "the password is wrong";

/// How clients prove who they are; a reload makes a new one.
pub struct Authenticator {
    /// Random, the same for the life of the process.
    process_secret: [u8; 32],
    /// Rounds of PBKDF2 for verifiers that are not stored.
    iterations: u32,
}

/// How a login goes on.
pub enum Progress {
    /// The client is who it says. The bytes, which may be empty, are sent before AuthenticationOk.
    Admitted(Bytes, Shown),
    /// Send the bytes, then wait for the client's answer.
    Ask(Box<Exchange>, Bytes),
    /// Stretch the password, then go on.
    Stretch(Box<Stretching>, Derivation),
}

/// Waits for a password to be stretched.
pub struct Stretching {
    user: String,
    doomed: Option<&'static str>,
    purpose: Purpose,
}

enum Purpose {
    /// The user's own, to ask for SCRAM as a server would that has it stored.
    Store { salt: Vec<u8>, iterations: u32, opening: Opening },
    /// One that the client has sent, to be compared with what is stored.
    Compare { stored_key: Zeroizing<[u8; 32]> },
}

/// How an exchange by SCRAM begins, whatever the secret.
struct Opening {
    nonce: String,
    end_point: Option<Box<[u8]>>,
}

/// What a client has shown beside being who it says.
#[derive(Default)]
pub struct Shown {
    /// What its token claims.
    pub claims: Option<Claims>,
    /// What opens servers that have the same SCRAM verifier.
    pub keys: Option<Keys>,
}

/// Waits for one message of the client.
pub struct Exchange {
    user: String,
    expected: Expected,
    /// Why it will fail whatever the client answers.
    doomed: Option<&'static str>,
}

enum Expected {
    /// PasswordMessage with the password itself.
    Password(Option<Secret>),
    /// PasswordMessage with the answer to our salt.
    Md5([u8; 32], [u8; 4]),
    /// PasswordMessage with a token.
    Token(Tokens),
    /// SASLInitialResponse of OAUTHBEARER.
    Bearer(Tokens),
    /// SASLResponse with the first message of OAUTHBEARER.
    BearerFirst(Tokens),
    /// The answer to an error of OAUTHBEARER; why there was one.
    BearerRefused(&'static str),
    /// SASLInitialResponse.
    Mechanism(ServerFirst),
    /// SASLResponse with the client-first-message.
    First(ServerFirst),
    /// SASLResponse with the client-final-message.
    Final(ServerFinal),
}

/// Whose tokens are good, and for whom.
struct Tokens {
    jwt: Option<Arc<Jwt>>,
    map: Option<UserMap>,
}

impl Tokens {
    /// What a token of `user` claims, or why it is not good.
    fn check(&self, token: &[u8], user: &str) -> Result<Claims, &'static str> {
        let is_user = |name: &str| self.map.as_ref().map_or(name == user, |map| map.admits(name, user));
        token::check(self.jwt.as_deref().ok_or(NO_KEYS)?, token, is_user)
    }
}

impl Authenticator {
    /// From `process_secret` come the salts for users that have none. They are asked for as many rounds as most of the `users` with
    /// a stored verifier, so that they look like these.
    pub fn new(process_secret: [u8; 32], users: &Users) -> Self {
        Self { process_secret, iterations: usual_iterations(users) }
    }

    /// Begins the login of `user`, who is asked for this, has this secret and comes by `transport`; an unknown user has none.
    pub fn begin(
        &self,
        demand: Demand,
        user: &str,
        secret: Option<&Secret>,
        transport: &Transport,
        chance: &Chance,
        jwt: Option<&Arc<Jwt>>,
    ) -> Progress {
        let tokens = || Tokens { jwt: jwt.cloned(), map: demand.map.clone() };
        let unknown = demand.doomed.or(secret.is_none().then_some(UNKNOWN_USER));
        match (demand.method, secret) {
            // Tokens name their users themselves.
            (AuthMethod::Jwt, _) => ask(user, demand.doomed, Expected::Token(tokens()), authentication_cleartext()),
            (AuthMethod::OAuth, _) => {
                ask(user, demand.doomed, Expected::Bearer(tokens()), authentication_sasl(&[oauth::MECHANISM]))
            }
            (AuthMethod::Trust, _) => Progress::Admitted(Bytes::new(), Shown::default()),
            (AuthMethod::Password, _) => ask(user, unknown, Expected::Password(secret.cloned()), authentication_cleartext()),
            // As in PostgreSQL and PgBouncer: a user who has a SCRAM verifier proves it by SCRAM under `md5` too.
            (AuthMethod::ScramSha256, _) | (AuthMethod::Md5, Some(Secret::Scram { .. })) => {
                let end_point = transport.tls.as_ref().and_then(|tls| tls.server_end_point.clone());
                let opening = Opening { nonce: scram::nonce(&chance.nonce), end_point };
                self.scram(user, demand.doomed, secret, opening)
            }
            (AuthMethod::Md5, _) => {
                let digest = match secret {
                    Some(Secret::Plain(password)) => md5::digest(password.reveal().as_bytes(), user),
                    Some(Secret::Md5(digest)) => **digest,
                    Some(Secret::Scram { .. }) | None => [0; 32],
                };
                ask(user, unknown, Expected::Md5(digest, chance.salt), authentication_md5(chance.salt))
            }
        }
    }

    fn scram(&self, user: &str, doomed: Option<&'static str>, secret: Option<&Secret>, opening: Opening) -> Progress {
        match secret {
            Some(Secret::Plain(password)) => {
                let (salt, iterations) = (self.salt(user), self.iterations);
                let derivation = Derivation::of_known(password.reveal(), &salt, iterations);
                stretch(user, doomed, Purpose::Store { salt, iterations, opening }, derivation)
            }
            Some(Secret::Scram { iterations, salt, stored_key, server_key }) => {
                let (stored_key, server_key) = (**stored_key, **server_key);
                opening.ask(user, doomed, Verifier { iterations: *iterations, salt: salt.clone(), stored_key, server_key })
            }
            Some(Secret::Md5(_)) => opening.ask(user, doomed.or(Some(UNUSABLE_SECRET)), self.mock_verifier(user)),
            None => opening.ask(user, doomed.or(Some(UNKNOWN_USER)), self.mock_verifier(user)),
        }
    }

    /// A salt that stays the same for a user while the process lives, like one that is stored, whether or not the user exists.
    fn salt(&self, user: &str) -> Vec<u8> {
        let hash = scram::hmac(&self.process_secret, &[b"salt of ", user.as_bytes()]);
        hash[..scram::SALT_BYTES].to_vec()
    }

    fn mock_verifier(&self, user: &str) -> Verifier {
        let key = scram::hmac(&self.process_secret, &[b"key of ", user.as_bytes()]);
        Verifier { iterations: self.iterations, salt: self.salt(user), stored_key: key, server_key: key }
    }
}

/// The count that most of the stored verifiers have, and the lowest of several such.
fn usual_iterations(users: &Users) -> u32 {
    let mut numbers = BTreeMap::new();
    for secret in users.secrets() {
        if let Secret::Scram { iterations, .. } = secret {
            *numbers.entry((*iterations).min(SCRAM_ITERATIONS_MAX)).or_insert(0) += 1;
        }
    }
    let usual = numbers.into_iter().rev().max_by_key(|(_, number)| *number);
    usual.map_or(scram::ITERATIONS, |(iterations, _)| iterations)
}

impl Opening {
    fn ask(self, user: &str, doomed: Option<&'static str>, verifier: Verifier) -> Progress {
        let first = ServerFirst::new(verifier, doomed.is_some(), self.nonce, self.end_point);
        let offer = authentication_sasl(first.mechanisms());
        ask(user, doomed, Expected::Mechanism(first), offer)
    }
}

impl Stretching {
    /// Goes on with what the password has stretched to.
    ///
    /// # Errors
    /// 28P01 if it is not the user's.
    pub fn resume(self, keys: Keys) -> Result<Progress, Refusal> {
        let Self { user, doomed, purpose } = self;
        match purpose {
            Purpose::Store { salt, iterations, opening } => Ok(opening.ask(&user, doomed, keys.verifier(&salt, iterations))),
            Purpose::Compare { stored_key } => {
                let keys = Some(keys).filter(|keys| keys.open(&stored_key));
                settle(&user, doomed, keys.map(|keys| Shown { claims: None, keys: Some(keys) }))
            }
        }
    }
}

/// A password, or the answer to a challenge, is right if there is something that it has shown.
fn settle(user: &str, doomed: Option<&'static str>, shown: Option<Shown>) -> Result<Progress, Refusal> {
    match (shown, doomed) {
        (Some(shown), None) => Ok(Progress::Admitted(Bytes::new(), shown)),
        (_, Some(why)) => Err(Refusal::password(user, why)),
        (None, None) => Err(Refusal::password(user, WRONG_PASSWORD)),
    }
}

fn stretch(user: &str, doomed: Option<&'static str>, purpose: Purpose, derivation: Derivation) -> Progress {
    Progress::Stretch(Box::new(Stretching { user: user.to_owned(), doomed, purpose }), derivation)
}

fn ask(user: &str, doomed: Option<&'static str>, expected: Expected, question: Bytes) -> Progress {
    Progress::Ask(Box::new(Exchange { user: user.to_owned(), expected, doomed }), question)
}

impl Exchange {
    /// Takes the body of the client's message, which had the tag of a PasswordMessage.
    ///
    /// # Errors
    /// 28P01 if the proof is wrong, 08P01 if the message is malformed, 0A000 for parts of SCRAM that PostgreSQL does not have
    /// either.
    pub fn receive(self, body: &[u8]) -> Result<Progress, Refusal> {
        let Self { user, expected, doomed } = self;
        let failed = |cause| Refusal::password(&user, doomed.unwrap_or(cause));
        match expected {
            Expected::Password(secret) => compare(&user, doomed, secret, password(body)?),
            Expected::Md5(digest, salt) => {
                let proven = equal(password(body)?, &md5::answer(&digest, salt));
                settle(&user, doomed, proven.then(Shown::default))
            }
            Expected::Token(tokens) => match (tokens.check(password(body)?, &user), doomed) {
                (Ok(claims), None) => Ok(Progress::Admitted(Bytes::new(), Shown { claims: Some(claims), keys: None })),
                (Ok(_), Some(why)) | (Err(why), _) => Err(Refusal::password(&user, why)),
            },
            Expected::Bearer(tokens) => match initial(body)? {
                (mechanism, _) if mechanism != oauth::MECHANISM.as_bytes() => Err(invalid_mechanism()),
                (_, Some(message)) => bearer(&user, doomed, &tokens, message),
                (_, None) => Ok(ask(&user, doomed, Expected::BearerFirst(tokens), authentication_sasl_continue(b""))),
            },
            Expected::BearerFirst(tokens) => bearer(&user, doomed, &tokens, body),
            Expected::BearerRefused(why) if body == [oauth::SEPARATOR] => Err(Refusal::oauth(&user, why)),
            Expected::BearerRefused(_) => {
                Err(Refusal::malformed("malformed OAUTHBEARER message").with_detail("Client did not send a kvsep response."))
            }
            Expected::Mechanism(first) => {
                let (mechanism, message) = initial(body)?;
                let first = first.choose(mechanism).ok_or_else(invalid_mechanism)?;
                match message {
                    Some(message) => challenge(user, doomed, first, message),
                    // A client may choose the mechanism first and speak after an empty challenge (RFC 4422, section 5).
                    None => Ok(ask(&user, doomed, Expected::First(first), authentication_sasl_continue(b""))),
                }
            }
            Expected::First(first) => challenge(user, doomed, first, body),
            Expected::Final(last) => match last.receive(body) {
                Ok((signature, keys)) => {
                    let shown = Shown { claims: None, keys: Some(keys) };
                    Ok(Progress::Admitted(authentication_sasl_final(&signature), shown))
                }
                Err(ScramError::Mismatch) => Err(failed(WRONG_PASSWORD)),
                Err(error) => Err(scram_refusal(error)),
            },
        }
    }
}

/// The mechanism that a SASLInitialResponse chooses, and the message inside.
fn initial(body: &[u8]) -> Result<(&[u8], Option<&[u8]>), Refusal> {
    sasl_initial_fields(body).map_err(|_| Refusal::malformed("invalid SASL initial response"))
}

fn invalid_mechanism() -> Refusal {
    Refusal::malformed("client selected an invalid SASL authentication mechanism")
}

/// A client of OAUTHBEARER is told of its error first, and answers to that, before it is refused.
fn bearer(user: &str, doomed: Option<&'static str>, tokens: &Tokens, message: &[u8]) -> Result<Progress, Refusal> {
    let found = oauth::token(message)?.ok_or(NO_TOKEN).and_then(|token| tokens.check(token, user));
    match (found, doomed) {
        (Ok(claims), None) => Ok(Progress::Admitted(Bytes::new(), Shown { claims: Some(claims), keys: None })),
        (Ok(_), Some(why)) | (Err(why), _) => {
            let error = oauth::error(tokens.jwt.as_ref().and_then(|jwt| jwt.issuer.as_deref()));
            Ok(ask(user, doomed, Expected::BearerRefused(why), authentication_sasl_continue(&error)))
        }
    }
}

fn challenge(user: String, doomed: Option<&'static str>, first: ServerFirst, message: &[u8]) -> Result<Progress, Refusal> {
    let (last, answer) = first.receive(message).map_err(scram_refusal)?;
    Ok(ask(&user, doomed, Expected::Final(last), authentication_sasl_continue(&answer)))
}

fn scram_refusal(error: ScramError) -> Refusal {
    match error {
        ScramError::Malformed(detail) => Refusal::malformed("malformed SCRAM message").with_detail(detail),
        ScramError::Unsupported(what) => Refusal::new(LoginOutcome::Unsupported, SqlState::FEATURE_NOT_SUPPORTED, what),
        ScramError::Mismatch => Refusal::malformed("invalid SCRAM response"),
        ScramError::Downgraded => channel_binding("SCRAM channel binding negotiation error").with_detail(
            "The client supports SCRAM channel binding but thinks the server does not. However, this server does support channel binding.",
        ),
        ScramError::OtherChannel => channel_binding("SCRAM channel binding check failed"),
    }
}

/// Somebody may stand between the client and this server.
fn channel_binding(message: &'static str) -> Refusal {
    Refusal::new(LoginOutcome::Tls, SqlState::INVALID_AUTHORIZATION_SPECIFICATION, message)
}

/// The text of a PasswordMessage. No password is empty (PostgreSQL stores none that is).
fn password(body: &[u8]) -> Result<&[u8], Refusal> {
    match password_text(body) {
        Ok(b"") => Err(Refusal::new(LoginOutcome::Password, SqlState::INVALID_PASSWORD, "empty password returned by client")),
        Ok(password) => Ok(password),
        Err(_) => Err(Refusal::malformed("invalid password packet size")),
    }
}

/// Whether a password in clear text is the user's.
fn compare(user: &str, doomed: Option<&'static str>, secret: Option<Secret>, password: &[u8]) -> Result<Progress, Refusal> {
    let proven = match secret {
        None => false,
        Some(Secret::Plain(expected)) => equal(password, expected.reveal().as_bytes()),
        Some(Secret::Md5(expected)) => equal(&md5::digest(password, user), &*expected),
        // The count is a setting somewhere; past the bound it is a mistake.
        Some(Secret::Scram { iterations, .. }) if iterations > SCRAM_ITERATIONS_MAX => false,
        Some(Secret::Scram { iterations, salt, stored_key, .. }) => {
            let derivation = Derivation::of_guess(password, &salt, iterations);
            return Ok(stretch(user, doomed, Purpose::Compare { stored_key }, derivation));
        }
    };
    settle(user, doomed, proven.then(Shown::default))
}
