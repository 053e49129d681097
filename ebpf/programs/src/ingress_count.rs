//! Each packet that a tagged socket receives is counted. Nothing is dropped: what arrives cannot leave the region any more.

use aya_ebpf::helpers::generated::bpf_sk_fullsock;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use domicile_ebpf_abi::{Direction, FlowKey, Verdict};

use crate::decide::count;
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
    // SAFETY: not null, so the kernel has it.
    let state = unsafe { &*state };
    // Before the first packet is sent it is not known which node the peer is.
    let node = if state.verified == 0 { state.tag.node } else { state.node };
    let tag = state.tag;
    let key = FlowKey { region: tag.region, node, worker: tag.worker, direction: Direction::ingress, verdict: Verdict::passed };
    count(key, 0, 1, ctx.len() as u64);
    1
}
