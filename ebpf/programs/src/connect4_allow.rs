//! connect(2) of an IPv4 socket, by whatever way: the system call, io_uring, TCP Fast Open.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use domicile_ebpf_abi::Hook;

use crate::decide::{asked4, decide};

#[cgroup_sock_addr(connect4)]
pub fn connect4_allow(ctx: SockAddrContext) -> i32 {
    let (address, port) = asked4(&ctx);
    decide(&ctx, address, port, Hook::connect)
}
