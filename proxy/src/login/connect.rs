//! Connects to a node: to each of the addresses of its name in turn.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpSocket, UnixSocket};
use tokio::time::{Instant, timeout_at};

use super::node::Node;
use super::socket::{tune, tune_backend};
use super::{Desk, Rules};
use crate::config::Address;
use crate::fence::{Purpose, number};
use crate::pool::OpenError;
use crate::region::RegionId;

impl Desk {
    /// Connects by `deadline` at the latest. The address is that of the other end; none of a Unix socket.
    pub(super) async fn connect(
        &self,
        rules: &Rules,
        node: &Node,
        asker: Asker,
        deadline: Instant,
    ) -> Result<(OwnedFd, Option<SocketAddr>), OpenError> {
        let (host, port) = match &node.config.address {
            Address::Tcp { host, port } => (host.as_str(), *port),
            address @ Address::Unix { .. } => {
                let path = address.socket_path().unwrap_or_default();
                let purpose = Self::purpose(rules, node, asker);
                return match patiently(|| self.by_path(&path, &purpose), deadline).await {
                    Ok(socket) => Ok((socket, None)),
                    Err(error) => Err(open_error(node, &error)),
                };
            }
        };
        let unreachable = |text| OpenError::Unreachable { node: node.name.clone(), text };
        let addresses = match timeout_at(deadline, self.resolver.resolve(host, port)).await {
            Ok(addresses) => addresses.map_err(unreachable)?,
            Err(_) => return Err(OpenError::TimedOut { node: node.name.clone() }),
        };
        node.resolved(&addresses);
        let purpose = Self::purpose(rules, node, asker);
        let (mut failure, mut all_silent, began_at) = (None, true, Instant::now());
        for (tried, address) in addresses.iter().enumerate() {
            // What is left of the time is shared, so that an address that is silent leaves some for the others.
            let now = Instant::now();
            let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let deadline = now + deadline.saturating_duration_since(now) / left;
            let connect = || self.by_address(*address, rules.config.pools.tcp_user_timeout, &purpose);
            let mut connected = patiently(connect, deadline).await;
            // What stands in the file as an address was always in the kernel's list.
            let is_stopped = connected.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
            if is_stopped && host.parse::<IpAddr>().is_err() && self.fence.follow_names().await {
                connected = patiently(connect, deadline).await;
            }
            match connected {
                Ok(socket) => {
                    node.is_connected_to(Instant::now());
                    return Ok((socket, Some(*address)));
                }
                Err(error) => {
                    all_silent &= error.kind() == io::ErrorKind::TimedOut;
                    failure = failure.or(Some(error));
                }
            }
        }
        if all_silent {
            node.is_silent(began_at, Instant::now());
        }
        Err(failure.map_or(OpenError::NoNode, |error| open_error(node, &error)))
    }

    /// What the kernel is told of a connection. What was decided goes, not what the node is said to be in: if the two differ, the kernel
    /// stops it.
    fn purpose(rules: &Rules, node: &Node, asker: Asker) -> Purpose {
        let region = asker.region_of(rules, node);
        Purpose { region: number(region), node: number(&node.name), worker: asker.worker, session: asker.session }
    }

    /// The same for a Unix socket.
    pub(super) async fn by_path(&self, path: &Path, purpose: &Purpose) -> io::Result<OwnedFd> {
        let socket = UnixSocket::new_stream()?;
        self.fence.tag(socket.as_fd(), purpose)?;
        let socket = socket.connect(path).await?.into_std()?;
        socket.set_nonblocking(false)?;
        Ok(socket.into())
    }

    /// Connects by tokio's own means, because a connect that tokio-uring has begun can not be given up at a deadline. The socket comes
    /// back in blocking mode, as io_uring wants it.
    pub(super) async fn by_address(&self, address: SocketAddr, user_timeout: Duration, purpose: &Purpose) -> io::Result<OwnedFd> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        self.fence.tag(socket.as_fd(), purpose)?;
        let socket = socket.connect(address).await?.into_std()?;
        socket.set_nonblocking(false)?;
        let socket = OwnedFd::from(socket);
        tune(&socket)?;
        tune_backend(&socket, user_timeout)?;
        Ok(socket)
    }
}

/// Who needs a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asker {
    /// The region that was decided on; none for a probe, which is of its node's.
    pub(super) region: Option<RegionId>,
    /// The worker that asked; none for a probe.
    pub(super) worker: Option<usize>,
    /// The session for which it asked; 0 if for none.
    pub(super) session: u64,
}

impl Asker {
    /// The region that a connection to `node` is for: what was decided on, not what the node is said to be in.
    pub(super) fn region_of<'a>(&self, rules: &'a Rules, node: &'a Node) -> &'a str {
        self.region.map_or(node.config.region.as_str(), |region| rules.policy.name(region))
    }
}

/// Connects, by `deadline` at the latest. A refusal may be that of a server that is just restarting: once more, at once.
async fn patiently<F: Future<Output = io::Result<OwnedFd>>>(connect: impl Fn() -> F, deadline: Instant) -> io::Result<OwnedFd> {
    let in_time = async || timeout_at(deadline, connect()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match in_time().await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => in_time().await,
        result => result,
    }
}

fn open_error(node: &Node, error: &io::Error) -> OpenError {
    let node = node.name.clone();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => OpenError::Refused { node },
        io::ErrorKind::TimedOut => OpenError::TimedOut { node },
        io::ErrorKind::PermissionDenied => {
            OpenError::Unreachable { node, text: "the fence does not let a connection of this region go there".to_owned() }
        }
        _ => OpenError::Unreachable { node, text: error.to_string() },
    }
}
