//! What the messages and statements of the model server do.

use super::text::{self, Statement, is_region};
use super::{Copying, Failure, Place, Portal, Server, Status, Undo};
use crate::wire::Reply;

type Done = Result<(), Failure>;

impl Server {
    pub(super) fn query(&mut self, text: &str) {
        self.statements.remove("");
        let Some(statements) = text::read(text) else {
            self.fail(Reply::error("42601", "syntax error"));
            return self.ready();
        };
        if statements.is_empty() {
            self.say(Reply::Empty);
        }
        self.count = statements.len();
        self.rest = statements.into();
        self.run_rest();
    }

    /// Runs what is left of a Query.
    pub(super) fn run_rest(&mut self) {
        while let Some(statement) = self.rest.pop_front() {
            if self.status == Status::Failed && !statement.ends_failure() {
                self.fail(aborted());
                break;
            }
            self.begin_implicit();
            let done = self.run(&statement, false, usize::MAX);
            if let Err((code, text)) = done {
                self.fail(Reply::error(code, text));
                break;
            }
            if self.copying.is_some() {
                return;
            }
        }
        if self.implicit {
            self.commit();
        }
        self.ready();
    }

    pub(super) fn function_call(&mut self, body: &[u8]) {
        if self.status == Status::Failed {
            self.fail(aborted());
        } else {
            self.begin_implicit();
            let tag = String::from_utf8_lossy(&body[12..body.len() - 2]).into_owned();
            let row = self.row(&tag);
            self.say(Reply::Result(row));
            if self.implicit {
                self.commit();
            }
        }
        self.ready();
    }

    pub(super) fn parse(&mut self, name: &str, text: &str) -> Done {
        if name.is_empty() {
            self.statements.remove("");
        }
        let Some(statements) = text::read(text) else { return Err(("42601", "syntax error".into())) };
        if statements.len() > 1 {
            return Err(("42601", "cannot insert multiple commands into a prepared statement".into()));
        }
        let statement = statements.into_iter().next();
        self.check_status(statement.as_ref())?;
        if !name.is_empty() && self.statements.contains_key(name) {
            return Err(("42P05", format!("prepared statement \"{name}\" already exists")));
        }
        self.statements.insert(name.to_owned(), statement);
        self.say(Reply::ParseComplete);
        Ok(())
    }

    pub(super) fn bind(&mut self, portal: &str, name: &str) -> Done {
        let statement = self.statement(name)?.clone();
        self.check_status(statement.as_ref())?;
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return Err(("42P03", format!("cursor \"{portal}\" already exists")));
        }
        self.portals.insert(portal.to_owned(), Portal { statement, given: 0 });
        self.say(Reply::BindComplete);
        Ok(())
    }

    pub(super) fn describe(&mut self, kind: u8, name: &str) -> Done {
        let statement = match kind {
            b'S' => self.statement(name)?.clone(),
            _ => self.portal(name)?.statement.clone(),
        };
        let column = statement.as_ref().and_then(|statement| self.column(statement));
        if self.status == Status::Failed && column.is_some() {
            return Err(("25P02", "current transaction is aborted".into()));
        }
        if kind == b'S' {
            self.say(Reply::Parameters);
        }
        self.say(column.map_or(Reply::NoData, Reply::Columns));
        Ok(())
    }

    pub(super) fn execute(&mut self, name: &str, rows: usize) -> Done {
        let portal = self.portal(name)?.clone();
        self.check_status(portal.statement.as_ref())?;
        let Some(statement) = portal.statement else {
            self.say(Reply::Empty);
            return Ok(());
        };
        if let Statement::Select { tag, rows: all } = &statement {
            let limit = if rows == 0 { usize::MAX } else { rows };
            let more = (all - portal.given).min(limit);
            for _ in 0..more {
                let row = self.row(tag);
                self.say(Reply::Row(row));
            }
            if let Some(portal) = self.portals.get_mut(name) {
                portal.given += more;
            }
            // The server finds out that there is nothing more only when it is asked for more than there is.
            let is_over = more < limit;
            self.say(if is_over { Reply::Complete(format!("SELECT {more}")) } else { Reply::Suspended });
            return Ok(());
        }
        self.run(&statement, true, rows)
    }

    pub(super) fn close(&mut self, kind: u8, name: &str) {
        match kind {
            b'S' => drop(self.statements.remove(name)),
            _ => drop(self.portals.remove(name)),
        }
        self.say(Reply::CloseComplete);
    }

    fn statement(&self, name: &str) -> Result<&Option<Statement>, Failure> {
        self.statements.get(name).ok_or_else(|| ("26000", format!("prepared statement \"{name}\" does not exist")))
    }

    fn portal(&self, name: &str) -> Result<&Portal, Failure> {
        self.portals.get(name).ok_or_else(|| ("34000", format!("portal \"{name}\" does not exist")))
    }

    fn check_status(&self, statement: Option<&Statement>) -> Done {
        let may_run = statement.is_none_or(Statement::ends_failure);
        if self.status == Status::Failed && !may_run { Err(("25P02", "current transaction is aborted".into())) } else { Ok(()) }
    }

    fn column(&self, statement: &Statement) -> Option<String> {
        match statement {
            Statement::ExecutePrepared(name) => {
                self.statements.get(name)?.as_ref().and_then(Statement::column).map(str::to_owned)
            }
            statement => statement.column().map(str::to_owned),
        }
    }

    /// The value of a row: where it comes from, and what it answers.
    fn row(&self, tag: &str) -> String {
        let place = match &self.place {
            Place::In(region) => region,
            Place::Asked(served_by) => served_by.get(self.region()).map_or("nowhere", String::as_str),
        };
        format!("{place}|{tag}")
    }

    fn answer_row(&mut self, statement: &Statement, value: String, tag: &str, extended: bool) {
        if !extended && let Some(column) = statement.column() {
            self.say(Reply::Columns(column.to_owned()));
        }
        self.say(Reply::Row(value));
        self.say(Reply::Complete(tag.to_owned()));
    }

    fn complete(&mut self, tag: &str) -> Done {
        self.say(Reply::Complete(tag.to_owned()));
        Ok(())
    }

    /// Runs one statement and says what it returns.
    fn run(&mut self, statement: &Statement, extended: bool, rows: usize) -> Done {
        match statement {
            Statement::Select { tag, rows: all } => {
                if !extended {
                    self.say(Reply::Columns("tag".to_owned()));
                }
                for _ in 0..(*all).min(rows) {
                    let row = self.row(tag);
                    self.say(Reply::Row(row));
                }
                self.complete(&format!("SELECT {all}"))
            }
            Statement::SelectScratch { tag } => {
                if !self.session.temporary.contains("scratch") {
                    return Err(("42P01", "relation \"scratch\" does not exist".into()));
                }
                let row = self.row(tag);
                self.answer_row(statement, row, "SELECT 1", extended);
                Ok(())
            }
            Statement::Fail { tag } => Err(("22012", format!("it fails: {tag}"))),
            Statement::Insert { tag } => {
                self.written.push(tag.clone());
                self.complete("INSERT 0 1")
            }
            Statement::CopyOut { tag } => {
                let row = self.row(tag);
                self.say(Reply::CopyOut);
                self.say(Reply::CopyData(row));
                self.say(Reply::CopyDone);
                self.complete("COPY 1")
            }
            Statement::CopyIn { tag } => {
                self.say(Reply::CopyIn);
                self.flushed = self.out.len();
                self.copying = Some(Copying { extended, tag: tag.clone() });
                Ok(())
            }
            statement if statement.controls_transaction() => self.control(statement),
            statement => self.run_on_session(statement, extended),
        }
    }

    fn control(&mut self, statement: &Statement) -> Done {
        let in_block = self.status != Status::Idle;
        let no_block = |what: &str| Err(("25P01", format!("{what} can only be used in transaction blocks")));
        match statement {
            Statement::Begin => {
                if !in_block {
                    self.status = Status::Block;
                    self.implicit = false;
                }
                self.complete("BEGIN")
            }
            Statement::Commit { chain: true } | Statement::Rollback { chain: true } if !in_block => no_block("AND CHAIN"),
            Statement::Commit { chain } | Statement::Rollback { chain } => {
                let commits = matches!(statement, Statement::Commit { .. }) && self.status != Status::Failed;
                if commits {
                    self.commit();
                } else {
                    self.rollback();
                }
                if *chain {
                    self.begin_implicit();
                    self.implicit = false;
                    self.status = Status::Block;
                }
                self.complete(if commits { "COMMIT" } else { "ROLLBACK" })
            }
            Statement::Savepoint(_) | Statement::Release(_) | Statement::RollbackTo(_) if !in_block => no_block("SAVEPOINT"),
            Statement::Savepoint(name) => {
                let session = self.session.clone();
                self.undo().savepoints.push((name.clone(), session));
                self.complete("SAVEPOINT")
            }
            Statement::Release(name) => {
                let at = self.find_savepoint(name)?;
                self.undo().savepoints.truncate(at);
                self.complete("RELEASE")
            }
            Statement::RollbackTo(name) => {
                let at = self.find_savepoint(name)?;
                self.undo().savepoints.truncate(at + 1);
                self.session = self.undo().savepoints[at].1.clone();
                self.status = Status::Block;
                self.complete("ROLLBACK")
            }
            other => panic!("{other:?} does not control transactions"),
        }
    }

    fn undo(&mut self) -> &mut Undo {
        self.undo.as_mut().expect("a transaction")
    }

    fn find_savepoint(&mut self, name: &str) -> Result<usize, Failure> {
        let found = self.undo().savepoints.iter().rposition(|(known, _)| known == name);
        found.ok_or_else(|| ("3B001", format!("savepoint \"{name}\" does not exist")))
    }

    /// Statements that change or show what the session remembers.
    fn run_on_session(&mut self, statement: &Statement, extended: bool) -> Done {
        if let Statement::Set { name, .. } | Statement::SetConfig { name, .. } | Statement::Show(name) = statement
            && is_region(name)
            && matches!(self.place, Place::In(_))
        {
            panic!("a server was sent the setting of the region: {statement:?}");
        }
        match statement {
            Statement::Set { name, value, local } => {
                if !self.session.set(name, value.as_deref(), *local) {
                    return Err(("42704", format!("unrecognized configuration parameter \"{name}\"")));
                }
                self.complete(if value.is_some() { "SET" } else { "RESET" })
            }
            Statement::SetConfig { name, value, local } => {
                if !self.session.set(name, Some(value), *local) {
                    return Err(("42704", format!("unrecognized configuration parameter \"{name}\"")));
                }
                self.answer_row(statement, value.clone(), "SELECT 1", extended);
                Ok(())
            }
            Statement::SetConfigs(calls) => {
                for (name, value, local) in calls {
                    self.session.set(name, Some(value), *local);
                }
                self.answer_row(statement, String::new(), "SELECT 1", extended);
                Ok(())
            }
            Statement::DiscardSequences => {
                self.sequences.clear();
                self.complete("DISCARD SEQUENCES")
            }
            Statement::ResetAll => {
                self.session.reset_all();
                self.complete("RESET")
            }
            Statement::Show(name) => {
                let Some(setting) = self.session.setting(name) else {
                    return Err(("42704", format!("unrecognized configuration parameter \"{name}\"")));
                };
                let value = setting.current.clone();
                self.answer_row(statement, value, "SHOW", extended);
                Ok(())
            }
            Statement::DiscardAll => {
                if self.status != Status::Idle || (!extended && self.count > 1) {
                    return Err(("25001", "DISCARD ALL cannot run inside a transaction block".into()));
                }
                self.session.reset_all();
                self.session.temporary.clear();
                self.session.listens.clear();
                self.session.held.clear();
                self.statements.clear();
                self.portals.clear();
                self.locks.clear();
                self.sequences.clear();
                self.complete("DISCARD ALL")
            }
            Statement::Prepare { name, body } => {
                if self.statements.contains_key(name) {
                    return Err(("42P05", format!("prepared statement \"{name}\" already exists")));
                }
                self.statements.insert(name.clone(), Some((**body).clone()));
                self.complete("PREPARE")
            }
            Statement::ExecutePrepared(name) => match self.statement(name)?.clone() {
                Some(body) => self.run(&body, extended, usize::MAX),
                None => {
                    self.say(Reply::Empty);
                    Ok(())
                }
            },
            Statement::Deallocate(Some(name)) => {
                if self.statements.remove(name).is_none() {
                    return Err(("26000", format!("prepared statement \"{name}\" does not exist")));
                }
                self.complete("DEALLOCATE")
            }
            Statement::Deallocate(None) => {
                self.statements.clear();
                self.complete("DEALLOCATE ALL")
            }
            Statement::CreateTemp(name) => {
                if !self.session.temporary.insert(name.clone()) {
                    return Err(("42P07", format!("relation \"{name}\" already exists")));
                }
                self.complete("CREATE TABLE")
            }
            Statement::DropTable(name) => {
                if !self.session.temporary.remove(name) {
                    return Err(("42P01", format!("table \"{name}\" does not exist")));
                }
                self.complete("DROP TABLE")
            }
            Statement::Lock(key) => {
                *self.locks.entry(key.clone()).or_default() += 1;
                self.answer_row(statement, String::new(), "SELECT 1", extended);
                Ok(())
            }
            Statement::Unlock(key) => {
                let held = self.locks.get_mut(key).map(|count| *count -= 1).is_some();
                self.locks.retain(|_, count| *count > 0);
                self.answer_row(statement, if held { "t" } else { "f" }.to_owned(), "SELECT 1", extended);
                Ok(())
            }
            Statement::Listen(channel) => {
                self.session.listens.insert(channel.clone());
                self.complete("LISTEN")
            }
            Statement::Unlisten(channel) => {
                self.session.listens.retain(|known| channel.as_ref().is_some_and(|channel| channel != known));
                self.complete("UNLISTEN")
            }
            Statement::Notify { channel, payload } => {
                self.session.notifies.push((channel.clone(), payload.clone()));
                self.complete("NOTIFY")
            }
            Statement::Nextval(name) => {
                let next = self.sequences.entry(name.clone()).or_default();
                *next += 1;
                let value = next.to_string();
                self.answer_row(statement, value, "SELECT 1", extended);
                Ok(())
            }
            Statement::Currval(name) => {
                let Some(value) = self.sequences.get(name) else {
                    return Err(("55000", format!("currval of sequence \"{name}\" is not yet defined in this session")));
                };
                let value = value.to_string();
                self.answer_row(statement, value, "SELECT 1", extended);
                Ok(())
            }
            Statement::DeclareHeld { name, tag } => {
                if self.session.held.insert(name.clone(), tag.clone()).is_some() {
                    return Err(("42P03", format!("cursor \"{name}\" already exists")));
                }
                self.complete("DECLARE CURSOR")
            }
            Statement::Fetch(name) => {
                let Some(tag) = self.session.held.get(name).cloned() else {
                    return Err(("34000", format!("cursor \"{name}\" does not exist")));
                };
                let row = self.row(&tag);
                self.answer_row(statement, row, "FETCH 1", extended);
                Ok(())
            }
            Statement::CloseCursor(name) => {
                if self.session.held.remove(name).is_none() {
                    return Err(("34000", format!("cursor \"{name}\" does not exist")));
                }
                self.complete("CLOSE CURSOR")
            }
            other => panic!("{other:?} is run elsewhere"),
        }
    }
}

fn aborted() -> Reply {
    Reply::error("25P02", "current transaction is aborted, commands ignored until end of transaction block")
}
