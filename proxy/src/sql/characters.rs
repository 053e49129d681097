//! What a character is in a text whose encoding only the backend knows.
//!
//! A text is taken for UTF-8; a byte that is no UTF-8 counts as a character of its own, as in the single-byte encodings.
//! Nothing is converted: byte offsets mean the same before and after.

use std::borrow::Cow;
use std::ops::Range;

/// The text as the grammar can take it, of the same length. A byte that is no UTF-8 becomes `_`: both may stand anywhere in an
/// identifier, a string or a comment and nowhere else, so every token keeps its bounds. What is *in* such a token is lost.
pub(super) fn as_utf8(text: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(text) {
        return Cow::Borrowed(text);
    }
    let mut mapped = String::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        mapped.push_str(chunk.valid());
        mapped.extend(chunk.invalid().iter().map(|_| '_'));
    }
    Cow::Owned(mapped)
}

/// Makes the statements at `ranges` (ascending, as [`Facts`](super::Facts) gives them) disappear from `text` while all else keeps
/// its place: each of their characters becomes one space, and what that saves in bytes is added as spaces at the end. So the text
/// keeps its length, and the positions in a backend's errors, which count characters, stay true.
pub fn blank(text: &[u8], ranges: &[Range<usize>]) -> Vec<u8> {
    let mut blanked = Vec::with_capacity(text.len());
    let mut ranges = ranges.iter().peekable();
    let mut at = 0;
    let mut character = |bytes: &[u8]| {
        while ranges.next_if(|range| range.end <= at).is_some() {}
        if ranges.peek().is_some_and(|range| range.contains(&at)) {
            blanked.push(b' ');
        } else {
            blanked.extend_from_slice(bytes);
        }
        at += bytes.len();
    };
    for chunk in text.utf8_chunks() {
        let mut buffer = [0; 4];
        chunk.valid().chars().for_each(|one| character(one.encode_utf8(&mut buffer).as_bytes()));
        chunk.invalid().chunks(1).for_each(&mut character);
    }
    blanked.resize(text.len(), b' ');
    blanked
}
