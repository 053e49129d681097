//! What the maps say, read once: for `domicile fence status`, SHOW FENCE and `/metrics`.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap as KernelMap, Map, MapData, MapError, PerCpuHashMap};
use domicile_ebpf_abi::{
    CONTROL, Denials, Destination, Direction, FLAG_WIDENED, Flow, FlowKey, NAME_OF_NODE, NAME_OF_REGION, Name, NameKey, Node,
    Policy, REGIONS, Targets, Verdict,
};

use super::keeper::shown;
use super::object::with_causes;
use super::sys::{self, Access};
use crate::observe::{FenceCounts, FencedNode, FlowSample};

/// What sockets without a tag are shown under.
pub const CONTROL_NAME: &str = "control";

/// What the maps said at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Whose list it is.
    pub generation: u64,
    /// SHA-256 of that configuration file.
    pub digest: [u8; 32],
    /// The list holds more than that configuration says.
    pub widened: bool,
    /// Addresses and networks that are allowed.
    pub addresses: usize,
    /// What was counted, in the order of the names.
    pub flows: BTreeMap<FlowName, Flow>,
    /// What the proxy has denied, by region; "" is none.
    pub denials: BTreeMap<String, Denials>,
    /// Connections and round-trip times, by region and node.
    pub nodes: BTreeMap<(String, String), Node>,
}

/// Whose packets were counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowName {
    /// The region of the tag, or [`CONTROL_NAME`].
    pub region: String,
    /// The node; "" where none is known.
    pub node: String,
    /// The worker; −1 where none is known.
    pub worker: i32,
    /// `connect`, `egress` or `ingress`.
    pub direction: &'static str,
    /// `passed` or `denied`.
    pub verdict: &'static str,
}

/// What the numbers of regions and nodes stand for.
#[derive(Clone, Debug, Default)]
pub struct Names(HashMap<(u32, u32), String>);

impl Names {
    /// Reads them.
    ///
    /// # Errors
    /// The map cannot be opened or read.
    pub fn read(pins: &Path) -> io::Result<Self> {
        let map: KernelMap<_, NameKey, Name> = KernelMap::try_from(open(pins, "names", Map::HashMap)?).map_err(failed)?;
        let mut names = HashMap::new();
        for entry in map.iter() {
            let (key, name) = entry.map_err(failed)?;
            let text = name.name.split(|byte| *byte == 0).next().unwrap_or_default();
            names.insert((key.kind, key.number), String::from_utf8_lossy(text).into_owned());
        }
        Ok(Self(names))
    }

    /// The name of a region; its number if it has none.
    pub fn region(&self, number: u32) -> String {
        if number == CONTROL { CONTROL_NAME.to_owned() } else { self.of(NAME_OF_REGION, number) }
    }

    /// The name of a node; its number if it has none, nothing if there is no node.
    pub fn node(&self, number: u32) -> String {
        if number == 0 { String::new() } else { self.of(NAME_OF_NODE, number) }
    }

    fn of(&self, kind: u32, number: u32) -> String {
        self.0.get(&(kind, number)).cloned().unwrap_or_else(|| format!("{number:#010x}"))
    }
}

impl Reading {
    /// Reads the maps that are pinned in a directory.
    ///
    /// # Errors
    /// One cannot be opened or read.
    pub fn take(pins: &Path) -> io::Result<Self> {
        let names = Names::read(pins)?;
        let policy = Self::policy(pins)?;
        let allow: LpmTrie<_, Destination, Targets> = LpmTrie::try_from(open(pins, "allow", Map::LpmTrie)?).map_err(failed)?;
        Ok(Self {
            generation: policy.generation,
            digest: policy.digest,
            widened: policy.flags & FLAG_WIDENED != 0,
            addresses: allow.keys().count(),
            flows: flows(pins, &names)?,
            denials: denials(pins, &names)?,
            nodes: nodes(pins, &names)?,
        })
    }

    /// As it is shown beside everything else.
    pub(super) fn counts(self) -> FenceCounts {
        let flow = |(name, flow): (FlowName, Flow)| FlowSample {
            region: name.region,
            node: name.node,
            worker: name.worker,
            direction: name.direction,
            verdict: name.verdict,
            flows: flow.flows,
            packets: flow.packets,
            bytes: flow.bytes,
        };
        let node = |((region, node), counts): ((String, String), Node)| FencedNode {
            region,
            node,
            established: counts.established,
            closed: counts.closed,
            srtt_us: counts.srtt_us,
        };
        FenceCounts {
            generation: self.generation,
            digest: shown(&self.digest),
            widened: self.widened,
            addresses: self.addresses,
            flows: self.flows.into_iter().map(flow).collect(),
            nodes: self.nodes.into_iter().map(node).collect(),
        }
    }

    /// Whose list is pinned in a directory.
    pub(super) fn policy(pins: &Path) -> io::Result<Policy> {
        let policy: Array<_, Policy> = Array::try_from(open(pins, "policy", Map::Array)?).map_err(failed)?;
        policy.get(&0, 0).map_err(failed)
    }
}

fn flows(pins: &Path, names: &Names) -> io::Result<BTreeMap<FlowName, Flow>> {
    let map: PerCpuHashMap<_, FlowKey, Flow> =
        PerCpuHashMap::try_from(open(pins, "flows", Map::PerCpuHashMap)?).map_err(failed)?;
    let mut flows = BTreeMap::<_, Flow>::new();
    for entry in map.iter() {
        let (key, values) = entry.map_err(failed)?;
        let name = FlowName {
            region: names.region(key.region),
            node: names.node(key.node),
            worker: key.worker,
            direction: direction(key.direction),
            verdict: verdict(key.verdict),
        };
        let sum = flows.entry(name).or_default();
        for value in values.iter() {
            sum.flows += value.flows;
            sum.packets += value.packets;
            sum.bytes += value.bytes;
        }
    }
    Ok(flows)
}

fn denials(pins: &Path, names: &Names) -> io::Result<BTreeMap<String, Denials>> {
    let map: Array<_, Denials> = Array::try_from(open(pins, "denials", Map::Array)?).map_err(failed)?;
    let mut denials = BTreeMap::new();
    for place in 0..u32::try_from(REGIONS).unwrap_or_default() {
        let found = map.get(&place, 0).map_err(failed)?;
        if found.taken == 0 {
            break;
        }
        let region = if found.region == CONTROL { String::new() } else { names.region(found.region) };
        denials.insert(region, found);
    }
    Ok(denials)
}

fn nodes(pins: &Path, names: &Names) -> io::Result<BTreeMap<(String, String), Node>> {
    let map: KernelMap<_, u32, Node> = KernelMap::try_from(open(pins, "nodes", Map::HashMap)?).map_err(failed)?;
    let entries = map.iter().map(|entry| {
        let (number, node) = entry.map_err(failed)?;
        Ok(((names.region(node.region), names.node(number)), node))
    });
    entries.collect()
}

fn direction(code: u32) -> &'static str {
    const CONNECT: u32 = Direction::connect as u32;
    const EGRESS: u32 = Direction::egress as u32;
    match code {
        CONNECT => "connect",
        EGRESS => "egress",
        _ => "ingress",
    }
}

fn verdict(code: u32) -> &'static str {
    if code == Verdict::passed as u32 { "passed" } else { "denied" }
}

fn open(pins: &Path, name: &str, kind: fn(MapData) -> Map) -> io::Result<Map> {
    let path = pins.join(name);
    let descriptor =
        sys::open(&path, Access::Read).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    MapData::from_fd(descriptor).map(kind).map_err(failed)
}

fn failed(error: MapError) -> io::Error {
    io::Error::other(with_causes(&error))
}
