//! Gives the listening sockets the program that chooses a worker for each client.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;

use aya::maps::{Map, MapData, ReusePortSockArray};
use domicile_ebpf_abi::{LISTEN_ADDRESSES, STEER_BY_CPU, STEER_BY_LOAD, WORKERS};

use super::mapped::{Mapped, Steering as Orders};
use super::object::{STEER, with_causes};

use super::sys::{self, Access};
use crate::config::Steering;

/// Steers clients to `listeners`, the sockets of each worker in the order of the addresses.
///
/// # Errors
/// The kernel goes on to choose by a hash.
pub(super) fn steer(pins: &Path, by: Steering, listeners: &[Vec<OwnedFd>]) -> io::Result<()> {
    let addresses = listeners.first().map_or(0, Vec::len);
    if listeners.len() > WORKERS || addresses > LISTEN_ADDRESSES {
        return Err(io::Error::other(format!("it takes at most {WORKERS} workers and {LISTEN_ADDRESSES} addresses")));
    }
    let orders: Mapped<Orders> = Mapped::open(&pins.join("steering"), 1)?;
    let map = MapData::from_fd(sys::open(&pins.join("listeners"), Access::ReadWrite)?).map_err(io::Error::other)?;
    let failed = |error| io::Error::other(with_causes(&error));
    let mut sockets = ReusePortSockArray::try_from(Map::ReusePortSockArray(map)).map_err(failed)?;
    let program = sys::open(&pins.join(STEER), Access::ReadWrite)?;
    // Nobody is steered while some sockets are there and some are not.
    set(&orders, by, 0, 0);
    for (worker, listeners) in listeners.iter().enumerate() {
        for (address, listener) in listeners.iter().enumerate() {
            let place = u32::try_from(address * WORKERS + worker).unwrap_or(u32::MAX);
            sockets.set(place, &listener.as_raw_fd(), 0).map_err(failed)?;
        }
    }
    set(&orders, by, listeners.len(), addresses);
    for listener in listeners.first().into_iter().flatten() {
        sys::attach_to_group(listener.as_fd(), program.as_fd())?;
    }
    Ok(())
}

fn set(orders: &Mapped<Orders>, by: Steering, workers: usize, addresses: usize) {
    let Some(orders) = orders.get(0) else { return };
    let number = |count: usize| u32::try_from(count).unwrap_or_default();
    orders.by.store(if by == Steering::Cpu { STEER_BY_CPU } else { STEER_BY_LOAD }, Ordering::Release);
    orders.addresses.store(number(addresses), Ordering::Release);
    orders.workers.store(number(workers), Ordering::Release);
}
