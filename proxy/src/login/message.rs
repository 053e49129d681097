//! Takes one message after the other from the bytes of a login.
//!
//! Unlike a splitter it keeps nothing inside: what stands behind the login belongs to the session and is handed on as it came.

use bytes::{Bytes, BytesMut};

/// Tag and length word.
const HEADER_BYTES: usize = 5;

/// A length word that counts less than itself, or more than is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidLength;

/// The first message of `input`, header included, with its tag. `Ok(None)`: it has not come whole yet. The length is judged as
/// soon as it is here; a body may have `body_bytes_max` bytes.
pub(super) fn take(input: &mut BytesMut, body_bytes_max: usize) -> Result<Option<(u8, Bytes)>, InvalidLength> {
    let Some(&[tag, a, b, c, d]) = input.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).map_err(|_| InvalidLength)?;
    let body_bytes = length.checked_sub(4).filter(|bytes| *bytes <= body_bytes_max).ok_or(InvalidLength)?;
    let message_bytes = HEADER_BYTES + body_bytes;
    Ok((input.len() >= message_bytes).then(|| (tag, input.split_to(message_bytes).freeze())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_one_by_one() {
        let mut input = BytesMut::from(&b"p\0\0\0\x06ab"[..]);
        input.extend_from_slice(b"Q\0\0\0\x04X");
        assert_eq!(take(&mut input, 2), Ok(Some((b'p', Bytes::from_static(b"p\0\0\0\x06ab")))));
        assert_eq!(take(&mut input, 2), Ok(Some((b'Q', Bytes::from_static(b"Q\0\0\0\x04")))));
        assert_eq!(take(&mut input, 2), Ok(None));
        assert_eq!(&input[..], b"X");
    }

    #[test]
    fn lengths_are_judged_before_the_body_is_here() {
        for wrong in [&b"p\0\0\0\x03"[..], b"p\0\0\0\0", b"p\0\0\0\x07", b"p\xff\xff\xff\xff"] {
            assert_eq!(take(&mut BytesMut::from(wrong), 2), Err(InvalidLength), "{}", wrong.escape_ascii());
        }
        assert_eq!(take(&mut BytesMut::from(&b"p\0\0\0"[..]), 2), Ok(None));
    }
}
