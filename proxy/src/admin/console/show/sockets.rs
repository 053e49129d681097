//! CLIENTS, SERVERS and PINS: a row for each connection.
//!
//! Times come from the clock that workers tell their cores, which moves four times a second.

use std::net::SocketAddr;

use super::super::facts::Facts;
use super::Row;
use crate::pool::{SessionKey, State};
use crate::session::{ClientReport, ClientState, Report, ServerReport};
use crate::wire::rows::Value;

pub(super) fn clients(facts: &Facts<'_>) -> Vec<Row> {
    each(facts, |report| &report.clients, client)
}

pub(super) fn servers(facts: &Facts<'_>) -> Vec<Row> {
    each(facts, |report| &report.servers, server)
}

pub(super) fn pins(facts: &Facts<'_>) -> Vec<Row> {
    let pinned = facts.reports.iter().flat_map(|report| report.clients.iter().map(move |client| (report, client)));
    let row = |(report, client): (&Report, &ClientReport)| {
        let (cause, since) = client.pin.as_ref()?;
        Some(vec![
            (&**cause).into(),
            facts.clock(*since).into(),
            client.process_id.into(),
            client.id.into(),
            (&*client.user).into(),
            (&*client.database).into(),
            facts.region_name(&client.region).into(),
            report.worker.into(),
        ])
    };
    pinned.filter_map(row).collect()
}

fn each<T>(facts: &Facts<'_>, of: impl Fn(&Report) -> &Vec<T>, row: impl Fn(&Facts<'_>, &Report, &T) -> Row) -> Vec<Row> {
    facts.reports.iter().flat_map(|report| of(report).iter().map(|item| row(facts, report, item))).collect()
}

fn client(facts: &Facts<'_>, report: &Report, client: &ClientReport) -> Row {
    let state = match client.state {
        ClientState::Active => "active",
        ClientState::Idle => "idle",
        ClientState::Waiting => "waiting",
    };
    let wait = match client.state {
        ClientState::Waiting => report.now.saturating_duration_since(client.asked_at),
        ClientState::Active | ClientState::Idle => Default::default(),
    };
    let link = client.backend.map(|backend| backend.pointer(report.worker)).unwrap_or_default();
    let mut row =
        vec!["C".into(), (&*client.user).into(), (&*client.database).into(), client.replication.as_str().into(), state.into()];
    row.extend(addresses(client.peer, client.local));
    row.extend([
        facts.clock(client.connected_at).into(),
        facts.clock(client.asked_at).into(),
        wait.as_secs().into(),
        wait.subsec_micros().into(),
        false.into(),
        client.key.pointer(report.worker).into(),
        link.into(),
        0_u32.into(),
        client.tls.as_deref().unwrap_or_default().into(),
        (&*client.application_name).into(),
        client.prepared_statements.into(),
        client.id.into(),
        facts.region_name(&client.region).into(),
        report.worker.into(),
    ]);
    row
}

fn server(facts: &Facts<'_>, report: &Report, server: &ServerReport) -> Row {
    let backend = &server.backend;
    let (state, session) = match backend.state {
        State::Idle => ("idle", None),
        State::Bound(session) => ("active", Some(session)),
        State::Withheld => ("being_canceled", None),
        State::Resetting | State::Moving => ("tested", None),
    };
    let link = session.map(|session: SessionKey| session.pointer(report.worker)).unwrap_or_default();
    let id = u64::from(backend.key.generation) << 32 | u64::from(backend.key.index);
    let mut row =
        vec!["S".into(), (&*backend.user).into(), (&*backend.database).into(), backend.replication.as_str().into(), state.into()];
    row.extend(addresses(server.peer, server.local));
    row.extend([
        facts.clock(backend.opened_at).into(),
        facts.clock(backend.asked_at).into(),
        0_u32.into(),
        0_u32.into(),
        backend.close_needed.into(),
        backend.key.pointer(report.worker).into(),
        link.into(),
        backend.process_id.into(),
        backend.tls.as_deref().unwrap_or_default().into(),
        (&*server.application_name).into(),
        backend.prepared_statements.into(),
        id.into(),
        facts.policy.name(backend.region).into(),
        report.worker.into(),
        (&*backend.node).into(),
    ]);
    row
}

/// The other end and ours, as four columns; a Unix socket is shown as PgBouncer shows it.
fn addresses(peer: Option<SocketAddr>, local: Option<SocketAddr>) -> [Value; 4] {
    let shown = |address: Option<SocketAddr>| {
        let host = address.map_or_else(|| "unix".to_owned(), |address| address.ip().to_string());
        (Value::from(host), Value::from(u32::from(address.map_or(0, |address| address.port()))))
    };
    let ((peer, peer_port), (local, local_port)) = (shown(peer), shown(local));
    [peer, peer_port, local, local_port]
}
