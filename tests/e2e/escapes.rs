//! The corpus of residency escapes: statements that try to leave their region, or to have a server do so, and what only looks like it.
//!
//! Each is sent in four ways, in and out of a transaction, in both pool modes, and judged by the logs of the servers of both regions:
//! what a guard denies, or what is refused, reaches neither; what is for one region never reaches the other; and what is harmless is
//! answered as PostgreSQL answers it, which is asked as well. Whatever happened, the session is alive and says the true status.

mod corpus;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::cluster::Cluster;
use domicile_tests::message as m;
use domicile_tests::program;
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::transcript::{End, Transcript};

use self::corpus::{ESCAPING, GUARDED, HARMLESS, REFUSED, REGION};
use crate::world::{World, start, world};

/// How a statement is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Simple,
    Extended,
    Pipeline,
    Prepared,
}

const WAYS: [Way; 4] = [Way::Simple, Way::Extended, Way::Pipeline, Way::Prepared];

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    /// Denied by this guard.
    Guarded(&'static str),
    /// Refused with this SQLSTATE.
    Refused(&'static str),
    /// Answered as PostgreSQL does, by the server of the session's region or by none.
    Harmless,
    /// What follows is served in us-east.
    Region,
}

/// One statement of the corpus.
#[derive(Clone, Copy, Debug)]
struct Entry {
    text: &'static str,
    expected: Expected,
    /// A backslash begins an escape.
    escaping: bool,
}

fn entries() -> Vec<Entry> {
    let entry = |text, expected| Entry { text, expected, escaping: false };
    let guarded = GUARDED.iter().flat_map(|(guard, texts)| texts.iter().map(|text| entry(*text, Expected::Guarded(guard))));
    let refused = REFUSED.iter().flat_map(|(sqlstate, texts)| texts.iter().map(|text| entry(*text, Expected::Refused(sqlstate))));
    let harmless = HARMLESS.iter().map(|text| entry(*text, Expected::Harmless));
    let region = REGION.iter().map(|text| entry(*text, Expected::Region));
    let escaping = ESCAPING.iter().map(|(guard, text)| {
        let expected = if guard.is_empty() { Expected::Harmless } else { Expected::Guarded(guard) };
        Entry { escaping: true, ..entry(*text, expected) }
    });
    guarded.chain(refused).chain(harmless).chain(region).chain(escaping).collect()
}

impl Entry {
    /// Whether it is more than one statement, which the extended protocol does not take.
    fn is_many(&self) -> bool {
        let text = self.text.trim_matches([';', ' ']);
        let parts = ["; SELECT", "; SET ", "; COPY"];
        !text.contains("BEGIN") && !matches!(self.expected, Expected::Harmless) && parts.iter().any(|part| text.contains(part))
    }

    fn expected(&self, way: Way) -> Expected {
        match self.expected {
            Expected::Guarded(_) | Expected::Refused("22023") if way != Way::Simple && self.is_many() => {
                Expected::Refused("42601")
            }
            expected => expected,
        }
    }
}

/// A session, and how its cells are told apart in the logs.
struct Cell<'a> {
    entry: &'a Entry,
    way: Way,
    within: bool,
    marker: String,
}

impl Cell<'_> {
    /// Brings a session to where the statement is sent.
    fn prepare(&self, client: &mut Client) -> Transcript {
        client.query("DISCARD ALL");
        let mut said = client.query("SET helios.region = 'eu-west'");
        if self.entry.escaping {
            said = client.query("SET standard_conforming_strings = off; SET escape_string_warning = off");
        }
        if self.within {
            said = client.query("BEGIN");
            if self.entry.expected != Expected::Region {
                said = client.query("SELECT 1");
            }
        }
        said
    }

    fn send(&self, client: &mut Client, marker: &str) -> Transcript {
        self.send_text(client, &format!("{}\n/*{marker}*/", self.entry.text))
    }

    fn send_text(&self, client: &mut Client, text: &str) -> Transcript {
        match self.way {
            Way::Simple => client.query(text),
            Way::Extended => client.extended(text),
            Way::Pipeline => {
                let (before, after) = (m::prepared("", "SELECT 'before'"), m::prepared("", "SELECT 'after'"));
                client.ask(&[before, m::prepared("", text), after, m::sync()].concat())
            }
            Way::Prepared => {
                let mut said = client.ask(&[m::parse("p", text), m::describe_statement("p"), m::sync()].concat());
                let run = client.ask(&[m::bind("", "p", &[]), m::execute("", 0), m::sync()].concat());
                said.messages.extend(run.messages);
                said.end = run.end;
                said
            }
        }
    }

    /// What is wrong with what was said, if anything.
    fn judge(&self, said: &Transcript, reference: Option<&Transcript>) -> Option<String> {
        if said.end != End::Reached {
            return Some("the session has ended".to_owned());
        }
        let status = if self.within { 'E' } else { 'I' };
        // Within a pipeline it is not known how the server will read a backslash (README.md, "Limits").
        let depends = said.error().is_some_and(|error| error.message().contains("depends on standard_conforming_strings"));
        if depends && self.way == Way::Pipeline && (self.entry.text.contains('\\') || self.entry.text.contains("U&'")) {
            return (said.status() != status).then(|| format!("not refused with status {status}"));
        }
        let refused = |sqlstate: &str, text: &str| {
            let error = said.error();
            let is_it = error.as_ref().is_some_and(|error| error.sqlstate() == sqlstate && error.message().contains(text));
            (!is_it || said.status() != status).then(|| format!("not refused with {sqlstate} {text} and status {status}"))
        };
        match self.entry.expected(self.way) {
            Expected::Guarded(guard) => refused("42501", &format!("(guards.{guard})")),
            Expected::Refused(sqlstate) => refused(sqlstate, ""),
            Expected::Harmless => {
                let plain = |said: &Transcript| said.replies().to_string().replace(&self.marker, "").replace(REFERENCE, "");
                let expected = reference.map(plain).unwrap_or_default();
                (plain(said) != expected).then(|| format!("PostgreSQL says {expected}"))
            }
            Expected::Region => None,
        }
    }
}

/// The marker of what is asked of the server itself.
const REFERENCE: &str = "reference";

/// Drives one statement in one way; what is wrong goes to `wrong`.
fn drive(cell: &Cell<'_>, client: &mut Client, direct: &mut Client, wrong: &mut String) {
    let mut complain = |what: &str, said: &Transcript| {
        let Cell { entry, way, within, marker } = cell;
        writeln!(wrong, "{marker} {way:?}, within {within}, {:?}: {what}\n    {said}", entry.text).unwrap_or_default();
    };
    let prepared = cell.prepare(client);
    if prepared.error().is_some() {
        complain("the preparation fails", &prepared);
    }
    if cell.entry.expected(cell.way) == Expected::Region {
        return drive_region(cell, client, &mut complain);
    }
    let reference = (cell.entry.expected == Expected::Harmless).then(|| {
        cell.prepare(direct);
        let said = cell.send(direct, REFERENCE);
        direct.query("ROLLBACK");
        said
    });
    let said = cell.send(client, &cell.marker);
    if let Some(what) = cell.judge(&said, reference.as_ref()) {
        complain(&what, &said);
    }
    let ended = client.query("ROLLBACK");
    if ended.error().is_some() || ended.status() != 'I' {
        complain("the transaction does not end", &ended);
    }
    let alive = client.query("SET helios.region = 'eu-west'; SELECT 'alive'");
    if alive.value().as_deref() != Some("alive") {
        complain("the session is not alive", &alive);
    }
}

/// A SET of the region, and a statement behind it, which must be served there.
fn drive_region(cell: &Cell<'_>, client: &mut Client, complain: &mut dyn FnMut(&str, &Transcript)) {
    let follows = format!("SELECT current_setting('cluster_node')\n/*{}*/", cell.marker);
    let served = if cell.way == Way::Pipeline {
        client.ask(&[m::prepared("", cell.entry.text), m::prepared("", &follows), m::sync()].concat())
    } else {
        let said = cell.send_text(client, cell.entry.text);
        if said.error().is_some() {
            complain("the region cannot be set", &said);
        }
        // Under another name than the SET.
        if cell.way == Way::Simple { client.query(&follows) } else { client.extended(&follows) }
    };
    if served.error().is_some() || !served.to_string().contains("D pg-us-east") {
        complain("not served by pg-us-east", &served);
    }
    let ended = client.query(if cell.within { "COMMIT" } else { "SELECT 1" });
    let shown = client.query("SHOW helios.region");
    if ended.error().is_some() || shown.value().as_deref() != Some("us-east") {
        complain("the region is not us-east", &shown);
    }
}

/// The markers of what has reached a server.
fn reached(server: &Cluster) -> HashSet<String> {
    let log = server.log();
    let markers = log.match_indices("/*cell").filter_map(|(at, _)| log.get(at + 2..)?.split_once("*/"));
    markers.map(|(marker, _)| marker.to_owned()).collect()
}

fn check_corpus(world: &World, proxy: &Proxy, mode: &str) {
    let entries = entries();
    assert!(entries.len() >= 200, "{} statements", entries.len());
    let mut wrong = String::new();
    let mut cells = Vec::new();
    for way in WAYS {
        for within in [false, true] {
            let mut client = proxy.connect();
            let mut direct = Client::login(world.eu.address(), &Login::default()).unwrap_or_else(|said| panic!("{said}"));
            for (number, entry) in entries.iter().enumerate() {
                if entry.expected == Expected::Region && way != Way::Simple && entry.is_many() {
                    continue;
                }
                let marker = format!("cell{mode}{number}{}{within}", WAYS.iter().position(|one| *one == way).unwrap_or(0));
                let cell = Cell { entry, way, within, marker };
                drive(&cell, &mut client, &mut direct, &mut wrong);
                cells.push(cell);
            }
        }
    }
    // A byte that should not have been sent may still be on its way.
    thread::sleep(Duration::from_millis(300));
    let (eu, us) = (reached(&world.eu), reached(&world.us));
    for cell in &cells {
        let (to_eu, to_us) = (eu.contains(&cell.marker), us.contains(&cell.marker));
        let right = match cell.entry.expected {
            Expected::Guarded(_) | Expected::Refused(_) => !to_eu && !to_us,
            // The proxy answers some of these.
            Expected::Harmless => !to_us,
            Expected::Region => to_us && !to_eu,
        };
        if !right {
            let (marker, text) = (&cell.marker, cell.entry.text);
            writeln!(wrong, "{marker} {text:?}: reached eu-west: {to_eu}, us-east: {to_us}").unwrap_or_default();
        }
    }
    let served = cells.iter().filter(|cell| cell.entry.expected == Expected::Harmless && eu.contains(&cell.marker)).count();
    assert!(served > 200, "only {served} of the harmless statements have reached their server");
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn nothing_of_the_corpus_escapes() {
    let Some(world) = world() else { return };
    for server in [&world.eu, &world.us] {
        server.execute("demo", TABLES).unwrap();
    }
    for mode in ["session", "transaction"] {
        let proxy = start(&Configuration { pool_mode: mode, ..world.configuration() });
        check_corpus(world, &proxy, mode);
    }
    for server in [&world.eu, &world.us] {
        server.execute("demo", "DROP SCHEMA escapes CASCADE").unwrap();
    }
}

const TABLES: &str = "CREATE SCHEMA escapes; CREATE TABLE escapes.t (a text);
    CREATE TABLE escapes.dblink (dblink text, pg_read_file text, server text);
    INSERT INTO escapes.dblink VALUES ('x', NULL, 'y')";

/// Encodings whose characters contain ASCII bytes, in a StartupMessage.
const ENCODINGS: [(&str, &str); 12] = [
    ("client_encoding", "SJIS"),
    ("Client_Encoding", "Shift-JIS"),
    ("client_encoding", "'shift_jis_2004'"),
    ("client_encoding", "MS Kanji"),
    ("client_encoding", "windows-949"),
    ("options", "-c client_encoding=SJIS"),
    ("options", "-cclient_encoding=johab"),
    ("options", "--client_encoding=big5"),
    ("options", "--client-encoding=GBK"),
    ("options", "-c client\\_encoding=UHC"),
    ("options", "-c application_name=a -c CLIENT_ENCODING=gb18030"),
    ("options", "-c client_encoding=UTF8 -c client_encoding=WIN\\ 950"),
];

#[test]
fn encodings_under_which_texts_read_differently_are_refused_at_login() {
    let Some(world) = world() else { return };
    let proxy = start(&world.configuration());
    for parameter in ENCODINGS {
        let said = proxy.login(&Login { parameters: &[parameter, ("helios.region", "eu-west")], ..Login::default() });
        let sqlstate = said.err().map(|said| said.sqlstate()).unwrap_or_default();
        assert_eq!(sqlstate, "22023", "{parameter:?}");
    }
    if let Some(psql) = program::find("psql") {
        let mut command = program::command(&psql);
        command.env("PGCLIENTENCODING", "SJIS").env("PGPASSWORD", "postgres");
        command.args(["--host=127.0.0.1", "--username=postgres", "--command=SELECT 1", "demo"]);
        command.arg(format!("--port={}", proxy.address().port()));
        let output = program::run(command, "", Duration::from_secs(20)).unwrap();
        let said = program::both(&output);
        assert!(!output.status.success() && said.contains("invalid value for parameter \"client_encoding\""), "{said}");
    }
}

#[test]
fn encodings_that_a_server_gives_to_a_role_or_a_database_are_refused() {
    let Some(world) = world() else { return };
    for text in [
        "CREATE ROLE sjis LOGIN PASSWORD 'sjis'; ALTER ROLE sjis SET client_encoding = 'SJIS'",
        "CREATE DATABASE big5",
        "ALTER DATABASE big5 SET client_encoding = 'BIG5'",
    ] {
        world.eu.execute("demo", text).unwrap();
    }
    for pool_mode in ["session", "transaction"] {
        let mut configuration = Configuration { pool_mode, ..world.configuration() };
        configuration.users.push(("sjis".to_owned(), "sjis".to_owned()));
        let proxy = start(&configuration);
        for (user, database) in [("sjis", "demo"), ("postgres", "big5")] {
            let region = ("helios.region", "eu-west");
            let login = Login { user, password: user, database, parameters: &[region] };
            let marker = format!("cell{pool_mode}{user}");
            let said = match proxy.login(&login) {
                Ok(mut client) => client.query(&format!("SELECT 1 /*{marker}*/")),
                Err(said) => said,
            };
            assert_eq!(said.sqlstate(), "08006", "{pool_mode} {user} {database}: {said}");
            assert!(!world.eu.log().contains(&marker));
            // Who asks for another one gets that.
            let login = Login { parameters: &[region, ("client_encoding", "UTF8")], ..login };
            let mut client = proxy.login(&login).map_err(|said| said.to_string()).unwrap();
            assert_eq!(client.query("SELECT 1").value().as_deref(), Some("1"));
            // One that a function sets unseen is reported, and ends the session.
            let said = client.query("DO $$BEGIN PERFORM set_config('client_encoding', 'SJIS', false); END$$");
            assert!(said.end != End::Reached || said.error().is_some(), "{said}");
            let after = client.query(&format!("SELECT '\u{e9}' /*{marker}after*/"));
            assert!(after.end != End::Reached, "{after}");
            assert!(!world.eu.log().contains(&format!("{marker}after")));
        }
    }
    world.eu.execute("demo", "DROP ROLE sjis").unwrap();
}
