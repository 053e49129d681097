//! One client's session: all that is remembered between two of its messages.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::local::LocalStatement;
use super::output::{Identity, Login};
use super::pin::Pin;
use super::place::{Place, RegionPlace};
use super::prepared::{Note, SessionStatements};
use super::region::RegionTrack;
use super::report::Watch;
use super::timeouts::Times;
use super::{Outputs, Refusal};
use crate::limits::SESSION_HELD_BYTES_MAX;
use crate::policy::Grant;
use crate::pool::{BackendKey, Parameters, PoolIndex, PoolMode, SessionKey};
use crate::region::RegionId;
use crate::sql::GuardSet;
use crate::target::TargetSessionAttrs;
use crate::wire::startup::Replication;
use crate::wire::{CancelSecret, Splitter, TransactionStatus};

/// Why a session does not look at its client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// It does.
    No,
    /// It stands in the queue of a pool.
    Backend,
    /// Replies are on their way whose outcome decides what the next message means.
    Quiet,
    /// A request to cancel what has taken too long is on its way.
    Cancel,
    /// A command of the proxy's own (a deferred BEGIN, a ROLLBACK) is being answered.
    Preamble(Preamble),
}

/// A command that the proxy sends before it goes on with a message of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preamble {
    /// The settings that the client has been told of.
    Restore,
    /// The BEGIN that the client has been told of already.
    Begin,
    /// The ROLLBACK behind a transaction that the proxy has failed; `chain`: a new one begins.
    Rollback {
        /// With AND CHAIN.
        chain: bool,
    },
}

/// What the client has sent since its last Sync, in the extended protocol.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unit {
    /// Something of it was sent to the backend, so that the backend must get the Sync too.
    pub(super) touched: bool,
    /// It has failed: everything up to the Sync is discarded.
    pub(super) skip: bool,
    /// An error has been answered in it.
    pub(super) failed: bool,
    /// The end of a transaction in it may change the region: nothing that needs a backend may follow.
    pub(super) region_ends: bool,
    /// A step with a named statement has been taken in it, or with the unnamed one.
    pub(super) named: bool,
    pub(super) unnamed: bool,
}

/// A client whose login is over.
pub(super) struct Session {
    pub(super) key: SessionKey,
    /// How long it keeps its backends: as the configuration said when it began.
    pub(super) mode: PoolMode,
    pub(super) identity: Identity,
    /// It has not been greeted yet, and is told this first.
    pub(super) greeting: Option<Bytes>,
    /// The key by which its statements are cancelled.
    pub(super) process_id: u32,
    /// Replies that its backends were asked for so far; those that are owed now are the last of them.
    pub(super) asked: u64,
    /// How many that were when DISCARD ALL was sent last.
    pub(super) discarded_at: u64,
    pub(super) secret: CancelSecret,
    /// The settings as the client knows them.
    pub(super) told: Arc<Parameters>,
    /// Those it began with, and goes back to by RESET ALL; `None` until it has met its first backend.
    pub(super) start_settings: Option<Arc<Parameters>>,

    /// What its login entitles it to, under the policy of `generation`.
    pub(super) grant: Option<Grant>,
    /// Of the statements that it has prepared.
    pub(super) guards: GuardSet,
    pub(super) generation: u64,
    pub(super) region: RegionTrack,

    pub(super) splitter: Splitter,
    /// Pieces of a streamed message go to the backend (else they are dropped).
    pub(super) streaming: bool,
    pub(super) wait: Wait,
    /// Bytes of the client not looked at yet; they begin with a message.
    held: Vec<u8>,
    pub(super) paused: bool,
    /// Its client is not read because memory is short.
    pub(super) unread: bool,

    pub(super) backend: Option<BackendKey>,
    /// It has just got its backend: neither knows the other's settings.
    pub(super) unmet: bool,
    /// Why it keeps its backend beyond its transactions, in transaction mode.
    pub(super) pin: Option<Pin>,
    /// The next backend must not remember what sequences others have used.
    pub(super) forgets_sequences: bool,
    pub(super) pool: Option<(RegionId, PoolIndex)>,
    /// Which servers of the region the pool is of.
    pub(super) target: TargetSessionAttrs,
    /// Replies the backend owes to this session.
    pub(super) owed: usize,
    /// How many ReadyForQuery are among them: until the last one is here, its transaction status is not known.
    pub(super) unready: usize,
    /// Pieces of the backend's message in hand are for this client.
    pub(super) receiving: bool,
    /// The server has sent its last error: end of stream follows.
    pub(super) told_fatal: bool,
    /// Answers of the proxy that follow the backend's message in hand.
    pub(super) after_message: Vec<Bytes>,

    /// The transaction status as the client sees it.
    pub(super) status: TransactionStatus,
    /// BEGIN and SET TRANSACTION that the client has been told of and no backend has seen.
    pub(super) deferred: Option<Deferred>,
    /// The proxy has failed the transaction; the backend (if there is one) does not know.
    pub(super) shadow: bool,
    /// A backend was lost before a statement of the client had come to it, and another is tried.
    pub(super) retried: bool,
    /// A COMMIT has been sent, and is not answered yet.
    pub(super) committing: bool,
    /// A transaction was begun on the backend for the message that comes next: no statement of the client has run in it yet.
    pub(super) fresh: bool,
    pub(super) unit: Unit,
    /// The next message that needs a backend gets this error: waiting for one has failed.
    pub(super) failure: Option<Box<Refusal>>,
    /// The deferred BEGIN failed and the client has got the error already: the next message only needs its end.
    pub(super) preamble_failed: bool,
    /// Replies to be sent after the preamble, and before those of the held message.
    pub(super) after_preamble: Option<Bytes>,

    /// Statements and portals that the proxy answers itself.
    pub(super) local: Option<Box<Local>>,
    /// Prepared statements in transaction mode.
    pub(super) statements: Option<Box<SessionStatements>>,
    /// Steps with them that may still fail, oldest first.
    pub(super) notes: VecDeque<Note>,
    /// A backend is carrying out what takes names away, and it is not known yet whether it succeeds.
    pub(super) clearing: bool,
    /// Counts what has changed the unnamed statement.
    pub(super) unnamed_serial: u64,
    /// There is no unnamed statement, whatever a backend may have that has not seen the client's last Query.
    pub(super) unnamed_ended: bool,
    /// For reports.
    pub(super) watch: Watch,
    /// For timeouts.
    pub(super) times: Times,
    /// Where it is counted; given back with it.
    _places: Vec<Place>,
    /// The same by the region that it starts in, until it is there.
    pub(super) region_place: Option<RegionPlace>,
}

/// A BEGIN that has not been sent.
pub(super) struct Deferred {
    pub(super) text: Vec<u8>,
    pub(super) statements: usize,
}

/// Prepared statements and portals of the proxy's own.
#[derive(Default)]
pub(super) struct Local {
    pub(super) statements: HashMap<Box<[u8]>, Rc<LocalStatement>>,
    pub(super) portals: HashMap<Box<[u8]>, Rc<LocalStatement>>,
}

impl Session {
    pub(super) fn new(key: SessionKey, login: Login, mode: PoolMode) -> Self {
        // What a walsender has been told cannot be given to anyone else.
        let mode = if login.identity.replication == Replication::None { mode } else { PoolMode::Session };
        Self {
            key,
            mode,
            identity: login.identity,
            greeting: Some(login.before),
            process_id: 0,
            asked: 0,
            discarded_at: 0,
            secret: login.secret,
            told: login.told,
            start_settings: None,
            grant: None,
            guards: GuardSet::NONE,
            generation: 0,
            region: RegionTrack::default(),
            splitter: Splitter::default(),
            streaming: false,
            wait: Wait::No,
            held: Vec::new(),
            paused: false,
            unread: false,
            backend: None,
            unmet: false,
            pin: None,
            forgets_sequences: false,
            pool: None,
            target: TargetSessionAttrs::default(),
            owed: 0,
            unready: 0,
            receiving: false,
            told_fatal: false,
            after_message: Vec::new(),
            status: TransactionStatus::Idle,
            deferred: None,
            shadow: false,
            retried: false,
            committing: false,
            fresh: false,
            unit: Unit::default(),
            failure: None,
            preamble_failed: false,
            after_preamble: None,
            local: None,
            statements: None,
            notes: VecDeque::new(),
            clearing: false,
            unnamed_serial: 0,
            unnamed_ended: false,
            watch: Watch::default(),
            times: Times::default(),
            _places: login.places,
            region_place: login.region_place,
        }
    }

    /// The unnamed statement is no more.
    pub(super) fn deallocate_unnamed(&mut self) {
        self.unnamed_serial += 1;
        if let Some(local) = &mut self.local {
            local.statements.remove(&b""[..]);
        }
        if let Some(statements) = &mut self.statements {
            statements.drop_unnamed();
        }
    }

    /// A statement of the client has come to its backend.
    pub(super) fn is_used(&mut self) {
        self.fresh = false;
        self.unit.touched = true;
    }

    /// Whether every reply has been given: the status is known.
    pub(super) fn is_quiet(&self) -> bool {
        self.owed == 0
    }

    /// Whether the transaction status is known, as far as earlier messages decide it. Within a unit that has reached the backend its
    /// errors come before anything that the proxy answers.
    pub(super) fn knows_status(&self) -> bool {
        self.is_quiet() || self.unit.touched && self.unready == 0
    }

    /// Whether the backend could be given up now without the client losing a transaction or a reply.
    pub(super) fn is_settled(&self) -> bool {
        self.is_quiet() && !self.unit.touched && self.status == TransactionStatus::Idle && !self.shadow
    }

    /// Keeps bytes for later, in the order in which they came.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// Whether the client has to stop sending.
    pub(super) fn holds_too_much(&self) -> bool {
        self.held.len() > SESSION_HELD_BYTES_MAX
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    pub(super) fn holds_nothing(&self) -> bool {
        self.held.is_empty()
    }

    /// The bytes that were kept.
    pub(super) fn take_held(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.held))
    }

    /// Drops the deferred BEGIN and the failure of the transaction: it is over.
    pub(super) fn transaction_is_over(&mut self) {
        self.status = TransactionStatus::Idle;
        self.deferred = None;
        self.shadow = false;
        self.times.transaction_is_over();
    }

    /// The transaction block fails for the client, whatever the backend thinks of it.
    pub(super) fn fail_transaction(&mut self) {
        if self.status == TransactionStatus::InTransaction {
            self.status = TransactionStatus::Failed;
            self.shadow = true;
        }
    }

    /// A statement of the proxy's own by its name.
    pub(super) fn local_statement(&self, name: &[u8]) -> Option<Rc<LocalStatement>> {
        self.local.as_ref()?.statements.get(name).cloned()
    }

    /// Whether there is a prepared statement of this name that the backend knows nothing of.
    pub(super) fn has_statement(&self, name: &[u8]) -> bool {
        let is_local = self.local.as_ref().is_some_and(|local| local.statements.contains_key(name));
        is_local || self.statements.as_ref().is_some_and(|statements| statements.get(name).is_some())
    }

    /// DEALLOCATE of such a statement, or of all of them.
    pub(super) fn deallocate(&mut self, name: Option<&str>) {
        if let Some(local) = &mut self.local {
            match name {
                Some(name) => drop(local.statements.remove(name.as_bytes())),
                // The unnamed statement is not among them.
                None => local.statements.retain(|name, _| name.is_empty()),
            }
        }
        if let Some(statements) = &mut self.statements {
            match name {
                Some(name) => drop(statements.remove(name.as_bytes())),
                None => statements.clear(),
            }
        }
    }

    /// A portal of the proxy's own by its name.
    pub(super) fn local_portal(&self, name: &[u8]) -> Option<Rc<LocalStatement>> {
        self.local.as_ref()?.portals.get(name).cloned()
    }

    /// Answers the client in the order of its messages: at once when nothing is owed to it.
    pub(super) fn tell(&self, bytes: Bytes, out: &mut Outputs) {
        debug_assert!(self.is_quiet(), "an answer of the proxy must not overtake one of the backend");
        super::output::tell(self.key, bytes, out);
    }
}
