//! A name as rules write it: a word, a regular expression behind a `/`, or `all`.
//!
//! Regular expressions are those of the `regex` crate and take linear time, whatever a client is called. As in PostgreSQL they match
//! anywhere in the name unless they are anchored; `\d`, `\w` and `\s` are ASCII.

use regex::bytes::{Regex, RegexBuilder};

use super::tokens::Token;

/// What a name must be.
#[derive(Clone, Debug)]
pub enum NamePattern {
    /// Anything.
    All,
    /// This one.
    Exactly(String),
    /// One in which the expression is found.
    Matching(Regex),
}

impl NamePattern {
    /// Reads a token; the mistake in words that follow a file and a line.
    pub(super) fn read(token: &Token) -> Result<Self, String> {
        match token.text.strip_prefix('/') {
            Some(expression) => self::expression(expression).map(Self::Matching),
            None if token.is("all") => Ok(Self::All),
            None => Ok(Self::Exactly(token.text.clone())),
        }
    }

    /// Whether `name` is such a name.
    pub fn admits(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Exactly(expected) => expected == name,
            Self::Matching(expression) => expression.is_match(name.as_bytes()),
        }
    }
}

/// Compiles a regular expression.
pub(super) fn expression(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text).unicode(false).dot_matches_new_line(true).build().map_err(|error| {
        let error = error.to_string();
        // The error is a drawing of several lines; its last line says what is wrong.
        let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("\"/{}\" is not a regular expression: {why}", super::super::value::shown(text))
    })
}
