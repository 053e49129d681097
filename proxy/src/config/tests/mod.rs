//! Reading whole files: what is read, what is refused and in which words, and texts that nobody would write.

mod files;
mod mistakes;

use std::path::Path;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::mistake::Findings;
use super::read::whole;
use super::*;
use crate::sql::Guard;
use crate::target::TargetSessionAttrs;

/// A configuration that says no more than it must.
const MINIMAL: &str = r#"
auth.method = "trust"
residency.unbound = "client"
[regions.eu-west]
[[nodes]]
name = "pg-eu-west"
region = "eu-west"
address = "127.0.0.1:5433"
"#;

fn environment(name: &str) -> Option<String> {
    match name {
        "PG_EU" => Some("from the environment".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn read(text: &str) -> Result<Config, Mistakes> {
    let findings = Findings::default();
    let config = whole(Path::new("d.toml"), text, &environment, &findings);
    findings.into_result(config).map(|(config, warnings)| Config { warnings, ..config })
}

/// All that is wrong with a file, or else all it is warned of.
fn check(text: &str, expected: Expect) {
    expected.assert_eq(&found(read(text)));
}

fn found(result: Result<Config, Mistakes>) -> String {
    match result {
        Ok(config) => config.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect(),
        Err(mistakes) => format!("{mistakes}\n"),
    }
}

#[test]
fn what_is_written_is_read() {
    let config = read(
        r#"
        listen = ["0.0.0.0:6432", "[::1]:6433"]
        workers = 4
        pool_mode = "session"
        [auth]
        method = "trust"
        backend_cleartext = true
        [residency]
        parameters = ["Acme.Region"]
        unbound = "us-east"
        no_region = "default"
        default_region = "us-east"
        enforce = false
        guards = { copy_file = "allow", load = "deny" }
        block_message = "No: {reason}"
        block_sqlstate = "0A000"
        [[residency.bind]]
        user = "alice"
        database = "shop"
        from = "10.1.2.3/8"
        regions = ["us-east", "eu-west"]
        target_session_attrs = "prefer-standby"
        replication = true
        [regions.us-east]
        jurisdiction = "US"
        [regions.eu-west]
        [[nodes]]
        name = "a"
        region = "us-east"
        address = "/run/postgresql:5433"
        role = "replica"
        user = "app"
        database = "shop"
        password = { env = "PG_EU" }
        [pools]
        size = 0x10
        max_per_region = 100
        wait_timeout = 5
        idle_timeout = "5min"
        lifetime = "1h"
        connect_timeout = "250ms"
        probe_interval = 0
        [limits]
        login_timeout = "10 s"
        max_clients = 1000
        max_clients_per_user = 10
        max_clients_per_database = 20
        max_clients_per_region = 30
        max_logins = 40
        failed_logins = 0
        failed_login_delay = 2
        session_statements = 50
        session_statement_bytes = "64kB"
        memory_limit = "1GB"
        query_timeout = "30s"
        transaction_timeout = 60
        idle_in_transaction_timeout = "1500ms"
        client_idle_timeout = "1h"
        drain_timeout = 0
        [admin]
        users = ["root"]
        stats_users = ["grafana", "root"]
        [engine]
        buffers = "plain"
        receive_buffers = 1024
        [http]
        listen = "127.0.0.1:9432"
        [log]
        format = "json"
        level = "debug"
        [audit]
        file = "audit.jsonl"
        [parameters]
        datestyle = "SQL, DMY"
        server_version = "17.2"
        search_path = ""
        "#,
    )
    .unwrap();
    let Config { listen, workers, pool_mode, auth, residency, regions, nodes, pools, .. } = &config;
    expect![[r#"
        [0.0.0.0:6432, [::1]:6433] Some(4) Session
        Auth { method: Trust, hba: None, jwt: None, users: Users({}), query: None, backend_cleartext: true }
        [Region { name: "us-east", jurisdiction: Some("US") }, Region { name: "eu-west", jurisdiction: None }]
        [Node { name: "a", region: "us-east", address: Unix { directory: "/run/postgresql", port: 5433 }, role: Replica, user: Some("app"), password: Some(Password), database: Some("shop"), networks: [], require_auth: RequireAuth([None, Password, Md5, ScramSha256]), tls: None }]
        Pools { size: 16, max_per_region: Some(100), wait_timeout: 5s, idle_timeout: 300s, lifetime: 3600s, connect_timeout: 250ms, tcp_user_timeout: 120s, probe_interval: 0ns, prepared_statements: 200, reset_always: false }"#]]
    .assert_eq(&format!("{listen:?} {workers:?} {pool_mode:?}\n{auth:?}\n{regions:?}\n{nodes:?}\n{pools:?}"));
    let Config { limits, engine, http, log, audit_file, parameters, .. } = &config;
    expect![[r#"
        Limits { login_timeout: 10s, max_clients: Some(1000), max_clients_per_user: Some(10), max_clients_per_database: Some(20), max_clients_per_region: Some(30), max_logins: 40, failed_logins: 0, failed_login_delay: 2s, session_statements: 50, session_statement_bytes: 65536, memory_limit: Some(1073741824), query_timeout: 30s, transaction_timeout: 60s, idle_in_transaction_timeout: 1.5s, client_idle_timeout: 3600s, drain_timeout: 0ns }
        Engine { buffers: Plain, receive_buffers: Some(1024) }
        Some(127.0.0.1:9432)
        Log { format: Json, level: Level(Debug) }
        Some("audit.jsonl")
        [("application_name", ""), ("client_encoding", "UTF8"), ("DateStyle", "SQL, DMY"), ("default_transaction_read_only", "off"), ("in_hot_standby", "off"), ("integer_datetimes", "on"), ("IntervalStyle", "postgres"), ("is_superuser", "off"), ("server_encoding", "UTF8"), ("server_version", "17.2"), ("standard_conforming_strings", "on"), ("TimeZone", "Etc/UTC"), ("search_path", "")]"#]]
    .assert_eq(&format!("{limits:?}\n{engine:?}\n{http:?}\n{log:?}\n{audit_file:?}\n{parameters:?}"));
    assert_eq!(
        (&config.admin.users[..], &config.admin.stats_users[..]),
        (&["root".to_owned()][..], &["grafana".to_owned(), "root".to_owned()][..])
    );
    assert_eq!(config.nodes[0].password.as_ref().map(Password::reveal), Some("from the environment"));

    assert_eq!(residency.parameters, ["acme.region"]);
    let source = config.policy_source();
    assert_eq!((source.unbound, source.no_region), (Unbound::Region("us-east".into()), NoRegion::Default));
    assert_eq!((source.default_region.as_deref(), source.enforce), (Some("us-east"), false));
    let allowed: Vec<_> = Guard::ALL.into_iter().filter(|guard| !source.guards.contains(*guard)).collect();
    assert_eq!(allowed, [Guard::CopyFile]);
    assert_eq!((source.block_message.as_str(), source.block_sqlstate.as_str()), ("No: {reason}", "0A000"));
    assert_eq!(
        source.regions.iter().map(|region| (region.name.as_str(), region.has_nodes)).collect::<Vec<_>>(),
        [("us-east", true), ("eu-west", false)]
    );
    let bind = &source.binds[0];
    assert_eq!((bind.target, bind.replication), (TargetSessionAttrs::PreferStandby, true));
    assert_eq!(
        (bind.user.as_deref(), bind.database.as_deref(), bind.label.as_str()),
        (Some("alice"), Some("shop"), "residency.bind[0]")
    );
    assert_eq!(
        (bind.from.map(|network| network.to_string()).as_deref(), &bind.regions),
        (Some("10.0.0.0/8"), &vec!["us-east".to_owned(), "eu-west".to_owned()])
    );
}

/// A place, how many characters vanish there, and which one appears instead.
fn slip() -> impl Strategy<Value = (prop::sample::Index, usize, String)> {
    (any::<prop::sample::Index>(), 0..4usize, "\\PC|[\\[\\]{}=.,\"'#\n]")
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in "\\PC*|[\\[\\]{}=.,\"'#a-z0-9 \n\\\\]*") {
        let answer = read(&text);
        prop_assert!(answer.is_ok() || answer.unwrap_err().iter().count() > 0);
    }

    #[test]
    fn no_slip_in_the_reference_makes_reading_panic(slips in prop::collection::vec(slip(), 1..20)) {
        let mut letters: Vec<String> = include_str!("../../../../configs/domicile.toml").chars().map(String::from).collect();
        for (place, removed, inserted) in slips {
            let at = place.index(letters.len());
            let end = (at + removed).min(letters.len() - 1);
            letters.splice(at..end.max(at), [inserted]);
        }
        let answer = read(&letters.concat());
        prop_assert!(answer.is_ok() || answer.unwrap_err().iter().count() > 0);
    }

    #[test]
    fn no_users_file_makes_reading_panic(text in "(\"a\" *\"SCRAM-SHA-256\\$)?[\"\\PC\n \\$:=a-z0-9]*") {
        users::parse(Path::new("users.txt"), &text, &Findings::default());
    }
}
