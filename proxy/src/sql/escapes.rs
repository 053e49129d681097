//! A text as it is read under `standard_conforming_strings = off`, written so that it reads the same under `on`.
//!
//! Off, a backslash in an ordinary string constant `'…'` begins an escape, exactly as in `E'…'` (scan.l: `xqstart` goes to the same
//! state). So an `E` before each such constant makes the text one that the grammar, which only knows `on`, reads as the server does.
//! Where string constants begin is found by PostgreSQL's lexical rules for whatever may hold a quote: comments, quoted identifiers,
//! dollar quotes, the other kinds of constants, constants that go on after a line break. `U&'…'` constants are not allowed when off.
//!
//! Nothing else is changed, and every place in the new text can be told in the old one.

use super::facts::SyntaxRefusal;
use crate::wire::SqlState;

/// What goes before a quote. The space keeps it apart from a word that ends there.
const PREFIX: &[u8] = b" E";

/// The text with its prefixes, and where they stand.
pub(super) struct Escaped {
    pub(super) text: Vec<u8>,
    /// The places of the prefixes in the new text, in order.
    prefixes: Vec<usize>,
}

impl Escaped {
    /// The place in the text of the client that is at `at` in the new one.
    pub(super) fn original(&self, at: usize) -> usize {
        let before = self.prefixes.partition_point(|prefix| *prefix < at);
        at - before * PREFIX.len()
    }

    /// The same for characters, which are counted from 1: prefixes are as many characters as bytes.
    pub(super) fn original_character(&self, position: usize) -> usize {
        let characters = |bytes: &[u8]| bytes.iter().filter(|byte| !is_continuation(**byte)).count();
        let before =
            self.prefixes.iter().filter(|prefix| characters(self.text.get(..**prefix).unwrap_or_default()) + 1 < position);
        position - before.count() * PREFIX.len()
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// Whether the setting makes a difference for a text.
pub(super) fn is_sensitive(text: &[u8]) -> bool {
    memchr::memchr(b'\\', text).is_some() || text.windows(3).any(|three| three.eq_ignore_ascii_case(b"u&'"))
}

/// Writes a text for the grammar.
///
/// # Errors
/// A constant with Unicode escapes stands in it, which PostgreSQL refuses (0A000).
pub(super) fn escaped(text: &[u8]) -> Result<Escaped, SyntaxRefusal> {
    let mut escaped = Escaped { text: Vec::with_capacity(text.len() + 16), prefixes: Vec::new() };
    let mut at = 0;
    let mut copied = 0;
    while let Some(&byte) = text.get(at) {
        let rest = text.get(at..).unwrap_or_default();
        at += match byte {
            b'-' if rest.starts_with(b"--") => line_comment(rest),
            b'/' if rest.starts_with(b"/*") => block_comment(rest),
            b'"' => quoted(rest, b'"', false),
            b'\'' => {
                escaped.text.extend_from_slice(text.get(copied..at).unwrap_or_default());
                escaped.prefixes.push(escaped.text.len());
                escaped.text.extend_from_slice(PREFIX);
                copied = at;
                constant(rest, true)
            }
            b'$' => dollar_quote(rest),
            _ if is_identifier_start(byte) => match rest {
                [b'e' | b'E', b'\'', ..] => 1 + constant(rest.get(1..).unwrap_or_default(), true),
                [b'b' | b'B' | b'x' | b'X', b'\'', ..] => 1 + constant(rest.get(1..).unwrap_or_default(), false),
                [b'u' | b'U', b'&', b'"', ..] => 2 + quoted(rest.get(2..).unwrap_or_default(), b'"', false),
                [b'u' | b'U', b'&', b'\'', ..] => return Err(unsafe_constant(text, at)),
                // The quote of N'…' is that of an ordinary constant.
                [b'n' | b'N', b'\'', ..] => 1,
                _ => word(rest),
            },
            // A number, and what hangs on to it.
            b'0'..=b'9' => word(rest),
            _ => 1,
        };
    }
    escaped.text.extend_from_slice(text.get(copied..).unwrap_or_default());
    Ok(escaped)
}

fn unsafe_constant(text: &[u8], at: usize) -> SyntaxRefusal {
    let before = text.get(..at).unwrap_or_default().iter().filter(|byte| !is_continuation(**byte)).count();
    SyntaxRefusal {
        sqlstate: SqlState::FEATURE_NOT_SUPPORTED,
        message: "unsafe use of string constant with Unicode escapes".to_owned(),
        detail: Some("String constants with Unicode escapes cannot be used when standard_conforming_strings is off."),
        position: Some(before + 1),
    }
}

/// PostgreSQL's `ident_start` and `ident_cont` (scan.l).
fn is_identifier_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_identifier_byte(byte: u8) -> bool {
    is_identifier_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

fn word(text: &[u8]) -> usize {
    text.iter().position(|byte| !is_identifier_byte(*byte)).unwrap_or(text.len())
}

/// The length of a comment that goes to the end of its line, which is not part of it.
fn line_comment(text: &[u8]) -> usize {
    text.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(text.len())
}

/// The length of a comment in which others may stand.
fn block_comment(text: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of what stands between `quote`s, both included; a doubled one is one inside.
fn quoted(text: &[u8], quote: u8, escapes: bool) -> usize {
    let mut at = 1;
    while let Some(&byte) = text.get(at) {
        at += match byte {
            b'\\' if escapes => 2,
            byte if byte == quote && text.get(at + 1) == Some(&quote) => 2,
            byte if byte == quote => return at + 1,
            _ => 1,
        };
    }
    text.len()
}

/// The length of a constant with all its parts: it goes on in the next quotes if nothing but space with a line break in it, and
/// comments to the ends of lines, stands between (scan.l: `quotecontinue`).
fn constant(text: &[u8], escapes: bool) -> usize {
    let mut end = quoted(text, b'\'', escapes);
    while let Some(more) = continuation(text.get(end..).unwrap_or_default()) {
        end += more + quoted(text.get(end + more..).unwrap_or_default(), b'\'', escapes);
    }
    end.min(text.len())
}

/// How far the next quote of the same constant is.
fn continuation(text: &[u8]) -> Option<usize> {
    let (mut at, mut broken) = (0, false);
    loop {
        let rest = text.get(at..)?;
        at += match *rest.first()? {
            b'\n' | b'\r' => {
                broken = true;
                1
            }
            b' ' | b'\t' | 0x0b | 0x0c => 1,
            b'-' if rest.starts_with(b"--") => line_comment(rest),
            b'\'' if broken => return Some(at),
            _ => return None,
        };
    }
}

/// The length of a constant between `$tag$`s; of the `$` alone if none begins there.
fn dollar_quote(text: &[u8]) -> usize {
    let inside = text.get(1..).unwrap_or_default();
    let Some(end) = inside.iter().position(|byte| *byte == b'$') else { return 1 };
    let tag = inside.get(..end).unwrap_or_default();
    let is_tag = match tag {
        [] => true,
        [first, rest @ ..] => {
            is_identifier_start(*first) && rest.iter().all(|byte| is_identifier_start(*byte) || byte.is_ascii_digit())
        }
    };
    if !is_tag {
        return 1;
    }
    let delimiter = text.get(..end + 2).unwrap_or_default();
    let body = text.get(delimiter.len()..).unwrap_or_default();
    memchr::memmem::find(body, delimiter).map_or(text.len(), |found| 2 * delimiter.len() + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(text: &str) -> String {
        String::from_utf8(escaped(text.as_bytes()).unwrap_or_else(|error| panic!("{error:?}")).text).unwrap()
    }

    #[test]
    fn ordinary_constants_get_a_prefix_and_nothing_else_does() {
        for (text, expected) in [
            ("SELECT 'a'", "SELECT  E'a'"),
            ("select'a\\'b','c'", "select E'a\\'b', E'c'"),
            (
                "SELECT E'a\\'b', e'c', B'01', x'1F', \"it's\", U&\"d\\0061't\"",
                "SELECT E'a\\'b', e'c', B'01', x'1F', \"it's\", U&\"d\\0061't\"",
            ),
            ("SELECT N'a'", "SELECT N E'a'"),
            ("SELECT nameE'a'", "SELECT nameE E'a'"),
            ("-- it's\n'a' /* it's /* nested ' */ ' */ 'b'", "-- it's\n E'a' /* it's /* nested ' */ ' */  E'b'"),
            ("SELECT $$it's$$, $a$ ' $b$ ' $a$, $1, a$b$'c'", "SELECT $$it's$$, $a$ ' $b$ ' $a$, $1, a$b$ E'c'"),
            (
                "SELECT 'a'\n 'b', 'c' 'd', 'e' -- x\n 'f', 'g' /* x */\n'h'",
                "SELECT  E'a'\n 'b',  E'c'  E'd',  E'e' -- x\n 'f',  E'g' /* x */\n E'h'",
            ),
            ("SELECT 'a''b\\\\', 'c'", "SELECT  E'a''b\\\\',  E'c'"),
            ("SELECT '\\'; SET x = 'y'", "SELECT  E'\\'; SET x = 'y E'"),
            ("SELECT 'open", "SELECT  E'open"),
            ("SELECT 'open\\", "SELECT  E'open\\"),
        ] {
            assert_eq!(rewritten(text), expected, "{text}");
        }
    }

    #[test]
    fn places_are_told_in_the_old_text() {
        let text = "SELECT 'é', 'b' x";
        let found = escaped(text.as_bytes()).unwrap();
        let new = String::from_utf8(found.text.clone()).unwrap();
        for word in ["SELECT", ", ", " x"] {
            let (old, at) = (text.rfind(word).unwrap(), new.rfind(word).unwrap());
            assert_eq!(found.original(at), old, "{word}");
            let character = |text: &str, at: usize| text[..at].chars().count() + 1;
            assert_eq!(found.original_character(character(&new, at)), character(text, old), "{word}");
        }
    }

    #[test]
    fn constants_with_unicode_escapes_are_refused_where_they_stand() {
        let refused = escaped("SELECT é, u&'a'".as_bytes()).err().unwrap();
        assert_eq!((refused.sqlstate, refused.position), (SqlState::FEATURE_NOT_SUPPORTED, Some(11)));
        assert!(escaped(b"SELECT 'U&''a'").is_ok() && escaped(b"SELECT a&'b'").is_ok());
    }

    #[test]
    fn only_backslashes_and_unicode_constants_make_a_difference() {
        assert!(!is_sensitive(b"SELECT 'it''s', U&\"a\""));
        assert!(is_sensitive(b"SELECT 'a\\b'") && is_sensitive(b"SELECT u&'a'"));
    }
}
