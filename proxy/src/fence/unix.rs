//! connect(2) of Unix sockets: `cgroup/connect_unix`, which Linux has since 6.7.
//!
//! A tagged socket may be connected if its region has a node on a Unix socket, an untagged one may not. Which path it is the kernel does
//! not tell a program in a way that every kernel has; whoever may write to the socket's file is a matter of its permissions.
//!
//! aya does not know this hook, so the program is not in the object: it is so short that it stands here, in the kernel's instructions.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use domicile_ebpf_abi::Destination;

use super::allow::UNIX;
use super::sys;

/// Bits of a whole key of map `allow`.
const BITS: i32 = 160;
const _: () = assert!(size_of::<Destination>() == 20);
/// Offset of the socket in the context (`struct bpf_sock_addr`, linux/bpf.h).
const SOCKET: i16 = 64;
/// Helpers (bpf-helpers(7)).
const BPF_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_SK_STORAGE_GET: i32 = 107;
/// Where the key is built: 4 bytes of prefix, 4 of region, 16 of address.
const KEY: i16 = -24;

/// One instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

/// The program, for these maps.
fn program(sockets: RawFd, allow: RawFd) -> [Instruction; 24] {
    const LOAD_64: u8 = 0x79;
    const LOAD_32: u8 = 0x61;
    const STORE_32: u8 = 0x63;
    const STORE_IMMEDIATE_32: u8 = 0x62;
    const STORE_IMMEDIATE_64: u8 = 0x7a;
    const LOAD_MAP: u8 = 0x18;
    const MOVE: u8 = 0xb7;
    const MOVE_REGISTER: u8 = 0xbf;
    const ADD: u8 = 0x07;
    const CALL: u8 = 0x85;
    const JUMP_IF_EQUAL: u8 = 0x15;
    const JUMP_UNLESS_EQUAL: u8 = 0x55;
    const EXIT: u8 = 0x95;
    // BPF_PSEUDO_MAP_FD.
    const MAP: u8 = 1;
    [
        // r0 = sk_storage_get(sockets, ctx->sk, NULL, 0)
        instruction(LOAD_64, 2, 1, SOCKET, 0),
        instruction(LOAD_MAP, 1, MAP, 0, sockets),
        instruction(0, 0, 0, 0, 0),
        instruction(MOVE, 3, 0, 0, 0),
        instruction(MOVE, 4, 0, 0, 0),
        instruction(CALL, 0, 0, 0, BPF_SK_STORAGE_GET),
        // Not tagged: r0 is 0, and that is the answer.
        instruction(JUMP_IF_EQUAL, 0, 0, 15, 0),
        // key = { prefix, tag.region, address 0 }
        instruction(LOAD_32, 1, 0, 0, 0),
        instruction(STORE_IMMEDIATE_32, 10, 0, KEY, BITS),
        instruction(STORE_32, 10, 1, KEY + 4, 0),
        instruction(STORE_IMMEDIATE_64, 10, 0, KEY + 8, 0),
        instruction(STORE_IMMEDIATE_64, 10, 0, KEY + 16, 0),
        // r0 = map_lookup_elem(allow, &key)
        instruction(MOVE_REGISTER, 2, 10, 0, 0),
        instruction(ADD, 2, 0, 0, KEY as i32),
        instruction(LOAD_MAP, 1, MAP, 0, allow),
        instruction(0, 0, 0, 0, 0),
        instruction(CALL, 0, 0, 0, BPF_MAP_LOOKUP_ELEM),
        // Nothing is allowed: r0 is 0 again. Else the first target must be what stands for Unix sockets.
        instruction(JUMP_IF_EQUAL, 0, 0, 4, 0),
        instruction(LOAD_32, 1, 0, 0, 0),
        instruction(JUMP_UNLESS_EQUAL, 1, 0, 2, UNIX as i32),
        instruction(MOVE, 0, 0, 0, 1),
        instruction(EXIT, 0, 0, 0, 0),
        instruction(MOVE, 0, 0, 0, 0),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

/// Loads the program; nothing on a kernel that does not have the hook.
///
/// # Errors
/// The kernel refuses the program.
pub(super) fn load(sockets: impl AsFd, allow: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let program = program(sockets.as_fd().as_raw_fd(), allow.as_fd().as_raw_fd());
    match sys::load_program(&program, c"connect_unix", sys::AttachType::ConnectUnix) {
        // SAFETY: the kernel has just made this descriptor.
        Ok(descriptor) => Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor) })),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}
