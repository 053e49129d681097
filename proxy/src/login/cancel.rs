//! Brings cancel requests to servers: asks the worker whose session a key names, and carries what it answers.
//!
//! A request costs a connection to a server only if a worker knows its key, and at most one at a time for each backend. The connection
//! goes to the very address that the backend is connected to, and takes no place of any pool. The client's own connection stays open
//! until all is done, because clients wait for its end.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::Desk;
use super::backend::describe;
use super::node::Node;
use super::socket::Socket;
use crate::engine::ToWorker;
use crate::fence::{Purpose, number};
use crate::pool::CancelTarget;
use crate::session::{Cancel, CancelOrder, worker_of_process};
use crate::wire::startup::{CancelRequest, encode_cancel};

impl Desk {
    /// Somebody has shown a key.
    pub(super) async fn cancel(&self, request: CancelRequest) {
        let workers = match worker_of_process(request.process_id) {
            Some(worker) => worker..worker + 1,
            None => 0..self.sessions.len(),
        };
        let request = Arc::new(request);
        let asked = workers.filter(|worker| *worker < self.sessions.len()).map(|worker| {
            let (reply, answer) = oneshot::channel();
            (self.deliver)(worker, ToWorker::Cancel(Arc::clone(&request), reply));
            (worker, answer)
        });
        let asked: Vec<_> = asked.collect();
        let mut is_known = false;
        for (worker, answer) in asked {
            match answer.await {
                Ok(Cancel::Send(order)) => {
                    is_known = true;
                    self.send_cancels(worker, order).await;
                }
                Ok(Cancel::Done) => is_known = true,
                // A worker that has gone has no sessions.
                Ok(Cancel::Unknown) | Err(_) => {}
            }
        }
        if !is_known {
            self.logins.count_unknown_cancel();
        }
    }

    /// A worker wants a request sent.
    pub fn cancel_late(self: &Rc<Self>, worker: usize, order: CancelOrder) {
        let desk = Rc::clone(self);
        tokio_uring::spawn(async move { desk.send_cancels(worker, order).await });
    }

    /// Sends a request, and those that come for the same backend in the meantime.
    async fn send_cancels(&self, worker: usize, first: CancelOrder) {
        let mut next = Some(first);
        while let Some(CancelOrder { backend, target }) = next {
            let is_over = self.send_cancel(&target).await;
            debug!(node = &*target.node.name, process_id = target.process_id, is_over, "cancel request sent");
            let (reply, answer) = oneshot::channel();
            (self.deliver)(worker, ToWorker::CancelOver(backend, is_over, reply));
            next = answer.await.unwrap_or(None);
        }
    }

    /// Whether it is certain that the server has nothing more to do with the request.
    async fn send_cancel(&self, target: &CancelTarget) -> bool {
        let deadline = Instant::now() + self.rules().config.pools.connect_timeout;
        // Nothing has reached the server.
        let Ok(Ok(mut socket)) = timeout_at(deadline, self.connect_for(target, deadline)).await else { return true };
        let sent = async {
            socket.write_all(encode_cancel(target.process_id, target.secret.bytes()).into()).await?;
            // The server closes without a word once it has told its process.
            socket.read().await
        };
        matches!(sent.await, Ok(bytes) if bytes.is_empty())
    }

    async fn connect_for(&self, target: &CancelTarget, deadline: Instant) -> io::Result<Socket> {
        let rules = self.rules();
        let region = rules.policy.name(target.node.region);
        let purpose = Purpose { region: number(region), node: number(&target.node.name), worker: None, session: 0 };
        // A node that has been reconfigured is another one; but the key must not be shown to everyone in between all the same.
        let is_it = |node: &&Rc<Node>| match target.peer {
            Some(_) => node.name == target.node.name,
            None => Arc::ptr_eq(&node.identity, &target.node),
        };
        let node = rules.nodes.iter().find(is_it).ok_or(io::ErrorKind::NotFound);
        let socket = match target.peer {
            Some(peer) => self.by_address(peer, rules.config.pools.tcp_user_timeout, &purpose).await?,
            None => self.by_path(&node?.config.address.socket_path().ok_or(io::ErrorKind::InvalidInput)?, &purpose).await?,
        };
        if !target.is_encrypted {
            return Socket::new(socket, deadline);
        }
        let node = node?;
        let mut socket = self.secure(node, region, socket, deadline).await.map_err(|error| io::Error::other(describe(&error)))?;
        // A server that does not encrypt any more is not told either.
        if socket.session().is_some() { Ok(socket) } else { Err(io::ErrorKind::Unsupported.into()) }
    }
}
