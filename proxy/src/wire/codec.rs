//! The few shapes that message bodies are made of: integers in network order, texts that end in a NUL, counted bytes.
//!
//! Reading checks before it takes and never looks past the body; writing keeps the length word right whatever it is given.
//! Nothing here knows a message.

use bytes::Bytes;

/// Reads a body from its start. Every method answers `None` when the body does not have what is asked for.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// The next `count` bytes.
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    /// A text up to its NUL, without it.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(0, self.rest)?;
        let text = self.bytes(end)?;
        self.u8()?;
        Some(text)
    }

    /// A value behind its 32-bit length: `Some(None)` is the NULL that the length -1 stands for; other negative lengths are refused.
    pub(super) fn value(&mut self) -> Option<Option<&'a [u8]>> {
        match self.i32()? {
            -1 => Some(None),
            length => self.bytes(usize::try_from(length).ok()?).map(Some),
        }
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// `Some` only where nothing is left: bytes behind the last field make a message malformed.
    pub(super) fn end(self) -> Option<()> {
        self.rest.is_empty().then_some(())
    }
}

/// A message with `tag`, its length word and the body that `fill` writes. `body_bytes` is a guess that spares reallocations.
pub(super) fn message(tag: u8, body_bytes: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut buffer = Vec::with_capacity(1 + 4 + body_bytes);
    buffer.push(tag);
    with_length(&mut buffer, fill);
    buffer.into()
}

/// A packet without a tag, as before login.
pub(super) fn packet(body_bytes: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut buffer = Vec::with_capacity(4 + body_bytes);
    with_length(&mut buffer, fill);
    buffer.into()
}

fn with_length(buffer: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    fill(buffer);
    let length = length_word(buffer.len() - start);
    if let Some(word) = buffer.get_mut(start..start + 4) {
        word.copy_from_slice(&length);
    }
}

/// A length as it stands on the wire. Nothing that is encoded here comes near 2 GiB (see `MESSAGE_BYTES_MAX`); if it ever did, its
/// length would be one that no peer accepts, and not a short one behind which the rest would be taken for messages.
pub(super) fn length_word(length: usize) -> [u8; 4] {
    i32::try_from(length).unwrap_or(i32::MIN).to_be_bytes()
}

/// Writes a text and its NUL. A NUL inside the text would end it early and shift all that follows, so it is left out.
pub(super) fn put_text(buffer: &mut Vec<u8>, text: &[u8]) {
    for piece in text.split(|byte| *byte == 0) {
        buffer.extend_from_slice(piece);
    }
    buffer.push(0);
}

/// Writes a value behind its 32-bit length; `None` is NULL.
pub(super) fn put_value(buffer: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => buffer.extend_from_slice(&(-1_i32).to_be_bytes()),
        Some(value) => {
            buffer.extend_from_slice(&length_word(value.len()));
            buffer.extend_from_slice(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2024-27304: of a message of more than 4 GiB a driver kept the low 32 bits of its length.
    #[test]
    fn a_length_does_not_wrap_round() {
        assert_eq!(length_word(4), [0, 0, 0, 4]);
        assert_eq!(length_word((1 << 31) - 1), [0x7f, 0xff, 0xff, 0xff]);
        for length in [1 << 31, (1 << 32) - 1, 1 << 32, (1 << 32) + 4, usize::MAX] {
            assert_eq!(length_word(length), [0x80, 0, 0, 0], "{length}");
        }
    }
}
