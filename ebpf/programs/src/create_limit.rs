//! socket(2) of the families IPv4 and IPv6: TCP and UDP, and nothing else. The other protocols (MPTCP, SCTP, DCCP, ping, raw IP) go
//! ways that the other programs do not see.

use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;

#[cgroup_sock(sock_create)]
pub fn create_limit(ctx: SockContext) -> i32 {
    // SAFETY: the kernel's context, which is readable while the program runs.
    let (kind, protocol) =
        unsafe { ((&raw const (*ctx.sock).type_).read_volatile(), (&raw const (*ctx.sock).protocol).read_volatile()) };
    let is_known = (kind == SOCK_STREAM && protocol == IPPROTO_TCP) || (kind == SOCK_DGRAM && protocol == IPPROTO_UDP);
    is_known as i32
}
