//! A server that is none: it speaks enough of PostgreSQL's protocol to be logged in to, and says whatever a test has it say.
//!
//! It asks for no password unless the test does, keeps no data, and answers statements by their first word. What it is for is to
//! break the protocol in the middle of a conversation that was in order up to there.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustls::ServerConfig;

use crate::message::{message, string};
use crate::tls::Stream;
use crate::wire::set_patience;

/// How long it waits for the other side.
const PATIENCE: Duration = Duration::from_secs(30);

/// A listening server; it stops when dropped.
pub struct FakeServer {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    open: Arc<AtomicU32>,
}

impl FakeServer {
    /// Starts it on a free port; every connection has `conversation` on a thread of its own. An error ends a conversation: that
    /// the other side is gone is nothing unusual.
    pub fn start(conversation: impl Fn(&mut Conversation) -> io::Result<()> + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (stopped, open) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (is_stopped, opened, conversation) = (stopped.clone(), open.clone(), Arc::new(conversation));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if is_stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (conversation, opened) = (conversation.clone(), opened.clone());
                opened.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || {
                    let talked = Conversation::new(stream).and_then(|mut with| conversation(&mut with));
                    drop(talked);
                    opened.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        Ok(Self { address, stopped, open })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that are open now.
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Its accept returns, and the thread sees that it is over.
        TcpStream::connect(self.address).ok();
    }
}

/// One connection, from the server's side.
pub struct Conversation {
    /// Taken only to be encrypted.
    stream: Option<Stream>,
    received: Vec<u8>,
    /// What ReadyForQuery tells.
    pub status: u8,
    /// The parameters of the StartupMessage, once it is here.
    pub startup: HashMap<String, String>,
}

impl Conversation {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        set_patience(&stream, PATIENCE);
        Ok(Self { stream: Some(Stream::Plain(stream)), received: Vec::new(), status: b'I', startup: HashMap::new() })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream()?.write_all(bytes)
    }

    /// Sends bytes as they are, also where everything is encrypted.
    pub fn send_unencrypted(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream()?.socket().write_all(bytes)
    }

    fn stream(&mut self) -> io::Result<&mut Stream> {
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Has the other side, which has been told that it may, encrypt the connection.
    pub fn encrypt(&mut self, config: &Arc<ServerConfig>) -> io::Result<()> {
        let stream = self.stream.take().ok_or(io::ErrorKind::NotConnected)?;
        self.stream = Some(Stream::accept(stream.into_socket(), Arc::clone(config))?);
        Ok(())
    }

    /// Sends bytes over and over again, until the other side does not take them any more.
    pub fn flood(&mut self, bytes: &[u8]) {
        let many = bytes.repeat(1 + (64 << 10) / bytes.len().max(1));
        while self.send(&many).is_ok() {}
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        self.stream().and_then(|stream| stream.socket().shutdown(Shutdown::Both)).ok();
    }

    /// Sends each byte by itself.
    pub fn send_slowly(&mut self, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(1).try_for_each(|byte| self.send(byte))
    }

    /// The next packet without a tag: its code and what follows.
    pub fn packet(&mut self) -> io::Result<(u32, Vec<u8>)> {
        let length = self.length()?;
        let code = self.take(4)?.try_into().map(u32::from_be_bytes).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        Ok((code, self.take(length.saturating_sub(8))?))
    }

    /// Waits for so many bytes and throws them away.
    pub fn skip(&mut self, length: usize) -> io::Result<()> {
        self.take(length).map(drop)
    }

    /// The next message.
    pub fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let tag = self.take(1)?[0];
        let length = self.length()?;
        Ok((tag, self.take(length.saturating_sub(4))?))
    }

    /// Waits until the other side has closed; whatever it still sends is thrown away.
    pub fn until_closed(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        let stream = self.stream()?;
        while stream.read(&mut chunk)? > 0 {}
        // That nothing more is said in TLS does not close it.
        let mut socket = stream.socket();
        while socket.read(&mut chunk)? > 0 {}
        Ok(())
    }

    /// Reads up to and with the StartupMessage; encryption is declined.
    pub fn begin(&mut self) -> io::Result<()> {
        self.begin_as(None)
    }

    /// The same; encryption is agreed to if there is a certificate for it.
    pub fn begin_as(&mut self, tls: Option<&Arc<ServerConfig>>) -> io::Result<()> {
        loop {
            let (code, body) = self.packet()?;
            match (code, tls) {
                (80_877_103, Some(config)) => {
                    self.send(b"S")?;
                    self.encrypt(config)?;
                }
                (80_877_103 | 80_877_104, _) => self.send(b"N")?,
                (80_877_102, _) => return Err(io::Error::other("a cancel request")),
                _ => {
                    let mut texts = body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
                    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
                        self.startup.insert(name, value);
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Says that the login is over.
    pub fn admit(&mut self) -> io::Result<()> {
        self.send(&[authentication(0, b""), greeting(), ready(b'I')].concat())
    }

    /// Answers statements as a server would, until the other side leaves or `special` has said something else: it gets every
    /// message first and tells whether it has dealt with it.
    pub fn serve(&mut self, mut special: impl FnMut(&mut Self, u8, &[u8]) -> io::Result<bool>) -> io::Result<()> {
        loop {
            let (tag, body) = self.message()?;
            if !special(self, tag, &body)? {
                let answer = self.answer(tag, &body);
                self.send(&answer)?;
            }
        }
    }

    /// The same up to the first message of this type, which is not answered; its body.
    pub fn serve_until(&mut self, wanted: u8) -> io::Result<Vec<u8>> {
        loop {
            let (tag, body) = self.message()?;
            if tag == wanted {
                return Ok(body);
            }
            let answer = self.answer(tag, &body);
            self.send(&answer)?;
        }
    }

    /// What a server would answer.
    fn answer(&mut self, tag: u8, body: &[u8]) -> Vec<u8> {
        match tag {
            b'Q' => {
                let text = String::from_utf8_lossy(body).into_owned();
                let mut answer: Vec<u8> = text.trim_end_matches('\0').split(';').flat_map(|one| self.statement(one)).collect();
                answer.extend(ready(self.status));
                answer
            }
            b'P' => message(b'1', b""),
            b'B' => message(b'2', b""),
            b'C' => message(b'3', b""),
            b'D' if body.first() == Some(&b'S') => [message(b't', &[0, 0]), message(b'n', b"")].concat(),
            b'D' => message(b'n', b""),
            b'E' => complete("SELECT 0"),
            b'S' => ready(self.status),
            _ => Vec::new(),
        }
    }

    fn statement(&mut self, text: &str) -> Vec<u8> {
        let word = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        match word.as_str() {
            "" => return message(b'I', b""),
            "BEGIN" => self.status = b'T',
            "COMMIT" | "ROLLBACK" => self.status = b'I',
            "SELECT" => return [columns(), row("good"), complete("SELECT 1")].concat(),
            _ => {}
        }
        complete(&word)
    }

    fn length(&mut self) -> io::Result<usize> {
        let bytes: [u8; 4] = self.take(4)?.try_into().map_err(|_| io::ErrorKind::UnexpectedEof)?;
        usize::try_from(u32::from_be_bytes(bytes)).map_err(io::Error::other)
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut chunk = [0; 16 << 10];
        while self.received.len() < length {
            match self.stream()?.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.received.extend_from_slice(&chunk[..count]),
            }
        }
        Ok(self.received.drain(..length).collect())
    }
}

/// Authentication….
pub fn authentication(code: u32, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), data].concat())
}

/// ParameterStatus.
pub fn parameter(name: &str, value: &str) -> Vec<u8> {
    message(b'S', &[string(name), string(value)].concat())
}

/// What stands between AuthenticationOk and ReadyForQuery.
pub fn greeting() -> Vec<u8> {
    let told = [
        ("server_version", "15.0"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
        ("integer_datetimes", "on"),
    ];
    let key = message(b'K', &[0, 0, 0, 9, 1, 2, 3, 4]);
    told.iter().flat_map(|(name, value)| parameter(name, value)).chain(key).collect()
}

/// ReadyForQuery.
pub fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

/// CommandComplete.
pub fn complete(tag: &str) -> Vec<u8> {
    message(b'C', &string(tag))
}

/// RowDescription of one column `answer` of type `text`.
pub fn columns() -> Vec<u8> {
    let types = [0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0];
    message(b'T', &[&[0, 1], &string("answer")[..], &types].concat())
}

/// DataRow of one column.
pub fn row(value: &str) -> Vec<u8> {
    message(b'D', &[vec![0, 1], crate::message::counted(value)].concat())
}

/// ErrorResponse with these fields, each with its letter in front.
pub fn error(fields: &[&str]) -> Vec<u8> {
    let body: Vec<u8> = fields.iter().flat_map(|field| string(field)).chain([0]).collect();
    message(b'E', &body)
}
