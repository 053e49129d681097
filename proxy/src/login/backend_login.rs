//! The proxy logs in to a server: the client's side of a login, without I/O.
//!
//! The server is believed nothing before it has proved what the method lets it prove. It may not ask for a weaker proof than is
//! configured, may not make us work or remember without bound, and every message that has no place here ends the connection.

use std::sync::Arc;

use bytes::Bytes;

use super::md5;
use super::scram::{self, Channel, ClientChallenged, ClientFinal, ClientFirst, Keys, ScramError};
use super::stretch::Derivation;
use crate::config::{BackendMethod, RequireAuth, Secret};
use crate::limits::BACKEND_MESSAGE_BYTES_MAX;
use crate::pool::Parameters;
use crate::sql::refused_setting;
use crate::wire::backend::{
    Authentication, TransactionStatus, backend_key_data_fields, parameter_status_fields, ready_for_query_status,
};
use crate::wire::frame::body;
use crate::wire::frontend::{password, sasl_initial, sasl_response};
use crate::wire::startup::{PROTOCOL_MINOR_MAX, negotiate_fields};
use crate::wire::{CancelSecret, SqlState, parse_error, tag};

/// Bytes of all messages of one login. PostgreSQL needs some 500.
const LOGIN_BYTES_MAX: usize = BACKEND_MESSAGE_BYTES_MAX;

/// Why keys that a client has shown do not open this server.
const OTHER_VERIFIER: &str =
    "its SCRAM verifier of the user is another one than the proxy has: give both the same, or set password for the node";

/// As whom the proxy logs in.
pub(super) struct Credentials {
    /// The user.
    pub(super) user: String,
    /// What proves it, if anything is known.
    pub(super) secret: Option<Secret>,
    /// What the user has shown of a secret that is a SCRAM verifier: opens servers that have the same one.
    pub(super) keys: Option<Keys>,
    /// Whether the server may have the password itself.
    pub(super) cleartext_allowed: bool,
    /// How the server may ask for it.
    pub(super) require_auth: RequireAuth,
}

/// One login to one server.
pub(super) struct BackendLogin {
    credentials: Credentials,
    /// What its TLS connection can be bound to.
    end_point: Option<Box<[u8]>>,
    state: State,
    bytes_left: usize,
    /// What the server has told.
    pub(super) facts: ServerFacts,
}

/// What a server tells of itself while the proxy logs in.
#[derive(Debug, Default)]
pub(super) struct ServerFacts {
    /// ParameterStatus.
    pub(super) parameters: Parameters,
    /// Process ID of BackendKeyData; 0 if it sent none.
    pub(super) process_id: u32,
    /// Secret of BackendKeyData.
    pub(super) secret: CancelSecret,
    /// How the connection is encrypted, if it is.
    pub(super) tls: Option<Arc<str>>,
}

enum State {
    /// The StartupMessage is out.
    Started(Box<str>),
    /// A password, or its hash, is out.
    PasswordSent,
    /// The client-first-message is out.
    ScramFirst(ClientFirst),
    /// The server-first-message is in, and the password is being stretched.
    ScramChallenged(ClientChallenged),
    /// The client-final-message is out.
    ScramFinal(ClientFinal),
    /// The server has proved that it knows the password too.
    ScramDone,
    /// AuthenticationOk is in.
    Authenticated,
    /// ReadyForQuery is in, or it failed.
    Over,
}

/// How the login goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// With the next message.
    Read,
    /// With [`BackendLogin::stretched`], once this has been done.
    Stretch(Derivation),
    /// With an answer.
    Send(Bytes),
    /// It is over: the server is ready.
    Ready,
}

/// Why a login failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The server said so: its whole ErrorResponse.
    Refused {
        /// The message, header included.
        error: Bytes,
        /// Its SQLSTATE.
        sqlstate: SqlState,
    },
    /// The server broke the protocol, or asked for what is not configured.
    Protocol(String),
}

impl BackendLogin {
    /// A login whose StartupMessage is sent. `nonce` is fresh and random, see [`scram::nonce`]. With an `end_point`, the hash of the
    /// server's certificate, it is bound to the TLS connection.
    pub(super) fn new(credentials: Credentials, nonce: String, end_point: Option<Box<[u8]>>) -> Self {
        let facts = ServerFacts::default();
        Self { credentials, end_point, state: State::Started(nonce.into()), bytes_left: LOGIN_BYTES_MAX, facts }
    }

    /// Takes one whole message of the server.
    ///
    /// # Errors
    /// The login has failed; there is nothing more to be done with this connection than to close it.
    pub(super) fn receive(&mut self, tag: u8, message: &Bytes) -> Result<Progress, Fault> {
        self.bytes_left = self
            .bytes_left
            .checked_sub(message.len())
            .ok_or_else(|| Fault::Protocol("it sends more than a login needs".to_owned()))?;
        let state = std::mem::replace(&mut self.state, State::Over);
        let (state, progress) = match (tag, state) {
            (tag::backend::ERROR_RESPONSE, _) => return Err(refused(message)),
            // It speaks an older minor version than it was asked for. No extension is ever asked for.
            (tag::backend::NEGOTIATE_PROTOCOL_VERSION, State::Started(nonce)) => match negotiate_fields(body(message)) {
                Some((..PROTOCOL_MINOR_MAX, 0)) => (State::Started(nonce), Progress::Read),
                Some(_) | None => return Err(malformed(tag)),
            },
            (tag::backend::NOTICE_RESPONSE, state) => (state, Progress::Read),
            (tag::backend::AUTHENTICATION, state) => {
                let request = Authentication::parse(body(message)).ok_or_else(|| malformed(tag))?;
                self.authentication(state, request)?
            }
            (tag::backend::PARAMETER_STATUS, State::Authenticated) => {
                let (name, value) = parameter_status_fields(body(message)).ok_or_else(|| malformed(tag))?;
                let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
                if let Some(refusal) = refused_setting(&name, &value) {
                    // Nobody would read texts as it does. A client that asks for such an encoding itself is refused before.
                    let hint = refusal.hint.unwrap_or_default();
                    return Err(Fault::Protocol(format!("it reports {name} = \"{value}\" ({hint})")));
                }
                self.facts.parameters.set(&name, &value);
                if !self.facts.parameters.are_within_bounds() {
                    return Err(Fault::Protocol("it reports more settings than any server has".to_owned()));
                }
                (State::Authenticated, Progress::Read)
            }
            (tag::backend::BACKEND_KEY_DATA, State::Authenticated) => {
                let (process_id, secret) = backend_key_data_fields(body(message)).ok_or_else(|| malformed(tag))?;
                self.facts.process_id = process_id;
                self.facts.secret = secret.into();
                (State::Authenticated, Progress::Read)
            }
            (tag::backend::READY_FOR_QUERY, State::Authenticated) => match ready_for_query_status(body(message)) {
                Some(TransactionStatus::Idle) => (State::Over, Progress::Ready),
                Some(TransactionStatus::InTransaction | TransactionStatus::Failed) | None => return Err(malformed(tag)),
            },
            (tag, _) => return Err(Fault::Protocol(format!("it sent {} out of place", shown(tag)))),
        };
        self.state = state;
        Ok(progress)
    }

    /// The password has been stretched; what is to be sent. Nothing, if that was not asked for.
    pub(super) fn stretched(&mut self, keys: &Keys) -> Option<Bytes> {
        let State::ScramChallenged(challenged) = std::mem::replace(&mut self.state, State::Over) else { return None };
        let (last, answer) = challenged.answer(keys);
        self.state = State::ScramFinal(last);
        Some(sasl_response(&answer))
    }

    fn authentication(&self, state: State, request: Authentication<'_>) -> Result<(State, Progress), Fault> {
        let Credentials { user, secret, keys, cleartext_allowed, .. } = &self.credentials;
        // Before anything is sent: what it asks for in the wrong way, it gets nothing of.
        if let (State::Started(_), Some(method)) = (&state, method_of(&request)) {
            self.require(method)?;
        }
        match (state, request) {
            // A server that has begun SCRAM must not end it before it has proved itself.
            (State::Started(_) | State::PasswordSent | State::ScramDone, Authentication::Ok) => {
                Ok((State::Authenticated, Progress::Read))
            }
            (State::Started(_), Authentication::Cleartext) => match secret {
                Some(Secret::Plain(_)) if !cleartext_allowed => Err(Fault::Protocol(
                    "it asks for the password in clear text, which auth.backend_cleartext does not allow".to_owned(),
                )),
                Some(Secret::Plain(plain)) => Ok((State::PasswordSent, Progress::Send(password(plain.reveal().as_bytes())))),
                Some(Secret::Md5(_) | Secret::Scram { .. }) | None => Err(self.no_password("the password in clear text")),
            },
            (State::Started(_), Authentication::Md5(salt)) => {
                let digest = match secret {
                    Some(Secret::Plain(plain)) => md5::digest(plain.reveal().as_bytes(), user),
                    Some(Secret::Md5(digest)) => **digest,
                    Some(Secret::Scram { .. }) | None => return Err(self.no_password("an MD5 password")),
                };
                Ok((State::PasswordSent, Progress::Send(password(&md5::answer(&digest, salt)))))
            }
            (State::Started(nonce), Authentication::Sasl(mechanisms)) => {
                let is_offered = |mechanism| mechanisms.contains(&mechanism);
                let (mechanism, channel) = match &self.end_point {
                    Some(hash) if is_offered(scram::MECHANISM_PLUS) => (scram::MECHANISM_PLUS, Channel::EndPoint(hash.clone())),
                    // If it did offer it, and somebody between has taken it out, it learns so now.
                    Some(_) => (scram::MECHANISM, Channel::NotOffered),
                    None => (scram::MECHANISM, Channel::None),
                };
                if !is_offered(mechanism) {
                    return Err(Fault::Protocol(format!("it does not offer {mechanism}")));
                }
                if !matches!(secret, Some(Secret::Plain(_))) && keys.is_none() {
                    return Err(self.no_password(scram::MECHANISM));
                }
                let (first, message) = ClientFirst::begin(nonce.into(), channel);
                Ok((State::ScramFirst(first), Progress::Send(sasl_initial(mechanism, &message))))
            }
            (State::ScramFirst(first), Authentication::SaslContinue(message)) => {
                let challenged = first.receive(message).map_err(scram_fault)?;
                match (secret, keys) {
                    (Some(Secret::Plain(plain)), _) => {
                        let derivation = Derivation::of_known(plain.reveal(), &challenged.salt, challenged.iterations);
                        Ok((State::ScramChallenged(challenged), Progress::Stretch(derivation)))
                    }
                    (Some(Secret::Scram { salt, iterations, .. }), Some(keys))
                        if *salt == challenged.salt && *iterations == challenged.iterations =>
                    {
                        let (last, answer) = challenged.answer(keys);
                        Ok((State::ScramFinal(last), Progress::Send(sasl_response(&answer))))
                    }
                    (Some(Secret::Scram { .. } | Secret::Md5(_)) | None, _) => Err(Fault::Protocol(OTHER_VERIFIER.to_owned())),
                }
            }
            (State::ScramFinal(last), Authentication::SaslFinal(message)) => {
                last.receive(message).map_err(scram_fault)?;
                Ok((State::ScramDone, Progress::Read))
            }
            (State::Started(_), Authentication::Other(method)) => {
                Err(Fault::Protocol(format!("it asks for authentication method {method}, which is not supported")))
            }
            _ => Err(Fault::Protocol("it sent an authentication request out of place".to_owned())),
        }
    }

    fn require(&self, method: BackendMethod) -> Result<(), Fault> {
        let require_auth = &self.credentials.require_auth;
        if require_auth.allows(method) {
            return Ok(());
        }
        let asks = match method {
            BackendMethod::None => "lets in without a proof",
            BackendMethod::Password => "asks for the password in clear text",
            BackendMethod::Md5 => "asks for an MD5 password",
            BackendMethod::ScramSha256 => "asks for SCRAM-SHA-256",
        };
        Err(Fault::Protocol(format!("it {asks}, and require_auth of the node allows only {require_auth}")))
    }

    fn no_password(&self, what: &str) -> Fault {
        let user = &self.credentials.user;
        Fault::Protocol(format!(
            "it asks for {what} of user \"{user}\", and no password is known: set password for the node, or give \"{user}\" a plain \
             password in the users file, or the server's SCRAM verifier and let clients log in by scram-sha-256"
        ))
    }
}

/// The method that a server's first word stands for.
fn method_of(request: &Authentication<'_>) -> Option<BackendMethod> {
    match request {
        Authentication::Ok => Some(BackendMethod::None),
        Authentication::Cleartext => Some(BackendMethod::Password),
        Authentication::Md5(_) => Some(BackendMethod::Md5),
        Authentication::Sasl(_) => Some(BackendMethod::ScramSha256),
        // Out of place, or not spoken.
        Authentication::SaslContinue(_) | Authentication::SaslFinal(_) | Authentication::Other(_) => None,
    }
}

fn refused(message: &Bytes) -> Fault {
    match parse_error(body(message)) {
        Some(error) => match error.sqlstate {
            Some(sqlstate) => Fault::Refused { error: message.clone(), sqlstate },
            None => Fault::Protocol("it sent an error without SQLSTATE".to_owned()),
        },
        None => malformed(tag::backend::ERROR_RESPONSE),
    }
}

fn malformed(tag: u8) -> Fault {
    Fault::Protocol(format!("it sent a malformed {}", shown(tag)))
}

fn shown(tag: u8) -> String {
    format!("message of type '{}'", tag.escape_ascii())
}

fn scram_fault(error: ScramError) -> Fault {
    Fault::Protocol(match error {
        ScramError::Malformed(detail) | ScramError::Unsupported(detail) => format!("its SCRAM message is wrong: {detail}"),
        ScramError::Mismatch | ScramError::Downgraded | ScramError::OtherChannel => {
            "it does not know the password itself (SCRAM server signature)".to_owned()
        }
    })
}
