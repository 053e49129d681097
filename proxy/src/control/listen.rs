//! Binds the addresses that are listened on.
//!
//! Each worker has a socket of its own per address (SO_REUSEPORT), and the kernel spreads clients over them. SO_REUSEPORT would also
//! let a second process of the same user take half of the clients, so every address is first bound without it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

/// The listening sockets of each worker, in the order of the addresses. Port 0 is the same free port for all workers.
///
/// # Errors
/// An address is taken, or not this host's; the error names it.
pub(super) fn bind(addresses: &[SocketAddr], workers: usize) -> io::Result<Vec<Vec<OwnedFd>>> {
    let mut listeners: Vec<Vec<OwnedFd>> = (0..workers).map(|_| Vec::with_capacity(addresses.len())).collect();
    for address in addresses {
        let naming = |error: io::Error| naming(*address, &error);
        let address = free(*address).map_err(naming)?;
        for listeners in &mut listeners {
            listeners.push(shared(address).map_err(naming)?);
        }
        tracing::info!(%address, "listening");
    }
    Ok(listeners)
}

/// The listening socket for HTTP.
///
/// # Errors
/// As [`bind`].
pub(super) fn bind_http(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| naming(address, &error))?;
    tracing::info!(address = %listener.local_addr()?, "serving HTTP");
    Ok(listener)
}

fn naming(address: SocketAddr, error: &io::Error) -> io::Error {
    let text = match error.kind() {
        io::ErrorKind::AddrInUse => format!("{address}: address already in use"),
        _ => format!("{address}: {error}"),
    };
    io::Error::new(error.kind(), text)
}

/// The address, with a port, if nobody else has it.
fn free(address: SocketAddr) -> io::Result<SocketAddr> {
    let socket = socket(address)?;
    socket.bind(&address.into())?;
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

fn shared(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(address)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a former process that are still in TIME_WAIT are no reason to refuse.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // As PostgreSQL does: IPv4 is listened on by its own address.
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_has_its_own_socket_on_one_port() {
        let listeners = bind(&["127.0.0.1:0".parse().unwrap()], 3).unwrap();
        let ports: Vec<_> = listeners
            .into_iter()
            .flatten()
            .map(|socket| Socket::from(socket).local_addr().unwrap().as_socket().unwrap().port())
            .collect();
        assert_eq!(ports.len(), 3);
        assert!(ports[0] != 0 && ports.iter().all(|port| *port == ports[0]));
    }

    #[test]
    fn an_address_that_is_taken_is_named_even_by_one_that_would_share_it() {
        for shares in [false, true] {
            let taken = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            taken.set_reuse_port(shares).unwrap();
            taken.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
            taken.listen(1).unwrap();
            let address = taken.local_addr().unwrap().as_socket().unwrap();
            let error = bind(&[address], 1).unwrap_err();
            assert_eq!(error.to_string(), format!("{address}: address already in use"));
        }
    }
}
