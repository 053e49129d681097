//! What the kernel tells of denials as they happen.
//!
//! The ring has one reader that takes things out, the proxy. Whoever else wants to see them looks on: [`Onlooker`] reads the same memory
//! and takes nothing out, unless nobody else does.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use aya::maps::{Map, MapData, RingBuf};
use domicile_ebpf_abi::{Event, Hook};

use super::reading::Names;
use super::sys::{self, Access};
use crate::observe::Violation;

fn violation(event: &Event, names: &Names) -> Violation {
    const CONNECT: u32 = Hook::connect as u32;
    const SENDMSG: u32 = Hook::sendmsg as u32;
    let address = IpAddr::V6(Ipv6Addr::from(event.address)).to_canonical();
    Violation {
        region: names.region(event.region),
        node: names.node(event.node),
        worker: (event.worker >= 0).then_some(event.worker),
        session: event.session,
        address: SocketAddr::new(address, u16::try_from(event.port).unwrap_or_default()),
        hook: match event.hook {
            CONNECT => "connect",
            SENDMSG => "sendmsg",
            _ => "egress",
        },
        process: event.process,
        cookie: event.cookie,
    }
}

/// Takes events out of the ring.
pub struct Events {
    ring: RingBuf<MapData>,
    names: Names,
}

impl Events {
    /// Opens the ring that is pinned in a directory.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(pins: &Path) -> io::Result<Self> {
        let map = MapData::from_fd(sys::open(&pins.join("events"), Access::ReadWrite)?).map_err(io::Error::other)?;
        let ring = RingBuf::try_from(Map::RingBuf(map)).map_err(io::Error::other)?;
        Ok(Self { ring, names: Names::read(pins)? })
    }

    /// The next event, if there is one. What is not an event is left out.
    pub fn take(&mut self) -> Option<Violation> {
        loop {
            let item = self.ring.next()?;
            if let Some(event) = event(&item) {
                return Some(violation(&event, &self.names));
            }
        }
    }

    /// Names may have come with a new configuration.
    pub fn set_names(&mut self, names: Names) {
        self.names = names;
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

fn event(bytes: &[u8]) -> Option<Event> {
    if bytes.len() < size_of::<Event>() {
        return None;
    }
    // SAFETY: as many bytes as it has, of which every pattern is a value.
    Some(unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() })
}

/// Looks on as events come in.
pub struct Onlooker {
    map: OwnedFd,
    pins: std::path::PathBuf,
    names: Names,
    producer: super::ring::Producer,
}

impl Onlooker {
    /// Begins with what comes from now on.
    ///
    /// # Errors
    /// The ring cannot be opened.
    pub fn open(pins: &Path) -> io::Result<Self> {
        let map = sys::open(&pins.join("events"), Access::ReadWrite)?;
        let producer = super::ring::Producer::open(&map)?;
        Ok(Self { map, pins: pins.to_owned(), names: Names::read(pins)?, producer })
    }

    /// What has come since the last time.
    pub fn look(&mut self) -> Vec<Violation> {
        let mut seen = Vec::new();
        self.producer.look(|bytes| seen.extend(event(bytes)));
        let is_unknown = |event: &Event| self.names.region(event.region).starts_with("0x");
        if seen.iter().any(is_unknown)
            && let Ok(names) = Names::read(&self.pins)
        {
            self.names = names;
        }
        seen.iter().map(|event| violation(event, &self.names)).collect()
    }
}

impl AsFd for Onlooker {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.map.as_fd()
    }
}
