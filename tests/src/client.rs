//! A PostgreSQL client that hides nothing: it sends the bytes it is given and shows every message that comes back.
//!
//! It waits at most [`PATIENCE`] for anything, and a failure is part of the answer (see [`Transcript`]), so a test states the
//! whole conversation and needs no error handling of its own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use md5::{Digest, Md5};
use rustls::ClientConfig;

use crate::message;
use crate::scram::Scram;
use crate::tls::Stream;
use crate::transcript::{End, Message, Transcript};

/// How long a client waits for the next byte.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a client logs in with.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// Role.
    pub user: &'a str,
    /// Sent only as the server asks for it.
    pub password: &'a str,
    /// Database.
    pub database: &'a str,
    /// Further startup parameters.
    pub parameters: &'a [(&'a str, &'a str)],
}

impl Default for Login<'_> {
    fn default() -> Self {
        Self { user: "postgres", password: "postgres", database: "demo", parameters: &[] }
    }
}

/// One connection.
pub struct Client {
    stream: Stream,
    received: Vec<u8>,
    /// Everything the server said during the login.
    pub greeting: Transcript,
}

impl Client {
    /// Connects and says nothing.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::of(Stream::Plain(stream)))
    }

    /// Connects, encrypts and says nothing else: by an SSLRequest, or at once.
    pub fn connect_encrypted(address: SocketAddr, config: Arc<ClientConfig>, at_once: bool) -> io::Result<Self> {
        let mut client = Self::connect(address)?;
        if !at_once {
            client.send(&message::ssl_request());
            if client.byte() != Some(b'S') {
                return Err(io::Error::other("the server does not encrypt"));
            }
        }
        let Stream::Plain(stream) = client.stream else { unreachable!("it has just been connected") };
        Ok(Self::of(Stream::encrypt(stream, config)?))
    }

    fn of(stream: Stream) -> Self {
        Self { stream, received: Vec::new(), greeting: Transcript { messages: Vec::new(), end: End::Reached } }
    }

    /// Connects to a Unix socket and says nothing.
    pub fn connect_unix(path: &Path) -> io::Result<Self> {
        // The type only says which system calls are made, and they are the same.
        let stream = TcpStream::from(OwnedFd::from(UnixStream::connect(path)?));
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::of(Stream::Plain(stream)))
    }

    /// Connects to a Unix socket and logs in; a refusal is the whole conversation up to it.
    pub fn login_unix(path: &Path, login: &Login<'_>) -> Result<Self, Transcript> {
        Self::connect_unix(path).map_err(broken)?.begin(login)
    }

    /// Connects and logs in; a refusal is the whole conversation up to it.
    pub fn login(address: SocketAddr, login: &Login<'_>) -> Result<Self, Transcript> {
        Self::connect(address).map_err(broken)?.begin(login)
    }

    /// Whether the TLS session went on from an earlier one.
    pub fn is_resumed(&self) -> bool {
        self.stream.is_resumed()
    }

    /// Logs in on a connection on which nothing has been said yet.
    pub fn begin(mut self, login: &Login<'_>) -> Result<Self, Transcript> {
        let parameters = [&[("user", login.user), ("database", login.database)], login.parameters].concat();
        self.send(&message::startup(message::PROTOCOL_3_0, &parameters));
        self.authenticate(login)?;
        Ok(self)
    }

    /// Answers the server's challenges until it is ready; for a client that has sent its startup packet itself.
    pub fn authenticate(&mut self, login: &Login<'_>) -> Result<(), Transcript> {
        let mut said = Transcript { messages: Vec::new(), end: End::Reached };
        let mut scram = None;
        let mut signature = None;
        loop {
            let next = self.until(|_| true);
            said.end = next.end;
            let Some(message) = next.messages.into_iter().next() else { return Err(said) };
            said.messages.push(message.clone());
            match message.tag {
                b'R' => {
                    let answer = answer(&message.body, login, &mut scram, &mut signature);
                    match answer {
                        Ok(Some(bytes)) => self.send(&bytes),
                        Ok(None) => {}
                        Err(why) => {
                            said.end = End::Broken(why);
                            return Err(said);
                        }
                    }
                }
                b'E' => {
                    said.end = self.until(|_| false).end;
                    return Err(said);
                }
                b'Z' => {
                    self.greeting = said;
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// Sends bytes as they are. A server that no longer listens shows in what it answers, not here.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).ok();
    }

    /// Sends bytes; false if that was not possible within the patience that was set last.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        let patience = self.stream.socket().read_timeout().ok().flatten();
        self.stream.socket().set_write_timeout(patience).ok();
        self.stream.write_all(bytes).is_ok()
    }

    /// Reads up to and with the first message that `last` accepts.
    pub fn until(&mut self, mut last: impl FnMut(&Message) -> bool) -> Transcript {
        let mut messages = Vec::new();
        loop {
            let next = match self.message() {
                Ok(message) => message,
                Err(end) => return Transcript { messages, end },
            };
            let reached = last(&next);
            messages.push(next);
            if reached {
                return Transcript { messages, end: End::Reached };
            }
        }
    }

    /// Reads up to and with ReadyForQuery.
    pub fn until_ready(&mut self) -> Transcript {
        self.until(|message| message.tag == b'Z')
    }

    /// Sends bytes and reads up to and with ReadyForQuery.
    pub fn ask(&mut self, bytes: &[u8]) -> Transcript {
        self.send(bytes);
        self.until_ready()
    }

    /// One Query message and all that it is answered with.
    pub fn query(&mut self, text: &str) -> Transcript {
        self.ask(&message::query(text))
    }

    /// Parse, Bind, Describe, Execute of the unnamed statement, then Sync.
    pub fn extended(&mut self, text: &str) -> Transcript {
        self.ask(&[message::prepared("", text), message::sync()].concat())
    }

    /// The one byte that answers SSLRequest and GSSENCRequest; `None` when the server closes or stays silent.
    pub fn byte(&mut self) -> Option<u8> {
        while self.received.is_empty() {
            self.fill().ok()?;
        }
        Some(self.received.remove(0))
    }

    /// Stops sending and goes on reading.
    pub fn half_close(&mut self) {
        self.stream.socket().shutdown(Shutdown::Write).ok();
    }

    /// Has the connection end with a reset when it is dropped, and what is under way with it (socket(7), SO_LINGER).
    pub fn reset_when_dropped(&self) {
        rustix::net::sockopt::set_socket_linger(self.stream.socket(), Some(Duration::ZERO)).ok();
    }

    /// How long to wait for the next byte, when [`PATIENCE`] does not fit.
    pub fn set_patience(&mut self, patience: Duration) {
        self.stream.socket().set_read_timeout(Some(patience)).ok();
    }

    /// Process id and secret that a cancel request needs.
    pub fn cancel_key(&self) -> Option<(u32, Vec<u8>)> {
        let key = self.greeting.messages.iter().find(|message| message.tag == b'K')?;
        let (process_id, secret) = key.body.split_first_chunk::<4>()?;
        Some((u32::from_be_bytes(*process_id), secret.to_vec()))
    }

    /// The connection, for who goes on in another way. Nothing may have been received that was not asked for.
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// The socket, for who goes on by other means. Nothing may have been received that was not asked for.
    pub fn into_socket(self) -> OwnedFd {
        self.stream.into_socket().into()
    }

    fn message(&mut self) -> Result<Message, End> {
        loop {
            if let Some((header, _)) = self.received.split_first_chunk::<5>() {
                let [tag, length @ ..] = *header;
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                if !(4..=1 << 30).contains(&length) {
                    return Err(End::Broken(format!("a message {:?} of length {length}", char::from(tag))));
                }
                if self.received.len() > length {
                    let body = self.received[5..=length].to_vec();
                    self.received.drain(..=length);
                    return Ok(Message { tag, body });
                }
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<(), End> {
        let mut chunk = [0; 16 << 10];
        loop {
            return match self.stream.read(&mut chunk) {
                Ok(0) => Err(End::Closed),
                Ok(length) => {
                    self.received.extend_from_slice(&chunk[..length]);
                    Ok(())
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => continue,
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Err(End::Silent),
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Err(End::Closed),
                    _ => Err(End::Broken(error.to_string())),
                },
            };
        }
    }
}

fn broken(error: io::Error) -> Transcript {
    Transcript { messages: Vec::new(), end: End::Broken(error.to_string()) }
}

/// The answer to one authentication message.
fn answer(
    body: &[u8],
    login: &Login<'_>,
    scram: &mut Option<Scram>,
    signature: &mut Option<String>,
) -> Result<Option<Vec<u8>>, String> {
    let (code, rest) = body.split_first_chunk::<4>().ok_or("an authentication message without a code")?;
    match u32::from_be_bytes(*code) {
        0 => Ok(None),
        3 => Ok(Some(message::password(&message::string(login.password)))),
        5 => {
            let inner = hexadecimal(&Md5::digest(format!("{}{}", login.password, login.user)));
            let outer = hexadecimal(&Md5::digest([inner.as_bytes(), rest].concat()));
            Ok(Some(message::password(&message::string(&format!("md5{outer}")))))
        }
        10 => {
            let exchange = scram.insert(Scram::new()?);
            let body = [message::string("SCRAM-SHA-256"), message::counted(&exchange.first())].concat();
            Ok(Some(message::password(&body)))
        }
        11 => {
            let exchange = scram.as_ref().ok_or("a SASL challenge out of turn")?;
            let proof = exchange.last(login.password, &String::from_utf8_lossy(rest))?;
            *signature = Some(proof.server_signature);
            Ok(Some(message::password(proof.message.as_bytes())))
        }
        12 if signature.as_ref().is_some_and(|expected| expected.as_bytes() == rest) => Ok(None),
        12 => Err("the server does not know the password either".to_owned()),
        other => Err(format!("authentication method {other}")),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
