//! A connected socket under tokio-uring, encrypted or not, with one deadline for everything that is done on it.
//!
//! A read that the kernel has must not be dropped: it could still take bytes, and with them a part of someone's conversation. At
//! the deadline the socket is shut down instead, which ends the read.

use std::future::Future;
use std::io;
use std::net::{Shutdown, TcpStream as StdTcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_uring::net::TcpStream;

use crate::tls::{Connection, Session};

/// Bytes asked for at once; logins are short.
const READ_BYTES: usize = 4096;
/// A peer that has been silent for this long is asked whether it is still there, …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// … again after this, …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// … and given up after this many questions.
const KEEPALIVE_RETRIES: u32 = 6;

/// How often it is looked whether there is a descriptor again, …
const SHORTAGE_LOOKS: u32 = 10;
/// … and the time in between.
const SHORTAGE_LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A connected stream socket, TCP or Unix.
pub(super) struct Socket {
    /// The socket itself.
    fd: OwnedFd,
    /// tokio-uring keeps what it is given, so it works on a duplicate.
    stream: TcpStream,
    session: Option<Box<Session>>,
    deadline: Instant,
}

/// Why a handshake came to nothing.
#[derive(Debug)]
pub(super) enum HandshakeError {
    /// The connection was lost.
    Lost(io::Error),
    /// The two ends do not agree, or the other one cannot be believed.
    Refused(String),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl Socket {
    /// Takes a connected socket in blocking mode.
    pub(super) fn new(fd: OwnedFd, deadline: Instant) -> io::Result<Self> {
        // The type only says which system calls are made: read, write and close are the same for every stream socket.
        let stream = TcpStream::from_std(StdTcpStream::from(fd.try_clone()?));
        Ok(Self { fd, stream, session: None, deadline })
    }

    /// Takes a connection on which nothing is pending.
    pub(super) fn of_connection(connection: Connection, deadline: Instant) -> io::Result<Self> {
        let Connection { socket, session } = connection;
        Ok(Self { session, ..Self::new(socket, deadline)? })
    }

    /// Encrypts from here on. `begun` is what has been read of the handshake already; the text that came right behind it is returned.
    pub(super) async fn encrypt(&mut self, mut session: Session, begun: Vec<u8>) -> Result<Vec<u8>, HandshakeError> {
        let (mut text, mut arrived) = (Vec::new(), begun);
        loop {
            let mut reply = Vec::new();
            let opened = session.open(&mut arrived, &mut text, &mut reply);
            if !reply.is_empty() {
                let sent = self.send(reply).await;
                // Why it failed is worth more than that the other end was not told.
                if opened.is_ok() {
                    sent?;
                }
            }
            let closed = opened.map_err(HandshakeError::Refused)?;
            if !session.is_handshaking() {
                self.session = Some(Box::new(session));
                return Ok(text);
            }
            arrived = if closed.is_some() { Vec::new() } else { self.receive().await? };
            if arrived.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// The same for a client. When there is no descriptor left it waits a moment for one; meanwhile nobody can be accepted, and clients
    /// wait in the kernel's queue. Not for long: those that have one descriptor each could wait for each other.
    pub(super) async fn of_client(fd: OwnedFd, deadline: Instant) -> io::Result<Self> {
        for _ in 0..SHORTAGE_LOOKS {
            match fd.try_clone() {
                Err(error) if is_shortage(&error) => sleep(SHORTAGE_LOOK_AGAIN).await,
                Ok(_) | Err(_) => break,
            }
        }
        Self::new(fd, deadline)
    }

    /// Reads what there is, waiting for at least one byte; nothing at the end of the stream.
    pub(super) async fn read(&mut self) -> io::Result<Vec<u8>> {
        loop {
            let mut arrived = self.receive().await?;
            let Some(session) = &mut self.session else { return Ok(arrived) };
            if arrived.is_empty() {
                return Ok(arrived);
            }
            let (mut text, mut reply) = (Vec::new(), Vec::new());
            let opened = session.open(&mut arrived, &mut text, &mut reply);
            if !reply.is_empty() {
                self.send(reply).await?;
            }
            let closed = opened.map_err(io::Error::other)?;
            if !text.is_empty() || closed.is_some() {
                return Ok(text);
            }
        }
    }

    /// Writes all of it.
    pub(super) async fn write_all(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        let Some(session) = &mut self.session else { return self.send(bytes).await };
        let mut records = Vec::new();
        session.seal(&bytes, &mut records).map_err(io::Error::other)?;
        self.send(records).await
    }

    /// Says that nothing more will be written.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        if let Some(session) = &mut self.session {
            let mut records = Vec::new();
            session.seal_end(&mut records);
            self.send(records).await?;
        }
        SockRef::from(&self.fd).shutdown(Shutdown::Write)
    }

    /// What encrypts it, if anything does.
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        self.session.as_deref_mut()
    }

    /// The connection, on which nothing is pending.
    pub(super) fn into_connection(self) -> Connection {
        Connection { socket: self.fd, session: self.session }
    }

    async fn receive(&self) -> io::Result<Vec<u8>> {
        let (result, buffer) = self.until_deadline(self.stream.read(Vec::with_capacity(READ_BYTES))).await?;
        result.map(|_| buffer)
    }

    async fn send(&self, bytes: Vec<u8>) -> io::Result<()> {
        self.until_deadline(self.stream.write_all(bytes)).await?.0
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

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
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
