//! The floor: a relay on the product's engine that connects every client to the server and passes bytes on, whatever they mean.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use crate::engine::{self, Engine, Event, Side};

/// What may wait to be sent before its source is not read any more.
const QUEUE_BYTES_MAX: usize = 256 << 10;

/// Relays from whoever connects to `listener` to `target`; ends only with an error.
pub fn run(listener: OwnedFd, target: SocketAddr) -> Result<(), std::io::Error> {
    let mut uring = engine::open()?;
    let mut engine = Engine::new(&mut uring)?;
    engine.listen(listener);
    // The other side of each socket.
    let mut peers: Vec<usize> = Vec::new();
    loop {
        engine.turn()?;
        while let Some(event) = engine.next()? {
            match event {
                Event::Accepted(client) => {
                    let Ok(server) = TcpStream::connect(target) else { continue };
                    server.set_nodelay(true)?;
                    let client = engine.admit(client, Side::Frontend);
                    let server = engine.admit(server.into(), Side::Backend);
                    peers.resize(server + 1, usize::MAX);
                    (peers[client], peers[server]) = (server, client);
                }
                Event::Received(from, span) => {
                    let to = peers[from];
                    engine.send_span(to, span);
                    if engine.queued_bytes(to) > QUEUE_BYTES_MAX {
                        engine.hold(from);
                    }
                }
                Event::Sent(to) if engine.queued_bytes(to) <= QUEUE_BYTES_MAX / 4 => engine.resume(peers[to]),
                Event::Closed(one) => {
                    engine.close(one);
                    engine.close(peers[one]);
                }
                Event::Sent(_) | Event::Timer => {}
            }
        }
    }
}
