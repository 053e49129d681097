//! May a socket go there? And the counting and telling of the answer.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_socket_cookie, bpf_ktime_get_ns};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::SockAddrContext;
use domicile_ebpf_abi::{
    BATCH, CONTROL, Destination, Direction, Event, Flow, FlowKey, Hook, NO_WORKER, Socket, TARGETS, Tag, Traffic, Verdict,
};

use crate::maps::{ALLOW, EVENTS, FLOWS, known};

/// An address as the maps have it: network order, IPv4 mapped into IPv6.
pub type Address = [u32; 4];

/// What the tag of a socket without one would be.
pub const UNTAGGED: Tag = Tag { region: CONTROL, node: 0, worker: NO_WORKER, reserved: 0, session: 0 };

const BITS: u32 = 8 * size_of::<Destination>() as u32;

/// The IPv4-mapped IPv6 address.
#[inline(always)]
pub fn mapped(address: u32) -> Address {
    [0, 0, 0xffff_u32.to_be(), address]
}

/// Which node is there, if the region may go there; 0 is a control address.
#[inline(always)]
pub fn target(region: u32, address: Address, port: u16) -> Option<u32> {
    let key = Key::new(BITS, Destination { region, address: bytes(address) });
    let found = ALLOW.get(&key)?;
    let mut place = 0;
    while place < TARGETS {
        let target = found.targets[place];
        if target.port == port as u32 && port != 0 {
            return Some(target.node);
        }
        place += 1;
    }
    None
}

#[inline(always)]
fn bytes(address: Address) -> [u8; 16] {
    // SAFETY: both are 16 bytes, of which every pattern is a value.
    unsafe { core::mem::transmute(address) }
}

/// Adds to what is counted on this CPU.
#[inline(always)]
pub fn count(key: FlowKey, flows: u64, packets: u64, bytes: u64) {
    if let Some(flow) = FLOWS.get_ptr_mut(&key) {
        // SAFETY: the kernel has just given this pointer, and nobody else writes this CPU's part while this program runs; an
        // interrupt may, and a count is lost then.
        let flow = unsafe { &mut *flow };
        flow.flows += flows;
        flow.packets += packets;
        flow.bytes += bytes;
    } else {
        // That it is full loses a count, and no packet.
        let _ = FLOWS.insert(&key, Flow { flows, packets, bytes }, 0);
    }
}

/// Notes a packet of a socket, and adds what it is time for to the counters.
#[inline(always)]
pub fn note(traffic: &mut Traffic, key: FlowKey, flows: u64, bytes: u64) {
    traffic.packets += 1;
    traffic.uncounted += 1;
    traffic.bytes += bytes;
    if flows > 0 || traffic.packets <= BATCH || traffic.uncounted >= BATCH {
        settle(traffic, key, flows);
    }
}

/// Adds what has not been counted yet.
#[inline(always)]
pub fn settle(traffic: &mut Traffic, key: FlowKey, flows: u64) {
    if flows == 0 && traffic.uncounted == 0 {
        return;
    }
    count(key, flows, traffic.uncounted, traffic.bytes);
    traffic.uncounted = 0;
    traffic.bytes = 0;
}

/// Whose packets of a socket are counted, in one direction.
#[inline(always)]
pub fn passed(state: &Socket, direction: Direction) -> FlowKey {
    // Before its first packet is sent it is not known which node the peer is.
    let node = if state.verified == 0 { state.tag.node } else { state.node };
    FlowKey { region: state.tag.region, node, worker: state.tag.worker, direction, verdict: Verdict::passed }
}

/// Decides on a connect(2), or a datagram without a connection, to `address`: 1 lets it through, 0 is EPERM.
#[inline(always)]
pub fn decide(ctx: &SockAddrContext, address: Address, port: u16, hook: Hook) -> i32 {
    // SAFETY: the kernel's context, which is readable while the program runs.
    let socket = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
    let socket = known(socket.cast());
    let tag = if socket.is_null() {
        UNTAGGED
    } else {
        // SAFETY: not null, so the kernel has it.
        unsafe { (*socket).tag }
    };
    // Nobody serves port 0. The proxy asks for it to find out whether it is fenced in, and so does the system's resolver to find out
    // what could be reached; neither is worth a count.
    if port == 0 {
        return 0;
    }
    let found = target(tag.region, address, port);
    let (node, verdict) = match found {
        Some(node) => (node, Verdict::passed),
        None => (tag.node, Verdict::denied),
    };
    count(FlowKey { region: tag.region, node, worker: tag.worker, direction: Direction::connect, verdict }, 1, 0, 0);
    if found.is_none() {
        // SAFETY: a helper without arguments.
        let process = unsafe { bpf_get_current_pid_tgid() } >> 32;
        tell(ctx, &tag, hook, address, port, process as u32);
        return 0;
    }
    1
}

/// Tells the proxy, and whoever watches, of a denial. That the ring is full loses it; it is counted all the same.
#[inline(always)]
pub fn tell(ctx: &impl EbpfContext, tag: &Tag, hook: Hook, address: Address, port: u16, process: u32) {
    if let Some(mut event) = EVENTS.reserve_untyped::<Event>(0) {
        // SAFETY: helpers of the kernel; the context is the one that the program was called with.
        let (nanoseconds, cookie) = unsafe { (bpf_ktime_get_ns(), bpf_get_socket_cookie(ctx.as_ptr())) };
        event.write(Event {
            nanoseconds,
            cookie,
            session: tag.session,
            region: tag.region,
            node: tag.node,
            worker: tag.worker,
            process,
            hook,
            port: port as u32,
            address: bytes(address),
        });
        event.submit(0);
    }
}

/// The address and port that an IPv4 program is asked about.
#[inline(always)]
pub fn asked4(ctx: &SockAddrContext) -> (Address, u16) {
    // SAFETY: the kernel's context, which is readable while the program runs; volatile, because only loads of the whole width are.
    let (address, port) = unsafe {
        let asked = ctx.sock_addr;
        ((&raw const (*asked).user_ip4).read_volatile(), (&raw const (*asked).user_port).read_volatile())
    };
    (mapped(address), u16::from_be(port as u16))
}

/// The address and port that an IPv6 program is asked about.
#[inline(always)]
pub fn asked6(ctx: &SockAddrContext) -> (Address, u16) {
    let mut address = [0; 4];
    // SAFETY: as above.
    let port = unsafe {
        let asked = ctx.sock_addr;
        let words: *const u32 = (&raw const (*asked).user_ip6).cast();
        address[0] = words.read_volatile();
        address[1] = words.add(1).read_volatile();
        address[2] = words.add(2).read_volatile();
        address[3] = words.add(3).read_volatile();
        (&raw const (*asked).user_port).read_volatile()
    };
    (address, u16::from_be(port as u16))
}
