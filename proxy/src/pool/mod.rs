//! Backend connections as bookkeeping: who may have one, who waits for one, which replies each still owes.
//!
//! A pool is named by its [`PoolKey`]: region and kind of server, database, user and startup settings, so that a connection is only ever lent to a
//! session that would have opened exactly the same one. Nothing here opens a socket or reads a clock: what has to be done is
//! left as an [`Order`] for the caller, and time comes in as an argument. Nothing here decides about regions either: a checkout
//! takes the proof of a decision ([`Proof`]) by value.
//!
//! The rules by which a backend may go from one session to the next stand at [`Pools::release`].

#![forbid(unsafe_code)]

mod answer;
mod backend;
mod key;
mod opening;
mod order;
mod owed;
mod pause;
mod pools;
mod prepared;
mod quota;
mod report;
mod route;
mod sharing;
mod tally;
mod withheld;

#[cfg(test)]
mod tests;

pub use backend::{Backend, MovedBackend, State};
pub use key::{
    BackendInfo, BackendKey, NodeIdentity, OpenError, OpenRequest, OpenTicket, Parameters, PoolKey, Proof, SessionKey,
    StartupSettings,
};
pub use order::{Checkout, Farewell, Order, PoolMode, Settings, StatePolicy, WaitFailure};
pub use owed::{Effect, Kind, OwedReplies, Progress, Reply, Rule, Script, Unexpected};
pub use pause::{Pauses, Scope};
pub use pools::{PoolIndex, Pools};
pub use prepared::{Description, PreparedStatement, PreparedStatements, Standing, StatementDigest, UnnamedStatement};
pub use quota::{Quotas, WORKERS_MAX};
pub use report::{BackendReport, PastReport, PoolReport, SlotReport, session_id, worker_of};
pub use route::Route;
pub use tally::Tally;
pub use withheld::CancelTarget;
