//! sendto(2) and sendmsg(2) of an unconnected IPv4 datagram socket.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use domicile_ebpf_abi::Hook;

use crate::decide::{asked4, decide};

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4_allow(ctx: SockAddrContext) -> i32 {
    let (address, port) = asked4(&ctx);
    decide(&ctx, address, port, Hook::sendmsg)
}
