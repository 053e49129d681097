//! What the kernel has stopped, in words.

use std::fmt;
use std::net::SocketAddr;

/// One thing that the kernel has stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The region of the socket's tag, or `control` if it has none.
    pub region: String,
    /// The node of the tag; "" if none.
    pub node: String,
    /// The worker of the tag, if a worker asked for the socket.
    pub worker: Option<i32>,
    /// The session of the tag; 0 if none.
    pub session: u64,
    /// Where it would have gone.
    pub address: SocketAddr,
    /// What was stopped: `connect`, `sendmsg` or `egress`.
    pub hook: &'static str,
    /// The process that tried; 0 if it is not known, as for a packet.
    pub process: u32,
    /// The kernel's number of the socket (SO_COOKIE).
    pub cookie: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {} denied: region {}", self.hook, self.address, self.region)?;
        if !self.node.is_empty() {
            write!(f, ", node {}", self.node)?;
        }
        if let Some(worker) = self.worker {
            write!(f, ", worker {worker}")?;
        }
        if self.session != 0 {
            write!(f, ", session {}", self.session)?;
        }
        if self.process != 0 {
            write!(f, ", process {}", self.process)?;
        }
        write!(f, ", socket {}", self.cookie)
    }
}
