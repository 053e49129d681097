//! Which rule of the HBA file holds for a client, and what that asks of it: without I/O, before anything is asked.
//!
//! The first rule that matches decides, and no later one is looked at. Where none matches nobody gets in.

use std::borrow::Cow;

use super::refusal::Refusal;
use super::transport::{CertificateNames, TlsPeer, Transport};
use crate::config::{
    Auth, AuthMethod, CertificateName, ClientCertificate, Connection, DatabasePattern, Hba, HbaMethod, HbaRule, IdentMaps,
};
use crate::observe::LoginOutcome;
use crate::wire::SqlState;
use crate::wire::startup::{Replication, StartupMessage};

const NO_ENTRY: [&str; 2] = ["no pg_hba.conf entry for", "no pg_hba.conf entry for replication connection from"];
const REJECTED: [&str; 2] = ["pg_hba.conf rejects connection for", "pg_hba.conf rejects replication connection for"];
const NO_CERTIFICATE: &str = "it has shown no certificate that is trusted";
const NO_NAME: &str = "its certificate has no such name";
const OTHER_NAME: &str = "its certificate is of somebody else";

/// What a client must do to be let in.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    /// How it proves who it is.
    pub(super) method: AuthMethod,
    /// Why it will fail whatever it proves.
    pub(super) doomed: Option<&'static str>,
    /// Who may be whom, if it proves by a token that it is somebody else.
    pub(super) map: Option<UserMap>,
}

/// A map of the ident file.
#[derive(Clone, Debug)]
pub(super) struct UserMap {
    maps: IdentMaps,
    name: String,
}

impl UserMap {
    /// Whether somebody who is called `name` elsewhere may be `user` here.
    pub(super) fn admits(&self, name: &str, user: &str) -> bool {
        self.maps.admit(&self.name, name, user)
    }
}

/// What a client is asked that has sent this StartupMessage by this connection.
///
/// # Errors
/// 28000, in PostgreSQL's words: no rule matches, the rule rejects, or what it asks the connection does not have.
pub(super) fn demand(auth: &Auth, startup: &StartupMessage, transport: &Transport) -> Result<Demand, Refusal> {
    let Some(hba) = &auth.hba else { return Ok(Demand { method: auth.method, doomed: None, map: None }) };
    let Some(rule) = hba.rules.iter().find(|rule| matches(rule, startup, transport)) else {
        return Err(unwanted(NO_ENTRY, startup, transport));
    };
    let place = || format!("{}:{}", hba.path.display(), rule.line);
    let refused = |refusal: Refusal, why: &str| refusal.because(format!("{}: {why}", place()));
    let user = &startup.user;
    let certificate = transport.tls.as_ref().and_then(|TlsPeer { certificate, .. }| certificate.as_ref());
    let wants_certificate = rule.client_certificate != ClientCertificate::Any || rule.method == HbaMethod::Cert;
    if wants_certificate && certificate.is_none() {
        return Err(refused(unauthorized("connection requires a valid client certificate".to_owned()), NO_CERTIFICATE));
    }
    let doomed = match rule.client_certificate {
        ClientCertificate::Any | ClientCertificate::Trusted => None,
        ClientCertificate::OfUser => why_not_certificate(hba, rule, certificate, user),
    };
    match rule.method {
        HbaMethod::Reject => Err(unwanted(REJECTED, startup, transport).because(place())),
        HbaMethod::Peer => match &transport.unix_user_name {
            Some(name) if is_user(hba, rule, name, user) => Ok(proved()),
            name => {
                let name = name.as_deref().unwrap_or("unknown");
                let why = format!("at the other end of the socket is the system's user \"{name}\"");
                Err(refused(unauthorized(format!("Peer authentication failed for user \"{user}\"")), &why))
            }
        },
        HbaMethod::Cert => match why_not_certificate(hba, rule, certificate, user) {
            None => Ok(proved()),
            Some(why) => Err(refused(unauthorized(format!("certificate authentication failed for user \"{user}\"")), why)),
        },
        HbaMethod::Ask(AuthMethod::Trust) => match doomed {
            None => Ok(proved()),
            Some(why) => Err(refused(unauthorized(format!("\"trust\" authentication failed for user \"{user}\"")), why)),
        },
        // The certificate of another user looks like a wrong password, and not before one was asked for.
        HbaMethod::Ask(method) => {
            let map = rule.map.clone().map(|name| UserMap { maps: hba.maps.clone(), name });
            Ok(Demand { method, doomed, map })
        }
    }
}

/// Nothing more is to be proved.
fn proved() -> Demand {
    Demand { method: AuthMethod::Trust, doomed: None, map: None }
}

fn matches(rule: &HbaRule, startup: &StartupMessage, transport: &Transport) -> bool {
    // Networks inside IPv6 are not those of IPv4, as they are written.
    let address = transport.ip().map(|address| address.to_canonical());
    let by_connection = match (rule.connection, address) {
        (Connection::Local, address) => address.is_none(),
        (_, None) => false,
        (Connection::Host, Some(_)) => true,
        (Connection::HostSsl, Some(_)) => transport.tls.is_some(),
        (Connection::HostNoSsl, Some(_)) => transport.tls.is_none(),
    };
    let in_network = match (&rule.network, &address) {
        (None, _) => true,
        (Some(network), Some(address)) => network.contains(address),
        (Some(_), None) => false,
    };
    by_connection
        && in_network
        && rule.databases.iter().any(|pattern| is_database(pattern, startup))
        && rule.users.iter().any(|pattern| pattern.admits(&startup.user))
}

/// Physical replication is of no database, and only the word `replication` stands for it.
fn is_database(pattern: &DatabasePattern, startup: &StartupMessage) -> bool {
    let of_no_database = startup.replication == Replication::Physical;
    match pattern {
        DatabasePattern::Replication => of_no_database,
        DatabasePattern::All => !of_no_database,
        DatabasePattern::SameUser => !of_no_database && startup.database == startup.user,
        DatabasePattern::Name(name) => !of_no_database && name.admits(&startup.database),
    }
}

/// Whether somebody who is called `name` elsewhere may be `user` here.
fn is_user(hba: &Hba, rule: &HbaRule, name: &str, user: &str) -> bool {
    match &rule.map {
        Some(map) => hba.maps.admit(map, name, user),
        None => name == user,
    }
}

/// Why a certificate is not that of `user`, if so.
fn why_not_certificate(hba: &Hba, rule: &HbaRule, names: Option<&CertificateNames>, user: &str) -> Option<&'static str> {
    let name = match rule.certificate_name {
        CertificateName::CommonName => names.and_then(|names| names.common_name.as_deref()),
        CertificateName::DistinguishedName => names.map(|names| names.distinguished_name.as_str()),
    };
    match name.filter(|name| !name.is_empty()) {
        None => Some(NO_NAME),
        Some(name) if is_user(hba, rule, name, user) => None,
        Some(_) => Some(OTHER_NAME),
    }
}

fn unauthorized(message: String) -> Refusal {
    Refusal::new(LoginOutcome::Unauthorized, SqlState::INVALID_AUTHORIZATION_SPECIFICATION, message)
}

/// PostgreSQL's words for a connection that is not wanted, an ordinary one or one for physical replication.
fn unwanted([ordinary, of_replication]: [&str; 2], startup: &StartupMessage, transport: &Transport) -> Refusal {
    let host = transport.ip().map_or(Cow::Borrowed("[local]"), |address| address.to_canonical().to_string().into());
    let encryption = if transport.tls.is_some() { "SSL encryption" } else { "no encryption" };
    let StartupMessage { user, database, replication, .. } = startup;
    unauthorized(match replication {
        Replication::Physical => format!("{of_replication} host \"{host}\", user \"{user}\", {encryption}"),
        Replication::None | Replication::Database => {
            format!("{ordinary} host \"{host}\", user \"{user}\", database \"{database}\", {encryption}")
        }
    })
}
