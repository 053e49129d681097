//! The maps. Their names are those of the files under `/sys/fs/bpf/domicile/`.

use core::arch::asm;

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuHashMap, ReusePortSockArray, RingBuf, SkStorage};
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;
use domicile_ebpf_abi::{
    ALLOWED, Denials, Destination, EVENTS_BYTES, Flow, FlowKey, LISTEN_ADDRESSES, NODES, Name, NameKey, Node, Policy, REGIONS,
    Socket, Steering, Targets, WORKERS, Worker,
};

const MAPPED: usize = BPF_F_MMAPABLE as usize;

#[btf_map(name = "allow")]
pub static ALLOW: LpmTrie<Destination, Targets, ALLOWED> = LpmTrie::new();
#[btf_map(name = "sockets")]
pub static SOCKETS: SkStorage<Socket> = SkStorage::new();
#[btf_map(name = "flows")]
pub static FLOWS: PerCpuHashMap<FlowKey, Flow, 16384, { BPF_F_NO_PREALLOC as usize }> = PerCpuHashMap::new();
#[btf_map(name = "nodes")]
pub static NODES_BY_NUMBER: HashMap<u32, Node, NODES> = HashMap::new();
#[btf_map(name = "events")]
pub static EVENTS: RingBuf<(), EVENTS_BYTES> = RingBuf::new();
#[btf_map(name = "policy")]
pub static POLICY: Array<Policy, 1> = Array::new();
#[btf_map(name = "workers")]
pub static LOADS: Array<Worker, WORKERS, MAPPED> = Array::new();
#[btf_map(name = "steering")]
pub static STEERING: Array<Steering, 1, MAPPED> = Array::new();
#[btf_map(name = "listeners")]
pub static LISTENERS: ReusePortSockArray<{ WORKERS * LISTEN_ADDRESSES }> = ReusePortSockArray::new();
/// Not used in the kernel: written by the workers, for those who read the others.
#[btf_map(name = "denials")]
pub static DENIALS: Array<Denials, REGIONS, MAPPED> = Array::new();
/// Not used in the kernel: what the numbers stand for.
#[btf_map(name = "names")]
pub static NAMES: HashMap<NameKey, Name, { REGIONS + NODES }> = HashMap::new();

/// What is known of a socket; null if it is not tagged.
///
/// `socket` is a socket that the verifier knows, of whatever type.
#[inline(always)]
pub fn known(socket: *mut c_void) -> *mut Socket {
    // SAFETY: a helper of the kernel, which checks its arguments when the program is loaded.
    unsafe { bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), socket, core::ptr::null_mut(), 0).cast() }
}

/// Adds one to a number that other CPUs count in too.
///
/// # Safety
/// `number` is in a map's value that the kernel has given.
#[inline(always)]
pub unsafe fn add_one(number: *mut u64) {
    // core has no read-modify-write atomics for this target.
    // SAFETY: an atomic addition in place (BPF_ATOMIC | BPF_ADD).
    unsafe { asm!("lock *(u64 *)({number} + 0) += {one}", number = in(reg) number, one = in(reg) 1_u64) };
}
