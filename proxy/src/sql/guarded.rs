//! What of a statement is guarded, read from its tokens.
//!
//! A guarded function counts where its name can be called: before a parenthesis, behind the dot of PostgreSQL's attribute notation
//! (`(x).f` and `t.f` are calls of `f` where `x` and `t` are no tables), and anywhere in a statement that makes or changes routines,
//! operators and the like. So a column, a table or an alias of such a name is none. Guarded commands are known by their first words.

use pg_query::protobuf::Token as TokenKind;

use super::bodies;
use super::facts::SyntaxRefusal;
use super::guard::{Guard, GuardSet, runs_text};
use super::tokens::Statement;

/// The guards of a statement, whose `words` are [`Statement::words`].
pub(super) fn guards(statement: &Statement<'_>, words: &[Option<String>]) -> Result<GuardSet, SyntaxRefusal> {
    let read = Guarded { statement, words };
    let guards = read.by_words()? | read.by_names();
    if !read.runs_texts() {
        return Ok(guards);
    }
    let is_sql = read.languages()?.iter().all(|language| matches!(language.as_str(), "sql" | "plpgsql"));
    Ok(guards | bodies::search(&statement.all_literals()?, is_sql)?)
}

/// The guard of what a CREATE or an ALTER makes or changes; `words` are those behind that.
pub(super) fn of_definition<'w>(action: &str, mut words: impl Iterator<Item = &'w str>) -> Option<Guard> {
    let object = words.find(|word| !matches!(*word, "or" | "replace" | "trusted" | "procedural"))?;
    match object {
        "server" | "foreign" => Some(Guard::ForeignData),
        "user" => (words.next() == Some("mapping")).then_some(Guard::ForeignData),
        "subscription" => Some(Guard::Subscriptions),
        "publication" => Some(Guard::Publications),
        "system" if action == "alter" => Some(Guard::AlterSystem),
        "extension" if action == "create" => {
            Guard::of_extension(words.find(|word| !matches!(*word, "if" | "not" | "exists")).unwrap_or_default())
        }
        // Under a name of its own a language could be taken for a harmless one.
        "language" if action == "alter" => Some(Guard::UntrustedLanguages),
        "language" => {
            let known = words.next().is_some_and(|name| Guard::of_language(name).is_none());
            (!known || words.any(|word| word == "handler")).then_some(Guard::UntrustedLanguages)
        }
        _ => None,
    }
}

struct Guarded<'s, 't> {
    statement: &'s Statement<'t>,
    /// By token: the name that it is, or the keyword.
    words: &'s [Option<String>],
}

impl Guarded<'_, '_> {
    fn kind(&self, index: usize) -> TokenKind {
        self.statement.kind(index)
    }

    fn word(&self, index: usize) -> &str {
        self.words.get(index).and_then(Option::as_deref).unwrap_or_default()
    }

    fn is_name(&self, index: usize) -> bool {
        matches!(self.kind(index), TokenKind::Ident | TokenKind::Uident)
    }

    fn words_from(&self, index: usize) -> impl Iterator<Item = &str> {
        self.words.get(index..).unwrap_or_default().iter().filter_map(Option::as_deref)
    }

    /// The tokens outside of parentheses.
    fn outermost(&self) -> impl Iterator<Item = usize> + '_ {
        let mut depth = 0_usize;
        (0..self.words.len()).filter(move |index| {
            match self.kind(*index) {
                TokenKind::Ascii40 | TokenKind::Ascii91 => depth += 1,
                TokenKind::Ascii41 | TokenKind::Ascii93 => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0
        })
    }

    /// What is guarded by the words of the command.
    fn by_words(&self) -> Result<GuardSet, SyntaxRefusal> {
        let guard = match self.word(0) {
            "copy" => self.copy(),
            "import" => (self.word(1) == "foreign").then_some(Guard::ForeignData),
            "load" => Some(Guard::Load),
            "alter" if self.word(1) == "table" && self.has_options() => Some(Guard::ForeignData),
            action @ ("create" | "alter") => of_definition(action, self.words_from(1)),
            _ => None,
        };
        let languages = self.languages()?;
        let languages: GuardSet = languages.iter().filter_map(|language| Guard::of_language(language)).collect();
        Ok(languages | guard.into())
    }

    /// Where a COPY leads, unless to the client.
    fn copy(&self) -> Option<Guard> {
        let way = self.outermost().find(|index| matches!(self.kind(*index), TokenKind::From | TokenKind::To))?;
        match self.kind(way + 1) {
            TokenKind::Stdin | TokenKind::Stdout => None,
            TokenKind::Program => Some(Guard::CopyProgram),
            _ => Some(Guard::CopyFile),
        }
    }

    /// Only foreign tables and their columns have any.
    fn has_options(&self) -> bool {
        self.outermost().any(|index| self.kind(index) == TokenKind::Options && self.kind(index + 1) == TokenKind::Ascii40)
    }

    /// Whether the statement makes or changes what can be called, or calls.
    fn is_of_routines(&self) -> bool {
        if !matches!(self.word(0), "create" | "alter") {
            return false;
        }
        let object = self.words_from(1).find(|word| !matches!(*word, "or" | "replace" | "constraint"));
        matches!(
            object,
            Some(
                "function"
                    | "procedure"
                    | "routine"
                    | "aggregate"
                    | "operator"
                    | "cast"
                    | "type"
                    | "conversion"
                    | "access"
                    | "transform"
                    | "trigger"
                    | "event"
                    | "language"
                    | "text"
            )
        )
    }

    /// Whether a text in it will be run.
    fn runs_texts(&self) -> bool {
        let object = || self.words_from(1).find(|word| !matches!(*word, "or" | "replace"));
        let makes_routine = self.word(0) == "create" && matches!(object(), Some("function" | "procedure"));
        let mut calls = (0..self.words.len()).filter(|index| self.is_name(*index) && runs_text(self.word(*index)));
        self.word(0) == "do" || makes_routine || calls.next().is_some()
    }

    /// The languages that a DO, or what makes a routine, names.
    fn languages(&self) -> Result<Vec<String>, SyntaxRefusal> {
        let object = self.words_from(1).find(|word| !matches!(*word, "or" | "replace"));
        let names_any = self.word(0) == "do" || self.word(0) == "create" && matches!(object, Some("function" | "procedure"));
        if !names_any {
            return Ok(Vec::new());
        }
        let mut languages = Vec::new();
        // A body of SQL follows everything else.
        for index in self.outermost().take_while(|index| !matches!(self.kind(*index), TokenKind::BeginP | TokenKind::Return)) {
            let next = index + 1;
            if self.kind(index) != TokenKind::Language {
                continue;
            }
            match self.kind(next) {
                TokenKind::Sconst | TokenKind::Usconst => {
                    languages.extend(self.statement.literals(next..self.statement.after(next))?);
                }
                _ if !self.word(next).is_empty() => languages.push(self.word(next).to_owned()),
                _ => {}
            }
        }
        Ok(languages)
    }

    /// What is guarded because a function is named where it can be called.
    fn by_names(&self) -> GuardSet {
        // These name functions in order to take them away or to say who may call them.
        if matches!(self.word(0), "drop" | "comment" | "grant" | "revoke" | "security") {
            return GuardSet::NONE;
        }
        let anywhere = self.is_of_routines();
        let guard = |index: usize| {
            let guard = Guard::of_function(self.word(index)).filter(|_| self.is_name(index))?;
            (anywhere || self.is_call(index) || self.is_attribute(index)).then_some(guard)
        };
        (0..self.words.len()).filter_map(guard).collect()
    }

    /// Whether a parenthesis follows, and what stands before does not make it a table, or an alias with its columns.
    fn is_call(&self, index: usize) -> bool {
        if self.kind(self.statement.after(index)) != TokenKind::Ascii40 {
            return false;
        }
        let mut first = index;
        while let Some(qualifier) = first.checked_sub(2).filter(|at| self.kind(at + 1) == TokenKind::Ascii46) {
            first = qualifier;
        }
        let before = first.checked_sub(1).map_or(TokenKind::Nul, |before| self.kind(before));
        !matches!(
            before,
            TokenKind::Into
                | TokenKind::Table
                | TokenKind::References
                | TokenKind::As
                | TokenKind::Exists
                | TokenKind::View
                | TokenKind::Copy
                | TokenKind::With
                | TokenKind::Recursive
        )
    }

    /// Whether it stands behind a dot, and what stands before that may be a value to call it with.
    fn is_attribute(&self, index: usize) -> bool {
        let Some(of) = index.checked_sub(2).filter(|of| self.kind(of + 1) == TokenKind::Ascii46) else { return false };
        match self.kind(of) {
            TokenKind::Ascii41 | TokenKind::Ascii93 | TokenKind::Param => true,
            // What stands behind two dots is a column, or a call with a row.
            _ if of.checked_sub(1).is_some_and(|before| self.kind(before) == TokenKind::Ascii46) => false,
            // The end of a name in U& notation with its own escape character.
            TokenKind::Sconst => true,
            _ => self.is_alias_of_value(self.word(of)),
        }
    }

    /// Whether a name may be that of a function in FROM: its own, or one that follows its parenthesis.
    fn is_alias_of_value(&self, name: &str) -> bool {
        (0..self.words.len()).filter(|index| !name.is_empty() && self.word(*index) == name).any(|index| {
            let before = |steps: usize| index.checked_sub(steps).map_or(TokenKind::Nul, |before| self.kind(before));
            let before = if before(1) == TokenKind::As { before(2) } else { before(1) };
            let is_value = |kind| {
                matches!(
                    kind,
                    TokenKind::CurrentCatalog
                        | TokenKind::CurrentRole
                        | TokenKind::CurrentSchema
                        | TokenKind::CurrentUser
                        | TokenKind::SessionUser
                        | TokenKind::SystemUser
                        | TokenKind::User
                )
            };
            before == TokenKind::Ascii41
                || is_value(before)
                || is_value(self.kind(index))
                || self.kind(self.statement.after(index)) == TokenKind::Ascii40
        })
    }
}
