//! The fence: what the kernel runs for every socket of the proxy's cgroup.
//!
//! ```text
//!   socket()      create_limit      TCP and UDP, and nothing else that speaks IP
//!   setsockopt()  setsockopt_tag    the region that the socket is for; once
//!   connect()     connect4/6_allow  only to the addresses of that region; untagged, only to control addresses
//!   sendmsg()     sendmsg4/6_allow  a datagram, only to control addresses
//!   each packet   egress_verify     of a tagged socket: to its region, or dropped; counted
//!                 ingress_count     of a tagged socket: counted
//!   states        sockops_states    of a tagged socket: established, closed
//!   a client      reuseport_steer   to one of the workers
//! ```
//!
//! It knows numbers, which the proxy gives regions and nodes, and the list of what is allowed. It decides by that list alone: the
//! process that is fenced in has no way to write it.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod connect4_allow;
mod connect6_allow;
mod create_limit;
mod decide;
mod egress_verify;
mod ingress_count;
mod maps;
mod reuseport_steer;
mod sendmsg4_allow;
mod sendmsg6_allow;
mod setsockopt_tag;
mod sockops_states;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics; the verifier would refuse the loop if it could be reached.
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 4] = *b"GPL\0";
