//! The residency matrix: every way to reach a server, in every state of a transaction, permitted and not.
//!
//! Judged by the servers' own logs, which hold every statement that reached them: not one of a blocked statement, and none of
//! one region's in another's. Each cell of the matrix has a marker that stands in all its statements, data and function names.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use domicile_tests::client::Client;
use domicile_tests::cluster::Cluster;
use domicile_tests::message as m;
use domicile_tests::proxy::Proxy;
use domicile_tests::transcript::{End, Transcript};

use crate::world::{World, start, world};

/// How a client reaches a server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Path {
    Query,
    Unnamed,
    Named,
    Pipeline,
    FunctionCall,
    CopyIn,
    CopyOut,
}

/// The transaction that it happens in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Idle,
    InTransaction,
    Failed,
}

/// The session's region.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Region {
    Permitted,
    Blocked,
    Unset,
    Changed,
}

const PATHS: [Path; 7] =
    [Path::Query, Path::Unnamed, Path::Named, Path::Pipeline, Path::FunctionCall, Path::CopyIn, Path::CopyOut];
const STATES: [State; 3] = [State::Idle, State::InTransaction, State::Failed];
const REGIONS: [Region; 4] = [Region::Permitted, Region::Blocked, Region::Unset, Region::Changed];

/// One cell of the matrix.
#[derive(Clone, Debug)]
struct Cell {
    mode: &'static str,
    path: Path,
    state: State,
    region: Region,
}

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    /// Answered by this node, and seen by no other.
    Served(&'static str),
    /// Refused with this SQLSTATE, and seen by nobody. The one exception: a transaction that failed on its own server may be
    /// told so by that server.
    Refused(&'static str),
}

impl Cell {
    fn all(mode: &'static str) -> Vec<Self> {
        let regions = |path, state| REGIONS.map(|region| Self { mode, path, state, region });
        PATHS.iter().flat_map(|path| STATES.iter().flat_map(move |state| regions(*path, *state))).collect()
    }

    fn marker(&self) -> String {
        format!("cell_{}_{:?}_{:?}_{:?}", self.mode, self.path, self.state, self.region).to_lowercase()
    }

    fn expected(&self) -> Expected {
        match (self.state, self.region) {
            (State::Failed, _) => Expected::Refused("25P02"),
            (_, Region::Blocked | Region::Unset) => Expected::Refused("42000"),
            (_, Region::Permitted) => Expected::Served("pg-eu-west"),
            (_, Region::Changed) => Expected::Served("pg-us-east"),
        }
    }

    fn status_after(&self) -> char {
        match (self.state, self.expected()) {
            (State::Idle, _) => 'I',
            (State::InTransaction, Expected::Served(_)) => 'T',
            (State::InTransaction, Expected::Refused(_)) | (State::Failed, _) => 'E',
        }
    }

    /// What the client sends first, and the transaction status it must be in then.
    fn preparation(&self) -> (&'static [&'static str], char) {
        match (self.state, self.region) {
            (State::Idle, Region::Permitted) => (&["SET helios.region = 'eu-west'"], 'I'),
            (State::Idle, Region::Blocked) => (&["SET helios.region = 'antarctica'"], 'I'),
            (State::Idle, Region::Unset) => (&[""], 'I'),
            (State::Idle, Region::Changed) => {
                (&["SET helios.region = 'eu-west'", "SELECT 1", "SET helios.region = 'us-east'"], 'I')
            }
            (State::InTransaction, Region::Permitted) => (&["SET helios.region = 'eu-west'", "BEGIN", "SELECT 1"], 'T'),
            (State::InTransaction, Region::Blocked) => (&["BEGIN", "SET LOCAL helios.region = 'antarctica'"], 'T'),
            (State::InTransaction, Region::Unset) => (&["BEGIN"], 'T'),
            (State::InTransaction, Region::Changed) => {
                (&["SET helios.region = 'eu-west'", "SELECT 1", "BEGIN", "SET LOCAL helios.region = 'us-east'"], 'T')
            }
            (State::Failed, Region::Permitted) => (&["SET helios.region = 'eu-west'", "BEGIN", "SELECT 1/0"], 'E'),
            (State::Failed, Region::Blocked) => (&["BEGIN", "SET LOCAL helios.region = 'antarctica'", "SELECT 1"], 'E'),
            (State::Failed, Region::Unset) => (&["BEGIN", "SELECT 1"], 'E'),
            (State::Failed, Region::Changed) => {
                (&["SET helios.region = 'eu-west'", "BEGIN", "SELECT 1", "SET helios.region = 'us-east'"], 'E')
            }
        }
    }

    /// What the client sends.
    fn bytes(&self, world: &World) -> Vec<u8> {
        let marker = self.marker();
        let select = format!("SELECT current_setting('cluster_node'), '{marker}'");
        match self.path {
            Path::Query => m::query(&select),
            Path::Unnamed => [m::prepared("", &select), m::sync()].concat(),
            Path::Named => [m::prepared("named", &select), m::sync()].concat(),
            Path::Pipeline => [m::prepared("", &select), m::prepared("", &select), m::sync()].concat(),
            Path::FunctionCall => {
                let server = if self.expected() == Expected::Served("pg-us-east") { &world.us } else { &world.eu };
                let number = server.value("demo", &format!("SELECT 'public.{marker}'::regproc::oid"));
                m::function_call(number.parse().unwrap_or_else(|_| panic!("function {marker}: {number}")), &[])
            }
            // A client that does not wait to be asked: where the COPY is refused, its data must go nowhere either.
            Path::CopyIn => {
                let copy = m::query(&format!("COPY public.copied FROM STDIN /* {marker} */"));
                [copy, m::copy_data(&format!("{marker}\n")), m::copy_done()].concat()
            }
            Path::CopyOut => m::query(&format!("COPY ({select}) TO STDOUT")),
        }
    }
}

/// Drives one cell on a connection of its own; what is wrong with it goes to `wrong`.
fn drive(cell: &Cell, world: &World, proxy: &Proxy, wrong: &mut String) {
    let mut client = proxy.connect();
    let mut complain = |what: &str, said: &Transcript| writeln!(wrong, "{}: {what}: {said}", cell.marker()).unwrap_or_default();

    let (preparation, status) = cell.preparation();
    let prepared = preparation.iter().map(|text| client.query(text)).last();
    if let Some(said) = prepared.filter(|said| said.status() != status) {
        complain(&format!("the preparation does not end in {status}"), &said);
    }

    let said = client.ask(&cell.bytes(world)).replies();
    match cell.expected() {
        Expected::Served(node) => {
            // COPY FROM answers nothing that could name its server: the rows are looked for at the end.
            if said.error().is_some() || (cell.path != Path::CopyIn && !said.to_string().contains(node)) {
                complain(&format!("not served by {node}"), &said);
            }
        }
        Expected::Refused(sqlstate) => {
            if said.sqlstate() != sqlstate || said.messages.len() != 2 {
                complain(&format!("not refused with {sqlstate} and nothing else"), &said);
            }
        }
    }
    if said.end != End::Reached || said.status() != cell.status_after() {
        complain(&format!("not in {} afterwards", cell.status_after()), &said);
    }
    check_alive(&mut client, said.status(), &mut complain);
}

/// Whatever happened, the session is alive, and the next permitted statement works.
fn check_alive(client: &mut Client, status: char, complain: &mut impl FnMut(&str, &Transcript)) {
    if status != 'I' {
        let ended = client.query(if status == 'T' { "COMMIT" } else { "ROLLBACK" });
        if ended.error().is_some() || ended.status() != 'I' {
            complain("the transaction does not end", &ended);
        }
    }
    client.query("SET helios.region = 'us-east'");
    let alive = client.query("SELECT current_setting('cluster_node')").replies();
    if alive.to_string() != "T current_setting / D pg-us-east / C SELECT 1 / Z I" {
        complain("the session is not alive", &alive);
    }
}

/// Compares what reached the servers with what should have.
fn check_servers(cells: &[Cell], world: &World, wrong: &mut String) {
    // A byte that should not have been sent may still be on its way.
    thread::sleep(Duration::from_millis(300));
    let reached = |server: &Cluster| {
        let rows = server.value("demo", "SELECT string_agg(marker, ' ') FROM public.copied");
        (server.log(), rows.split(' ').map(str::to_owned).collect::<Vec<_>>())
    };
    let servers = [("pg-eu-west", reached(&world.eu)), ("pg-us-east", reached(&world.us))];
    for cell in cells {
        let marker = cell.marker();
        for (node, (log, rows)) in &servers {
            let seen =
                log.lines().any(|line| line.contains(&marker) && !line.contains("CREATE FUNCTION") && !line.contains("regproc"));
            let stored = rows.contains(&marker);
            let served_here = cell.expected() == Expected::Served(node);
            // A SET of the region that comes too late fails the transaction on its server too, and the region stays what it was.
            let began_there = matches!(cell.region, Region::Permitted | Region::Changed);
            let failed_here = cell.state == State::Failed && began_there && *node == "pg-eu-west";
            if seen != served_here && !(seen && failed_here) {
                let what = if seen { "reached" } else { "did not reach" };
                writeln!(wrong, "{marker}: {what} {node}").unwrap_or_default();
            }
            if stored != (served_here && cell.path == Path::CopyIn) {
                writeln!(wrong, "{marker}: its rows on {node}: {stored}").unwrap_or_default();
            }
        }
    }
}

fn check_matrix(mode: &'static str) {
    let Some(world) = world() else { return };
    let cells = Cell::all(mode);
    for server in [&world.eu, &world.us] {
        let function = |cell: &Cell| {
            let name = cell.marker();
            format!("CREATE FUNCTION public.{name}() RETURNS text LANGUAGE sql AS 'SELECT current_setting(''cluster_node'')';")
        };
        let functions: String = cells.iter().filter(|cell| cell.path == Path::FunctionCall).map(function).collect();
        let table = "CREATE TABLE IF NOT EXISTS public.copied (marker text)";
        server.execute("demo", &format!("{functions}{table}")).expect("the tables of the matrix");
    }
    let mut configuration = world.configuration();
    configuration.pool_mode = mode;
    configuration.residency += "guards.function_calls = \"allow\"\n";
    let proxy = start(&configuration);
    let mut wrong = String::new();
    cells.iter().for_each(|cell| drive(cell, world, &proxy, &mut wrong));
    check_servers(&cells, world, &mut wrong);
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn the_matrix_in_session_mode() {
    check_matrix("session");
}

#[test]
fn the_matrix_in_transaction_mode() {
    check_matrix("transaction");
}
