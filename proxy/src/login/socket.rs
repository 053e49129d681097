//! A connected socket under tokio-uring, with one deadline for everything that is done on it.
//!
//! A read that the kernel has must not be dropped: it could still take bytes, and with them a part of someone's conversation. At
//! the deadline the socket is shut down instead, which ends the read.

use std::future::Future;
use std::io;
use std::net::{Shutdown, TcpStream as StdTcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::time::{Instant, timeout_at};
use tokio_uring::net::TcpStream;

/// Bytes asked for at once; logins are short.
const READ_BYTES: usize = 4096;
/// A peer that has been silent for this long is asked whether it is still there, …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// … again after this, …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// … and given up after this many questions.
const KEEPALIVE_RETRIES: u32 = 6;

/// A connected stream socket, TCP or Unix.
pub(super) struct Socket {
    /// The socket itself.
    fd: OwnedFd,
    /// tokio-uring keeps what it is given, so it works on a duplicate.
    stream: TcpStream,
    deadline: Instant,
}

impl Socket {
    /// Takes a connected socket in blocking mode.
    pub(super) fn new(fd: OwnedFd, deadline: Instant) -> io::Result<Self> {
        // The type only says which system calls are made: read, write and close are the same for every stream socket.
        let stream = TcpStream::from_std(StdTcpStream::from(fd.try_clone()?));
        Ok(Self { fd, stream, deadline })
    }

    /// Reads what there is, waiting for at least one byte; nothing at the end of the stream.
    pub(super) async fn read(&self) -> io::Result<Vec<u8>> {
        let (result, buffer) = self.until_deadline(self.stream.read(Vec::with_capacity(READ_BYTES))).await?;
        result.map(|_| buffer)
    }

    /// Writes all of it.
    pub(super) async fn write_all(&self, bytes: Vec<u8>) -> io::Result<()> {
        self.until_deadline(self.stream.write_all(bytes)).await?.0
    }

    /// Says that nothing more will be written.
    pub(super) fn finish(&self) -> io::Result<()> {
        SockRef::from(&self.fd).shutdown(Shutdown::Write)
    }

    /// The socket, on which nothing is pending.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    async fn until_deadline<T>(&self, operation: impl Future<Output = T>) -> io::Result<T> {
        tokio::pin!(operation);
        if let Ok(done) = timeout_at(self.deadline, operation.as_mut()).await {
            return Ok(done);
        }
        SockRef::from(&self.fd).shutdown(Shutdown::Both)?;
        operation.await;
        Err(io::ErrorKind::TimedOut.into())
    }
}

/// Small messages leave at once, and a peer that has vanished is noticed. `socket` is a TCP socket.
pub(super) fn tune(socket: &OwnedFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    socket.set_tcp_keepalive(&keepalive)
}

/// What is sent and not acknowledged for so long ends the connection (TCP_USER_TIMEOUT, RFC 5482); zero leaves it to the kernel, which
/// goes on for some fifteen minutes.
pub(super) fn tune_backend(socket: &OwnedFd, user_timeout: Duration) -> io::Result<()> {
    match user_timeout {
        Duration::ZERO => Ok(()),
        timeout => SockRef::from(socket).set_tcp_user_timeout(Some(timeout)),
    }
}
