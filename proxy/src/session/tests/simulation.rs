//! Random conversations, from seeds: whatever clients do, and however the bytes are cut, these hold.
//!
//! * The answers do not depend on how the bytes were delivered.
//! * The region that `SHOW` tells is the region whose server answers the statement beside it.
//! * Every Query, FunctionCall and Sync of a client that is still there is answered by exactly one ReadyForQuery.
//! * When all clients are gone, no server is left with an open transaction.
//!
//! A failure prints its seed; `SEED=n cargo test simulation` plays it again.

use super::world::{Cut, Setup, World, assert_same, session_mode, transaction_mode};
use crate::wire::TransactionStatus;

const SEEDS: u64 = 300;
const LINES: usize = 60;

/// What one client may send at once. `{r}` is a region.
const LINES_TO_SAY: &[&str] = &[
    "Q SHOW helios.region; SELECT 1",
    "Q SHOW helios.region; SELECT 1",
    "Q SET helios.region = '{r}'; SHOW helios.region; SELECT 1",
    "Q SET helios.region = '{r}'",
    "Q SET LOCAL helios.region = '{r}'",
    "Q SET LOCAL helios.region = '{r}'; SHOW helios.region; SELECT 1",
    "Q RESET helios.region",
    "Q RESET ALL",
    "Q BEGIN",
    "Q BEGIN; SET LOCAL helios.region = '{r}'; SHOW helios.region; SELECT 1",
    "Q COMMIT",
    "Q COMMIT AND CHAIN",
    "Q COMMIT; SHOW helios.region; SELECT 1",
    "Q ROLLBACK",
    "Q ROLLBACK AND CHAIN",
    "Q ROLLBACK; SHOW helios.region; SELECT 1",
    "Q SAVEPOINT s",
    "Q ROLLBACK TO s",
    "Q RELEASE s",
    "Q SELECT fail",
    "Q SELECT 1; SELECT fail; SELECT 2",
    "Q SELECT 1; SET helios.region = '{r}'; SELECT 2",
    "Q SET TRANSACTION READ ONLY",
    "Q SET work_mem = '1'",
    "Q COPY t TO STDOUT",
    "Q COPY t FROM STDIN | d 1 | c",
    "Q COPY t FROM STDIN | d 1 | f no",
    "Q",
    "F",
    "S",
    "H",
    "d stray",
    "P :SHOW helios.region | B : | E | P :SELECT 1 | B : | E | S",
    "P :SET helios.region = '{r}' | B : | E | S",
    "P :SET helios.region = '{r}' | B : | E | P :SHOW helios.region | B : | E | P :SELECT 1 | B : | E | S",
    "P :BEGIN | B : | E | P :SHOW helios.region | B : | E | P :SELECT 1 | B : | E | S",
    "P :BEGIN | B : | E | S",
    "P :COMMIT | B : | E | S",
    "P :COMMIT | B : | E | P :SHOW helios.region | B : | E | P :SELECT 1 | B : | E | S",
    "P :ROLLBACK | B : | E | S",
    "P :SAVEPOINT s | B : | E | S",
    "P :ROLLBACK TO s | B : | E | S",
    "P :SELECT fail | B : | E | P :SELECT 1 | B : | E | S",
    "P :SELECT 1 | B : | E | P :SET helios.region = '{r}' | B : | E | S",
    "P :SELECT 1 | B : | E | S | P :SET helios.region = '{r}' | B : | E | S | Q SELECT 1 | Q COMMIT | Q SELECT 2",
    "Q SELECT 1 | Q SET helios.region = '{r}' | Q BEGIN | Q SELECT 1 | Q SELECT fail | Q COMMIT",
    "P :COPY t FROM STDIN | B : | E | d 1 | c | S",
];

/// xorshift64*: a few lines, and the same numbers everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % bound
    }

    pub(super) fn of<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

fn script(random: &mut Random) -> String {
    let mut lines = Vec::new();
    for _ in 0..LINES {
        if random.below(25) == 0 {
            lines.push(random.of(&["!kill eu", "!kill us", "!tick 1", "!tick 130", "!down us", "!up us"]).to_owned());
            continue;
        }
        let region = random.of(&["eu", "us", "eu", "us", "antarctica", ""]);
        let said = random.of(LINES_TO_SAY).replace("{r}", region);
        lines.push(format!("{}> {said}", random.of(&["a", "b", "c"])));
    }
    lines.join("\n")
}

/// Looks through what was said for an answer that cannot be.
fn judge(said: &str, waits: bool, seed: u64) {
    let mut line = "";
    let mut rows: Vec<&str> = Vec::new();
    let mut open = [true; 3];
    let mut ready = 0;
    let finish = |line: &str, rows: &[&str], ready: usize, open: &[bool; 3]| {
        let Some((client, messages)) = line.split_once("> ") else { return };
        if messages.contains("SHOW")
            && messages.contains("SELECT 1")
            && let [shown, served] = rows
        {
            assert_eq!(shown, served, "seed {seed}: SHOW and the server differ at {line}");
        }
        let there = open[client.bytes().next().map_or(0, |byte| usize::from(byte - b'a'))];
        let expected = messages.split(" | ").filter(|message| message.starts_with(['Q', 'S', 'F'])).count();
        // A client that waits for a server is answered later, and then more than once in a line.
        if there && !waits {
            assert_eq!(ready, expected, "seed {seed}: not one ReadyForQuery for each request at {line}");
        }
    };
    for next in said.lines() {
        if !next.starts_with(' ') {
            finish(line, &rows, ready, &open);
            (line, ready) = (next, 0);
            rows.clear();
            continue;
        }
        let client = line.get(..1).unwrap_or_default();
        let own = if client == "a" { "  ".to_owned() } else { format!("  {client}: ") };
        if let Some(message) = next.strip_prefix(&own) {
            rows.extend(message.strip_prefix("D "));
            ready += usize::from(message.starts_with("Z "));
        }
        for (place, name) in ["  closed", "  b: closed", "  c: closed"].into_iter().enumerate() {
            open[place] &= next != name;
        }
    }
    finish(line, &rows, ready, &open);
}

fn simulate(setup: &Setup, seed: u64) {
    let mut random = Random::new(seed);
    let script = script(&mut random);
    let mut world = World::new(setup);
    let said = world.play(&script, Cut::Whole);
    if std::env::var_os("SEED").is_some() {
        println!("{said}");
    }
    // Where clients wait for one another, the order of their bytes decides whose turn it is.
    let waits = setup.size == 1 || script.contains("!down");
    judge(&said, waits, seed);
    if !waits {
        same_in_every_cut(setup, &script, &said, &mut random, seed);
    }
    world.everyone_leaves();
    for model in world.servers.values() {
        assert_eq!(model.status, TransactionStatus::Idle, "seed {seed}: a transaction was left open in {}", model.region);
    }
}

fn same_in_every_cut(setup: &Setup, script: &str, said: &str, random: &mut Random, seed: u64) {
    // What clients get; which of several idle servers answers is a matter of time.
    let heard = |said: &str| said.lines().filter(|line| !line.starts_with("    ")).collect::<Vec<_>>().join("\n");
    for cut in [Cut::At(1 + random.below(30)), Cut::OneByOne] {
        assert_same(&heard(said), &heard(&World::new(setup).play(script, cut)), &format!("seed {seed}: {cut:?}"));
    }
}

#[test]
fn random_conversations() {
    let chosen = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = chosen.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    for seed in seeds {
        simulate(&transaction_mode(), seed);
        simulate(&session_mode(), seed);
        simulate(&Setup { size: 1, ..transaction_mode() }, seed);
    }
}
