//! What a session leaves behind, and that nobody finds it: each kind of state, in both modes, for each way to leave.
//!
//! Every kind has a user of its own, and so a pool of its own, of one connection: who comes next gets what the one before had.

use std::thread;
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::message as m;
use domicile_tests::process::wait_for;
use domicile_tests::proxy::{Configuration, Proxy};

use crate::world::{World, start, world};

/// A kind of state: what makes it, and a query that is `t` for the session that has it.
struct State {
    name: &'static str,
    make: &'static str,
    found: &'static str,
}

const fn state(name: &'static str, make: &'static str, found: &'static str) -> State {
    State { name, make, found }
}

/// The name of statements, cursors, tables and channels here; `KEY` in a text is a number of the user's own.
const STATES: &[State] = &[
    state("unreported setting", "SET work_mem = '77MB'", "SELECT pg_catalog.current_setting('work_mem') = '77MB'"),
    state("reported setting", "SET TimeZone = 'Asia/Tokyo'", "SELECT pg_catalog.current_setting('TimeZone') = 'Asia/Tokyo'"),
    state("role", "SET ROLE leaked", "SELECT current_user = 'leaked'"),
    state("session authorization", "SET SESSION AUTHORIZATION leaked", "SELECT session_user = 'leaked'"),
    state("temporary table", "CREATE TEMP TABLE leaked (a int)", "SELECT to_regclass('pg_temp.leaked') IS NOT NULL"),
    state("channel", "LISTEN leaked", "SELECT count(*) > 0 FROM pg_listening_channels()"),
    state(
        "advisory lock",
        "SELECT pg_advisory_lock(KEY)",
        "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = KEY",
    ),
    state(
        "cursor with hold",
        "DECLARE leaked CURSOR WITH HOLD FOR SELECT 1",
        "SELECT count(*) > 0 FROM pg_cursors WHERE name = 'leaked'",
    ),
    state(
        "SQL prepared statement",
        "PREPARE leaked AS SELECT 1",
        "SELECT count(*) > 0 FROM pg_prepared_statements WHERE name = 'leaked'",
    ),
    state("protocol's prepared statement", "", ""),
    state("set_config", "SELECT set_config('work_mem', '78MB', false)", "SELECT pg_catalog.current_setting('work_mem') = '78MB'"),
    state("value of a sequence", "SELECT nextval('public.leaks')", "SELECT currval('public.leaks') > 0"),
    state(
        "DO",
        "DO $$BEGIN PERFORM set_config('work_mem', '79MB', false); END$$",
        "SELECT pg_catalog.current_setting('work_mem') = '79MB'",
    ),
    state(
        "search path",
        "SET search_path = pg_catalog, leaked",
        "SELECT pg_catalog.current_setting('search_path') = 'pg_catalog, leaked'",
    ),
];

impl State {
    fn make(&self, client: &mut Client, key: usize) -> String {
        let said = match self.make {
            "" => client.ask(&[m::parse("leaked", "SELECT true"), m::sync()].concat()),
            text => client.query(&text.replace("KEY", &key.to_string())),
        };
        said.sqlstate()
    }

    /// Whether a session has it.
    ///
    /// # Panics
    /// If the session cannot tell.
    fn is_found(&self, client: &mut Client, key: usize) -> bool {
        let said = match self.found {
            "" => client.ask(&[m::bind("", "leaked", &[]), m::execute("", 0), m::sync()].concat()),
            text => client.query(&text.replace("KEY", &key.to_string())),
        };
        match (said.sqlstate().as_str(), said.value().as_deref()) {
            ("", Some("t")) => true,
            // "prepared statement does not exist", "currval is not yet defined in this session".
            ("", Some("f")) | ("26000" | "55000", _) => false,
            _ => panic!("{}: {said}", self.name),
        }
    }
}

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Terminate,
    Close,
    Reset,
    InTransaction,
    MidResult,
}

const LEAVES: [Leave; 5] = [Leave::Terminate, Leave::Close, Leave::Reset, Leave::InTransaction, Leave::MidResult];

impl Leave {
    fn carry_out(self, mut client: Client) {
        match self {
            Self::Terminate => client.send(&m::terminate()),
            Self::Close => {}
            Self::Reset => return client.reset(),
            Self::InTransaction => assert_eq!(client.query("BEGIN; SELECT 1").status(), 'T'),
            Self::MidResult => {
                client.send(&m::query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)"));
                client.until(|message| message.tag == b'D');
            }
        }
        drop(client);
    }
}

fn user(mode: &str, number: usize) -> String {
    format!("leak_{mode}_{number}")
}

fn login(proxy: &Proxy, user: &str) -> Client {
    let login = Login { user, password: "leak", ..Login::default() };
    proxy.login(&login).unwrap_or_else(|said| panic!("{user} is refused: {said}"))
}

/// A proxy with pools of one connection that users of the tests here log in through.
fn proxy(world: &World, mode: &'static str) -> Proxy {
    let users = (0..STATES.len()).map(|number| (user(mode, number), "leak".to_owned()));
    let roles: String = users.clone().map(|(user, _)| format!("CREATE ROLE {user} SUPERUSER LOGIN PASSWORD 'leak';")).collect();
    world.eu.execute("demo", &roles).unwrap_or_else(|error| panic!("{error}"));
    let configuration = world.residency("unbound = \"eu-west\"");
    let users = configuration.users.iter().cloned().chain(users).collect();
    start(&Configuration { pool_mode: mode, pools: "size = 1\n".to_owned(), users, ..configuration })
}

/// One state, left behind in every way, one after the other.
fn check(world: &World, proxy: &Proxy, state: &State, user: &str, key: usize) {
    for leave in LEAVES {
        let cell = format!("{}, {leave:?}, {user}", state.name);
        let mut first = login(proxy, user);
        assert!(!state.is_found(&mut first, key), "{cell}: there from the start");
        assert_eq!(state.make(&mut first, key), "", "{cell}: cannot be made");
        assert!(state.is_found(&mut first, key), "{cell}: not kept");
        leave.carry_out(first);
        let held = format!("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = {key}");
        let free = wait_for(LOCK_PATIENCE, || (world.eu.value("demo", &held) == "0").then_some(()));
        assert!(free.is_some(), "{cell}: the lock is still held");
        let mut second = login(proxy, user);
        assert!(!state.is_found(&mut second, key), "{cell}: the next client has it");
    }
}

/// A second is what is promised; a machine that is busy with other tests may be late to see it.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

fn check_all(world: &World, mode: &'static str, key: usize) {
    let proxy = proxy(world, mode);
    thread::scope(|scope| {
        for (number, state) in STATES.iter().enumerate() {
            let proxy = &proxy;
            let job = move || check(world, proxy, state, &user(mode, number), key + number);
            thread::Builder::new().name(state.name.to_owned()).spawn_scoped(scope, job).expect("a thread");
        }
    });
}

const ROLE: &str = "CREATE ROLE leaked; CREATE SEQUENCE public.leaks; GRANT ALL ON SEQUENCE public.leaks TO PUBLIC";

#[test]
fn no_state_of_a_session_is_left_for_the_next() {
    let Some(world) = world() else { return };
    world.eu.execute("demo", ROLE).unwrap_or_else(|error| panic!("{error}"));
    thread::scope(|scope| {
        scope.spawn(|| check_all(world, "session", 7_000));
        scope.spawn(|| check_all(world, "transaction", 8_000));
    });
}

const CLIENTS: usize = 16;
const RESULTS: usize = 150;

/// A statement whose rows all carry the client's tag, and how many there are: from one to more than a socket holds.
fn tagged(tag: usize, number: usize) -> (String, usize) {
    let rows = [1, 7, 60, 400][number % 4];
    (format!("SELECT 'tag {tag} {number}', repeat('x', 300) FROM generate_series(1, {rows})"), rows)
}

/// Asks for result after result; one of seven is cut off in the middle. Returns how many were whole.
fn ask_for_results(proxy: &Proxy, tag: usize) -> usize {
    let mut client = proxy.connect();
    let mut whole = 0;
    for number in 0..RESULTS {
        let (text, rows) = tagged(tag, number);
        let bytes = if number % 2 == 0 { m::query(&text) } else { [m::prepared("", &text), m::sync()].concat() };
        client.send(&bytes);
        let own = format!("tag {tag} {number}");
        if (number + tag) % 7 == 3 {
            let said = client.until(|message| message.tag == b'D');
            assert!(said.rows().iter().all(|row| row[0] == own), "client {tag}: {said}");
            if number % 2 == 0 {
                client.reset()
            } else {
                drop(client)
            }
            client = proxy.connect();
            continue;
        }
        let said = client.until_ready().replies();
        assert_eq!((said.status(), said.rows().len()), ('I', rows), "client {tag}: {said}");
        assert!(said.rows().iter().all(|row| row[0] == own), "client {tag}, not {own}: {said}");
        whole += 1;
    }
    whole
}

#[test]
fn answers_never_cross_though_others_are_cut_off() {
    let Some(world) = world() else { return };
    let pools = "size = 4\nwait_timeout = \"30s\"\n".to_owned();
    let proxy = start(&Configuration { pools, ..world.residency("unbound = \"eu-west\"") });
    let whole: usize = thread::scope(|scope| {
        let ask = |tag| {
            scope.spawn({
                let proxy = &proxy;
                move || ask_for_results(proxy, tag)
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(ask).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).sum()
    });
    assert!(whole >= 2_000, "only {whole} results");
}
