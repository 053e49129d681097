//! Opens backends: chooses the node, connects, logs in, and hands the socket to the worker that asked.
//!
//! A region's request goes to that region's nodes and to no others; when none of them can be used, it fails.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::backend_login::{BackendLogin, Credentials, Fault, Progress, ServerFacts};
use super::connect::Asker;
use super::message::take;
use super::node::{Node, Success, state_of};
use super::{Desk, Rules, choice, random_bytes, scram, secure};
use crate::config::{self, Secret};
use crate::engine::ToWorker;
use crate::limits::{BACKEND_MESSAGE_BYTES_MAX, STARTUP_PACKET_BYTES_MAX};
use crate::pool::{BackendInfo, OpenError, OpenRequest, OpenTicket};
use crate::target::Fit;
use crate::tls::Connection;
use crate::wire::startup::Replication;
use crate::wire::{SqlState, parse_error, startup};

/// What a StartupMessage asks a server for.
pub(super) struct Startup<'a> {
    pub(super) user: &'a str,
    pub(super) database: &'a str,
    pub(super) replication: Replication,
    pub(super) settings: &'a [(Box<str>, Box<str>)],
    /// What proves the user, if anything is known.
    pub(super) secret: Option<Secret>,
    /// On whose behalf.
    pub(super) asker: Asker,
}

/// A mistake made on purpose, for the test that the fence does not rely on our making none.
#[cfg(feature = "misroute")]
mod misroute {
    use super::super::Rules;
    use crate::region::RegionId;

    /// Any region but the one that was decided on.
    pub(super) fn another(region: RegionId, rules: &Rules) -> RegionId {
        rules.nodes.iter().map(|node| node.region).find(|other| *other != region).unwrap_or(region)
    }
}

impl Desk {
    /// `worker` needs a backend. It gets one, or the reason why not, by its mailbox.
    pub fn open_backend(self: &Rc<Self>, worker: usize, ticket: OpenTicket, request: OpenRequest, session: u64) {
        let desk = Rc::clone(self);
        tokio_uring::spawn(async move {
            let asker = Asker { region: Some(request.region), worker: Some(worker), session };
            let answer = match desk.open(&request, asker).await {
                Ok((socket, info)) => ToWorker::BackendOpened { ticket, connection: socket, info },
                Err(error) => ToWorker::BackendFailed { ticket, error },
            };
            (desk.deliver)(worker, answer);
        });
    }

    pub(super) async fn open(&self, request: &OpenRequest, asker: Asker) -> Result<(Connection, BackendInfo), OpenError> {
        let rules = self.rules();
        let now = Instant::now();
        let deadline = now + rules.config.pools.connect_timeout;
        #[cfg(not(feature = "misroute"))]
        let region = request.region;
        #[cfg(feature = "misroute")]
        let region = misroute::another(request.region, &rules);
        let nodes = rules.serving(region, request.target, Some(now));
        if nodes.is_empty() {
            return Err(rules.nothing_fits(request, now));
        }
        // The first error is told: it is that of the node that should have served.
        let mut failure = nodes.iter().find_map(|node| node.rests(now));
        let ready: Vec<&Rc<Node>> = nodes.into_iter().filter(|node| node.rests(now).is_none()).collect();
        let (mut second_best, mut misfit) = (None, false);
        for (tried, node) in ready.iter().enumerate() {
            // What is left of the time is shared, so that one that is silent leaves some for the others.
            let now = Instant::now();
            let nodes_left = u32::try_from(ready.len() - tried).unwrap_or(u32::MAX);
            let patience = deadline.saturating_duration_since(now) / nodes_left;
            match self.open_at(&rules, node, request, asker, now + patience).await {
                Ok((opened, Fit::Good)) => return Ok(opened),
                Ok((opened, Fit::SecondBest)) => second_best = second_best.or(Some(opened)),
                Ok((_, Fit::None)) => {
                    rules.probe_soon(request.region, Instant::now());
                    misfit = true;
                }
                Err(error) => {
                    rules.probe_soon(request.region, Instant::now());
                    // A node that answers has decided. Only one that is not there is passed over.
                    if !error.is_absence() {
                        return Err(error);
                    }
                    failure = failure.or(Some(error));
                }
            }
        }
        let misfit = misfit.then_some(OpenError::NoneFits { wanted: request.target });
        second_best.ok_or_else(|| failure.or(misfit).unwrap_or(OpenError::NoNode))
    }

    /// Logs in to one node, if it is not too early for that, and judges what it is.
    async fn open_at(
        &self,
        rules: &Rules,
        node: &Node,
        request: &OpenRequest,
        asker: Asker,
        deadline: Instant,
    ) -> Result<((Connection, BackendInfo), Fit), OpenError> {
        let now = Instant::now();
        let attempt = node.begin(now, deadline.saturating_duration_since(now))?;
        let user = node.config.user.as_deref().unwrap_or(&request.user);
        let database = node.config.database.as_deref().unwrap_or(&request.database);
        let secret = match &node.config.password {
            Some(password) => Some(Secret::Plain(password.clone())),
            None => rules.config.auth.users.get(user).cloned().or_else(|| self.known.borrow_mut().secret(user)),
        };
        let (replication, settings) = (request.replication, &*request.settings);
        let startup = Startup { user, database, replication, settings, secret, asker };
        match self.log_in_to(rules, node, &startup, deadline).await {
            Ok((socket, facts, address)) => {
                let said = state_of(&facts.parameters, &request.settings);
                let (is_back, has_changed) = (node.succeeded(Success::ClientsLogin), node.see(Instant::now(), said, false));
                if is_back || has_changed {
                    rules.has_news_of(node);
                }
                let fit = choice::fit(request.target, node.config.role, said);
                let parameters = self.shared.borrow_mut().parameters.share(facts.parameters.into());
                debug!(node = &*node.name, user, database, process_id = facts.process_id, ?fit, "backend opened");
                let (process_id, secret, tls) = (facts.process_id, facts.secret, facts.tls);
                let (node, route) = (node.identity.clone(), node.route(address, fit != Fit::Good));
                Ok(((socket, BackendInfo { node, route, parameters, process_id, secret, tls }), fit))
            }
            Err(error) => {
                warn!(node = &*node.name, user, database, error = describe(&error), "backend could not be opened");
                if error.is_absence() {
                    node.failed(Some(attempt), &error, Instant::now(), chance());
                }
                Err(error)
            }
        }
    }

    /// Connects to a node and logs in, all of it by `deadline`. A server before PostgreSQL 9.3, or a pooler that stands for one, may
    /// refuse a minor version that it does not know instead of negotiating: it is asked again in 3.0, and from then on only so.
    pub(super) async fn log_in_to(
        &self,
        rules: &Rules,
        node: &Node,
        startup: &Startup<'_>,
        deadline: Instant,
    ) -> Result<(Connection, ServerFacts, Option<SocketAddr>), OpenError> {
        let minor = node.protocol_minor();
        match self.log_in_speaking(minor, rules, node, startup, deadline).await {
            Err(OpenError::LoginFailed { sqlstate: Some(SqlState::FEATURE_NOT_SUPPORTED), .. }) if minor > 0 => {
                let opened = self.log_in_speaking(0, rules, node, startup, deadline).await?;
                node.does_not_negotiate();
                Ok(opened)
            }
            result => result,
        }
    }

    /// The same in protocol 3.`minor`.
    async fn log_in_speaking(
        &self,
        minor: u16,
        rules: &Rules,
        node: &Node,
        startup: &Startup<'_>,
        deadline: Instant,
    ) -> Result<(Connection, ServerFacts, Option<SocketAddr>), OpenError> {
        let user = startup.user;
        let name = || node.name.clone();
        let unreachable = |error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => OpenError::TimedOut { node: name() },
            _ => OpenError::Unreachable { node: name(), text: error.to_string() },
        };
        let protocol = |text: String| OpenError::Protocol { node: name(), text };

        let packet = startup_packet(minor, rules, node, startup).map_err(protocol)?;
        let secret = startup.secret.clone();
        let cleartext_allowed = rules.config.auth.backend_cleartext;
        let require_auth = node.config.require_auth.clone();
        let keys = self.known.borrow_mut().keys(user, secret.as_ref());
        let credentials = Credentials { user: user.to_owned(), secret, keys, cleartext_allowed, require_auth };
        let nonce = random_bytes().map_err(|error| protocol(error.to_string()))?;

        let (socket, address) = self.connect(rules, node, startup.asker, deadline).await?;
        let mut socket = self.secure(node, startup.asker.region_of(rules, node), socket, deadline).await?;
        let channel = match socket.session() {
            Some(session) => session.server_end_point(),
            None => None,
        };
        let mut login = BackendLogin::new(credentials, scram::nonce(&nonce), channel);
        login.facts.tls = secure::shown(&mut socket);
        socket.write_all(packet.into()).await.map_err(unreachable)?;
        let mut input = BytesMut::new();
        loop {
            let message = take(&mut input, BACKEND_MESSAGE_BYTES_MAX);
            let Some((tag, message)) = message.map_err(|_| protocol("it sent a message of impossible length".to_owned()))? else {
                let bytes = socket.read().await.map_err(unreachable)?;
                if bytes.is_empty() {
                    return Err(unreachable(io::Error::other("it closed the connection during login")));
                }
                input.extend_from_slice(&bytes);
                continue;
            };
            match login.receive(tag, &message) {
                Ok(Progress::Read) => {}
                Ok(Progress::Stretch(derivation)) => {
                    let keys = timeout_at(deadline, node.stretcher.keys(derivation)).await;
                    let keys = keys.map_err(io::Error::from).map_err(unreachable)?.map_err(unreachable)?;
                    if let Some(answer) = login.stretched(&keys) {
                        socket.write_all(answer.into()).await.map_err(unreachable)?;
                    }
                }
                Ok(Progress::Send(answer)) => socket.write_all(answer.into()).await.map_err(unreachable)?,
                // A server that has nothing to answer has nothing to say.
                Ok(Progress::Ready) if input.is_empty() => return Ok((socket.into_connection(), login.facts, address)),
                Ok(Progress::Ready) => return Err(protocol("it goes on after ReadyForQuery".to_owned())),
                Err(Fault::Refused { error, sqlstate }) => {
                    let fatal_for_client = is_of_the_clients_making(sqlstate, &node.config);
                    return Err(OpenError::LoginFailed { error, sqlstate: Some(sqlstate), fatal_for_client });
                }
                Err(Fault::Protocol(text)) => return Err(protocol(text)),
            }
        }
    }
}

/// The StartupMessage: the client's settings, and the region under each of its names, so that `current_setting` agrees.
fn startup_packet(minor: u16, rules: &Rules, node: &Node, startup: &Startup<'_>) -> Result<Bytes, String> {
    let options = region_options(&rules.config.residency.parameters, &node.config.region);
    let mut parameters: Vec<(&str, &str)> = startup.settings.iter().map(|(name, value)| (&**name, &**value)).collect();
    parameters.push(("options", &options));
    let packet = startup::encode_startup(minor, startup.user, startup.database, startup.replication, &parameters);
    if packet.len() > STARTUP_PACKET_BYTES_MAX {
        return Err("the settings of the session are more than a startup packet takes".to_owned());
    }
    Ok(packet)
}

/// `-c name=region` for each name, escaped as PostgreSQL splits `options`: a backslash keeps white space and backslashes.
fn region_options(names: &[String], region: &str) -> String {
    let mut options = String::new();
    for name in names {
        let separator = if options.is_empty() { "" } else { " " };
        // Writing to a String does not fail.
        if write!(options, "{separator}-c {name}=").is_err() {
            break;
        }
        for character in region.chars() {
            if character.is_whitespace() || character == '\\' {
                options.push('\\');
            }
            options.push(character);
        }
    }
    options
}

/// Whether a server refused the login for something that the client asked for: no retry can help, and it is told as the server
/// would tell it. What the node's own configuration puts in the client's place is not of the client's making.
fn is_of_the_clients_making(sqlstate: SqlState, node: &config::Node) -> bool {
    match sqlstate {
        // Its settings: one does not exist, or can not have that value.
        SqlState::UNDEFINED_OBJECT | SqlState::INVALID_PARAMETER_VALUE => true,
        // Itself, or its database.
        _ if sqlstate.as_str().starts_with("28") => node.user.is_none() && node.password.is_none(),
        _ => sqlstate.as_str().starts_with("3D") && node.database.is_none(),
    }
}

/// A random byte, for what should not be the same everywhere; without randomness it is.
pub(super) fn chance() -> u8 {
    random_bytes().map_or(128, |[byte]: [u8; 1]| byte)
}

/// An error for the log.
pub(super) fn describe(error: &OpenError) -> String {
    match error {
        OpenError::NoNode => "the region has no node".to_owned(),
        OpenError::NoneFits { wanted } => format!("no node of the region fits target_session_attrs = \"{wanted}\""),
        OpenError::Refused { node } => format!("node \"{node}\" refused the connection"),
        OpenError::TimedOut { node } => format!("node \"{node}\" did not answer in time"),
        OpenError::Unreachable { node, text } => format!("node \"{node}\" can not be reached: {text}"),
        OpenError::LoginFailed { error, sqlstate, .. } => {
            let text = parse_error(crate::wire::frame::body(error)).map_or_else(String::new, |error| error.message);
            format!("the server refused the login: {text} ({})", sqlstate.map_or_else(String::new, |state| state.to_string()))
        }
        OpenError::Protocol { node, text } => format!("node \"{node}\": {text}"),
        OpenError::Insecure { node, text } => format!("node \"{node}\" cannot be reached securely: {text}"),
    }
}
