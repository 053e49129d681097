//! A server that knows the protocol, transactions and savepoints, and no data.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use crate::pool::OpenError;
use crate::target::TargetSessionAttrs;
use crate::wire::tag::frontend as tag;
use crate::wire::{
    Frame, Malformed, Mode, Report, Severity, Splitter, SqlState, TransactionStatus, backend, encode_error, frontend,
};

/// One backend process.
pub(super) struct Model {
    pub(super) region: String,
    splitter: Splitter,
    pub(super) status: TransactionStatus,
    savepoints: Vec<String>,
    statements: HashMap<Vec<u8>, String>,
    /// What `SELECT star` returned when a statement was parsed.
    parsed_as: HashMap<Vec<u8>, &'static str>,
    portals: HashMap<Vec<u8>, String>,
    skipping: bool,
    /// What `SELECT star` returns now: of all servers of the region, as if they were one.
    pub(super) star: Rc<Cell<bool>>,
    /// COPY FROM STDIN is open; true: in the extended protocol.
    copying_in: Option<bool>,
    /// A replication stream is open; true: the server has ended its side.
    streaming: Option<bool>,
    /// An implicit transaction has begun: extended messages without their Sync.
    implicit: bool,
    /// Settings that it reports.
    parameters: BTreeMap<String, String>,
    /// A setting that it does not report.
    work_mem: String,
    /// What RESET goes back to.
    initial: BTreeMap<String, String>,
    /// What clients have been told of them.
    reported: BTreeMap<String, String>,
    /// What it was sent, one line a message.
    pub(super) log: Vec<String>,
    pub(super) closed: bool,
}

/// Why a statement fails.
struct Failure(SqlState, String);

impl Model {
    pub(super) fn new(region: &str) -> Self {
        Self {
            region: region.to_owned(),
            splitter: Splitter::default(),
            status: TransactionStatus::Idle,
            savepoints: Vec::new(),
            statements: HashMap::new(),
            parsed_as: HashMap::new(),
            star: Rc::default(),
            portals: HashMap::new(),
            skipping: false,
            copying_in: None,
            streaming: None,
            implicit: false,
            work_mem: String::new(),
            parameters: initial(),
            initial: initial(),
            reported: initial(),
            log: Vec::new(),
            closed: false,
        }
    }

    /// Its configuration has got another time zone.
    pub(super) fn reads_configuration(&mut self, time_zone: &str) {
        for settings in [&mut self.parameters, &mut self.reported, &mut self.initial] {
            settings.insert("TimeZone".into(), time_zone.into());
        }
    }

    /// Takes bytes in and answers.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut at = 0;
        let mut answer = Vec::new();
        let mode = |_: u8, _: usize| Ok::<_, Malformed>(Mode::Gather);
        while let Some(frame) = self.splitter.next(bytes, &mut at, mode).expect("the proxy sends proper messages") {
            match frame {
                Frame::Whole { tag, range } => self.message(tag, &bytes[range.start + 5..range.end], &mut answer),
                Frame::Gathered { tag, bytes } => self.message(tag, &bytes[5..], &mut answer),
                Frame::Head { .. } | Frame::GatheredHead { .. } | Frame::Body { .. } => unreachable!("everything is gathered"),
            }
        }
        answer
    }

    fn message(&mut self, message: u8, body: &[u8], answer: &mut Vec<u8>) {
        if let Some(extended) = self.copying_in {
            self.log.push(format!("{}", message as char));
            return self.copy_message(message, extended, answer);
        }
        if let Some(ended) = self.streaming {
            self.log
                .push(format!("{} {}", message as char, String::from_utf8_lossy(body)).trim_end_matches(['\0', ' ']).to_owned());
            return self.stream_message(message, ended, answer);
        }
        if self.skipping && message != tag::SYNC && message != tag::TERMINATE {
            return;
        }
        match message {
            tag::QUERY => {
                let text = String::from_utf8_lossy(frontend::query_text(body).unwrap()).into_owned();
                self.log.push(format!("Q {}", text.trim_end()));
                self.statements.remove(&b""[..]);
                self.query(&text, answer);
            }
            tag::PARSE => {
                let fields = frontend::parse_fields(body).unwrap();
                let text = String::from_utf8_lossy(fields.text).into_owned();
                self.log.push(format!("P {}:{text}", String::from_utf8_lossy(fields.name)));
                self.implicit = true;
                if fields.name.is_empty() {
                    self.statements.remove(&b""[..]);
                }
                // Of all texts that it could not read, this server knows this one.
                if text.starts_with("SELEC ") {
                    return self.fail(&Failure(SqlState::SYNTAX_ERROR, "the server's own words".into()), answer);
                }
                if self.status == TransactionStatus::Failed && !ends_transaction(&text) {
                    return self.fail(&aborted(), answer);
                }
                if !fields.name.is_empty() && self.statements.contains_key(fields.name) {
                    return self.fail(
                        &Failure(
                            SqlState::DUPLICATE_PREPARED_STATEMENT,
                            format!("prepared statement \"{}\" already exists", String::from_utf8_lossy(fields.name)),
                        ),
                        answer,
                    );
                }
                self.parsed_as.insert(fields.name.to_vec(), self.column());
                self.statements.insert(fields.name.to_vec(), text);
                answer.extend_from_slice(&backend::parse_complete());
            }
            tag::BIND => {
                let names = frontend::bind_names(body).unwrap();
                self.log.push(format!(
                    "B {}:{}",
                    String::from_utf8_lossy(names.portal),
                    String::from_utf8_lossy(names.statement)
                ));
                if self.has_changed(names.statement) {
                    return self.fail(&stale(), answer);
                }
                match self.statements.get(names.statement) {
                    Some(text) if self.status == TransactionStatus::Failed && !ends_transaction(text) => {
                        self.fail(&aborted(), answer)
                    }
                    Some(text) => {
                        self.portals.insert(names.portal.to_vec(), text.clone());
                        answer.extend_from_slice(&backend::bind_complete());
                    }
                    None => {
                        let text = no_statement(names.statement);
                        self.fail(&Failure(SqlState::INVALID_SQL_STATEMENT_NAME, text), answer);
                    }
                }
            }
            tag::DESCRIBE => {
                let (target, name) = frontend::describe_fields(body).unwrap();
                self.log.push(format!("D {}", String::from_utf8_lossy(name)));
                if matches!(target, frontend::Target::Statement) && !self.statements.contains_key(name) {
                    return self.fail(&Failure(SqlState::INVALID_SQL_STATEMENT_NAME, no_statement(name)), answer);
                }
                if self.status == TransactionStatus::Failed {
                    // So does PostgreSQL for whatever returns rows, and here everything does.
                    return self.fail(&aborted(), answer);
                }
                if matches!(target, frontend::Target::Statement) && self.has_changed(name) {
                    return self.fail(&stale(), answer);
                }
                if matches!(target, frontend::Target::Statement) {
                    answer.extend_from_slice(&backend::parameter_description_empty());
                }
                answer.extend_from_slice(&backend::row_description_text(self.column(), 0));
            }
            tag::EXECUTE => {
                let (portal, _) = frontend::execute_fields(body).unwrap();
                self.log.push(format!("E {}", String::from_utf8_lossy(portal)));
                let Some(text) = self.portals.get(portal).cloned() else {
                    return self.fail(&Failure(SqlState::INVALID_CURSOR_NAME, "portal does not exist".into()), answer);
                };
                match self.statement(&text, true, answer) {
                    Ok(()) => {}
                    Err(failure) => self.fail(&failure, answer),
                }
            }
            tag::CLOSE => {
                let (_, name) = frontend::close_fields(body).unwrap();
                self.log.push(format!("C {}", String::from_utf8_lossy(name)));
                self.statements.remove(name);
                answer.extend_from_slice(&backend::close_complete());
            }
            tag::SYNC => {
                self.log.push("S".into());
                self.skipping = false;
                self.implicit = false;
                if !body.is_empty() {
                    self.error(&Failure(SqlState::PROTOCOL_VIOLATION, "invalid message format".into()), answer);
                }
                if self.status == TransactionStatus::Idle {
                    self.portals.clear();
                }
                self.ready(answer);
            }
            tag::FUNCTION_CALL => {
                self.log.push("F".into());
                if self.status == TransactionStatus::Failed {
                    self.error(&aborted(), answer);
                } else {
                    answer.extend_from_slice(&[b'V', 0, 0, 0, 8, 255, 255, 255, 255]);
                }
                self.ready(answer);
            }
            tag::TERMINATE => {
                self.log.push("X".into());
                self.closed = true;
            }
            // Flush: this server keeps nothing back.
            _ => {}
        }
    }

    fn copy_message(&mut self, message: u8, extended: bool, answer: &mut Vec<u8>) {
        match message {
            tag::COPY_DONE => {
                self.copying_in = None;
                answer.extend_from_slice(&backend::command_complete("COPY 1"));
            }
            tag::COPY_FAIL => {
                self.copying_in = None;
                let failure = Failure(SqlState::QUERY_CANCELED, "COPY from stdin failed".into());
                if extended {
                    return self.fail(&failure, answer);
                }
                self.error(&failure, answer);
            }
            _ => return,
        }
        if !extended {
            self.ready(answer);
        }
    }

    /// Data from a standby is answered by data; its CopyDone ends the stream, and what else it sends ends the connection.
    fn stream_message(&mut self, message: u8, ended: bool, answer: &mut Vec<u8>) {
        match message {
            tag::COPY_DATA if !ended => answer.extend_from_slice(&wal("keepalive")),
            tag::COPY_DATA => {}
            tag::COPY_DONE => {
                self.streaming = None;
                if !ended {
                    answer.extend_from_slice(b"c\0\0\0\x04");
                }
                answer.extend_from_slice(&backend::command_complete("COPY 0"));
                answer.extend_from_slice(&backend::command_complete("START_REPLICATION"));
                self.ready(answer);
            }
            _ => {
                let (severity, sqlstate) = (Severity::Fatal, SqlState::PROTOCOL_VIOLATION);
                let message = "invalid standby message type";
                answer.extend_from_slice(&encode_error(&Report {
                    severity,
                    sqlstate,
                    message,
                    detail: None,
                    hint: None,
                    position: None,
                }));
            }
        }
    }

    fn query(&mut self, text: &str, answer: &mut Vec<u8>) {
        let mut any = false;
        for statement in text.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            any = true;
            if let Err(failure) = self.statement(statement, false, answer) {
                self.error(&failure, answer);
                break;
            }
            if self.copying_in.is_some() || self.streaming.is_some() {
                return;
            }
        }
        if !any {
            answer.extend_from_slice(&backend::empty_query_response());
        }
        self.ready(answer);
    }

    /// The name of the column that `SELECT star` returns.
    fn column(&self) -> &'static str {
        if self.star.get() { "y" } else { "x" }
    }

    fn has_changed(&self, statement: &[u8]) -> bool {
        let is_star = self.statements.get(statement).is_some_and(|text| text.contains("star"));
        is_star && self.parsed_as.get(statement) != Some(&self.column())
    }

    fn ready(&mut self, answer: &mut Vec<u8>) {
        for (name, value) in &self.parameters {
            if self.reported.get(name) != Some(value) {
                answer.extend_from_slice(&backend::parameter_status(name, value));
            }
        }
        self.reported = self.parameters.clone();
        answer.extend_from_slice(&backend::ready_for_query(self.status));
    }

    fn fail(&mut self, failure: &Failure, answer: &mut Vec<u8>) {
        self.error(failure, answer);
        self.skipping = true;
    }

    fn error(&mut self, failure: &Failure, answer: &mut Vec<u8>) {
        if self.status == TransactionStatus::InTransaction {
            self.status = TransactionStatus::Failed;
        }
        let report = Report {
            severity: Severity::Error,
            sqlstate: failure.0,
            message: &failure.1,
            detail: None,
            hint: None,
            position: None,
        };
        let mut error = encode_error(&report).to_vec();
        if failure.0 == SqlState::FEATURE_NOT_SUPPORTED {
            // The field that tells it from others.
            error.pop();
            error.extend_from_slice(b"RRevalidateCachedQuery\0\0");
            let length = u32::try_from(error.len() - 1).unwrap();
            error[1..5].copy_from_slice(&length.to_be_bytes());
        }
        answer.extend_from_slice(&error);
    }

    fn statement(&mut self, text: &str, extended: bool, answer: &mut Vec<u8>) -> Result<(), Failure> {
        let lower = text.trim().to_lowercase();
        let word = |n: usize| lower.split_whitespace().nth(n).unwrap_or_default().to_owned();
        if self.status == TransactionStatus::Failed && !ends_transaction(&lower) {
            return Err(aborted());
        }
        let tag = match word(0).as_str() {
            "begin" | "start" => {
                if word(1) == "deferrable" {
                    return Err(Failure(SqlState::INVALID_PARAMETER_VALUE, "bad transaction mode".into()));
                }
                self.status = TransactionStatus::InTransaction;
                "BEGIN".to_owned()
            }
            "commit" | "end" | "rollback" | "abort" if word(1) == "to" => {
                let name = lower.split_whitespace().last().unwrap_or_default().to_owned();
                let Some(at) = self.savepoints.iter().rposition(|known| *known == name) else {
                    return Err(Failure(SqlState::INVALID_SAVEPOINT_SPECIFICATION, "savepoint does not exist".into()));
                };
                self.savepoints.truncate(at + 1);
                self.status = TransactionStatus::InTransaction;
                "ROLLBACK".to_owned()
            }
            verb @ ("commit" | "end" | "rollback" | "abort") => {
                let commits = matches!(verb, "commit" | "end") && self.status != TransactionStatus::Failed;
                let chain = lower.ends_with("chain");
                self.savepoints.clear();
                self.status = if chain { TransactionStatus::InTransaction } else { TransactionStatus::Idle };
                if commits { "COMMIT".to_owned() } else { "ROLLBACK".to_owned() }
            }
            "savepoint" => {
                self.savepoints.push(word(1));
                "SAVEPOINT".to_owned()
            }
            // Somebody has it cancelled before it is told.
            "select" if word(1) == "sleep" => {
                return Err(Failure(SqlState::QUERY_CANCELED, "canceling statement due to user request".into()));
            }
            "select" if word(1) == "fail" => return Err(Failure(SqlState::WARNING, "it fails".into())),
            // Its last word says what happens once the stream is open.
            "start_replication" => {
                answer.extend_from_slice(b"W\0\0\0\x07\0\0\0");
                answer.extend_from_slice(&wal("record"));
                if lower.ends_with("fails") {
                    return Err(Failure(SqlState::WARNING, "it fails".into()));
                }
                let ends = lower.ends_with("ends");
                if ends {
                    answer.extend_from_slice(b"c\0\0\0\x04");
                }
                self.streaming = Some(ends);
                return Ok(());
            }
            "copy" if lower.ends_with("stdin") => {
                self.copying_in = Some(extended);
                answer.extend_from_slice(&[b'G', 0, 0, 0, 7, 0, 0, 0]);
                return Ok(());
            }
            "copy" => {
                answer.extend_from_slice(&[b'H', 0, 0, 0, 7, 0, 0, 0, b'd', 0, 0, 0, 6, b'1', b'\n', b'c', 0, 0, 0, 4]);
                "COPY 1".to_owned()
            }
            "select" => {
                for call in text.split("pg_catalog.set_config(").skip(1) {
                    let arguments: Vec<_> = call.split('\'').collect();
                    self.parameters.insert(arguments[1].into(), arguments[3].into());
                }
                if !extended {
                    answer.extend_from_slice(&backend::row_description_text("x", 0));
                }
                let value = match word(1).as_str() {
                    "timezone" => self.parameters["TimeZone"].clone(),
                    "work_mem" => self.work_mem.clone(),
                    _ => self.region.clone(),
                };
                answer.extend_from_slice(&backend::data_row_text(Some(&value)));
                "SELECT 1".to_owned()
            }
            "alter" => {
                self.star.set(!self.star.get());
                "ALTER TABLE".to_owned()
            }
            "insert" => "INSERT 0 1".to_owned(),
            "set" if matches!(&*word(1), "timezone" | "standard_conforming_strings") => {
                let name = if word(1) == "timezone" { "TimeZone" } else { "standard_conforming_strings" };
                let value = text.rsplit(' ').next().unwrap_or_default().trim_matches('\'');
                self.parameters.insert(name.into(), value.into());
                "SET".to_owned()
            }
            "set" if word(1) == "work_mem" => {
                self.work_mem = word(3);
                "SET".to_owned()
            }
            "prepare" if word(2) == "as" => {
                if self.statements.contains_key(word(1).as_bytes()) {
                    let text = format!("prepared statement \"{}\" already exists", word(1));
                    return Err(Failure(SqlState::DUPLICATE_PREPARED_STATEMENT, text));
                }
                self.statements.insert(word(1).into_bytes(), "SELECT 1".into());
                "PREPARE".to_owned()
            }
            "execute" | "deallocate" if word(1) != "all" && !self.statements.contains_key(word(1).as_bytes()) => {
                return Err(Failure(SqlState::INVALID_SQL_STATEMENT_NAME, no_statement(word(1).as_bytes())));
            }
            "reset" if word(1) == "all" => {
                self.work_mem.clear();
                self.parameters = self.initial.clone();
                "RESET".to_owned()
            }
            "discard" if word(1) == "all" => {
                self.work_mem.clear();
                self.parameters = self.initial.clone();
                self.statements.clear();
                lower.to_uppercase()
            }
            "deallocate" if word(1) == "all" => {
                self.statements.clear();
                lower.to_uppercase()
            }
            "deallocate" => {
                self.statements.remove(word(1).as_bytes());
                "DEALLOCATE".to_owned()
            }
            other => other.to_uppercase(),
        };
        answer.extend_from_slice(&backend::command_complete(&tag));
        Ok(())
    }
}

/// Why a backend can not be opened.
pub(super) fn open_error(why: &str, node: Arc<str>, wanted: TargetSessionAttrs) -> OpenError {
    match why {
        "refuses" => OpenError::Refused { node },
        "silent" => OpenError::TimedOut { node },
        "unfit" => OpenError::NoneFits { wanted },
        "starting" => {
            let said = Report {
                severity: Severity::Fatal,
                sqlstate: SqlState::CANNOT_CONNECT_NOW,
                message: "the database system is starting up",
                detail: None,
                hint: None,
                position: None,
            };
            let sqlstate = Some(said.sqlstate);
            OpenError::LoginFailed { error: encode_error(&said), sqlstate, fatal_for_client: false }
        }
        other => panic!("{other}"),
    }
}

/// CopyData of a stream.
pub(super) fn wal(what: &str) -> Vec<u8> {
    let length = u32::try_from(what.len() + 4).unwrap().to_be_bytes();
    [b"d", &length[..], what.as_bytes()].concat()
}

/// What a server sends on its own: messages by their names, with `+` between them.
pub(super) fn unasked(what: &str) -> Vec<u8> {
    let message = |what: &str| -> Vec<u8> {
        match what {
            "parsed" => backend::parse_complete().into(),
            "bound" => backend::bind_complete().into(),
            "columns" => backend::row_description_text("answer", 0).into(),
            "row" => backend::data_row_text(Some("x")).into(),
            "done" => backend::command_complete("SELECT 1").into(),
            "idle" => backend::ready_for_query(TransactionStatus::Idle).into(),
            "copyin" => b"G\0\0\0\x07\0\0\0".into(),
            "copyboth" => b"W\0\0\0\x07\0\0\0".into(),
            "wal" => wal("record"),
            "notice" => super::super::plan::none_warning().into(),
            "error-without-sqlstate" => b"E\0\0\0\x16SERROR\0VERROR\0Mno\0\0".into(),
            "error-without-end" => b"E\0\0\0\x1cSERROR\0VERROR\0C22000\0Mno".into(),
            "timezone" => backend::parameter_status("TimeZone", "Mars").into(),
            "promoted" => backend::parameter_status("in_hot_standby", "off").into(),
            "latin1" => b"S\0\0\0\x15search_path\0d\xe9j\xe0\0".into(),
            "latin1-encoding" => b"S\0\0\0\x16client_encoding\0\xe9\0".into(),
            "terminated" => TERMINATED.into(),
            "half" => b"S\0\0".into(),
            "sjis" => backend::parameter_status("client_encoding", "SJIS").into(),
            "settings" => (0..300).flat_map(|number| backend::parameter_status(&format!("s{number}"), "x")).collect(),
            other => panic!("{other}"),
        }
    };
    what.split('+').flat_map(message).collect()
}

fn initial() -> BTreeMap<String, String> {
    BTreeMap::from([("TimeZone", "UTC"), ("standard_conforming_strings", "on")].map(|(name, value)| (name.into(), value.into())))
}

fn stale() -> Failure {
    Failure(SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type".into())
}

fn no_statement(name: &[u8]) -> String {
    if name.is_empty() {
        return "unnamed prepared statement does not exist".into();
    }
    format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name))
}

fn aborted() -> Failure {
    Failure(SqlState::IN_FAILED_SQL_TRANSACTION, "aborted (says the server)".into())
}

fn ends_transaction(text: &str) -> bool {
    let lower = text.trim().to_lowercase();
    ["commit", "end", "rollback", "abort"].iter().any(|word| lower.starts_with(word))
}

/// The ErrorResponse of a server process that an administrator ends.
pub(super) const TERMINATED: &[u8] = b"E\0\0\0\x26SFATAL\0VFATAL\0C57P01\0Mterminated\0\0";
