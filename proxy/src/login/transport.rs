//! What a client's connection says of the client before it has said anything itself: where it comes from, and what TLS has proved.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::unistd::User;

pub use crate::policy::CertificateNames;

/// The connection of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// Where it comes from; `None` for a Unix socket.
    pub address: Option<SocketAddr>,
    /// The user of the operating system at the other end of a Unix socket (`SO_PEERCRED`, unix(7)).
    pub unix_user: Option<u32>,
    /// The name of that user, once it has been looked up.
    pub unix_user_name: Option<String>,
    /// What the TLS handshake has shown; `None` if the connection is not encrypted.
    pub tls: Option<TlsPeer>,
}

/// What a TLS handshake has shown of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPeer {
    /// The version and the cipher suite, such as `TLSv1.3/TLS_AES_256_GCM_SHA384`.
    pub shown: Arc<str>,
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
        Self { address, unix_user, unix_user_name: None, tls: None }
    }

    /// Looks up what the user at the other end of a Unix socket is called. The system may ask others for it, so it has a thread of its own.
    pub(super) async fn look_up_unix_user(&mut self) {
        if let Some(user) = self.unix_user {
            let look_up = move || User::from_uid(user.into()).ok().flatten().map(|user| user.name);
            self.unix_user_name = tokio::task::spawn_blocking(look_up).await.ok().flatten();
        }
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
