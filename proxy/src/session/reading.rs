//! How the messages of a server are read: which of them whole, and what an ErrorResponse must say.

use crate::limits::{BACKEND_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::wire::error::sqlstate_of;
use crate::wire::tag::backend as tag;
use crate::wire::{Malformed, Mode, parse_error};

/// What is waited for of an ErrorResponse that is too long to be kept: its severity, twice, and its SQLSTATE stand there.
const ERROR_HEAD_BYTES: usize = 256;

/// A message that the backend may not send.
pub(super) struct Broken;

impl From<Malformed> for Broken {
    fn from(_: Malformed) -> Self {
        Self
    }
}

/// Which messages are read whole: those that the core looks into, and those that are small anyway. `describes`: the next reply is a
/// Describe whose result is to be remembered.
pub(super) fn mode(message: u8, body_len: usize, describes: bool) -> Result<Mode, Broken> {
    match message {
        tag::ERROR_RESPONSE if body_len <= BACKEND_MESSAGE_BYTES_MAX => Ok(Mode::Gather),
        tag::ERROR_RESPONSE if body_len <= MESSAGE_BYTES_MAX => Ok(Mode::StreamAfter(ERROR_HEAD_BYTES)),
        tag::ROW_DESCRIPTION if describes && body_len <= BACKEND_MESSAGE_BYTES_MAX => Ok(Mode::Gather),
        tag::READY_FOR_QUERY
        | tag::COMMAND_COMPLETE
        | tag::PARAMETER_STATUS
        | tag::PARSE_COMPLETE
        | tag::BIND_COMPLETE
        | tag::CLOSE_COMPLETE
        | tag::NO_DATA
        | tag::PORTAL_SUSPENDED
        | tag::EMPTY_QUERY_RESPONSE
        | tag::COPY_DONE => {
            if body_len > BACKEND_MESSAGE_BYTES_MAX {
                Err(Broken)
            } else {
                Ok(Mode::Gather)
            }
        }
        _ if body_len > MESSAGE_BYTES_MAX => Err(Broken),
        _ => Ok(Mode::Stream),
    }
}

/// Whether an ErrorResponse says what it must, as far as it is here; `payload` is the message with its header. What a client makes of
/// one without SQLSTATE nobody knows (PgBouncer's CVE-2026-6666: it crashed).
pub(super) fn is_sound_error(payload: &[u8]) -> bool {
    let (body, length) = (payload.get(5..).unwrap_or_default(), payload.get(1..5).unwrap_or_default());
    let is_whole = u32::try_from(body.len() + 4).is_ok_and(|bytes| length == bytes.to_be_bytes());
    sqlstate_of(body).is_some() && (!is_whole || parse_error(body).is_some())
}

/// Whether an ErrorResponse is the server's last word: its severity, field V, is FATAL or PANIC. The fields S and V come first.
pub(super) fn ends_connection(body: &[u8]) -> bool {
    let fields = body.split(|byte| *byte == 0).take(2);
    fields.filter_map(<[u8]>::split_first).any(|(field, value)| *field == b'V' && (value == b"FATAL" || value == b"PANIC"))
}
