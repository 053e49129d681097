//! Conversations with the console, whole and cut at every byte; and that every table has a value for each of its columns.

mod properties;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use expect_test::{Expect, expect};

use super::averages::Averages;
use super::*;
use crate::observe::{FenceCounts, FenceSample, FlowSample};
use crate::pool::{Pauses, PoolReport, Scope, SlotReport, Tally};
use crate::region::SessionRegion;
use crate::session::{ClientReport, ClientState, Counters, Detail, GroupReport, Report as WorkerReport};
use crate::wire::frontend;
use crate::wire::rows::{ColumnType, Value};
use crate::wire::{Frame, Malformed, Mode, Splitter, parse_error};

/// An operator that does nothing: tables have one row of ones, and `RESUME` fails.
fn operate(command: &Command) -> Result<Answer, Fault> {
    if *command == Command::Resume(Scope::All) {
        return Err(Fault::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "the pooler is not paused"));
    }
    let value = |column: &crate::wire::rows::Column| match column.of {
        ColumnType::Text => Value::from("x"),
        ColumnType::Int4 | ColumnType::Int8 | ColumnType::Numeric => Value::from(1_u32),
    };
    let row: Option<Vec<Value>> = command.columns().map(|columns| columns.iter().map(value).collect());
    let notice = if let Command::Show(show) = command { show.notice() } else { None };
    Ok(Answer { notice, rows: row.into_iter().flat_map(|row| [row.clone(), row]).collect() })
}

fn play(rights: Rights, pieces: &[&[u8]]) -> String {
    let (mut conversation, mut said, mut ran) = (Conversation::new(rights), Vec::new(), String::new());
    'pieces: for piece in pieces {
        conversation.receive(piece);
        loop {
            match conversation.step() {
                Step::Read => break,
                Step::Send(bytes) => said.extend_from_slice(&bytes),
                Step::Run(command) => {
                    ran += &format!("! {command:?}\n");
                    conversation.answered(operate(&command));
                }
                Step::Close(bytes) => {
                    said.extend_from_slice(&bytes);
                    ran += "closed\n";
                    break 'pieces;
                }
            }
        }
    }
    let (mut splitter, mut at) = (Splitter::default(), 0);
    while let Some(frame) = splitter.next::<Malformed>(&said, &mut at, |_, _| Ok(Mode::Gather)).unwrap() {
        let Frame::Whole { tag, range } = frame else { panic!("{frame:?}") };
        let body = &said[range][5..];
        let shown = match parse_error(body) {
            Some(error) if matches!(tag, b'E' | b'N') => {
                format!("{} {} {}", error.severity, error.sqlstate.unwrap(), error.message)
            }
            _ if tag == b'T' => format!("{} columns", u16::from_be_bytes([body[0], body[1]])),
            _ if tag == b'D' => format!("{} bytes", body.len()),
            _ => body.escape_ascii().to_string(),
        };
        ran += &format!("{} {shown}\n", char::from(tag));
    }
    ran
}

fn check(rights: Rights, messages: &[bytes::Bytes], expected: &Expect) {
    let bytes = messages.concat();
    let whole = play(rights, &[&bytes]);
    expected.assert_eq(&whole);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(play(rights, &single), whole, "byte by byte");
    for at in 1..bytes.len() {
        assert_eq!(play(rights, &[&bytes[..at], &bytes[at..]]), whole, "cut at {at}");
    }
}

fn query(text: &str) -> bytes::Bytes {
    frontend::query(text.as_bytes())
}

#[test]
fn commands_are_answered_by_query() {
    check(
        Rights::Admin,
        &[
            query("SHOW VERSION;"),
            query(" pause \"De\"\"mo\" ; "),
            query("show help"),
            query("-- ping"),
            query("set datestyle to iso"),
        ],
        &expect![[r#"
            ! Show(Version)
            ! Pause(Database("De\"mo"))
            ! Show(Help)
            ! Set
            T 1 columns
            D 7 bytes
            D 7 bytes
            C SHOW\x00
            Z I
            C PAUSE\x00
            Z I
            N NOTICE 00000 Console usage
            C SHOW\x00
            Z I
            I 
            Z I
            C SET\x00
            Z I
        "#]],
    );
}

#[test]
fn what_goes_wrong_leaves_the_session_alive() {
    check(
        Rights::Admin,
        &[
            query("SHOW SECRETS"),
            query("SHOW POOLS; SHOW STATS"),
            query("RESUME"),
            query("SET pools.size = 5"),
            query("SHOW STATE"),
        ],
        &expect![[r#"
            ! Resume(All)
            ! Show(State)
            E ERROR 42601 invalid command 'SHOW SECRETS', use SHOW HELP;
            Z I
            E ERROR 42601 invalid command 'SHOW POOLS; SHOW STATS', use SHOW HELP;
            Z I
            E ERROR 55000 the pooler is not paused
            Z I
            E ERROR 0A000 parameter "pools.size" cannot be changed here
            Z I
            T 2 columns
            D 12 bytes
            D 12 bytes
            C SHOW\x00
            Z I
        "#]],
    );
}

#[test]
fn who_may_only_look_changes_nothing() {
    check(
        Rights::Stats,
        &[
            query("SHOW STATE"),
            query("KILL"),
            frontend::parse(b"", b"PAUSE", &[]),
            frontend::bind(b"", b""),
            frontend::execute(b"", 0),
            frontend::execute(b"", 0),
            frontend::sync(),
            query("SHUTDOWN"),
        ],
        &expect![[r#"
            ! Show(State)
            T 2 columns
            D 12 bytes
            D 12 bytes
            C SHOW\x00
            Z I
            E ERROR 42501 admin access needed
            Z I
            1 
            2 
            E ERROR 42501 admin access needed
            Z I
            E ERROR 42501 admin access needed
            Z I
        "#]],
    );
}

#[test]
fn the_extended_protocol_is_a_servers() {
    check(
        Rights::Admin,
        &[
            frontend::parse(b"s", b"SHOW LISTS", &[]),
            frontend::describe_statement(b"s"),
            frontend::bind(b"p", b"s"),
            frontend::describe_portal(b"p"),
            frontend::execute(b"p", 1),
            frontend::execute(b"p", 1),
            frontend::execute(b"p", 1),
            frontend::flush(),
            frontend::sync(),
            // The portal is gone with the Sync, and what follows the error is discarded.
            frontend::execute(b"p", 0),
            frontend::close_statement(b"s"),
            frontend::sync(),
            frontend::parse(b"", b"RELOAD", &[]),
            frontend::bind(b"", b""),
            frontend::describe_portal(b""),
            frontend::execute(b"", 0),
            frontend::execute(b"", 0),
            frontend::sync(),
            frontend::close_statement(b"s"),
            frontend::bind(b"", b"s"),
            frontend::sync(),
            frontend::terminate(),
        ],
        &expect![[r#"
            ! Show(Lists)
            ! Reload
            closed
            1 
            t \x00\x00
            T 2 columns
            2 
            T 2 columns
            D 12 bytes
            s 
            D 12 bytes
            C SHOW\x00
            C SHOW\x00
            Z I
            E ERROR 34000 portal "p" does not exist
            Z I
            1 
            2 
            n 
            C RELOAD\x00
            E ERROR 55000 portal "" cannot be run
            Z I
            3 
            E ERROR 26000 prepared statement "s" does not exist
            Z I
        "#]],
    );
}

#[test]
fn numbers_come_in_binary_if_they_are_asked_for_so() {
    let parsed = frontend::parse(b"", b"SHOW LISTS", &[]);
    let binary = b"B\0\0\0\x0e\0\0\0\0\0\0\0\x01\0\x01";
    let mut conversation = Conversation::new(Rights::Stats);
    conversation.receive(&[&parsed, &binary[..], &frontend::execute(b"", 0)].concat());
    let Step::Run(command) = conversation.step() else { panic!("nothing to run") };
    conversation.answered(operate(&command));
    let Step::Send(said) = conversation.step() else { panic!("nothing to send") };
    assert!(said.windows(8).any(|bytes| bytes == [0, 0, 0, 4, 0, 0, 0, 1]), "{}", said.escape_ascii());
}

#[test]
fn who_breaks_the_protocol_is_sent_away() {
    for (bytes, expected) in [
        (&b"?\0\0\0\x04"[..], "invalid frontend message type 63"),
        (b"Q\0\0\0\x03", "invalid message length"),
        (b"Q\x7f\0\0\x03", "invalid message length"),
        (b"Q\0\0\0\x06ab", "invalid message format"),
        (b"B\0\0\0\x05x", "invalid message format"),
    ] {
        let said = play(Rights::Admin, &[bytes]);
        assert_eq!(said, format!("closed\nE FATAL 08P01 {expected}\n"));
    }
    let function_call = bytes::Bytes::from_static(b"F\0\0\0\x0e\0\0\0\x01\0\0\0\0\0\0");
    let said = play(Rights::Admin, &[&[function_call, query("SHOW STATE")].concat()]);
    assert!(said.contains("E ERROR 0A000") && said.ends_with("C SHOW\\x00\nZ I\n"), "{said}");
}

#[test]
fn statements_and_portals_are_bounded() {
    let mut messages: Vec<bytes::Bytes> =
        (0..100).map(|n| frontend::parse(format!("s{n}").as_bytes(), b"SHOW STATE", &[])).collect();
    messages.push(frontend::sync());
    let said = play(Rights::Admin, &[&messages.concat()]);
    assert!(said.contains("E ERROR 54000 too many prepared statements"), "{said}");
}

#[test]
fn commands_are_read_as_pgbouncer_reads_them() {
    let read = |text: &str| match Command::parse(text.as_bytes()) {
        Ok(Some(command)) => format!("{command:?}"),
        Ok(None) => "empty".to_owned(),
        Err(fault) => format!("{} {}", fault.sqlstate, fault.message),
    };
    for (text, expected) in [
        ("", "empty"),
        (" ; ;", "empty"),
        ("/* only */ -- comments", "empty"),
        ("SHOW pools", "Show(Pools)"),
        ("\tsElEcT\nPoOlS\r\n;", "Show(Pools)"),
        ("\"show\" stats_totals", "Show(StatsTotals)"),
        ("SHOW TRANSACTION ISOLATION LEVEL", &read("SHOW transaction_isolation")),
        ("PAUSE", "Pause(All)"),
        ("PAUSE my-db;", "Pause(Database(\"my-db\"))"),
        ("KILL_CLIENT 12", "KillClient(12)"),
        ("KILL_CLIENT", "42601 the number of a client is required"),
        ("KILL_CLIENT x", "42601 the number of a client is required"),
        ("DISABLE", "42601 a database is required"),
        ("RECONNECT domicile", "0A000 cannot reconnect the administration console: domicile"),
        ("SHUTDOWN", "Shutdown(Immediate)"),
        ("shutdown wait_for_clients", "Shutdown(WaitForClients)"),
        ("SHUTDOWN now", "42601 invalid command 'SHUTDOWN now', use SHOW HELP;"),
        ("RELOAD now", "42601 invalid command 'RELOAD now', use SHOW HELP;"),
        ("SUSPEND", "0A000 SUSPEND is not supported"),
        ("SHOW", "42601 invalid command 'SHOW', use SHOW HELP;"),
        ("SHOW 'pools'", "42601 invalid command 'SHOW 'pools'', use SHOW HELP;"),
        ("PAUSE \"open", "42601 invalid command 'PAUSE \"open', use SHOW HELP;"),
        ("PAUSE /* open", "42601 invalid command 'PAUSE /* open', use SHOW HELP;"),
        ("SET extra_float_digits = 3", "Set"),
        ("set session characteristics as transaction read only", "Set"),
        ("SET TIME ZONE 'UTC'", "Set"),
        ("SET application_name TO 'a;b';", "Set"),
        ("SET", "42601 invalid command 'SET', use SHOW HELP;"),
        ("SET datestyle = iso; KILL", "42601 invalid command 'SET datestyle = iso; KILL', use SHOW HELP;"),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
    assert_eq!(Command::parse(b"SHOW \xff").unwrap_err().sqlstate, SqlState::CHARACTER_NOT_IN_REPERTOIRE);
    assert!(read(&"x".repeat(10_000)).len() < 200);
}

#[test]
fn every_table_has_a_value_of_the_right_kind_for_each_of_its_columns() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("domicile.toml");
    let text = "auth.method = \"trust\"\n[regions.eu]\n[regions.us]\n[[nodes]]\nname = \"a\"\nregion = \"eu\"\naddress = \"h:1\"\n\
                password = \"hunter2\"\nuser = \"u\"\n[[nodes]]\nname = \"b\"\nregion = \"us\"\naddress = \"/run/pg\"\n[admin]\nusers = [\"root\"]\n";
    std::fs::write(&path, text).unwrap();
    let config = crate::config::load(&path, &|_| None).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let policy = crate::policy::Policy::compile(&config.policy_source(), None).unwrap();
    #[expect(clippy::disallowed_methods, reason = "only differences of it are used")]
    let now = Instant::now();
    let eu = policy.region("eu");
    let SessionRegion::Declared(region) = eu else { panic!("eu is declared") };
    let mut pools = crate::pool::Pools::new(settings(), Arc::default(), 1);
    let key = crate::pool::PoolKey {
        region,
        database: "shop".into(),
        user: "app".into(),
        settings: Arc::new([]),
        target: Default::default(),
        replication: Default::default(),
    };
    let index = pools.enter(&key);
    let tally = Tally { queries: 7, xacts: 5, assignments: 5, sent: 12_345, ..Tally::default() };
    let pool =
        PoolReport { tally, active: 1, waiting: 2, waited: Duration::from_micros(3_000_004), ..pools.report(now).remove(0) };
    let session = crate::session::SessionKey { index: 3, generation: 4 };
    let client = ClientReport {
        key: session,
        id: 65,
        database: "shop".into(),
        user: "app".into(),
        replication: Default::default(),
        region: eu.clone(),
        state: ClientState::Active,
        connected_at: now,
        asked_at: now,
        backend: None,
        process_id: Some(99),
        application_name: "psql".into(),
        prepared_statements: 1,
        tls: Some("TLSv1.3/TLS_AES_256_GCM_SHA384".into()),
        pin: Some(("LISTEN".into(), now)),
        peer: Some(([10, 0, 0, 1], 5000).into()),
        local: None,
    };
    assert_eq!(pool.index, index);
    let report = WorkerReport {
        worker: 1,
        now,
        pools: vec![pool],
        past: Vec::new(),
        groups: vec![GroupReport { database: "shop".into(), user: "app".into(), region: eu, sessions: 3 }],
        clients: vec![client],
        servers: Vec::new(),
        session_slots: SlotReport { bytes: 100, used: 3, free: 1 },
        backend_slots: SlotReport::default(),
    };
    let nodes =
        config.nodes.iter().map(|config| facts::NodeFact { config, up: true, standby: Some(false), error: None }).collect();
    let counters = [Arc::new(Counters::default())];
    let (pauses, averages) = (Pauses::default(), Averages::new(now));
    let facts = Facts {
        reports: vec![report],
        config: &config,
        policy: &policy,
        nodes,
        counters: &counters,
        fence: fence(),
        pauses: &pauses,
        disabled: &BTreeSet::from(["old".into()]),
        averages: &averages,
        consoles: 1,
        logging_in: 0,
        draining: false,
        now: now + Duration::from_secs(1),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
    };
    let mut shown = String::new();
    for show in Show::ALL {
        let rows = show.rows(&facts);
        let Some(columns) = show.columns() else {
            assert!(rows.is_empty());
            continue;
        };
        for row in &rows {
            assert_eq!(row.len(), columns.len(), "{show:?}: {row:?}");
            for (column, value) in columns.iter().zip(row) {
                let fits = match value {
                    Value::Null => true,
                    Value::Text(_) => column.of == ColumnType::Text,
                    Value::Number(_) => column.of != ColumnType::Text,
                };
                assert!(fits, "{show:?}: {} is {value:?}", column.name);
            }
        }
        if matches!(
            show,
            Show::Pools
                | Show::Clients
                | Show::StatsTotals
                | Show::Databases
                | Show::Regions
                | Show::Pins
                | Show::Fence
                | Show::Flows
        ) {
            shown += &format!("{show:?}\n");
            rows.iter().for_each(|row| shown += &format!("  {}\n", row.iter().map(text_of).collect::<Vec<_>>().join("|")));
        }
        let all = format!("{rows:?}");
        assert!(!all.contains("hunter2"), "{show:?} shows a password");
    }
    expect![[r#"
        Pools
          shop|app|1|2|0|0|1|0|0|0|0|0|0|3|4|transaction||eu|1|0
        Clients
          C|app|shop|none|active|10.0.0.1|5000|unix|0|1970-01-12 13:46:39 UTC|1970-01-12 13:46:39 UTC|0|0|0|c1.3.4||0|TLSv1.3/TLS_AES_256_GCM_SHA384|psql|1|65|eu|1
        StatsTotals
          shop|5|5|7|0|12345|0|0|0|0|0|0|0|eu
        Databases
          old|||old||20|0|0|3600|||0|0|0|0|0|1|||
          shop|h|1|shop|u|20|0|0|3600|||0|0|0|3|0|0|eu|a|primary
          pgbouncer||6432|pgbouncer||0|0|0|0|||0|0|0|1|0|0|||
          domicile||6432|domicile||0|0|0|0|||0|0|0|0|0|0|||
        Regions
          eu||1|1|3|2|1|0|0|0||5|7|0|0|1|0|
          us||1|1|0|0|0|0|0|0||0|0|0|0|1|0|
        Pins
          LISTEN|1970-01-12 13:46:39 UTC|99|65|app|shop|eu|1
        Fence
          mode|preferred
          up|yes
          absent|
          pins|/sys/fs/bpf/domicile
          generation|3
          configuration|0123
          widened|no
          addresses|2
        Flows
          eu|a|1|egress|passed|2|30|4000
    "#]].assert_eq(&shown);
}

fn fence() -> FenceSample {
    let flow = FlowSample {
        region: "eu".to_owned(),
        node: "a".to_owned(),
        worker: 1,
        direction: "egress",
        verdict: "passed",
        flows: 2,
        packets: 30,
        bytes: 4000,
    };
    let counted = FenceCounts {
        generation: 3,
        digest: "0123".to_owned(),
        widened: false,
        addresses: 2,
        flows: vec![flow],
        nodes: Vec::new(),
    };
    FenceSample { mode: "preferred", absent: None, pins: "/sys/fs/bpf/domicile".to_owned(), counted: Some(counted) }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Text(text) => text.to_string(),
        Value::Number(number) => number.to_string(),
    }
}

fn settings() -> crate::pool::Settings {
    crate::pool::Settings {
        mode: crate::pool::PoolMode::Transaction,
        size: 1,
        per_region_max: None,
        wait_timeout: Duration::from_secs(1),
        reset_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
        lifetime: Duration::from_secs(1),
        prepared_statements: 200,
        reset_always: false,
        nodes: Arc::new([]),
        workers: 2,
    }
}

#[test]
fn a_table_asks_the_workers_for_no_more_than_it_shows() {
    assert_eq!(Show::Stats.detail(), Detail::Pools);
    assert_eq!(
        (Show::Clients.detail(), Show::Servers.detail(), Show::Pins.detail()),
        (Detail::Clients, Detail::Servers, Detail::Pins)
    );
}
