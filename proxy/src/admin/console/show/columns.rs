//! The columns of each table. PgBouncer's are those of its version 1.25 (`SHOW` in its usage.md, types as its admin.c and stats.c
//! send them); what is ours follows them.
//!
//! One difference: `id` is an `int8` here, because numbers of clients are never used again and soon pass the bounds of an `int4`.

use super::Show;
use crate::wire::rows::{Column, ColumnType};

const fn text(name: &'static str) -> Column {
    Column { name, of: ColumnType::Text }
}

const fn int4(name: &'static str) -> Column {
    Column { name, of: ColumnType::Int4 }
}

const fn int8(name: &'static str) -> Column {
    Column { name, of: ColumnType::Int8 }
}

const fn numeric(name: &'static str) -> Column {
    Column { name, of: ColumnType::Numeric }
}

pub(super) fn of(show: Show) -> Option<&'static [Column]> {
    Some(match show {
        Show::Help => return None,
        Show::Pools | Show::RegionPools => &POOLS,
        Show::Clients => &CLIENTS,
        Show::Servers => &SERVERS,
        Show::Stats => &STATS,
        Show::StatsTotals => &STATS_TOTALS,
        Show::StatsAverages => &STATS_AVERAGES,
        Show::Totals => &TOTALS,
        Show::Databases => &DATABASES,
        Show::Lists => &LISTS,
        Show::Config => &CONFIG,
        Show::Users => &USERS,
        Show::Version => &VERSION,
        Show::State => &STATE,
        Show::Mem => &MEM,
        Show::Regions => &REGIONS,
        Show::Nodes => &NODES,
        Show::Decisions => &DECISIONS,
        Show::Pins => &PINS,
        Show::Fence => &FENCE,
        Show::Flows => &FLOWS,
    })
}

static POOLS: [Column; 20] = [
    text("database"),
    text("user"),
    int4("cl_active"),
    int4("cl_waiting"),
    int4("cl_active_cancel_req"),
    int4("cl_waiting_cancel_req"),
    int4("sv_active"),
    int4("sv_active_cancel"),
    int4("sv_being_canceled"),
    int4("sv_idle"),
    int4("sv_used"),
    int4("sv_tested"),
    int4("sv_login"),
    int4("maxwait"),
    int4("maxwait_us"),
    text("pool_mode"),
    text("load_balance_hosts"),
    // Ours.
    text("region"),
    text("worker"),
    int4("paused"),
];

static CLIENTS: [Column; 23] = sockets();
static SERVERS: [Column; 24] = {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, region, worker] = sockets();
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, region, worker, text("node")]
};

const fn sockets() -> [Column; 23] {
    [
        text("type"),
        text("user"),
        text("database"),
        text("replication"),
        text("state"),
        text("addr"),
        int4("port"),
        text("local_addr"),
        int4("local_port"),
        text("connect_time"),
        text("request_time"),
        int4("wait"),
        int4("wait_us"),
        int4("close_needed"),
        text("ptr"),
        text("link"),
        int4("remote_pid"),
        text("tls"),
        text("application_name"),
        int4("prepared_statements"),
        int8("id"),
        // Ours.
        text("region"),
        int4("worker"),
    ]
}

static STATS: [Column; 26] = [
    text("database"),
    numeric("total_server_assignment_count"),
    numeric("total_xact_count"),
    numeric("total_query_count"),
    numeric("total_received"),
    numeric("total_sent"),
    numeric("total_xact_time"),
    numeric("total_query_time"),
    numeric("total_wait_time"),
    numeric("total_client_parse_count"),
    numeric("total_server_parse_count"),
    numeric("total_bind_count"),
    numeric("total_client_login_count"),
    numeric("avg_server_assignment_count"),
    numeric("avg_xact_count"),
    numeric("avg_query_count"),
    numeric("avg_recv"),
    numeric("avg_sent"),
    numeric("avg_xact_time"),
    numeric("avg_query_time"),
    numeric("avg_wait_time"),
    numeric("avg_client_parse_count"),
    numeric("avg_server_parse_count"),
    numeric("avg_bind_count"),
    numeric("avg_client_login_count"),
    // Ours.
    text("region"),
];

static STATS_TOTALS: [Column; 14] = [
    text("database"),
    numeric("server_assignment_count"),
    numeric("xact_count"),
    numeric("query_count"),
    numeric("bytes_received"),
    numeric("bytes_sent"),
    numeric("xact_time"),
    numeric("query_time"),
    numeric("wait_time"),
    numeric("client_parse_count"),
    numeric("server_parse_count"),
    numeric("bind_count"),
    numeric("client_login_count"),
    // Ours.
    text("region"),
];

static STATS_AVERAGES: [Column; 14] = [
    text("database"),
    numeric("server_assignment_count"),
    numeric("xact_count"),
    numeric("query_count"),
    numeric("bytes_received"),
    numeric("bytes_sent"),
    numeric("xact_time"),
    numeric("query_time"),
    numeric("wait_time"),
    numeric("avg_client_parse_count"),
    numeric("avg_server_parse_count"),
    numeric("avg_bind_count"),
    numeric("avg_client_login_count"),
    // Ours.
    text("region"),
];

static TOTALS: [Column; 2] = [text("name"), numeric("value")];

static DATABASES: [Column; 20] = [
    text("name"),
    text("host"),
    int4("port"),
    text("database"),
    text("force_user"),
    int4("pool_size"),
    int4("min_pool_size"),
    int4("reserve_pool_size"),
    int4("server_lifetime"),
    text("pool_mode"),
    text("load_balance_hosts"),
    int4("max_connections"),
    int4("current_connections"),
    int4("max_client_connections"),
    int4("current_client_connections"),
    int4("paused"),
    int4("disabled"),
    // Ours.
    text("region"),
    text("node"),
    text("role"),
];

static LISTS: [Column; 2] = [text("list"), int4("items")];

static CONFIG: [Column; 4] = [text("key"), text("value"), text("default"), text("changeable")];

static USERS: [Column; 9] = [
    text("name"),
    text("pool_size"),
    text("reserve_pool_size"),
    text("pool_mode"),
    int4("max_user_connections"),
    int4("current_connections"),
    int4("max_user_client_connections"),
    int4("current_client_connections"),
    // Ours.
    text("console"),
];

static VERSION: [Column; 1] = [text("version")];

static STATE: [Column; 2] = [text("key"), text("value")];

static MEM: [Column; 5] = [text("name"), int4("size"), int4("used"), int4("free"), int4("memtotal")];

static REGIONS: [Column; 18] = [
    text("region"),
    text("jurisdiction"),
    int4("nodes"),
    int4("nodes_up"),
    int4("sessions"),
    int4("cl_waiting"),
    int4("sv_active"),
    int4("sv_idle"),
    int4("sv_tested"),
    int4("sv_login"),
    int4("max_connections"),
    numeric("xact_count"),
    numeric("query_count"),
    numeric("permitted"),
    numeric("denied"),
    int4("primaries_up"),
    int4("standbys_up"),
    text("error"),
];

static NODES: [Column; 13] = [
    text("node"),
    text("region"),
    text("role"),
    text("host"),
    int4("port"),
    text("user"),
    text("database"),
    int4("up"),
    int4("sv_active"),
    int4("sv_idle"),
    int4("sv_tested"),
    text("server_role"),
    text("error"),
];

static DECISIONS: [Column; 4] = [text("outcome"), text("reason"), text("region"), numeric("count")];

static FENCE: [Column; 2] = [text("key"), text("value")];

static FLOWS: [Column; 8] = [
    text("region"),
    text("node"),
    int4("worker"),
    text("direction"),
    text("verdict"),
    numeric("flows"),
    numeric("packets"),
    numeric("bytes"),
];

static PINS: [Column; 8] = [
    text("cause"),
    text("since"),
    int4("process_id"),
    int8("session"),
    text("user"),
    text("database"),
    text("region"),
    int4("worker"),
];
