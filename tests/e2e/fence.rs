//! The kernel's own gate: whatever the proxy, or whoever has taken it over, tries, nothing leaves its region.
//!
//! The proxy stands in a network namespace of its own, with a cable to one namespace for each region and a real PostgreSQL there, so
//! that what arrives in a region can be counted on the cable.

mod life;
mod steering;

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use domicile_tests::client::{Client, Login};
use domicile_tests::cluster::{Cluster, Options};
use domicile_tests::gate::{Gate, number};
use domicile_tests::intruder::{self, Place, intrude};
use domicile_tests::network::{Network, Site};
use domicile_tests::process::wait_for;
use domicile_tests::program;
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::skip::{available, io_uring};

/// The regions, in the order of the sites.
const REGIONS: [&str; 2] = ["eu-west", "us-east"];
/// The port of both servers.
const PORT: u16 = 5432;

/// Both regions, each behind a cable.
struct Fenced {
    network: Network,
    clusters: Vec<Cluster>,
}

/// The same for all tests; `None` after saying what is missing here.
fn fenced() -> Option<&'static Fenced> {
    static FENCED: OnceLock<Result<Fenced, String>> = OnceLock::new();
    is_possible()?;
    available(FENCED.get_or_init(Fenced::new).as_ref().map_err(Clone::clone))
}

/// One of one's own, for those who count packets.
fn fenced_alone() -> Option<Fenced> {
    is_possible()?;
    available(Fenced::new())
}

fn is_possible() -> Option<()> {
    available(program::need("initdb"))?;
    available(io_uring())?;
    available(Gate::new())?;
    // Built before anybody waits for it.
    available(intruder::program()).map(drop)
}

impl Fenced {
    fn new() -> Result<Self, String> {
        let network = Network::new(REGIONS.len())?;
        let start = |(site, region): (&Site, &&str)| {
            let name = format!("pg-{region}");
            let settings = [("listen_addresses", "*"), ("log_connections", "on")];
            let options = Options { name: &name, port: Some(PORT), connections_max: 100, settings: &settings, copy_of: None };
            site.namespace.inside(|| {
                let cluster = Cluster::start(&options)?;
                cluster.admit(&["10.77.0.0/16", "fd77::/16"])?;
                cluster.execute("postgres", "CREATE DATABASE demo")?;
                Ok(cluster)
            })
        };
        let clusters: Result<_, String> = network.sites.iter().zip(&REGIONS).map(start).collect();
        Ok(Self { network, clusters: clusters.unwrap_or_else(|error| panic!("{error}")) })
    }

    /// IPv4 packets that have come into a region, over the cable or from itself.
    fn arrived(&self, region: usize) -> u64 {
        let text = self.network.sites[region].namespace.run("cat", &["/proc/thread-self/net/snmp"]);
        let text = text.unwrap_or_else(|error| panic!("{error}"));
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "InReceives");
        found.and_then(|(_, value)| value.parse().ok()).expect("the kernel's counters")
    }

    /// Where the server of a region is, by IPv4.
    fn address(&self, region: usize) -> SocketAddr {
        SocketAddr::new(self.network.sites[region].addresses[0], PORT)
    }

    fn configuration(&self) -> Configuration {
        let node = |region: usize| (REGIONS[region], ["pg-eu-west", "pg-us-east"][region], self.address(region));
        // No probes: what is counted is what the test does.
        let quiet = Configuration::new(&[node(0), node(1)]);
        Configuration { pools: "size = 10\nprobe_interval = 0\n".to_owned(), ..quiet }
    }

    fn start(&self, gate: &Gate, mode: &str) -> Proxy {
        let configuration = gate.around(&self.configuration(), mode);
        self.network.edge.inside(|| Proxy::start(&configuration)).unwrap_or_else(|error| panic!("{error}"))
    }

    fn connect(&self, proxy: &Proxy) -> Client {
        self.network.edge.inside(|| proxy.connect())
    }

    /// What a process in the proxy's cgroup gets.
    fn intrude(&self, gate: &Gate, attempts: &[&str]) -> String {
        let place = Place { cgroup: Some(gate.cgroup()), unprivileged: true };
        self.network.edge.inside(|| intrude(place, attempts)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Connections that the server of a region has logged.
    fn connections(&self, region: usize) -> usize {
        self.clusters[region].log().lines().filter(|line| line.contains("connection received")).count()
    }
}

#[test]
fn what_is_permitted_passes_and_is_counted_as_the_cable_counts_it() {
    let Some(fenced) = fenced_alone() else { return };
    let gate = Gate::new().unwrap();
    let proxy = fenced.start(&gate, "required");
    let counted = || fenced.network.edge.counted(&fenced.network.sites[0].interface).unwrap();
    let (before, elsewhere) = (counted(), fenced.arrived(1));

    let mut client = fenced.connect(&proxy);
    client.query("SET helios.region = 'eu-west'");
    assert_eq!(client.query("SHOW cluster_name").value().as_deref(), Some("pg-eu-west"));
    // Something that weighs: a megabyte down, and a megabyte up.
    let rows = client.query("SELECT repeat('x', 1000) FROM generate_series(1, 1000)");
    assert!(rows.to_string().ends_with("C SELECT 1000 / Z I"));
    let long = "x".repeat(1 << 20);
    assert_eq!(client.query(&format!("SELECT length('{long}')")).value().as_deref(), Some("1048576"));
    drop(client);
    drop(proxy);

    let after = counted();
    assert_eq!(fenced.arrived(1), elsewhere, "not one packet has gone to us-east");
    let key = |direction: &str| {
        [
            ("region", number("eu-west").into()),
            ("node", number("pg-eu-west").into()),
            ("direction", direction.into()),
            ("verdict", "passed".into()),
        ]
    };
    // The cable counts an Ethernet header of 14 bytes with each packet, and what is no connection of ours: the neighbours' questions
    // for addresses, and what IPv6 says of itself.
    const HEADER: u64 = 14;
    for (direction, bytes, packets) in [("egress", 1, 3), ("ingress", 0, 2)] {
        let ours = [gate.flows("bytes", &key(direction)).unwrap(), gate.flows("packets", &key(direction)).unwrap()];
        let cables = [after[bytes] - before[bytes], after[packets] - before[packets]];
        assert!(ours[0] > 1_000_000, "{direction}: {ours:?}");
        let expected = ours[0] + HEADER * ours[1];
        assert!(cables[0] >= expected && cables[0] < expected + 2000, "{direction}: {ours:?}, and the cable says {cables:?}");
    }
    assert_eq!(gate.flows("flows", &key("connect")).unwrap(), 1);
}

#[test]
fn nothing_in_the_cgroup_gets_out() {
    let Some(fenced) = fenced() else { return };
    let gate = Gate::new().unwrap();
    let _proxy = fenced.start(&gate, "required");
    let before = fenced.connections(1);
    let (eu, us) = (number("eu-west"), number("us-east"));
    let to = |what: &str, region: usize| format!("{what}={}", fenced.address(region));
    let six = |what: &str, region: usize| format!("{what}=[{}]:{PORT}", fenced.network.sites[region].addresses[1]);
    let attempts = [
        // Without a tag, nowhere.
        to("connect", 0),
        to("uring", 0),
        to("mapped", 0),
        to("fastopen", 0),
        to("udp", 0),
        to("mptcp", 0),
        six("connect", 0),
        six("udp", 0),
        // With a tag, to its own region's nodes, and only there.
        to(&format!("{eu}:connect"), 0),
        to(&format!("{eu}:uring"), 0),
        to(&format!("{eu}:mapped"), 0),
        to(&format!("{eu}:connect"), 1),
        to(&format!("{eu}:uring"), 1),
        to(&format!("{eu}:mapped"), 1),
        to(&format!("{eu}:fastopen"), 1),
        to(&format!("{us}:connect"), 1),
        // The other address of the same host, and another port, are no node's.
        six(&format!("{eu}:connect"), 0),
        format!("{eu}:connect={}:{}", fenced.network.sites[0].addresses[0], PORT + 1),
        // A region that is none.
        to("12345:connect", 0),
        // A tag is for ever.
        to(&format!("{eu}:retag"), 0),
    ];
    let said = fenced.intrude(&gate, &attempts.each_ref().map(String::as_str));
    let became: Vec<&str> = said.lines().filter_map(|line| line.rsplit_once(": ")).map(|(_, became)| became).collect();
    let denied = "EPERM";
    let expected = [[denied; 8].as_slice(), &["done", "done", "done"], &[denied; 4], &["done"], &[denied; 4]].concat();
    assert_eq!(became, expected, "{said}");
    // One of them was allowed to go to us-east.
    let logged = wait_for(Duration::from_secs(5), || (fenced.connections(1) == before + 1).then_some(()));
    assert!(logged.is_some(), "{} connections have reached us-east", fenced.connections(1) - before);

    let denied = |region: u32| {
        gate.flows("flows", &[("region", region.into()), ("direction", "connect".into()), ("verdict", "denied".into())]).unwrap()
    };
    // Those without a tag, but for the socket that could not even be made.
    assert_eq!(denied(0), 7, "{said}");
    assert_eq!(denied(eu), 6, "{said}");
    assert_eq!(denied(12_345), 1, "{said}");
}

#[test]
fn a_socket_that_is_tagged_late_sends_nothing() {
    let Some(fenced) = fenced() else { return };
    let gate = Gate::new().unwrap();
    let _proxy = fenced.start(&gate, "required");
    // Somebody in us-east dials into the edge, and the edge says that this connection is eu-west's.
    let edge: SocketAddr = "10.77.2.1:7001".parse().unwrap();
    let (eu, us) = (number("eu-west"), number("us-east"));
    let late = |region: u32| {
        let dial = std::thread::spawn(move || {
            let site = &fenced.network.sites[1].namespace;
            let mut stream =
                wait_for(Duration::from_secs(20), || site.inside(|| std::net::TcpStream::connect(edge)).ok()).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut got = [0; 3];
            let read = std::io::Read::read_exact(&mut stream, &mut got);
            read.is_ok_and(|()| std::io::Write::write_all(&mut stream, &got).is_ok())
        });
        let said = fenced.intrude(&gate, &[&format!("{region}:late={edge}")]);
        (said, dial.join().unwrap())
    };
    let (said, arrived) = late(eu);
    assert!(!arrived && said.ends_with("nothing arrived\n"), "{said}");
    let dropped = |field: &str| {
        let key = [("region", eu.into()), ("direction", "egress".into()), ("verdict", "denied".into())];
        gate.flows(field, &key).unwrap()
    };
    assert!(dropped("packets") >= 1 && dropped("flows") == 1, "{:?}", gate.dump("flows"));
    // Not even as its own region's: nobody there is a node.
    let (said, arrived) = late(us);
    assert!(!arrived && said.ends_with("nothing arrived\n"), "{said}");
}

#[test]
fn a_proxy_that_connects_to_the_wrong_region_reaches_nobody() {
    let Some(fenced) = fenced_alone() else { return };
    let gate = Gate::new().unwrap();
    let configuration = gate.around(&fenced.configuration(), "required");
    let audit = std::env::temp_dir().join(format!("domicile-audit-{}", std::process::id()));
    std::fs::remove_file(&audit).ok();
    let configuration =
        Configuration { more: format!("{}[audit]\nfile = \"{}\"\n", configuration.more, audit.display()), ..configuration };
    let program = intruder::misrouting().unwrap_or_else(|error| panic!("{error}"));
    let proxy = fenced.network.edge.inside(|| Proxy::start_program(&program, &configuration)).unwrap();
    let before = fenced.arrived(1);
    let mut client = fenced.connect(&proxy);
    client.query("SET helios.region = 'eu-west'");
    let said = client.query("SELECT 1").to_string();
    assert_eq!(
        said,
        "E 08006 node \"pg-us-east\" of region \"eu-west\" cannot be reached: the fence does not let a connection of this \
         region go there / Z I"
    );
    assert_eq!(fenced.arrived(1), before, "not one packet has reached the wrong server");
    let record = wait_for(Duration::from_secs(5), || {
        let text = std::fs::read_to_string(&audit).ok()?;
        text.lines().find(|line| line.contains("fence_deny")).map(str::to_owned)
    });
    std::fs::remove_file(&audit).ok();
    let record = record.expect("an audit record");
    for part in ["\"region\":\"eu-west\"", "\"node\":\"pg-us-east\"", "\"address\":\"10.77.2.2:5432\"", "\"rule\":\"fence\""] {
        assert!(record.contains(part), "{part} is not in {record}");
    }
    assert!(!record.contains("\"session\":0,"), "{record}");
}

#[test]
fn denials_of_the_proxy_stand_in_the_same_place() {
    let Some(fenced) = fenced() else { return };
    let gate = Gate::new().unwrap();
    let proxy = {
        let rules = "unbound = \"block\"\n[[residency.bind]]\nuser = \"postgres\"\nregions = [\"eu-west\", \"nowhere\"]\n";
        let configuration = Configuration { residency: rules.to_owned(), ..fenced.configuration() };
        let mut configuration = gate.around(&configuration, "required");
        configuration.more += "[regions.nowhere]\n";
        configuration.users.push(("bob".to_owned(), "bob".to_owned()));
        fenced.network.edge.inside(|| Proxy::start(&configuration)).unwrap()
    };
    let mut client = fenced.connect(&proxy);
    client.query("SET helios.region = 'nowhere'");
    (0..3).for_each(|_| drop(client.query("SELECT 1")));
    (0..2).for_each(|_| drop(client.query("SET helios.region = 'us-east'")));
    client.query("SET helios.region = ''");
    client.query("SELECT 1");
    let bob = Login { user: "bob", password: "bob", ..Login::default() };
    assert!(fenced.network.edge.inside(|| proxy.login(&bob)).is_err());
    let denials = gate.dump("denials").unwrap();
    let of = |region: u32, reason: &str| {
        let found = denials.iter().find(|entry| entry["value"]["taken"] == 1 && entry["value"]["region"] == region);
        found.and_then(|entry| entry["value"][reason].as_u64())
    };
    assert_eq!(of(number("nowhere"), "no_node"), Some(3));
    assert_eq!(of(number("us-east"), "not_granted"), Some(2));
    assert_eq!((of(0, "no_region"), of(0, "unbound")), (Some(1), Some(1)));
    assert_eq!(of(number("eu-west"), "no_node"), Some(0));
}
