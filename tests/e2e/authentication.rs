//! Who a client is, and what of its connection proves it: Unix sockets, `pg_hba.conf`, user maps.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::process::{Scratch, wait_for};
use domicile_tests::proxy::{Configuration, Proxy};
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
