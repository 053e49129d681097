//! The fence, as it is shown: whether it is there, and what the kernel has counted.

/// The fence at one moment.
#[derive(Clone, Debug, Default)]
pub struct FenceSample {
    /// `required`, `preferred` or `off`.
    pub mode: &'static str,
    /// Why it is not there, in a word and in a sentence; nothing if it is.
    pub absent: Option<(&'static str, String)>,
    /// Where its maps are.
    pub pins: String,
    /// What they say; nothing if they cannot be read.
    pub counted: Option<FenceCounts>,
}

/// What the kernel has counted, and whose list it goes by.
#[derive(Clone, Debug, Default)]
pub struct FenceCounts {
    /// Counts the lists that took something away.
    pub generation: u64,
    /// SHA-256 of the configuration that the list was made from, in hexadecimal.
    pub digest: String,
    /// The list holds more than that configuration says.
    pub widened: bool,
    /// Addresses and networks that are allowed.
    pub addresses: usize,
    /// What went through and what did not.
    pub flows: Vec<FlowSample>,
    /// Connections of each node.
    pub nodes: Vec<FencedNode>,
}

/// What was counted of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowSample {
    /// The region of the connection, or `control`.
    pub region: String,
    /// The node; "" where none is known.
    pub node: String,
    /// The worker; −1 where none asked for it.
    pub worker: i32,
    /// `connect`, `egress` or `ingress`.
    pub direction: &'static str,
    /// `passed` or `denied`.
    pub verdict: &'static str,
    /// Connections.
    pub flows: u64,
    /// Packets.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
}

/// The connections of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FencedNode {
    /// Its region.
    pub region: String,
    /// Its name.
    pub node: String,
    /// Connections that were established.
    pub established: u64,
    /// Those of them that are closed.
    pub closed: u64,
    /// The smoothed round-trip time that one had last, in microseconds; 0 if none had any.
    pub srtt_us: u32,
}
