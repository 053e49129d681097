//! What can be seen from outside: metrics, and the record of denials.
//!
//! Everything here is told in the words of the code (region, node, decision, backend), and nothing here ever holds a statement's
//! text, a parameter, a password or a key. It observes; it decides nothing.

mod audit;
mod fence;
mod logins;
mod metrics;
mod violation;

#[cfg(test)]
pub(crate) use audit::tests::policy as any_policy;
pub use audit::{AuditLog, TARGET as AUDIT_TARGET};
pub use fence::{FenceCounts, FenceSample, FencedNode, FlowSample};
pub use logins::{Limit, LoginCounters, LoginOutcome};
pub use metrics::{CONTENT_TYPE, NodeSample, Snapshot};
pub use violation::Violation;
