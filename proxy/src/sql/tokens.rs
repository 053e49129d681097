//! What all other statements leave behind, read from their tokens.
//!
//! A function, a schema or a TEMP counts wherever it stands in the statement, and tokens stay flat where parse trees nest. The
//! grammar has accepted the statement before it comes here, so that its tokens can only stand together as PostgreSQL allows.

use std::ops::Range;

use pg_query::NodeEnum;
use pg_query::protobuf::{self, KeywordKind, Token as TokenKind, a_const};

use super::facts::{Kind, Refusal, SessionState, SyntaxRefusal};
use super::grammar::{self, Token};
use super::guard::GuardSet;
use super::guarded;
use super::settings::{Parameters, is_guarded, refused_setting};
use crate::limits::SQL_CALLS_MAX;
use crate::wire::SqlState;

/// The meaning of a statement of `text` that is no control statement. `tokens` are its own, and not empty.
pub(super) fn kind(text: &str, tokens: &[Token], parameters: &Parameters) -> Result<(Kind, GuardSet), SyntaxRefusal> {
    let statement = Statement { text, tokens };
    let words = statement.words()?;
    Ok((statement.meaning(&words, parameters)?, guarded::guards(&statement, &words)?))
}
/// The tokens of a statement, or of a text that may be one.
pub(super) struct Statement<'t> {
    pub(super) text: &'t str,
    pub(super) tokens: &'t [Token],
}

/// An identifier before a `(` or a `.`: only there can it name a function or a schema.
struct Name<'w> {
    text: &'w str,
    /// The index of what follows it.
    next: usize,
}

impl<'t> Statement<'t> {
    /// What it does to its session.
    fn meaning(&self, words: &[Option<String>], parameters: &Parameters) -> Result<Kind, SyntaxRefusal> {
        if self.starts_with(&[TokenKind::Prepare, TokenKind::Transaction, TokenKind::Sconst])
            || self.starts_with(&[TokenKind::Prepare, TokenKind::Transaction, TokenKind::Usconst])
        {
            return Ok(Kind::PrepareTransaction);
        }
        let names = self.names(words);
        let is_call = |name: &&Name| self.kind(name.next) == TokenKind::Ascii40;
        let calls: Vec<_> = names.iter().filter(is_call).filter(|name| name.text == "set_config").collect();
        if calls.len() > SQL_CALLS_MAX {
            return Err(grammar::too_complex("statement calls set_config too often"));
        }
        for call in &calls {
            if let Some(kind) = self.set_config(call.next, parameters)? {
                return Ok(kind);
            }
        }
        let calls_one_of = |functions: &[&str]| names.iter().filter(is_call).any(|name| functions.contains(&name.text));
        let state = if let Some(state) = self.state_by_words() {
            Some(state)
        } else if names.iter().any(|name| name.text.starts_with("pg_temp") && self.kind(name.next) == TokenKind::Ascii46) {
            Some(SessionState::TemporaryTable)
        } else if calls_one_of(&["currval", "lastval"]) {
            Some(SessionState::SequenceRead)
        } else if calls_one_of(&["nextval", "setval"]) {
            Some(SessionState::Sequence)
        } else if calls_one_of(SESSION_LOCK_FUNCTIONS) {
            Some(SessionState::AdvisoryLock)
        } else {
            (!calls.iter().all(|call| self.is_set_local(call.next))).then_some(SessionState::Setting)
        };
        Ok(Kind::Other { state })
    }

    pub(super) fn kind(&self, index: usize) -> TokenKind {
        self.tokens.get(index).map_or(TokenKind::Nul, |token| token.kind)
    }

    fn starts_with(&self, kinds: &[TokenKind]) -> bool {
        kinds.iter().enumerate().all(|(index, kind)| self.kind(index) == *kind)
    }

    /// The text from the first to the last token of `range`.
    fn slice(&self, range: Range<usize>) -> &'t str {
        let tokens = self.tokens.get(range).unwrap_or_default();
        let bytes = tokens.first().zip(tokens.last()).map(|(first, last)| first.range.start..last.range.end);
        bytes.and_then(|bytes| self.text.get(bytes)).unwrap_or_default()
    }

    /// The index after the identifier or literal at `index`, whose notation may go on with `UESCAPE '…'`.
    pub(super) fn after(&self, index: usize) -> usize {
        let is_escaped = matches!(self.kind(index), TokenKind::Uident | TokenKind::Usconst);
        if is_escaped && self.kind(index + 1) == TokenKind::Uescape { index + 3 } else { index + 1 }
    }

    /// The text of a name or a constant, with its UESCAPE.
    pub(super) fn written(&self, index: usize) -> &'t str {
        self.slice(index..self.after(index))
    }

    /// By token: a name as it means, a keyword in lower case, nothing else.
    pub(super) fn words(&self) -> Result<Vec<Option<String>>, SyntaxRefusal> {
        let is_escaped = |index: &usize| self.kind(*index) == TokenKind::Uident;
        let escaped: Vec<_> = (0..self.tokens.len()).filter(is_escaped).map(|index| self.written(index)).collect();
        if escaped.len() > SQL_CALLS_MAX {
            return Err(grammar::too_complex("statement has too many names in U& notation"));
        }
        let mut meanings = grammar::meanings(&escaped)?.into_iter();
        let word = |(index, token): (usize, &Token)| match token.kind {
            TokenKind::Uident => meanings.next(),
            TokenKind::Ident => {
                let text = self.slice(index..index + 1);
                let unquoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                Some(unquoted.map_or_else(|| text.to_ascii_lowercase(), |text| text.replace("\"\"", "\"")))
            }
            _ if token.keyword != KeywordKind::NoKeyword => Some(self.slice(index..index + 1).to_ascii_lowercase()),
            _ => None,
        };
        Ok(self.tokens.iter().enumerate().map(word).collect())
    }

    fn names<'w>(&self, words: &'w [Option<String>]) -> Vec<Name<'w>> {
        let name = |(index, word): (usize, &'w Option<String>)| {
            let next = self.after(index);
            let is_name = matches!(self.kind(index), TokenKind::Ident | TokenKind::Uident);
            let stands_before = matches!(self.kind(next), TokenKind::Ascii40 | TokenKind::Ascii46);
            word.as_deref().filter(|_| is_name && stands_before).map(|text| Name { text, next })
        };
        words.iter().enumerate().filter_map(name).collect()
    }

    /// What a call of set_config makes of its statement, if anything but a [`SessionState::Setting`].
    fn set_config(&self, open: usize, parameters: &Parameters) -> Result<Option<Kind>, SyntaxRefusal> {
        let arguments = self.arguments(open);
        let first = arguments.first().cloned().unwrap_or_default();
        let all = first.start..arguments.last().map_or(first.end, |last| last.end);
        let is_named = all.clone().any(|index| matches!(self.kind(index), TokenKind::EqualsGreater | TokenKind::ColonEquals));
        let settings = self.literals(if is_named { all } else { first })?;
        if settings.iter().any(|setting| parameters.find(setting).is_some()) {
            return Ok(Some(self.set_config_alone(parameters)?.unwrap_or_else(|| {
                Kind::Refused(Refusal {
                    sqlstate: SqlState::FEATURE_NOT_SUPPORTED,
                    message: "set_config of the region is not supported in this form".into(),
                    hint: Some("Use SET, or SELECT set_config('name', 'region', false) with constants and nothing beside it."),
                })
            })));
        }
        for setting in settings.iter().filter(|setting| is_guarded(setting)) {
            let value = arguments.get(1).cloned().unwrap_or_default();
            let literals = self.literals(value.clone())?;
            let refusal = match literals.as_slice() {
                [literal] if !is_named && self.after(value.start) == value.end => refused_setting(setting, literal),
                _ => Some(Refusal {
                    sqlstate: SqlState::INVALID_PARAMETER_VALUE,
                    message: format!("parameter \"{setting}\" can only be set to a constant").into(),
                    hint: Some("Use SET, or set_config with constants."),
                }),
            };
            if let Some(refusal) = refusal {
                return Ok(Some(Kind::Refused(refusal)));
            }
        }
        Ok(None)
    }

    /// Whether a call of set_config says `true`, positionally, for what ends with the transaction.
    fn is_set_local(&self, open: usize) -> bool {
        let arguments = self.arguments(open);
        let [_, _, local] = arguments.as_slice() else { return false };
        local.len() == 1 && self.kind(local.start) == TokenKind::TrueP
    }

    /// The arguments of the call whose parenthesis opens at `open`.
    fn arguments(&self, open: usize) -> Vec<Range<usize>> {
        let mut arguments = Vec::new();
        let mut start = open + 1;
        let mut depth = 0_usize;
        for index in open + 1..self.tokens.len() {
            match self.kind(index) {
                TokenKind::Ascii40 | TokenKind::Ascii91 => depth += 1,
                TokenKind::Ascii41 | TokenKind::Ascii93 if depth > 0 => depth -= 1,
                TokenKind::Ascii41 => {
                    arguments.push(start..index);
                    break;
                }
                TokenKind::Ascii44 if depth == 0 => {
                    arguments.push(start..index);
                    start = index + 1;
                }
                _ => {}
            }
        }
        arguments
    }

    /// The values of the string literals in `range`.
    pub(super) fn literals(&self, range: Range<usize>) -> Result<Vec<String>, SyntaxRefusal> {
        let literals = self.written_literals(range);
        if literals.len() > SQL_CALLS_MAX {
            return Err(grammar::too_complex("arguments of set_config are too complex"));
        }
        grammar::meanings(&literals)
    }

    /// The values of all its string literals.
    pub(super) fn all_literals(&self) -> Result<Vec<String>, SyntaxRefusal> {
        grammar::meanings(&self.written_literals(0..self.tokens.len()))
    }

    pub(super) fn written_literals(&self, range: Range<usize>) -> Vec<&'t str> {
        let is_literal = |index: &usize| matches!(self.kind(*index), TokenKind::Sconst | TokenKind::Usconst);
        range.filter(is_literal).map(|index| self.written(index)).collect()
    }

    /// `SELECT set_config('ours', 'value' | NULL, true | false) [AS name]`, and nothing beside it.
    fn set_config_alone(&self, parameters: &Parameters) -> Result<Option<Kind>, SyntaxRefusal> {
        // The longest way to write it, with U& and UESCAPE everywhere. So short a statement can not nest deeply either.
        if self.tokens.len() > 24 || self.kind(0) != TokenKind::Select {
            return Ok(None);
        }
        let tree = grammar::trees(self.slice(0..self.tokens.len()), 1)?.into_iter().next();
        let Some(NodeEnum::SelectStmt(mut select)) = tree else { return Ok(None) };
        let target = select.target_list.pop().and_then(|target| target.node);
        let nothing_else = protobuf::SelectStmt {
            limit_option: protobuf::LimitOption::Default.into(),
            op: protobuf::SetOperation::SetopNone.into(),
            ..protobuf::SelectStmt::default()
        };
        let Some(NodeEnum::ResTarget(target)) = target else { return Ok(None) };
        if *select != nothing_else || !target.indirection.is_empty() {
            return Ok(None);
        }
        let column = if target.name.is_empty() { "set_config".into() } else { target.name.into() };
        let Some(NodeEnum::FuncCall(mut call)) = target.val.and_then(|value| value.node) else { return Ok(None) };
        let arguments: Vec<_> = std::mem::take(&mut call.args).into_iter().filter_map(|argument| argument.node).collect();
        let names: Vec<_> = std::mem::take(&mut call.funcname).into_iter().filter_map(|name| name.node).collect();
        let plain_call = protobuf::FuncCall {
            funcformat: protobuf::CoercionForm::CoerceExplicitCall.into(),
            location: call.location,
            ..protobuf::FuncCall::default()
        };
        let is_name = |node: &NodeEnum, text: &str| matches!(node, NodeEnum::String(name) if name.sval == text);
        let is_set_config = match names.as_slice() {
            [name] => is_name(name, "set_config"),
            [schema, name] => is_name(schema, "pg_catalog") && is_name(name, "set_config"),
            _ => false,
        };
        let [NodeEnum::AConst(name), NodeEnum::AConst(value), NodeEnum::AConst(local)] = arguments.as_slice() else {
            return Ok(None);
        };
        let is_ours = matches!(&name.val, Some(a_const::Val::Sval(name)) if parameters.find(&name.sval).is_some());
        let value = match &value.val {
            Some(a_const::Val::Sval(value)) => Some(value.sval.as_str().into()),
            None if value.isnull => None,
            _ => return Ok(None),
        };
        let Some(a_const::Val::Boolval(local)) = &local.val else { return Ok(None) };
        let is_alone = *call == plain_call && is_set_config && is_ours;
        Ok(is_alone.then_some(Kind::SetConfigRegion { value, local: local.boolval, column }))
    }

    /// What the statement leaves behind by its keywords.
    fn state_by_words(&self) -> Option<SessionState> {
        let inner = self.after_explain();
        let state = match self.kind(inner) {
            TokenKind::Prepare | TokenKind::Execute => Some(SessionState::Prepare),
            TokenKind::Load => Some(SessionState::Library),
            TokenKind::Create if self.is_create_as_execute(inner) => Some(SessionState::Prepare),
            TokenKind::Listen | TokenKind::Unlisten => Some(SessionState::Listen),
            TokenKind::Do => Some(SessionState::Setting),
            TokenKind::Declare if self.is_held_cursor(inner) => Some(SessionState::HeldCursor),
            _ => None,
        };
        state.or_else(|| {
            let is_temporary = (0..self.tokens.len()).any(|index| self.is_temporary(index));
            (is_temporary && !self.drops_on_commit(inner)).then_some(SessionState::TemporaryTable)
        })
    }

    /// Whether it is a CREATE TEMPORARY TABLE whose table is gone with its transaction.
    fn drops_on_commit(&self, from: usize) -> bool {
        let words = [TokenKind::On, TokenKind::Commit, TokenKind::Drop];
        let has_words = (from..self.tokens.len()).any(|at| (at..).zip(words).all(|(at, word)| self.kind(at) == word));
        self.kind(from) == TokenKind::Create && has_words
    }

    /// The index of the first token behind EXPLAIN and its options.
    fn after_explain(&self) -> usize {
        if self.kind(0) != TokenKind::Explain {
            return 0;
        }
        if self.kind(1) == TokenKind::Ascii40 {
            return self.arguments(1).last().map_or(1, |options| options.end + 1);
        }
        let is_option = |index: &usize| matches!(self.kind(*index), TokenKind::Analyze | TokenKind::Analyse | TokenKind::Verbose);
        1 + (1..).take_while(is_option).count()
    }

    /// `CREATE TABLE … AS EXECUTE`: no other AS stands before that one outside of parentheses.
    fn is_create_as_execute(&self, from: usize) -> bool {
        let mut depth = 0_usize;
        for index in from..self.tokens.len() {
            match self.kind(index) {
                TokenKind::Ascii40 => depth += 1,
                TokenKind::Ascii41 => depth = depth.saturating_sub(1),
                TokenKind::As if depth == 0 => return self.kind(index + 1) == TokenKind::Execute,
                _ => {}
            }
        }
        false
    }

    /// `DECLARE name … CURSOR WITH HOLD`; the name may be `cursor` too.
    fn is_held_cursor(&self, from: usize) -> bool {
        let cursor = (from + 2..self.tokens.len()).find(|index| self.kind(*index) == TokenKind::Cursor);
        cursor.is_some_and(|cursor| self.kind(cursor + 1) == TokenKind::With && self.kind(cursor + 2) == TokenKind::Hold)
    }

    /// Whether the token is the TEMP of a CREATE or of a `SELECT … INTO`.
    fn is_temporary(&self, index: usize) -> bool {
        let before = |steps: usize| index.checked_sub(steps).map_or(TokenKind::Nul, |index| self.kind(index));
        if !matches!(self.kind(index), TokenKind::Temp | TokenKind::Temporary) {
            return false;
        }
        let scope = usize::from(matches!(before(1), TokenKind::Local | TokenKind::Global));
        match before(1 + scope) {
            TokenKind::Create => true,
            TokenKind::Replace => before(2 + scope) == TokenKind::Or,
            // A table may be named `temp`: then no other name follows, or it is what is inserted into.
            TokenKind::Into => !matches!(before(2 + scope), TokenKind::Insert | TokenKind::Merge) && self.is_name(index + 1),
            _ => false,
        }
    }

    /// Whether the token may begin the name of a table, or is the TABLE before one.
    fn is_name(&self, index: usize) -> bool {
        self.tokens.get(index).is_some_and(|token| {
            matches!(token.kind, TokenKind::Ident | TokenKind::Uident | TokenKind::Table)
                || matches!(token.keyword, KeywordKind::UnreservedKeyword | KeywordKind::ColNameKeyword)
        })
    }
}

/// The advisory lock functions whose locks outlive the transaction, and those that end such locks.
const SESSION_LOCK_FUNCTIONS: &[&str] = &[
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "pg_advisory_unlock",
    "pg_advisory_unlock_shared",
    "pg_advisory_unlock_all",
];
