//! One client's login from its first byte to the end of its authentication, without I/O.
//!
//! ```text
//!   SSLRequest ─ S ─▶ handshake ───┐      (or the handshake at once: PostgreSQL 17)
//!   SSLRequest, GSSENCRequest ─ N ─┤
//!                                  ▼
//!              StartupMessage ─▶ Authenticating ─▶ admission ─▶ Admit: its worker greets it
//!                                  └── question, answer ──┘
//! ```
//!
//! Its owner calls [`ClientLogin::step`] until it says `Read`, feeds it what came, and so on. Bytes are never looked at twice by two
//! parsers, and bytes behind an encryption request are never looked at at all: whoever sent them did not wait to learn whether
//! the connection is encrypted (CVE-2021-23214).

use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};

use super::Rules;
use super::admission::{self, Rejection};
use super::authentication::{Exchange, Progress, Shown, Stretching};
use super::console;
use super::greeting;
use super::hba::{self, Demand};
use super::known::Known;
use super::message::take;
use super::random::Chance;
use super::refusal::Refusal;
use super::scram::Keys;
use super::stretch::Derivation;
use super::transport::{TlsPeer, Transport};
use crate::admin::console::{Client, is_console};
use crate::config::{Secret, TlsMode};
use crate::limits::AUTH_MESSAGE_BYTES_MAX;
use crate::observe::{Limit, LoginOutcome};
use crate::policy::{Claims, Denial, Proven, Subject};
use crate::region::{RegionId, SessionRegion};
use crate::session::{AuditRecord, Identity, Login};
use crate::tls::{ClientCertificate, HANDSHAKE_RECORD};
use crate::wire::backend::authentication_ok;
use crate::wire::frame::body;
use crate::wire::startup::{self, CancelRequest, PROTOCOL_MINOR_MAX, Replication, StartupMessage, StartupPacket};
use crate::wire::{CancelSecret, SqlState, tag};

/// The login of one client.
pub struct ClientLogin {
    transport: Transport,
    chance: Chance,
    input: BytesMut,
    state: State,
    known: Known,
}

enum State {
    /// Before the StartupMessage; each kind of encryption may be asked for once.
    Startup { ssl_asked: bool, gss_asked: bool },
    /// The secret of its user is not known yet.
    LookingUp(Box<Begun>),
    /// It is, as far as there is one.
    Found(Box<Begun>),
    /// A question is with the client.
    Authenticating(Box<StartupMessage>, Box<Exchange>),
    /// A password is being stretched; the bytes are sent before whatever comes next.
    Stretching(Box<StartupMessage>, Bytes, Box<Stretching>),
    /// It has been.
    Stretched(Box<StartupMessage>, Bytes, Box<Stretching>, Keys),
    /// The last step has been told.
    Over,
}

/// The StartupMessage has been read, and the client not asked yet.
struct Begun {
    startup: Box<StartupMessage>,
    demand: Demand,
    /// NegotiateProtocolVersion, if the client must be told something.
    negotiation: Bytes,
}

/// What is to be done next.
#[derive(Debug)]
pub enum Step {
    /// Read from the client, then go on.
    Read,
    /// Send this to the client, then go on.
    Send(Bytes),
    /// Send the first, then encrypt; the second has been read of the handshake already. Then go on with [`ClientLogin::set_tls`].
    Encrypt(Bytes, Bytes),
    /// Look up the secret of this user, then go on with [`ClientLogin::found`].
    LookUp(String),
    /// Stretch the password, then go on with [`ClientLogin::set_keys`].
    Stretch(Derivation),
    /// Close without a word.
    Close(LoginOutcome),
    /// Cancel what a session does, then close without a word.
    Cancel(CancelRequest),
    /// Send the refusal, then close.
    Refuse(Box<Refused>),
    /// The session begins; its worker greets it.
    Admit(Box<Admitted>),
    /// Send the greeting; a session of the administration console begins.
    Console(Bytes, Client),
}

/// A login that failed.
#[derive(Debug)]
pub struct Refused {
    /// Why, and what the client is told.
    pub refusal: Refusal,
    /// The user it wanted to be, and the database it wanted to use, once it has said so.
    pub subject: Option<(String, String)>,
    /// The record of the denial, if it was one.
    pub audit: Option<Box<AuditRecord>>,
}

impl Refused {
    /// A refusal of nobody in particular.
    pub(super) fn because(refusal: Refusal) -> Self {
        Self { refusal, subject: None, audit: None }
    }
}

/// A login that succeeded.
#[derive(Debug)]
pub struct Admitted {
    /// Who the client is.
    pub login: Login,
    /// What the client has sent behind its login.
    pub early: Bytes,
    /// The declared region that it starts in.
    pub region: Option<RegionId>,
}

impl ClientLogin {
    /// A client behind `transport` that has not said anything yet.
    pub fn new(transport: Transport, chance: Chance) -> Self {
        Self {
            transport,
            chance,
            input: BytesMut::new(),
            state: State::Startup { ssl_asked: false, gss_asked: false },
            known: Known::default(),
        }
    }

    /// The connection is encrypted from now on, and this is what the handshake has shown.
    pub fn set_tls(&mut self, peer: TlsPeer) {
        self.transport.tls = Some(peer);
    }

    /// What there is to be known of the user, once the client has proved that it is that.
    pub(super) fn take_known(&mut self) -> Known {
        std::mem::take(&mut self.known)
    }

    /// The secret that [`Step::LookUp`] asked for has been looked up.
    pub fn found(&mut self, secret: Option<Secret>) {
        if let State::LookingUp(begun) = std::mem::replace(&mut self.state, State::Over) {
            self.state = State::Found(begun);
            self.known.secret = secret;
        }
    }

    /// This is what the password of [`Step::Stretch`] stretches to.
    pub fn set_keys(&mut self, keys: Keys) {
        if let State::Stretching(startup, before, stretching) = std::mem::replace(&mut self.state, State::Over) {
            self.state = State::Stretched(startup, before, stretching, keys);
        }
    }

    /// Takes what came from the client.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Who it says it is, while it is to prove that.
    pub fn claims_to_be(&self) -> Option<&str> {
        match &self.state {
            State::Authenticating(startup, _) | State::Stretching(startup, ..) | State::Stretched(startup, ..) => {
                Some(&startup.user)
            }
            State::LookingUp(begun) | State::Found(begun) => Some(&begun.startup.user),
            State::Startup { .. } | State::Over => None,
        }
    }

    /// What is to be done next, by `rules`, while there are `clients` others.
    pub fn step(&mut self, rules: &Rules, clients: u64) -> Step {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Startup { ssl_asked, gss_asked } => self.startup(ssl_asked, gss_asked, rules, clients),
            State::Authenticating(startup, exchange) => self.authenticate(startup, exchange, rules),
            State::Found(begun) => self.ask(*begun, rules),
            State::Stretched(startup, before, stretching, keys) => match stretching.resume(keys) {
                Ok(progress) => self.progress(startup, &before, progress, rules),
                Err(refusal) => refuse(Some(&startup), refusal),
            },
            // Nobody asks before the answer is there.
            State::LookingUp(_) | State::Stretching(..) | State::Over => Step::Close(LoginOutcome::Failed),
        }
    }

    fn startup(&mut self, ssl_asked: bool, gss_asked: bool, rules: &Rules, clients: u64) -> Step {
        // As in PostgreSQL, connections of one host are not encrypted.
        let can_encrypt = rules.config.tls.context.is_some() && self.transport.address.is_some();
        if !ssl_asked && !gss_asked && self.input.first() == Some(&HANDSHAKE_RECORD) {
            if !can_encrypt {
                return Step::Close(LoginOutcome::Malformed);
            }
            self.state = State::Startup { ssl_asked: true, gss_asked: true };
            return Step::Encrypt(Bytes::new(), self.input.split().freeze());
        }
        let (packet, used) = match startup::parse(&self.input) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => {
                self.state = State::Startup { ssl_asked, gss_asked };
                return Step::Read;
            }
            Err(error) if error.answers() => {
                let unsupported = error.sqlstate() == SqlState::FEATURE_NOT_SUPPORTED;
                let outcome = if unsupported { LoginOutcome::Unsupported } else { LoginOutcome::Malformed };
                return refuse(None, Refusal::new(outcome, error.sqlstate(), error.to_string()));
            }
            Err(_) => return Step::Close(LoginOutcome::Malformed),
        };
        self.input.advance(used);
        match packet {
            StartupPacket::Cancel(request) => Step::Cancel(request),
            StartupPacket::Ssl if !ssl_asked && can_encrypt => {
                if !self.input.is_empty() {
                    return Step::Close(LoginOutcome::Malformed);
                }
                self.state = State::Startup { ssl_asked: true, gss_asked: true };
                Step::Encrypt(Bytes::from_static(b"S"), Bytes::new())
            }
            StartupPacket::Ssl if !ssl_asked => self.stay_unencrypted(true, gss_asked),
            StartupPacket::Gss if !gss_asked => self.stay_unencrypted(ssl_asked, true),
            // As in PostgreSQL, a second one is no more than a version that nobody speaks.
            StartupPacket::Ssl | StartupPacket::Gss => {
                let refusal = "encryption has been asked for already";
                refuse(None, Refusal::new(LoginOutcome::Malformed, SqlState::FEATURE_NOT_SUPPORTED, refusal))
            }
            StartupPacket::Startup(startup) => self.begin(Box::new(startup), rules, clients),
        }
    }

    fn stay_unencrypted(&mut self, ssl_asked: bool, gss_asked: bool) -> Step {
        if !self.input.is_empty() {
            return Step::Close(LoginOutcome::Malformed);
        }
        self.state = State::Startup { ssl_asked, gss_asked };
        Step::Send(Bytes::from_static(b"N"))
    }

    fn begin(&mut self, startup: Box<StartupMessage>, rules: &Rules, clients: u64) -> Step {
        if let Some(refusal) = insecure(rules, &self.transport, &startup.user) {
            return refuse(Some(&startup), refusal);
        }
        // An operator gets in when there are too many of the others; consoles have a bound of their own.
        let is_full = rules.config.limits.max_clients.is_some_and(|max| clients >= u64::from(max));
        if is_full && !is_console(&startup.database) {
            return refuse(Some(&startup), Refusal::limited(Limit::Clients, ""));
        }
        // Extensions are not known; who asks for more than is spoken is told before anything else ("Protocol negotiation").
        let spoken = startup.protocol_minor.min(PROTOCOL_MINOR_MAX);
        let negotiation = if startup.protocol_minor > spoken || !startup.unknown_protocol_options.is_empty() {
            startup::encode_negotiate(spoken, &startup.unknown_protocol_options)
        } else {
            Bytes::new()
        };
        let auth = &rules.config.auth;
        let demand = match hba::demand(auth, &startup, &self.transport) {
            Ok(demand) => demand,
            Err(refusal) => return refuse(Some(&startup), refusal),
        };
        let begun = Begun { startup, demand, negotiation };
        if auth.query.is_none() || !begun.demand.method.needs_users() || auth.users.get(&begun.startup.user).is_some() {
            return self.ask(begun, rules);
        }
        let user = begun.startup.user.clone();
        self.state = State::LookingUp(Box::new(begun));
        Step::LookUp(user)
    }

    fn ask(&mut self, begun: Begun, rules: &Rules) -> Step {
        let Begun { startup, demand, negotiation } = begun;
        let secret = self.secret_of(&startup.user, rules);
        let jwt = rules.config.auth.jwt.as_ref();
        let progress = rules.authenticator.begin(demand, &startup.user, secret, &self.transport, &self.chance, jwt);
        self.progress(startup, &negotiation, progress, rules)
    }

    /// The secret of a user: that of the file, else what was looked up.
    fn secret_of<'a>(&'a self, user: &str, rules: &'a Rules) -> Option<&'a Secret> {
        rules.config.auth.users.get(user).or(self.known.secret.as_ref())
    }

    fn authenticate(&mut self, startup: Box<StartupMessage>, exchange: Box<Exchange>, rules: &Rules) -> Step {
        match self.input.first() {
            Some(&tag) if tag != tag::frontend::PASSWORD => {
                let refusal = Refusal::malformed(format!("expected password response, got message type {tag}"));
                return refuse(Some(&startup), refusal);
            }
            Some(_) | None => {}
        }
        match take(&mut self.input, AUTH_MESSAGE_BYTES_MAX) {
            Ok(Some((_, message))) => match exchange.receive(body(&message)) {
                Ok(progress) => self.progress(startup, b"", progress, rules),
                Err(refusal) => refuse(Some(&startup), refusal),
            },
            Ok(None) => {
                self.state = State::Authenticating(startup, exchange);
                Step::Read
            }
            Err(_) => refuse(Some(&startup), Refusal::malformed("invalid message length")),
        }
    }

    fn progress(&mut self, startup: Box<StartupMessage>, before: &[u8], progress: Progress, rules: &Rules) -> Step {
        match progress {
            Progress::Ask(exchange, question) => {
                self.state = State::Authenticating(startup, exchange);
                Step::Send([before, &question].concat().into())
            }
            Progress::Stretch(stretching, derivation) => {
                self.state = State::Stretching(startup, Bytes::copy_from_slice(before), stretching);
                Step::Stretch(derivation)
            }
            Progress::Admitted(last_word, Shown { claims, keys }) => {
                let is_verifier = matches!(self.secret_of(&startup.user, rules), Some(Secret::Scram { .. }));
                self.known.keys = keys.filter(|_| is_verifier);
                self.admit(&startup, &[before, &last_word].concat(), claims, rules)
            }
        }
    }

    fn admit(&mut self, startup: &StartupMessage, before: &[u8], claims: Option<Claims>, rules: &Rules) -> Step {
        let before = Bytes::from([before, &authentication_ok()].concat());
        if is_console(&startup.database) {
            if startup.replication != Replication::None {
                return refuse(Some(startup), Refusal::replication());
            }
            let early = self.input.split().freeze();
            let key = (self.chance.process_id, self.secret(startup));
            return match console::admit(&rules.config.admin, startup, &before, early, &key) {
                Ok((greeting, client)) => Step::Console(greeting, client),
                Err(refusal) => refuse(Some(startup), refusal),
            };
        }
        let certificate = self.transport.tls.as_ref().and_then(|tls| tls.certificate.clone());
        let proven = Proven { certificate, claims };
        let subject = Subject { user: &startup.user, database: &startup.database, address: self.transport.ip(), proven: &proven };
        let admission = match admission::admit(&rules.policy, &rules.config.residency.parameters, startup, &subject) {
            Ok(admission) => admission,
            Err(Rejection::Refused(refusal)) => return refuse(Some(startup), refusal),
            Err(Rejection::Denied(denial)) => return self.deny(startup, &denial, rules),
        };
        let start = match &admission.startup_region {
            Some(name) => rules.policy.region(name),
            None => admission.grant.start(),
        };
        let (reported, reported_by) = rules.reported(&admission.grant, &start);
        let told = greeting::told(&reported, reported_by, &startup.user, &admission.settings);
        let identity = Identity {
            user: startup.user.as_str().into(),
            database: startup.database.as_str().into(),
            address: self.transport.ip(),
            proven: Arc::new(proven),
            settings: admission.settings,
            replication: startup.replication,
            startup_region: admission.startup_region,
            tls: self.transport.tls.as_ref().map(|tls| Arc::clone(&tls.shown)),
        };
        let login = Login {
            identity,
            told: Arc::new(told),
            before,
            secret: self.secret(startup),
            places: Vec::new(),
            region_place: None,
        };
        let region = match &start {
            SessionRegion::Declared(region) => Some(*region),
            SessionRegion::None | SessionRegion::Undeclared(_) => None,
        };
        Step::Admit(Box::new(Admitted { login, early: self.input.split().freeze(), region }))
    }

    /// The secret that the client gets.
    fn secret(&self, startup: &StartupMessage) -> CancelSecret {
        CancelSecret::of_client(&self.chance.secret, startup.protocol_minor)
    }

    fn deny(&self, startup: &StartupMessage, denial: &Denial, rules: &Rules) -> Step {
        let policy = &rules.policy;
        let refusal = Refusal::new(LoginOutcome::Denied, denial.sqlstate(policy), denial.message(policy));
        let audit = AuditRecord {
            user: startup.user.as_str().into(),
            database: startup.database.as_str().into(),
            address: self.transport.ip(),
            region: policy.region_name(&denial.region).into(),
            reason: denial.reason,
            rule: policy.rule_name(denial.rule).into(),
            sqlstate: refusal.sqlstate,
            would_block: false,
            served_by: None,
            message: "StartupMessage",
        };
        Step::Refuse(Box::new(Refused { refusal, subject: Some(subject(startup)), audit: Some(Box::new(audit)) }))
    }
}

/// Why a connection is not secure enough for `user`, if it is not.
fn insecure(rules: &Rules, transport: &Transport, user: &str) -> Option<Refusal> {
    let tls = &rules.config.tls;
    let refusal = |message: String| Refusal::new(LoginOutcome::Tls, SqlState::INVALID_AUTHORIZATION_SPECIFICATION, message);
    let Some(peer) = &transport.tls else {
        let must_encrypt = tls.mode == TlsMode::Require && transport.address.is_some();
        return must_encrypt.then(|| {
            refusal("connections to this server must be encrypted".to_owned()).with_hint("Connect with sslmode=require or above.")
        });
    };
    let is_asked_for = tls.context.as_ref().is_some_and(|context| context.client_certificate == ClientCertificate::VerifyFull);
    let named = peer.certificate.as_ref().and_then(|names| names.common_name.as_deref());
    (is_asked_for && named != Some(user)).then(|| {
        let refusal = refusal(format!("certificate authentication failed for user \"{user}\""));
        Refusal { cause: Some("the common name of the client's certificate is another one".into()), ..refusal }
    })
}

fn refuse(startup: Option<&StartupMessage>, refusal: Refusal) -> Step {
    Step::Refuse(Box::new(Refused { refusal, subject: startup.map(subject), audit: None }))
}

fn subject(startup: &StartupMessage) -> (String, String) {
    (startup.user.clone(), startup.database.clone())
}
