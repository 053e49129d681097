//! What a client's connection says of the client before it has said anything itself: where it comes from, and what TLS has proved.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

pub use crate::policy::CertificateNames;

/// The connection of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// Where it comes from; `None` for a Unix socket.
    pub address: Option<SocketAddr>,
    /// The user of the operating system at the other end of a Unix socket (`SO_PEERCRED`, unix(7)).
    pub unix_user: Option<u32>,
    /// What the TLS handshake has shown; `None` if the connection is not encrypted.
    pub tls: Option<TlsPeer>,
}

/// What a TLS handshake has shown of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPeer {
    /// The names of its certificate, if it has shown one that is trusted.
    pub certificate: Option<CertificateNames>,
    /// What SCRAM-SHA-256-PLUS is bound to: the hash of the server's own certificate (`tls-server-end-point`, RFC 5929).
    pub server_end_point: Option<Box<[u8]>>,
}

impl Transport {
    /// The connection of `socket`, which comes from `address`.
    pub fn of(socket: &OwnedFd, address: Option<SocketAddr>) -> Self {
        let unix_user = match address {
            Some(_) => None,
            None => rustix::net::sockopt::socket_peercred(socket).ok().map(|credentials| credentials.uid.as_raw()),
        };
        Self { address, unix_user, tls: None }
    }

    /// The address without its port.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip())
    }
}

impl From<SocketAddr> for Transport {
    fn from(address: SocketAddr) -> Self {
        Self { address: Some(address), ..Self::default() }
    }
}
