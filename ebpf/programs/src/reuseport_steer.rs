//! A client's first packet decides which worker it will have: the one with the fewest clients, or the one of the CPU that the packet
//! came in on. Without an answer the kernel chooses by a hash.
//!
//! A worker's sessions are counted by itself, which is too late for clients that come all at once; so what was steered to it and has
//! not been accepted yet counts too.

use aya_ebpf::bindings::sk_action::SK_PASS;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::sk_reuseport;
use aya_ebpf::programs::SkReuseportContext;
use domicile_ebpf_abi::{LISTEN_ADDRESSES, STEER_BY_CPU, WORKERS, Worker};

use crate::maps::{LISTENERS, LOADS, STEERING, add_one};

#[sk_reuseport]
pub fn reuseport_steer(ctx: SkReuseportContext) -> u32 {
    let Some(steering) = STEERING.get(0) else { return SK_PASS };
    let (by, workers, addresses) = (steering.by, steering.workers, steering.addresses);
    if workers == 0 || workers as usize > WORKERS {
        return SK_PASS;
    }
    let worker = if by == STEER_BY_CPU {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_smp_processor_id() % workers }
    } else {
        least_loaded(workers)
    };
    // A listener of another address is refused: it is not the one that the packet is for.
    let mut address = 0;
    while address < LISTEN_ADDRESSES as u32 && address < addresses {
        if LISTENERS.select_reuseport(&ctx, address * WORKERS as u32 + worker).is_ok() {
            if let Some(chosen) = LOADS.get_ptr_mut(worker) {
                // SAFETY: a pointer that the kernel has just given.
                unsafe { add_one(&raw mut (*chosen).steered) };
            }
            break;
        }
        address += 1;
    }
    SK_PASS
}

#[inline(always)]
fn least_loaded(workers: u32) -> u32 {
    let (mut best, mut least, mut worker) = (0, i64::MAX, 0);
    while worker < WORKERS as u32 && worker < workers {
        if let Some(load) = LOADS.get(worker).map(load)
            && load < least
        {
            (best, least) = (worker, load);
        }
        worker += 1;
    }
    best
}

#[inline(always)]
fn load(worker: &Worker) -> i64 {
    // SAFETY: references to memory that others write to.
    let (sessions, steered, accepted) = unsafe {
        (
            (&raw const worker.sessions).read_volatile(),
            (&raw const worker.steered).read_volatile(),
            (&raw const worker.accepted).read_volatile(),
        )
    };
    let coming = steered.wrapping_sub(accepted) as i64;
    sessions + if coming > 0 { coming } else { 0 }
}
