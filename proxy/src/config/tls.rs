//! `[tls]` and the nodes' `tls`: what is encrypted, and whose certificates are believed. The files are read and tried here, so that a
//! mistake in one of them is found before anything uses it.

use std::path::PathBuf;

use toml::de::DeValue;
use zeroize::Zeroizing;

use super::document::{Entry, Section};
use super::files;
use super::value::path_beside;
use crate::tls::{
    ClientCertificate, ClientContext, ClientFiles, File, Identity, MinimumVersion, ServerContext, ServerFiles, Unusable, Verify,
};

/// `[tls]`: whether clients' connections are encrypted.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Whether they may be, or must be.
    pub mode: TlsMode,
    /// Begins sessions; there is one unless the mode is `Disable`.
    pub context: Option<ServerContext>,
}

/// Whether clients encrypt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Nobody does.
    Disable,
    /// Who wants to.
    Allow,
    /// Everyone who comes over TCP.
    Require,
}

impl TlsMode {
    /// Its name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Require => "require",
        }
    }
}

/// `tls` of a node: how its connections are encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTls {
    /// How much is asked of the server.
    pub mode: NodeTlsMode,
    /// How TLS begins.
    pub negotiation: Negotiation,
    /// The name that its certificate must have, instead of the address's host.
    pub name: Option<String>,
    /// Where its certificate must name its region.
    pub region: Option<RegionIn>,
    /// Begins sessions.
    pub context: ClientContext,
}

/// libpq's `sslmode`, without `disable` (no TLS at all) and `allow` (which asks last for what should be asked first).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeTlsMode {
    /// Encrypted if the server can.
    Prefer,
    /// Encrypted.
    Require,
    /// And the certificate must come from a known authority.
    VerifyCa,
    /// And name the server.
    VerifyFull,
}

/// libpq's `sslnegotiation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negotiation {
    /// By an SSLRequest.
    Postgres,
    /// At once (PostgreSQL 17).
    Direct,
}

/// A place in a certificate where a region's name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionIn {
    /// An organizational unit of the subject.
    OrganizationalUnit,
    /// A subject alternative name: a DNS name, an address or a URI.
    AlternativeName,
}

const MODES: [(&str, TlsMode); 3] = [("disable", TlsMode::Disable), ("allow", TlsMode::Allow), ("require", TlsMode::Require)];
const NODE_MODES: [(&str, Option<NodeTlsMode>); 5] = [
    ("disable", None),
    ("prefer", Some(NodeTlsMode::Prefer)),
    ("require", Some(NodeTlsMode::Require)),
    ("verify-ca", Some(NodeTlsMode::VerifyCa)),
    ("verify-full", Some(NodeTlsMode::VerifyFull)),
];
const CLIENT_CERTIFICATES: [(&str, ClientCertificate); 3] = [
    ("optional", ClientCertificate::Optional),
    ("verify-ca", ClientCertificate::VerifyCa),
    ("verify-full", ClientCertificate::VerifyFull),
];
const VERSIONS: [(&str, MinimumVersion); 2] = [("1.2", MinimumVersion::Tls12), ("1.3", MinimumVersion::Tls13)];
const NEGOTIATIONS: [(&str, Negotiation); 2] = [("postgres", Negotiation::Postgres), ("direct", Negotiation::Direct)];
const REGIONS: [(&str, RegionIn); 2] = [("ou", RegionIn::OrganizationalUnit), ("san", RegionIn::AlternativeName)];

/// Reads `[tls]`.
pub(super) fn read(section: &Section<'_>) -> Tls {
    let mode = section.entry("mode").and_then(|entry| entry.word(&MODES)).unwrap_or(TlsMode::Disable);
    let files = Files::read(section, "client_ca");
    let asked = section.entry("client_certificate");
    let client_certificate = asked.as_ref().and_then(|entry| entry.word(&CLIENT_CERTIFICATES)).unwrap_or_default();
    let minimum_version = minimum_version(section);
    if let Some(entry) = asked.filter(|_| client_certificate != ClientCertificate::Optional) {
        if files.authorities.is_none() {
            entry.mistake(format!("{} needs authorities to go by: add client_ca = \"clients-ca.pem\"", entry.name));
        }
        if mode != TlsMode::Require {
            entry.mistake(format!("{} would not be asked of clients that do not encrypt: set mode = \"require\"", entry.name));
        }
    }
    let identity = files.identity(section);
    if mode != TlsMode::Disable && !files.has_identity() {
        section.mistake(format!(
            "tls.mode = \"{}\" needs a certificate and its key: add certificate = \"server.crt\" and key = \"server.key\"",
            mode.as_str()
        ));
    }
    let context = identity.and_then(|identity| {
        let authorities = files.authorities();
        let made =
            ServerContext::new(&ServerFiles { identity, client_authorities: authorities, client_certificate, minimum_version });
        files.report(made)
    });
    Tls { mode, context: context.filter(|_| mode != TlsMode::Disable) }
}

/// Reads the `tls` of a node: a mode, or a table with one.
pub(super) fn node(entry: &Entry<'_>) -> Option<NodeTls> {
    if let DeValue::String(_) = entry.value {
        let mode = entry.word(&NODE_MODES)??;
        if let NodeTlsMode::VerifyCa | NodeTlsMode::VerifyFull = mode {
            entry.mistake(format!(
                "{} needs authorities to go by: write {{ mode = \"{}\", ca = \"servers-ca.pem\" }}",
                entry.name,
                entry.value.as_str().unwrap_or_default()
            ));
            return None;
        }
        let files = ClientFiles {
            verify: Verify::Nothing,
            authorities: None,
            identity: None,
            minimum_version: MinimumVersion::default(),
        };
        let context = ClientContext::new(&files).map_err(|unusable| entry.mistake(unusable.why)).ok()?;
        return Some(NodeTls { mode, negotiation: Negotiation::Postgres, name: None, region: None, context });
    }
    entry.section()?.read(table)
}

fn table(section: &Section<'_>) -> Option<NodeTls> {
    let mode = section.required("mode", "\"verify-full\"", |entry| entry.word(&NODE_MODES));
    let files = Files::read(section, "ca");
    let name = section.entry("name");
    let (region, negotiation) = (section.entry("region"), section.entry("negotiation"));
    let name_text = name.as_ref().and_then(|entry| entry.text());
    let minimum_version = minimum_version(section);
    let mode = mode??;
    let verify = match mode {
        NodeTlsMode::Prefer | NodeTlsMode::Require => Verify::Nothing,
        NodeTlsMode::VerifyCa => Verify::Authority,
        NodeTlsMode::VerifyFull => Verify::Name,
    };
    let needs_authorities = verify != Verify::Nothing;
    match (&files.authorities, needs_authorities) {
        (None, true) => section.mistake("the tls of the node needs authorities to go by: add ca = \"servers-ca.pem\""),
        (Some((entry, _)), false) => entry.mistake(format!("{} is of use only with verify-ca and verify-full", entry.name)),
        (None, false) | (Some(_), true) => {}
    }
    if let Some(entry) = name.filter(|_| verify != Verify::Name) {
        entry.mistake(format!("{} is of use only with verify-full", entry.name));
    }
    if let Some(entry) = region.as_ref().filter(|_| !needs_authorities) {
        entry
            .mistake(format!("{} is worth nothing unless the certificate is verified: use verify-ca or verify-full", entry.name));
    }
    if let Some(entry) = negotiation.as_ref().filter(|_| mode == NodeTlsMode::Prefer) {
        entry.mistake(format!("{} is not for prefer, which must be able to go on without TLS: use require", entry.name));
    }
    let region = region.and_then(|entry| entry.word(&REGIONS));
    let negotiation = negotiation.and_then(|entry| entry.word(&NEGOTIATIONS)).unwrap_or(Negotiation::Postgres);
    let identity = files.identity(section);
    let authorities = files.authorities();
    if needs_authorities && authorities.is_none() {
        return None;
    }
    let context = files.report(ClientContext::new(&ClientFiles { verify, authorities, identity, minimum_version }))?;
    Some(NodeTls { mode, negotiation, name: name_text.map(str::to_owned), region, context })
}

fn minimum_version(section: &Section<'_>) -> MinimumVersion {
    section.entry("minimum_version").and_then(|entry| entry.word(&VERSIONS)).unwrap_or_default()
}

/// The files that a section names, read or not.
struct Files<'a> {
    certificate: Option<(Entry<'a>, Option<PathBuf>)>,
    key: Option<(Entry<'a>, Option<PathBuf>)>,
    authorities: Option<(Entry<'a>, Option<PathBuf>)>,
}

impl<'a> Files<'a> {
    fn read(section: &Section<'a>, authorities: &'static str) -> Self {
        let file = |key| {
            let entry: Entry<'a> = section.entry(key)?;
            let path = entry.text().map(|file| path_beside(entry.document.path, file));
            Some((entry, path))
        };
        Self { certificate: file("certificate"), key: file("key"), authorities: file(authorities) }
    }

    fn has_identity(&self) -> bool {
        self.certificate.is_some() && self.key.is_some()
    }

    /// The certificate and its key; nothing if neither is given.
    fn identity(&self, section: &Section<'_>) -> Option<Identity> {
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let (certificate, key_bytes) = (bytes(certificate), bytes(key));
                if let (_, Some(path)) = key {
                    files::warn_if_public(path, "private key", section.findings());
                }
                Some(Identity { certificate: certificate?.to_vec(), key: key_bytes? })
            }
            (Some((entry, _)), None) => {
                entry.mistake(format!("{} is of no use without its key: add key", entry.name));
                None
            }
            (None, Some((entry, _))) => {
                entry.mistake(format!("{} is of no use without its certificate: add certificate", entry.name));
                None
            }
            (None, None) => None,
        }
    }

    fn authorities(&self) -> Option<Vec<u8>> {
        self.authorities.as_ref().and_then(bytes).map(|bytes| bytes.to_vec())
    }

    /// Reports a file that cannot be used at the entry that names it.
    fn report<T>(&self, made: Result<T, Unusable>) -> Option<T> {
        let unusable = match made {
            Ok(made) => return Some(made),
            Err(unusable) => unusable,
        };
        let named = match unusable.file {
            File::Certificate => &self.certificate,
            File::Key => &self.key,
            File::Authorities => &self.authorities,
        };
        if let Some((entry, path)) = named {
            let path = path.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
            entry.mistake(format!("{}: {path} {}", entry.name, unusable.why));
        }
        None
    }
}

fn bytes((entry, path): &(Entry<'_>, Option<PathBuf>)) -> Option<Zeroizing<Vec<u8>>> {
    let path = path.as_ref()?;
    let read =
        std::fs::read(path).map_err(|error| entry.mistake(format!("{}: {} cannot be read: {error}", entry.name, path.display())));
    read.ok().map(Zeroizing::new)
}
