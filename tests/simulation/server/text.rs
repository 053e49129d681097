//! The texts that the simulation's clients send, read the way the model server reads them.
//!
//! The vocabulary is small and fixed; what is not in it is a syntax error, for the model as for PostgreSQL. Written apart from the
//! proxy's own reader, so that the two can differ.

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// `SELECT 'tag'`, with any number of rows.
    Select {
        tag: String,
        rows: usize,
    },
    /// `SELECT 'tag' FROM scratch`: needs the temporary table.
    SelectScratch {
        tag: String,
    },
    /// `SELECT fail('tag')`.
    Fail {
        tag: String,
    },
    /// `INSERT INTO ledger VALUES ('tag')`.
    Insert {
        tag: String,
    },
    Begin,
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    Set {
        name: String,
        value: Option<String>,
        local: bool,
    },
    SetConfig {
        name: String,
        value: String,
        local: bool,
    },
    /// Several calls in one statement.
    SetConfigs(Vec<(String, String, bool)>),
    DiscardSequences,
    ResetAll,
    Show(String),
    DiscardAll,
    Prepare {
        name: String,
        body: Box<Self>,
    },
    ExecutePrepared(String),
    Deallocate(Option<String>),
    CreateTemp(String),
    DropTable(String),
    Lock(String),
    Unlock(String),
    Listen(String),
    Unlisten(Option<String>),
    Notify {
        channel: String,
        payload: String,
    },
    Nextval(String),
    Currval(String),
    DeclareHeld {
        name: String,
        tag: String,
    },
    Fetch(String),
    CloseCursor(String),
    CopyIn {
        tag: String,
    },
    CopyOut {
        tag: String,
    },
}

impl Statement {
    /// Whether a failed transaction runs it.
    pub fn ends_failure(&self) -> bool {
        matches!(self, Self::Commit { .. } | Self::Rollback { .. } | Self::RollbackTo(_))
    }

    /// Whether it begins, ends or divides a transaction.
    pub fn controls_transaction(&self) -> bool {
        self.ends_failure() || matches!(self, Self::Begin | Self::Savepoint(_) | Self::Release(_))
    }

    /// The column it returns rows in.
    pub fn column(&self) -> Option<&str> {
        match self {
            Self::Select { .. } | Self::SelectScratch { .. } | Self::Fail { .. } => Some("tag"),
            Self::SetConfig { .. } | Self::SetConfigs(_) => Some("set_config"),
            Self::Show(name) => Some(name),
            Self::Lock(_) | Self::Unlock(_) => Some("lock"),
            Self::Nextval(_) => Some("nextval"),
            Self::Currval(_) => Some("currval"),
            Self::Fetch(_) => Some("tag"),
            _ => None,
        }
    }
}

/// Whether a setting is the region of the session.
pub fn is_region(name: &str) -> bool {
    name == "domicile.region" || name == "helios.region"
}

/// The statements of a text; `None` where the grammar refuses it.
pub fn read(text: &str) -> Option<Vec<Statement>> {
    text.split(';').map(str::trim).filter(|text| !text.is_empty()).map(statement).collect()
}

fn statement(text: &str) -> Option<Statement> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let word = |at: usize| words.get(at).copied().map(str::to_owned);
    let tag = || text.split('\'').nth(1).map(str::to_owned);
    let second = || text.split('\'').nth(3).map(str::to_owned);
    Some(match words[..] {
        ["SELECT", call, ..] if call.starts_with("pg_catalog.set_config(") => {
            let call = |call: &str| {
                let texts: Vec<&str> = call.split('\'').collect();
                let local = texts.get(4).is_some_and(|rest| rest.starts_with(", true"));
                Some(((*texts.get(1)?).to_owned(), (*texts.get(3)?).to_owned(), local))
            };
            Statement::SetConfigs(text.split("pg_catalog.set_config(").skip(1).filter_map(call).collect())
        }
        ["DISCARD", "SEQUENCES"] => Statement::DiscardSequences,
        ["SELECT", call, ..] if call.starts_with("set_config(") => {
            Statement::SetConfig { name: tag()?, value: second()?, local: text.ends_with("true)") }
        }
        ["SELECT", call] if call.starts_with("fail(") => Statement::Fail { tag: tag()? },
        ["SELECT", call] if call.starts_with("pg_advisory_lock(") => Statement::Lock(inside(call)?),
        ["SELECT", call] if call.starts_with("pg_advisory_unlock(") => Statement::Unlock(inside(call)?),
        ["SELECT", call] if call.starts_with("nextval(") => Statement::Nextval(tag()?),
        ["SELECT", call] if call.starts_with("currval(") => Statement::Currval(tag()?),
        ["SELECT", _] => Statement::Select { tag: tag()?, rows: 1 },
        ["SELECT", _, "FROM", "scratch"] => Statement::SelectScratch { tag: tag()? },
        ["SELECT", _, "FROM", rows] => Statement::Select { tag: tag()?, rows: inside(rows)?.parse().ok()? },
        ["INSERT", ..] => Statement::Insert { tag: tag()? },
        ["BEGIN", ..] | ["START", ..] => Statement::Begin,
        ["COMMIT", "AND", "CHAIN"] => Statement::Commit { chain: true },
        ["COMMIT"] | ["END"] => Statement::Commit { chain: false },
        ["ROLLBACK", "AND", "CHAIN"] => Statement::Rollback { chain: true },
        ["ROLLBACK", "TO", _] => Statement::RollbackTo(word(2)?),
        ["ROLLBACK"] | ["ABORT"] => Statement::Rollback { chain: false },
        ["SAVEPOINT", _] => Statement::Savepoint(word(1)?),
        ["RELEASE", _] => Statement::Release(word(1)?),
        ["SET", "LOCAL", name, "=", _] => Statement::Set { name: name.to_owned(), value: Some(tag()?), local: true },
        ["SET", name, "=", _] => Statement::Set { name: name.to_owned(), value: Some(tag()?), local: false },
        ["RESET", "ALL"] => Statement::ResetAll,
        ["RESET", name] => Statement::Set { name: name.to_owned(), value: None, local: false },
        ["SHOW", name] => Statement::Show(name.to_owned()),
        ["DISCARD", "ALL"] => Statement::DiscardAll,
        ["PREPARE", name, "AS", ..] => {
            let body = text.split_once(" AS ").and_then(|(_, body)| statement(body))?;
            Statement::Prepare { name: name.to_owned(), body: Box::new(body) }
        }
        ["EXECUTE", name] => Statement::ExecutePrepared(name.to_owned()),
        ["DEALLOCATE", "ALL"] => Statement::Deallocate(None),
        ["DEALLOCATE", _] => Statement::Deallocate(Some(word(1)?)),
        ["CREATE", "TEMP", "TABLE", name, ..] => Statement::CreateTemp(name.to_owned()),
        ["DROP", "TABLE", name] => Statement::DropTable(name.to_owned()),
        ["LISTEN", channel] => Statement::Listen(channel.to_owned()),
        ["UNLISTEN", "*"] => Statement::Unlisten(None),
        ["UNLISTEN", _] => Statement::Unlisten(Some(word(1)?)),
        ["NOTIFY", channel, _] => Statement::Notify { channel: channel.trim_end_matches(',').to_owned(), payload: tag()? },
        ["DECLARE", name, "CURSOR", "WITH", "HOLD", ..] => Statement::DeclareHeld { name: name.to_owned(), tag: tag()? },
        ["FETCH", "1", "FROM", name] => Statement::Fetch(name.to_owned()),
        ["CLOSE", name] => Statement::CloseCursor(name.to_owned()),
        ["COPY", "ledger", "FROM", ..] => Statement::CopyIn { tag: tag().unwrap_or_default() },
        ["COPY", _, "TO", ..] | ["COPY", _, _, "TO", ..] => Statement::CopyOut { tag: tag()? },
        _ => return None,
    })
}

fn inside(call: &str) -> Option<String> {
    Some(call.split_once('(')?.1.split_once(')')?.0.to_owned())
}
