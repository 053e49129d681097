//! Replication through the proxy, with PostgreSQL's own programs: a base backup, a receiver of WAL, a receiver of decoded changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use domicile_tests::client::Login;
use domicile_tests::cluster::{Cluster, Options};
use domicile_tests::process::{Process, Scratch, free_port, wait_for};
use domicile_tests::program;
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::skip::{available, io_uring};
use domicile_tests::transcript::Transcript;
use rustix::process::Signal;

use crate::world::{start, tail};

const BOUND: &str = "[[residency.bind]]\nuser = \"postgres\"\nregions = [\"eu-west\"]";
const PERMITTED: &str = "[[residency.bind]]\nuser = \"postgres\"\nregions = [\"eu-west\"]\nreplication = true";
const PATIENCE: Duration = Duration::from_secs(30);

/// A server that can be replicated from in both ways, shared by the tests of this file.
fn server() -> Option<&'static Cluster> {
    static SERVER: OnceLock<Cluster> = OnceLock::new();
    available(program::need("initdb"))?;
    available(io_uring())?;
    Some(SERVER.get_or_init(|| {
        let settings = [("wal_level", "logical"), ("max_wal_senders", "20"), ("max_replication_slots", "20")];
        let options = Options { name: "pg-eu-west", connections_max: 50, settings: &settings, ..Options::default() };
        let cluster = Cluster::start(&options).and_then(|cluster| {
            cluster.execute("postgres", "CREATE DATABASE demo")?;
            cluster.execute("demo", "CREATE TABLE public.notes (text text); INSERT INTO public.notes VALUES ('before')")?;
            Ok(cluster)
        });
        cluster.unwrap_or_else(|error| panic!("{error}"))
    }))
}

/// A proxy with the server in its European region, and nothing behind the American one.
fn configuration(server: &Cluster, residency: &str) -> Configuration {
    let nowhere = ([127, 0, 0, 1], free_port()).into();
    let mut configuration =
        Configuration::new(&[("eu-west", "pg-eu-west", server.address()), ("us-east", "pg-us-east", nowhere)]);
    residency.clone_into(&mut configuration.residency);
    configuration.residency.push('\n');
    configuration
}

/// One of PostgreSQL's programs, with a login through the proxy and the name that `pg_stat_replication` shows.
fn client(proxy: &Proxy, program: &Path, name: &str) -> Command {
    let mut command = program::command(program);
    command.env("PGAPPNAME", name).env("PGUSER", "postgres");
    command.args(["--host=127.0.0.1", "--no-password"]).arg(format!("--port={}", proxy.address().port()));
    command
}

/// Starts one of them that goes on until it is stopped; what it says goes to a file.
fn receiver(mut command: Command, said: &Path) -> Process {
    let output = fs::File::create(said).expect("a file for what the program says");
    let errors = output.try_clone().expect("the same file");
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    Process::start(command, Signal::KILL).expect("a program of PostgreSQL")
}

/// How many streams of this name the server has.
fn streams(server: &Cluster, name: &str) -> String {
    let query = format!("SELECT count(*) FROM pg_stat_replication WHERE application_name = '{name}' AND state = 'streaming'");
    server.value("postgres", &query)
}

#[track_caller]
fn wait_for_streams(server: &Cluster, name: &str, count: &str, limit: Duration, said: &Path) {
    let reached = wait_for(limit, || (streams(server, name) == count).then_some(()));
    let said = fs::read_to_string(said).unwrap_or_default();
    assert!(reached.is_some(), "{name}: {} streams, not {count}: {said}", streams(server, name));
}

fn refusal(proxy: &Proxy, parameters: &[(&str, &str)]) -> Transcript {
    match proxy.login(&Login { parameters, ..Login::default() }) {
        Err(said) => said,
        Ok(_) => panic!("{parameters:?} was admitted"),
    }
}

#[test]
fn replication_is_refused_unless_a_bind_rule_permits_it() {
    let Some(server) = server() else { return };
    let program = program::find("pg_receivewal");
    for residency in ["unbound = \"client\"", BOUND] {
        let proxy = start(&configuration(server, residency));
        for replication in ["database", "true", "ON", "1"] {
            let said = refusal(&proxy, &[("replication", replication)]);
            assert_eq!(said.sqlstate(), "0A000", "replication={replication}: {said}");
            let hint = said.error().map(|error| error.field('H').to_owned()).unwrap_or_default();
            assert!(hint.contains("replication = true"), "{hint}");
        }
        let said = refusal(&proxy, &[("replication", "perhaps")]);
        assert_eq!(said.sqlstate(), "22023", "{said}");
        // What PostgreSQL takes for "no" is a login like any other.
        for replication in ["false", "off", "no", "0"] {
            let login = Login { parameters: &[("replication", replication)], ..Login::default() };
            assert!(proxy.login(&login).is_ok(), "replication={replication}");
        }
        if let Some(program) = &program {
            let mut refused = client(&proxy, program, "refused");
            refused.args(["--no-loop", "--directory=/tmp"]);
            let output = program::run(refused, "", PATIENCE);
            let said = program::both(&output.expect("pg_receivewal"));
            assert!(said.contains("not permitted for this login") && said.contains("HINT"), "{said}");
        }
    }
}

#[test]
fn a_region_that_is_not_granted_is_refused_to_replication_too() {
    let Some(server) = server() else { return };
    let proxy = start(&configuration(server, PERMITTED));
    let count = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND application_name = 'asker'";
    let walsenders = || server.value("postgres", count);
    for replication in ["true", "database"] {
        let said = refusal(&proxy, &[("replication", replication), ("helios.region", "us-east")]);
        assert_eq!(said.sqlstate(), "42501", "{said}");
        let parameters = &[("replication", replication), ("helios.region", "eu-west"), ("application_name", "asker")];
        let login = Login { parameters, ..Login::default() };
        let mut client = proxy.login(&login).unwrap_or_else(|said| panic!("{said}"));
        let said = client.query("IDENTIFY_SYSTEM");
        assert!(said.error().is_none() && said.to_string().contains("C IDENTIFY_SYSTEM"), "{said}");
        // The region is not for a statement to change: the server has it as a setting of no consequence, or refuses to run SQL.
        client.query("SET helios.region = 'us-east'");
        let said = client.query("IDENTIFY_SYSTEM");
        assert!(said.error().is_none() && said.to_string().contains("C IDENTIFY_SYSTEM"), "{said}");
        // As PostgreSQL refuses it.
        let said = client.extended("SELECT 1");
        assert_eq!(said.sqlstate(), "08P01", "{said}");
        let said = client.ask(&domicile_tests::message::function_call(1598, &[]));
        assert_eq!(said.sqlstate(), "08P01", "{said}");
        assert!(client.query("IDENTIFY_SYSTEM").error().is_none());
        // A client that is gone leaves no server behind, not even an idle one.
        assert_eq!(walsenders(), "1");
        drop(client);
        assert!(wait_for(Duration::from_secs(1), || (walsenders() == "0").then_some(())).is_some(), "{}", walsenders());
    }
}

#[test]
fn a_base_backup_with_its_wal_makes_a_server() {
    let Some(server) = server() else { return };
    let Some(pg_basebackup) = available(program::need("pg_basebackup")) else { return };
    let proxy = start(&configuration(server, PERMITTED));
    let directory = Scratch::new().expect("a directory");
    let backup = directory.path().join("backup");
    let mut command = client(&proxy, &pg_basebackup, "backup");
    command.args(["--wal-method=stream", "--checkpoint=fast", "--pgdata"]).arg(&backup);
    let output = program::run(command, "", Duration::from_secs(120)).expect("pg_basebackup");
    assert!(output.status.success(), "{}\n{}", program::both(&output), tail(&proxy.log()));
    if let Some(verify) = program::find("pg_verifybackup") {
        let mut command = program::command(&verify);
        command.arg(&backup);
        let output = program::run(command, "", PATIENCE).expect("pg_verifybackup");
        assert!(output.status.success(), "{}", program::both(&output));
    }
    let options = Options { name: "copy", connections_max: 50, copy_of: Some(&backup), ..Options::default() };
    let copy = Cluster::start(&options).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(copy.value("demo", "SELECT text FROM public.notes WHERE text = 'before'"), "before");
}

#[test]
fn a_receiver_of_wal_gets_it_and_its_server_goes_with_it() {
    let Some(server) = server() else { return };
    let Some(pg_receivewal) = available(program::need("pg_receivewal")) else { return };
    let proxy = start(&configuration(server, PERMITTED));
    let directory = Scratch::new().expect("a directory");
    let said = directory.path().join("said");
    for stop in [Signal::INT, Signal::KILL] {
        let name = format!("receiver-{}", stop.as_raw());
        let wal = directory.path().join(&name);
        fs::create_dir(&wal).expect("a directory for WAL");
        let mut command = client(&proxy, &pg_receivewal, &name);
        command.args(["--synchronous", "--no-loop", "--status-interval=1", "--directory"]).arg(&wal);
        let mut receiver = receiver(command, &said);
        wait_for_streams(server, &name, "1", PATIENCE, &said);
        let whole_segment = || -> Option<PathBuf> {
            let mut files = fs::read_dir(&wal).ok()?.flatten().map(|entry| entry.path());
            files.find(|file| file.extension().is_none() && file.metadata().is_ok_and(|file| file.len() == 16 << 20))
        };
        server
            .execute("demo", "INSERT INTO public.notes VALUES ('streamed to a receiver of WAL'); SELECT pg_switch_wal()")
            .expect("a change");
        let segment =
            wait_for(PATIENCE, whole_segment).unwrap_or_else(|| panic!("{}", fs::read_to_string(&said).unwrap_or_default()));
        let bytes = fs::read(segment).expect("a segment");
        assert!(bytes.windows(29).any(|window| window == b"streamed to a receiver of WAL"));
        receiver.signal(stop);
        let ended = receiver.wait(PATIENCE).expect("pg_receivewal ends");
        // It ends in order: its CopyDone was answered.
        assert_eq!(ended.success(), stop == Signal::INT, "{}", fs::read_to_string(&said).unwrap_or_default());
        wait_for_streams(server, &name, "0", Duration::from_secs(1), &said);
    }
}

#[test]
fn a_receiver_of_changes_gets_them_until_its_region_is_withdrawn() {
    let Some(server) = server() else { return };
    let Some(pg_recvlogical) = available(program::need("pg_recvlogical")) else { return };
    let plugin = server.execute("demo", "SELECT pg_create_logical_replication_slot('probe', 'test_decoding', true)");
    let needs = |_| "the plugin test_decoding (Debian: in package postgresql)".to_owned();
    let Some(_) = available(plugin.map_err(needs)) else { return };
    let proxy = start(&configuration(server, PERMITTED));
    let directory = Scratch::new().expect("a directory");
    let (said, changes) = (directory.path().join("said"), directory.path().join("changes"));
    let slot = |name: &str| {
        let mut command = client(&proxy, &pg_recvlogical, name);
        command.arg("--dbname=demo").arg(format!("--slot={name}"));
        command
    };
    let run = |mut command: Command, argument: &str| {
        command.arg(argument);
        let output = program::run(command, "", PATIENCE).expect("pg_recvlogical");
        assert!(output.status.success(), "{}\n{}", program::both(&output), tail(&proxy.log()));
    };
    let mut create = slot("changes");
    create.arg("--plugin=test_decoding");
    run(create, "--create-slot");
    let receive = |text: &str| {
        let mut command = slot("changes");
        command.args(["--start", "--no-loop", "--status-interval=1", "--fsync-interval=1", "--file"]).arg(&changes);
        let receiver = receiver(command, &said);
        wait_for_streams(server, "changes", "1", PATIENCE, &said);
        server.execute("demo", &format!("INSERT INTO public.notes VALUES ('{text}')")).expect("a change");
        let seen = || fs::read_to_string(&changes).unwrap_or_default().contains(text).then_some(());
        assert!(wait_for(PATIENCE, seen).is_some(), "{}", fs::read_to_string(&said).unwrap_or_default());
        receiver
    };
    let mut receiver = receive("decoded");
    receiver.signal(Signal::INT);
    assert!(receiver.wait(PATIENCE).is_some_and(|status| status.success()), "{}", fs::read_to_string(&said).unwrap_or_default());
    wait_for_streams(server, "changes", "0", Duration::from_secs(1), &said);

    let mut receiver = receive("decoded again");
    proxy.configure(&configuration(server, BOUND)).expect("a configuration without replication");
    proxy.signal(Signal::HUP);
    assert!(wait_for(PATIENCE, || proxy.log().contains("has been reloaded").then_some(())).is_some(), "{}", tail(&proxy.log()));
    server.execute("demo", "INSERT INTO public.notes VALUES ('not for him')").expect("a change");
    assert!(receiver.wait(PATIENCE).is_some_and(|status| !status.success()));
    let told = fs::read_to_string(&said).unwrap_or_default();
    assert!(told.contains("not permitted for this login"), "{told}");
    assert!(!fs::read_to_string(&changes).unwrap_or_default().contains("not for him"));
    wait_for_streams(server, "changes", "0", Duration::from_secs(1), &said);
    server.value("demo", "SELECT pg_drop_replication_slot('changes')");
}
