//! The configuration as a list of what may be connected to.
//!
//! A region's nodes, by address and port, for sockets that are tagged with the region; control addresses, for those that are not. Names
//! are resolved here, outside of the fence, so that nothing that the fenced process says of a name can widen the list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use domicile_ebpf_abi::{ALLOWED, CONTROL, Destination, NODES, TARGETS, Target, Targets};
use ipnet::IpNet;

use super::Absent;
use super::number::{clash, number};
use crate::config::{Address, Config, Node};

/// The system's name servers (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where they are asked.
const NAME_SERVICE: u16 = 53;
/// Stands for the Unix sockets of a region's nodes: a port that no address has, at the address that is none.
pub(super) const UNIX: u32 = 1 << 16;
/// Bits of a key before its address.
const REGION_BITS: u32 = 32;

/// What may be connected to: who, where, and what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AllowList {
    entries: BTreeMap<Network, Ports>,
}

/// A region, and a network in IPv6's terms: its address, and how many bits of that count.
type Network = (u32, [u8; 16], u8);
/// Ports, and which node is there.
type Ports = BTreeSet<(u32, u32)>;

/// A key of the kernel's map: bits that count, and the bits.
pub(super) type AllowKey = (u32, Destination);

impl AllowList {
    /// The list of a configuration. `resolve` gives the addresses of a host's name.
    ///
    /// # Errors
    /// It does not fit into the kernel's map, or two names have one number.
    pub(super) fn new(config: &Config, resolve: &dyn Fn(&str, u16) -> Vec<IpAddr>) -> Result<Self, Absent> {
        let names = config.nodes.iter().map(|node| node.name.as_str());
        let regions = config.regions.iter().map(|region| region.name.as_str());
        if let Some((one, other)) = clash(regions).or_else(|| clash(names)) {
            return Err(Absent::failed("numbering", format!("\"{one}\" and \"{other}\" have the same number: rename one")));
        }
        if config.nodes.len() > NODES {
            return Err(Absent::failed("the allow-list", format!("there are more than {NODES} nodes")));
        }
        let mut list = Self::default();
        for node in &config.nodes {
            list.add_node(node, resolve);
        }
        let by_name = |node: &Node| matches!(&node.address, Address::Tcp { host, .. } if host.parse::<IpAddr>().is_err());
        let control = config.kernel.control.clone().unwrap_or_else(|| {
            let is_asked = config.nodes.iter().any(by_name);
            if is_asked {
                fs::read_to_string(RESOLV_CONF).map(|text| name_servers(&text)).unwrap_or_default()
            } else {
                Vec::new()
            }
        });
        for address in control {
            list.add(CONTROL, IpNet::from(address.ip()), u32::from(address.port()), 0);
        }
        list.inherit();
        list.check()?;
        Ok(list)
    }

    /// The list in the kernel's map.
    pub(super) fn of_kernel(entries: impl IntoIterator<Item = (AllowKey, Targets)>) -> Self {
        let mut list = Self::default();
        for ((bits, destination), value) in entries {
            let bits = u8::try_from(bits.saturating_sub(REGION_BITS)).unwrap_or(u8::MAX);
            let targets = list.entries.entry((destination.region, destination.address, bits)).or_default();
            targets.extend(value.targets.iter().filter(|target| target.port != 0).map(|target| (target.port, target.node)));
        }
        list
    }

    fn add_node(&mut self, node: &Node, resolve: &dyn Fn(&str, u16) -> Vec<IpAddr>) {
        let (region, name) = (number(&node.region), number(&node.name));
        let (host, port) = match &node.address {
            Address::Tcp { host, port } => (host, port),
            Address::Unix { .. } => return self.add(region, IpNet::from(IpAddr::from([0_u16; 8])), UNIX, 0),
        };
        let networks = match host.parse::<IpAddr>() {
            Ok(address) => vec![IpNet::from(address)],
            // Where its name may lead was said, whatever it leads to now.
            Err(_) if !node.networks.is_empty() => node.networks.clone(),
            Err(_) => resolve(host, *port).into_iter().map(IpNet::from).collect(),
        };
        for network in networks {
            self.add(region, network, u32::from(*port), name);
        }
    }

    fn add(&mut self, region: u32, network: IpNet, port: u32, node: u32) {
        let (address, bits) = mapped(network);
        self.entries.entry((region, address, bits)).or_default().insert((port, node));
    }

    /// The kernel takes the longest prefix that fits and looks nowhere else, so each has what the shorter ones around it have.
    fn inherit(&mut self) {
        let networks: Vec<_> = self.entries.keys().copied().collect();
        for inner in &networks {
            let outer = networks.iter().filter(|outer| outer.0 == inner.0 && outer.2 < inner.2 && contains(outer, &inner.1));
            let targets: Vec<_> = outer.flat_map(|outer| self.entries.get(outer).cloned().unwrap_or_default()).collect();
            self.entries.entry(*inner).or_default().extend(targets);
        }
    }

    fn check(&self) -> Result<(), Absent> {
        let fails = |text: String| Err(Absent::failed("the allow-list", text));
        if self.entries.len() > ALLOWED {
            return fails(format!("it has more than {ALLOWED} addresses"));
        }
        if let Some(((_, address, _), _)) = self.entries.iter().find(|(_, targets)| targets.len() > TARGETS) {
            let address = IpAddr::from(*address).to_canonical();
            return fails(format!("more than {TARGETS} nodes of one region are at {address}"));
        }
        Ok(())
    }

    /// Also allows what the other one does.
    pub(super) fn widened_by(&self, other: &Self) -> Self {
        let mut wide = self.clone();
        for (key, targets) in &other.entries {
            wide.entries.entry(*key).or_default().extend(targets);
        }
        wide.inherit();
        wide
    }

    /// Whether it takes a place of more than the kernel has, as the sum of two lists may.
    pub(super) fn fits(&self) -> Result<(), Absent> {
        self.check()
    }

    /// As the kernel's map has it, with what stands for Unix sockets before all ports: the program for them looks nowhere else.
    pub(super) fn entries(&self) -> impl Iterator<Item = (AllowKey, Targets)> + '_ {
        self.entries.iter().map(|((region, address, bits), targets)| {
            let mut value = Targets::default();
            for (place, (port, node)) in value.targets.iter_mut().zip(targets.iter().rev()) {
                *place = Target { port: *port, node: *node };
            }
            ((REGION_BITS + u32::from(*bits), Destination { region: *region, address: *address }), value)
        })
    }

    /// How many addresses and networks it has.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Asks the system's resolver. A name that leads nowhere allows nothing.
pub(super) fn resolve(host: &str, port: u16) -> Vec<IpAddr> {
    match (host, port).to_socket_addrs() {
        Ok(addresses) => addresses.map(|address| address.ip()).collect(),
        Err(error) => {
            tracing::warn!(host, %error, "a node's name leads nowhere: the fence lets nothing to it");
            Vec::new()
        }
    }
}

/// A network in IPv6's terms: IPv4 is mapped (RFC 4291, 2.5.5.2).
fn mapped(network: IpNet) -> ([u8; 16], u8) {
    match network {
        IpNet::V4(network) => (network.network().to_ipv6_mapped().octets(), network.prefix_len() + 96),
        IpNet::V6(network) => (network.network().octets(), network.prefix_len()),
    }
}

fn contains(outer: &Network, address: &[u8; 16]) -> bool {
    let bits = u32::from(outer.2);
    let difference = u128::from_be_bytes(outer.1) ^ u128::from_be_bytes(*address);
    difference.leading_zeros() >= bits
}

/// The name servers of a resolv.conf; the one of this host if it names none, as the resolver has it.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let address = |line: &str| line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse().ok();
    let named: Vec<IpAddr> = text.lines().filter_map(address).collect();
    let servers = if named.is_empty() { vec![IpAddr::from([127, 0, 0, 1])] } else { named };
    servers.into_iter().map(|server| SocketAddr::new(server, NAME_SERVICE)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn config(nodes: &str) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.toml");
        let text = format!(
            "auth.method = \"trust\"\nresidency.unbound = \"client\"\nkernel.control = [\"10.9.9.9:53\"]\n[regions.eu]\n[regions.us]\n{nodes}"
        );
        fs::write(&path, text).unwrap();
        config::load(&path, &|_| None).unwrap()
    }

    fn node(name: &str, region: &str, address: &str, more: &str) -> String {
        format!("[[nodes]]\nname = \"{name}\"\nregion = \"{region}\"\naddress = \"{address}\"\n{more}\n")
    }

    /// The list as lines: region, address and bits, ports with nodes.
    fn shown(list: &AllowList) -> String {
        let names = [("eu", number("eu")), ("us", number("us")), ("control", CONTROL)];
        let nodes = ["a", "b", "c", "d"];
        let line = |((bits, destination), value): (AllowKey, Targets)| {
            let region = names.iter().find(|(_, number)| *number == destination.region).unwrap().0;
            let of = |node: u32| nodes.iter().find(|name| number(name) == node).copied().unwrap_or("-");
            let targets = value.targets.iter().filter(|target| target.port != 0);
            let targets: Vec<_> = targets.map(|target| format!("{}={}", target.port, of(target.node))).collect();
            format!("{region} {}/{} {}\n", IpAddr::from(destination.address), bits - REGION_BITS, targets.join(" "))
        };
        let mut lines: Vec<String> = list.entries().map(line).collect();
        lines.sort();
        lines.concat()
    }

    fn resolved(host: &str, _: u16) -> Vec<IpAddr> {
        if host == "db.example" { vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()] } else { Vec::new() }
    }

    #[test]
    fn each_region_has_its_nodes_and_nobody_else_has_the_control_addresses() {
        let nodes = [
            node("a", "eu", "127.0.0.1:5433", ""),
            node("b", "us", "127.0.0.1:5434", ""),
            node("c", "eu", "db.example:5432", ""),
            node("d", "us", "nowhere.example:5432", ""),
        ];
        let list = AllowList::new(&config(&nodes.concat()), &resolved).unwrap();
        expect_test::expect![[r#"
            control ::ffff:10.9.9.9/128 53=-
            eu ::ffff:10.0.0.7/128 5432=c
            eu ::ffff:127.0.0.1/128 5433=a
            eu fd00::7/128 5432=c
            us ::ffff:127.0.0.1/128 5434=b
        "#]]
        .assert_eq(&shown(&list));
    }

    #[test]
    fn networks_stand_for_names_and_hide_nothing_behind_longer_prefixes() {
        let nodes = [
            node("a", "eu", "db.example:5432", "networks = [\"10.0.0.0/24\", \"fd00::/64\"]"),
            node("b", "eu", "10.0.0.9:5433", ""),
            node("c", "us", "10.0.0.9:5432", ""),
        ];
        let list = AllowList::new(&config(&nodes.concat()), &resolved).unwrap();
        let text = shown(&list);
        assert!(text.contains("eu ::ffff:10.0.0.0/120 5432=a\n"), "{text}");
        assert!(text.contains("eu fd00::/64 5432=a\n"), "{text}");
        let at_9 = text.lines().find(|line| line.starts_with("eu ::ffff:10.0.0.9/128")).unwrap();
        assert!(at_9.contains("5432=a") && at_9.contains("5433=b"), "{at_9}");
        assert!(text.contains("us ::ffff:10.0.0.9/128 5432=c\n"), "{text}");
    }

    #[test]
    fn unix_sockets_stand_before_every_port_that_a_network_around_them_has() {
        let nodes = [
            node("a", "eu", "/run/postgresql", ""),
            node("b", "eu", "db.example:5432", "networks = [\"::/0\"]"),
            node("c", "us", "10.0.0.9:5432", ""),
        ];
        let list = AllowList::new(&config(&nodes.concat()), &resolved).unwrap();
        assert!(shown(&list).contains("eu ::/128 65536=- 5432=b\n"), "{}", shown(&list));
        assert!(shown(&list).contains("eu ::/0 5432=b\n") && !shown(&list).contains("us ::/"), "{}", shown(&list));
    }

    #[test]
    fn a_widened_list_allows_what_both_do() {
        let old = AllowList::new(&config(&node("a", "eu", "10.0.0.1:5432", "")), &resolved).unwrap();
        let new = AllowList::new(&config(&node("a", "eu", "10.0.0.2:5432", "")), &resolved).unwrap();
        let wide = shown(&new.widened_by(&old));
        assert!(wide.contains("10.0.0.1/128") && wide.contains("10.0.0.2/128"), "{wide}");
        assert!(!shown(&new).contains("10.0.0.1/128"));
    }

    #[test]
    fn too_many_nodes_at_one_address_are_refused() {
        let nodes: String = (0..=TARGETS).map(|n| node(&format!("n{n}"), "eu", &format!("10.0.0.1:{}", 5000 + n), "")).collect();
        let error = AllowList::new(&config(&nodes), &resolved).unwrap_err();
        assert_eq!(error.to_string(), "the allow-list: more than 16 nodes of one region are at 10.0.0.1");
    }

    #[test]
    fn name_servers_are_those_of_the_resolver() {
        let text = "# nameserver 1.1.1.1\nsearch example\nnameserver 10.0.0.2\n nameserver\tfd00::2 \noptions edns0\n";
        assert_eq!(name_servers(text), ["10.0.0.2:53".parse().unwrap(), "[fd00::2]:53".parse().unwrap()]);
        assert_eq!(name_servers(""), ["127.0.0.1:53".parse().unwrap()]);
    }
}
