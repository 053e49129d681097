//! A worker tells what it has: the core's report, and the addresses that only its sockets know.

use std::net::SocketAddr;

use socket2::SockRef;

use super::mailbox::Reply;
use super::sockets::SocketId;
use super::worker::Worker;
use crate::session::{Detail, Report};

impl Worker<'_> {
    /// Answers a question. It is asked rarely, so nothing is kept for it: addresses are asked of the kernel.
    pub(super) fn report(&mut self, detail: Detail, reply: Reply<Report>) {
        let mut report = self.core.report(detail);
        for client in &mut report.clients {
            let id = self.traffic.frontend(client.key);
            (client.peer, client.local) = self.addresses(id);
        }
        for server in &mut report.servers {
            let id = self.traffic.backend(server.backend.key);
            (server.peer, server.local) = self.addresses(id);
        }
        answer(reply, report);
    }

    /// The other end and ours; none of a Unix socket.
    fn addresses(&mut self, id: Option<SocketId>) -> (Option<SocketAddr>, Option<SocketAddr>) {
        let Some(socket) = id.and_then(|id| self.traffic.sockets.get(id)) else { return (None, None) };
        let socket = SockRef::from(&socket.fd);
        let address = |found: std::io::Result<socket2::SockAddr>| found.ok().and_then(|address| address.as_socket());
        (address(socket.peer_addr()), address(socket.local_addr()))
    }
}

/// Answers one who may have gone.
pub(super) fn answer<T>(reply: Reply<T>, answer: T) {
    if reply.send(answer).is_err() {
        tracing::debug!("whoever asked a worker has not waited for the answer");
    }
}
