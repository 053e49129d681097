//! POOLS, REGION_POOLS, REGIONS, NODES, DATABASES and USERS: sums over the workers' parts of the pools.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::facts::{Facts, NodeFact};
use super::super::{DATABASES, Rights, rights};
use super::Row;
use crate::config::{Address, Role};
use crate::pool::{PoolMode, PoolReport, State, Tally};
use crate::session::{Outcome, declared};
use crate::wire::rows::Value;

/// What is added up.
#[derive(Default)]
struct Sum<'a> {
    /// Sessions, those that wait included.
    sessions: usize,
    waiting: usize,
    active: usize,
    idle: usize,
    resetting: usize,
    withheld: usize,
    cancelling: usize,
    opening: usize,
    waited: Duration,
    paused: bool,
    regions: BTreeSet<&'a str>,
    workers: BTreeSet<usize>,
}

impl Sum<'_> {
    fn add(&mut self, worker: usize, pool: &PoolReport) {
        self.waiting += pool.waiting;
        self.active += pool.active;
        self.idle += pool.idle;
        self.resetting += pool.resetting;
        self.withheld += pool.withheld;
        self.cancelling += pool.cancelling;
        self.opening += pool.opening;
        self.waited = self.waited.max(pool.waited);
        self.paused |= pool.paused;
        self.workers.insert(worker);
    }

    fn backends(&self) -> usize {
        self.active + self.idle + self.resetting + self.withheld
    }
}

/// The names, parted by commas; NULL of none.
pub(super) fn joined<'a>(names: impl Iterator<Item = &'a str>) -> Value {
    let names: Vec<&str> = names.collect();
    (!names.is_empty()).then(|| names.join(",")).into()
}

pub(super) fn pools(facts: &Facts<'_>) -> Vec<Row> {
    let mut sums = BTreeMap::<(&str, &str), Sum<'_>>::new();
    for group in facts.groups() {
        let sum = sums.entry((&group.database, &group.user)).or_default();
        sum.sessions += group.sessions;
        sum.paused |= facts.pauses.cover(&group.database);
    }
    for (worker, pool) in facts.pools() {
        let sum = sums.entry((&pool.database, &pool.user)).or_default();
        sum.add(worker, pool);
        sum.regions.insert(facts.policy.name(pool.region));
    }
    sums.iter().map(|((database, user), sum)| pool_row(facts, database, user, sum)).collect()
}

pub(super) fn region_pools(facts: &Facts<'_>) -> Vec<Row> {
    let mut sums = BTreeMap::<(&str, &str, Option<&str>), Sum<'_>>::new();
    for group in facts.groups() {
        let region = facts.region_name(&group.region);
        let sum = sums.entry((&group.database, &group.user, region)).or_default();
        sum.sessions += group.sessions;
        sum.paused |= facts.pauses.cover(&group.database);
        sum.regions.extend(region);
    }
    for (worker, pool) in facts.pools() {
        let region = facts.policy.name(pool.region);
        let sum = sums.entry((&pool.database, &pool.user, Some(region))).or_default();
        sum.add(worker, pool);
        sum.regions.insert(region);
    }
    sums.iter().map(|((database, user, _), sum)| pool_row(facts, database, user, sum)).collect()
}

fn pool_row(facts: &Facts<'_>, database: &str, user: &str, sum: &Sum<'_>) -> Row {
    let none = || Value::from(0_u32);
    let workers: Vec<String> = sum.workers.iter().map(ToString::to_string).collect();
    vec![
        database.into(),
        user.into(),
        sum.sessions.saturating_sub(sum.waiting).into(),
        sum.waiting.into(),
        sum.cancelling.into(),
        none(),
        sum.active.into(),
        sum.cancelling.into(),
        sum.withheld.into(),
        sum.idle.into(),
        none(),
        sum.resetting.into(),
        sum.opening.into(),
        sum.waited.as_secs().into(),
        sum.waited.subsec_micros().into(),
        mode(facts.config.pool_mode).into(),
        Value::Null,
        joined(sum.regions.iter().copied()),
        joined(workers.iter().map(String::as_str)),
        sum.paused.into(),
    ]
}

pub(super) fn mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
    }
}

pub(super) fn regions(facts: &Facts<'_>) -> Vec<Row> {
    let mut sums = BTreeMap::<&str, Sum<'_>>::new();
    for group in facts.groups().filter(|group| declared(&group.region).is_some()) {
        sums.entry(facts.policy.region_name(&group.region)).or_default().sessions += group.sessions;
    }
    for (worker, pool) in facts.pools() {
        sums.entry(facts.policy.name(pool.region)).or_default().add(worker, pool);
    }
    let mut decided = BTreeMap::<&str, (u64, u64)>::new();
    let decisions: Vec<_> = facts.counters.iter().flat_map(|counters| counters.decisions()).collect();
    for (outcome, region, count) in &decisions {
        let (permitted, denied) = decided.entry(facts.policy.region_name(region)).or_default();
        match outcome {
            Outcome::Permitted | Outcome::Defaulted | Outcome::WouldBlock(_) => *permitted += count,
            Outcome::Denied(_) => *denied += count,
        }
    }
    let tallies = facts.sums_by_region();
    let none = Sum::default();
    let row = |region: &crate::config::Region| {
        let name = region.name.as_str();
        let sum = sums.get(name).unwrap_or(&none);
        let nodes = || facts.nodes.iter().filter(|node| node.config.region == name);
        let tally = tallies.get(name).copied().unwrap_or_else(Tally::default);
        let (permitted, denied) = decided.get(name).copied().unwrap_or_default();
        vec![
            name.into(),
            region.jurisdiction.as_deref().into(),
            nodes().count().into(),
            nodes().filter(|node| node.up).count().into(),
            sum.sessions.into(),
            sum.waiting.into(),
            sum.active.into(),
            sum.idle.into(),
            sum.resetting.into(),
            sum.opening.into(),
            facts.config.pools.max_per_region.into(),
            tally.xacts.into(),
            tally.queries.into(),
            permitted.into(),
            denied.into(),
            nodes().filter(|node| node.up && node.standby == Some(false)).count().into(),
            nodes().filter(|node| node.up && node.standby == Some(true)).count().into(),
            nodes().find_map(|node| node.error.as_deref()).into(),
        ]
    };
    facts.config.regions.iter().map(row).collect()
}

/// Host and port of a node; of a Unix socket its directory.
fn address(node: &NodeFact<'_>) -> (String, u32) {
    match &node.config.address {
        Address::Tcp { host, port } => (host.clone(), (*port).into()),
        Address::Unix { directory, port } => (directory.display().to_string(), (*port).into()),
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Primary => "primary",
        Role::Replica => "replica",
    }
}

pub(super) fn nodes(facts: &Facts<'_>) -> Vec<Row> {
    let mut sums = BTreeMap::<&str, Sum<'_>>::new();
    for server in facts.reports.iter().flat_map(|report| &report.servers) {
        let sum = sums.entry(&server.backend.node).or_default();
        match server.backend.state {
            State::Idle => sum.idle += 1,
            State::Bound(_) => sum.active += 1,
            State::Withheld => sum.withheld += 1,
            State::Resetting | State::Moving => sum.resetting += 1,
        }
    }
    let none = Sum::default();
    let row = |node: &NodeFact<'_>| {
        let sum = sums.get(node.config.name.as_str()).unwrap_or(&none);
        let (host, port) = address(node);
        vec![
            node.config.name.as_str().into(),
            node.config.region.as_str().into(),
            role(node.config.role).into(),
            host.into(),
            port.into(),
            node.config.user.as_deref().into(),
            node.config.database.as_deref().into(),
            node.up.into(),
            sum.active.into(),
            sum.idle.into(),
            sum.resetting.into(),
            node.standby.map(|standby| if standby { "standby" } else { "primary" }).into(),
            node.error.as_deref().into(),
        ]
    };
    facts.nodes.iter().map(row).collect()
}

/// Every database that clients use or have used, or that an operator has done something to, once for each node of the regions that
/// have served it; and the console.
pub(super) fn databases(facts: &Facts<'_>) -> Vec<Row> {
    let mut regions = facts.regions_by_database();
    let operated = facts.pauses.databases.iter().map(|name| &**name).chain(facts.disabled.iter().map(|name| &**name));
    for database in operated.chain(facts.groups().map(|group| &*group.database)) {
        regions.entry(database).or_default();
    }
    let (mut connections, mut clients) = (BTreeMap::<(&str, &str), usize>::new(), BTreeMap::<&str, usize>::new());
    for server in facts.reports.iter().flat_map(|report| &report.servers) {
        *connections.entry((&server.backend.database, &server.backend.node)).or_default() += 1;
    }
    for group in facts.groups() {
        *clients.entry(&group.database).or_default() += group.sessions;
    }
    let mut rows = Vec::new();
    for (database, regions) in &regions {
        let clients = clients.get(database).copied().unwrap_or(0);
        let serving: Vec<_> = facts.nodes.iter().filter(|node| regions.contains(node.config.region.as_str())).collect();
        for node in &serving {
            let connections = connections.get(&(*database, node.config.name.as_str())).copied().unwrap_or(0);
            rows.push(database_row(facts, database, Some(node), connections, clients));
        }
        if serving.is_empty() {
            rows.push(database_row(facts, database, None, 0, clients));
        }
    }
    rows.extend(DATABASES.iter().map(|name| console_row(facts, name)));
    rows
}

fn database_row(facts: &Facts<'_>, name: &str, node: Option<&NodeFact<'_>>, connections: usize, clients: usize) -> Row {
    let (host, port) = node.map(address).unzip();
    let pools = &facts.config.pools;
    vec![
        name.into(),
        host.into(),
        Value::from(port),
        node.and_then(|node| node.config.database.as_deref()).unwrap_or(name).into(),
        node.and_then(|node| node.config.user.as_deref()).into(),
        pools.size.into(),
        0_u32.into(),
        0_u32.into(),
        pools.lifetime.as_secs().into(),
        // None of its own: that of the configuration.
        Value::Null,
        Value::Null,
        0_u32.into(),
        connections.into(),
        0_u32.into(),
        clients.into(),
        facts.pauses.cover(name).into(),
        facts.disabled.contains(name).into(),
        node.map(|node| node.config.region.as_str()).into(),
        node.map(|node| node.config.name.as_str()).into(),
        node.map(|node| role(node.config.role)).into(),
    ]
}

/// The console is a database without servers.
fn console_row(facts: &Facts<'_>, name: &'static str) -> Row {
    let mut row = database_row(facts, name, None, 0, facts.consoles);
    let port = facts.config.listen.first().map_or(0, |address| address.port());
    for (place, value) in [(2, u32::from(port).into()), (5, 0_u32.into()), (8, 0_u32.into()), (15, 0_u32.into())] {
        if let Some(cell) = row.get_mut(place) {
            *cell = value;
        }
    }
    // Both names are one console, whose sessions are counted once.
    if Some(&name) != DATABASES.first()
        && let Some(cell) = row.get_mut(14)
    {
        *cell = 0_u32.into();
    }
    row
}

pub(super) fn users(facts: &Facts<'_>) -> Vec<Row> {
    let mut users = BTreeMap::<&str, (usize, usize)>::new();
    let admin = &facts.config.admin;
    let named = admin.users.iter().chain(&admin.stats_users).map(String::as_str);
    for name in facts.config.auth.users.names().chain(named) {
        users.entry(name).or_default();
    }
    for group in facts.groups() {
        users.entry(&group.user).or_default().1 += group.sessions;
    }
    let mut sums = BTreeMap::<&str, Sum<'_>>::new();
    for (worker, pool) in facts.pools() {
        sums.entry(&pool.user).or_default().add(worker, pool);
    }
    for (user, sum) in sums {
        users.entry(user).or_default().0 = sum.backends();
    }
    let row = |(name, (backends, sessions)): (&&str, &(usize, usize))| {
        let console = match rights(admin, name) {
            Some(Rights::Admin) => "admin",
            Some(Rights::Stats) => "stats",
            None => "",
        };
        vec![
            (*name).into(),
            "".into(),
            "".into(),
            Value::Null,
            0_u32.into(),
            (*backends).into(),
            0_u32.into(),
            (*sessions).into(),
            console.into(),
        ]
    };
    users.iter().map(row).collect()
}
