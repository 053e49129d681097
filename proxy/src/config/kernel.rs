//! `fence` and `[kernel]`: what the kernel is asked to do, and where it is asked.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use super::document::{Entry, Section};

/// Where the fence's maps are to be found by people and tools.
const PINS: &str = "/sys/fs/bpf/domicile";

/// What the kernel does for the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Whether the proxy runs inside the fence.
    pub fence: FenceMode,
    /// The directory, on a BPF file system, where programs and maps are pinned.
    pub pins: PathBuf,
    /// The cgroup that is fenced in.
    pub cgroup: Cgroup,
    /// Addresses that are no node's and may be connected to all the same; `None`: the system's name servers, if a node has a name.
    pub control: Option<Vec<SocketAddr>>,
    /// Who chooses a client's worker.
    pub steering: Steering,
}

/// Whether the proxy runs inside the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceMode {
    /// It does, or it does not start.
    Required,
    /// It does if that can be had, and says so if not.
    Preferred,
    /// It does not.
    Off,
}

/// The cgroup that is fenced in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroup {
    /// The one of its systemd service, if the process is in one; else `domicile` below the root.
    Auto,
    /// The one that the process is in when it starts.
    Own,
    /// A path below the root of the cgroup v2 hierarchy.
    Path(PathBuf),
}

/// Who chooses a client's worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// The worker with the fewest clients.
    Load,
    /// The worker of the CPU that the client's first packet came in on.
    Cpu,
    /// The kernel's hash over addresses and ports.
    Hash,
}

impl Steering {
    const ALL: [(&str, Self); 3] = [("load", Self::Load), ("cpu", Self::Cpu), ("hash", Self::Hash)];

    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, steering)| *steering == self).map_or("", |(word, _)| word)
    }
}

impl FenceMode {
    const ALL: [(&str, Self); 3] = [("required", Self::Required), ("preferred", Self::Preferred), ("off", Self::Off)];

    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, mode)| *mode == self).map_or("", |(word, _)| word)
    }
}

/// Reads both.
pub(super) fn read(root: &Section<'_>) -> Kernel {
    let fence = root.entry("fence").and_then(|entry| entry.word(&FenceMode::ALL)).unwrap_or(FenceMode::Preferred);
    root.section("kernel", |section| Kernel {
        fence,
        pins: section.entry("pins").and_then(|entry| pins(&entry)).unwrap_or_else(|| PINS.into()),
        cgroup: section.entry("cgroup").and_then(|entry| cgroup(&entry)).unwrap_or(Cgroup::Auto),
        control: section.entry("control").map(|entry| control(&entry)),
        steering: section.entry("steering").and_then(|entry| entry.word(&Steering::ALL)).unwrap_or(Steering::Load),
    })
}

fn pins(entry: &Entry<'_>) -> Option<PathBuf> {
    let is_plain = |path: &Path| {
        // The file system of BPF takes no dots in names.
        let is_name = |name: &OsStr| !name.as_encoded_bytes().contains(&b'.');
        let names = path.components().skip(1).all(|part| matches!(part, Component::Normal(name) if is_name(name)));
        path.is_absolute() && names && path.components().count() > 2
    };
    entry.parsed("the absolute path of a directory, such as \"/sys/fs/bpf/domicile\"", |text| {
        Some(PathBuf::from(text)).filter(|path| is_plain(path))
    })
}

fn cgroup(entry: &Entry<'_>) -> Option<Cgroup> {
    let is_plain =
        |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_))) && path.components().next().is_some();
    entry.parsed("\"auto\", \"own\" or a path below the root of the cgroup v2 hierarchy, such as \"domicile\"", |text| match text
    {
        "auto" => Some(Cgroup::Auto),
        "own" => Some(Cgroup::Own),
        path => Some(PathBuf::from(path)).filter(|path| is_plain(path)).map(Cgroup::Path),
    })
}

fn control(entry: &Entry<'_>) -> Vec<SocketAddr> {
    let what = "an IP address and a port, such as \"127.0.0.53:53\"";
    let address = |text: &str| text.parse().ok().filter(|address: &SocketAddr| address.port() != 0);
    let elements = entry.elements("addresses such as \"127.0.0.53:53\"").unwrap_or_default();
    elements.iter().filter_map(|element| element.parsed(what, address)).collect()
}
