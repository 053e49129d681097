//! Sockets that are encrypted: records become text in the buffer that they arrived in, and what is sent is gathered as text.

use std::mem;

use bytes::Bytes;

use super::{Current, Traffic};
use crate::engine::buffers::{Groups, Span};
use crate::engine::sockets::SocketId;
use crate::session::Payload;

/// What has become of bytes that arrived.
pub enum Opened {
    /// There is no whole record yet, or none with text.
    Nothing,
    /// Their text, where they were.
    InPlace(Span),
    /// Their text, which is longer than they were: the beginning of the record had come before.
    Elsewhere(Bytes),
}

impl Traffic<'_> {
    /// Whether a socket is encrypted.
    pub fn is_encrypted(&mut self, id: SocketId) -> bool {
        self.sockets.get(id).is_some_and(|socket| socket.tls.is_some())
    }

    /// Makes text of what has just arrived at an encrypted socket. Whether the connection is over behind it, and if so whether it has been
    /// broken.
    pub fn open(&mut self, id: SocketId, mut span: Span) -> (Opened, Option<bool>) {
        let Some(socket) = self.sockets.get(id) else {
            self.groups.release(span);
            return (Opened::Nothing, None);
        };
        let Some(session) = &mut socket.tls else { return (Opened::InPlace(span), None) };
        let (mut text, mut reply) = (mem::take(&mut self.text), Vec::new());
        // SAFETY: it has just been received, and nobody has been told of it yet.
        let arrived = unsafe { self.groups.bytes_mut(&mut span) };
        let over = match session.open(arrived, &mut text, &mut reply) {
            Ok(closed) => closed.map(|_| false),
            Err(error) => {
                tracing::debug!(error, "an encrypted connection is broken");
                Some(true)
            }
        };
        let opened = match u32::try_from(text.len()) {
            Ok(0) => {
                self.groups.release(span);
                Opened::Nothing
            }
            Ok(length) if text.len() <= arrived.len() => {
                arrived[..text.len()].copy_from_slice(&text);
                span.truncate(length);
                Opened::InPlace(span)
            }
            Ok(_) | Err(_) => {
                self.groups.release(span);
                Opened::Elsewhere(Bytes::copy_from_slice(&text))
            }
        };
        if !reply.is_empty() {
            socket.queue.push_bytes(reply.into());
            if !mem::replace(&mut socket.send_is_due, true) {
                self.due.push(id);
            }
        }
        text.clear();
        self.text = text;
        (opened, over)
    }
}

/// The bytes that an output names.
pub(super) fn plain<'a>(payload: &'a Payload, current: &'a Current<'_>, groups: &'a Groups) -> Option<&'a [u8]> {
    match (payload, current) {
        (Payload::Owned(bytes), _) => Some(bytes),
        (Payload::Span { start, end }, Current::Chunk { span, .. }) => groups.bytes(span).get(*start as usize..*end as usize),
        (Payload::Span { start, end }, Current::Heap { bytes, .. }) => bytes.get(*start as usize..*end as usize),
        (Payload::Span { .. }, Current::Nothing) => None,
    }
}
