//! `auth.query`: the secret of a user that the users file does not have is asked of a server, at each of its logins, so that a password
//! that was changed or has expired (VALID UNTIL) is so at once.
//!
//! The connections that ask are apart from all pools, and no client has a say in them: nothing of a client but its name gets there, as
//! a parameter, and with an empty `search_path` no name in the query means anything but what it says (CVE-2025-12819). An answer that
//! is not clear is none: a login fails by it.

use std::cell::RefCell;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::backend::{Startup, describe};
use super::connect::Asker;
use super::message::take;
use super::socket::Socket;
use super::{Desk, Rules};
use crate::config::{AuthQuery, Secret};
use crate::limits::BACKEND_MESSAGE_BYTES_MAX;
use crate::region::SessionRegion;
use crate::target::TargetSessionAttrs;
use crate::tls::Connection;
use crate::wire::startup::Replication;
use crate::wire::{backend, frame, frontend, parse_error, tag};

/// The connections that ask, of one configuration.
pub(super) struct Lookup {
    idle: RefCell<Vec<(Connection, Instant)>>,
    /// As many permits as there may be connections.
    free: Semaphore,
}

impl Lookup {
    /// Without connections yet.
    pub(super) fn new(query: Option<&AuthQuery>) -> Self {
        let connections = query.and_then(|query| usize::try_from(query.connections).ok());
        Self { idle: RefCell::default(), free: Semaphore::new(connections.unwrap_or_default()) }
    }
}

impl Desk {
    /// The secret of `user`, if there is such a user and it has one.
    ///
    /// # Errors
    /// Why it is not known, for the log.
    pub(super) async fn look_up(&self, rules: &Rules, user: &str, login_deadline: Instant) -> Result<Option<Secret>, String> {
        let Some(query) = &rules.config.auth.query else { return Ok(None) };
        let deadline = login_deadline.min(Instant::now() + rules.config.pools.connect_timeout);
        let Ok(Ok(_permit)) = timeout_at(deadline, rules.lookup.free.acquire()).await else {
            return Err(format!("all {} connections of auth.query are busy", query.connections));
        };
        let found = self.ask(rules, query, user, deadline).await;
        if let Err(why) = &found {
            warn!(user, error = why, "the secret of a user could not be looked up");
        }
        found
    }

    async fn ask(&self, rules: &Rules, query: &AuthQuery, user: &str, deadline: Instant) -> Result<Option<Secret>, String> {
        loop {
            let used = rules.lookup.idle.borrow_mut().pop();
            let is_used = used.is_some();
            let (connection, since) = match used {
                Some((_, since)) if since.elapsed() > rules.config.pools.lifetime => continue,
                Some(used) => used,
                None => (self.open_for_lookup(rules, query, deadline).await?, Instant::now()),
            };
            match converse(connection, query, user, deadline).await {
                Ok((connection, answer)) => {
                    rules.lookup.idle.borrow_mut().push((connection, since));
                    return answer;
                }
                // Its server may have closed it since it was last used.
                Err(error) if is_used && error.kind() != io::ErrorKind::TimedOut => {}
                Err(error) => return Err(format!("the connection of auth.query is lost: {error}")),
            }
        }
    }

    /// A connection to the first node of the region that can be used.
    async fn open_for_lookup(&self, rules: &Rules, query: &AuthQuery, deadline: Instant) -> Result<Connection, String> {
        let SessionRegion::Declared(region) = rules.policy.region(&query.region) else {
            return Err(format!("region \"{}\" is not declared", query.region));
        };
        let secret = match &query.password {
            Some(password) => Some(Secret::Plain(password.clone())),
            None => rules.config.auth.users.get(&query.user).cloned(),
        };
        let settings = [("application_name", "domicile auth.query"), ("search_path", "")];
        let settings = settings.map(|(name, value)| (name.into(), value.into()));
        let mut failure = format!("region \"{}\" has no node that is up", query.region);
        let nodes = rules.serving(region, TargetSessionAttrs::Any, Some(Instant::now()));
        for (tried, node) in nodes.iter().enumerate() {
            let now = Instant::now();
            let left = u32::try_from(nodes.len() - tried).unwrap_or(u32::MAX);
            let deadline = now + deadline.saturating_duration_since(now) / left;
            let startup = Startup {
                user: &query.user,
                database: &query.database,
                replication: Replication::None,
                settings: &settings,
                secret: secret.clone(),
                asker: Asker { region: Some(region), ..Asker::default() },
            };
            match self.log_in_to(rules, node, &startup, deadline).await {
                Ok((connection, ..)) => return Ok(connection),
                Err(error) => failure = describe(&error),
            }
        }
        Err(failure)
    }
}

/// Asks by a connection for the secret of a user. The connection is given back if it can be used again.
async fn converse(
    connection: Connection,
    query: &AuthQuery,
    user: &str,
    deadline: Instant,
) -> io::Result<(Connection, Result<Option<Secret>, String>)> {
    let mut socket = Socket::of_connection(connection, deadline)?;
    socket.write_all(question(query, user)).await?;
    let (mut input, mut answer) = (BytesMut::new(), Answer::default());
    loop {
        match take(&mut input, BACKEND_MESSAGE_BYTES_MAX) {
            Ok(Some((tag, message))) => {
                if answer.receive(tag, frame::body(&message)).map_err(io::Error::other)? {
                    return Ok((socket.into_connection(), answer.secret_of(user)));
                }
            }
            Ok(None) => match socket.read().await? {
                bytes if bytes.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => input.extend_from_slice(&bytes),
            },
            Err(_) => return Err(io::Error::other("a message has an impossible length")),
        }
    }
}

fn question(query: &AuthQuery, user: &str) -> Vec<u8> {
    let parts = [
        frontend::parse(b"", query.query.as_bytes(), &[]),
        frontend::bind_texts(b"", b"", &[user.as_bytes()]),
        frontend::execute(b"", 2),
        frontend::sync(),
    ];
    parts.concat()
}

/// What a server says to the question.
#[derive(Debug, Default)]
struct Answer {
    rows: Vec<Bytes>,
    error: Option<String>,
}

impl Answer {
    /// Takes one message; true: it was the last.
    ///
    /// # Errors
    /// The message has no place here, and the connection is of no more use.
    fn receive(&mut self, message: u8, body: &[u8]) -> Result<bool, &'static str> {
        use tag::backend as of;
        match message {
            of::PARSE_COMPLETE | of::BIND_COMPLETE | of::COMMAND_COMPLETE | of::PORTAL_SUSPENDED | of::EMPTY_QUERY_RESPONSE => {}
            of::NOTICE_RESPONSE | of::PARAMETER_STATUS => {}
            of::DATA_ROW if self.rows.len() < 2 => self.rows.push(Bytes::copy_from_slice(body)),
            of::ERROR_RESPONSE => self.error = parse_error(body).map(|error| error.message),
            of::READY_FOR_QUERY => return Ok(true),
            _ => return Err("it answers what it was not asked"),
        }
        Ok(false)
    }

    /// The secret of the user that was asked for.
    fn secret_of(self, user: &str) -> Result<Option<Secret>, String> {
        if let Some(error) = self.error {
            return Err(format!("auth.query fails: {error}"));
        }
        let row = match &self.rows[..] {
            [] => return Ok(None),
            [row] => backend::data_row_values(row).ok_or("the row of auth.query is malformed")?,
            _ => return Err("auth.query gives more than one row".to_owned()),
        };
        let [name, secret] = row[..] else {
            return Err(format!("auth.query gives {} columns: it must give two, the user's name and secret", row.len()));
        };
        // What a function gives that has found nothing.
        if (name, secret) == (None, None) {
            return Ok(None);
        }
        // What is known of another user must prove nothing (CVE-2015-6817).
        if name != Some(user.as_bytes()) {
            return Err("auth.query gives the row of another user".to_owned());
        }
        let Some(secret) = secret.filter(|secret| !secret.is_empty()) else { return Ok(None) };
        let secret = str::from_utf8(secret).ok().and_then(Secret::parse);
        secret.map(Some).ok_or_else(|| "auth.query gives a broken SCRAM verifier".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Report, Severity, SqlState, encode_error};

    fn row(values: &[Option<&str>]) -> Vec<u8> {
        let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
        for value in values {
            let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap());
            body.extend(length.to_be_bytes());
            body.extend(value.unwrap_or_default().as_bytes());
        }
        body
    }

    fn answer(rows: &[Vec<u8>]) -> Result<Option<Secret>, String> {
        let mut answer = Answer::default();
        for row in rows {
            answer.receive(tag::backend::DATA_ROW, row)?;
        }
        assert_eq!(answer.receive(tag::backend::READY_FOR_QUERY, b"I"), Ok(true));
        answer.secret_of("alice")
    }

    #[test]
    fn one_row_of_this_user_is_an_answer_and_no_row_is_none() {
        assert!(matches!(answer(&[row(&[Some("alice"), Some("secret")])]), Ok(Some(Secret::Plain(_)))));
        assert!(matches!(answer(&[]), Ok(None)));
        // An expired password.
        assert!(matches!(answer(&[row(&[Some("alice"), None])]), Ok(None)));
        assert!(matches!(answer(&[row(&[Some("alice"), Some("")])]), Ok(None)));
        // A function that has found nothing.
        assert!(matches!(answer(&[row(&[None, None])]), Ok(None)));
    }

    #[test]
    fn what_is_not_clear_is_an_error() {
        let error = |rows: &[Vec<u8>]| answer(rows).expect_err("an error");
        assert_eq!(error(&[row(&[Some("bob"), Some("secret")])]), "auth.query gives the row of another user");
        assert_eq!(error(&[row(&[None, Some("secret")])]), "auth.query gives the row of another user");
        assert!(error(&[row(&[Some("secret")])]).contains("gives 1 columns"));
        assert!(error(&[row(&[Some("alice"), Some("x"), None])]).contains("gives 3 columns"));
        let alice = || row(&[Some("alice"), Some("x")]);
        assert_eq!(error(&[alice(), alice()]), "auth.query gives more than one row");
        assert_eq!(error(&[alice(), alice(), alice()]), "it answers what it was not asked");
        assert!(error(&[row(&[Some("alice"), Some("SCRAM-SHA-256$")])]).contains("broken SCRAM verifier"));
        assert_eq!(error(&[b"\0\x02\0".to_vec()]), "the row of auth.query is malformed");
    }

    #[test]
    fn an_error_of_the_server_is_told_and_other_messages_are_none_of_ours() {
        let mut answer = Answer::default();
        let report = Report {
            severity: Severity::Error,
            sqlstate: SqlState::SYNTAX_ERROR,
            message: "permission denied",
            detail: None,
            hint: None,
            position: None,
        };
        let error = encode_error(&report);
        assert_eq!(answer.receive(tag::backend::ERROR_RESPONSE, frame::body(&error)), Ok(false));
        assert_eq!(answer.receive(b'G', b""), Err("it answers what it was not asked"));
        assert!(matches!(answer.secret_of("alice"), Err(text) if text == "auth.query fails: permission denied"));
    }
}
