//! Reads the console's commands.
//!
//! The grammar is PgBouncer's: one command, perhaps one argument, perhaps a semicolon; words in any case. Comments are spaces. SET
//! is taken for the settings that drivers set by themselves, and changes nothing: the console has no settings, and those of the
//! proxy stand in its configuration file.

use super::show::Show;
use super::{Fault, is_console};
use crate::pool::Scope;
use crate::wire::SqlState;
use crate::wire::rows::{Column, ColumnType};

/// How much of a command that nobody knows is repeated.
const REPEATED_CHARACTERS_MAX: usize = 100;

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A table of what there is.
    Show(Show),
    /// The value of one of [`SETTINGS`].
    Setting(&'static Setting),
    /// Taken, and without effect.
    Set,
    /// Read the configuration file again.
    Reload,
    /// Lend no backends; done when all are closed.
    Pause(Scope),
    /// Lend them again.
    Resume(Scope),
    /// End all sessions and backends now, and pause.
    Kill(Scope),
    /// End one session, by its number in SHOW CLIENTS.
    KillClient(u64),
    /// Close the backends there are as they are given back.
    Reconnect(Scope),
    /// Done when no backend is left that is to be closed.
    WaitClose(Scope),
    /// Admit no new sessions to a database.
    Disable(Box<str>),
    /// Admit them again.
    Enable(Box<str>),
    /// End the process.
    Shutdown(Shutdown),
}

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// At once.
    Immediate,
    /// As after SIGTERM: sessions end with their transactions.
    WaitForServers,
    /// When the last client has left by itself.
    WaitForClients,
}

/// A setting that clients of the console may ask for.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name, as the column of an answer.
    pub column: Column,
    /// Its value.
    pub value: &'static str,
    /// Clients are told of it at their login.
    pub reported: bool,
}

const fn setting(name: &'static str, value: &'static str, reported: bool) -> Setting {
    Setting { column: Column { name, of: ColumnType::Text }, value, reported }
}

/// The settings of PostgreSQL that drivers look at, with the values that they have here.
pub static SETTINGS: [Setting; 11] = [
    // The number is that of the console which this one is like: what drivers conclude from it holds here too.
    setting("server_version", "1.25.0/domicile", true),
    setting("client_encoding", "UTF8", true),
    setting("server_encoding", "UTF8", true),
    setting("DateStyle", "ISO, MDY", true),
    setting("TimeZone", "UTC", true),
    setting("standard_conforming_strings", "on", true),
    setting("integer_datetimes", "on", true),
    setting("is_superuser", "off", true),
    setting("default_transaction_isolation", "read committed", false),
    setting("transaction_isolation", "read committed", false),
    setting("default_transaction_read_only", "off", false),
];

/// What drivers set by themselves, beside [`SETTINGS`].
const IGNORED: [&str; 14] = [
    "application_name",
    "bytea_output",
    "client_min_messages",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "lock_timeout",
    "names",
    "search_path",
    "statement_timeout",
    "synchronous_commit",
    "time",
    "transaction_timeout",
];

impl Command {
    /// The command of a text; `None` if there is none in it.
    ///
    /// # Errors
    /// 42601 and kin: nobody knows this command, or not with this argument.
    pub fn parse(text: &[u8]) -> Result<Option<Self>, Fault> {
        let Ok(text) = str::from_utf8(text) else {
            return Err(Fault::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "invalid byte sequence for encoding \"UTF8\""));
        };
        let unknown = || unknown(text);
        let mut words = words(text).ok_or_else(unknown)?;
        while words.last().is_some_and(|word| *word == Word::Other(';')) {
            words.pop();
        }
        let Some((Word::Name(verb), rest)) = words.split_first() else {
            return if words.is_empty() { Ok(None) } else { Err(unknown()) };
        };
        let verb = verb.to_ascii_lowercase();
        if verb == "set" {
            return set(rest).ok_or_else(unknown)?.map(Some);
        }
        if verb == "show" && is_isolation_level(rest) {
            return Ok(SETTINGS.iter().find(|setting| setting.column.name == "transaction_isolation").map(Self::Setting));
        }
        let argument = match rest {
            [] => None,
            [Word::Name(argument)] => Some(argument.as_str()),
            _ => return Err(unknown()),
        };
        let alone = |command: Self| if argument.is_none() { Ok(command) } else { Err(unknown()) };
        let command = match verb.as_str() {
            // PgBouncer takes one word for the other.
            "show" | "select" => shown(argument.unwrap_or_default()).ok_or_else(unknown)?,
            "reload" => alone(Self::Reload)?,
            "pause" => Self::Pause(scope("pause", argument)?),
            "resume" => Self::Resume(scope("resume", argument)?),
            "kill" => Self::Kill(scope("kill", argument)?),
            "reconnect" => Self::Reconnect(scope("reconnect", argument)?),
            "wait_close" => Self::WaitClose(scope("wait for", argument)?),
            "disable" => Self::Disable(database("disable", argument)?),
            "enable" => Self::Enable(database("enable", argument)?),
            "kill_client" => Self::KillClient(client(argument)?),
            "shutdown" => Self::Shutdown(shutdown(argument).ok_or_else(unknown)?),
            "suspend" => {
                return Err(Fault::new(SqlState::FEATURE_NOT_SUPPORTED, "SUSPEND is not supported")
                    .with_hint("PAUSE stops the use of servers; SHUTDOWN WAIT_FOR_CLIENTS lets another process take over."));
            }
            _ => return Err(unknown()),
        };
        Ok(Some(command))
    }

    /// Whether those may give it who may only look.
    pub fn only_looks(&self) -> bool {
        match self {
            Self::Show(_) | Self::Setting(_) | Self::Set => true,
            Self::Reload
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Kill(_)
            | Self::KillClient(_)
            | Self::Reconnect(_)
            | Self::WaitClose(_)
            | Self::Disable(_)
            | Self::Enable(_)
            | Self::Shutdown(_) => false,
        }
    }

    /// Its tag in CommandComplete.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Show(_) | Self::Setting(_) => "SHOW",
            Self::Set => "SET",
            Self::Reload => "RELOAD",
            Self::Pause(_) => "PAUSE",
            Self::Resume(_) => "RESUME",
            Self::Kill(_) => "KILL",
            Self::KillClient(_) => "KILL_CLIENT",
            Self::Reconnect(_) => "RECONNECT",
            Self::WaitClose(_) => "WAIT_CLOSE",
            Self::Disable(_) => "DISABLE",
            Self::Enable(_) => "ENABLE",
            Self::Shutdown(_) => "SHUTDOWN",
        }
    }

    /// The columns of its answer; `None`: it returns no rows.
    pub fn columns(&self) -> Option<&'static [Column]> {
        match self {
            Self::Show(show) => show.columns(),
            Self::Setting(setting) => Some(std::slice::from_ref(&setting.column)),
            Self::Set
            | Self::Reload
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Kill(_)
            | Self::KillClient(_)
            | Self::Reconnect(_)
            | Self::WaitClose(_)
            | Self::Disable(_)
            | Self::Enable(_)
            | Self::Shutdown(_) => None,
        }
    }
}

/// A piece of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    /// A word or number, or what stands between double quotes.
    Name(String),
    /// What stands between single quotes.
    Literal,
    /// Any other character.
    Other(char),
}

/// Splits a text; `None` where a quote or a comment does not end.
fn words(text: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_name = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | '$');
        if first.is_whitespace() {
            rest = rest.trim_start();
        } else if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find('\n').map_or("", |end| &comment[end..]);
        } else if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.get(comment.find("*/")? + 2..)?;
        } else if first == '"' || first == '\'' {
            let (quoted, behind) = quoted(&rest[1..], first)?;
            words.push(if first == '"' { Word::Name(quoted) } else { Word::Literal });
            rest = behind;
        } else if is_name(first) {
            let end = rest.find(|letter| !is_name(letter)).unwrap_or(rest.len());
            words.push(Word::Name(rest[..end].to_owned()));
            rest = &rest[end..];
        } else {
            words.push(Word::Other(first));
            rest = &rest[first.len_utf8()..];
        }
    }
    Some(words)
}

/// What stands up to a quote that is not doubled, and what follows it.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut inside = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        if letter == quote {
            if letters.peek().is_none_or(|(_, next)| *next != quote) {
                return Some((inside, &text[at + 1..]));
            }
            letters.next();
        }
        inside.push(letter);
    }
    None
}

fn is_isolation_level(words: &[Word]) -> bool {
    let expected = ["transaction", "isolation", "level"];
    let is = |(word, expected): (&Word, &str)| matches!(word, Word::Name(name) if name.eq_ignore_ascii_case(expected));
    words.len() == expected.len() && words.iter().zip(expected).all(is)
}

fn shown(word: &str) -> Option<Command> {
    let setting = SETTINGS.iter().find(|setting| setting.column.name.eq_ignore_ascii_case(word));
    setting.map(Command::Setting).or_else(|| Show::named(word).map(Command::Show))
}

/// `None`: this is no SET.
fn set(words: &[Word]) -> Option<Result<Command, Fault>> {
    let (words, is_scoped) = match words {
        [Word::Name(scope), rest @ ..] if ["session", "local"].iter().any(|word| scope.eq_ignore_ascii_case(word)) => {
            (rest, true)
        }
        _ => (words, false),
    };
    let (Word::Name(name), value) = words.split_first()? else { return None };
    if value.is_empty() || value.contains(&Word::Other(';')) {
        return None;
    }
    let is = |known: &str| known.eq_ignore_ascii_case(name);
    let is_known = SETTINGS.iter().any(|setting| is(setting.column.name)) || IGNORED.iter().any(|known| is(known));
    if is_known || is_scoped && is("characteristics") {
        return Some(Ok(Command::Set));
    }
    let message = format!("parameter \"{}\" cannot be changed here", repeated(name));
    let hint = "Change the configuration file, then RELOAD.";
    Some(Err(Fault::new(SqlState::FEATURE_NOT_SUPPORTED, message).with_hint(hint)))
}

fn scope(what: &str, argument: Option<&str>) -> Result<Scope, Fault> {
    match argument {
        None => Ok(Scope::All),
        Some(_) => database(what, argument).map(|name| Scope::Database(name.into())),
    }
}

fn database(what: &str, argument: Option<&str>) -> Result<Box<str>, Fault> {
    match argument {
        None | Some("") => Err(Fault::new(SqlState::SYNTAX_ERROR, "a database is required")),
        Some(name) if is_console(name) => {
            Err(Fault::new(SqlState::FEATURE_NOT_SUPPORTED, format!("cannot {what} the administration console: {name}")))
        }
        Some(name) => Ok(name.into()),
    }
}

fn client(argument: Option<&str>) -> Result<u64, Fault> {
    let number = argument.and_then(|argument| argument.parse().ok());
    let hint = "SHOW CLIENTS has it in its column \"id\".";
    number.ok_or_else(|| Fault::new(SqlState::SYNTAX_ERROR, "the number of a client is required").with_hint(hint))
}

fn shutdown(argument: Option<&str>) -> Option<Shutdown> {
    let is = |word: &str| argument.is_some_and(|argument| argument.eq_ignore_ascii_case(word));
    match argument {
        None => Some(Shutdown::Immediate),
        Some(_) if is("wait_for_servers") => Some(Shutdown::WaitForServers),
        Some(_) if is("wait_for_clients") => Some(Shutdown::WaitForClients),
        Some(_) => None,
    }
}

fn unknown(text: &str) -> Fault {
    Fault::new(SqlState::SYNTAX_ERROR, format!("invalid command '{}', use SHOW HELP;", repeated(text.trim())))
}

/// What the client has written, as far as it is repeated to it.
fn repeated(text: &str) -> String {
    text.chars().take(REPEATED_CHARACTERS_MAX).collect()
}
