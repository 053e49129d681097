//! What nobody may find anywhere: each secret of a busy proxy is a word that stands nowhere else, and it is looked for in all that the
//! proxy writes or shows.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use domicile_tests::client::{Client, Login};
use domicile_tests::message as m;
use domicile_tests::process::{Scratch, wait_for};
use domicile_tests::program;
use domicile_tests::proxy::{Configuration, Proxy, binary};

use crate::world::{World, start, world};

/// Passwords, of the users file and of nodes, and a wrong one.
const PASSWORDS: [&str; 5] = ["horse-plain", "horse-md5", "horse-scram", "horse-node", "horse-wrong"];
/// What stands in statements and in their parameters.
const DATA: [&str; 9] = [
    "zebra-literal",
    "zebra-comment",
    "zebra-denied",
    "zebra-bound",
    "zebra-copied",
    "zebra-syntax",
    "zebra-argument",
    "zebra-payload",
    "zebra-prepared",
];
/// Every table of the console.
const TABLES: &str = "help pools region_pools clients servers stats stats_totals stats_averages totals databases lists config users \
                      version state mem regions nodes decisions pins fence flows";

/// The roles of the users file at the European server, each with a password that no other test has.
const ROLES: &str =
    "CREATE ROLE secret_plain LOGIN PASSWORD 'horse-plain'; CREATE ROLE secret_scram LOGIN PASSWORD 'horse-scram';
    SET password_encryption = md5; CREATE ROLE secret_md5 LOGIN PASSWORD 'horse-md5'; RESET password_encryption;
    CREATE ROLE secret_node LOGIN PASSWORD 'horse-node'; GRANT ALL ON SCHEMA public TO PUBLIC";

/// Everything that must not be found.
struct Secrets(Vec<(String, String)>);

impl Secrets {
    /// A secret, and the forms that a program is likely to write it in.
    fn add(&mut self, what: &str, bytes: &[u8]) {
        let hexadecimal: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
        let escaped = bytes.escape_ascii().to_string();
        for form in [escaped, BASE64.encode(bytes), hexadecimal.to_uppercase(), hexadecimal, list.join(", ")] {
            self.0.push((what.to_owned(), form));
        }
    }

    /// None of them stands in this text.
    #[track_caller]
    fn are_not_in(&self, place: &str, text: &str) {
        assert!(!text.is_empty(), "{place} is empty");
        for (what, form) in &self.0 {
            let found = text.lines().find(|line| line.contains(form.as_str()));
            assert!(found.is_none(), "{place} shows {what}: {}", found.unwrap_or_default());
        }
    }
}

/// Does everything that a client can do with a secret.
fn keep_busy(client: &mut Client) {
    client.query("SELECT 'zebra-literal' /* zebra-comment */");
    client.query("SET helios.region = 'nowhere'; SELECT 'zebra-denied'");
    client.query("RESET helios.region");
    client.query("SELECT 'zebra-syntax' FROM nowhere; BEGIN; SELECT 'zebra-literal'");
    client.query("SELECT $$zebra-literal$$ +; ROLLBACK");
    client.query("ROLLBACK");
    client.query("SELECT 1 'zebra-syntax' SELECT");
    client.query("CREATE ROLE secret_other PASSWORD 'zebra-literal'");
    client.query("SET search_path = 'zebra-literal'; SELECT set_config('application_name', 'pony', false)");
    client.query("PREPARE p AS SELECT 'zebra-prepared'; EXECUTE p");
    client.query("NOTIFY pony, 'zebra-payload'");
    let bound = [m::parse("s", "SELECT $1::text, 'zebra-prepared'"), m::bind("", "s", &["zebra-bound"]), m::execute("", 0)];
    client.ask(&[&bound.concat()[..], &m::sync()].concat());
    let wrong = [m::parse("", "SELECT $1::int"), m::bind("", "", &["zebra-bound"]), m::execute("", 0), m::sync()];
    client.ask(&wrong.concat());
    client.ask(&m::function_call(1574, &["zebra-argument"]));
    client.query("CREATE TEMP TABLE secrets (text text)");
    client.send(&m::query("COPY secrets FROM STDIN"));
    client.until(|message| matches!(message.tag, b'G' | b'Z'));
    client.ask(&[m::copy_data("zebra-copied\n"), m::copy_done()].concat());
    client.query("DISCARD ALL");
}

fn configuration(world: &World, directory: &Scratch, method: &'static str, level: &str) -> Configuration {
    let md5 = world.eu.value("demo", "SELECT rolpassword FROM pg_authid WHERE rolname = 'secret_md5'");
    let scram = world.eu.value("demo", "SELECT rolpassword FROM pg_authid WHERE rolname = 'secret_scram'");
    let mut configuration = world.residency("unbound = \"client\"");
    configuration.method = method;
    configuration.users =
        [("secret_plain", "horse-plain"), ("secret_md5", &md5), ("secret_scram", &scram), ("postgres", "postgres")]
            .map(|(user, secret)| (user.to_owned(), secret.to_owned()))
            .into();
    let file = directory.path().join("audit.jsonl");
    let node = world.eu.address();
    configuration.more = format!(
        "[admin]\nusers = [\"postgres\"]\n[log]\nlevel = \"{level}\"\n[audit]\nfile = \"{}\"\n[regions.secret]\n[[nodes]]\n\
         name = \"secret\"\nregion = \"secret\"\naddress = \"{node}\"\nrole = \"primary\"\nuser = \"secret_node\"\n\
         password = \"horse-node\"\ndatabase = \"demo\"\n",
        file.display()
    );
    configuration
}

fn check(configuration: &std::path::Path) -> String {
    let mut command = program::command(&binary().expect("the program"));
    command.arg("check").arg(configuration);
    program::run_together(command, "", Duration::from_secs(20)).expect("domicile check")
}

#[test]
fn no_secret_stands_in_what_the_proxy_writes_or_shows() {
    let Some(world) = world() else { return };
    world.eu.execute("demo", ROLES).expect("the roles");
    let directory = Scratch::new().expect("a directory");
    let mut secrets = Secrets(Vec::new());
    PASSWORDS.iter().chain(&DATA).for_each(|secret| secrets.add(secret, secret.as_bytes()));
    for user in ["secret_md5", "secret_scram"] {
        let verifier = world.eu.value("demo", &format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'"));
        for part in verifier.trim_start_matches("md5").split(['$', ':']).filter(|part| part.len() > 8 && *part != "SCRAM-SHA-256")
        {
            secrets.0.push((format!("a part of the verifier of {user}"), part.to_owned()));
            BASE64.decode(part).into_iter().filter(|_| user == "secret_scram").for_each(|key| secrets.add("a key", &key));
        }
    }
    let mut written = String::new();
    for (method, level) in [("scram-sha-256", "trace"), ("md5", "debug"), ("password", "trace")] {
        let proxy = start(&configuration(world, &directory, method, level));
        let wrong = Login { user: "secret_plain", password: "horse-wrong", ..Login::default() };
        proxy.login(&wrong).err().expect("a wrong password");
        let mut clients = Vec::new();
        for (user, password) in [("secret_plain", "horse-plain"), ("secret_md5", "horse-md5"), ("secret_scram", "horse-scram")] {
            for region in ["eu-west", "secret"] {
                let parameters = [("helios.region", region), ("application_name", "pony")];
                let login = Login { user, password, database: "demo", parameters: &parameters };
                // A digest of one kind does not do for the other method.
                let Ok(mut client) = proxy.login(&login) else { continue };
                let (_, key) = client.cancel_key().expect("a key");
                secrets.add("a cancel key", &key);
                keep_busy(&mut client);
                clients.push(client);
            }
        }
        assert!(clients.len() >= 2, "{method}: {} of the logins were let in", clients.len());
        cancel_somebody(&proxy, &mut clients[0]);
        written += &shown(&proxy);
        drop(clients);
        written += &proxy.log();
        let file = proxy.file().to_owned();
        written += &check(&file);
        written += &with_mistakes(&file);
    }
    let audit = fs::read_to_string(directory.path().join("audit.jsonl")).expect("audit records");
    assert!(audit.contains("no_node"), "{audit}");
    secrets.are_not_in("the audit", &audit);
    secrets.are_not_in("what is shown and logged", &written);
    // And a word that is no secret is found, so one that is would be.
    assert!(written.contains("pony"));
}

#[test]
fn nobody_but_root_may_look_into_the_memory_of_the_proxy() {
    let Some(world) = world() else { return };
    for (line, owner_is_root) in [("core_dumps = false", true), ("core_dumps = true", false)] {
        let configuration = Configuration { top: format!("{line}\n"), ..world.configuration() };
        // A process of root's would be root's in any case.
        let directory = Scratch::new().expect("a directory");
        let proxy = if rustix::process::geteuid().is_root() {
            Proxy::prepare(&configuration, &directory).and_then(|prepared| prepared.start_as_nobody(None))
        } else {
            Proxy::start(&configuration)
        };
        let proxy = proxy.unwrap_or_else(|error| panic!("{error}"));
        // The kernel gives to root what belongs to a process that is not dumpable (proc(5)).
        let environment = fs::metadata(format!("/proc/{}/environ", proxy.id())).expect("the process");
        assert_eq!(environment.uid() == 0, owner_is_root, "{line}");
        assert_eq!(proxy.connect().query("").to_string(), "I / Z I");
    }
}

/// A cancel request with the right key, and one with a wrong one.
fn cancel_somebody(proxy: &Proxy, client: &mut Client) {
    let (process_id, key) = client.cancel_key().expect("a key");
    client.send(&m::query("SELECT pg_sleep(60), 'zebra-literal'"));
    let cancelled = wait_for(Duration::from_secs(20), || {
        for secret in [&key[..], b"none"] {
            let mut other = Client::connect(proxy.address()).expect("a connection");
            other.send(&m::cancel_request(process_id, secret));
            other.until(|_| false);
        }
        client.set_patience(Duration::from_millis(500));
        (client.until_ready().sqlstate() == "57014").then_some(())
    });
    assert!(cancelled.is_some(), "nothing was cancelled");
}

/// Everything that an operator can look at.
fn shown(proxy: &Proxy) -> String {
    let console = Login { database: "domicile", ..Login::default() };
    let mut client = proxy.login(&console).unwrap_or_else(|said| panic!("{said}"));
    let mut shown = String::new();
    for table in TABLES.split_whitespace() {
        let said = client.query(&format!("SHOW {table}"));
        assert!(said.error().is_none(), "SHOW {table}: {said}");
        writeln!(shown, "SHOW {table}: {said}").expect("a String takes everything");
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        shown += &proxy.http(path).map_or_else(|error| error, |(_, body)| body);
    }
    shown
}

/// What is said of the same configuration with mistakes at its secrets.
fn with_mistakes(file: &std::path::Path) -> String {
    let users = file.with_file_name("users.txt");
    let good = fs::read_to_string(&users).expect("the users file");
    let mut said = String::new();
    for line in [
        "\"a\" \"horse-plain",
        "\"a\" horse-plain",
        "\"a\" \"SCRAM-SHA-256$horse-scram\"",
        "\"a\" \"SCRAM-SHA-256$4096:horse-scram$AAAA:AAAA\"",
        "\"a\" \"horse-plain\"\n\"a\" \"horse-md5\"",
        "\"a\"\"b\" \"horse-plain\"x",
        "horse-plain",
    ] {
        fs::write(&users, format!("{good}{line}\n")).expect("the users file");
        said += &check(file);
    }
    fs::write(&users, good).expect("the users file");
    let good = fs::read_to_string(file).expect("the configuration");
    for wrong in [
        "password = horse-node",
        "password = \"horse-node",
        "password = [\"horse-node\"]",
        "passwort = \"horse-node\"",
        "password = \"horse-node\"\npassword = \"horse-node\"",
        "password = \"horse-node\\x\"",
    ] {
        fs::write(file, good.replace("password = \"horse-node\"", wrong)).expect("the configuration");
        let mistake = check(file);
        assert!(!mistake.contains(": ok"), "{wrong}: {mistake}");
        said += &mistake;
    }
    said
}
