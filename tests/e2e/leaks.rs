//! What a session leaves in its server, however it ends: the next session on that server sees none of it.

use std::thread;
use std::time::Duration;

use domicile_tests::client::Client;
use domicile_tests::message as m;
use domicile_tests::process::wait_for;
use domicile_tests::proxy::{Configuration, Proxy};

use crate::world::{World, start, world};

/// Something that PostgreSQL keeps for a session: how it is made, and what shows that it is gone.
struct State {
    name: &'static str,
    made_by: &'static [&'static str],
    asked: &'static str,
    gone: &'static str,
}

const STATES: &[State] = &[
    State { name: "SET", made_by: &["SET work_mem = '77MB'"], asked: "SHOW work_mem", gone: "4MB" },
    State {
        name: "SET of a reported setting",
        made_by: &["SET IntervalStyle = 'iso_8601'"],
        asked: "SHOW IntervalStyle",
        gone: "postgres",
    },
    State {
        name: "search_path",
        made_by: &["SET search_path = pg_catalog"],
        asked: "SHOW search_path",
        gone: "demo, pg_catalog, public",
    },
    State {
        name: "set_config",
        made_by: &["SELECT set_config('leaks.x', 'left', false)"],
        asked: "SELECT coalesce(current_setting('leaks.x', true), '')",
        gone: "",
    },
    State {
        name: "DO",
        made_by: &["DO $$ BEGIN PERFORM set_config('work_mem', '66MB', false); END $$"],
        asked: "SHOW work_mem",
        gone: "4MB",
    },
    State { name: "SET ROLE", made_by: &["SET ROLE pg_monitor"], asked: "SELECT current_user", gone: "postgres" },
    State {
        name: "SET SESSION AUTHORIZATION",
        made_by: &["SET SESSION AUTHORIZATION alice"],
        asked: "SELECT session_user",
        gone: "postgres",
    },
    State {
        name: "temporary table",
        made_by: &["CREATE TEMPORARY TABLE left_behind (a int)"],
        asked: "SELECT coalesce(to_regclass('pg_temp.left_behind')::text, 'none')",
        gone: "none",
    },
    State { name: "LISTEN", made_by: &["LISTEN left_behind"], asked: "SELECT count(*) FROM pg_listening_channels()", gone: "0" },
    State {
        name: "advisory lock",
        made_by: &["SELECT pg_advisory_lock(47110815)"],
        asked: "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 47110815",
        gone: "0",
    },
    State {
        name: "cursor WITH HOLD",
        made_by: &["DECLARE left_behind CURSOR WITH HOLD FOR SELECT generate_series(1, 3)"],
        asked: "SELECT count(*) FROM pg_cursors",
        gone: "0",
    },
    State {
        name: "PREPARE",
        made_by: &["PREPARE left_behind AS SELECT 1"],
        asked: "SELECT count(*) FROM pg_prepared_statements WHERE name = 'left_behind'",
        gone: "0",
    },
    State {
        name: "currval",
        made_by: &["CREATE SEQUENCE IF NOT EXISTS leaks", "SELECT nextval('leaks')"],
        asked: "SELECT currval('leaks')",
        gone: "E 55000",
    },
    State {
        name: "LOAD",
        made_by: &["LOAD 'auto_explain'"],
        asked: "SELECT count(*) FROM pg_settings WHERE name LIKE 'auto_explain.%'",
        gone: "0",
    },
];

/// How a session ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Terminate,
    Close,
    Reset,
    InTransaction,
    InResult,
}

const ENDS: [End; 5] = [End::Terminate, End::Close, End::Reset, End::InTransaction, End::InResult];

fn leave(mut client: Client, end: End) {
    match end {
        End::Terminate => client.send(&m::terminate()),
        End::Close => {}
        End::Reset => client.reset_when_dropped(),
        End::InTransaction => {
            assert_eq!(client.query("BEGIN; SELECT 1").status(), 'T');
        }
        End::InResult => {
            client.send(&m::query("SELECT repeat('x', 1000) FROM generate_series(1, 50000)"));
            client.byte();
            client.reset_when_dropped();
        }
    }
}

/// One server connection for everybody.
fn one_backend(world: &World, pool_mode: &'static str, session_state: &str) -> Configuration {
    Configuration {
        pool_mode,
        top: format!("session_state = \"{session_state}\"\npin_notice = false"),
        pools: "size = 1\n".to_owned(),
        ..world.residency("unbound = \"eu-west\"\nguards.load = \"allow\"")
    }
}

/// What a new client is told.
fn next_client_sees(proxy: &Proxy, asked: &str) -> String {
    answer(&mut proxy.connect(), asked)
}

/// The value, or the error's SQLSTATE.
fn answer(client: &mut Client, asked: &str) -> String {
    let said = client.query(asked);
    said.error().map_or_else(|| said.value().unwrap_or_default(), |error| format!("E {}", error.sqlstate()))
}

#[test]
fn nothing_that_a_session_leaves_is_seen_by_the_next() {
    let Some(world) = world() else { return };
    thread::scope(|scope| {
        for (mode, policy) in [("session", "pin"), ("transaction", "pin"), ("transaction", "allow")] {
            scope.spawn(move || {
                let proxy = start(&one_backend(world, mode, policy));
                for state in STATES {
                    for end in ENDS {
                        let place = format!("{} in {mode} mode ({policy}), {end:?}", state.name);
                        let mut client = proxy.connect();
                        for text in state.made_by {
                            let said = client.query(text);
                            assert!(said.error().is_none(), "{place}: {text}: {said}");
                        }
                        // What was never there would be gone too. What is allowed is undone with its transaction, before the client leaves.
                        if policy == "pin" {
                            assert_ne!(answer(&mut client, state.asked), state.gone, "{place}: what its own client sees");
                        }
                        leave(client, end);
                        let mut seen = next_client_sees(&proxy, state.asked);
                        if state.asked.contains("pg_locks") {
                            // Of all backends: one that has been closed gives its locks back a moment later.
                            let gone = || Some(next_client_sees(&proxy, state.asked)).filter(|seen| seen == state.gone);
                            seen = wait_for(Duration::from_secs(1), gone).unwrap_or(seen);
                        }
                        assert_eq!(seen, state.gone, "{place}: what the next client sees");
                    }
                }
            });
        }
    });
}

#[test]
fn a_prepared_statement_of_the_protocol_is_its_sessions_own() {
    let Some(world) = world() else { return };
    for mode in ["session", "transaction"] {
        let proxy = start(&one_backend(world, mode, "pin"));
        for end in ENDS {
            let mut client = proxy.connect();
            let said = client.ask(&[m::parse("left_behind", "SELECT 'left'"), m::sync()].concat());
            assert_eq!(said.replies().to_string(), "1 / Z I");
            leave(client, end);
            let mut next = proxy.connect();
            let said = next.ask(&[m::bind("", "left_behind", &[]), m::execute("", 0), m::sync()].concat());
            assert_eq!(said.sqlstate(), "26000", "{mode} mode, {end:?}: {said}");
            let named = next.query("SELECT count(*) FROM pg_prepared_statements WHERE name = 'left_behind'");
            assert_eq!(named.value().as_deref(), Some("0"), "{mode} mode, {end:?}");
        }
    }
}

/// Many clients over few connections, one in seven cut off in the middle of its result.
#[test]
fn no_answer_reaches_another_client() {
    let Some(world) = world() else { return };
    for mode in ["session", "transaction"] {
        // In session mode a login takes a connection, and for a moment a client is there twice.
        let size = if mode == "session" { 32 } else { 4 };
        let pools = format!("size = {size}\n");
        let proxy =
            start(&Configuration { pool_mode: mode, pools, ..world.residency("unbound = \"eu-west\"\nguards.load = \"allow\"") });
        thread::scope(|scope| {
            for number in 0..16 {
                let proxy = &proxy;
                scope.spawn(move || answers_are_its_own(proxy, number));
            }
        });
    }
}

fn answers_are_its_own(proxy: &Proxy, number: u32) {
    let text = |round: u32| format!("SELECT '{number}.{round}', repeat('{number}.', 200) FROM generate_series(1, 20)");
    let own = |client: &mut Client, round: u32, messages: &[u8]| {
        let said = client.ask(messages);
        let rows = said.rows();
        let tag = format!("{number}.{round}");
        let filler = format!("{number}.").repeat(200);
        assert!(said.error().is_none() && rows.len() == 20, "client {number}: {said}");
        assert!(rows.iter().all(|row| row[0] == tag && row[1] == filler), "client {number}, round {round}: {said}");
    };
    let mut client = proxy.connect();
    let mut prepared = None;
    for round in 0..154 {
        match round % 7 {
            0 => {
                client.send(&m::query(&format!("SELECT repeat('{number}.', 2000) FROM generate_series(1, 2000)")));
                client.byte();
                client.reset_when_dropped();
                client = proxy.connect();
                prepared = None;
            }
            1 | 2 => own(&mut client, round, &m::query(&text(round))),
            3 | 4 => {
                let messages = [m::parse("", &text(round)), m::bind("", "", &[]), m::execute("", 0), m::sync()];
                own(&mut client, round, &messages.concat());
            }
            _ => {
                let of_round = *prepared.get_or_insert_with(|| {
                    assert_eq!(client.ask(&[m::parse("own", &text(round)), m::sync()].concat()).replies().to_string(), "1 / Z I");
                    round
                });
                own(&mut client, of_round, &[m::bind("", "own", &[]), m::execute("", 0), m::sync()].concat());
            }
        }
    }
}
