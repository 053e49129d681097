//! Each packet that a tagged socket receives is counted. Nothing is dropped: what arrives cannot leave the region any more.

use aya_ebpf::helpers::generated::bpf_sk_fullsock;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use domicile_ebpf_abi::Direction;

use crate::decide::{note, passed};
use crate::maps::known;

#[cgroup_skb(ingress)]
pub fn ingress_count(ctx: SkBuffContext) -> i32 {
    // SAFETY: the kernel's context, which is readable while the program runs.
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
    // SAFETY: not null, so the kernel has it; what is received on a connection is handled by one CPU at a time.
    let state = unsafe { &mut *state };
    let key = passed(state, Direction::ingress);
    note(&mut state.received, key, 0, ctx.len() as u64);
    1
}
