//! What a test speaks over: a TCP connection, or whatever else carries bytes both ways and can be told to end.
//!
//! Cases that are about the protocol take a [`Wire`] and do not know which, so that the same cases can be played over another
//! one.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A connection.
pub trait Wire: Read + Write + Send {
    /// How long a read or write may take.
    fn set_patience(&mut self, patience: Duration);

    /// Says that nothing more will be sent, and goes on reading.
    fn half_close(&mut self);

    /// Has the connection end with a reset when it is dropped.
    fn reset_when_dropped(&mut self);
}

impl Wire for TcpStream {
    fn set_patience(&mut self, patience: Duration) {
        set_patience(self, patience);
    }

    fn half_close(&mut self) {
        self.shutdown(Shutdown::Write).ok();
    }

    fn reset_when_dropped(&mut self) {
        reset_when_dropped(self);
    }
}

/// How long a read or write of a socket may take.
pub fn set_patience(socket: &TcpStream, patience: Duration) {
    socket.set_read_timeout(Some(patience)).ok();
    socket.set_write_timeout(Some(patience)).ok();
}

/// Has a socket end with a reset (socket(7), SO_LINGER).
pub fn reset_when_dropped(socket: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO)).ok();
}

/// Makes a connection to an address.
pub type Connect = dyn Fn(SocketAddr) -> io::Result<Box<dyn Wire>> + Send + Sync;

/// Over plain TCP.
pub fn tcp(address: SocketAddr) -> io::Result<Box<dyn Wire>> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}
