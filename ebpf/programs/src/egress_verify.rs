//! Each packet of a tagged socket: dropped unless its peer is one of its region's, and counted.
//!
//! connect(2) was decided on already. This is for what got around it: a socket that was tagged after it was connected, one that was
//! accepted, an allow-list that has become shorter since. A peer that was found to be allowed is not looked up again before that.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_sk_fullsock, bpf_tcp_sock};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use domicile_ebpf_abi::{Direction, FlowKey, Hook, Socket, Verdict};

use crate::decide::{Address, count, mapped, note, passed, target, tell};
use crate::maps::{NODES_BY_NUMBER, POLICY, known};

const AF_INET: u32 = 2;
/// A socket's round-trip time is noted once in so many packets.
const SAMPLED: u64 = 64;

#[cgroup_skb(egress)]
pub fn egress_verify(ctx: SkBuffContext) -> i32 {
    // SAFETY: the kernel's context, which is readable while the program runs. What a socket that is none yet, or none any more, sends
    // holds no data.
    let socket = unsafe {
        let socket = (&raw const (*ctx.skb.skb).__bindgen_anon_2.sk).read_volatile();
        if socket.is_null() {
            return 1;
        }
        bpf_sk_fullsock(socket)
    };
    if socket.is_null() {
        return 1;
    }
    let state = known(socket.cast());
    if state.is_null() {
        return 1;
    }
    // SAFETY: not null, so the kernel has it; it is written by the CPU that has the socket.
    let state = unsafe { &mut *state };
    let generation = POLICY.get(0).map_or(0, |policy| policy.generation);
    let mut flows = 0;
    if state.verified != generation || generation == 0 {
        let (address, port) = peer(socket);
        let tag = state.tag;
        let Some(node) = target(tag.region, address, port) else {
            state.verified = 0;
            if state.dropped == 0 {
                state.dropped = 1;
                flows = 1;
                tell(&ctx, &tag, Hook::egress, address, port, 0);
            }
            let (direction, verdict) = (Direction::egress, Verdict::denied);
            let key = FlowKey { region: tag.region, node: tag.node, worker: tag.worker, direction, verdict };
            count(key, flows, 1, ctx.len() as u64);
            return 0;
        };
        flows = (state.verified == 0) as u64;
        state.verified = generation;
        state.node = node;
    }
    let key = passed(state, Direction::egress);
    note(&mut state.sent, key, flows, ctx.len() as u64);
    if state.sent.packets % SAMPLED == 1 {
        note_round_trip(socket, state);
    }
    1
}

#[inline(always)]
fn peer(socket: *mut bpf_sock) -> (Address, u16) {
    // All is read, whatever the family: the verifier allows no load from an address that depends on it, which is what a compiler would
    // make of a branch.
    // SAFETY: a full socket, whose fields the kernel lets be read.
    unsafe {
        let family = (&raw const (*socket).family).read_volatile();
        let port = u16::from_be((&raw const (*socket).dst_port).read_volatile());
        let address4 = (&raw const (*socket).dst_ip4).read_volatile();
        let words: *const u32 = (&raw const (*socket).dst_ip6).cast();
        let address6 =
            [words.read_volatile(), words.add(1).read_volatile(), words.add(2).read_volatile(), words.add(3).read_volatile()];
        (if family == AF_INET { mapped(address4) } else { address6 }, port)
    }
}

#[inline(always)]
fn note_round_trip(socket: *mut bpf_sock, state: &Socket) {
    let Some(node) = NODES_BY_NUMBER.get_ptr_mut(&state.node) else { return };
    // SAFETY: pointers that the kernel has just given.
    unsafe {
        let tcp = bpf_tcp_sock(socket);
        if !tcp.is_null() {
            // The kernel keeps eighths of microseconds.
            (*node).srtt_us = (&raw const (*tcp).srtt_us).read_volatile() >> 3;
        }
    }
}
