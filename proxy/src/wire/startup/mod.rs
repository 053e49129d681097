//! The packets without a tag that open a connection: StartupMessage, SSLRequest, GSSENCRequest, CancelRequest.
//!
//! They come before anyone is known, so nonsense is recognised from the first eight bytes and nothing waits for more than
//! `limits::STARTUP_PACKET_BYTES_MAX`. A StartupMessage is read by the rules of PostgreSQL's `ProcessStartupPacket`, then
//! normalised: the login and the backends see this one reading and never the client's bytes, so there is nothing for two
//! parsers to disagree about. What the settings mean and who may log in is not decided here.

mod error;
mod options;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use bytes::Bytes;

pub use self::error::StartupError;

use super::CancelSecret;
use super::codec::{Fields, message, packet, put_text};
use super::tag;
use crate::limits::STARTUP_PACKET_BYTES_MAX;

/// The protocol's only major version, in the upper half of the version word.
const PROTOCOL_MAJOR: u16 = 3;
/// The minor version that is spoken at most, with clients and servers. There is no 3.1: who asks for it is spoken to as by 3.0, in
/// which it does not differ, as PostgreSQL 18 does.
pub const PROTOCOL_MINOR_MAX: u16 = 2;
/// A "major version" that no protocol has: the lower half of the word says what the packet is instead.
const REQUEST: u16 = 1234;
/// CancelRequest.
const CANCEL_REQUEST: u16 = 5678;
/// SSLRequest.
const SSL_REQUEST: u16 = 5679;
/// GSSENCRequest.
const GSS_REQUEST: u16 = 5680;
/// Length and version word.
const HEADER_BYTES: usize = 8;
/// Length of a cancellation key. PostgreSQL takes no fewer than one byte and no more than 256 (protocol 3.2).
const CANCEL_SECRET_BYTES: std::ops::RangeInclusive<usize> = 1..=256;
/// PostgreSQL cuts the names of users and databases to this length (`NAMEDATALEN` less its NUL).
const NAME_BYTES_MAX: usize = 63;

/// A packet without a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupPacket {
    /// SSLRequest.
    Ssl,
    /// GSSENCRequest.
    Gss,
    /// CancelRequest.
    Cancel(CancelRequest),
    /// StartupMessage.
    Startup(StartupMessage),
}

/// A wish to cancel what the session with this key is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelRequest {
    /// The process ID that BackendKeyData gave.
    pub process_id: u32,
    /// The secret that BackendKeyData gave.
    pub secret: CancelSecret,
}

/// What a client says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartupMessage {
    /// The minor version asked for; the major one is 3.
    pub protocol_minor: u16,
    /// Never empty, at most 63 bytes.
    pub user: String,
    /// The user's name where the client names none; never empty, at most 63 bytes.
    pub database: String,
    /// Whether the session is for replication.
    pub replication: Replication,
    /// Settings and their values, those in `options` included. Each name (compared without regard to ASCII case) stands here
    /// once, with the value PostgreSQL would give it, and none is empty or a word of the protocol (`user`, `options`, `_pq_.…`).
    pub parameters: Vec<(String, String)>,
    /// The `_pq_.…` names, which ask for extensions of the protocol.
    pub unknown_protocol_options: Vec<String>,
}

/// The `replication` word of a StartupMessage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Replication {
    /// An ordinary session.
    #[default]
    None,
    /// Physical replication, in no database.
    Physical,
    /// Logical replication, in a database.
    Database,
}

impl Replication {
    /// The kind of replication, or `none`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Physical => "physical",
            Self::Database => "logical",
        }
    }

    /// The value that asks a server for it; nothing asks for an ordinary session.
    fn value(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Physical => Some("true"),
            Self::Database => Some("database"),
        }
    }
}

/// Reads the packet that `bytes` begins with, and says how many bytes it takes. `Ok(None)`: more bytes are needed, at most
/// `limits::STARTUP_PACKET_BYTES_MAX` in all. Length and version are judged as soon as they are here.
pub fn parse(bytes: &[u8]) -> Result<Option<(StartupPacket, usize)>, StartupError> {
    let mut fields = Fields::new(bytes);
    let Some(length) = fields.u32() else { return Ok(None) };
    let packet_bytes = usize::try_from(length).unwrap_or(usize::MAX);
    if !(HEADER_BYTES..=STARTUP_PACKET_BYTES_MAX).contains(&packet_bytes) {
        return Err(StartupError::InvalidLength(length));
    }
    let (Some(major), Some(minor)) = (fields.u16(), fields.u16()) else { return Ok(None) };
    let body_bytes = packet_bytes - HEADER_BYTES;
    match (major, minor) {
        (PROTOCOL_MAJOR, _) => {}
        (REQUEST, CANCEL_REQUEST) => {
            if body_bytes.checked_sub(4).is_none_or(|secret| !CANCEL_SECRET_BYTES.contains(&secret)) {
                return Err(StartupError::InvalidLength(length));
            }
        }
        (REQUEST, SSL_REQUEST | GSS_REQUEST) => {
            if body_bytes != 0 {
                return Err(StartupError::InvalidLength(length));
            }
        }
        _ => return Err(StartupError::UnsupportedVersion { major, minor }),
    }
    let Some(body) = fields.bytes(body_bytes) else { return Ok(None) };
    let packet = match (major, minor) {
        (REQUEST, SSL_REQUEST) => StartupPacket::Ssl,
        (REQUEST, GSS_REQUEST) => StartupPacket::Gss,
        (REQUEST, _) => {
            let mut fields = Fields::new(body);
            let Some(process_id) = fields.u32() else { return Err(StartupError::InvalidLength(length)) };
            StartupPacket::Cancel(CancelRequest { process_id, secret: fields.rest().into() })
        }
        _ => StartupPacket::Startup(startup_message(minor, body)?),
    };
    Ok(Some((packet, packet_bytes)))
}

fn startup_message(protocol_minor: u16, body: &[u8]) -> Result<StartupMessage, StartupError> {
    let mut user: &[u8] = b"";
    let mut database: &[u8] = b"";
    let mut options: &[u8] = b"";
    let mut replicates = false;
    let mut in_database = false;
    let mut direct = Vec::new();
    let mut unknown_protocol_options = Vec::new();
    let mut fields = Fields::new(body);
    loop {
        let name = fields.text().ok_or(StartupError::MissingTerminator)?;
        if name.is_empty() {
            break;
        }
        let value = fields.text().ok_or(StartupError::MissingTerminator)?;
        // Of a name that stands twice the last value counts, and names are compared exactly: both as in PostgreSQL.
        match name {
            b"user" => user = value,
            b"database" => database = value,
            b"options" => options = value,
            b"replication" if value == b"database" => (replicates, in_database) = (true, true),
            b"replication" => {
                replicates = boolean(value).ok_or_else(|| StartupError::InvalidReplication(text_of(value)))?;
            }
            _ if name.starts_with(b"_pq_.") => unknown_protocol_options.push(text(name)?),
            _ => direct.push((text(name)?, text(value)?)),
        }
    }
    fields.end().ok_or(StartupError::MissingTerminator)?;
    if user.is_empty() {
        return Err(StartupError::NoUser);
    }
    if database.is_empty() {
        database = user;
    }
    let replication = match (replicates, in_database) {
        (false, _) => Replication::None,
        (true, false) => Replication::Physical,
        (true, true) => Replication::Database,
    };
    // PostgreSQL applies `options` first and the packet's own settings after it, wherever they stand.
    let mut settings = options::settings(&text(options)?)?;
    settings.extend(direct);
    Ok(StartupMessage {
        protocol_minor,
        user: text(cut_name(user))?,
        database: text(cut_name(database))?,
        replication,
        parameters: merge(settings)?,
        unknown_protocol_options,
    })
}

/// Keeps the last value of each name, in the order of those last values.
fn merge(mut settings: Vec<(String, String)>) -> Result<Vec<(String, String)>, StartupError> {
    if let Some((name, _)) = settings.iter().find(|(name, _)| is_protocol_word(name.as_bytes())) {
        return Err(StartupError::UnrecognizedParameter(name.clone()));
    }
    let mut seen = BTreeSet::new();
    settings.reverse();
    settings.retain(|(name, _)| seen.insert(name.to_ascii_lowercase()));
    settings.reverse();
    Ok(settings)
}

/// Whether a StartupMessage could read this name as something else than a setting. One that got through (`options=-c user=…`)
/// would name another user to a backend. PostgreSQL has no setting of these names, in whatever case; `_pq_.…` it would take as one
/// from `options`, but then it could not be told from a wish for an extension.
fn is_protocol_word(name: &[u8]) -> bool {
    name.is_empty()
        || [&b"user"[..], b"database", b"replication", b"options"].iter().any(|word| name.eq_ignore_ascii_case(word))
        || name.get(..5).is_some_and(|prefix| prefix.eq_ignore_ascii_case(b"_pq_."))
}

/// A boolean by PostgreSQL's words: any beginning of `true`, `false`, `yes`, `no` and, from two letters on, of `on` and `off`, in
/// any case; `1` and `0`.
fn boolean(value: &[u8]) -> Option<bool> {
    let is_start_of = |word: &[u8], letters_min: usize| {
        value.len() >= letters_min && word.get(..value.len()).is_some_and(|start| start.eq_ignore_ascii_case(value))
    };
    match value {
        b"1" => Some(true),
        b"0" => Some(false),
        _ if is_start_of(b"true", 1) || is_start_of(b"yes", 1) || is_start_of(b"on", 2) => Some(true),
        _ if is_start_of(b"false", 1) || is_start_of(b"no", 1) || is_start_of(b"off", 2) => Some(false),
        _ => None,
    }
}

fn cut_name(name: &[u8]) -> &[u8] {
    name.get(..NAME_BYTES_MAX).unwrap_or(name)
}

/// A name or value as text. PostgreSQL takes any bytes here; policy, logs and files are UTF-8, so others are refused.
fn text(bytes: &[u8]) -> Result<String, StartupError> {
    str::from_utf8(bytes).map(str::to_owned).map_err(|_| StartupError::NotUtf8)
}

/// The same for a message text.
fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// StartupMessage of protocol 3.`minor` towards a backend. `options` may be among the parameters; a name that would be read as another
/// user, another database or a wish to replicate is left out.
pub fn encode_startup<N: AsRef<str>, V: AsRef<str>>(
    minor: u16,
    user: &str,
    database: &str,
    replication: Replication,
    parameters: &[(N, V)],
) -> Bytes {
    packet(256, |body| {
        put_version(body, PROTOCOL_MAJOR, minor);
        let mut put = |name: &str, value: &str| {
            put_text(body, name.as_bytes());
            put_text(body, value.as_bytes());
        };
        put("user", user);
        put("database", database);
        if let Some(value) = replication.value() {
            put("replication", value);
        }
        for (name, value) in parameters {
            let name = name.as_ref();
            if name == "options" || !is_protocol_word(name.as_bytes()) {
                put(name, value.as_ref());
            }
        }
        body.push(0);
    })
}

/// SSLRequest.
pub fn encode_ssl_request() -> Bytes {
    packet(4, |body| put_version(body, REQUEST, SSL_REQUEST))
}

/// CancelRequest.
pub fn encode_cancel(process_id: u32, secret: &[u8]) -> Bytes {
    packet(8 + secret.len(), |body| {
        put_version(body, REQUEST, CANCEL_REQUEST);
        body.extend_from_slice(&process_id.to_be_bytes());
        body.extend_from_slice(secret);
    })
}

/// NegotiateProtocolVersion: protocol 3 is spoken up to `minor`, and of these extensions nothing is known.
pub fn encode_negotiate(minor: u16, unknown: &[String]) -> Bytes {
    message(tag::backend::NEGOTIATE_PROTOCOL_VERSION, 64, |body| {
        // The manual speaks of the minor version; PostgreSQL sends the whole word, and libpq expects it.
        put_version(body, PROTOCOL_MAJOR, minor);
        body.extend_from_slice(&u32::try_from(unknown.len()).unwrap_or(u32::MAX).to_be_bytes());
        for name in unknown {
            put_text(body, name.as_bytes());
        }
    })
}

/// The minor version and the number of refused extensions of a NegotiateProtocolVersion.
pub fn negotiate_fields(body: &[u8]) -> Option<(u16, u32)> {
    let mut fields = Fields::new(body);
    let (major, minor, refused) = (fields.u16()?, fields.u16()?, fields.u32()?);
    (major == PROTOCOL_MAJOR).then_some((minor, refused))
}

fn put_version(body: &mut Vec<u8>, major: u16, minor: u16) {
    body.extend_from_slice(&major.to_be_bytes());
    body.extend_from_slice(&minor.to_be_bytes());
}
