//! The configuration: a TOML file, read into types and checked as a whole before anything uses it.
//!
//! Reading goes in two steps: text → TOML with positions (`document`), TOML → [`Config`] (`read`, `residency`, `nodes`). All
//! mistakes are collected and come out as `file:line: what is wrong, what to do`; a file with one mistake is refused whole, so
//! that a reload can never install half of one. What is said here about an option's meaning is said to operators in
//! `configs/domicile.toml`.
//!
//! This module opens no socket, resolves no name and decides about no region. Its only side effect is reading the files that the
//! configuration names.

mod admin;
mod auth;
mod auth_query;
mod document;
mod files;
pub mod fuzz;
mod hba;
mod jwt;
mod kernel;
mod limits;
mod listen;
mod mistake;
mod nodes;
mod password;
mod read;
mod require_auth;
mod residency;
mod tls;
mod users;
mod value;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tracing::Level;

use crate::policy::{self, BindSource, NoRegion, RegionSource, Unbound};
use crate::pool::{PoolMode, StatePolicy};
use crate::sql::GuardSet;
use crate::wire::sqlstate::SqlState;

pub use auth_query::AuthQuery;
pub use hba::{CertificateName, ClientCertificate, Connection, DatabasePattern, Hba, HbaMethod, HbaRule, IdentMaps, NamePattern};
pub use jwt::{Jwt, JwtKey};
pub use kernel::{Cgroup, FenceMode, Kernel, Steering};
pub use limits::Limits;
pub use listen::UnixSockets;
pub use mistake::{Mistake, Mistakes};
pub use password::Password;
pub use require_auth::{BackendMethod, RequireAuth};
pub use tls::{Negotiation, NodeTls, NodeTlsMode, RegionIn, Tls, TlsMode};
pub use users::{Secret, Users};
pub use value::{Address, shown_bytes};

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect over TCP; none twice. At least one here or among `unix_sockets`.
    pub listen: Vec<SocketAddr>,
    /// Where clients connect over Unix sockets.
    pub unix_sockets: UnixSockets,
    /// Worker threads; `None` is one per core.
    pub workers: Option<NonZeroUsize>,
    /// When a backend goes back to its pool.
    pub pool_mode: PoolMode,
    /// What a transaction pool does with a session that leaves something behind in its backend.
    pub session_state: StatePolicy,
    /// Whether a client is told when its session begins to keep its backend.
    pub pin_notice: bool,
    /// Whether the kernel may write the memory of the process to a core file.
    pub core_dumps: bool,
    /// Who the process becomes once it has what it needs root for.
    pub user: Option<String>,
    /// What the kernel does for the proxy: the fence, and the choice of a worker.
    pub kernel: Kernel,
    /// Whether clients' connections are encrypted.
    pub tls: Tls,
    /// How clients and backends prove who they are.
    pub auth: Auth,
    /// Which region serves whom.
    pub residency: Residency,
    /// The declared regions, in the order of the file.
    pub regions: Vec<Region>,
    /// The PostgreSQL servers, in the order of the file; each one's region is declared.
    pub nodes: Vec<Node>,
    /// Bounds of the pools.
    pub pools: Pools,
    /// Bounds of the clients.
    pub limits: Limits,
    /// Who may use the administration console.
    pub admin: Admin,
    /// How bytes are received.
    pub engine: Engine,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; `None` serves them nowhere.
    pub http: Option<SocketAddr>,
    /// The log.
    pub log: Log,
    /// The file that takes audit records; without it they go to the log.
    pub audit_file: Option<PathBuf>,
    /// ParameterStatus values for clients that log in before a node of their grant was probed, in the order PostgreSQL reports
    /// them. `session_authorization` is not among them: it is the client's user.
    pub parameters: Vec<(String, String)>,
    /// SHA-256 of the file.
    pub digest: [u8; 32],
    /// What is allowed but looks unintended, each with its place. For the log.
    pub warnings: Vec<String>,
}

/// `[auth]`: how clients and backends prove who they are.
#[derive(Clone, Debug)]
pub struct Auth {
    /// What is asked of clients.
    pub method: AuthMethod,
    /// Which of them are asked what, in the place of `method`.
    pub hba: Option<Hba>,
    /// How tokens are checked, where they are asked for.
    pub jwt: Option<Arc<Jwt>>,
    /// Who may log in, and the passwords that open backends. Empty without a users file, which only methods without a password allow.
    pub users: Users,
    /// Where the secrets of those are looked up that have none there.
    pub query: Option<AuthQuery>,
    /// Whether a backend that asks for it gets a password in clear text.
    pub backend_cleartext: bool,
}

/// What is asked of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// Nothing.
    Trust,
    /// The password, in clear text.
    Password,
    /// PostgreSQL's MD5 challenge.
    Md5,
    /// SCRAM-SHA-256 (RFC 7677).
    ScramSha256,
    /// A token, as if it were the password.
    Jwt,
    /// A token by OAUTHBEARER (RFC 7628).
    OAuth,
}

impl AuthMethod {
    /// Every method by its name.
    const ALL: [(&str, Self); 6] = [
        ("trust", Self::Trust),
        ("password", Self::Password),
        ("md5", Self::Md5),
        ("scram-sha-256", Self::ScramSha256),
        ("jwt", Self::Jwt),
        ("oauth", Self::OAuth),
    ];

    /// The method as it stands in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::ScramSha256 => "scram-sha-256",
            Self::Jwt => "jwt",
            Self::OAuth => "oauth",
        }
    }

    /// Whether it proves what stands in the users file.
    pub fn needs_users(self) -> bool {
        match self {
            Self::Password | Self::Md5 | Self::ScramSha256 => true,
            Self::Trust | Self::Jwt | Self::OAuth => false,
        }
    }

    /// Whether it asks for a token.
    fn needs_tokens(self) -> bool {
        matches!(self, Self::Jwt | Self::OAuth)
    }
}

/// `[residency]`: which region serves whom.
#[derive(Clone, Debug)]
pub struct Residency {
    /// Lower-case names of the setting that holds the session region; all are one value. At least one.
    pub parameters: Vec<String>,
    /// What a login gets that no bind rule matches.
    pub unbound: Unbound,
    /// What a session without a region gets.
    pub no_region: NoRegion,
    /// Set whenever `no_region` or `enforce` can lead there.
    pub default_region: Option<String>,
    /// `false` is a dry run for regions without a node, and for guards.
    pub enforce: bool,
    /// The ways out of a server that are denied.
    pub guards: GuardSet,
    /// What a blocked client reads, with `{reason}` as a placeholder.
    pub block_message: String,
    /// The SQLSTATE of that message.
    pub block_sqlstate: SqlState,
    /// The bind rules, first match wins.
    pub binds: Vec<BindSource>,
}

/// `[regions.<name>]`: a place where rows may live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Matched exactly.
    pub name: String,
    /// Whose law holds there.
    pub jurisdiction: Option<String>,
}

/// `[[nodes]]`: one PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique.
    pub name: String,
    /// A declared region.
    pub region: String,
    /// Where it listens.
    pub address: Address,
    /// What it does in its cluster.
    pub role: Role,
    /// Log in as this user instead of the client's.
    pub user: Option<String>,
    /// Log in with this password instead of the user's own.
    pub password: Option<Password>,
    /// Open this database instead of the client's.
    pub database: Option<String>,
    /// The networks that its name may lead into; empty: whatever the name leads to.
    pub networks: Vec<IpNet>,
    /// How its server may have the proxy prove who it is.
    pub require_auth: RequireAuth,
    /// How its connections are encrypted; `None`: not at all.
    pub tls: Option<NodeTls>,
}

/// What a node does in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Follows a primary.
    Replica,
}

/// `[pools]`: bounds of each pool, which is one region, database, user and set of startup settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    /// Backends of one pool, over all workers.
    pub size: u32,
    /// Backends of one region, over all its pools.
    pub max_per_region: Option<u32>,
    /// How long a session waits for a backend.
    pub wait_timeout: Duration,
    /// How long a backend is kept unused.
    pub idle_timeout: Duration,
    /// The age at which a backend is no longer lent out.
    pub lifetime: Duration,
    /// How long connecting and logging in to a node may take.
    pub connect_timeout: Duration,
    /// How long a server may leave unacknowledged what was sent to it; zero = as long as the kernel lets it.
    pub tcp_user_timeout: Duration,
    /// How often each node is looked at; zero = never.
    pub probe_interval: Duration,
    /// Prepared statements that one backend keeps for the sessions of a transaction pool.
    pub prepared_statements: u32,
    /// Whether a backend is reset whenever it is given back.
    pub reset_always: bool,
}

/// `[admin]`: who may use the administration console. Nobody else gets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admin {
    /// These may do everything.
    pub users: Vec<String>,
    /// These may only look.
    pub stats_users: Vec<String>,
}

/// `[engine]`: how bytes are received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// How the kernel fills receive buffers.
    pub buffers: Buffers,
    /// Receive buffers of a worker, a power of two; `None` leaves it to the engine.
    pub receive_buffers: Option<u16>,
}

/// How the kernel fills receive buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffers {
    /// Incremental where the kernel has it (6.12), else plain.
    Auto,
    /// Several receives share a buffer.
    Incremental,
    /// One receive a buffer.
    Plain,
}

/// `[log]`: the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its form.
    pub format: LogFormat,
    /// The least important level that is written.
    pub level: Level,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Reads and checks the configuration in `path`. `env` looks up environment variables.
///
/// # Errors
/// Everything that is wrong with the file and the files it names.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Mistakes> {
    read::config(path, env)
}

impl Config {
    /// The part that a policy is compiled from.
    pub fn policy_source(&self) -> policy::Source {
        let region = |region: &Region| RegionSource {
            name: region.name.clone(),
            jurisdiction: region.jurisdiction.clone(),
            has_nodes: self.nodes_of(&region.name).next().is_some(),
        };
        policy::Source {
            regions: self.regions.iter().map(region).collect(),
            binds: self.residency.binds.clone(),
            unbound: self.residency.unbound.clone(),
            no_region: self.residency.no_region,
            default_region: self.residency.default_region.clone(),
            enforce: self.residency.enforce,
            guards: self.residency.guards,
            block_message: self.residency.block_message.clone(),
            block_sqlstate: self.residency.block_sqlstate,
        }
    }

    /// The nodes of a region.
    pub fn nodes_of<'a>(&'a self, region: &'a str) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter(move |node| node.region == region)
    }
}
