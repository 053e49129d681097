//! Encrypts the connection to a node as its configuration asks for, and looks whether the server is who it should be.
//!
//! ```text
//!   SSLRequest ─ S ─▶ handshake ─▶ certificate: its region      (or the handshake at once: PostgreSQL 17)
//!              └ N ─▶ only with "prefer": goes on without
//! ```
//!
//! Nothing but the answer to an SSLRequest is looked at before the handshake: what comes with it may be anybody's
//! (CVE-2021-23222).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::time::Instant;

use super::Desk;
use super::node::Node;
use super::socket::{HandshakeError, Socket};
use crate::config::{Address, Negotiation, NodeTls, NodeTlsMode, RegionIn};
use crate::pool::OpenError;
use crate::tls::{ALPN, CertificateFacts};
use crate::wire::startup::encode_ssl_request;

impl Desk {
    /// The connection to `node` that `socket` is, ready for a StartupMessage. It was decided on for `region`.
    pub(super) async fn secure(
        &self,
        node: &Node,
        region: &str,
        socket: OwnedFd,
        deadline: Instant,
    ) -> Result<Socket, OpenError> {
        let lost = |error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => OpenError::TimedOut { node: node.name.clone() },
            _ => OpenError::Unreachable { node: node.name.clone(), text: error.to_string() },
        };
        let insecure = |text: String| OpenError::Insecure { node: node.name.clone(), text };
        let mut socket = Socket::new(socket, deadline).map_err(lost)?;
        let Some(tls) = &node.config.tls else { return Ok(socket) };
        if tls.negotiation == Negotiation::Postgres {
            socket.write_all(encode_ssl_request().into()).await.map_err(lost)?;
            match socket.read().await.map_err(lost)?.as_slice() {
                b"S" => {}
                b"N" if tls.mode == NodeTlsMode::Prefer => return Ok(socket),
                b"N" => return Err(insecure("it does not encrypt connections".to_owned())),
                [] => return Err(lost(io::Error::other("it closed the connection when asked for TLS"))),
                [b'S' | b'N', ..] => return Err(insecure("it sent more than its answer to an SSLRequest".to_owned())),
                _ => return Err(insecure("it did not answer an SSLRequest as PostgreSQL does".to_owned())),
            }
        }
        let session = tls.context.begin(server_name(node, tls)).map_err(insecure)?;
        match socket.encrypt(session, Vec::new()).await {
            Ok(text) if text.is_empty() => {}
            Ok(_) => return Err(insecure("it speaks before it is spoken to".to_owned())),
            Err(HandshakeError::Lost(error)) => return Err(lost(error)),
            Err(HandshakeError::Refused(why)) => return Err(insecure(why)),
        }
        let session = socket.session();
        let agreed = session.as_ref().and_then(|session| session.alpn());
        if tls.negotiation == Negotiation::Direct && agreed != Some(ALPN) {
            return Err(insecure("it did not agree on ALPN \"postgresql\", as PostgreSQL 17 does".to_owned()));
        }
        if let Some(place) = tls.region {
            let facts = session.and_then(|session| session.certificate()).unwrap_or_default();
            self.check_region(node, region, place, &facts)?;
        }
        Ok(socket)
    }

    /// A certificate that does not name the region is another region's, whatever the configuration says of the node.
    fn check_region(&self, node: &Node, region: &str, place: RegionIn, facts: &CertificateFacts) -> Result<(), OpenError> {
        let named = regions_in(facts, place);
        if named.iter().any(|name| name == region) {
            return Ok(());
        }
        self.audit.write_misplaced(&node.name, region, &facts.names.distinguished_name, named);
        let named = if named.is_empty() { "none".to_owned() } else { named.join(", ") };
        let text = format!("its certificate is not one of region \"{region}\"; it names {named}");
        Err(OpenError::Insecure { node: node.name.clone(), text })
    }
}

fn regions_in(facts: &CertificateFacts, place: RegionIn) -> &[String] {
    match place {
        RegionIn::OrganizationalUnit => &facts.organizational_units,
        RegionIn::AlternativeName => &facts.names.alternative_names,
    }
}

/// Whom the certificate must name, and whom the server is told that it is expected to be (SNI, RFC 6066).
fn server_name<'a>(node: &'a Node, tls: &'a NodeTls) -> &'a str {
    match (&tls.name, &node.config.address) {
        (Some(name), _) => name,
        (None, Address::Tcp { host, .. }) => host,
        (None, Address::Unix { .. }) => "localhost",
    }
}

/// How a connection is encrypted, for those who look at it.
pub(super) fn shown(socket: &mut Socket) -> Option<Arc<str>> {
    socket.session().map(|session| session.shown().into())
}
