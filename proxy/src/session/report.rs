//! What a worker's sessions look like at one moment, for whoever wants to show it.
//!
//! A report is read from the core and changes nothing in it. It never holds a statement, a parameter or a secret. What it costs,
//! it costs when somebody asks: between reports a session only keeps the few numbers of its [`Watch`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::mem::size_of;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::client::{Session, Wait};
use super::{Common, Core, Slot};
use crate::pool::{BackendKey, BackendReport, OpenTicket, PastReport, PoolIndex, PoolReport, SessionKey, SlotReport, session_id};
use crate::region::{RegionId, SessionRegion};
use crate::wire::startup::Replication;

/// What is remembered of a session for reports.
#[derive(Default)]
pub(super) struct Watch {
    /// Counts the sessions of a worker.
    pub(super) serial: u64,
    pub(super) connected_at: Option<Instant>,
    /// When its client last sent something.
    pub(super) asked_at: Option<Instant>,
    /// Bytes and logins of its client that its pool has not been told of yet.
    pub(super) received: u64,
    pub(super) logins: u64,
}

impl Watch {
    /// Of a session that begins.
    pub(super) fn new(serial: u64, now: Instant) -> Self {
        Self { serial, connected_at: Some(now), asked_at: Some(now), received: 0, logins: 1 }
    }
}

/// What a report is to have beside the pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nothing.
    Pools,
    /// Every client.
    Clients,
    /// The clients that keep their backend because of what they have done with it.
    Pins,
    /// Every backend.
    Servers,
}

/// One worker.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its number.
    pub worker: usize,
    /// Its time.
    pub now: Instant,
    /// Its parts of the pools that are in use.
    pub pools: Vec<PoolReport>,
    /// What was done in pools that are not.
    pub past: Vec<PastReport>,
    /// Its sessions, counted.
    pub groups: Vec<GroupReport>,
    /// Its sessions, if they were asked for.
    pub clients: Vec<ClientReport>,
    /// Its backends, if they were asked for.
    pub servers: Vec<ServerReport>,
    /// Its table of sessions.
    pub session_slots: SlotReport,
    /// Its table of backends.
    pub backend_slots: SlotReport,
}

/// How many sessions a database, a user and a region have.
#[derive(Clone, Debug)]
pub struct GroupReport {
    /// Their database.
    pub database: Arc<str>,
    /// Their user.
    pub user: Arc<str>,
    /// The region they are in.
    pub region: SessionRegion,
    /// How many.
    pub sessions: usize,
}

/// What a session does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// It has a backend.
    Active,
    /// It needs none now.
    Idle,
    /// It waits for one.
    Waiting,
}

/// Why a session keeps its backend, and since when.
pub type PinReport = (Cow<'static, str>, Instant);

/// One session.
#[derive(Clone, Debug)]
pub struct ClientReport {
    /// Its name in its worker.
    pub key: SessionKey,
    /// Its number, which no other session of the process has.
    pub id: u64,
    /// Its database.
    pub database: Arc<str>,
    /// Its user.
    pub user: Arc<str>,
    /// Whether it is for replication.
    pub replication: Replication,
    /// The region it is in.
    pub region: SessionRegion,
    /// What it does.
    pub state: ClientState,
    /// When it began.
    pub connected_at: Instant,
    /// When its client last sent something.
    pub asked_at: Instant,
    /// Its backend.
    pub backend: Option<BackendKey>,
    /// The server's process behind that.
    pub process_id: Option<u32>,
    /// As the client has set it.
    pub application_name: Box<str>,
    /// Prepared statements that the proxy knows of.
    pub prepared_statements: usize,
    /// The version and cipher suite by which its connection is encrypted, if it is.
    pub tls: Option<Arc<str>>,
    /// Why it keeps its backend.
    pub pin: Option<PinReport>,
    /// Where its client is; known to the engine.
    pub peer: Option<SocketAddr>,
    /// Where its client has connected to.
    pub local: Option<SocketAddr>,
}

/// One backend.
#[derive(Clone, Debug)]
pub struct ServerReport {
    /// As the pool sees it.
    pub backend: BackendReport,
    /// The `application_name` of the session that has it.
    pub application_name: Box<str>,
    /// Where its server is; known to the engine.
    pub peer: Option<SocketAddr>,
    /// Where it was connected from.
    pub local: Option<SocketAddr>,
}

impl Core {
    /// The session because of which a connection was asked for, by the number that SHOW CLIENTS shows; 0 if it is gone.
    pub fn session_behind(&mut self, ticket: OpenTicket) -> u64 {
        let worker = self.common.pools.worker();
        let session = self.common.pools.opened_for(ticket).and_then(|key| self.sessions.get(key));
        session.map_or(0, |session| session_id(session.watch.serial, worker))
    }
}

impl Core {
    /// What there is now.
    pub fn report(&self, detail: Detail) -> Report {
        let common = &self.common;
        let (worker, now) = (common.pools.worker(), common.now);
        let mut pools = common.pools.report(now);
        let places: HashMap<PoolIndex, usize> = pools.iter().enumerate().map(|(place, pool)| (pool.index, place)).collect();
        let mut groups: HashMap<(&Arc<str>, &Arc<str>, &SessionRegion), usize> = HashMap::new();
        let (mut clients, mut names) = (Vec::new(), HashMap::new());
        for session in self.all_sessions() {
            let identity = &session.identity;
            *groups.entry((&identity.database, &identity.user, session.region.current())).or_default() += 1;
            if let Some(place) = session.pool.and_then(|(_, pool)| places.get(&pool))
                && let Some(pool) = pools.get_mut(*place)
            {
                pool.tally.received += session.watch.received;
                pool.tally.logins += session.watch.logins;
            }
            let wanted = match detail {
                Detail::Clients => true,
                Detail::Pins => pin_of(session).is_some(),
                Detail::Pools | Detail::Servers => false,
            };
            if wanted {
                clients.push(common.client_report(session, worker));
            }
            if detail == Detail::Servers
                && let Some(backend) = session.backend
            {
                names.insert(backend, application_name(session));
            }
        }
        let servers = if detail == Detail::Servers { common.pools.report_backends() } else { Vec::new() };
        let server = |backend: BackendReport| {
            let application_name = names.remove(&backend.key).unwrap_or_default();
            ServerReport { backend, application_name, peer: None, local: None }
        };
        let group = |((database, user, region), sessions): ((&Arc<str>, &Arc<str>, &SessionRegion), usize)| GroupReport {
            database: database.clone(),
            user: user.clone(),
            region: region.clone(),
            sessions,
        };
        Report {
            worker,
            now,
            past: common.pools.report_past(),
            groups: groups.into_iter().map(group).collect(),
            clients,
            servers: servers.into_iter().map(server).collect(),
            session_slots: SlotReport {
                bytes: size_of::<Session>(),
                used: self.sessions.len(),
                free: self.sessions.slots.len() - self.sessions.len(),
            },
            backend_slots: common.pools.report_slots(),
            pools,
        }
    }

    fn all_sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.slots.iter().filter_map(|slot| match slot {
            Slot::Taken(session) => Some(&**session),
            Slot::Free { .. } => None,
        })
    }
}

impl Common {
    /// Tells the session's pool what has been counted since the last time. Called when the session leaves the pool.
    pub(super) fn count_watched(&mut self, session: &mut Session) {
        if let Some((_, pool)) = session.pool {
            let Watch { received, logins, .. } = &mut session.watch;
            self.pools.count_client(pool, std::mem::take(received), std::mem::take(logins));
        }
    }

    fn client_report(&self, session: &Session, worker: usize) -> ClientReport {
        let watch = &session.watch;
        let state = match session.wait {
            Wait::Backend => ClientState::Waiting,
            Wait::No | Wait::Quiet | Wait::Cancel | Wait::Preamble(_) if session.backend.is_some() => ClientState::Active,
            Wait::No | Wait::Quiet | Wait::Cancel | Wait::Preamble(_) => ClientState::Idle,
        };
        ClientReport {
            key: session.key,
            id: session_id(watch.serial, worker),
            database: session.identity.database.clone(),
            user: session.identity.user.clone(),
            replication: session.identity.replication,
            region: session.region.current().clone(),
            state,
            connected_at: watch.connected_at.unwrap_or(self.now),
            asked_at: watch.asked_at.unwrap_or(self.now),
            backend: session.backend,
            process_id: session.backend.and_then(|backend| self.pools.process_of(backend)),
            application_name: application_name(session),
            prepared_statements: session.local.as_ref().map_or(0, |local| local.statements.len())
                + session.statements.as_ref().map_or(0, |statements| statements.len()),
            tls: session.identity.tls.clone(),
            pin: pin_of(session),
            peer: None,
            local: None,
        }
    }
}

fn application_name(session: &Session) -> Box<str> {
    session.told.get("application_name").unwrap_or_default().into()
}

/// Why the session keeps its backend beyond its transactions. In session mode every session does, for no cause of its own.
fn pin_of(session: &Session) -> Option<PinReport> {
    session.pin.map(|pin| (pin.cause.as_str().into(), pin.since))
}

/// The region of a session as a number, when it is one of the configuration.
pub fn declared(region: &SessionRegion) -> Option<RegionId> {
    match region {
        SessionRegion::Declared(region) => Some(*region),
        SessionRegion::None | SessionRegion::Undeclared(_) => None,
    }
}
