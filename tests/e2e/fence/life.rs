//! How a fence comes, stays, changes and goes.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use domicile_tests::client::Client;
use domicile_tests::gate::{self, Gate, number};
use domicile_tests::intruder::{Place, intrude};
use domicile_tests::process::wait_for;
use domicile_tests::proxy::{Configuration, Proxy};
use domicile_tests::skip::available;
use rustix::process::Signal;

use super::{PORT, fenced};

/// As long as something may take that is looked for every two seconds.
const NOTICED: Duration = Duration::from_secs(10);

fn ask(client: &mut Client, region: &str) -> String {
    client.query(&format!("SET helios.region = '{region}'"));
    let said = client.query("SHOW cluster_name");
    said.value().unwrap_or_else(|| said.to_string())
}

const SERVED_BY_EU: &str = "pg-eu-west";

#[test]
fn it_outlives_a_proxy_that_was_killed() {
    let Some(fenced) = fenced() else { return };
    let gate = Gate::new().unwrap();
    let mut proxy = fenced.start(&gate, "required");
    proxy.signal(Signal::KILL);
    assert!(proxy.wait(NOTICED).is_some());
    let (eu, us) = (number("eu-west"), fenced.address(1));
    let attempts = [format!("connect={us}"), format!("{eu}:connect={us}"), format!("{eu}:connect={}", fenced.address(0))];
    let said = fenced.intrude(&gate, &attempts.each_ref().map(String::as_str));
    let became: Vec<&str> = said.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(became, ["EPERM", "EPERM", "done"], "{said}");
    // A new proxy finds it, with what it has counted, and replaces its programs.
    let again = fenced.start(&gate, "required");
    // Linux has connect_unix since 6.7.
    assert!(["replaced=9 ", "replaced=10"].iter().any(|all| again.log().contains(all)), "{}", again.log());
    assert!(gate.flows("flows", &[("region", 0.into()), ("verdict", "denied".into())]).unwrap() >= 1);
    assert_eq!(ask(&mut fenced.connect(&again), "eu-west"), SERVED_BY_EU);
}

#[test]
fn a_proxy_without_privileges_is_fenced_in_by_whoever_has_them() {
    let Some(fenced) = fenced() else { return };
    let gate = Gate::new().unwrap();
    // The group of the one who will run it may read the counters.
    let mut configuration = gate.around(&fenced.configuration(), "required");
    configuration.top += "user = \"nobody\"\n";
    let directory = domicile_tests::process::Scratch::new().unwrap();
    let prepared = fenced.network.edge.inside(|| Proxy::prepare(&configuration, &directory)).unwrap();
    let said = gate::command(&["install"], prepared.file()).unwrap();
    assert!(said.starts_with("The fence is installed: whatever runs in "), "{said}");
    let proxy = fenced.network.edge.inside(|| prepared.start_as_nobody(Some(gate.cgroup()))).unwrap();
    assert_eq!(ask(&mut fenced.connect(&proxy), "eu-west"), SERVED_BY_EU);
    let (status, text) = fenced.network.edge.inside(|| proxy.http("/readyz")).unwrap();
    assert_eq!((status, text.as_str()), (200, "ready\n"));
    let passed = [("region", number("eu-west").into()), ("direction", "connect".into()), ("verdict", "passed".into())];
    assert_eq!(gate.flows("flows", &passed).unwrap(), 1);
    drop(proxy);
    let said = gate::command(&["remove"], prepared.file()).unwrap();
    assert_eq!(said, "The fence is gone, and its counters with it.\n");
    assert!(!gate.pins().exists() && !gate.cgroup().exists());
}

#[test]
fn without_it_a_proxy_that_requires_it_does_not_start() {
    let Some(fenced) = fenced() else { return };
    let gate = Gate::new().unwrap();
    let directory = domicile_tests::process::Scratch::new().unwrap();
    let start = |mode: &str| {
        let configuration = gate.around(&fenced.configuration(), mode);
        let prepared = fenced.network.edge.inside(|| Proxy::prepare(&configuration, &directory)).unwrap();
        fenced.network.edge.inside(|| prepared.start_as_nobody(None))
    };
    let error = start("required").err().unwrap();
    assert!(error.contains("fence = \"required\", but this process lacks CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"), "{error}");
    let proxy = start("preferred").unwrap();
    assert_eq!(ask(&mut fenced.connect(&proxy), "eu-west"), SERVED_BY_EU);
    let (status, text) = fenced.network.edge.inside(|| proxy.http("/readyz")).unwrap();
    assert!(status == 200 && text.starts_with("ready; there is no fence: this process lacks CAP_BPF"), "{text}");
    let (_, metrics) = fenced.network.edge.inside(|| proxy.http("/metrics")).unwrap();
    assert!(metrics.contains("domicile_fence_up{mode=\"preferred\"} 0"), "{metrics}");
    assert!(metrics.contains("domicile_fence_absent{reason=\"no_capability\"} 1"), "{metrics}");
    assert!(proxy.log().contains("there is no fence"), "{}", proxy.log());
}

#[test]
fn that_it_goes_away_is_noticed_and_nothing_new_is_opened_if_it_is_required() {
    let Some(fenced) = fenced() else { return };
    let gate = Gate::new().unwrap();
    let proxy = fenced.start(&gate, "required");
    let mut client = fenced.connect(&proxy);
    assert_eq!(ask(&mut client, "eu-west"), SERVED_BY_EU);
    gate.remove();
    let noticed = wait_for(NOTICED, || {
        let (status, text) = fenced.network.edge.inside(|| proxy.http("/readyz")).ok()?;
        (status == 503).then_some(text)
    });
    assert_eq!(
        noticed.as_deref(),
        Some(
            "the fence is required, but the fence was there and is not any more: its cgroup was removed, or its links were detached\n"
        )
    );
    let said = ask(&mut client, "us-east");
    assert_eq!(
        said,
        "E 08006 node \"pg-us-east\" of region \"us-east\" cannot be reached: the fence is required, and it is not there / Z I"
    );
}

#[test]
fn a_reload_lets_new_servers_in_before_they_are_used_and_old_ones_out_when_they_are_not() {
    let Some(fenced) = fenced() else { return };
    let gate = Gate::new().unwrap();
    let proxy = fenced.start(&gate, "required");
    let mut client = fenced.connect(&proxy);
    assert_eq!(ask(&mut client, "eu-west"), SERVED_BY_EU);
    // The European server is reached by its other address from now on.
    let [four, six] = fenced.network.sites[0].addresses.map(|address| SocketAddr::new(address, PORT));
    let configuration = fenced.configuration();
    let nodes = configuration.nodes.iter().map(|(region, name, address)| {
        let address = if *address == four.to_string() { six.to_string() } else { address.clone() };
        (region.clone(), name.clone(), address)
    });
    let moved = gate.around(&Configuration { nodes: nodes.collect(), ..configuration }, "required");
    // Somebody is in the middle of something there.
    client.query("BEGIN");
    client.query("SELECT 1");
    proxy.configure(&moved).unwrap();
    proxy.signal(Signal::HUP);
    assert!(wait_for(NOTICED, || proxy.log().contains("has been reloaded").then_some(())).is_some(), "{}", proxy.log());
    let mut other = fenced.connect(&proxy);
    assert_eq!(ask(&mut other, "eu-west"), SERVED_BY_EU);
    let eu = number("eu-west");
    let reaches = |address: SocketAddr| fenced.intrude(&gate, &[&format!("{eu}:connect={address}")]).ends_with(": done\n");
    assert!(reaches(six) && reaches(four), "both are allowed while the old one is used");
    assert_eq!(client.query("SELECT 2").value().as_deref(), Some("2"), "the transaction goes on");
    client.query("COMMIT");
    let narrowed = wait_for(NOTICED, || (!reaches(four)).then_some(()));
    assert!(narrowed.is_some(), "the old address is still allowed: {}", proxy.log());
    assert!(reaches(six));
    assert_eq!(ask(&mut client, "eu-west"), SERVED_BY_EU);
}

#[test]
fn reloads_that_come_all_at_once_cut_nobody_off() {
    let Some(fenced) = fenced() else { return };
    let gate = Gate::new().unwrap();
    let proxy = fenced.start(&gate, "required");
    let mut client = fenced.connect(&proxy);
    assert_eq!(ask(&mut client, "eu-west"), SERVED_BY_EU);
    client.query("BEGIN");
    client.query("SELECT 1");
    // The node is reached by another address, and at last by none.
    let [four, six] = fenced.network.sites[0].addresses.map(|address| SocketAddr::new(address, PORT));
    let configuration = fenced.configuration();
    let with = |eu: Option<SocketAddr>| {
        let nodes = configuration.nodes.iter().filter_map(|(region, name, address)| {
            let address = if *address == four.to_string() { eu?.to_string() } else { address.clone() };
            Some((region.clone(), name.clone(), address))
        });
        let more = if eu.is_none() { "[regions.eu-west]\n" } else { "" };
        let configuration = Configuration { nodes: nodes.collect(), more: more.to_owned(), ..configuration.clone() };
        gate.around(&configuration, "required")
    };
    for (round, pool) in (5..15).enumerate() {
        let next = Configuration { pools: format!("size = {pool}\nprobe_interval = 0\n"), ..with(Some(six)) };
        proxy.configure(&next).unwrap();
        proxy.signal(Signal::HUP);
        // What was begun at the old address goes on, however often the rest changes.
        assert_eq!(client.query("SELECT 2").value().as_deref(), Some("2"), "round {round}: {}", proxy.log());
    }
    client.query("COMMIT");
    let reaches =
        |address: SocketAddr| fenced.intrude(&gate, &[&format!("{}:connect={address}", number("eu-west"))]).ends_with(": done\n");
    assert!(wait_for(NOTICED, || (!reaches(four) && reaches(six)).then_some(())).is_some(), "{}", proxy.log());
    assert_eq!(ask(&mut client, "eu-west"), SERVED_BY_EU);
    assert!(!proxy.log().contains("ERROR"), "{}", proxy.log());
    // Without any node the region is denied, and the kernel lets nobody there.
    proxy.configure(&with(None)).unwrap();
    proxy.signal(Signal::HUP);
    assert!(wait_for(NOTICED, || (!reaches(six)).then_some(())).is_some(), "{}", proxy.log());
}

#[test]
fn privileges_are_gone_once_it_is_up() {
    let Some(fenced) = fenced() else { return };
    let gate = Gate::new().unwrap();
    let mut configuration = gate.around(&fenced.configuration(), "required");
    configuration.top += "user = \"nobody\"\n";
    configuration.method = "trust";
    let proxy = fenced.network.edge.inside(|| Proxy::start(&configuration)).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.id())).unwrap();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert_eq!(line("Uid:"), "Uid:\t65534\t65534\t65534\t65534");
    for sets in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert!(line(sets).ends_with("0000000000000000"), "{status}");
    }
    assert_eq!(line("NoNewPrivs:"), "NoNewPrivs:\t1");
    // It is fenced in, counts, and can be reloaded all the same.
    assert_eq!(ask(&mut fenced.connect(&proxy), "eu-west"), SERVED_BY_EU);
    let (_, metrics) = fenced.network.edge.inside(|| proxy.http("/metrics")).unwrap();
    let connection = "domicile_fence_connections_total{region=\"eu-west\",node=\"pg-eu-west\",verdict=\"passed\"} 1";
    assert!(metrics.contains("domicile_fence_up{mode=\"required\"} 1") && metrics.contains(connection), "{metrics}");
    proxy.signal(Signal::HUP);
    assert!(wait_for(NOTICED, || proxy.log().contains("has been reloaded").then_some(())).is_some(), "{}", proxy.log());
}

#[test]
fn what_is_stopped_is_shown_as_it_happens_and_in_words() {
    let Some(fenced) = fenced() else { return };
    let gate = Gate::new().unwrap();
    let proxy = fenced.start(&gate, "required");
    let watch = Command::new(domicile_tests::proxy::binary().unwrap())
        .args(["fence", "watch", "--config"])
        .arg(proxy.file())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut watch = Child(watch);
    // It shows what comes after it has begun, so something comes until it has shown one.
    let (sender, lines) = std::sync::mpsc::channel();
    let output = watch.0.stdout.take().unwrap();
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(output)).map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let shown = wait_for(NOTICED, || {
        fenced.intrude(&gate, &[&format!("{}:connect={}", number("eu-west"), fenced.address(1))]);
        lines.recv_timeout(Duration::from_millis(300)).ok()
    });
    let shown = shown.expect("a line");
    assert!(shown.starts_with("connect to 10.77.2.2:5432 denied: region eu-west, process "), "{shown}");
    // The proxy has recorded it too, although somebody has looked on.
    let recorded = wait_for(NOTICED, || proxy.log().contains("fence_deny").then_some(()));
    assert!(recorded.is_some(), "{}", proxy.log());
    let status = gate::command(&["status"], proxy.file()).unwrap();
    let region = status.lines().find(|line| line.trim_start().starts_with("eu-west")).unwrap_or_default();
    let numbers: Vec<&str> = region.split_whitespace().collect();
    assert!(numbers.get(2).is_some_and(|refused| *refused != "0"), "{status}");
}

/// Ends with the test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn unix_sockets_are_for_regions_that_have_a_node_on_one() {
    let Some(fenced) = fenced() else { return };
    let gate = Gate::new().unwrap();
    let configuration = fenced.configuration();
    let directory = fenced.clusters[0].socket_directory().display().to_string();
    let nodes = configuration.nodes.iter().map(|(region, name, address)| {
        let address = if region == "eu-west" { &directory } else { address };
        (region.clone(), name.clone(), address.clone())
    });
    let local = Configuration { nodes: nodes.collect(), ..configuration };
    let proxy = fenced.network.edge.inside(|| Proxy::start(&gate.around(&local, "required"))).unwrap();
    let hooked = gate.pins().join("link_connect_unix").exists();
    let Some(()) = available(hooked.then_some(()).ok_or_else(|| "Linux 6.7, for cgroup/connect_unix".to_owned())) else { return };
    assert_eq!(ask(&mut fenced.connect(&proxy), "eu-west"), SERVED_BY_EU);
    let path = format!("{directory}/.s.PGSQL.{PORT}");
    let (eu, us) = (number("eu-west"), number("us-east"));
    // What stands for Unix sockets in the list opens no door to an address: [::] is this host.
    let attempts =
        [format!("unix={path}"), format!("{us}:unix={path}"), format!("{eu}:unix={path}"), format!("{eu}:connect=[::]:{PORT}")];
    let said = fenced.intrude(&gate, &attempts.each_ref().map(String::as_str));
    let became: Vec<&str> = said.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(became, ["EPERM", "EPERM", "done", "EPERM"], "{said}");
}

#[test]
fn whoever_is_outside_of_the_cgroup_is_not_concerned() {
    let Some(fenced) = fenced() else { return };
    let gate = Gate::new().unwrap();
    let _proxy = fenced.start(&gate, "required");
    let outside = Place { cgroup: None, unprivileged: true };
    let attempts = [format!("connect={}", fenced.address(1)), format!("1:connect={}", fenced.address(1))];
    let said = fenced.network.edge.inside(|| intrude(outside, &attempts.each_ref().map(String::as_str))).unwrap();
    let became: Vec<&str> = said.lines().filter_map(|line| line.rsplit(' ').next()).collect();
    assert_eq!(became, ["done", "ENOPROTOOPT"], "{said}");
}
