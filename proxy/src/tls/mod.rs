//! TLS without I/O: certificates and settings become contexts, contexts begin sessions, and a session turns bytes of a connection
//! into text and back.
//!
//! ```text
//!   files ─▶ ServerContext, ClientContext ─▶ Session ─▶ open: records → text; seal: text → records
//! ```
//!
//! The handshake goes through the same two calls, so whoever owns the socket decides where it runs: the control thread does, for it
//! may take a millisecond. Nothing here reads a socket, decides who a client is or which region a node is of. Cryptography is
//! rustls' with aws-lc-rs; this module alone names them.

mod certificate;
mod client;
mod server;
mod session;
#[cfg(test)]
mod tests;

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, SupportedProtocolVersion, version};
use zeroize::Zeroizing;

pub use certificate::CertificateFacts;
pub use client::{ClientContext, ClientFiles, Verify};
pub use server::{ClientCertificate, ServerContext, ServerFiles};
pub use session::{Closed, Session};

/// The protocol that is agreed on where TLS begins without an SSLRequest (PostgreSQL 17, "SSL Session Encryption").
pub const ALPN: &[u8] = b"postgresql";

/// The first byte of a TLS handshake (RFC 8446, section 5.1). No startup packet that is not absurdly long begins with it.
pub const HANDSHAKE_RECORD: u8 = 22;

/// A connected socket, and the TLS session on it if it is encrypted.
pub struct Connection {
    /// The socket.
    pub socket: OwnedFd,
    /// What encrypts it.
    pub session: Option<Box<Session>>,
}

/// The oldest version that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MinimumVersion {
    /// TLS 1.2 and 1.3.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl MinimumVersion {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => &FROM_TLS_1_2,
            Self::Tls13 => &FROM_TLS_1_3,
        }
    }
}

static FROM_TLS_1_2: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
static FROM_TLS_1_3: [&SupportedProtocolVersion; 1] = [&version::TLS13];

/// One of the files that a context is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The own certificates.
    Certificate,
    /// The own private key.
    Key,
    /// The certificates of authorities.
    Authorities,
}

/// Why a context cannot be made: which file is wrong, and in what way, in words that follow its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The file.
    pub file: File,
    /// What is wrong with it.
    pub why: String,
}

impl Unusable {
    fn new(file: File, why: impl fmt::Display) -> Self {
        Self { file, why: why.to_string() }
    }
}

/// A certificate with those that lead to its authority, and its private key, both as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The own certificate first.
    pub certificate: Vec<u8>,
    /// PKCS #8, PKCS #1 or SEC 1, without a password.
    pub key: Zeroizing<Vec<u8>>,
}

impl Identity {
    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, Unusable> {
        certificates(&self.certificate, File::Certificate)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, Unusable> {
        PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| Unusable::new(File::Key, format!("has no private key: {error}")))
    }
}

/// All certificates of a PEM file; at least one.
fn certificates(pem: &[u8], file: File) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Unusable::new(file, "has no certificate in it")),
        Err(error) => Err(Unusable::new(file, format!("is not a PEM file: {error}"))),
    }
}

fn authorities(pem: &[u8]) -> Result<Arc<RootCertStore>, Unusable> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem, File::Authorities)? {
        store
            .add(certificate)
            .map_err(|error| Unusable::new(File::Authorities, format!("has an unusable certificate: {error}")))?;
    }
    Ok(Arc::new(store))
}

/// A failure to bring certificate and key together.
fn of_identity(error: &rustls::Error) -> Unusable {
    match error {
        rustls::Error::InconsistentKeys(_) => Unusable::new(File::Key, "is not the key of the certificate"),
        rustls::Error::InvalidCertificate(error) => Unusable::new(File::Certificate, format!("cannot be used: {error}")),
        error => Unusable::new(File::Key, format!("cannot be used: {error}")),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
