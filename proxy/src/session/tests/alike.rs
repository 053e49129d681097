//! Random conversations that are held twice, once in each pool mode: a client must not be able to tell which it was.
//!
//! In session mode every client has a server of its own; in transaction mode it meets whichever is free. What differs by design is
//! left out: NOTICEs, changes of the region, and SQL's EXECUTE of what the protocol has prepared. `SEED=n` plays one
//! again, `SEEDS=n` that many.

use super::simulation::Random;
use super::world::{Cut, Setup, World, bound_to, session_mode, transaction_mode};

const SEEDS: u64 = 400;
const LINES: usize = 60;

const ABORTED: &str = "current transaction is aborted, commands ignored until end of transaction block";

const LINES_TO_SAY: &[&str] = &[
    "Q SELECT TimeZone",
    "Q SELECT TimeZone; SELECT work_mem",
    "Q SET TimeZone = '{n}'",
    "Q SET TimeZone = '{n}'; SELECT TimeZone",
    "Q SET work_mem = {n}",
    "Q RESET ALL",
    "Q DISCARD ALL",
    "Q BEGIN",
    "Q BEGIN; SELECT TimeZone",
    "Q COMMIT",
    "Q ROLLBACK",
    "Q SELECT fail",
    "Q SELECT 1",
    "Q DEALLOCATE s{n}",
    "Q DEALLOCATE ALL",
    "Q PREPARE q{n} AS SELECT 1",
    "Q EXECUTE q{n}",
    "Q DEALLOCATE q{n}",
    "Q SELECT fail; DEALLOCATE ALL",
    "P s{n}:SELECT TimeZone | S",
    "P s{n}:SELECT TimeZone | D S:s{n} | S",
    "P s{n}:SELECT TimeZone | B :s{n} | E | S",
    "P s{n}:SELECT fail | B :s{n} | E | S",
    "P s{n}:SELECT 1 | S | B :s{n} | E | S",
    "B :s{n} | E | S",
    "B :s{n} | D P: | E | S",
    "B :s{n} | E | B :s{m} | E | S",
    "B :s{n} | E | S | B :s{m} | E | S",
    "D S:s{n} | S",
    "C S:s{n} | S",
    "C S:s{n} | P s{n}:SELECT 1 | S",
    "C S:s{n} | P s{n}:SELECT work_mem | B :s{n} | E | C S:s{m} | S",
    "P :SELECT fail | B : | E | P s{n}:SELECT 1 | C S:s{m} | S | B :s{n} | E | S",
    "P s{n}:SELECT 1 | C S:s{m} | P :SELECT fail | B : | E | P s{m}:SELECT 1 | S | P s{n}:SELECT 1 | S | B :s{m} | E | S",
    "P :SELECT TimeZone | S",
    "P :SELECT TimeZone | D S: | H | B : | E | S",
    "B : | E | S",
    "D S: | S",
    "C S: | S",
    "P :SELECT 1 | B : | E | P :SELECT 2 | S | B : | E | S",
    "P :SELECT fail | B : | E | P :SELECT 2 | S | B : | E | S",
    "P :SELECT 1 | S | P :SELECT work_mem | S | B : | E | S",
    "P :SET TimeZone = '{n}' | B : | E | S",
    "P :SET work_mem = {n} | B : | E | P :SELECT work_mem | B : | E | S",
    "P :BEGIN | B : | E | P s{n}:SELECT 1 | B :s{n} | E | S",
    "P :COMMIT | B : | E | S",
    "P :RESET ALL | B : | E | S",
    "P :DEALLOCATE ALL | B : | E | S",
    "P :DEALLOCATE s{n} | B : | E | B :s{m} | E | S",
    "Q SELECT 1 | B :s{n} | E | S | Q SELECT TimeZone",
];

fn script(random: &mut Random) -> String {
    let mut lines = Vec::new();
    for _ in 0..LINES {
        let numbers = ["1", "2", "3"];
        let said = random.of(LINES_TO_SAY).replace("{n}", random.of(&numbers)).replace("{m}", random.of(&numbers));
        lines.push(format!("{}> {said}", random.of(&["a", "b", "c"])));
    }
    lines.join("\n")
}

/// What a client has said and heard.
fn heard_by(client: &str, said: &str) -> Vec<String> {
    let own = if client == "a" { "  ".to_owned() } else { format!("  {client}: ") };
    let theirs = |line: &str| ["  b: ", "  c: "].iter().any(|other| line.starts_with(other));
    let mut heard = Vec::new();
    for line in said.lines() {
        if line.starts_with(&format!("{client}> ")) {
            heard.push(line.to_owned());
        } else if line.starts_with(&own) && !line.starts_with("    ") && (client != "a" || !theirs(line)) {
            // Who says it is of no importance here.
            let message = line[own.len()..].replace("aborted (says the server)", ABORTED);
            if !message.starts_with("N ") {
                heard.push(message);
            }
        }
    }
    heard
}

/// Whether two answers are as good as one. In a transaction that only the proxy has failed, the failure is told before anything else.
fn alike(one: Option<&String>, other: Option<&String>) -> bool {
    let begins = |said: Option<&String>, with: &[&str]| said.is_some_and(|said| with.iter().any(|start| said.starts_with(start)));
    let of_failed = ["E ERROR 26000", "E ERROR 25P02", "3"];
    let is_failure = begins(one, &["E ERROR 25P02"]) || begins(other, &["E ERROR 25P02"]);
    one == other || is_failure && begins(one, &of_failed) && begins(other, &of_failed)
}

#[test]
fn no_client_can_tell_the_pool_mode() {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let seeds = number("SEED").map_or(0..number("SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    for seed in seeds {
        let script = script(&mut Random::new(seed));
        let direct = World::new(&Setup { source: bound_to(&["eu"]), ..session_mode() }).play(&script, Cut::Whole);
        for prepared_statements in [1, 200] {
            let setup = Setup { size: 3, prepared_statements, source: bound_to(&["eu"]), ..transaction_mode() };
            let pooled = World::new(&setup).play(&script, Cut::Whole);
            for client in ["a", "b", "c"] {
                let (direct, pooled) = (heard_by(client, &direct), heard_by(client, &pooled));
                if let Some(at) = (0..direct.len().max(pooled.len())).find(|at| !alike(direct.get(*at), pooled.get(*at))) {
                    let part = |heard: &[String]| heard[at.saturating_sub(15)..heard.len().min(at + 5)].join("\n");
                    panic!(
                        "seed {seed}, client {client}:\n{}\n--- but in transaction mode ---\n{}",
                        part(&direct),
                        part(&pooled)
                    );
                }
            }
        }
    }
}
