//! The system calls that no library has: bpf(2) for links and pins, and the option that tags a socket.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use domicile_ebpf_abi::{TAG_LEVEL, TAG_NAME, Tag};

use super::unix::Instruction;

/// `enum bpf_cmd` (linux/bpf.h).
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
/// `enum bpf_prog_type` (linux/bpf.h).
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
/// `file_flags` of BPF_OBJ_GET: the map can only be read through this descriptor.
const BPF_F_RDONLY: u32 = 1 << 3;

/// Where a program of a cgroup is attached: `enum bpf_attach_type` (linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum AttachType {
    Ingress = 0,
    Egress = 1,
    SockCreate = 2,
    SockOps = 3,
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    Setsockopt = 22,
    ConnectUnix = 49,
}

/// What may be done through the descriptor of a pinned object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    ReadWrite,
}

/// The parts of `union bpf_attr` that are used here, each as long as the kernel of its command needs it.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    rest: [u64; 4],
}

#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instructions: u32,
    instruction: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
struct Object {
    path: u64,
    descriptor: u32,
    flags: u32,
}

#[repr(C)]
struct Info {
    descriptor: u32,
    length: u32,
    info: u64,
}

/// The beginning of `struct bpf_link_info`, for a link of a cgroup.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    link: u32,
    program: u32,
    padding: u32,
    cgroup: u64,
    attach_type: u32,
    rest: u32,
}

/// Loads a program that is asked about addresses.
pub(super) fn load_program(program: &[Instruction], name: &CStr, attach_type: AttachType) -> io::Result<RawFd> {
    let mut short = [0; 16];
    short.iter_mut().zip(name.to_bytes()).for_each(|(place, byte)| *place = *byte);
    let attributes = ProgramLoad {
        program_type: BPF_PROG_TYPE_CGROUP_SOCK_ADDR,
        instructions: u32::try_from(program.len()).unwrap_or_default(),
        instruction: program.as_ptr().expose_provenance() as u64,
        license: c"GPL".as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: short,
        interface: 0,
        expected_attach_type: attach_type as u32,
    };
    bpf(BPF_PROG_LOAD, &attributes)
}

/// Attaches a program to a cgroup. It stays attached for as long as the link is open or pinned, and the cgroup is there.
pub(super) fn create_link(program: impl AsFd, cgroup: impl AsFd, attach_type: AttachType) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        program: unsigned(program.as_fd().as_raw_fd()),
        target: unsigned(cgroup.as_fd().as_raw_fd()),
        attach_type: attach_type as u32,
        flags: 0,
        rest: [0; 4],
    };
    let descriptor = bpf(BPF_LINK_CREATE, &attributes)?;
    // SAFETY: the kernel has just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Puts another program in the place of a link's, at once.
pub(super) fn update_link(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let (link, program) = (unsigned(link.as_fd().as_raw_fd()), unsigned(program.as_fd().as_raw_fd()));
    bpf(BPF_LINK_UPDATE, &LinkUpdate { link, program, flags: 0, old_program: 0 }).map(drop)
}

/// The number of the cgroup that a link attaches to, which is its inode's; 0 if the cgroup is gone.
pub(super) fn cgroup_of_link(link: impl AsFd) -> io::Result<u64> {
    let mut found = LinkInfo::default();
    let length = u32::try_from(size_of::<LinkInfo>()).unwrap_or_default();
    let info = std::ptr::from_mut(&mut found).expose_provenance() as u64;
    bpf(BPF_OBJ_GET_INFO_BY_FD, &Info { descriptor: unsigned(link.as_fd().as_raw_fd()), length, info })?;
    Ok(found.cgroup)
}

/// Gives an object a name on a BPF file system, by which it lives on.
pub(super) fn pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let descriptor = unsigned(object.as_fd().as_raw_fd());
    bpf(BPF_OBJ_PIN, &Object { path: path.as_ptr().expose_provenance() as u64, descriptor, flags: 0 }).map(drop)
}

/// Opens what is pinned at `path`.
pub(super) fn open(path: &Path, access: Access) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = if access == Access::Read { BPF_F_RDONLY } else { 0 };
    let descriptor = bpf(BPF_OBJ_GET, &Object { path: path.as_ptr().expose_provenance() as u64, descriptor: 0, flags })?;
    // SAFETY: the kernel has just made this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Says once and for all what a socket is for.
///
/// # Errors
/// ENOPROTOOPT: no fence is around this process. EPERM: it was said already, or it is no stream socket.
pub(super) fn tag(socket: impl AsFd, tag: &Tag) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<Tag>()).unwrap_or_default();
    // SAFETY: the pointer and the length are those of a value that lives longer than the call.
    let result =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), TAG_LEVEL, TAG_NAME, std::ptr::from_ref(tag).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a program choose among the sockets that share `socket`'s address (SO_ATTACH_REUSEPORT_EBPF, socket(7)).
pub(super) fn attach_to_group(socket: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let program = program.as_fd().as_raw_fd();
    let length = libc::socklen_t::try_from(size_of_val(&program)).unwrap_or_default();
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_EBPF);
    // SAFETY: the pointer and the length are those of a value that lives longer than the call.
    let result =
        unsafe { libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, std::ptr::from_ref(&program).cast(), length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of attributes, and paths that they point to, which the callers keep.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn unsigned(descriptor: RawFd) -> u32 {
    descriptor.cast_unsigned()
}
