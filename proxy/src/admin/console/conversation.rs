//! One session of the console, from its first message behind the login, without I/O.
//!
//! Its owner calls [`Conversation::step`] until it says `Read`, feeds it what came, and so on; at `Run` it carries the command out
//! and calls [`Conversation::answered`] with what that has come to. Both protocols are spoken, simple and extended, as a server does
//! it: after an error in the extended one everything up to Sync is discarded, and a portal lives until Sync. There are no
//! transactions: every ReadyForQuery says `I`.

use std::collections::HashMap;
use std::rc::Rc;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::command::Command;
use super::{Fault, Rights, permit};
use crate::limits::{CONSOLE_MESSAGE_BYTES_MAX, CONSOLE_STATEMENTS_MAX};
use crate::wire::frontend::Target;
use crate::wire::rows::{Column, Format, Value, data_row, row_description};
use crate::wire::tag::frontend as tag;
use crate::wire::{Malformed, Severity, SqlState, TransactionStatus, backend, frontend};

/// Tag and length word.
const HEADER_BYTES: usize = 5;

/// What a command has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// A NoticeResponse that goes before it.
    pub notice: Option<Bytes>,
    /// The rows, for a command that has columns.
    pub rows: Vec<Vec<Value>>,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Read from the client, then go on.
    Read,
    /// Send this, then go on.
    Send(Bytes),
    /// Carry this out, then tell what it came to.
    Run(Rc<Command>),
    /// Send this, if it is not empty, then close.
    Close(Bytes),
}

/// A session.
pub struct Conversation {
    rights: Rights,
    input: BytesMut,
    output: BytesMut,
    statements: HashMap<Box<[u8]>, Statement>,
    portals: HashMap<Box<[u8]>, Portal>,
    /// Everything up to Sync is discarded.
    skipping: bool,
    running: Option<Running>,
    over: bool,
}

/// A text that was empty has no command.
type Statement = Option<Rc<Command>>;

struct Portal {
    statement: Statement,
    formats: Vec<Format>,
    state: PortalState,
}

enum PortalState {
    Fresh,
    /// Rows that are left, last one first.
    Suspended(Vec<Vec<Value>>),
    Done,
}

/// The command that is being carried out.
struct Running {
    command: Rc<Command>,
    /// By an Execute of this portal with this limit of rows; else by a Query.
    portal: Option<(Box<[u8]>, usize)>,
}

impl Conversation {
    /// A session whose login has been answered.
    pub fn new(rights: Rights) -> Self {
        Self {
            rights,
            input: BytesMut::new(),
            output: BytesMut::new(),
            statements: HashMap::new(),
            portals: HashMap::new(),
            skipping: false,
            running: None,
            over: false,
        }
    }

    /// Takes what came from the client.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Whether so much has been received already that the client should not be read.
    pub fn holds_enough(&self) -> bool {
        self.input.len() > HEADER_BYTES + CONSOLE_MESSAGE_BYTES_MAX
    }

    /// What is to be done next.
    pub fn step(&mut self) -> Step {
        while !self.over {
            if let Some(running) = &self.running {
                return Step::Run(running.command.clone());
            }
            match self.take() {
                Ok(Some((message, body))) => self.hear(message, &body),
                Ok(None) if self.output.is_empty() => return Step::Read,
                Ok(None) => return Step::Send(self.output.split().freeze()),
                Err(fault) => self.end(&fault),
            }
        }
        Step::Close(self.output.split().freeze())
    }

    /// What the command of the last step has come to.
    pub fn answered(&mut self, outcome: Result<Answer, Fault>) {
        let Some(Running { command, portal }) = self.running.take() else { return };
        match (outcome, portal) {
            (Ok(answer), None) => {
                self.say_notice(&answer);
                if let Some(columns) = command.columns() {
                    let text = |_| Format::Text;
                    self.output.put(row_description(columns, text));
                    answer.rows.iter().for_each(|row| self.output.put(data_row(columns, row, text)));
                }
                self.output.put(backend::command_complete(command.tag()));
                self.ready();
            }
            (Ok(mut answer), Some((name, rows_max))) => {
                self.say_notice(&answer);
                answer.rows.reverse();
                self.give_rows(&name, answer.rows, rows_max);
            }
            (Err(fault), None) => self.fail_query(&fault),
            (Err(fault), Some(_)) => self.fail(&fault),
        }
    }

    /// The first message of the input, if it has come whole.
    fn take(&mut self) -> Result<Option<(u8, Bytes)>, Fault> {
        let Some(&[message, a, b, c, d]) = self.input.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let body = length.checked_sub(4).filter(|body| *body <= CONSOLE_MESSAGE_BYTES_MAX);
        let Some(body) = body else { return Err(malformed("invalid message length")) };
        if self.input.len() < HEADER_BYTES + body {
            return Ok(None);
        }
        let message_bytes = self.input.split_to(HEADER_BYTES + body).freeze();
        Ok(Some((message, message_bytes.slice(HEADER_BYTES..))))
    }

    fn hear(&mut self, message: u8, body: &[u8]) {
        let outcome = match message {
            tag::TERMINATE => {
                self.over = true;
                return;
            }
            tag::SYNC => {
                self.skipping = false;
                self.portals.clear();
                return self.ready();
            }
            // What follows an error is discarded up to Sync (protocol flow, "Extended Query").
            _ if self.skipping => return,
            tag::QUERY => return self.query(body),
            tag::PARSE => self.parse(body),
            tag::BIND => self.bind(body),
            tag::DESCRIBE => self.describe(body),
            tag::EXECUTE => self.execute(body),
            tag::CLOSE => self.close(body),
            // Answers are never kept back; and COPY data outside of COPY is ignored by servers too.
            tag::FLUSH | tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => Ok(()),
            tag::FUNCTION_CALL => {
                let fault = Fault::new(SqlState::FEATURE_NOT_SUPPORTED, "the administration console has no functions");
                return self.fail_query(&fault);
            }
            unknown => return self.end(&malformed(format!("invalid frontend message type {unknown}"))),
        };
        match outcome {
            Ok(()) => {}
            Err(Broken::Fault(fault)) => self.fail(&fault),
            Err(Broken::Message) => self.end(&malformed("invalid message format")),
        }
    }

    fn query(&mut self, body: &[u8]) {
        let Ok(text) = frontend::query_text(body) else { return self.end(&malformed("invalid message format")) };
        // A Query drops the unnamed statement and portal.
        self.statements.remove(&b""[..]);
        self.portals.clear();
        match Command::parse(text) {
            Ok(None) => {
                self.output.put(backend::empty_query_response());
                self.ready();
            }
            Ok(Some(command)) => match permit(Some(self.rights), &command) {
                Ok(()) => self.running = Some(Running { command: command.into(), portal: None }),
                Err(fault) => self.fail_query(&fault),
            },
            Err(fault) => self.fail_query(&fault),
        }
    }

    fn parse(&mut self, body: &[u8]) -> Result<(), Broken> {
        let fields = frontend::parse_fields(body)?;
        if !fields.name.is_empty() {
            if self.statements.contains_key(fields.name) {
                let message = format!("prepared statement \"{}\" already exists", fields.name.escape_ascii());
                return Err(Fault::new(SqlState::DUPLICATE_PREPARED_STATEMENT, message).into());
            }
            if self.statements.len() >= CONSOLE_STATEMENTS_MAX {
                return Err(Fault::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many prepared statements").into());
            }
        }
        let statement = Command::parse(fields.text)?.map(Rc::new);
        self.statements.insert(fields.name.into(), statement);
        self.output.put(backend::parse_complete());
        Ok(())
    }

    fn bind(&mut self, body: &[u8]) -> Result<(), Broken> {
        let fields = frontend::bind_counts(body)?;
        let statement = self.statement(fields.statement)?;
        if fields.parameters > 0 {
            let message = format!("bind message supplies {} parameters, but the command takes none", fields.parameters);
            return Err(Fault::new(SqlState::PROTOCOL_VIOLATION, message).into());
        }
        let is_known = !fields.portal.is_empty() && self.portals.contains_key(fields.portal);
        if is_known {
            let message = format!("portal \"{}\" already exists", fields.portal.escape_ascii());
            return Err(Fault::new(SqlState::DUPLICATE_CURSOR, message).into());
        }
        if self.portals.len() >= CONSOLE_STATEMENTS_MAX {
            return Err(Fault::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "too many portals").into());
        }
        let columns = statement.as_ref().and_then(|command| command.columns()).map_or(0, <[Column]>::len);
        let formats = formats(&fields.result_formats, columns)?;
        self.portals.insert(fields.portal.into(), Portal { statement, formats, state: PortalState::Fresh });
        self.output.put(backend::bind_complete());
        Ok(())
    }

    fn describe(&mut self, body: &[u8]) -> Result<(), Broken> {
        let (target, name) = frontend::describe_fields(body)?;
        let (statement, formats) = match target {
            Target::Statement => {
                let statement = self.statement(name)?;
                self.output.put(backend::parameter_description_empty());
                (statement, Vec::new())
            }
            Target::Portal => {
                let portal = self.portals.get(name).ok_or_else(|| no_portal(name))?;
                (portal.statement.clone(), portal.formats.clone())
            }
        };
        match statement.as_ref().and_then(|command| command.columns()) {
            Some(columns) => self.output.put(row_description(columns, of(&formats))),
            None => self.output.put(backend::no_data()),
        }
        Ok(())
    }

    fn execute(&mut self, body: &[u8]) -> Result<(), Broken> {
        let (name, rows_max) = frontend::execute_fields(body)?;
        let rows_max = usize::try_from(rows_max).ok().filter(|max| *max > 0).unwrap_or(usize::MAX);
        let portal = self.portals.get_mut(name).ok_or_else(|| no_portal(name))?;
        let Some(command) = portal.statement.clone() else {
            self.output.put(backend::empty_query_response());
            return Ok(());
        };
        match std::mem::replace(&mut portal.state, PortalState::Done) {
            PortalState::Fresh => {
                permit(Some(self.rights), &command)?;
                self.running = Some(Running { command, portal: Some((name.into(), rows_max)) });
            }
            PortalState::Suspended(rows) => self.give_rows(name, rows, rows_max),
            PortalState::Done if command.columns().is_some() => self.output.put(backend::command_complete(command.tag())),
            PortalState::Done => {
                let message = format!("portal \"{}\" cannot be run", name.escape_ascii());
                return Err(Fault::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message).into());
            }
        }
        Ok(())
    }

    fn close(&mut self, body: &[u8]) -> Result<(), Broken> {
        let (target, name) = frontend::close_fields(body)?;
        match target {
            Target::Statement => drop(self.statements.remove(name)),
            Target::Portal => drop(self.portals.remove(name)),
        }
        self.output.put(backend::close_complete());
        Ok(())
    }

    /// Rows for an Execute, the last one first, up to its limit.
    fn give_rows(&mut self, name: &[u8], mut rows: Vec<Vec<Value>>, rows_max: usize) {
        let Some(portal) = self.portals.get_mut(name) else { return };
        let Some(command) = &portal.statement else { return };
        let columns = command.columns().unwrap_or_default();
        for _ in 0..rows_max {
            let Some(row) = rows.pop() else { break };
            self.output.put(data_row(columns, &row, of(&portal.formats)));
        }
        if rows.is_empty() {
            self.output.put(backend::command_complete(command.tag()));
        } else {
            portal.state = PortalState::Suspended(rows);
            self.output.put(backend::portal_suspended());
        }
    }

    fn statement(&self, name: &[u8]) -> Result<Statement, Fault> {
        let missing = || {
            let message = format!("prepared statement \"{}\" does not exist", name.escape_ascii());
            Fault::new(SqlState::INVALID_SQL_STATEMENT_NAME, message)
        };
        self.statements.get(name).cloned().ok_or_else(missing)
    }

    fn say_notice(&mut self, answer: &Answer) {
        if let Some(notice) = &answer.notice {
            self.output.put(&notice[..]);
        }
    }

    fn ready(&mut self) {
        self.output.put(backend::ready_for_query(TransactionStatus::Idle));
    }

    fn fail_query(&mut self, fault: &Fault) {
        self.output.put(fault.encode(Severity::Error));
        self.ready();
    }

    fn fail(&mut self, fault: &Fault) {
        self.output.put(fault.encode(Severity::Error));
        self.skipping = true;
    }

    fn end(&mut self, fault: &Fault) {
        self.output.put(fault.encode(Severity::Fatal));
        self.over = true;
    }
}

/// What is wrong with a message of the extended protocol.
enum Broken {
    /// It asks for what is not to be had.
    Fault(Fault),
    /// It is none.
    Message,
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Malformed> for Broken {
    fn from(_: Malformed) -> Self {
        Self::Message
    }
}

fn malformed(message: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
    Fault::new(SqlState::PROTOCOL_VIOLATION, message)
}

fn no_portal(name: &[u8]) -> Fault {
    Fault::new(SqlState::INVALID_CURSOR_NAME, format!("portal \"{}\" does not exist", name.escape_ascii()))
}

/// The format of each column: none asked for is text for all, one is for all.
fn formats(codes: &[i16], columns: usize) -> Result<Vec<Format>, Fault> {
    if codes.len() > 1 && codes.len() != columns {
        let message = format!("bind message has {} result formats but query has {columns} columns", codes.len());
        return Err(Fault::new(SqlState::PROTOCOL_VIOLATION, message));
    }
    let format = |code: &i16| match code {
        0 => Ok(Format::Text),
        1 => Ok(Format::Binary),
        other => Err(Fault::new(SqlState::INVALID_PARAMETER_VALUE, format!("unsupported format code: {other}"))),
    };
    codes.iter().map(format).collect()
}

fn of(formats: &[Format]) -> impl Fn(usize) -> Format + '_ {
    move |column| match formats {
        [] => Format::Text,
        [all] => *all,
        each => each.get(column).copied().unwrap_or(Format::Text),
    }
}
