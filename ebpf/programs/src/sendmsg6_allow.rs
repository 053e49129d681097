//! sendto(2) and sendmsg(2) of an unconnected IPv6 datagram socket.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use domicile_ebpf_abi::Hook;

use crate::decide::{asked6, decide};

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6_allow(ctx: SockAddrContext) -> i32 {
    let (address, port) = asked6(&ctx);
    decide(&ctx, address, port, Hook::sendmsg)
}
