//! One TLS session: records of the connection become text, text becomes records.
//!
//! rustls works on the bytes where they lie, but hands text out as a copy, which is appended to the caller's buffer. What is not a
//! whole record yet is kept until the rest of it has come; between two records a session keeps nothing of the connection.

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedConnectionCommon,
    UnbufferedStatus,
};

use super::certificate::{CertificateFacts, end_point};

/// What a record adds to its text at most: header, explicit nonce, tag, content type.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// Text of one record (RFC 8446, section 5.1).
const RECORD_TEXT_BYTES_MAX: usize = 1 << 14;

/// The other end has said that nothing more comes (close_notify).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// A TLS session.
pub struct Session {
    side: Side,
    /// The beginning of a record, or of a message of the handshake.
    pending: Vec<u8>,
    /// It has failed: rustls must not be asked for anything more.
    is_broken: bool,
    is_over: bool,
    has_said_over: bool,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client { connection: UnbufferedClientConnection, end_point: Option<Box<[u8]>> },
}

impl Session {
    pub(super) fn server(connection: UnbufferedServerConnection) -> Self {
        Self::of(Side::Server(connection))
    }

    pub(super) fn client(connection: UnbufferedClientConnection) -> Self {
        Self::of(Side::Client { connection, end_point: None })
    }

    fn of(side: Side) -> Self {
        Self { side, pending: Vec::new(), is_broken: false, is_over: false, has_said_over: false }
    }

    /// Takes what has arrived, and spoils it. Appends the text in it to `text`, and to `reply` what is to be sent in answer, which
    /// may be there even if it fails: it tells the other end why. To begin a handshake as the client, take nothing.
    ///
    /// # Errors
    /// The other end does not speak TLS, or not any that is allowed, or cannot be believed; the text says which. The session is over.
    pub fn open(&mut self, arrived: &mut [u8], text: &mut Vec<u8>, reply: &mut Vec<u8>) -> Result<Option<Closed>, String> {
        if self.is_broken {
            return Err("the session has failed".to_owned());
        }
        let result = if self.pending.is_empty() {
            let (used, result) = self.side.drive(arrived, text, reply);
            self.pending.extend_from_slice(arrived.get(used..).unwrap_or_default());
            result
        } else {
            self.pending.extend_from_slice(arrived);
            let (used, result) = self.side.drive(&mut self.pending, text, reply);
            self.forget_pending(used);
            result
        };
        match result {
            Ok(over) => {
                self.is_over |= over;
                Ok(self.is_over.then_some(Closed))
            }
            Err(error) => {
                self.is_broken = true;
                Err(describe(&error))
            }
        }
    }

    /// The first bytes of what was kept are done with.
    fn forget_pending(&mut self, used: usize) {
        if used == self.pending.len() {
            self.pending = Vec::new();
        } else {
            self.pending.drain(..used);
        }
    }

    /// Appends the records of `text` to `records`.
    ///
    /// # Errors
    /// The handshake is not over, or the session is.
    pub fn seal(&mut self, text: &[u8], records: &mut Vec<u8>) -> Result<(), String> {
        if self.is_broken || self.has_said_over {
            return Err("the session is over".to_owned());
        }
        let (used, result) = self.side.seal(&mut self.pending, Some(text), records);
        self.forget_pending(used);
        result
    }

    /// Appends the record that says that nothing more comes (close_notify), once.
    pub fn seal_end(&mut self, records: &mut Vec<u8>) {
        if !self.is_broken && !self.has_said_over {
            self.has_said_over = true;
            let (used, result) = self.side.seal(&mut self.pending, None, records);
            self.forget_pending(used);
            if let Err(error) = result {
                tracing::debug!(error, "a TLS session could not be closed in form");
            }
        }
    }

    /// Whether the handshake is still going on.
    pub fn is_handshaking(&self) -> bool {
        match &self.side {
            Side::Server(connection) => connection.is_handshaking(),
            Side::Client { connection, .. } => connection.is_handshaking(),
        }
    }

    /// What the certificate of the other end says. It was checked in the handshake, as far as the context asks for that.
    pub fn certificate(&self) -> Option<CertificateFacts> {
        let certificates = match &self.side {
            Side::Server(connection) => connection.peer_certificates(),
            Side::Client { connection, .. } => connection.peer_certificates(),
        };
        CertificateFacts::read(certificates?.first()?)
    }

    /// What channel binding binds to, seen from a client: the hash of the certificate that the server has shown.
    pub fn server_end_point(&mut self) -> Option<Box<[u8]>> {
        let Side::Client { connection, end_point: known } = &mut self.side else { return None };
        if known.is_none() {
            *known = end_point(connection.peer_certificates()?.first()?);
        }
        known.clone()
    }

    /// The protocol that both ends have agreed on (ALPN, RFC 7301), if any.
    pub fn alpn(&self) -> Option<&[u8]> {
        match &self.side {
            Side::Server(connection) => connection.alpn_protocol(),
            Side::Client { connection, .. } => connection.alpn_protocol(),
        }
    }

    /// The version and the cipher suite in their usual names, such as `TLSv1.3/TLS_AES_256_GCM_SHA384`.
    pub fn shown(&self) -> String {
        let (version, suite) = match &self.side {
            Side::Server(connection) => (connection.protocol_version(), connection.negotiated_cipher_suite()),
            Side::Client { connection, .. } => (connection.protocol_version(), connection.negotiated_cipher_suite()),
        };
        let version = version.and_then(|version| version.as_str()).unwrap_or("TLS").replace("TLSv1_", "TLSv1.");
        let suite = suite.and_then(|suite| suite.suite().as_str()).unwrap_or("?").replace("TLS13_", "TLS_");
        format!("{version}/{suite}")
    }
}

impl Side {
    fn drive(&mut self, arrived: &mut [u8], text: &mut Vec<u8>, reply: &mut Vec<u8>) -> (usize, Result<bool, rustls::Error>) {
        match self {
            Self::Server(connection) => drive(&mut **connection, arrived, text, reply),
            Self::Client { connection, .. } => drive(&mut **connection, arrived, text, reply),
        }
    }

    fn seal(&mut self, pending: &mut [u8], text: Option<&[u8]>, records: &mut Vec<u8>) -> (usize, Result<(), String>) {
        match self {
            Self::Server(connection) => seal(&mut **connection, pending, text, records),
            Self::Client { connection, .. } => seal(&mut **connection, pending, text, records),
        }
    }
}

/// The one call of rustls that both sides have, each for itself.
trait Process {
    type Data;

    fn process<'c, 'i>(&'c mut self, arrived: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn has_something_to_send(&self) -> bool;
}

impl Process for UnbufferedConnectionCommon<ServerConnectionData> {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, arrived: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(arrived)
    }

    fn has_something_to_send(&self) -> bool {
        self.wants_write()
    }
}

impl Process for UnbufferedConnectionCommon<ClientConnectionData> {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, arrived: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(arrived)
    }

    fn has_something_to_send(&self) -> bool {
        self.wants_write()
    }
}

/// Handles what has arrived. The bytes that are done with, and whether the other end has said that nothing more comes.
///
/// rustls counts in what it has been given and was not told to be done with, so it must get just that at the next call, whatever the
/// call is for.
fn drive<P: Process>(
    connection: &mut P,
    arrived: &mut [u8],
    text: &mut Vec<u8>,
    reply: &mut Vec<u8>,
) -> (usize, Result<bool, rustls::Error>) {
    let (mut used, mut over) = (0, false);
    let failure = loop {
        let UnbufferedStatus { mut discard, state } = connection.process(arrived.get_mut(used..).unwrap_or_default());
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(Ok(record)) = traffic.next_record() {
                    discard += record.discard;
                    text.extend_from_slice(record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, reply),
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => over = true,
            Ok(ConnectionState::Closed) => return (used + discard, Ok(true)),
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => return (used + discard, Ok(over)),
            // Early data is never accepted: it could be sent twice by somebody else (RFC 8446, section 8).
            Ok(_) => return (used + discard, Err(rustls::Error::General("early data".to_owned()))),
            Err(error) => break error,
        }
        used += discard;
    };
    // The alert that tells the other end why is all that may still be asked for, and only if there is one.
    if connection.has_something_to_send()
        && let Ok(ConnectionState::EncodeTlsData(mut data)) = connection.process(&mut []).state
    {
        encode(&mut data, reply);
    }
    (used, Err(failure))
}

/// `text`, or the end of the session. `pending` is what rustls has been given and was not done with.
fn seal<P: Process>(
    connection: &mut P,
    pending: &mut [u8],
    text: Option<&[u8]>,
    records: &mut Vec<u8>,
) -> (usize, Result<(), String>) {
    let mut used = 0;
    loop {
        let UnbufferedStatus { discard, state } = connection.process(pending.get_mut(used..).unwrap_or_default());
        used += discard;
        match state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                let length = text.map_or(0, <[u8]>::len);
                let space = length + (length / RECORD_TEXT_BYTES_MAX + 1) * RECORD_OVERHEAD_BYTES;
                let done = append(records, space, |space| {
                    let written = match text {
                        Some(text) => traffic.encrypt(text, space),
                        None => traffic.queue_close_notify(space),
                    };
                    written.map_err(|error| match error {
                        EncryptError::InsufficientSize(needed) => Some(needed),
                        EncryptError::EncryptExhausted => None,
                    })
                });
                return (used, if done { Ok(()) } else { Err("its keys are worn out".to_owned()) });
            }
            // Something of rustls' own goes first.
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, records),
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => {}
            Ok(_) => return (used, Err("the handshake is not over".to_owned())),
            Err(error) => return (used, Err(describe(&error))),
        }
    }
}

fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, records: &mut Vec<u8>) {
    append(records, 1 << 10, |space| {
        data.encode(space).map_err(|error| match error {
            EncodeError::InsufficientSize(needed) => Some(needed),
            EncodeError::AlreadyEncoded => None,
        })
    });
}

/// Lets `write` write behind `bytes`, into so much space, or as much as it turns out to need. False: it could not.
fn append(
    bytes: &mut Vec<u8>,
    space: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<InsufficientSizeError>>,
) -> bool {
    let end = bytes.len();
    let mut space = space;
    for _ in 0..2 {
        bytes.resize(end + space, 0);
        match write(&mut bytes[end..]) {
            Ok(written) => {
                bytes.truncate(end + written);
                return true;
            }
            Err(Some(needed)) => space = needed.required_size,
            Err(None) => break,
        }
    }
    bytes.truncate(end);
    false
}

fn describe(error: &rustls::Error) -> String {
    match error {
        rustls::Error::AlertReceived(alert) => format!("the other end has sent the TLS alert {alert:?}"),
        rustls::Error::InvalidMessage(_) => format!("this is not TLS: {error}"),
        error => error.to_string(),
    }
}
