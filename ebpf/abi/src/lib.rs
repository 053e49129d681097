//! What the fence's kernel programs and the proxy both know: the option that tags a socket, and the layout of every map.
//!
//! Names of fields are what `bpftool map dump` prints, so they are chosen for people. Numbers are in the host's byte order but for
//! addresses, which are IPv6 addresses in network order; an IPv4 address is its IPv4-mapped one (RFC 4291, 2.5.5.2), as the kernel
//! has it in a socket. Regions and nodes are numbered by their names (the first four bytes of SHA-256), so that whoever has a
//! configuration knows them; map `names` has the names. Nothing here decides anything.
//!
//! A change of a layout is a change of [`VERSION`]: maps outlive the process that made them.

#![no_std]

/// The version of these layouts; it stands in [`Policy::version`].
pub const VERSION: u32 = 1;

/// `level` of the setsockopt(2) by which a socket is tagged. No protocol has it, so that without the fence it is ENOPROTOOPT.
pub const TAG_LEVEL: i32 = 0x444f;
/// `optname` of it; `optval` is a [`Tag`].
pub const TAG_NAME: i32 = 1;

/// Regions whose denials can be counted.
pub const REGIONS: usize = 256;
/// Nodes that the fence can have, over all regions.
pub const NODES: usize = 4096;
/// Workers that the fence can tell apart.
pub const WORKERS: usize = 64;
/// Addresses that may be listened on with steering.
pub const LISTEN_ADDRESSES: usize = 16;
/// Ports that one address may have in a region.
pub const TARGETS: usize = 16;
/// Entries of the allow-list.
pub const ALLOWED: usize = 4096;
/// Bytes of the ring of events.
pub const EVENTS_BYTES: usize = 256 << 10;
/// The longest name of a region or a node, and a zero byte.
pub const NAME_BYTES: usize = 64;

/// The region of whoever has not tagged its socket: addresses that are no node's, such as name servers.
pub const CONTROL: u32 = 0;
/// The worker of a socket that no worker asked for.
pub const NO_WORKER: i32 = -1;

/// What a socket is for. It is said once, before connect(2), and stays for the socket's life.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// The region whose addresses the socket may be connected to.
    pub region: u32,
    /// The node that is meant. For what is counted when the connection is refused; what is allowed goes by the region.
    pub node: u32,
    /// The worker that asked for the connection, or [`NO_WORKER`].
    pub worker: i32,
    /// Always zero.
    pub reserved: u32,
    /// The session for which it was asked; 0 if for none.
    pub session: u64,
}

/// What the kernel knows of a tagged socket (map `sockets`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Socket {
    /// What it is for.
    pub tag: Tag,
    /// [`Policy::generation`] under which its peer was last found to be allowed; 0 if never.
    pub verified: u64,
    /// The node that its peer is, once verified.
    pub node: u32,
    /// Whether it has sent a packet that was dropped.
    pub dropped: u32,
    /// What it has sent.
    pub sent: Traffic,
    /// What it has received.
    pub received: Traffic,
}

/// Packets of a socket in one direction. They are added to map `flows` one by one at first, then [`BATCH`] at a time, and at its end: a
/// look-up in a hash table for each would be the greater part of what a packet costs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Packets so far.
    pub packets: u64,
    /// Packets that `flows` does not know of yet.
    pub uncounted: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Traffic {
    /// Nothing yet.
    pub const NONE: Self = Self { packets: 0, uncounted: 0, bytes: 0 };
}

/// See [`Traffic`].
pub const BATCH: u64 = 64;

/// Key of map `allow` (LPM trie), behind the length of its prefix in bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Who may go there.
    pub region: u32,
    /// To which address.
    pub address: [u8; 16],
}

/// Value of map `allow`: the ports of an address, in no order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Those of which the port is 0 are none.
    pub targets: [Target; TARGETS],
}

/// A port, and which node is there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The port.
    pub port: u32,
    /// The node; 0 is none (a control address).
    pub node: u32,
}

/// Which way something went that was counted.
#[allow(non_camel_case_types, reason = "bpftool prints the names of the variants")]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A connection that was opened, or a datagram that was addressed.
    connect = 0,
    /// A packet that was sent.
    egress = 1,
    /// A packet that was received.
    ingress = 2,
}

/// What became of it.
#[allow(non_camel_case_types, reason = "bpftool prints the names of the variants")]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It went through.
    passed = 0,
    /// It did not.
    denied = 1,
}

/// How something was denied.
#[allow(non_camel_case_types, reason = "bpftool prints the names of the variants")]
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// connect(2), or what does the same.
    connect = 0,
    /// A datagram without a connection.
    sendmsg = 1,
    /// A packet of a connection.
    egress = 2,
}

/// The kernel writes variants, which bpftool can name; who reads them from outside must not trust them to be some.
#[cfg(target_arch = "bpf")]
mod coded {
    pub type Direction = super::Direction;
    pub type Verdict = super::Verdict;
    pub type Hook = super::Hook;
}
#[cfg(not(target_arch = "bpf"))]
mod coded {
    pub type Direction = u32;
    pub type Verdict = u32;
    pub type Hook = u32;
}

/// Key of map `flows`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// The region of the tag, or [`CONTROL`].
    pub region: u32,
    /// The node that the address is; where nothing is allowed, the node that was meant.
    pub node: u32,
    /// The worker of the tag.
    pub worker: i32,
    /// A [`Direction`].
    pub direction: coded::Direction,
    /// A [`Verdict`].
    pub verdict: coded::Verdict,
}

/// Value of map `flows`, one per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Connections.
    pub flows: u64,
    /// Packets, as the IP layer sees them: a segment that is cut up later is one.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
}

/// Value of map `denials`, one a region: statements and logins that were denied there before they came near a socket. Written by the
/// proxy, through mapped memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Denials {
    /// The region, or [`CONTROL`] where none was named or it is no region of the configuration; see [`Denials::taken`].
    pub region: u32,
    /// Whether this is some region's at all.
    pub taken: u32,
    /// No region is set.
    pub no_region: u64,
    /// The region has no node.
    pub no_node: u64,
    /// The region is outside the session's grant.
    pub not_granted: u64,
    /// No rule admits the login.
    pub unbound: u64,
    /// A guard denies the statement.
    pub guarded: u64,
    /// The proxy has broken a rule of its own.
    pub stale_grant: u64,
    /// It would have been denied if residency were enforced; it was served.
    pub would_block: u64,
}

/// What map `events` (ring buffer) says of a denied connect, or of the first packet of a socket that was dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub nanoseconds: u64,
    /// The kernel's cookie of the socket (SO_COOKIE).
    pub cookie: u64,
    /// The session of the tag.
    pub session: u64,
    /// The region of the tag, or [`CONTROL`].
    pub region: u32,
    /// The node of the tag.
    pub node: u32,
    /// The worker of the tag.
    pub worker: i32,
    /// The process; 0 for a packet, which is nobody's.
    pub process: u32,
    /// A [`Hook`].
    pub hook: coded::Hook,
    /// The port.
    pub port: u32,
    /// The address.
    pub address: [u8; 16],
}

/// Value of map `nodes`, by node.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Connections that were established.
    pub established: u64,
    /// Those of them that are closed.
    pub closed: u64,
    /// The smoothed round-trip time that a connection of it had last, in microseconds.
    pub srtt_us: u32,
    /// The region.
    pub region: u32,
}

/// Value of map `policy`; there is one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Counts the allow-lists that took something away: what was verified under an older one is verified again.
    pub generation: u64,
    /// SHA-256 of the configuration file that the allow-list was made from.
    pub digest: [u8; 32],
    /// [`VERSION`] of who wrote it.
    pub version: u32,
    /// `FLAG_…`.
    pub flags: u32,
}

/// In [`Policy::flags`]: the allow-list holds more than its configuration says, until [`Policy::generation`] goes on.
pub const FLAG_WIDENED: u32 = 1;

/// Key of map `names`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NameKey {
    /// [`NAME_OF_REGION`] or [`NAME_OF_NODE`].
    pub kind: u32,
    /// Its number.
    pub number: u32,
}

/// See [`NameKey::kind`].
pub const NAME_OF_REGION: u32 = 1;
/// See [`NameKey::kind`].
pub const NAME_OF_NODE: u32 = 2;

/// Value of map `names`: UTF-8, filled up with zero bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// The text.
    pub name: [u8; NAME_BYTES],
}

/// Value of map `workers`, by worker: how many clients it has. Its load is `sessions + steered - accepted`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worker {
    /// Connections of clients that it has; written by the proxy.
    pub sessions: i64,
    /// Connections that were steered to it; written by the kernel.
    pub steered: u64,
    /// Those of them that it has accepted, or that came to nothing; written by the proxy.
    pub accepted: u64,
}

/// Value of map `steering`; there is one, written by the proxy.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// `STEER_BY_…`.
    pub by: u32,
    /// Workers that take clients; 0 leaves it to the kernel.
    pub workers: u32,
    /// Addresses that they listen on.
    pub addresses: u32,
    /// Always zero.
    pub reserved: u32,
}

/// In [`Steering::by`]: to the worker with the fewest clients.
pub const STEER_BY_LOAD: u32 = 0;
/// In [`Steering::by`]: to the worker of the CPU that the client's first packet came in on.
pub const STEER_BY_CPU: u32 = 1;

#[cfg(feature = "user")]
mod user {
    // SAFETY: numbers and arrays of numbers, without padding: every pattern of bytes is a value.
    unsafe impl aya::Pod for super::Destination {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Targets {}
    // SAFETY: as above; outside of the kernel, what is coded is a number.
    unsafe impl aya::Pod for super::FlowKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Flow {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Denials {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Node {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Policy {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::NameKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Name {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Worker {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Steering {}
}

const _: () = {
    assert!(size_of::<Tag>() == 24);
    assert!(size_of::<Socket>() == 88);
    assert!(size_of::<Destination>() == 20);
    assert!(size_of::<Targets>() == 128);
    assert!(size_of::<FlowKey>() == 20);
    assert!(size_of::<Flow>() == 24);
    assert!(size_of::<Denials>() == 64);
    assert!(size_of::<Event>() == 64);
    assert!(size_of::<Node>() == 24);
    assert!(size_of::<Policy>() == 48);
    assert!(size_of::<NameKey>() == 8);
    assert!(size_of::<Name>() == NAME_BYTES);
    assert!(size_of::<Worker>() == 24);
    assert!(size_of::<Steering>() == 16);
};
