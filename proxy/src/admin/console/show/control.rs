//! LISTS, CONFIG, VERSION, STATE, MEM and DECISIONS: what the process knows of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::time::Duration;

use super::super::averages::PERIOD;
use super::super::facts::Facts;
use super::Row;
use super::pools::mode;
use crate::config::{Buffers, Cgroup, LogFormat, shown_bytes};
use crate::policy::{NoRegion, Unbound};
use crate::pool::{SlotReport, StatePolicy};
use crate::session::Report;
use crate::sql::Guard;

pub(super) fn lists(facts: &Facts<'_>) -> Vec<Row> {
    let mut databases: BTreeSet<&str> = facts.regions_by_database().into_keys().collect();
    databases.extend(facts.groups().map(|group| &*group.database));
    let mut users: BTreeSet<&str> = facts.config.auth.users.names().collect();
    users.extend(facts.groups().map(|group| &*group.user));
    let pools: BTreeSet<_> = facts.pools().map(|(_, pool)| (&pool.database, &pool.user, pool.region)).collect();
    let slots = |of: fn(&Report) -> SlotReport| {
        let slots = facts.reports.iter().map(of);
        slots.fold((0, 0), |(used, free), slots| (used + slots.used, free + slots.free))
    };
    let ((clients, free_clients), (servers, free_servers)) =
        (slots(|report| report.session_slots), slots(|report| report.backend_slots));
    let lists = [
        ("databases", databases.len()),
        ("users", users.len()),
        ("peers", 0),
        ("pools", pools.len()),
        ("peer_pools", 0),
        ("free_clients", free_clients),
        ("used_clients", clients),
        ("login_clients", facts.logging_in),
        ("free_servers", free_servers),
        ("used_servers", servers),
        ("dns_names", 0),
        ("dns_zones", 0),
        ("dns_queries", 0),
        ("dns_pending", 0),
        // Ours.
        ("regions", facts.config.regions.len()),
        ("nodes", facts.nodes.len()),
        ("workers", facts.reports.len()),
        ("console_clients", facts.consoles),
    ];
    lists.into_iter().map(|(list, items)| vec![list.into(), items.into()]).collect()
}

pub(super) fn version() -> Vec<Row> {
    vec![vec![concat!("Domicile ", env!("CARGO_PKG_VERSION"), " (console of PgBouncer 1.25)").into()]]
}

pub(super) fn state(facts: &Facts<'_>) -> Vec<Row> {
    let paused = facts.pauses.all;
    let states = [("active", !paused), ("paused", paused), ("suspended", false), ("draining", facts.draining)];
    states.into_iter().map(|(key, is_so)| vec![key.into(), if is_so { "yes" } else { "no" }.into()]).collect()
}

pub(super) fn memory(facts: &Facts<'_>) -> Vec<Row> {
    let row = |name: &'static str, of: fn(&Report) -> SlotReport| {
        let slots: Vec<SlotReport> = facts.reports.iter().map(of).collect();
        let (bytes, used) = (slots.first().map_or(0, |slots| slots.bytes), slots.iter().map(|slots| slots.used).sum::<usize>());
        let free = slots.iter().map(|slots| slots.free).sum::<usize>();
        // A free slot keeps its place in the table, not the memory of what was there.
        vec![name.into(), bytes.into(), used.into(), free.into(), (bytes * used).into()]
    };
    vec![row("client_cache", |report| report.session_slots), row("server_cache", |report| report.backend_slots)]
}

pub(super) fn decisions(facts: &Facts<'_>) -> Vec<Row> {
    let mut sums = BTreeMap::<(&str, &str, String), u64>::new();
    for (outcome, region, count) in facts.counters.iter().flat_map(|counters| counters.decisions()) {
        let region = facts.policy.region_name(&region).to_owned();
        *sums.entry((outcome.as_str(), outcome.reason(), region)).or_default() += count;
    }
    let row = |((outcome, reason, region), count): ((&str, &str, String), u64)| {
        vec![outcome.into(), reason.into(), region.into(), count.into()]
    };
    sums.into_iter().map(row).collect()
}

/// Keys as they stand in the file, and those of PgBouncer's names that its tools look for. A list is parted by commas. Passwords
/// are no options of their own, and nothing here holds one.
pub(super) fn config(facts: &Facts<'_>) -> Vec<Row> {
    let config = facts.config;
    let (residency, pools, limits) = (&config.residency, &config.pools, &config.limits);
    let sockets = config.unix_sockets.paths.iter().map(|path| path.display().to_string());
    let listen = list(config.listen.iter().map(ToString::to_string).chain(sockets));
    let workers = config.workers.map_or(0, usize::from);
    let unbound = match &residency.unbound {
        Unbound::Block => "block",
        Unbound::Client => "client",
        Unbound::Region(region) => region,
    };
    let no_region = match residency.no_region {
        NoRegion::Block => "block",
        NoRegion::Default => "default",
    };
    // With an HBA file there is none; PgBouncer calls that so.
    let method = if config.auth.hba.is_some() { "hba" } else { config.auth.method.as_str() };
    let (hba, jwt) = (config.auth.hba.as_ref(), config.auth.jwt.as_deref());
    let buffers = match config.engine.buffers {
        Buffers::Auto => "auto",
        Buffers::Incremental => "incremental",
        Buffers::Plain => "plain",
    };
    let format = match config.log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let session_state = match config.session_state {
        StatePolicy::Pin => "pin",
        StatePolicy::Refuse => "refuse",
        StatePolicy::Allow => "allow",
    };
    let cgroup = match &config.kernel.cgroup {
        Cgroup::Auto => "auto".to_owned(),
        Cgroup::Own => "own".to_owned(),
        Cgroup::Path(path) => path.display().to_string(),
    };
    let control = config.kernel.control.as_ref().map_or_else(String::new, |addresses| list(addresses.iter()));
    let audit = config.audit_file.as_ref().map(|file| file.display());
    // Key, value, default, whether a reload changes it.
    let options = [
        ("listen", listen, "127.0.0.1:6432", false),
        ("unix_socket_mode", format!("{:04o}", config.unix_sockets.mode), "0777", false),
        ("tls.mode", config.tls.mode.as_str().to_owned(), "disable", true),
        ("workers", workers.to_string(), "0", false),
        ("pool_mode", mode(config.pool_mode).to_owned(), "transaction", true),
        ("session_state", session_state.to_owned(), "pin", true),
        ("pin_notice", config.pin_notice.to_string(), "true", true),
        ("user", shown(config.user.as_ref()), "", false),
        ("core_dumps", config.core_dumps.to_string(), "false", false),
        ("fence", config.kernel.fence.as_str().to_owned(), "preferred", false),
        ("kernel.pins", config.kernel.pins.display().to_string(), "/sys/fs/bpf/domicile", false),
        ("kernel.cgroup", cgroup, "auto", false),
        ("kernel.control", control, "", true),
        ("kernel.steering", config.kernel.steering.as_str().to_owned(), "load", false),
        ("auth.method", method.to_owned(), "scram-sha-256", true),
        ("auth.hba_file", shown(hba.map(|hba| hba.path.display())), "", true),
        ("auth.ident_file", shown(hba.and_then(|hba| Some(hba.ident_path.as_ref()?.display()))), "", true),
        ("auth.jwt.keys", shown(jwt.map(|jwt| jwt.path.display())), "", true),
        ("auth.jwt.audience", shown(jwt.map(|jwt| &jwt.audience)), "", true),
        ("auth.jwt.issuer", shown(jwt.and_then(|jwt| jwt.issuer.as_ref())), "", true),
        ("auth.jwt.user_claim", shown(jwt.map(|jwt| &jwt.user_claim)), "sub", true),
        ("auth.jwt.regions_claim", shown(jwt.and_then(|jwt| jwt.regions_claim.as_ref())), "", true),
        ("auth.jwt.leeway", shown(jwt.map(|jwt| duration(jwt.leeway))), "30s", true),
        ("auth.backend_cleartext", config.auth.backend_cleartext.to_string(), "false", true),
        ("residency.parameters", list(residency.parameters.iter()), "domicile.region,helios.region", true),
        ("residency.unbound", unbound.to_owned(), "block", true),
        ("residency.no_region", no_region.to_owned(), "block", true),
        ("residency.default_region", shown(residency.default_region.as_ref()), "", true),
        ("residency.enforce", residency.enforce.to_string(), "true", true),
        ("residency.block_message", residency.block_message.clone(), "Query blocked by route plugin: {reason}", true),
        ("residency.block_sqlstate", residency.block_sqlstate.to_string(), "42000", true),
        ("pools.size", pools.size.to_string(), "20", true),
        ("pools.max_per_region", shown(pools.max_per_region), "", true),
        ("pools.wait_timeout", duration(pools.wait_timeout), "120s", true),
        ("pools.idle_timeout", duration(pools.idle_timeout), "600s", true),
        ("pools.lifetime", duration(pools.lifetime), "3600s", true),
        ("pools.connect_timeout", duration(pools.connect_timeout), "5s", true),
        ("pools.prepared_statements", pools.prepared_statements.to_string(), "200", true),
        ("pools.reset_always", pools.reset_always.to_string(), "false", true),
        ("pools.tcp_user_timeout", duration(pools.tcp_user_timeout), "120s", true),
        ("pools.probe_interval", duration(pools.probe_interval), "10s", true),
        ("limits.login_timeout", duration(limits.login_timeout), "60s", true),
        ("limits.max_clients", shown(limits.max_clients), "", true),
        ("limits.max_clients_per_user", shown(limits.max_clients_per_user), "", true),
        ("limits.max_clients_per_database", shown(limits.max_clients_per_database), "", true),
        ("limits.max_clients_per_region", shown(limits.max_clients_per_region), "", true),
        ("limits.max_logins", limits.max_logins.to_string(), "1024", true),
        ("limits.failed_logins", limits.failed_logins.to_string(), "5", true),
        ("limits.failed_login_delay", duration(limits.failed_login_delay), "10s", true),
        ("limits.session_statements", limits.session_statements.to_string(), "4096", true),
        ("limits.session_statement_bytes", shown_bytes(limits.session_statement_bytes), "4MB", true),
        ("limits.memory_limit", shown(limits.memory_limit.map(shown_bytes)), "", true),
        ("limits.query_timeout", duration(limits.query_timeout), "0s", true),
        ("limits.transaction_timeout", duration(limits.transaction_timeout), "0s", true),
        ("limits.idle_in_transaction_timeout", duration(limits.idle_in_transaction_timeout), "0s", true),
        ("limits.client_idle_timeout", duration(limits.client_idle_timeout), "0s", true),
        ("limits.drain_timeout", duration(limits.drain_timeout), "60s", true),
        ("admin.users", list(config.admin.users.iter()), "", true),
        ("admin.stats_users", list(config.admin.stats_users.iter()), "", true),
        ("engine.buffers", buffers.to_owned(), "auto", false),
        ("engine.receive_buffers", shown(config.engine.receive_buffers), "", false),
        ("http.listen", shown(config.http), "", false),
        ("log.format", format.to_owned(), "text", false),
        ("log.level", config.log.level.to_string().to_ascii_lowercase(), "info", false),
        ("audit.file", shown(audit), "", true),
        // By PgBouncer's names; 0 is no bound.
        ("max_client_conn", limits.max_clients.unwrap_or(0).to_string(), "0", true),
        ("max_prepared_statements", pools.prepared_statements.to_string(), "200", true),
        ("max_user_connections", "0".to_owned(), "0", false),
        ("default_pool_size", pools.size.to_string(), "20", true),
        ("stats_period", PERIOD.as_secs().to_string(), "60", false),
    ];
    let row = |(key, value, default, changeable): (&str, String, &str, bool)| {
        vec![key.into(), value.into(), default.into(), if changeable { "yes" } else { "no" }.into()]
    };
    let guards = Guard::ALL.into_iter().map(|guard| {
        let verdict = if residency.guards.contains(guard) { "deny" } else { "allow" };
        vec![format!("residency.{}", guard.rule()).into(), verdict.into(), "deny".into(), "yes".into()]
    });
    options.into_iter().map(row).chain(guards).collect()
}

fn list(items: impl Iterator<Item = impl Display>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

fn shown(value: Option<impl Display>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn duration(time: Duration) -> String {
    if time.subsec_millis() == 0 { format!("{}s", time.as_secs()) } else { format!("{}ms", time.as_millis()) }
}
