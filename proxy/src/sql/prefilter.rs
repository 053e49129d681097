//! Tells the texts that can only be one ordinary statement from those that the grammar has to read.
//!
//! A sound over-approximation: it may take an ordinary text for a remarkable one (which costs a parse), never the other way
//! round. It looks at every byte a few times with `memchr`, allocates nothing, and knows nothing of strings and comments: a word
//! counts wherever it stands.

use memchr::{memchr, memchr_iter, memchr2_iter};

/// What the first word of a statement allows it to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// SET, RESET, SHOW, DISCARD and transaction control: the statements whose parse tree is looked into.
    Control,
    /// Leaves something in its session, by its first words alone.
    Remembered,
    /// Neither, but may stand around an EXECUTE.
    Wrapper,
    /// Neither.
    Ordinary,
    /// No word that is known here: a comment, a parenthesis, a mistake.
    Unknown,
}

/// Whether `text` is at most one statement, which can only be `Other { state: None }`.
pub(super) fn is_plain(text: &[u8]) -> bool {
    let text = trim(text);
    let start = start(text);
    matches!(start, Start::Ordinary | Start::Wrapper) && memchr(b';', text).is_none() && !is_remarkable(text, start)
}

/// What `text` begins with. Its first byte must belong to its first token.
pub(super) fn start(text: &[u8]) -> Start {
    let mut word = [0; WORD_BYTES_MAX];
    let mut length = 0;
    for &byte in text {
        if !is_identifier_byte(byte) {
            break;
        }
        let Some(letter) = word.get_mut(length) else { return Start::Unknown };
        *letter = byte.to_ascii_lowercase();
        length += 1;
    }
    match word.get(..length).unwrap_or_default() {
        b"set" | b"reset" | b"show" | b"discard" | b"begin" | b"start" | b"commit" | b"end" | b"rollback" | b"abort" | b"savepoint"
        | b"release" => Start::Control,
        b"prepare" | b"execute" | b"deallocate" | b"listen" | b"unlisten" | b"do" | b"declare" => Start::Remembered,
        b"create" | b"explain" => Start::Wrapper,
        b"select" | b"insert" | b"update" | b"delete" | b"with" | b"values" | b"table" | b"merge" | b"copy" | b"call" | b"alter"
        | b"drop" | b"truncate" | b"grant" | b"revoke" | b"comment" | b"analyze" | b"analyse" | b"vacuum" | b"reindex" | b"cluster"
        | b"lock" | b"fetch" | b"move" | b"close" | b"notify" | b"refresh" | b"checkpoint" => Start::Ordinary,
        _ => Start::Unknown,
    }
}

/// Whether a statement that begins with `start` has a word in it that its tokens must be looked through for.
pub(super) fn is_remarkable(text: &[u8], start: Start) -> bool {
    contains(text, b"set_config", 7)
        || contains(text, b"advisory", 2)
        || memchr_iter(b'&', text).any(|at| at > 0 && matches!(text.get(at - 1), Some(b'u' | b'U')))
        || has_temporary(text)
        || !matches!(start, Start::Ordinary) && contains(text, b"execute", 1)
}

/// The words TEMP and TEMPORARY, and every schema whose name begins with `pg_temp`.
fn has_temporary(text: &[u8]) -> bool {
    occurrences(text, b"temp", 2).any(|at| {
        let (before, after) = text.split_at_checked(at).unwrap_or_default();
        let after = after.get(b"temp".len()..).unwrap_or_default();
        let after = if starts_with(after, b"orary") { after.get(b"orary".len()..).unwrap_or_default() } else { after };
        let is_word = !before.last().copied().is_some_and(is_identifier_byte) && !after.first().copied().is_some_and(is_identifier_byte);
        is_word || before.last_chunk().is_some_and(|schema: &[u8; 3]| schema.eq_ignore_ascii_case(b"pg_"))
    })
}

fn contains(text: &[u8], word: &'static [u8], rare: usize) -> bool {
    occurrences(text, word, rare).next().is_some()
}

/// Where `word` (lower case) stands in `text`, in any case. `rare` is the index of its letter that is rarest in SQL.
fn occurrences(text: &[u8], word: &'static [u8], rare: usize) -> impl Iterator<Item = usize> {
    let letter = word.get(rare).copied().unwrap_or_default();
    memchr2_iter(letter, letter.to_ascii_uppercase(), text)
        .filter_map(move |at| at.checked_sub(rare))
        .filter(move |&at| text.get(at..).is_some_and(|text| starts_with(text, word)))
}

fn starts_with(text: &[u8], word: &[u8]) -> bool {
    text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

/// PostgreSQL's `ident_cont` (scan.l). Bytes of other alphabets, no-break spaces and byte order marks are all letters to it.
fn is_identifier_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

/// Takes PostgreSQL's white space (scan.l: `[ \t\n\r\f\v]`) from both ends, and the last semicolons with it.
fn trim(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c);
    let from = text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len());
    let to = text.iter().rposition(|byte| !is_space(byte) && *byte != b';').map_or(0, |at| at + 1);
    text.get(from..to).unwrap_or_default()
}

/// Longer than every word of [`start`].
const WORD_BYTES_MAX: usize = 12;
