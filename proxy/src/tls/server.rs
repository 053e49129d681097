//! TLS towards clients: the own certificate, and what is asked of theirs.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{NoServerSessionStorage, UnbufferedServerConnection, WebPkiClientVerifier};

use super::certificate::end_point;
use super::{ALPN, File, Identity, MinimumVersion, Session, Unusable, authorities, of_identity, provider};

/// What is asked of a client's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// It may have one; if it shows one, an authority must have issued it.
    #[default]
    Optional,
    /// It must have one.
    VerifyCa,
    /// It must have one whose common name is the user that logs in (PostgreSQL's `clientcert=verify-full`).
    VerifyFull,
}

/// What a server's side is made of.
pub struct ServerFiles {
    /// The own certificate and key.
    pub identity: Identity,
    /// The authorities of clients' certificates, as PEM. Without them no client is asked for one.
    pub client_authorities: Option<Vec<u8>>,
    /// What is asked of clients.
    pub client_certificate: ClientCertificate,
    /// The oldest version that is spoken.
    pub minimum_version: MinimumVersion,
}

/// Begins sessions with clients.
#[derive(Clone)]
pub struct ServerContext {
    config: Arc<ServerConfig>,
    end_point: Option<Box<[u8]>>,
    /// What is asked of a client's certificate.
    pub client_certificate: ClientCertificate,
}

impl ServerContext {
    /// Checks the files and makes a context of them.
    ///
    /// # Errors
    /// One of the files cannot be used.
    pub fn new(files: &ServerFiles) -> Result<Self, Unusable> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(files.minimum_version.versions())
            .map_err(|error| Unusable::new(File::Certificate, error))?;
        let builder = match &files.client_authorities {
            Some(pem) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities(pem)?, provider);
                let verifier = match files.client_certificate {
                    ClientCertificate::Optional => verifier.allow_unauthenticated(),
                    ClientCertificate::VerifyCa | ClientCertificate::VerifyFull => verifier,
                };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| Unusable::new(File::Authorities, error))?)
            }
            None => builder.with_no_client_auth(),
        };
        let chain = files.identity.chain()?;
        let end_point = chain.first().and_then(end_point);
        let config = builder.with_single_cert(chain, files.identity.private_key()?);
        let mut config = config.map_err(|error| of_identity(&error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Sessions are resumed by tickets, which cost no memory here; their key lives as long as this context.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = Ticketer::new().map_err(|error| Unusable::new(File::Key, error))?;
        config.send_tls13_tickets = 1;
        Ok(Self { config: Arc::new(config), end_point, client_certificate: files.client_certificate })
    }

    /// A session with a client that has not said anything yet.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn begin(&self) -> Result<Session, String> {
        UnbufferedServerConnection::new(Arc::clone(&self.config)).map(Session::server).map_err(|error| error.to_string())
    }

    /// What channel binding binds to: the hash of the own certificate (`tls-server-end-point`, RFC 5929).
    pub fn end_point(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }
}

impl fmt::Debug for ServerContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerContext").field("client_certificate", &self.client_certificate).finish_non_exhaustive()
    }
}
