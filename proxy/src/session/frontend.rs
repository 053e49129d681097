//! The client's stream: splits it into messages and brings each to the room that understands it.

use bytes::Bytes;

use super::client::{Session, Unit, Wait};
use super::gate::Gate;
use super::output::{Feed, Output, Outputs, Payload, farewell};
use super::{Common, Refusal};
use crate::limits::{BIND_NAMES_BYTES_MAX, MESSAGE_BYTES_MAX, OWED_REPLIES_MAX, SMALL_MESSAGE_BYTES_MAX, STATEMENT_BYTES_MAX};
use crate::pool::{Kind, Rule};
use crate::sql::{Guard, GuardSet};
use crate::wire::tag::frontend as tag;
use crate::wire::{Frame, Malformed, Mode, TransactionStatus, frontend};

/// What becomes of a message.
pub(super) enum Verdict {
    /// It goes to the session's backend as it is.
    Forward,
    /// It goes to the session's backend, with another head in place of the header and the first bytes of its body.
    Rename { head: Bytes, from: usize },
    /// It has been dealt with, or is dropped.
    Done,
    /// It has to wait, and everything behind it.
    Hold(Wait),
    /// What is behind it has to wait; what is left of it has been held already.
    HoldBehind(Wait),
    /// The client has broken the protocol: FATAL.
    Fatal(Refusal),
    /// The client says goodbye.
    Goodbye,
}

/// A message of the client, or the head of one whose rest is streamed.
pub(super) struct Message<'a> {
    pub(super) tag: u8,
    /// Without the header.
    pub(super) body: &'a [u8],
    /// Bytes that the whole body has.
    pub(super) len: usize,
    /// The body is all there.
    pub(super) complete: bool,
}

/// Why a header is refused.
enum Refused {
    Length,
    UnknownType(u8),
}

impl From<Malformed> for Refused {
    fn from(_: Malformed) -> Self {
        Self::Length
    }
}

/// How much of a message must be seen before it can be decided on, and how long it may be.
fn mode(message: u8, body_len: usize) -> Result<Mode, Refused> {
    let (mode, bytes_max) = match message {
        tag::QUERY | tag::PARSE => (Mode::Gather, STATEMENT_BYTES_MAX),
        tag::BIND if body_len <= BIND_NAMES_BYTES_MAX => (Mode::Gather, MESSAGE_BYTES_MAX),
        tag::BIND => (Mode::StreamAfter(BIND_NAMES_BYTES_MAX), MESSAGE_BYTES_MAX),
        tag::FUNCTION_CALL if body_len <= FUNCTION_NUMBER_BYTES => (Mode::Gather, MESSAGE_BYTES_MAX),
        tag::FUNCTION_CALL => (Mode::StreamAfter(FUNCTION_NUMBER_BYTES), MESSAGE_BYTES_MAX),
        tag::COPY_DATA => (Mode::Stream, MESSAGE_BYTES_MAX),
        tag::EXECUTE | tag::DESCRIBE | tag::CLOSE | tag::SYNC | tag::FLUSH | tag::TERMINATE | tag::COPY_DONE | tag::COPY_FAIL => {
            (Mode::Gather, SMALL_MESSAGE_BYTES_MAX)
        }
        unknown => return Err(Refused::UnknownType(unknown)),
    };
    if body_len > bytes_max { Err(Refused::Length) } else { Ok(mode) }
}

/// Bytes at the head of a FunctionCall that say which function.
const FUNCTION_NUMBER_BYTES: usize = 4;
/// Bytes of a message's type and length.
const HEADER_BYTES: usize = 5;

/// Bytes of the body of a message, as its header says.
fn announced_len(message: &[u8]) -> usize {
    let length = message.get(1..).and_then(<[u8]>::first_chunk).map_or(0, |length| u32::from_be_bytes(*length));
    (length as usize).saturating_sub(4)
}

impl Refused {
    fn refusal(&self) -> Refusal {
        match self {
            Self::Length => Refusal::protocol("invalid message length"),
            Self::UnknownType(message) => Refusal::protocol(format!("invalid frontend message type {message}")),
        }
    }
}

impl Common {
    /// Looks at the client's bytes, message by message, until they are used up or one has to wait. True: the session is over.
    pub(super) fn advance(&mut self, session: &mut Session, feed: &Feed<'_>, out: &mut Outputs) -> bool {
        let bytes = feed.bytes();
        let mut at = 0;
        loop {
            let frame = match session.splitter.next(bytes, &mut at, mode) {
                Ok(Some(frame)) => frame,
                Ok(None) => return false,
                Err(refused) => return self.broken(session, &refused.refusal(), out),
            };
            let mut gathered = Bytes::new();
            let (tag, message, complete, range) = match frame {
                Frame::Whole { tag, range } => (tag, &bytes[range.clone()], true, Some(range)),
                Frame::Head { tag, range, .. } => (tag, &bytes[range.clone()], false, Some(range)),
                Frame::Gathered { tag, bytes } => {
                    gathered = bytes;
                    (tag, &gathered[..], true, None)
                }
                Frame::GatheredHead { tag, bytes, .. } => {
                    gathered = bytes;
                    (tag, &gathered[..], false, None)
                }
                Frame::Body { range, last, .. } => {
                    if session.streaming
                        && let Some(backend) = session.backend
                    {
                        self.note_sent(session, backend, None);
                        feed.to_backend(backend, range, out);
                    }
                    session.streaming &= !last;
                    continue;
                }
            };
            let body = message.get(5..).unwrap_or_default();
            let len = announced_len(message);
            let verdict = self.message(session, &Message { tag, body, len, complete }, out);
            let skip = match &verdict {
                Verdict::Rename { from, .. } => HEADER_BYTES + from,
                _ => 0,
            };
            match verdict {
                Verdict::Forward | Verdict::Rename { .. } => {
                    session.streaming = !complete;
                    let Some(backend) = session.backend else {
                        return self.broken(session, &Refusal::internal("a message to forward and no backend"), out);
                    };
                    if let Verdict::Rename { head, .. } = verdict {
                        out.push(Output::ToBackend(backend, Payload::Owned(head)));
                    }
                    match range {
                        Some(range) if skip < range.len() => feed.to_backend(backend, range.start + skip..range.end, out),
                        None if skip < gathered.len() => {
                            out.push(Output::ToBackend(backend, Payload::Owned(gathered.slice(skip..))))
                        }
                        Some(_) | None => {}
                    }
                }
                Verdict::Done => session.streaming = false,
                verdict @ (Verdict::Hold(wait) | Verdict::HoldBehind(wait)) => {
                    session.wait = wait;
                    session.streaming = false;
                    if matches!(verdict, Verdict::Hold(_)) {
                        session.hold(message);
                    }
                    session.hold(bytes.get(at..).unwrap_or_default());
                    // The bytes will be fed again from the message's first byte on.
                    session.splitter = crate::wire::Splitter::default();
                    return false;
                }
                Verdict::Fatal(refusal) => return self.broken(session, &refusal, out),
                Verdict::Goodbye => {
                    out.push(Output::CloseFrontend(session.key));
                    return true;
                }
            }
        }
    }

    /// The client broke the protocol (or we did): FATAL, and the session is over.
    fn broken(&mut self, session: &Session, refusal: &Refusal, out: &mut Outputs) -> bool {
        let counters = &self.counters;
        let counter =
            if refusal.is_internal() { &counters.internal_errors_total } else { &counters.frontend_protocol_errors_total };
        counter.add(1);
        farewell(session.key, refusal, out);
        true
    }

    fn message(&mut self, session: &mut Session, message: &Message<'_>, out: &mut Outputs) -> Verdict {
        if session.owed >= OWED_REPLIES_MAX
            && let Some(backend) = session.backend
        {
            // A server keeps replies back until Sync, unless it is asked for them.
            self.send(session, backend, frontend::flush(), None, out);
            return Verdict::Hold(Wait::Quiet);
        }
        if self.awaits_cancel(session) {
            return Verdict::Hold(Wait::Cancel);
        }
        if std::mem::take(&mut session.preamble_failed) {
            // The error of the refused BEGIN has been passed on in place of the reply to this message; what is left of it follows.
            if matches!(message.tag, tag::QUERY | tag::FUNCTION_CALL) {
                return self.ready(session, out);
            }
            session.unit = Unit { skip: true, failed: true, ..session.unit };
            return Verdict::Done;
        }
        if session.unit.skip {
            // Everything up to Sync is discarded after an error (protocol flow, "Extended Query").
            return match message.tag {
                tag::SYNC => self.sync(session, message.body, out),
                tag::TERMINATE => Verdict::Goodbye,
                _ => Verdict::Done,
            };
        }
        match message.tag {
            tag::QUERY => self.query(session, message.body, out),
            tag::PARSE => self.parse(session, message.body, out),
            tag::BIND => self.bind(session, message, out),
            tag::DESCRIBE => self.describe(session, message.body, out),
            tag::EXECUTE => self.execute(session, message.body, out),
            tag::CLOSE => self.close(session, message.body, out),
            tag::SYNC => self.sync(session, message.body, out),
            tag::FLUSH => self.flush(session, message.body, out),
            tag::FUNCTION_CALL => self.function_call(session, message.body, out),
            tag::COPY_DATA => self.copy_data(session, None),
            tag::COPY_DONE | tag::COPY_FAIL => self.copy_data(session, Some(Kind::CopyEnd)),
            tag::TERMINATE => Verdict::Goodbye,
            unknown => Verdict::Fatal(Refused::UnknownType(unknown).refusal()),
        }
    }

    /// COPY data goes to the backend that may be waiting for it. Outside of COPY a server ignores it, and so does the proxy.
    fn copy_data(&mut self, session: &mut Session, ends: Option<Kind>) -> Verdict {
        match session.backend {
            Some(backend) if !session.is_quiet() => {
                self.note_sent(session, backend, ends.map(|kind| (kind, Rule::Forward)));
                Verdict::Forward
            }
            Some(_) | None => Verdict::Done,
        }
    }

    /// A FunctionCall is a statement of unknown target: it passes the same gate. Without a number it is one that the server refuses.
    fn function_call(&mut self, session: &mut Session, body: &[u8], out: &mut Outputs) -> Verdict {
        let number = body.first_chunk().map(|number| u32::from_be_bytes(*number));
        let guards = GuardSet::from(number.and_then(Guard::of_function_number));
        if guards != GuardSet::NONE && session.status == TransactionStatus::Failed && session.is_quiet() {
            return self.refuse_query(session, &Refusal::in_failed_transaction(), out);
        }
        match self.gate_guarded(session, guards, "FunctionCall", out) {
            Gate::Open(backend) => {
                session.fresh = false;
                self.note_sent(session, backend, Some((Kind::FunctionCall, Rule::Forward)));
                Verdict::Forward
            }
            Gate::Hold(wait) => Verdict::Hold(wait),
            Gate::Refuse(refusal) => self.refuse_query(session, &refusal, out),
        }
    }

    /// Flush asks the backend for what it has; the proxy's own answers are never kept back.
    fn flush(&mut self, session: &mut Session, body: &[u8], out: &mut Outputs) -> Verdict {
        // A server that reads COPY data overlooks it, whatever it is.
        if frontend::no_fields(tag::FLUSH, body).is_err() && !self.is_copying_in(session) {
            return self.fail_unit(session, &Refusal::protocol("invalid message format"), out);
        }
        match session.backend {
            Some(backend) if session.unit.touched => {
                self.note_sent(session, backend, None);
                Verdict::Forward
            }
            Some(_) | None => Verdict::Done,
        }
    }

    /// Whether the session's backend is reading COPY data, as far as it has said so.
    fn is_copying_in(&mut self, session: &Session) -> bool {
        session.backend.and_then(|key| self.pools.get(key)).is_some_and(|found| found.owed.is_copying_in())
    }
}
