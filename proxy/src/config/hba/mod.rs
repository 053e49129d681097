//! Who may come in from where, and what must prove it: files in the formats of PostgreSQL's `pg_hba.conf` and `pg_ident.conf`.
//!
//! They are read here, and every mistake is told with its file and line; what PostgreSQL has and Domicile has not is a mistake too,
//! never a line that is left out. Which rule holds for a client is decided in `login`.

mod ident;
mod pattern;
mod rule;
#[cfg(test)]
mod tests;
mod tokens;

use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::mistake::{Findings, suggestion};
use super::{AuthMethod, TlsMode};

pub use ident::IdentMaps;
pub use pattern::NamePattern;

/// An HBA file, and the ident file beside it.
#[derive(Clone, Debug, Default)]
pub struct Hba {
    /// The file.
    pub path: PathBuf,
    /// Its rules, first match wins.
    pub rules: Vec<HbaRule>,
    /// The ident file, if there is one.
    pub ident_path: Option<PathBuf>,
    /// What the maps of the rules' `map=` say.
    pub maps: IdentMaps,
}

/// One line of an HBA file.
#[derive(Clone, Debug)]
pub struct HbaRule {
    /// Its number.
    pub line: usize,
    /// How the client has connected.
    pub connection: Connection,
    /// The databases; one must match.
    pub databases: Vec<DatabasePattern>,
    /// The users; one must match.
    pub users: Vec<NamePattern>,
    /// The client's network; `None` is any, and that of every Unix socket.
    pub network: Option<IpNet>,
    /// What the client must do.
    pub method: HbaMethod,
    /// The map between the names of a certificate, a token or of the operating system, and users.
    pub map: Option<String>,
    /// What the client's certificate must be besides.
    pub client_certificate: ClientCertificate,
    /// What of a certificate is the name.
    pub certificate_name: CertificateName,
}

/// How a client has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// By a Unix socket.
    Local,
    /// By TCP.
    Host,
    /// By TCP with TLS.
    HostSsl,
    /// By TCP without TLS.
    HostNoSsl,
}

/// An element of the list of databases.
#[derive(Clone, Debug)]
pub enum DatabasePattern {
    /// Every database, and no physical replication.
    All,
    /// The one that is named like the user.
    SameUser,
    /// Physical replication, which is of no database.
    Replication,
    /// Those of a name.
    Name(NamePattern),
}

/// What a rule asks of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HbaMethod {
    /// To go away.
    Reject,
    /// To be the user of the operating system that maps to the user it names.
    Peer,
    /// To have a certificate whose name maps to the user it names.
    Cert,
    /// What `auth.method` could ask too.
    Ask(AuthMethod),
}

impl HbaMethod {
    /// Whether it proves a name from elsewhere, which a map can make that of a user.
    fn is_of_foreign_names(self) -> bool {
        match self {
            Self::Peer | Self::Cert => true,
            Self::Ask(method) => method.needs_tokens(),
            Self::Reject => false,
        }
    }
}

/// What must be true of the client's certificate, whatever else the method asks (`clientcert=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Nothing.
    #[default]
    Any,
    /// It is there, and trusted (`verify-ca`).
    Trusted,
    /// And its name maps to the user (`verify-full`).
    OfUser,
}

/// What of a certificate is the name (`clientname=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertificateName {
    /// The common name of the subject.
    #[default]
    CommonName,
    /// The whole subject, in the form of RFC 2253.
    DistinguishedName,
}

impl Hba {
    /// Whether a rule asks for what stands in the users file.
    pub(super) fn needs_users(&self) -> bool {
        self.rules.iter().any(|rule| match rule.method {
            HbaMethod::Ask(method) => method.needs_users(),
            HbaMethod::Reject | HbaMethod::Peer | HbaMethod::Cert => false,
        })
    }

    /// Warns of rules that can match nobody, whoever is encrypted and who is not.
    pub(super) fn warn_of_idle_rules(&self, mode: TlsMode, findings: &Findings) {
        for rule in &self.rules {
            let text = match (rule.connection, mode) {
                (Connection::HostSsl, TlsMode::Disable) => {
                    "hostssl matches nothing, because connections are not encrypted: set tls.mode, or remove the line"
                }
                (Connection::HostNoSsl, TlsMode::Require) => {
                    "hostnossl matches nothing, because tls.mode = \"require\" refuses who does not encrypt: remove the line"
                }
                (Connection::Local | Connection::Host | Connection::HostSsl | Connection::HostNoSsl, _) => continue,
            };
            findings.warning(&self.path, Some(rule.line), text);
        }
    }

    /// Whether a rule asks for this method.
    pub(super) fn asks_for(&self, method: AuthMethod) -> bool {
        self.rules.iter().any(|rule| rule.method == HbaMethod::Ask(method))
    }
}

/// Reads the text of an HBA file; `maps` are those of the ident file.
pub(super) fn parse(path: &Path, text: &str, maps: &IdentMaps, findings: &Findings) -> Vec<HbaRule> {
    let mut rules = Vec::new();
    for line in tokens::lines(path, text, findings) {
        let number = line.number;
        if let Some(rule) = rule::read(path, line, findings) {
            if let Some(map) = rule.map.as_deref().filter(|map| !maps.has(map)) {
                let near = suggestion(map, maps.names());
                let text = format!("the ident file has no map \"{map}\", so nobody gets in by this rule{near}");
                findings.warning(path, Some(number), text);
            }
            rules.push(rule);
        }
    }
    rules
}

/// Reads the text of an ident file.
pub(super) fn parse_ident(path: &Path, text: &str, findings: &Findings) -> IdentMaps {
    ident::parse(path, text, findings)
}
