//! Backends that a cancel request is on its way to.
//!
//! A server cancels whatever its process is doing when the request gets there. So from the moment on at which a request is sent until
//! the server has closed the connection that it came by, its backend is lent to nobody else, is not moved and is not reset: it is
//! withheld. When it cannot be known whether the request is over, the backend is closed.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::backend::State;
use super::key::{BackendKey, NodeIdentity};
use super::pools::Pools;
use crate::wire::CancelSecret;

/// A request that is on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cancelling {
    /// Another one has come for the same session.
    again: bool,
}

/// Where a cancel request goes, and the key that the server gave.
#[derive(Clone)]
pub struct CancelTarget {
    /// The node.
    pub node: Arc<NodeIdentity>,
    /// The very address that the backend is connected to; `None`: a Unix socket, that of the node.
    pub peer: Option<SocketAddr>,
    /// Whether the backend's connection is encrypted; then this one must be too.
    pub is_encrypted: bool,
    /// The server's process.
    pub process_id: u32,
    /// Its secret.
    pub secret: CancelSecret,
}

impl fmt::Debug for CancelTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, peer, is_encrypted: _, process_id, secret: _ } = self;
        write!(f, "process {process_id} of node {} at {peer:?}", node.name)
    }
}

impl Pools {
    /// A cancel request is to be sent to a backend. `None`: one is on its way already, and another follows it if there is still
    /// something to cancel; or the server has given no key.
    pub fn begin_cancel(&mut self, key: BackendKey) -> Option<CancelTarget> {
        let backend = self.get(key)?;
        if let Some(under_way) = &mut backend.cancelling {
            under_way.again = true;
            return None;
        }
        let target = backend.cancel_target()?;
        backend.cancelling = Some(Cancelling::default());
        Some(target)
    }

    /// Whether a cancel request is on its way to a backend.
    pub fn is_being_cancelled(&mut self, key: BackendKey) -> bool {
        self.get(key).is_some_and(|backend| backend.cancelling.is_some())
    }

    /// A cancel request is over, or nobody knows (`is_over` is false). A backend that has been given back since may serve others again.
    /// True: another request has come, and the session that it was for still has the backend.
    pub fn end_cancel(&mut self, key: BackendKey, is_over: bool, now: Instant) -> bool {
        let Some(backend) = self.get(key) else { return false };
        let Some(ended) = backend.cancelling.take() else { return false };
        backend.spoiled |= !is_over;
        match backend.state {
            State::Withheld => {
                self.release(key, now);
                false
            }
            State::Bound(_) => ended.again,
            State::Idle | State::Resetting | State::Moving => {
                debug_assert!(false, "a withheld backend is nowhere else");
                false
            }
        }
    }
}
