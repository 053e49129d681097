//! The record of denials: one line each, in a file of its own or in the log.
//!
//! A record says who was denied what, by which rule. It never holds a statement's text, a parameter or a secret.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::Value;
use tracing::{error, info};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use super::Violation;
use crate::policy::Policy;
use crate::session::AuditRecord;

/// The log target of records that have no file. The log shows it at every level.
pub const TARGET: &str = "audit";

/// What stands in a record where the kernel has denied something.
const RULE_OF_THE_FENCE: &str = "fence";
/// What stands in a record where a server's certificate is another region's.
const RULE_OF_THE_CERTIFICATE: &str = "nodes.tls.region";

/// Where records go.
pub struct AuditLog(RefCell<Option<File>>);

impl AuditLog {
    /// Appends to the file `path`, which is made if it is not there; without one, records go to the log.
    ///
    /// # Errors
    /// The file can not be opened for writing.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        Ok(Self(RefCell::new(path.map(append_to).transpose()?)))
    }

    /// Opens the file again, so that whoever rotates it may have moved the old one away, or another one.
    ///
    /// # Errors
    /// The file can not be opened; records go on to where they went.
    pub fn reopen(&self, path: Option<&Path>) -> io::Result<()> {
        let file = path.map(append_to).transpose()?;
        self.0.replace(file);
        Ok(())
    }

    /// Writes one record. `policy` has the names of regions.
    pub fn write(&self, record: &AuditRecord, policy: &Policy) {
        let served_by = record.served_by.map(|region| policy.name(region));
        if self.append(&line(record, served_by)) {
            return;
        }
        info!(
            target: TARGET,
            user = &*record.user,
            database = &*record.database,
            address = record.address.map(tracing::field::display),
            region = &*record.region,
            reason = record.reason.as_str(),
            rule = &*record.rule,
            sqlstate = record.sqlstate.as_str(),
            statement = record.message,
            served_by,
            "{}", verdict(record)
        );
    }

    /// Writes that the kernel has stopped something. `unrecorded`: so many more since the last record.
    pub fn write_violation(&self, violation: &Violation, unrecorded: u64) {
        if self.append(&violation_line(violation, unrecorded)) {
            return;
        }
        info!(
            target: TARGET,
            region = &*violation.region,
            node = &*violation.node,
            address = %violation.address,
            hook = violation.hook,
            session = violation.session,
            worker = violation.worker,
            process = violation.process,
            socket = violation.cookie,
            rule = RULE_OF_THE_FENCE,
            unrecorded,
            "fence_deny"
        );
    }

    /// Writes that a node is not used for `region`, because the certificate of `subject` that its server has shown names others.
    pub fn write_misplaced(&self, node: &str, region: &str, subject: &str, named: &[String]) {
        let line = object(&[
            ("time", now()),
            ("verdict", "certificate_deny".into()),
            ("region", region.into()),
            ("node", node.into()),
            ("certificate", subject.into()),
            ("named", named.to_vec().into()),
            ("rule", RULE_OF_THE_CERTIFICATE.into()),
        ]);
        if self.append(&line) {
            return;
        }
        info!(target: TARGET, region, node, certificate = subject, ?named, rule = RULE_OF_THE_CERTIFICATE, "certificate_deny");
    }

    /// Writes a line to the file. False: there is none, or it failed.
    fn append(&self, line: &str) -> bool {
        let Some(file) = &mut *self.0.borrow_mut() else { return false };
        // One write a line: lines of several writers to one file do not mix.
        let written = file.write_all(line.as_bytes());
        if let Err(error) = &written {
            error!(%error, "the audit file can not be written; the record follows");
        }
        written.is_ok()
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn verdict(record: &AuditRecord) -> &'static str {
    if record.would_block { "would_block" } else { "deny" }
}

/// A record as a JSON object and a line end.
fn line(record: &AuditRecord, served_by: Option<&str>) -> String {
    object(&[
        ("time", now()),
        ("verdict", verdict(record).into()),
        ("user", (*record.user).into()),
        ("database", (*record.database).into()),
        ("address", record.address.map(|address| address.to_string()).into()),
        ("region", (*record.region).into()),
        ("reason", record.reason.as_str().into()),
        ("rule", (*record.rule).into()),
        ("sqlstate", record.sqlstate.as_str().into()),
        ("statement", record.message.into()),
        ("served_by", served_by.into()),
    ])
}

/// The same of what the kernel has stopped.
fn violation_line(violation: &Violation, unrecorded: u64) -> String {
    object(&[
        ("time", now()),
        ("verdict", "fence_deny".into()),
        ("region", violation.region.as_str().into()),
        ("node", violation.node.as_str().into()),
        ("address", violation.address.to_string().into()),
        ("hook", violation.hook.into()),
        ("session", violation.session.into()),
        ("worker", violation.worker.into()),
        ("process", violation.process.into()),
        ("socket", violation.cookie.into()),
        ("rule", RULE_OF_THE_FENCE.into()),
        ("unrecorded", unrecorded.into()),
    ])
}

/// The time; nothing where a clock can not be printed: the record is worth more.
fn now() -> Value {
    let mut time = String::new();
    SystemTime.format_time(&mut Writer::new(&mut time)).map_or(Value::Null, |()| Value::from(time))
}

/// Fields, in this order, on one line.
fn object(fields: &[(&str, Value)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}\n", fields.join(","))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::policy::Reason;
    use crate::wire::SqlState;

    fn record() -> AuditRecord {
        AuditRecord {
            user: "al\"ice\n".into(),
            database: "demo".into(),
            address: Some([127, 0, 0, 1].into()),
            region: "us-east".into(),
            reason: Reason::NotGranted,
            rule: "residency.bind[0]".into(),
            sqlstate: SqlState::INSUFFICIENT_PRIVILEGE,
            would_block: false,
            served_by: None,
            message: "Query",
        }
    }

    #[test]
    fn a_record_is_one_line_of_json() {
        let line = line(&record(), None);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert!(value["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        let (_, rest) = line.split_once(',').unwrap();
        expect_test::expect![[r#"
            "verdict":"deny","user":"al\"ice\n","database":"demo","address":"127.0.0.1","region":"us-east","reason":"not_granted","rule":"residency.bind[0]","sqlstate":"42501","statement":"Query","served_by":null}
        "#]]
        .assert_eq(rest);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let log = AuditLog::open(Some(&path)).unwrap();
        let policy = policy();
        log.write(&record(), &policy);
        std::fs::rename(&path, directory.path().join("old")).unwrap();
        log.write(&record(), &policy);
        log.reopen(Some(&path)).unwrap();
        log.write(&record(), &policy);
        let lines = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap().lines().count();
        assert_eq!((lines("old"), lines("audit.jsonl")), (2, 1));
    }

    /// A policy without regions.
    pub(crate) fn policy() -> Policy {
        let source = crate::policy::Source {
            regions: Vec::new(),
            binds: Vec::new(),
            unbound: crate::policy::Unbound::Block,
            no_region: crate::policy::NoRegion::Block,
            default_region: None,
            enforce: true,
            guards: crate::sql::Guard::ALL.into_iter().collect(),
            block_message: "{reason}".to_owned(),
            block_sqlstate: SqlState::SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
        };
        Policy::compile(&source, None).unwrap()
    }
}
