//! TLS towards servers: how far their certificates are checked, and the own one.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{UnbufferedClientConnection, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};

use super::{ALPN, File, Identity, MinimumVersion, Session, Unusable, authorities, of_identity, provider};

/// How far a server's certificate is checked; libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// It need only have the key of the certificate that it shows.
    Nothing,
    /// An authority must have issued the certificate.
    Authority,
    /// Moreover the certificate must name the server.
    Name,
}

/// What a client's side is made of.
pub struct ClientFiles {
    /// How far the server's certificate is checked.
    pub verify: Verify,
    /// The authorities of servers' certificates, as PEM. Needed unless nothing is checked.
    pub authorities: Option<Vec<u8>>,
    /// The own certificate and key.
    pub identity: Option<Identity>,
    /// The oldest version that is spoken.
    pub minimum_version: MinimumVersion,
}

/// Begins sessions with servers.
#[derive(Clone)]
pub struct ClientContext {
    config: Arc<ClientConfig>,
    digest: [u8; 32],
}

impl ClientContext {
    /// Checks the files and makes a context of them.
    ///
    /// # Errors
    /// One of the files cannot be used.
    pub fn new(files: &ClientFiles) -> Result<Self, Unusable> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(files.minimum_version.versions())
            .map_err(|error| Unusable::new(File::Authorities, error))?;
        let roots = files.authorities.as_deref().map(authorities).transpose()?;
        let builder = match (files.verify, roots) {
            (Verify::Name, Some(roots)) => {
                let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
                builder.with_webpki_verifier(verifier.map_err(|error| Unusable::new(File::Authorities, error))?)
            }
            (Verify::Authority, Some(roots)) => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName { roots: Some(roots), provider }))
            }
            (Verify::Nothing, _) => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName { roots: None, provider }))
            }
            (Verify::Name | Verify::Authority, None) => return Err(Unusable::new(File::Authorities, "is missing")),
        };
        let config = match &files.identity {
            Some(identity) => builder.with_client_auth_cert(identity.chain()?, identity.private_key()?),
            None => Ok(builder.with_no_client_auth()),
        };
        let mut config = config.map_err(|error| of_identity(&error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { config: Arc::new(config), digest: digest(files) })
    }

    /// A session with the server `name`, which is a host name or an address. The first call of [`Session::open`] takes nothing.
    ///
    /// # Errors
    /// The name is none, or there is no randomness.
    pub fn begin(&self, name: &str) -> Result<Session, String> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("\"{name}\" is not a name that a certificate could have"))?;
        UnbufferedClientConnection::new(Arc::clone(&self.config), name).map(Session::client).map_err(|error| error.to_string())
    }
}

/// Two contexts are the same if they were made of the same files in the same way.
impl PartialEq for ClientContext {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for ClientContext {}

impl fmt::Debug for ClientContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientContext")
    }
}

fn digest(files: &ClientFiles) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |bytes: Option<&[u8]>| {
        let length = bytes.map_or(u64::MAX, |bytes| bytes.len() as u64);
        hash.update(length.to_le_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    add(Some(format!("{:?} {:?}", files.verify, files.minimum_version).as_bytes()));
    add(files.authorities.as_deref());
    add(files.identity.as_ref().map(|identity| identity.certificate.as_slice()));
    add(files.identity.as_ref().map(|identity| identity.key.as_slice()));
    hash.finalize().into()
}

/// Checks that the server has the key of its certificate, and who has issued that if there are authorities; not whom it names.
#[derive(Debug)]
struct AnyName {
    roots: Option<Arc<RootCertStore>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
