//! PostgreSQL's own scanner and grammar (libpg_query), made safe to be given a peer's text.
//!
//! The parser proper keeps its stack on the heap and gives up at 10 000 entries, so every text may be split. What is built around
//! it is not as safe: a parse tree is handed over as a message that is decoded and dropped by recursion, so trees are asked for
//! only of statements that can not nest; the scanner takes quadratic time in runs of operator characters, so those are counted
//! first; and a text without any token must not be scanned at all. Nothing here knows what a statement means.

use std::ops::Range;

use pg_query::protobuf::{KeywordKind, Token as TokenKind, a_const};
use pg_query::{Error, NodeEnum};

use super::facts::SyntaxRefusal;
use crate::limits::{SQL_OPERATOR_STEPS_MAX, SQL_TEXT_BYTES_MAX};
use crate::wire::SqlState;

/// A token that is no comment.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) keyword: KeywordKind,
    /// Its bytes in the text.
    pub(super) range: Range<usize>,
}

/// The statements of a text and where they stand, empty ones left out.
pub(super) fn statements(text: &str) -> Result<Vec<(Range<usize>, &str)>, SyntaxRefusal> {
    check_size(text)?;
    let statements = pg_query::split_with_parser(text).map_err(|error| refusal(text, &error))?;
    let place = |statement: &str| {
        let start = statement.as_ptr().addr() - text.as_ptr().addr();
        start..start + statement.len()
    };
    Ok(statements.into_iter().map(|statement| (place(statement), statement)).collect())
}

/// The tokens of a text that [`statements`] has found at least one statement in.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, SyntaxRefusal> {
    let tokens = pg_query::scan_tokens(text).map_err(|error| refusal(text, &error))?;
    let offset = |offset: i32| usize::try_from(offset).unwrap_or_default();
    let token = |token: &pg_query::protobuf::ScanToken| Token {
        kind: token.token(),
        keyword: token.keyword_kind(),
        range: offset(token.start)..offset(token.end),
    };
    Ok(tokens.iter().map(token).filter(|token| !matches!(token.kind, TokenKind::SqlComment | TokenKind::CComment)).collect())
}

/// The parse trees of `count` statements, none of which can nest.
pub(super) fn trees(text: &str, count: usize) -> Result<Vec<NodeEnum>, SyntaxRefusal> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let parsed = pg_query::parse(text, pg_query::ParserOptions::default()).map_err(|error| refusal(text, &error))?;
    let trees: Vec<_> = parsed.protobuf.stmts.into_iter().filter_map(|statement| statement.stmt?.node).collect();
    if trees.len() == count { Ok(trees) } else { Err(too_complex("statement could not be read")) }
}

/// What string literals and identifiers stand for, in whatever notation they are written.
pub(super) fn meanings(texts: &[&str]) -> Result<Vec<String>, SyntaxRefusal> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let tree = trees(&format!("SELECT {}", texts.join(",")), 1)?.into_iter().next();
    let Some(NodeEnum::SelectStmt(select)) = tree else { return Err(too_complex("statement could not be read")) };
    let meanings: Vec<_> = select.target_list.into_iter().filter_map(|target| meaning(target.node?)).collect();
    if meanings.len() == texts.len() { Ok(meanings) } else { Err(too_complex("statement could not be read")) }
}

fn meaning(target: NodeEnum) -> Option<String> {
    let NodeEnum::ResTarget(target) = target else { return None };
    match target.val?.node? {
        NodeEnum::AConst(constant) => match constant.val? {
            a_const::Val::Sval(value) => Some(value.sval),
            _ => None,
        },
        NodeEnum::ColumnRef(column) => match column.fields.into_iter().next()?.node? {
            NodeEnum::String(name) => Some(name.sval),
            _ => None,
        },
        _ => None,
    }
}

/// The refusal of what this module does not dare to read (54001).
pub(super) fn too_complex(message: impl Into<String>) -> SyntaxRefusal {
    SyntaxRefusal { sqlstate: SqlState::STATEMENT_TOO_COMPLEX, message: message.into(), detail: None, position: None }
}

pub(super) fn check_size(text: &str) -> Result<(), SyntaxRefusal> {
    if text.len() > SQL_TEXT_BYTES_MAX {
        Err(too_complex(format!("statement is too long to be read: {} bytes, {SQL_TEXT_BYTES_MAX} at most", text.len())))
    } else if operator_steps(text.as_bytes()) > SQL_OPERATOR_STEPS_MAX {
        Err(too_complex("statement has too many operator characters in a row"))
    } else {
        Ok(())
    }
}

/// An upper bound of the steps that the scanner takes in runs of operator characters.
///
/// Its rules for operators and for comment starts match a whole run and then put back what is too much (scan.l: `operator`,
/// `xcstart`), so a run costs its length for every token that can begin in it: at its start, at and behind each `/*`, and at each
/// `+` and `-`, in which no operator of SQL may end. A `--` begins a comment, which ends the run.
fn operator_steps(text: &[u8]) -> usize {
    let is_operator = |byte: &u8| b"~!@#^&|`?+-*/%<>=".contains(byte);
    let mut steps: usize = 0;
    for run in text.chunk_by(|one, next| is_operator(one) && is_operator(next)).filter(|run| run.len() > 1) {
        let signs = run.chunk_by(|one, next| one == next).map(|same| match same {
            [b'+', ..] => same.len(),
            [b'-'] => 1,
            _ => 0,
        });
        let comments = run.windows(2).filter(|pair| pair == b"/*").count();
        let tokens = 1 + signs.sum::<usize>() + 2 * comments;
        steps = steps.saturating_add(run.len().saturating_mul(tokens));
    }
    steps
}

fn refusal(text: &str, error: &Error) -> SyntaxRefusal {
    match error {
        Error::Parse(message) | Error::Split(message) | Error::Scan(message) => {
            let is_too_deep = message.starts_with("memory exhausted") || message.starts_with("stack depth limit");
            let sqlstate = if is_too_deep { SqlState::STATEMENT_TOO_COMPLEX } else { SqlState::SYNTAX_ERROR };
            SyntaxRefusal { sqlstate, message: message.clone(), detail: None, position: position(text, message) }
        }
        Error::Conversion(_) => SyntaxRefusal {
            sqlstate: SqlState::SYNTAX_ERROR,
            message: "statement contains a zero byte".to_owned(),
            detail: None,
            position: None,
        },
        Error::Decode(_) | Error::InvalidJson(_) | Error::InvalidPointer | Error::IsUtility(_) => {
            too_complex("statement could not be read")
        }
    }
}

/// Where the grammar found an error. Its message names the token but not its place, so the place is the first one where a text
/// that ends with this token is refused with the same words. Not looked for in texts where that would take long.
fn position(text: &str, message: &str) -> Option<usize> {
    let characters_before = |at: usize| text.get(..at).map(|before| before.chars().count() + 1);
    let Some((_, near)) = message.split_once(" at or near \"") else {
        return message.ends_with(" at end of input").then(|| characters_before(text.len())).flatten();
    };
    let near = near.strip_suffix('"').filter(|near| !near.is_empty())?;
    // NUL is no token in NULL.
    let is_word =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..));
    let bytes = text.as_bytes();
    let (begins, ends) = (is_word(near.as_bytes().first()), is_word(near.as_bytes().last()));
    let is_token = |at: &usize| {
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        !(begins && is_word(before) || ends && is_word(bytes.get(at + near.len())))
    };
    let places = || text.match_indices(near).map(|(at, _)| at).filter(is_token);
    let mut found = places();
    let first = found.next()?;
    if found.next().is_none() {
        return characters_before(first);
    }
    if text.len() > LOCATED_TEXT_BYTES_MAX {
        return None;
    }
    let is_refused_alike = |at: &usize| {
        let start = text.get(..at + near.len()).unwrap_or_default();
        matches!(pg_query::split_with_parser(start), Err(Error::Split(found)) if found == message)
    };
    places().take(LOCATING_ATTEMPTS_MAX).find(is_refused_alike).and_then(characters_before)
}

/// See [`position`]: the longest text, and how many places are tried in it.
const LOCATED_TEXT_BYTES_MAX: usize = 8 << 10;
const LOCATING_ATTEMPTS_MAX: usize = 32;
