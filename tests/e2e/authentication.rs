//! Who a client is, and what of its connection proves it: Unix sockets, `pg_hba.conf`, user maps.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::cluster::{Cluster, Options};
use domicile_tests::fake::{self, FakeServer};
use domicile_tests::process::{Scratch, free_port, wait_for};
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::transcript::Transcript;
use domicile_tests::{program, skip};
use rustix::process::Signal;

use crate::console::column;
use crate::world::{start, world};

const ALICE: Login<'_> = Login { user: "alice", password: "alice", database: "demo", parameters: &[] };
const PATIENCE: Duration = Duration::from_secs(10);

/// A directory for a Unix socket, and what the proxy makes in it when it listens there.
fn directory() -> (Scratch, PathBuf) {
    let directory = Scratch::new().expect("a directory");
    let path = directory.path().join(".s.PGSQL.6432");
    (directory, path)
}

/// The element of `listen` for the socket.
fn listening(directory: &Scratch) -> Vec<String> {
    vec![format!("{}:6432", directory.path().display())]
}

#[test]
fn clients_come_by_unix_sockets() {
    let Some(world) = world() else { return };
    let (directory, path) = directory();
    // Left behind by somebody who was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let top = "unix_socket_mode = \"0700\"".to_owned();
    let more = "[admin]\nusers = [\"postgres\"]\n".to_owned();
    let mut proxy = start(&Configuration { listen: listening(&directory), top, more, ..world.configuration() });
    let mode = std::fs::metadata(&path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let mut clients: Vec<Client> = (0..4)
        .map(|_| {
            let login = Login { parameters: &[("helios.region", "eu-west")], ..ALICE };
            Client::login_unix(&path, &login).unwrap_or_else(|said| panic!("{said}"))
        })
        .collect();
    for client in &mut clients {
        let said = client.query("SELECT current_setting('cluster_node')").replies().to_string();
        assert_eq!(said, "T current_setting / D pg-eu-west / C SELECT 1 / Z I");
    }
    let wrong = Client::login_unix(&path, &Login { password: "wrong", ..ALICE }).err().map(|said| said.sqlstate());
    assert_eq!(wrong.as_deref(), Some("28P01"));
    // They are dealt out: neither worker has all of them.
    assert_eq!(workers(&proxy), ["0", "0", "1", "1"]);
    drop(clients);
    proxy.signal(Signal::TERM);
    assert!(proxy.wait(PATIENCE).is_some_and(|status| status.success()));
    assert!(!path.exists(), "the socket's file is left behind");
}

/// The worker of each of alice's clients, sorted.
fn workers(proxy: &Proxy) -> Vec<String> {
    let login = Login { user: "postgres", password: "postgres", database: "domicile", parameters: &[] };
    let said = proxy.login(&login).expect("the console").query("SHOW CLIENTS");
    let mut workers = column(&said, "worker", &[("user", "alice")]);
    workers.sort();
    workers
}

#[test]
fn psql_comes_by_a_unix_socket() {
    let Some(world) = world() else { return };
    let Some(psql) = skip::available(program::need("psql")) else { return };
    let (directory, _) = directory();
    let _proxy = start(&Configuration { listen: listening(&directory), ..world.configuration() });
    let said = ask(&psql, directory.path(), "alice", "SELECT current_user");
    assert_eq!(said, "alice");
}

/// What psql says, or is told, over the socket in `directory`.
fn ask(psql: &Path, directory: &Path, user: &str, query: &str) -> String {
    let mut command = program::command(psql);
    command.env("PGPASSWORD", user).env("PGOPTIONS", "-c helios.region=eu-west");
    command.args(["-h", &directory.display().to_string(), "-p", "6432", "-U", user, "-d", "demo", "-Atc", query]);
    let output = program::run(command, "", PATIENCE).expect("psql runs");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).trim_end().to_owned()
}

#[test]
fn a_socket_at_which_somebody_listens_is_left_alone() {
    let Some(world) = world() else { return };
    let (directory, path) = directory();
    let _proxy = start(&Configuration { listen: listening(&directory), ..world.configuration() });
    let second = Proxy::start(&Configuration { listen: listening(&directory), ..world.configuration() });
    let why = second.err().expect("the second is refused");
    assert!(why.contains(&format!("{}: address already in use", path.display())), "{why}");
    assert!(wait_for(PATIENCE, || Client::login_unix(&path, &ALICE).ok()).is_some(), "the first goes on");
}

/// Rules that PostgreSQL and the proxy are given alike. Whoever runs this is called `USER` by the system.
const HBA: &str = "# TYPE DATABASE USER ADDRESS METHOD\n\
    local sameuser all peer map=staff\n\
    local demo bob trust\n\
    local demo,postgres alice,\"carol d\" peer\\\n map=staff\n\
    local demo postgres reject\n\
    host demo \"all\" 127.0.0.1/32 trust\n\
    host demo bob 127.0.0.1/32 reject\n\
    host sameuser alice 127.0.0.1 255.255.255.255 trust\n\
    host demo @listed 127.0.0.0/8 scram-sha-256\n\
    host demo bob all trust\n\
    hostssl all bob all trust\n\
    host postgres postgres,bob 127.0.0.1/32 md5\n\
    host replication bob 127.0.0.1/32 trust\n";
const IDENT: &str =
    "# MAP NAME USER\nstaff nobody_at_all bob\nstaff USER alice\nstaff /^(USER)$ \\1x\nstaff /^USER$ \"carol d\"\n";

#[test]
fn rules_decide_as_they_do_in_postgresql() {
    let (Some(_), Some(_)) = (skip::available(program::need("initdb")), skip::available(skip::io_uring())) else { return };
    let options = Options { name: "pg-hba", connections_max: 20, ..Options::default() };
    let cluster = Cluster::start(&options).unwrap_or_else(|error| panic!("{error}"));
    for sql in ["CREATE DATABASE demo", "CREATE DATABASE alice", "CREATE ROLE alice LOGIN PASSWORD 'alice'"] {
        cluster.execute("postgres", sql).expect(sql);
    }
    let roles = "CREATE ROLE bob LOGIN REPLICATION PASSWORD 'bob'; CREATE ROLE \"carol d\" LOGIN";
    cluster.execute("postgres", roles).expect("roles");
    let (directory, socket) = directory();
    let me = String::from_utf8(std::process::Command::new("id").arg("-un").output().expect("id").stdout).expect("a name");
    let ident = IDENT.replace("USER", me.trim());
    for place in [directory.path().to_owned(), cluster.data_directory()] {
        std::fs::write(place.join("listed"), "alice postgres\n").expect("a list");
    }
    let files = [("hba.conf", HBA), ("ident.conf", &ident)].map(|(name, text)| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).expect("a file");
        file.display().to_string()
    });
    cluster.set_rules(HBA, &ident).expect("rules");
    // A server that is not there has no rules of its own.
    let mut configuration = Configuration::new(&[("eu-west", "pg-eu-west", ([127, 0, 0, 1], free_port()).into())]);
    let secret = |user| cluster.value("postgres", &format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'"));
    configuration.users = ["postgres", "alice", "bob"].map(|user| (user.to_owned(), secret(user))).into();
    configuration.listen = listening(&directory);
    configuration.method = "";
    configuration.auth = format!("hba_file = {:?}\nident_file = {:?}\n", files[0], files[1]);
    configuration.more = "[[residency.bind]]\nregions = [\"eu-west\"]\nreplication = true\n".to_owned();
    let proxy = start(&configuration);
    let theirs = cluster.socket_directory().join(format!(".s.PGSQL.{}", cluster.address().port()));
    // Up to AuthenticationOk: what is said behind it, rules do not decide.
    let outcome = |said: Result<Client, Transcript>| {
        let said = said.map_or_else(|said| said.to_string(), |client| client.greeting.to_string());
        said.split_once("R 0 /").map_or(said.clone(), |(before, _)| format!("{before}admitted"))
    };
    let mut outcomes = std::collections::BTreeSet::new();
    for user in ["postgres", "alice", "bob", "carol d", "all", "nobody"] {
        for database in ["demo", "alice", "postgres"] {
            for password in ["alice", "postgres", "bob"] {
                for parameters in [&[][..], &[("replication", "true")], &[("replication", "database")]] {
                    let login = Login { user, password, database, parameters };
                    // The proxy knows no roles: PostgreSQL refuses them, and that they may not replicate, behind the rules.
                    let known_to_postgresql = matches!(user, "postgres" | "alice" | "bob" | "carol d");
                    let may_replicate = parameters.is_empty() || matches!(user, "postgres" | "bob");
                    if !known_to_postgresql || !may_replicate {
                        continue;
                    }
                    let by_tcp = [proxy.address(), cluster.address()].map(|address| outcome(Client::login(address, &login)));
                    assert_eq!(by_tcp[0], by_tcp[1], "{login:?} by TCP");
                    let by_socket = [&socket, &theirs].map(|path| outcome(Client::login_unix(path, &login)));
                    assert_eq!(by_socket[0], by_socket[1], "{login:?} by socket");
                    outcomes.extend(by_tcp.into_iter().chain(by_socket));
                }
            }
        }
    }
    // That both always say the same would prove little if they always said no.
    let said = |part: &str| outcomes.iter().any(|outcome| outcome.contains(part));
    for part in ["admitted", "28P01", "no pg_hba.conf entry for host \"[local]\"", "rejects", "Peer authentication failed"] {
        assert!(said(part), "{part}: {outcomes:?}");
    }
    assert!(said("no pg_hba.conf entry for replication connection"), "{outcomes:?}");
}

#[test]
fn rules_are_replaced_whole_or_not_at_all() {
    let Some(world) = world() else { return };
    let (directory, _) = directory();
    let file = directory.path().join("hba.conf");
    let write = |text: &str| std::fs::write(&file, text).expect("a file");
    write("host demo alice all scram-sha-256\n");
    let auth = format!("hba_file = {:?}\n", file.display());
    let proxy = start(&Configuration { method: "", auth, ..world.configuration() });
    let said = |user: &'static str| match proxy.login(&Login { user, password: user, ..ALICE }) {
        Ok(_) => "admitted".to_owned(),
        Err(said) => said.to_string(),
    };
    let no_entry =
        "E FATAL 28000 no pg_hba.conf entry for host \"127.0.0.1\", user \"bench\", database \"demo\", no encryption / closed";
    assert_eq!((said("alice").as_str(), said("bench").as_str()), ("admitted", no_entry));
    assert!(proxy.log().contains("login refused"), "{}", proxy.log());

    write("host demo bench all trust\nhost demo all all nonsense\n");
    proxy.signal(Signal::HUP);
    let told = wait_for(PATIENCE, || proxy.log().contains("hba.conf:2: a method is one of").then_some(()));
    assert!(told.is_some(), "{}", proxy.log());
    assert_eq!((said("alice").as_str(), said("bench").as_str()), ("admitted", no_entry));

    write("host demo bench all trust\n");
    proxy.signal(Signal::HUP);
    assert!(wait_for(PATIENCE, || (said("bench") == "admitted").then_some(())).is_some(), "{}", proxy.log());
    assert_eq!(said("alice"), no_entry.replace("bench", "alice"));
}

#[test]
fn psql_is_the_user_that_the_system_says() {
    let Some(world) = world() else { return };
    let Some(psql) = skip::available(program::need("psql")) else { return };
    let (directory, _) = directory();
    let me = String::from_utf8(std::process::Command::new("id").arg("-un").output().expect("id").stdout).expect("a name");
    let files = [("hba.conf", "local all all peer map=m\n".to_owned()), ("ident.conf", format!("m {} alice\n", me.trim()))];
    let [hba, ident] = files.map(|(name, text)| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).expect("a file");
        file.display().to_string()
    });
    let auth = format!("hba_file = {hba:?}\nident_file = {ident:?}\n");
    let _proxy = start(&Configuration { listen: listening(&directory), method: "", auth, ..world.configuration() });
    assert_eq!(ask(&psql, directory.path(), "alice", "SELECT current_user"), "alice");
    let refused = ask(&psql, directory.path(), "postgres", "SELECT current_user");
    assert!(refused.ends_with("FATAL:  Peer authentication failed for user \"postgres\""), "{refused}");
}

/// PgBouncer's CVE-2025-2291: it took the password from the server and not for how long it is good. The same with a password of the
/// users file; with one that is looked up see `passwords`.
#[test]
fn cve_2025_2291_a_password_that_the_server_finds_too_old_opens_nothing() {
    let Some(world) = world() else { return };
    let role = "CREATE ROLE of_yesterday LOGIN PASSWORD 'of_yesterday' VALID UNTIL 'yesterday'";
    world.eu.execute("demo", role).unwrap_or_else(|error| panic!("{error}"));
    let mut configuration = world.residency("unbound = \"eu-west\"");
    configuration.users.push(("of_yesterday".to_owned(), "of_yesterday".to_owned()));
    let login = Login { user: "of_yesterday", password: "of_yesterday", ..ALICE };
    for pool_mode in ["transaction", "session"] {
        let proxy = start(&Configuration { pool_mode, ..configuration.clone() });
        let said = proxy.login(&login).map_or_else(|said| said, |mut client| client.query("SELECT 1"));
        assert!(said.to_string().ends_with("password authentication failed for user \"of_yesterday\" / closed"), "{said}");
        assert_eq!(said.sqlstate(), "28P01");
    }
}

#[test]
fn a_server_that_asks_for_a_weaker_proof_gets_none() {
    if skip::available(skip::io_uring()).is_none() {
        return;
    }
    let requests = [
        ("lets in without a proof", fake::authentication(0, b"")),
        ("asks for the password in clear text", fake::authentication(3, b"")),
        ("asks for an MD5 password", fake::authentication(5, b"salt")),
    ];
    for (what, request) in requests {
        // Everything that comes behind the StartupMessage.
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let server = FakeServer::start(move |with| {
            with.begin()?;
            with.send(&request)?;
            while let Ok((tag, _)) = with.message() {
                hears.lock().expect("a list").push(char::from(tag));
            }
            Ok(())
        });
        let server = server.expect("a server");
        let mut configuration = Configuration::new(&[("eu-west", "pg-taken-over", server.address())]);
        configuration.auth = "backend_cleartext = true\n".to_owned();
        configuration.more = "require_auth = [\"scram-sha-256\"]\n".to_owned();
        let proxy = start(&configuration);
        let login = Login { parameters: &[("helios.region", "eu-west")], ..Login::default() };
        let mut client = proxy.login(&login).unwrap_or_else(|said| panic!("{said}"));
        let said = client.query("SELECT 1").to_string();
        let expected = format!("it {what}, and require_auth of the node allows only scram-sha-256");
        assert!(said.starts_with("E 08006") && said.contains("pg-taken-over") && said.contains(&expected), "{said}");
        assert!(wait_for(PATIENCE, || (server.open() == 0).then_some(())).is_some(), "the connection is left open");
        assert_eq!(*heard.lock().expect("a list"), [], "{what}");
    }
    let Some(world) = world() else { return };
    let configuration = world.configuration();
    let more = "require_auth = [\"scram-sha-256\"]\n".to_owned();
    let proxy = start(&Configuration { more, ..configuration });
    let login = Login { parameters: &[("helios.region", "us-east")], ..ALICE };
    let mut client = proxy.login(&login).unwrap_or_else(|said| panic!("{said}"));
    assert_eq!(client.query("SELECT 1").value().as_deref(), Some("1"));
}
