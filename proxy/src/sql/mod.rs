//! Statement text → facts: where the statements of a text begin and end, and what they do to the session's region, to its
//! transaction and to what a backend remembers.
//!
//! Most texts are ordinary single statements: a pre-filter proves that by a few passes of `memchr` and nothing else happens.
//! Every other text is read by PostgreSQL's own grammar, once, and what was found is kept. What can not be read is refused: this
//! module never guesses, and it decides nothing else about a text. It knows no session, no region and no policy, and no other
//! module names the grammar.
//!
//! What the text does not show stays unseen: what functions, triggers and `DO` blocks do inside a backend, and what a text is that is
//! put together there. Nothing that is routed depends on it. Guards (`guard`) are found in the texts that make such things, as far as
//! they are written there.

#![forbid(unsafe_code)]

mod bodies;
mod cache;
mod characters;
mod control;
mod escapes;
mod facts;
pub mod fuzz;
mod grammar;
mod guard;
mod guarded;
mod prefilter;
mod settings;
mod tokens;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;
use std::rc::Rc;

pub use characters::blank;
pub use facts::{Extent, Facts, Kind, ROLE, Reading, Refusal, SESSION_AUTHORIZATION, SessionState, Statement, SyntaxRefusal};
pub use guard::{Guard, GuardSet};
pub use settings::{NODE_SETTING, refused_setting};

use cache::Cache;
use grammar::Token;
use prefilter::Start;
use settings::Parameters;

use crate::limits::SQL_CONTROL_BYTES_MAX;
use crate::wire::SqlState;

/// What a backslash in an ordinary string constant is, by `standard_conforming_strings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringConstants {
    /// On: a character like others.
    Conforming,
    /// Off: it begins an escape.
    Escaping,
}

impl StringConstants {
    /// As a server reports the setting.
    pub fn of(standard_conforming_strings: Option<&str>) -> Self {
        if standard_conforming_strings == Some("off") { Self::Escaping } else { Self::Conforming }
    }
}

/// The guards of a text that is not read otherwise: of every guarded name and command in it, wherever they stand.
pub fn searched(text: &[u8]) -> GuardSet {
    bodies::search_raw(&characters::as_utf8(text))
}

/// Reads texts and remembers what they say. Each worker has its own; a change of the parameters takes a new one.
pub struct Reader {
    parameters: Parameters,
    cache: Cache,
    /// Of texts that were read with escapes and could mean something else without. Made when the first comes.
    escaping: Option<Cache>,
}

impl Reader {
    /// A reader to which `parameters` are the names of the one setting that is the session's region.
    pub fn new(parameters: &[String]) -> Self {
        Self { parameters: Parameters::new(parameters), cache: Cache::new(), escaping: None }
    }

    /// What `text` says: the whole text of a Query or Parse message, without its terminating zero byte.
    ///
    /// Takes the text as the backend will take it under this value of `standard_conforming_strings` and in an encoding whose
    /// characters contain no ASCII bytes; see [`refused_setting`].
    pub fn read(&mut self, text: &[u8], strings: StringConstants) -> Reading {
        if prefilter::is_plain(text) {
            return Reading::Plain;
        }
        let escaping = strings == StringConstants::Escaping && escapes::is_sensitive(text);
        let cache = if escaping { self.escaping.get_or_insert_with(Cache::new) } else { &mut self.cache };
        if let Some(reading) = cache.get(text) {
            return reading.clone();
        }
        let found = if escaping { facts_with_escapes(text, &self.parameters) } else { facts(text, &self.parameters) };
        let reading = match found {
            Ok(facts) => Reading::Known(Rc::new(facts)),
            Err(refusal) => Reading::Refused(refusal),
        };
        cache.insert(text, &reading);
        reading
    }

    /// Whether it depends on `standard_conforming_strings` what `text` says.
    pub fn is_ambiguous(&mut self, text: &[u8]) -> bool {
        escapes::is_sensitive(text) && self.read(text, StringConstants::Conforming) != self.read(text, StringConstants::Escaping)
    }
}

/// The facts of a text in whose constants a backslash begins an escape.
fn facts_with_escapes(text: &[u8], parameters: &Parameters) -> Result<Facts, SyntaxRefusal> {
    let escaped = escapes::escaped(text)?;
    match facts(&escaped.text, parameters) {
        Ok(mut facts) => {
            for statement in &mut facts.statements {
                statement.range = escaped.original(statement.range.start)..escaped.original(statement.range.end);
            }
            Ok(facts)
        }
        Err(refusal) => Err(SyntaxRefusal {
            // What the client did not write is not shown to it.
            message: refusal.message.replacen("at or near \"E'", "at or near \"'", 1),
            position: refusal.position.map(|position| escaped.original_character(position)),
            ..refusal
        }),
    }
}

fn facts(bytes: &[u8], parameters: &Parameters) -> Result<Facts, SyntaxRefusal> {
    let text = characters::as_utf8(bytes);
    let is_lossy = matches!(text, Cow::Owned(_));
    let found: Vec<_> =
        grammar::statements(&text)?.into_iter().map(|(range, text)| (range, text, prefilter::start(text.as_bytes()))).collect();

    let controls = found.iter().filter(|(_, _, start)| *start == Start::Control).map(|(_, text, _)| *text);
    let mut trees = control_trees(controls)?.into_iter();
    let mut all_tokens = None;

    let mut statements = Vec::with_capacity(found.len());
    for (range, statement, start) in found {
        let (kind, guards) = if start == Start::Control {
            let tree = trees.next().ok_or_else(|| grammar::too_complex("statement could not be read"))?;
            (control::kind(tree, parameters), GuardSet::NONE)
        } else if matches!(start, Start::Remembered | Start::Guarded) || prefilter::is_remarkable(statement.as_bytes(), start) {
            let all_tokens = match &mut all_tokens {
                Some(tokens) => tokens,
                none => none.insert(grammar::tokens(&text)?),
            };
            tokens::kind(&text, tokens_in(all_tokens, &range), parameters)?
        } else {
            (Kind::Other { state: None }, GuardSet::NONE)
        };
        let is_lossy = is_lossy && bytes.get(range.clone()).is_none_or(|bytes| str::from_utf8(bytes).is_err());
        statements.push(Statement { range, kind: if is_lossy { without_lost_text(kind) } else { kind }, guards });
    }
    Ok(Facts { statements: statements.into() })
}

/// The parse trees of the control statements, which are put together to be parsed at once.
fn control_trees<'t>(statements: impl Iterator<Item = &'t str>) -> Result<Vec<pg_query::NodeEnum>, SyntaxRefusal> {
    let mut text = String::new();
    let mut count = 0;
    for statement in statements {
        if text.len() + statement.len() > SQL_CONTROL_BYTES_MAX {
            return Err(grammar::too_complex("SET and transaction statements are too long"));
        }
        // A statement may end with a comment that goes to the end of its line.
        text.push_str(statement);
        text.push_str("\n;");
        count += 1;
    }
    grammar::trees(&text, count)
}

fn tokens_in<'t>(tokens: &'t [Token], range: &Range<usize>) -> &'t [Token] {
    let before = |end: usize| tokens.partition_point(|token| token.range.start < end);
    tokens.get(before(range.start)..before(range.end)).unwrap_or_default()
}

/// The kind of a statement in which some bytes are no UTF-8: refused if a name or a value in it would have to be understood, of
/// which only a likeness was read.
fn without_lost_text(kind: Kind) -> Kind {
    match kind {
        Kind::SetRegion { .. }
        | Kind::ResetRegion { .. }
        | Kind::ShowRegion { .. }
        | Kind::ShowNode { .. }
        | Kind::SetConfigRegion { .. }
        | Kind::RollbackTo { .. }
        | Kind::Savepoint { .. }
        | Kind::Release { .. }
        | Kind::Deallocate { .. } => Kind::Refused(Refusal {
            sqlstate: SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            message: "invalid byte sequence for encoding \"UTF8\"".into(),
            hint: Some("Names and values that the proxy has to understand are read as UTF-8."),
        }),
        Kind::ResetAll
        | Kind::DiscardAll
        | Kind::Begin
        | Kind::Commit { .. }
        | Kind::Rollback { .. }
        | Kind::PrepareTransaction
        | Kind::SetTransaction
        | Kind::SetOther { .. }
        | Kind::Refused(_)
        | Kind::Other { .. } => kind,
    }
}
