//! What the tests share: the two servers of the demo, with what the tests need besides.

use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use domicile_tests::cluster::Cluster;
use domicile_tests::demo::{self, HOMES};
use domicile_tests::program;
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::skip::{available, io_uring};

/// The servers of both regions.
pub struct World {
    pub eu: Cluster,
    pub us: Cluster,
}

/// The servers, started by the first test that asks; `None` after saying what is missing here to run any of these tests.
///
/// # Panics
/// If PostgreSQL is there and does not start.
pub fn world() -> Option<&'static World> {
    static WORLD: OnceLock<World> = OnceLock::new();
    available(program::need("initdb"))?;
    available(io_uring())?;
    Some(WORLD.get_or_init(|| {
        let [eu, us] = HOMES.map(|home| {
            let cluster = demo::start(&home, None, 300).and_then(|cluster| {
                cluster.execute("demo", ROLES)?;
                Ok(cluster)
            });
            cluster.unwrap_or_else(|error| panic!("{error}"))
        });
        World { eu, us }
    }))
}

/// `bench` is not logged: a hundred thousand statements would only fill the disk.
const ROLES: &str = "CREATE ROLE alice LOGIN PASSWORD 'alice'; CREATE ROLE bench LOGIN SUPERUSER PASSWORD 'bench';
    ALTER ROLE bench SET log_statement = 'none'; ALTER ROLE bench SET log_min_duration_statement = -1;
    GRANT SELECT ON public.users TO PUBLIC; GRANT USAGE ON SCHEMA demo TO PUBLIC";

impl World {
    /// A configuration with both regions and all users.
    pub fn configuration(&self) -> Configuration {
        let node = |cluster, home: demo::Home| (home.region, home.node, Cluster::address(cluster));
        let mut configuration = Configuration::new(&[node(&self.eu, HOMES[0]), node(&self.us, HOMES[1])]);
        configuration.users = ["postgres", "alice", "bench"].map(|user| (user.to_owned(), user.to_owned())).into();
        configuration
    }

    /// The same, with other lines in `[residency]`.
    pub fn residency(&self, lines: &str) -> Configuration {
        Configuration { residency: format!("{lines}\n"), ..self.configuration() }
    }

    /// Fills the tables of `pgbench` in database `demo` of the European server, once; `None` after saying that there is none.
    pub fn pgbench(&self) -> Option<()> {
        static FILLED: OnceLock<()> = OnceLock::new();
        available(program::need("pgbench"))?;
        FILLED.get_or_init(|| {
            let mut command = pgbench_command();
            command.args(["--initialize", "--quiet", "--host=127.0.0.1", "--username=bench", "--scale=1"]);
            command.arg(format!("--port={}", self.eu.address().port())).arg("demo");
            let output = program::run(command, "", Duration::from_secs(60)).expect("pgbench --initialize");
            assert!(output.status.success(), "{}", program::both(&output));
        });
        Some(())
    }
}

/// Starts a proxy.
///
/// # Panics
/// If it does not start.
#[track_caller]
pub fn start(configuration: &Configuration) -> Proxy {
    Proxy::start(configuration).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs `pgbench` with its read-only transaction, unless `arguments` have a `--file`, as user `bench` through a proxy and demands that nothing went wrong.
#[track_caller]
pub fn pgbench(proxy: &Proxy, arguments: &[&str]) -> String {
    let mut command = pgbench_command();
    command.env("PGAPPNAME", application(proxy));
    if !arguments.iter().any(|argument| argument.starts_with("--file=")) {
        command.arg("--select-only");
    }
    command.args(["--no-vacuum", "--jobs=2", "--host=127.0.0.1", "--username=bench"]);
    command.arg(format!("--port={}", proxy.address().port())).args(arguments).arg("demo");
    let output: Output = program::run(command, "", Duration::from_secs(300)).expect("pgbench");
    let said = program::both(&output);
    let clean = output.status.success() && !said.contains("aborted") && !said.to_lowercase().contains("error");
    assert!(clean, "pgbench {}: {said}\nproxy: {}", arguments.join(" "), tail(&proxy.log()));
    said
}

/// The `application_name` of what [`pgbench`] sends through this proxy; other tests run `pgbench` too.
pub fn application(proxy: &Proxy) -> String {
    format!("pgbench through {}", proxy.address().port())
}

fn pgbench_command() -> Command {
    let mut command = program::command(&program::find("pgbench").unwrap_or_else(|| "pgbench".into()));
    command.env("PGPASSWORD", "bench");
    command
}

/// The last lines of a log, which tell why.
pub fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Runs `beside` on a thread of its own for as long as `work` takes, and returns what both did. It also ends when `work` panics.
pub fn while_running<A: Send, B>(beside: impl FnOnce(&dyn Fn() -> bool) -> A + Send, work: impl FnOnce() -> B) -> (A, B) {
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let beside = scope.spawn(|| beside(&|| !done.load(Ordering::Relaxed)));
        let worked = {
            let _done = Done(&done);
            work()
        };
        (beside.join().expect("the thread beside"), worked)
    })
}
