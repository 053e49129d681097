//! The way that a backend was opened by, shared by all backends that came by it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

/// One address of a node, for as long as the node's name leads there and the server is what it was. Whoever looks after the nodes says
/// when that is over; the pools then close its backends as they are given back.
///
/// The flag is the only thing that one thread tells the others of here, and nothing else depends on when they see it.
#[derive(Debug, Default)]
pub struct Route {
    address: Option<SocketAddr>,
    is_left: AtomicBool,
}

impl Route {
    /// The way to an address; `None` is a Unix socket.
    pub fn new(address: Option<SocketAddr>) -> Self {
        Self { address, is_left: AtomicBool::new(false) }
    }

    /// Where it leads.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// It is not to be used any more.
    pub fn leave(&self) {
        self.is_left.store(true, Ordering::Relaxed);
    }

    /// Whether it is not to be used any more.
    pub fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Relaxed)
    }
}
