//! Tells the texts that can only be one ordinary statement from those that the grammar has to read.
//!
//! A sound over-approximation: it may take an ordinary text for a remarkable one (which costs a parse), never the other way
//! round. It looks at every byte a few times with `memchr`, allocates nothing, and knows nothing of strings and comments: a word
//! counts wherever it stands.

use memchr::{memchr, memchr2_iter};

/// What the first word of a statement allows it to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// SET, RESET, SHOW, DISCARD, DEALLOCATE and transaction control: the statements whose parse tree is looked into.
    Control,
    /// Leaves something in its session, by its first words alone.
    Remembered,
    /// A command that may be guarded by its words.
    Guarded,
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
        b"set" | b"reset" | b"show" | b"discard" | b"begin" | b"start" | b"commit" | b"end" | b"rollback" | b"abort"
        | b"savepoint" | b"release" | b"deallocate" => Start::Control,
        b"prepare" | b"execute" | b"listen" | b"unlisten" | b"do" | b"declare" | b"load" => Start::Remembered,
        b"create" if !makes_what_is_harmless(text.get(length..).unwrap_or_default()) => Start::Guarded,
        b"create" | b"explain" => Start::Wrapper,
        b"alter" | b"copy" | b"import" => Start::Guarded,
        b"select" | b"insert" | b"update" | b"delete" | b"with" | b"values" | b"table" | b"merge" | b"call" | b"drop"
        | b"truncate" | b"grant" | b"revoke" | b"comment" | b"analyze" | b"analyse" | b"vacuum" | b"reindex" | b"cluster"
        | b"lock" | b"fetch" | b"move" | b"close" | b"notify" | b"refresh" | b"checkpoint" => Start::Ordinary,
        _ => Start::Unknown,
    }
}

/// Whether behind CREATE stands what is not guarded and makes nothing that can be called; after nothing but white space.
fn makes_what_is_harmless(text: &[u8]) -> bool {
    let text = trim(text);
    let end = text.iter().position(|byte| !is_identifier_byte(*byte)).unwrap_or(text.len());
    let word = text.get(..end).unwrap_or_default();
    let harmless: [&[u8]; 13] = [
        b"table",
        b"unlogged",
        b"temp",
        b"temporary",
        b"index",
        b"unique",
        b"view",
        b"materialized",
        b"sequence",
        b"schema",
        b"role",
        b"database",
        b"statistics",
    ];
    harmless.iter().any(|object| word.eq_ignore_ascii_case(object))
}

/// Whether a statement that begins with `start` has a word in it that its tokens must be looked through for.
pub(super) fn is_remarkable(text: &[u8], start: Start) -> bool {
    memchr2_iter(b'_', b'&', text).any(|at| is_remarkable_mark(text, at))
        || memchr2_iter(b'm', b'M', text).any(|at| is_temporary(text, at))
        || memchr2_iter(b'k', b'K', text).any(|at| is_dblink(text, at))
        || memchr2_iter(b'v', b'V', text).any(|at| is_sequence_function(text, at))
        || start != Start::Ordinary && memchr2_iter(b'x', b'X', text).any(|at| is_around(text, at, b"e", b"xecute"))
}

/// Whether the `_` or `&` at `at` stands in `set_config`, in a name that begins with `pg_temp`, in the name of an advisory lock
/// function, of a guarded function or of one that runs a text, or begins a name with escapes.
fn is_remarkable_mark(text: &[u8], at: usize) -> bool {
    match text.get(at + 1) {
        // A name in quotes. A constant with escapes (U&'…') names nothing.
        _ if text.get(at) == Some(&b'&') => is_around(text, at, b"u", b"&\""),
        _ if is_guarded_name(text, at) => true,
        Some(b'c' | b'C') => is_around(text, at, b"set", b"_config"),
        Some(b't' | b'T') => is_around(text, at, b"pg", b"_temp"),
        Some(b'a' | b'A') => is_around(text, at, b"pg", b"_advisory") || is_around(text, at, b"pg_try", b"_advisory"),
        _ => false,
    }
}

/// Whether the `_` at `at` stands in the name of a guarded function, or of one that runs a text: behind its first part.
fn is_guarded_name(text: &[u8], at: usize) -> bool {
    let begins = |first: &[u8], rests: &[&[u8]]| rests.iter().any(|rest| is_around(text, at, first, rest));
    match at.checked_sub(1).and_then(|before| text.get(before)) {
        Some(b'g' | b'G') => begins(
            b"pg",
            &[
                b"_read_",
                b"_ls_",
                b"_stat_file",
                b"_file_",
                b"_logdir_",
                b"_create_",
                b"_copy_",
                b"_logical_",
                b"_replication_",
                b"_sync_",
            ],
        ),
        Some(b'o' | b'O') => begins(b"lo", &[b"_import", b"_export"]),
        Some(b'p' | b'P') => begins(b"http", &[b"_"]),
        Some(b'y' | b'Y') => begins(b"query", &[b"_to_xml", b"_export"]),
        Some(b's' | b'S') => begins(b"ts", &[b"_stat", b"_rewrite"]),
        Some(b'h' | b'H') => begins(b"xpath", &[b"_table"]),
        _ => false,
    }
}

/// Whether the `m` at `at` is that of the word TEMP or TEMPORARY.
fn is_temporary(text: &[u8], at: usize) -> bool {
    if !is_around(text, at, b"te", b"mp") {
        return false;
    }
    let is_identifier_byte_at = |at: usize| text.get(at).copied().is_some_and(is_identifier_byte);
    let length = if is_around(text, at, b"te", b"mporary") { b"mporary".len() } else { b"mp".len() };
    !is_identifier_byte_at(at + length) && !at.checked_sub(3).is_some_and(is_identifier_byte_at)
}

/// Whether the `k` at `at` stands in `dblink`.
fn is_dblink(text: &[u8], at: usize) -> bool {
    // Most are found out by one look.
    let before = at.checked_sub(1).and_then(|before| text.get(before));
    matches!(before, Some(b'n' | b'N')) && is_around(text, at, b"dblin", b"k")
}

/// Whether the `v` at `at` stands in the name of a function that moves or reads a sequence.
fn is_sequence_function(text: &[u8], at: usize) -> bool {
    [&b"next"[..], b"curr", b"last", b"set"].iter().any(|before| is_around(text, at, before, b"val"))
}

/// Whether `before` ends and `from` begins at `at`, in any case.
fn is_around(text: &[u8], at: usize, before: &[u8], from: &[u8]) -> bool {
    let is_at = |at: usize, word: &[u8]| text.get(at..at + word.len()).is_some_and(|text| text.eq_ignore_ascii_case(word));
    is_at(at, from) && at.checked_sub(before.len()).is_some_and(|at| is_at(at, before))
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
