//! Texts that a server runs although they are no statements yet: the bodies of functions and of DO, and the queries in the arguments of
//! some functions.
//!
//! They are searched, not understood: a guarded name counts wherever it stands in them, also in constants inside constants, for what
//! is a table here may be a call in the text that is put together of it. A text that is only put together when it runs can not be
//! seen.

use pg_query::protobuf::Token as TokenKind;

use super::facts::SyntaxRefusal;
use super::guard::{Guard, GuardSet};
use super::guarded::of_definition;
use super::tokens::Statement;
use super::{escapes, grammar};
use crate::limits::SQL_TEXT_BYTES_MAX;

/// What a text consists of, as far as it matters.
#[derive(Debug)]
enum Word {
    /// A name or a keyword, in lower case.
    Name(String),
    /// Where a constant begins or ends, or stands for a value (`%`).
    Edge,
    /// A semicolon.
    End,
}

/// The guards of what the texts name. `is_sql`: they are SQL or PL/pgSQL, whose constants and comments are PostgreSQL's.
///
/// # Errors
/// The texts are too long, or nested too deep, to be searched (54001).
pub(super) fn search(texts: &[String], is_sql: bool) -> Result<GuardSet, SyntaxRefusal> {
    let mut search = Search { words: Vec::new(), bytes_left: SEARCHED_BYTES_MAX };
    for text in texts {
        search.words.push(Word::End);
        search.gather(text, DEPTH_MAX)?;
        if !is_sql {
            search.words.push(Word::End);
            gather_raw(text, &mut search.words);
        }
    }
    Ok(found(&search.words))
}

/// The guards of what a text names that is in no language known here.
pub(super) fn search_raw(text: &str) -> GuardSet {
    let mut words = Vec::new();
    gather_raw(text, &mut words);
    found(&words)
}

fn found(words: &[Word]) -> GuardSet {
    let mut guards = GuardSet::NONE;
    for (at, word) in words.iter().enumerate() {
        let Word::Name(name) = word else { continue };
        let rest = words.get(at + 1..).unwrap_or_default();
        let end = rest.iter().position(|word| matches!(word, Word::End)).unwrap_or(rest.len());
        let rest = rest.get(..end).unwrap_or_default();
        guards |= Guard::of_function(name).into();
        guards |= of_statement(name, rest).into();
    }
    guards
}

/// The guard of a statement that begins with `first`, if one does.
fn of_statement(first: &str, rest: &[Word]) -> Option<Guard> {
    let mut names = rest.iter().filter_map(|word| match word {
        Word::Name(name) => Some(name.as_str()),
        Word::Edge | Word::End => None,
    });
    match first {
        "create" | "alter" => of_definition(first, names),
        "import" => (names.next() == Some("foreign")).then_some(Guard::ForeignData),
        "load" => matches!(rest.first(), Some(Word::Edge)).then_some(Guard::Load),
        // Any name may stand behind a column of this name.
        "language" => {
            names.next().filter(|name| *name == "c" || name.starts_with("pl") || *name == "internal").and_then(Guard::of_language)
        }
        "copy" => rest.windows(2).find_map(|pair| match pair {
            [Word::Name(way), Word::Edge] if way == "from" || way == "to" => Some(Guard::CopyFile),
            [Word::Name(way), Word::Name(program)] if (way == "from" || way == "to") && program == "program" => {
                Some(Guard::CopyProgram)
            }
            _ => None,
        }),
        _ => None,
    }
}

struct Search {
    words: Vec<Word>,
    /// What may still be given to the scanner.
    bytes_left: usize,
}

impl Search {
    fn gather(&mut self, text: &str, depth: usize) -> Result<(), SyntaxRefusal> {
        // Without quotes, escapes and comments every word is written as it means.
        if !text.contains(['\'', '"', '\\', '$', '&', '-', '/']) {
            gather_raw(text, &mut self.words);
            return Ok(());
        }
        let Some(depth) = depth.checked_sub(1) else {
            return Err(grammar::too_complex("constants inside constants of this statement are nested too deep"));
        };
        if !self.gather_tokens(text, depth)? {
            gather_raw(text, &mut self.words);
        }
        // It is not known how the server will read backslashes when it runs the text.
        let escaped = escapes::is_sensitive(text.as_bytes()).then(|| escapes::escaped(text.as_bytes()).ok()).flatten();
        if let Some(text) = escaped.as_ref().and_then(|escaped| str::from_utf8(&escaped.text).ok()) {
            self.words.push(Word::End);
            self.gather_tokens(text, depth)?;
        }
        Ok(())
    }

    /// The words of a text that PostgreSQL's scanner reads. False: it does not.
    fn gather_tokens(&mut self, text: &str, depth: usize) -> Result<bool, SyntaxRefusal> {
        let Some(bytes_left) = self.bytes_left.checked_sub(text.len()) else {
            return Err(grammar::too_complex("constants inside constants of this statement are too long"));
        };
        self.bytes_left = bytes_left;
        // The scanner must not be given a text without a token, nor one that keeps it busy.
        let text = format!("{text}\n;");
        grammar::check_size(&text)?;
        let Ok(tokens) = grammar::tokens(&text) else { return Ok(false) };
        let statement = Statement { text: &text, tokens: &tokens };
        let (Ok(literals), Ok(names)) = (statement.all_literals(), statement.words()) else { return Ok(false) };
        let mut literals = literals.into_iter();
        for (index, name) in names.into_iter().enumerate() {
            match (statement.kind(index), name) {
                // A name in quotes may be a string of another language.
                (_, Some(name)) => gather_raw(&name, &mut self.words),
                (TokenKind::Sconst | TokenKind::Usconst, None) => {
                    self.words.push(Word::Edge);
                    self.gather(&literals.next().unwrap_or_default(), depth)?;
                    self.words.push(Word::Edge);
                }
                (TokenKind::Ascii59, None) => self.words.push(Word::End),
                (TokenKind::Ascii37, None) => self.words.push(Word::Edge),
                (_, None) => {}
            }
        }
        Ok(true)
    }
}

/// The words of any text.
fn gather_raw(text: &str, words: &mut Vec<Word>) {
    let is_in_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '$') || !letter.is_ascii();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if is_in_name(first) {
            let end = rest.find(|letter| !is_in_name(letter)).unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            words.push(Word::Name(name.to_ascii_lowercase()));
            rest = after;
            continue;
        }
        match first {
            '\'' | '"' | '%' => words.push(Word::Edge),
            ';' => words.push(Word::End),
            _ => {}
        }
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
    }
}

/// How many constants inside constants are looked into.
const DEPTH_MAX: usize = 6;
/// What is given to the scanner of one statement, together: what stands in several constants is read several times.
const SEARCHED_BYTES_MAX: usize = 2 * SQL_TEXT_BYTES_MAX;
