//! A socket that a worker accepts clients from.
//!
//! Accepting goes on by itself (one multishot request) until it fails. When descriptors run out, connections wait in the kernel's
//! queue and accepting is tried again by the tick: at once would be a busy loop. Who a client is, is no concern of this module.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use rustix::net::AddressFamily;

use super::ring::{Completion, Operation, Ring, Token};

/// A listening socket.
pub struct Listener {
    token: Token,
    /// Gone once the worker has stopped accepting and the kernel has let go of it.
    fd: Option<OwnedFd>,
    accepting: bool,
    stopped: bool,
    /// A failure has been logged, and nothing has been accepted since.
    logged: bool,
}

impl Listener {
    /// The listener with this place in the worker's list.
    pub fn new(index: u32, fd: OwnedFd) -> Self {
        let token = Token { index, ..Token::lone(Operation::Accept) };
        Self { token, fd: Some(fd), accepting: false, stopped: false, logged: false }
    }

    /// Begins to accept.
    pub fn accept(&mut self, ring: &mut Ring<'_>) {
        if let Some(fd) = &self.fd {
            ring.accept(fd.as_fd(), self.token);
            self.accepting = true;
        }
    }

    /// A tick: accepts again if that has failed.
    pub fn try_again(&mut self, ring: &mut Ring<'_>) {
        if !self.accepting && !self.stopped {
            self.accept(ring);
        }
    }

    /// Accepts no more. The socket is closed when the kernel has let go of it.
    pub fn stop(&mut self, ring: &mut Ring<'_>) {
        self.stopped = true;
        if self.accepting {
            ring.cancel(self.token);
        } else {
            self.fd = None;
        }
    }

    /// What accepting has brought: a connection and where it comes from (`None` for a Unix socket), or nothing.
    pub fn accepted(&mut self, completion: &Completion, ring: &mut Ring<'_>) -> Option<(OwnedFd, Option<SocketAddr>)> {
        let accepted = match completion.result {
            descriptor @ 0.. => {
                self.logged = false;
                // SAFETY: the kernel has made this descriptor for this completion, which is handled once: nobody else owns it.
                with_peer(unsafe { OwnedFd::from_raw_fd(descriptor) })
            }
            _ => None,
        };
        if completion.is_last() {
            self.accepting = false;
            // The client of an aborted connection is gone; that says nothing about the next.
            let failed = completion.result < 0 && completion.result != -libc::ECONNABORTED;
            if self.stopped {
                self.fd = None;
            } else if !failed {
                self.accept(ring);
            } else if !self.logged {
                self.logged = true;
                let error = io::Error::from_raw_os_error(completion.result.saturating_neg());
                tracing::warn!(%error, "no connections can be accepted (is LimitNOFILE too low?); trying again four times a second");
            }
        }
        accepted
    }
}

/// A connection whose origin cannot be told is dropped: as if it came from a Unix socket it could get the wrong grant. The same goes
/// for an IPv4 client of an IPv6 listener, so its address is made the IPv4 address it is.
fn with_peer(socket: OwnedFd) -> Option<(OwnedFd, Option<SocketAddr>)> {
    let address = match rustix::net::getpeername(&socket) {
        Ok(address) => address?,
        Err(error) => {
            tracing::debug!(%error, "a connection was gone before it was looked at");
            return None;
        }
    };
    if address.address_family() == AddressFamily::UNIX {
        return Some((socket, None));
    }
    let peer = SocketAddr::try_from(address).ok()?;
    Some((socket, Some(SocketAddr::new(peer.ip().to_canonical(), peer.port()))))
}
