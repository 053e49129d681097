//! How many connections each node has: established, and closed; and at the end of one, what was not counted of its packets yet.

use aya_ebpf::bindings::{BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;

use domicile_ebpf_abi::Direction;

use crate::decide::{passed, settle};
use crate::maps::{NODES_BY_NUMBER, add_one, known};

#[sock_ops]
pub fn sockops_states(ctx: SockOpsContext) -> u32 {
    let is_established = match ctx.op() {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => true,
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => false,
        _ => return 1,
    };
    // SAFETY: the kernel's context, which is readable while the program runs.
    let socket = unsafe { (&raw const (*ctx.ops).__bindgen_anon_2.sk).read_volatile() };
    if socket.is_null() {
        return 1;
    }
    let state = known(socket.cast());
    if state.is_null() {
        return 1;
    }
    // SAFETY: not null, so the kernel has it.
    let state = unsafe { &mut *state };
    if is_established {
        // Only sockets that were counted are heard of again.
        let _ = ctx.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32);
    } else {
        let (sent, received) = (passed(state, Direction::egress), passed(state, Direction::ingress));
        settle(&mut state.sent, sent, 0);
        settle(&mut state.received, received, 0);
    }
    let node = if state.verified == 0 { state.tag.node } else { state.node };
    let Some(node) = NODES_BY_NUMBER.get_ptr_mut(&node) else { return 1 };
    // SAFETY: a pointer that the kernel has just given.
    unsafe { add_one(if is_established { &raw mut (*node).established } else { &raw mut (*node).closed }) };
    1
}
