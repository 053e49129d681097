//! What the demo runs on: both servers, the proxy, and the configuration between them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use domicile_tests::client::{Client, Login};
use domicile_tests::cluster::Cluster;
use domicile_tests::demo::{HOMES, start};
use domicile_tests::gate::Gate;
use domicile_tests::process::{Scratch, free_port, port_is_free};
use domicile_tests::proxy::{Proxy, root};

use super::fence;
use crate::show::table;

/// The ports that stand in `configs/demo.toml`.
const LISTEN_PORT: u16 = 6432;
const HTTP_PORT: u16 = 9432;

/// Everything that runs; stopped in this order when dropped.
pub struct Stage {
    proxy: Proxy,
    servers: [Cluster; 2],
    http: SocketAddr,
    /// The kernel's fence, or what is lacking to have one.
    gate: Result<Gate, String>,
    program: std::path::PathBuf,
    _directory: Scratch,
}

impl Stage {
    /// Starts the servers and the proxy in front of them.
    pub fn set(port: u16, program: &Path) -> Result<Self, String> {
        let mut servers = Vec::new();
        for home in &HOMES {
            let port = Some(home.port).filter(|port| port_is_free(*port));
            servers.push(start(home, port, 100)?);
        }
        let servers: [Cluster; 2] = servers.try_into().map_err(|_| "two homes, two servers")?;

        let directory = Scratch::new().map_err(|error| format!("a temporary directory: {error}"))?;
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let http = if port_is_free(HTTP_PORT) { HTTP_PORT } else { free_port() };
        let ports = [(LISTEN_PORT, port), (HTTP_PORT, http)].into_iter();
        let ports = ports.chain(HOMES.iter().zip(&servers).map(|(home, server)| (home.port, server.address().port())));
        let file = directory.path().join("demo.toml");
        let gate = Gate::named("demo");
        copy_configuration(&file, ports, &gate.as_ref().map_or_else(|_| String::new(), fence::lines))?;
        let proxy = Proxy::start_file(program, &file, loopback(port), loopback(http))?;
        let gate = gate.and_then(|gate| if gate.pins().join("flows").exists() { Ok(gate) } else { Err(why(&proxy.log())) });
        Ok(Self { proxy, servers, http: loopback(http), gate, program: program.to_owned(), _directory: directory })
    }

    /// Logs in to the proxy as `postgres`.
    pub fn connect(&self) -> Result<Client, String> {
        self.proxy.login(&Login::default()).map_err(|said| format!("Domicile refuses a login: {said}"))
    }

    /// The kernel's fence, or what is lacking to have one.
    pub fn gate(&self) -> Result<&Gate, &str> {
        self.gate.as_ref().map_err(String::as_str)
    }

    /// The proxy's port.
    pub fn port(&self) -> u16 {
        self.proxy.address().port()
    }

    /// Both servers, in the order of [`HOMES`].
    pub fn servers(&self) -> &[Cluster; 2] {
        &self.servers
    }

    /// What `domicile explain` says about the login of the demo and a region: its decision, and the rule.
    pub fn explain(&self, region: &str) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        command.args(["explain", "--user", "postgres", "--database", "demo", "--from", "127.0.0.1", "--region", region]);
        let output =
            command.arg("--config").arg(self.proxy.file()).output().map_err(|error| format!("domicile explain: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = |label: &str| text.lines().find_map(|line| line.strip_prefix(label)).map(str::trim);
        match (line("decision"), line("rule")) {
            (Some(decision), Some(rule)) => Ok(format!("{decision}, by the rule {rule}")),
            _ => Err(format!("domicile explain: {text}{}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    /// Who is who.
    pub fn describe(&self) -> String {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let server = |(home, server): (&domicile_tests::demo::Home, &Cluster)| {
            let version = server.value("demo", "SHOW server_version");
            let version = version.split(' ').next().unwrap_or_default();
            row([home.node, &server.address().to_string(), &format!("PostgreSQL {version}, region {}", home.region)])
        };
        let mut rows = vec![row(["domicile", &self.proxy.address().to_string(), "this is where clients connect"])];
        rows.extend(HOMES.iter().zip(&self.servers).map(server));
        table(&rows)
    }

    /// How to go on by hand.
    pub fn invitation(&self) -> String {
        let row = |left: String, right: &str| vec![left, right.to_owned()];
        let log = self.proxy.file().with_extension("log");
        let commands = table(&[
            row(format!("PGPASSWORD=postgres psql -h localhost -p {} -U postgres -d demo", self.port()), "a session of your own"),
            row(format!("curl -s http://{}/metrics | grep decisions", self.http), "every decision, counted"),
            row(
                format!("{} fence status --config {}", self.program.display(), self.proxy.file().display()),
                "the fence, in words (root)",
            ),
            row(format!("tail -f {}", log.display()), "the log, with an audit record for each denial"),
        ]);
        let statements = "SET helios.region = 'eu-west';   SELECT * FROM users;   SHOW domicile.node;   RESET helios.region;";
        format!("Try it from another terminal:\n\n{commands}\nIn psql:  {statements}\n\nCtrl-C stops everything.")
    }
}

/// Why the proxy says that there is no fence.
fn why(log: &str) -> String {
    let line = log.lines().find(|line| line.contains("there is no fence")).unwrap_or_default();
    line.split_once("absent=").map_or_else(|| "what the proxy's log says".to_owned(), |(_, why)| why.to_owned())
}

/// Copies the configuration and its users file, with the ports of this run in place of those that stand there, and more lines.
fn copy_configuration(to: &Path, ports: impl Iterator<Item = (u16, u16)>, more: &str) -> Result<(), String> {
    let configs = root().join("configs");
    let from = configs.join("demo.toml");
    let mut text = fs::read_to_string(&from).map_err(|error| format!("{}: {error}", from.display()))?;
    for (there, here) in ports {
        let [old, new] = [there, here].map(|port| format!("\"127.0.0.1:{port}\""));
        if !text.contains(&old) {
            return Err(format!("{} has no address {old}", from.display()));
        }
        text = text.replace(&old, &new);
    }
    fs::write(to, text + more).map_err(|error| format!("{}: {error}", to.display()))?;
    let users = configs.join("users.txt");
    fs::copy(&users, to.with_file_name("users.txt")).map_err(|error| format!("{}: {error}", users.display()))?;
    Ok(())
}
