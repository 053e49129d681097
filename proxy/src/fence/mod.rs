//! The kernel's own gate around the proxy: a second opinion that a wrong or hijacked proxy cannot change.
//!
//! ```text
//!   configuration ─▶ allow-list ─▶ maps ◀─ kernel programs ◀─ every socket of the cgroup
//!        ▲                          │
//!   keeper (privileged)             └─▶ counters, events ─▶ status, metrics, audit
//! ```
//!
//! Whoever is privileged sets it up (`install`): the proxy itself when it is started as root, which then gives its privileges up and
//! leaves a keeper behind for reloads, or an administrator before the proxy starts. The proxy says of each connection what it is for
//! ([`Fence::tag`]); the kernel decides. When the proxy is gone the fence stays.
//!
//! Only this module names `aya`. It decides nothing about sessions: who may go where was decided before, and is decided again, on
//! other grounds, by the programs in `ebpf/`.

mod absent;
mod allow;
mod events;
mod install;
mod keeper;
mod mapped;
mod number;
mod object;
mod place;
mod privileges;
mod reading;
mod ring;
mod shared;
mod steer;
mod sys;
mod unix;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domicile_ebpf_abi::{NO_WORKER, Tag};
use rustix::fs::{Mode, OFlags};
use socket2::{Domain, Protocol, Socket, Type};
use tracing::{error, info, warn};

pub use absent::Absent;
pub use events::{Events, Onlooker};
pub use install::{Installed, install, narrow, remove};
pub use keeper::{Keeper, Wish, keep, shown as shown_digest};
pub use number::number;
pub use privileges::{Privileges, drop_privileges};
pub use reading::{CONTROL_NAME, FlowName, Names, Reading};
pub use shared::{DenialCounters, Loads, Seat};

use crate::config::{Config, FenceMode, Steering};
use crate::observe::FenceSample;

/// Between two times that the keeper is asked where names lead.
const FOLLOWED_APART: Duration = Duration::from_secs(5);

/// The fence as the running proxy knows it.
pub struct Fence {
    mode: FenceMode,
    pins: PathBuf,
    /// The directory of pins, opened while that was still permitted: systemd mounts the BPF file system so that only root may enter it.
    opened: Option<OwnedFd>,
    /// Why it is not there, if it is not.
    absent: RefCell<Option<Absent>>,
    /// Where the workers count denials; nothing where the maps cannot be opened.
    pub denials: Option<Arc<DenialCounters>>,
    /// Where they count clients.
    pub loads: Option<Arc<Loads>>,
    /// Who changes the list on a reload; nobody if an administrator has set the fence up.
    pub keeper: Option<Keeper>,
    /// When the names of nodes were followed last.
    followed_at: Cell<Option<tokio::time::Instant>>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// The number of the region it may lead into.
    pub region: u32,
    /// The number of the node that is meant.
    pub node: u32,
    /// The worker that asked for it.
    pub worker: Option<usize>,
    /// The session for which it was asked; 0 if for none.
    pub session: u64,
}

impl Fence {
    /// Goes inside: sets the fence up if this process may, enters the cgroup, and finds out whether it holds. `config_path` is where
    /// `config` was read from.
    ///
    /// # Errors
    /// `fence = "required"`, and there is none.
    pub fn enter(config: &Config, config_path: &Path) -> Result<Self, Absent> {
        let kernel = &config.kernel;
        let (absent, keeper) = match kernel.fence {
            FenceMode::Off => (Some(Absent::Off), None),
            FenceMode::Required | FenceMode::Preferred => set_up(config, config_path),
        };
        let mut fence = Self {
            mode: kernel.fence,
            pins: kernel.pins.clone(),
            opened: None,
            absent: RefCell::new(absent),
            denials: None,
            loads: None,
            keeper,
            followed_at: Cell::default(),
        };
        fence.announce();
        if fence.mode == FenceMode::Required
            && let Some(absent) = fence.absent()
        {
            return Err(absent);
        }
        if fence.is_there() {
            fence.open_maps();
            fence.declare(config);
        }
        Ok(fence)
    }

    fn announce(&self) {
        match (&*self.absent.borrow(), self.mode) {
            (None, _) => info!(pins = %self.pins.display(), "the fence is up: the kernel lets no connection out of its region"),
            (Some(_), FenceMode::Off) => info!("the fence is turned off"),
            (Some(absent), FenceMode::Required) => error!(%absent, "the fence is required, and there is none"),
            (Some(absent), FenceMode::Preferred) => {
                warn!(%absent, "there is no fence: only the proxy itself keeps connections in their regions")
            }
        }
    }

    fn open_maps(&mut self) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.opened = rustix::fs::open(&self.pins, flags, Mode::empty()).ok();
        let told = |error: io::Error| {
            warn!(%error, pins = %self.pins.display(), "the fence's maps cannot be opened: it holds, but its counters cannot be used");
        };
        match (DenialCounters::open(&self.pins), Loads::open(&self.pins)) {
            (Ok(denials), Ok(loads)) => (self.denials, self.loads) = (Some(Arc::new(denials)), Some(loads)),
            (Err(error), _) | (_, Err(error)) => told(error),
        }
    }

    /// Gives the regions of a configuration their places.
    pub fn declare(&self, config: &Config) {
        if let Some(denials) = &self.denials {
            denials.declare(config.regions.iter().map(|region| region.name.as_str()));
        }
    }

    /// Lets the kernel choose the workers of clients. Whether it does.
    pub fn steer(&self, by: Steering, listeners: &[Vec<OwnedFd>]) -> bool {
        if by == Steering::Hash || listeners.len() < 2 || self.loads.is_none() {
            return false;
        }
        match steer::steer(&self.pins, by, listeners) {
            Ok(()) => true,
            Err(error) => {
                warn!(%error, "clients are not steered: the kernel spreads them over the workers by a hash");
                false
            }
        }
    }

    /// Says of a socket, before it is connected, what it is for. Without a fence that is not required, nothing happens.
    ///
    /// # Errors
    /// A fence is required and not there, or the kernel does not take the tag.
    pub fn tag(&self, socket: impl AsFd, purpose: &Purpose) -> io::Result<()> {
        if !self.is_there() {
            return match self.mode {
                FenceMode::Required => Err(io::Error::other("the fence is required, and it is not there")),
                FenceMode::Preferred | FenceMode::Off => Ok(()),
            };
        }
        let worker = purpose.worker.and_then(|worker| i32::try_from(worker).ok()).unwrap_or(NO_WORKER);
        let tag = Tag { region: purpose.region, node: purpose.node, worker, reserved: 0, session: purpose.session };
        match sys::tag(socket, &tag) {
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                self.look();
                match self.mode {
                    FenceMode::Required => Err(io::Error::other("the fence is required, and it is gone")),
                    FenceMode::Preferred | FenceMode::Off => Ok(()),
                }
            }
            result => result,
        }
    }

    /// The kernel did not let a connection go where a node's name leads now: the name may have changed since the list was made. Has it
    /// made anew by the keeper, which asks for itself where the name leads. Whether it was; not again within some seconds.
    pub async fn follow_names(&self) -> bool {
        let Some(keeper) = &self.keeper else { return false };
        let now = tokio::time::Instant::now();
        if self.followed_at.get().is_some_and(|at| now.duration_since(at) < FOLLOWED_APART) {
            return false;
        }
        self.followed_at.set(Some(now));
        match keeper.ask(Wish::Widen).await {
            Ok(_) => true,
            Err(why) => {
                warn!(why, "the fence does not follow the names of nodes");
                false
            }
        }
    }

    /// Finds out whether it still holds.
    pub fn look(&self) {
        if self.mode == FenceMode::Off {
            return;
        }
        let (was, is) = (self.is_there(), is_fenced());
        if was && !is {
            error!("the fence is gone: its cgroup was removed, or its links were detached");
            self.absent.replace(Some(Absent::Gone));
        } else if is && !was {
            info!("the fence is up");
            self.absent.replace(None);
        }
    }

    /// Whether the kernel's list is that of a configuration file with this digest, if that can be told.
    pub fn knows(&self, digest: &[u8; 32]) -> Option<bool> {
        Reading::policy(&self.reach()).ok().map(|policy| policy.digest == *digest)
    }

    /// Whether the kernel has it around this process, as far as is known.
    pub fn is_there(&self) -> bool {
        self.absent.borrow().is_none()
    }

    /// Why it is not there, if it is not.
    pub fn absent(&self) -> Option<Absent> {
        self.absent.borrow().clone()
    }

    /// How it is shown.
    pub fn sample(&self) -> FenceSample {
        FenceSample {
            mode: self.mode.as_str(),
            absent: self.absent().map(|absent| (absent.kind(), absent.to_string())),
            pins: self.pins.display().to_string(),
            counted: self.loads.as_ref().and_then(|_| Reading::take(&self.reach()).ok()).map(Reading::counts),
        }
    }

    /// A path by which this process may enter the directory of pins, if there is one.
    fn reach(&self) -> PathBuf {
        match &self.opened {
            Some(opened) if !self.pins.join("policy").exists() => format!("/proc/self/fd/{}", opened.as_raw_fd()).into(),
            Some(_) | None => self.pins.clone(),
        }
    }

    /// Whether nothing is served without it.
    pub fn is_required(&self) -> bool {
        self.mode == FenceMode::Required
    }

    /// Where its maps are pinned.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// No fence, for those who have nothing to fence in.
    pub fn off() -> Self {
        Self {
            mode: FenceMode::Off,
            pins: PathBuf::new(),
            opened: None,
            absent: RefCell::new(Some(Absent::Off)),
            denials: None,
            loads: None,
            keeper: None,
            followed_at: Cell::default(),
        }
    }
}

/// Sets the fence up and goes inside, or finds itself inside.
fn set_up(config: &Config, config_path: &Path) -> (Option<Absent>, Option<Keeper>) {
    if let Err(absent) = install::check_capabilities() {
        // Somebody else may have done it.
        return match (is_fenced(), install::is_pinned(&config.kernel.pins)) {
            (true, _) => (None, None),
            (false, true) => (Some(Absent::Outside), None),
            (false, false) => (Some(absent), None),
        };
    }
    let go_inside = || {
        let installed = install::install_and_enter(config)?;
        let keeper = Keeper::start(config_path).map_err(|error| Absent::failed("starting the fence's keeper", error))?;
        info!(
            cgroup = %installed.cgroup.display(), pins = %installed.pins.display(), addresses = installed.addresses,
            replaced = installed.replaced, "the fence is set up"
        );
        Ok(keeper)
    };
    match go_inside() {
        Ok(keeper) if is_fenced() => (None, Some(keeper)),
        Ok(keeper) => (Some(Absent::Outside), Some(keeper)),
        Err(absent) => (Some(absent), None),
    }
}

/// Whether this process is inside of a fence: an address that is never allowed is refused, and a socket can be tagged. No packet is
/// sent for it.
fn is_fenced() -> bool {
    let nowhere = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.connect((Ipv4Addr::LOCALHOST, 0));
    let refused = nowhere().is_err_and(|error| error.raw_os_error() == Some(libc::EPERM));
    let tag = Tag { region: u32::MAX, worker: NO_WORKER, ..Tag::default() };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP));
    refused && socket.is_ok_and(|socket| sys::tag(&socket, &tag).is_ok())
}
