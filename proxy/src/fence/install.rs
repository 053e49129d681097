//! Setting the fence up, changing its list, and taking it away: what takes privileges.
//!
//! ```text
//!   install   cgroup ─▶ maps, pinned ─▶ list, names ─▶ programs ─▶ links, pinned
//!   widen     what the configuration allows is allowed, and what was allowed still is
//!   narrow    what the configuration does not allow is not allowed any more; what was verified is verified again
//! ```
//!
//! Nothing is attached before the list is there, and a program takes another's place at once, so there is no moment without a fence.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use domicile_ebpf_abi::{
    Destination, FLAG_WIDENED, NAME_BYTES, NAME_OF_NODE, NAME_OF_REGION, Name, NameKey, Node, Policy, Targets, VERSION,
};
use rustix::fs::{FlockOperation, flock};
use rustix::thread::{CapabilitySet, capabilities};

use super::allow::{AllowList, resolve};
use super::number::number;
use super::object::{self, MAPS, PROGRAMS, STEER};
use super::sys::{self, Access, AttachType};
use super::{Absent, place, unix};
use crate::config::Config;

/// The oldest kernel that the programs and the engine run on.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Pins that the proxy writes to, as a member of its own group.
const WRITTEN_BY_THE_PROXY: [&str; 6] = ["denials", "workers", "steering", "listeners", "events", STEER];
/// Pins that it reads.
const READ_BY_THE_PROXY: [&str; 5] = ["flows", "nodes", "policy", "names", "allow"];

/// What was set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The cgroup that is fenced in.
    pub cgroup: PathBuf,
    /// Where programs and maps are pinned.
    pub pins: PathBuf,
    /// Addresses and networks that are allowed.
    pub addresses: usize,
    /// Programs that took the place of others; 0 if the fence is new.
    pub replaced: usize,
}

/// Sets the fence up for a configuration, or brings the one that is there up to it: if something runs in it, what it allowed stays
/// allowed until [`narrow`].
///
/// # Errors
/// Why there is no fence, or not this one.
pub fn install(config: &Config) -> Result<Installed, Absent> {
    set_up(config, |_| Ok(()))
}

/// The same, and goes inside.
pub(super) fn install_and_enter(config: &Config) -> Result<Installed, Absent> {
    set_up(config, place::enter_cgroup)
}

fn set_up(config: &Config, enter: impl FnOnce(&Path) -> Result<(), Absent>) -> Result<Installed, Absent> {
    check_kernel()?;
    check_capabilities()?;
    let kernel = &config.kernel;
    let cgroup = place::cgroup(&kernel.cgroup)?;
    place::make_cgroup(&cgroup)?;
    place::make_pins(kernel)?;
    // Names are resolved while nothing is around this process yet.
    let list = AllowList::new(config, &resolve)?;
    let directory = File::open(&cgroup).map_err(|error| Absent::failed(format!("opening {}", cgroup.display()), error))?;
    // Two who come at once come one after the other, and the second finds the first inside.
    let _lock = lock(&directory)?;
    enter(&cgroup)?;
    let found = read_policy(&kernel.pins)?;
    let mut object = object::load(&kernel.pins)?;
    match found {
        // Whoever is in there may be connected to what the list had before.
        Some(_) if place::has_others(&cgroup)? => widen_by(config, &list)?,
        Some(_) => narrow_to(config, &list)?,
        None => write(config, &list, None)?,
    }
    let mut replaced = 0;
    for (name, attach_type) in PROGRAMS {
        let program = object.program(name).and_then(|program| program.fd().ok());
        let program = program.ok_or_else(|| Absent::ObjectRefused { text: format!("it has no program {name}") })?;
        let link = kernel.pins.join(format!("link_{name}"));
        let attached = attach(program.as_fd(), &directory, attach_type, &link);
        replaced += usize::from(attached.map_err(|error| Absent::failed(format!("attaching {name}"), error))?);
    }
    if let Some(program) = load_unix(&kernel.pins)? {
        let attached = attach(program, &directory, AttachType::ConnectUnix, &kernel.pins.join("link_connect_unix"));
        replaced += usize::from(attached.map_err(|error| Absent::failed("attaching connect_unix", error))?);
    }
    let steer = object.program_mut(STEER).and_then(|program| program.fd().ok()?.as_fd().try_clone_to_owned().ok());
    let steer = steer.ok_or_else(|| Absent::ObjectRefused { text: format!("it has no program {STEER}") })?;
    pin_over(&steer, &kernel.pins.join(STEER)).map_err(|error| Absent::failed(format!("pinning {STEER}"), error))?;
    share(config)?;
    Ok(Installed { cgroup, pins: kernel.pins.clone(), addresses: list.len(), replaced })
}

/// Allows what a configuration does, beside what is allowed already.
///
/// # Errors
/// The list cannot be changed; it is as it was, or holds a part of what was to be added.
pub(super) fn widen(config: &Config) -> Result<(), Absent> {
    widen_by(config, &AllowList::new(config, &resolve)?)
}

fn widen_by(config: &Config, list: &AllowList) -> Result<(), Absent> {
    let found = read_policy(&config.kernel.pins)?.unwrap_or_default();
    let list = list.widened_by(&Lists::open(&config.kernel.pins)?.read()?);
    write(config, &list, Some(found))
}

/// Allows what a configuration does, and nothing else.
///
/// # Errors
/// The list cannot be changed; it allows too much.
pub fn narrow(config: &Config) -> Result<(), Absent> {
    narrow_to(config, &AllowList::new(config, &resolve)?)
}

fn narrow_to(config: &Config, list: &AllowList) -> Result<(), Absent> {
    let found = read_policy(&config.kernel.pins)?.unwrap_or_default();
    write(config, list, Some(found))?;
    Lists::open(&config.kernel.pins)?.remove_others(list)?;
    let policy =
        Policy { generation: found.generation + 1, flags: found.flags & !FLAG_WIDENED, version: VERSION, digest: config.digest };
    write_policy(&config.kernel.pins, policy)
}

/// Takes the fence away: links, programs, maps, and the cgroup if nobody is in it. Whether the cgroup is gone too.
///
/// # Errors
/// Something cannot be removed.
pub fn remove(config: &Config) -> Result<bool, Absent> {
    let pins = &config.kernel.pins;
    let failed = |error: io::Error| Absent::failed(format!("removing {}", pins.display()), error);
    match fs::read_dir(pins) {
        Ok(entries) => {
            for entry in entries {
                fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
            }
            fs::remove_dir(pins).map_err(failed)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let cgroup = place::cgroup(&config.kernel.cgroup)?;
    match fs::remove_dir(&cgroup) {
        Ok(()) => Ok(true),
        Err(error) => Ok(error.kind() == io::ErrorKind::NotFound),
    }
}

/// Everything that a list is read from or written to.
struct Lists {
    allow: LpmTrie<MapData, Destination, Targets>,
}

impl Lists {
    fn open(pins: &Path) -> Result<Self, Absent> {
        let allow = open_map(pins, "allow", Map::LpmTrie)?;
        Ok(Self { allow: LpmTrie::try_from(allow).map_err(|error| map_failed("allow", &error))? })
    }

    fn read(&self) -> Result<AllowList, Absent> {
        let entries = self.allow.iter().map(|entry| entry.map(|(key, value)| ((key.prefix_len(), key.data()), value)));
        let entries: Result<Vec<_>, MapError> = entries.collect();
        Ok(AllowList::of_kernel(entries.map_err(|error| map_failed("allow", &error))?))
    }

    fn write(&mut self, list: &AllowList) -> Result<(), Absent> {
        for ((bits, destination), targets) in list.entries() {
            self.allow.insert(&Key::new(bits, destination), targets, 0).map_err(|error| map_failed("allow", &error))?;
        }
        Ok(())
    }

    fn remove_others(&mut self, list: &AllowList) -> Result<(), Absent> {
        let wanted: Vec<_> = list.entries().map(|(key, _)| key).collect();
        let found: Result<Vec<_>, MapError> = self.allow.keys().collect();
        for key in found.map_err(|error| map_failed("allow", &error))? {
            if !wanted.contains(&(key.prefix_len(), key.data())) {
                self.allow.remove(&key).map_err(|error| map_failed("allow", &error))?;
            }
        }
        Ok(())
    }
}

/// Writes a list, the names of what it speaks of, and whose list it is. Where something was there, the list is taken for wider than
/// the configuration.
fn write(config: &Config, list: &AllowList, found: Option<Policy>) -> Result<(), Absent> {
    list.fits()?;
    let pins = &config.kernel.pins;
    write_names(config)?;
    Lists::open(pins)?.write(list)?;
    let mut policy = found.unwrap_or(Policy { generation: 1, ..Policy::default() });
    policy.flags = if found.is_some() { FLAG_WIDENED } else { 0 };
    policy.version = VERSION;
    policy.digest = config.digest;
    write_policy(pins, policy)
}

fn write_names(config: &Config) -> Result<(), Absent> {
    let pins = &config.kernel.pins;
    let failed = |name: &'static str| move |error: MapError| map_failed(name, &error);
    let mut names: HashMap<_, NameKey, Name> =
        HashMap::try_from(open_map(pins, "names", Map::HashMap)?).map_err(failed("names"))?;
    let mut nodes: HashMap<_, u32, Node> = HashMap::try_from(open_map(pins, "nodes", Map::HashMap)?).map_err(failed("nodes"))?;
    let regions = config.regions.iter().map(|region| (NAME_OF_REGION, &region.name));
    for (kind, name) in regions.chain(config.nodes.iter().map(|node| (NAME_OF_NODE, &node.name))) {
        let mut text = [0; NAME_BYTES];
        text.iter_mut().zip(name.bytes()).for_each(|(place, byte)| *place = byte);
        names.insert(NameKey { kind, number: number(name) }, Name { name: text }, 0).map_err(failed("names"))?;
    }
    for node in &config.nodes {
        let (key, region) = (number(&node.name), number(&node.region));
        let known = nodes.get(&key, 0).unwrap_or_default();
        nodes.insert(key, Node { region, ..known }, 0).map_err(failed("nodes"))?;
    }
    Ok(())
}

/// What is said of the list that is pinned; nothing if none is.
fn read_policy(pins: &Path) -> Result<Option<Policy>, Absent> {
    if !pins.join("policy").exists() {
        return Ok(None);
    }
    let policy: Array<_, Policy> = match Array::try_from(open_map(pins, "policy", Map::Array)?) {
        Ok(policy) => policy,
        // Not even the size is what it should be.
        Err(_) => return Err(Absent::OtherVersion { path: pins.to_owned(), found: 0 }),
    };
    let policy = policy.get(&0, 0).map_err(|error| map_failed("policy", &error))?;
    match policy.version {
        VERSION => Ok(Some(policy)),
        // It was made, and whoever made it came no further.
        0 => Ok(None),
        found => Err(Absent::OtherVersion { path: pins.to_owned(), found }),
    }
}

fn write_policy(pins: &Path, policy: Policy) -> Result<(), Absent> {
    let failed = |error: MapError| map_failed("policy", &error);
    let mut map: Array<_, Policy> = Array::try_from(open_map(pins, "policy", Map::Array)?).map_err(failed)?;
    map.set(0, policy, 0).map_err(failed)
}

fn open_map(pins: &Path, name: &str, kind: fn(MapData) -> Map) -> Result<Map, Absent> {
    let descriptor = sys::open(&pins.join(name), Access::ReadWrite);
    let descriptor = descriptor.map_err(|error| Absent::failed(format!("opening {}", pins.join(name).display()), error))?;
    MapData::from_fd(descriptor).map(kind).map_err(|error| map_failed(name, &error))
}

fn map_failed(name: &str, error: &MapError) -> Absent {
    Absent::failed(format!("map {name}"), object::with_causes(error))
}

/// The program for Unix sockets, where the kernel has a place for it.
fn load_unix(pins: &Path) -> Result<Option<OwnedFd>, Absent> {
    let open = |name: &str| sys::open(&pins.join(name), Access::ReadWrite);
    let (sockets, allow) = open("sockets")
        .and_then(|sockets| Ok((sockets, open("allow")?)))
        .map_err(|error| Absent::failed("opening maps", error))?;
    unix::load(sockets, allow).map_err(|error| Absent::ObjectRefused { text: format!("connect_unix: {error}") })
}

/// Attaches a program by a link that is pinned at `path`. Whether it took the place of another.
fn attach(program: impl AsFd, cgroup: &File, attach_type: AttachType, path: &Path) -> io::Result<bool> {
    if path.exists() {
        let link = sys::open(path, Access::ReadWrite)?;
        if sys::cgroup_of_link(&link)? == cgroup.metadata()?.ino() {
            sys::update_link(link, program)?;
            return Ok(true);
        }
    }
    // The other one was of a cgroup that is gone, or not the fenced one any more.
    let link = sys::create_link(program, cgroup, attach_type)?;
    pin_over(&link, path)?;
    Ok(false)
}

/// Pins an object in the place of what may be pinned there.
fn pin_over(object: &OwnedFd, path: &Path) -> io::Result<()> {
    // No dots: the file system keeps them for itself.
    let fresh = path.with_file_name(format!("{}_new", path.file_name().unwrap_or_default().display()));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    sys::pin(object, &fresh)?;
    fs::rename(&fresh, path)
}

/// Gives the proxy's own group what it reads and writes. What decides is root's alone.
fn share(config: &Config) -> Result<(), Absent> {
    let pins = &config.kernel.pins;
    let failed = |error: io::Error| Absent::failed(format!("sharing {}", pins.display()), error);
    let group = match &config.user {
        Some(user) => super::privileges::group_of(user)?,
        None => return Ok(()),
    };
    chown(pins, None, Some(group)).map_err(failed)?;
    fs::set_permissions(pins, Permissions::from_mode(0o750)).map_err(failed)?;
    let of = |mode| move |name| (name, mode);
    for (name, mode) in WRITTEN_BY_THE_PROXY.map(of(0o660)).into_iter().chain(READ_BY_THE_PROXY.map(of(0o640))) {
        let path = pins.join(name);
        if path.exists() {
            chown(&path, None, Some(group)).map_err(failed)?;
            fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Two who set it up at once do so one after the other.
fn lock(directory: &File) -> Result<impl Drop + use<>, Absent> {
    struct Lock(File);
    impl Drop for Lock {
        fn drop(&mut self) {
            if let Err(error) = flock(&self.0, FlockOperation::Unlock) {
                tracing::debug!(%error, "the lock of a cgroup goes with its descriptor");
            }
        }
    }
    let failed = |error: io::Error| Absent::failed("locking the cgroup", error);
    let directory = directory.try_clone().map_err(failed)?;
    flock(&directory, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    Ok(Lock(directory))
}

fn check_kernel() -> Result<(), Absent> {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < KERNEL_MIN { Err(Absent::KernelTooOld { release }) } else { Ok(()) }
}

/// Whether this process may set the fence up.
pub(super) fn check_capabilities() -> Result<(), Absent> {
    let has = capabilities(None).map_err(|error| Absent::failed("capabilities", error))?.effective;
    let needed =
        [(CapabilitySet::BPF, "CAP_BPF"), (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"), (CapabilitySet::PERFMON, "CAP_PERFMON")];
    let missing: Vec<&str> = needed.iter().filter(|(one, _)| !has.contains(*one)).map(|(_, name)| *name).collect();
    if missing.is_empty() { Ok(()) } else { Err(Absent::NoCapability { missing: missing.join(", ") }) }
}

/// Whether maps are pinned there at all.
pub(super) fn is_pinned(pins: &Path) -> bool {
    MAPS.iter().all(|map| pins.join(map).exists())
}
