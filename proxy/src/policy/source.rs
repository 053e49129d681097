//! What a policy is compiled from: the residency part of the configuration, in types, not yet checked against itself.
//!
//! Holds no defaults and checks nothing; [`super::Policy::compile`] does.

use ipnet::IpNet;

use super::Proof;
use crate::sql::GuardSet;
use crate::target::TargetSessionAttrs;
use crate::wire::sqlstate::SqlState;

/// The residency policy as it was written.
#[derive(Clone, Debug)]
pub struct Source {
    /// Declared regions; their order numbers the new ones.
    pub regions: Vec<RegionSource>,
    /// Bind rules, first match wins.
    pub binds: Vec<BindSource>,
    /// What a login gets that no bind rule matches.
    pub unbound: Unbound,
    /// What a session without a region gets.
    pub no_region: NoRegion,
    /// Where [`NoRegion::Default`] and `enforce = false` lead.
    pub default_region: Option<String>,
    /// `false` is a dry run: a region without a node is served by the default region, a guarded statement is served, and both are
    /// counted.
    pub enforce: bool,
    /// The ways out of a server that are denied.
    pub guards: GuardSet,
    /// What a blocked client reads; `{reason}` is replaced by the reason.
    pub block_message: String,
    /// The SQLSTATE of that message.
    pub block_sqlstate: SqlState,
}

/// A declared region.
#[derive(Clone, Debug)]
pub struct RegionSource {
    /// Its name, matched exactly.
    pub name: String,
    /// Whose law holds there.
    pub jurisdiction: Option<String>,
    /// Whether any node is configured in it. Nodes that are down count: a region that is down is not a region without nodes.
    pub has_nodes: bool,
}

/// A bind rule: what it matches, and what it grants. A condition that is `None` matches everything.
#[derive(Clone, Debug)]
pub struct BindSource {
    /// The user's exact name.
    pub user: Option<String>,
    /// The database's exact name.
    pub database: Option<String>,
    /// The client's network. IPv4 addresses inside IPv6 (`::ffff:10.0.0.1`) are IPv4 here; Unix sockets match no network.
    pub from: Option<IpNet>,
    /// What the login must have proved besides; all of it.
    pub proofs: Vec<Proof>,
    /// The regions granted; the first is where a session starts.
    pub regions: Vec<String>,
    /// Which servers of those regions serve the login.
    pub target: TargetSessionAttrs,
    /// Whether the login may be for replication.
    pub replication: bool,
    /// The rule's name in logs, audit and errors: `residency.bind[0]`.
    pub label: String,
}

/// What a login gets that no bind rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unbound {
    /// It is refused.
    Block,
    /// The client may declare any region.
    Client,
    /// It is granted this region.
    Region(String),
}

/// What a session without a region gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRegion {
    /// A denial.
    Block,
    /// The default region, if that is inside the session's grant.
    Default,
}
