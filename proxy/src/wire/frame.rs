//! Splits the bytes of one direction of a connection into messages.
//!
//! Knows headers, not meanings: five bytes say how far the next message reaches, and the caller says message by message whether
//! it wants the whole of it or its bytes as they come. A message that lies whole in the input is answered with its range there,
//! without a copy; bytes are kept only of a message that the input cuts and that the caller wants together. Memory follows what
//! has arrived, never what a length announced. Does not read sockets, and does not bound lengths: the caller's `mode` does.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use super::sqlstate::SqlState;

/// Tag and length word.
const HEADER_BYTES: usize = 5;
/// What the length word counts besides the body: itself.
const LENGTH_BYTES: usize = 4;

/// One direction of one connection.
#[derive(Debug, Default)]
pub struct Splitter {
    state: State,
}

/// What to do with a message that the input cuts. One that lies whole in the input is always a [`Frame::Whole`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Keep its bytes until the last one is here.
    Gather,
    /// Deliver its head as soon as the header is complete, then its body piece by piece.
    Stream,
    /// Deliver its head once at least this many bytes of the body (or all of them) are here, then the rest piece by piece.
    StreamAfter(usize),
}

/// A message or a part of one. Every range is into the `input` of the call that returned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A complete message, header included.
    Whole {
        /// The first byte of the message.
        tag: u8,
        /// Where it lies in the input.
        range: Range<usize>,
    },
    /// A complete message, header included, put together from several inputs.
    Gathered {
        /// The first byte of the message.
        tag: u8,
        /// The message.
        bytes: Bytes,
    },
    /// The start of a streamed message: its header and what the input has of its body, which is not all.
    Head {
        /// The first byte of the message.
        tag: u8,
        /// Bytes of the whole body.
        body_len: usize,
        /// Where the start lies in the input.
        range: Range<usize>,
    },
    /// The same, put together from several inputs.
    GatheredHead {
        /// The first byte of the message.
        tag: u8,
        /// Bytes of the whole body.
        body_len: usize,
        /// The header and the bytes of the body that were waited for.
        bytes: Bytes,
    },
    /// The next piece of a streamed body; never empty.
    Body {
        /// The first byte of the message.
        tag: u8,
        /// Where the piece lies in the input.
        range: Range<usize>,
        /// The message ends with this piece.
        last: bool,
    },
}

/// The peer broke the protocol in a way that its bytes alone show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// The length word counts less than itself. PostgreSQL reads it as a signed number, so this is also what 2 GiB and more are.
    LengthBelowHeader {
        /// The first byte of the message.
        tag: u8,
        /// The length word.
        length: u32,
    },
    /// The body is not what a message with this tag has: a text without its NUL, a wrong count, bytes behind the last field.
    Body {
        /// The first byte of the message.
        tag: u8,
    },
}

#[derive(Debug, Default)]
enum State {
    /// No message is begun.
    #[default]
    Boundary,
    /// The first `have` (1 to 4) bytes of a header.
    Header { bytes: [u8; HEADER_BYTES], have: usize },
    /// A message of which fewer than `until` bytes are here; at `until` they are delivered, together with what follows streamed.
    Gathering { header: Header, bytes: Vec<u8>, until: usize },
    /// `left` (at least 1) bytes of a body are still to come and are passed on as they do.
    Streaming { tag: u8, left: usize },
}

#[derive(Debug, Clone, Copy)]
struct Header {
    tag: u8,
    body_len: usize,
}

impl Splitter {
    /// The next frame of `input` from `*at` on; `*at` moves behind what was taken. `Ok(None)`: the input is used up, and what
    /// was left of it is kept inside.
    ///
    /// `mode(tag, body_len)` is asked exactly once a message, when its header is complete, also for one that lies whole in the
    /// input; its error refuses the message. After an error the rest of the stream has no meaning and must not be fed.
    #[inline]
    pub fn next<E: From<Malformed>>(
        &mut self,
        input: &[u8],
        at: &mut usize,
        mut mode: impl FnMut(u8, usize) -> Result<Mode, E>,
    ) -> Result<Option<Frame>, E> {
        let start = *at;
        let rest = input.get(start..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        if matches!(self.state, State::Boundary)
            && let Some(header) = rest.first_chunk()
        {
            let header = Header::read(*header)?;
            let mode = mode(header.tag, header.body_len)?;
            let bytes = header.message_bytes();
            if bytes <= rest.len() {
                let end = start + bytes;
                *at = end;
                return Ok(Some(Frame::Whole { tag: header.tag, range: start..end }));
            }
            *at = input.len();
            return Ok(self.begin_cut(header, mode, rest, start));
        }
        self.resume(input, at, mode)
    }

    /// No message is begun: the bytes so far were whole messages.
    pub fn at_boundary(&self) -> bool {
        matches!(self.state, State::Boundary)
    }

    /// Bytes that wait for the rest of their message.
    pub fn gathered_bytes(&self) -> usize {
        match &self.state {
            State::Gathering { bytes, .. } => bytes.len(),
            State::Boundary | State::Header { .. } | State::Streaming { .. } => 0,
        }
    }

    /// A part of a message has been delivered, and the rest of it has not come yet.
    pub fn is_streaming(&self) -> bool {
        matches!(self.state, State::Streaming { .. })
    }

    /// A message whose header is in `rest`, the input from `start` on, and whose body goes on behind it.
    #[cold]
    fn begin_cut(&mut self, header: Header, mode: Mode, rest: &[u8], start: usize) -> Option<Frame> {
        let Header { tag, body_len } = header;
        let until = header.bytes_until(mode);
        if rest.len() < until {
            let mut bytes = Vec::new();
            extend(&mut bytes, rest, until);
            self.state = State::Gathering { header, bytes, until };
            return None;
        }
        self.state = State::Streaming { tag, left: header.message_bytes() - rest.len() };
        Some(Frame::Head { tag, body_len, range: start..start + rest.len() })
    }

    /// Goes on where an earlier input ended, or keeps the start of a header. The input is not used up yet.
    #[cold]
    #[inline(never)]
    fn resume<E: From<Malformed>>(
        &mut self,
        input: &[u8],
        at: &mut usize,
        mut mode: impl FnMut(u8, usize) -> Result<Mode, E>,
    ) -> Result<Option<Frame>, E> {
        loop {
            let start = *at;
            let rest = input.get(start..).unwrap_or_default();
            match &mut self.state {
                State::Streaming { tag, left } => {
                    let tag = *tag;
                    let taken = rest.len().min(*left);
                    *left -= taken;
                    let last = *left == 0;
                    if last {
                        self.state = State::Boundary;
                    }
                    *at = start + taken;
                    return Ok(Some(Frame::Body { tag, range: start..*at, last }));
                }
                State::Gathering { header, bytes, until } => {
                    let taken = rest.get(..*until - bytes.len()).unwrap_or(rest);
                    extend(bytes, taken, *until);
                    *at = start + taken.len();
                    if bytes.len() < *until {
                        return Ok(None);
                    }
                    let header = *header;
                    let bytes = std::mem::take(bytes);
                    return Ok(Some(self.deliver(header, bytes)));
                }
                State::Boundary => self.state = State::Header { bytes: [0; HEADER_BYTES], have: 0 },
                State::Header { bytes, have } => {
                    for (slot, byte) in bytes.iter_mut().skip(*have).zip(rest) {
                        *slot = *byte;
                        *have += 1;
                        *at += 1;
                    }
                    if *have < HEADER_BYTES {
                        return Ok(None);
                    }
                    let header_bytes = *bytes;
                    let header = Header::read(header_bytes)?;
                    let until = header.bytes_until(mode(header.tag, header.body_len)?);
                    if until == HEADER_BYTES {
                        return Ok(Some(self.deliver(header, header_bytes.to_vec())));
                    }
                    self.state = State::Gathering { header, bytes: header_bytes.to_vec(), until };
                    if *at == input.len() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Delivers what was gathered: all of the message, or its head.
    fn deliver(&mut self, header: Header, bytes: Vec<u8>) -> Frame {
        let Header { tag, body_len } = header;
        let left = header.message_bytes() - bytes.len();
        let bytes = Bytes::from(bytes);
        if left == 0 {
            self.state = State::Boundary;
            return Frame::Gathered { tag, bytes };
        }
        self.state = State::Streaming { tag, left };
        Frame::GatheredHead { tag, body_len, bytes }
    }
}

impl Header {
    #[inline]
    fn read(bytes: [u8; HEADER_BYTES]) -> Result<Self, Malformed> {
        let [tag, a, b, c, d] = bytes;
        let length = u32::from_be_bytes([a, b, c, d]);
        match i32::try_from(length).ok().and_then(|length| usize::try_from(length).ok()?.checked_sub(LENGTH_BYTES)) {
            Some(body_len) => Ok(Self { tag, body_len }),
            None => Err(Malformed::LengthBelowHeader { tag, length }),
        }
    }

    #[inline]
    fn message_bytes(self) -> usize {
        HEADER_BYTES + self.body_len
    }

    /// How many bytes of the message must be here before the first of them is delivered.
    fn bytes_until(self, mode: Mode) -> usize {
        let body = match mode {
            Mode::Gather => self.body_len,
            Mode::Stream => 0,
            Mode::StreamAfter(bytes) => bytes.min(self.body_len),
        };
        HEADER_BYTES + body
    }
}

/// The body of a complete message: what stands behind tag and length. For the head of a streamed one, what is here of it.
#[inline]
pub fn body(message: &[u8]) -> &[u8] {
    message.get(HEADER_BYTES..).unwrap_or_default()
}

/// Appends, and grows by doubling up to `until`, so that a message that has come whole fills its memory exactly.
fn extend(bytes: &mut Vec<u8>, more: &[u8], until: usize) {
    let needed = bytes.len() + more.len();
    if needed > bytes.capacity() {
        let capacity = needed.max(bytes.capacity().saturating_mul(2)).min(until);
        bytes.reserve_exact(capacity - bytes.len());
    }
    bytes.extend_from_slice(more);
}

impl Malformed {
    /// What the peer is told.
    pub fn sqlstate(&self) -> SqlState {
        SqlState::PROTOCOL_VIOLATION
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LengthBelowHeader { .. } => f.write_str("invalid message length"),
            Self::Body { .. } => f.write_str("invalid message format"),
        }
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// What comes out of `inputs`, one line a frame, each input on a line of its own; `'` marks what was copied.
    fn check(mode: Mode, inputs: &[&[u8]], expected: Expect) {
        let mut splitter = Splitter::default();
        let mut said = String::new();
        for input in inputs {
            let mut at = 0;
            let mut frames = Vec::new();
            loop {
                match splitter.next(input, &mut at, |_, _| Ok::<_, Malformed>(mode)) {
                    Ok(None) => break,
                    Ok(Some(frame)) => frames.push(describe(&frame, input)),
                    Err(error) => {
                        frames.push(format!("{error:?}"));
                        break;
                    }
                }
            }
            said += &format!("{}\n", frames.join(" | "));
        }
        said += if splitter.at_boundary() { "boundary" } else { "inside" };
        expected.assert_eq(&said);
    }

    fn describe(frame: &Frame, input: &[u8]) -> String {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string().replace("\\x00", "");
        match frame {
            Frame::Whole { range, .. } => format!("Whole {}", text(&input[range.clone()])),
            Frame::Gathered { bytes, .. } => format!("Gathered' {}", text(bytes)),
            Frame::Head { body_len, range, .. } => format!("Head {} of {body_len}", text(&input[range.clone()])),
            Frame::GatheredHead { body_len, bytes, .. } => format!("Head' {} of {body_len}", text(bytes)),
            Frame::Body { range, last, .. } => {
                format!("Body {}{}", text(&input[range.clone()]), if *last { " last" } else { "" })
            }
        }
    }

    const ABCD: &[u8] = b"d\0\0\0\x08abcd";
    const SYNC: &[u8] = b"S\0\0\0\x04";

    #[test]
    fn messages_that_lie_whole_in_the_input_are_not_copied() {
        let input = [ABCD, SYNC, ABCD].concat();
        for mode in [Mode::Gather, Mode::Stream, Mode::StreamAfter(2)] {
            check(
                mode,
                &[&input],
                expect![[r#"
                Whole d\x08abcd | Whole S\x04 | Whole d\x08abcd
                boundary"#]],
            );
        }
    }

    #[test]
    fn gathering_waits_for_the_last_byte() {
        check(
            Mode::Gather,
            &[&ABCD[..3], &ABCD[3..7], &ABCD[7..8], &[&ABCD[8..], SYNC].concat()],
            expect![[r#"



            Gathered' d\x08abcd | Whole S\x04
            boundary"#]],
        );
        check(
            Mode::Gather,
            &[b"S\0\0\0", b"\x04S"],
            expect![[r#"

            Gathered' S\x04
            inside"#]],
        );
    }

    #[test]
    fn streaming_waits_for_the_header_alone() {
        check(
            Mode::Stream,
            &[&ABCD[..5], &ABCD[5..6], &[&ABCD[6..], SYNC].concat()],
            expect![[r#"
            Head d\x08 of 4
            Body a
            Body bcd last | Whole S\x04
            boundary"#]],
        );
        check(
            Mode::Stream,
            &[&ABCD[..2], &[&ABCD[2..], SYNC].concat()],
            expect![[r#"

            Head' d\x08 of 4 | Body abcd last | Whole S\x04
            boundary"#]],
        );
    }

    #[test]
    fn streaming_may_wait_for_the_start_of_the_body() {
        check(
            Mode::StreamAfter(2),
            &[&ABCD[..7], &ABCD[7..]],
            expect![[r#"
            Head d\x08ab of 4
            Body cd last
            boundary"#]],
        );
        check(
            Mode::StreamAfter(2),
            &[&ABCD[..6], &ABCD[6..8], &ABCD[8..]],
            expect![[r#"

            Head' d\x08ab of 4 | Body c
            Body d last
            boundary"#]],
        );
        check(
            Mode::StreamAfter(9),
            &[&ABCD[..6], &ABCD[6..]],
            expect![[r#"

            Gathered' d\x08abcd
            boundary"#]],
        );
    }

    #[test]
    fn a_length_below_itself_is_refused() {
        for length in [0, 1, 3, 1 << 31, u32::MAX] {
            let input = [&b"Q"[..], &length.to_be_bytes()].concat();
            let refused = Malformed::LengthBelowHeader { tag: b'Q', length };
            let gather = |_, _| Ok::<_, Malformed>(Mode::Gather);
            assert_eq!(Splitter::default().next(&input, &mut 0, gather), Err(refused));
            let mut splitter = Splitter::default();
            assert_eq!(splitter.next(&input[..2], &mut 0, gather), Ok(None));
            assert_eq!(splitter.next(&input[2..], &mut 0, gather), Err(refused));
        }
        assert_eq!(Malformed::Body { tag: b'Q' }.sqlstate().as_str(), "08P01");
    }

    #[test]
    fn the_mode_can_refuse_a_message_however_it_arrives() {
        struct Refused;
        impl From<Malformed> for Refused {
            fn from(_: Malformed) -> Self {
                Self
            }
        }
        let refuse = |tag, body_len| {
            assert_eq!((tag, body_len), (b'd', 4));
            Err::<Mode, _>(Refused)
        };
        assert!(Splitter::default().next(ABCD, &mut 0, refuse).is_err());
        assert!(Splitter::default().next(&ABCD[..6], &mut 0, refuse).is_err());
        let mut splitter = Splitter::default();
        assert!(matches!(splitter.next(&ABCD[..4], &mut 0, refuse), Ok(None)));
        assert!(splitter.next(&ABCD[4..], &mut 0, refuse).is_err());
    }

    #[test]
    fn memory_follows_what_has_arrived() {
        let mut splitter = Splitter::default();
        let mut held = |input: &[u8]| {
            let frame = splitter.next(input, &mut 0, |_, _| Ok::<_, Malformed>(Mode::Gather)).unwrap();
            match &splitter.state {
                State::Gathering { bytes, .. } => (bytes.len(), bytes.capacity()),
                _ => panic!("{frame:?}"),
            }
        };
        assert_eq!(held(b"Q\x10\0\0\0select"), (11, 11));
        assert_eq!(held(&[b'x'; 5]), (16, 22));
        assert_eq!(held(&[b'x'; 1000]), (1016, 1016));
    }
}
