//! Certificates for tests, and both ends of an encrypted connection.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::cluster::give_away;
use crate::process::Scratch;
use crate::wire::{self, Wire};

/// An authority that issues certificates, with a directory for their files.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: Scratch,
}

/// The files of a certificate.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    ///
    /// # Panics
    /// If its files cannot be written.
    pub fn new() -> Self {
        let directory = Scratch::new().expect("a directory for certificates");
        give_away(directory.path()).expect("its owner");
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "Authority of tests");
        let key = KeyPair::generate().expect("a key");
        write(&directory.path().join("ca.crt"), &parameters.self_signed(&key).expect("a certificate").pem());
        Self { issuer: Issuer::new(parameters, key), directory }
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// Issues a certificate to `common_name` of these organizational units, for these alternative names. The files are named after
    /// it, and replace those of a former one.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn issue(&self, common_name: &str, units: &[&str], names: &[&str]) -> Files {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).expect("names");
        parameters.distinguished_name = DistinguishedName::new();
        for unit in units {
            parameters.distinguished_name.push(DnType::OrganizationalUnitName, *unit);
        }
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |ending: &str| self.directory.path().join(format!("{common_name}.{ending}"));
        let files = Files { certificate: file("crt"), key: file("key") };
        write(&files.certificate, &certificate.pem());
        write(&files.key, &key.serialize_pem());
        files
    }

    /// Clients that believe this authority.
    ///
    /// # Panics
    /// If its certificate cannot be read.
    pub fn trust(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut config = trusting(&self.certificate());
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }
}

impl Files {
    /// Servers that show this certificate.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn server(&self) -> Arc<ServerConfig> {
        let certificate = CertificateDer::from_pem_file(&self.certificate).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(&self.key).expect("a key");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        Arc::new(builder.with_no_client_auth().with_single_cert(vec![certificate], key).expect("a pair"))
    }
}

/// Clients that believe the authority of a certificate.
///
/// # Panics
/// If it cannot be read.
pub fn trusting(authority: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).expect("the authority's certificate")).expect("a root");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    builder.with_root_certificates(roots).with_no_client_auth()
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// Keys are read by PostgreSQL, which demands that nobody else may, and by a proxy that may be another user: they belong to
/// PostgreSQL's user, and everything here runs as that one or as root.
fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("a certificate's file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode");
    give_away(path).expect("its owner");
}

/// One end of a connection.
pub enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// The client's end of an encrypted one.
    Encrypted(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// The server's end of one.
    Accepted(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    /// Encrypts `stream` at once.
    ///
    /// # Errors
    /// The handshake failed.
    pub fn encrypt(stream: TcpStream, config: Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(ClientConnection::new(config, name).map_err(io::Error::other)?, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self::Encrypted(Box::new(stream)))
    }

    /// Takes the encryption of a client's `stream` on.
    ///
    /// # Errors
    /// The handshake failed.
    pub fn accept(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let mut stream = StreamOwned::new(ServerConnection::new(config).map_err(io::Error::other)?, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self::Accepted(Box::new(stream)))
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Encrypted(stream) => &stream.sock,
            Self::Accepted(stream) => &stream.sock,
        }
    }

    /// The socket alone.
    pub fn into_socket(self) -> TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Encrypted(stream) => stream.sock,
            Self::Accepted(stream) => stream.sock,
        }
    }

    /// Whether the handshake went on from an earlier session.
    pub fn is_resumed(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Accepted(_) => false,
            Self::Encrypted(stream) => stream.conn.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Encrypted(stream) => or_closed(stream.read(buffer)),
            Self::Accepted(stream) => or_closed(stream.read(buffer)),
        }
    }
}

/// A peer that does not say close_notify has closed all the same.
fn or_closed(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        result => result,
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Encrypted(stream) => stream.write(bytes),
            Self::Accepted(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Encrypted(stream) => stream.flush(),
            Self::Accepted(stream) => stream.flush(),
        }
    }
}

impl Wire for Stream {
    fn set_patience(&mut self, patience: Duration) {
        wire::set_patience(self.socket(), patience);
    }

    fn half_close(&mut self) {
        if let Self::Encrypted(stream) = self {
            stream.conn.send_close_notify();
            stream.flush().ok();
        }
        self.socket().shutdown(Shutdown::Write).ok();
    }

    fn reset_when_dropped(&mut self) {
        wire::reset_when_dropped(self.socket());
    }
}

/// Over TLS that begins with an SSLRequest, by the word of an authority.
pub fn encrypted(config: Arc<ClientConfig>) -> impl Fn(SocketAddr) -> io::Result<Box<dyn Wire>> + Send + Sync {
    move |address| {
        let client = crate::client::Client::connect_encrypted(address, Arc::clone(&config), false)?;
        Ok(Box::new(client.into_stream()))
    }
}
