//! The tables that SHOW answers with.
//!
//! Each has its columns fixed, so that they can be described before anything is asked; PgBouncer's come first, ours follow. A tool
//! that knows PgBouncer takes (database, user) for the name of a pool and a database's name for that of its statistics; so POOLS and
//! STATS have one row for each of these, over all regions, and REGION_POOLS has the same a region.

mod columns;
mod control;
mod fence;
mod pools;
mod sockets;
mod stats;

use super::Facts;
use crate::session::Detail;
use crate::wire::rows::{Column, Value};
use crate::wire::{Report, Severity, SqlState, encode_notice};

/// A row of a table: a value for each column.
pub type Row = Vec<Value>;

/// One of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// What can be asked; a notice, not a table.
    Help,
    /// Pools, by database and user.
    Pools,
    /// Pools, by database, user and region.
    RegionPools,
    /// Sessions.
    Clients,
    /// Backends.
    Servers,
    /// What was done: sums and averages.
    Stats,
    /// Sums.
    StatsTotals,
    /// Averages.
    StatsAverages,
    /// Sums and averages of all databases together.
    Totals,
    /// Databases, with the nodes that serve them.
    Databases,
    /// How many there are of everything.
    Lists,
    /// The configuration.
    Config,
    /// Users.
    Users,
    /// The program.
    Version,
    /// Whether it works.
    State,
    /// Tables in memory.
    Mem,
    /// Regions.
    Regions,
    /// Nodes.
    Nodes,
    /// Decisions of the residency policy.
    Decisions,
    /// Sessions that keep their backend.
    Pins,
    /// The kernel's fence.
    Fence,
    /// What it has let through and what not.
    Flows,
}

impl Show {
    /// Every table.
    pub const ALL: [Self; 22] = [
        Self::Help,
        Self::Pools,
        Self::RegionPools,
        Self::Clients,
        Self::Servers,
        Self::Stats,
        Self::StatsTotals,
        Self::StatsAverages,
        Self::Totals,
        Self::Databases,
        Self::Lists,
        Self::Config,
        Self::Users,
        Self::Version,
        Self::State,
        Self::Mem,
        Self::Regions,
        Self::Nodes,
        Self::Decisions,
        Self::Pins,
        Self::Fence,
        Self::Flows,
    ];

    /// The word behind SHOW.
    pub fn name(self) -> &'static str {
        match self {
            Self::Help => "help",
            Self::Pools => "pools",
            Self::RegionPools => "region_pools",
            Self::Clients => "clients",
            Self::Servers => "servers",
            Self::Stats => "stats",
            Self::StatsTotals => "stats_totals",
            Self::StatsAverages => "stats_averages",
            Self::Totals => "totals",
            Self::Databases => "databases",
            Self::Lists => "lists",
            Self::Config => "config",
            Self::Users => "users",
            Self::Version => "version",
            Self::State => "state",
            Self::Mem => "mem",
            Self::Regions => "regions",
            Self::Nodes => "nodes",
            Self::Decisions => "decisions",
            Self::Pins => "pins",
            Self::Fence => "fence",
            Self::Flows => "flows",
        }
    }

    /// The table of this name, in any case.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|show| show.name().eq_ignore_ascii_case(word))
    }

    /// Its columns; `None`: it has no rows at all.
    pub fn columns(self) -> Option<&'static [Column]> {
        columns::of(self)
    }

    /// What the workers have to tell for it.
    pub fn detail(self) -> Detail {
        match self {
            Self::Clients => Detail::Clients,
            Self::Servers | Self::Databases | Self::Nodes => Detail::Servers,
            Self::Pins => Detail::Pins,
            Self::Help
            | Self::Pools
            | Self::RegionPools
            | Self::Stats
            | Self::StatsTotals
            | Self::StatsAverages
            | Self::Totals
            | Self::Lists
            | Self::Config
            | Self::Users
            | Self::Version
            | Self::State
            | Self::Mem
            | Self::Regions
            | Self::Decisions
            | Self::Fence
            | Self::Flows => Detail::Pools,
        }
    }

    /// Its rows.
    pub fn rows(self, facts: &Facts<'_>) -> Vec<Row> {
        match self {
            Self::Help => Vec::new(),
            Self::Pools => pools::pools(facts),
            Self::RegionPools => pools::region_pools(facts),
            Self::Clients => sockets::clients(facts),
            Self::Servers => sockets::servers(facts),
            Self::Pins => sockets::pins(facts),
            Self::Stats => stats::stats(facts),
            Self::StatsTotals => stats::totals(facts),
            Self::StatsAverages => stats::averages(facts),
            Self::Totals => stats::all(facts),
            Self::Databases => pools::databases(facts),
            Self::Users => pools::users(facts),
            Self::Lists => control::lists(facts),
            Self::Config => control::config(facts),
            Self::Version => control::version(),
            Self::State => control::state(facts),
            Self::Mem => control::memory(facts),
            Self::Regions => pools::regions(facts),
            Self::Nodes => pools::nodes(facts),
            Self::Decisions => control::decisions(facts),
            Self::Fence => fence::fence(&facts.fence),
            Self::Flows => fence::flows(&facts.fence),
        }
    }

    /// The notice that comes with it.
    pub fn notice(self) -> Option<bytes::Bytes> {
        (self == Self::Help).then(|| {
            encode_notice(&Report {
                severity: Severity::Notice,
                sqlstate: SqlState::SUCCESSFUL_COMPLETION,
                message: "Console usage",
                detail: Some(HELP),
                hint: None,
                position: None,
            })
        })
    }
}

const HELP: &str = "
\tSHOW HELP|POOLS|CLIENTS|SERVERS|DATABASES|USERS|LISTS|CONFIG|VERSION|STATE|MEM
\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
\tSHOW REGIONS|REGION_POOLS|NODES|DECISIONS|PINS|FENCE|FLOWS
\tRELOAD
\tPAUSE [<db>]
\tRESUME [<db>]
\tDISABLE <db>
\tENABLE <db>
\tRECONNECT [<db>]
\tWAIT_CLOSE [<db>]
\tKILL [<db>]
\tKILL_CLIENT <client_id>
\tSHUTDOWN
\tSHUTDOWN WAIT_FOR_SERVERS|WAIT_FOR_CLIENTS";
