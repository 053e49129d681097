//! From the text of an HBA or ident file to lines of fields, by the rules of PostgreSQL's own reader ("The pg_hba.conf File").
//!
//! A line is fields between white space, a field is tokens between commas, a token may stand between double quotes, which take
//! away what a word would otherwise mean; `#` begins a comment, a `\` at the end of a line goes on in the next. What the fields say
//! is not known here.

use std::path::Path;

use super::super::files;
use super::super::mistake::Findings;
use super::super::value::{path_beside, shown};

/// Files that name each other with `@`.
const FILE_DEPTH_MAX: usize = 10;

/// A line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Counted from 1; that of the first, if it goes on in the next.
    pub(super) number: usize,
    /// At least one.
    pub(super) fields: Vec<Field>,
}

/// What stands between white space: at least one token.
pub(super) type Field = Vec<Token>;

/// One word of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    /// It begins with a quote, and is no keyword whatever it says.
    pub(super) quoted: bool,
}

impl Token {
    /// Whether it is this word and means what that means.
    pub(super) fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text == keyword
    }
}

/// The lines of a file, `path` being its name in mistakes.
pub(super) fn lines(path: &Path, text: &str, findings: &Findings) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut raw = (1..).zip(text.lines());
    while let Some((number, first)) = raw.next() {
        let mut whole = first.to_owned();
        while whole.ends_with('\\') {
            whole.pop();
            match raw.next() {
                Some((_, next)) => whole.push_str(next),
                None => break,
            }
        }
        match fields(&whole) {
            Some(fields) if fields.is_empty() => {}
            Some(fields) => lines.push(Line { number, fields }),
            None => findings.mistake(path, Some(number), "a double quote is not closed before the end of the line"),
        }
    }
    lines
}

/// The fields of one line; none if a quote is open at its end.
fn fields(line: &str) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    // Whether the next token belongs to the field before.
    let mut goes_on = false;
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches(|character| is_space(character) || character == ',');
        if rest.is_empty() || rest.starts_with('#') {
            return Some(fields);
        }
        let (token, behind) = token(rest)?;
        match fields.last_mut() {
            Some(field) if goes_on => Vec::push(field, token),
            Some(_) | None => fields.push(vec![token]),
        }
        goes_on = behind.starts_with(',');
        rest = behind;
    }
}

/// The token at the start of `text`, which is not empty, and what follows it.
fn token(text: &str) -> Option<(Token, &str)> {
    let mut token = Token { text: String::new(), quoted: text.starts_with('"') };
    let (mut inside, mut characters) = (false, text.char_indices().peekable());
    while let Some((at, character)) = characters.next() {
        match character {
            '"' if inside && characters.next_if(|(_, next)| *next == '"').is_some() => token.text.push('"'),
            '"' => inside = !inside,
            _ if inside => token.text.push(character),
            '#' | ',' => return Some((token, &text[at..])),
            _ if is_space(character) => return Some((token, &text[at..])),
            _ => token.text.push(character),
        }
    }
    (!inside).then_some((token, ""))
}

/// White space of the C locale.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t'..='\r')
}

/// A list whose `@file` tokens are replaced by what stands in those files, and by what stands in the files that they name.
pub(super) fn expanded(path: &Path, line: usize, field: Field, findings: &Findings) -> Field {
    let mut tokens = Vec::new();
    expand(path, line, field, findings, 1, &mut tokens);
    tokens
}

fn expand(path: &Path, line: usize, field: Field, findings: &Findings, depth: usize, tokens: &mut Field) {
    for token in field {
        match token.text.strip_prefix('@').filter(|file| !token.quoted && !file.is_empty()) {
            None => tokens.push(token),
            Some(file) if depth > FILE_DEPTH_MAX => {
                let text = format!("@{}: more than {FILE_DEPTH_MAX} files name one another", shown(file));
                findings.mistake(path, Some(line), text);
            }
            Some(file) => {
                let file = path_beside(path, file);
                for Line { number, fields } in included(path, line, &file, findings) {
                    fields.into_iter().for_each(|field| expand(&file, number, field, findings, depth + 1, tokens));
                }
            }
        }
    }
}

fn included(path: &Path, line: usize, file: &Path, findings: &Findings) -> Vec<Line> {
    match files::text(file) {
        Ok(text) => lines(file, &text, findings),
        Err(why) => {
            findings.mistake(path, Some(line), format!("{} {why}", file.display()));
            Vec::new()
        }
    }
}
