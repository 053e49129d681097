//! Why there is no fence, in words for whoever has to do something about it.

use std::fmt;
use std::path::PathBuf;

/// Why the process is not fenced in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// `fence = "off"`.
    Off,
    /// No cgroup v2 hierarchy is mounted.
    NoCgroup2,
    /// There is no BPF file system where the maps should be pinned, and none can be mounted.
    NoBpfFileSystem {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        text: String,
    },
    /// The process may not set it up, and nobody else has.
    NoCapability {
        /// The capabilities that it lacks.
        missing: String,
    },
    /// The kernel lacks what the programs need.
    KernelTooOld {
        /// `uname -r`.
        release: String,
    },
    /// The kernel refused the programs.
    ObjectRefused {
        /// What it said.
        text: String,
    },
    /// Maps of another version are pinned.
    OtherVersion {
        /// Where.
        path: PathBuf,
        /// Theirs.
        found: u32,
    },
    /// The fence is there, but this process is not inside.
    Outside,
    /// The fence was there and is not any more.
    Gone,
    /// Anything else that failed.
    Failed {
        /// What was being done.
        doing: String,
        /// What was said.
        text: String,
    },
}

impl Absent {
    /// Something failed.
    pub(super) fn failed(doing: impl Into<String>, error: impl fmt::Display) -> Self {
        Self::Failed { doing: doing.into(), text: error.to_string() }
    }

    /// A word for a metric's label.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::NoCgroup2 => "no_cgroup2",
            Self::NoBpfFileSystem { .. } => "no_bpffs",
            Self::NoCapability { .. } => "no_capability",
            Self::KernelTooOld { .. } => "kernel_too_old",
            Self::ObjectRefused { .. } => "object_refused",
            Self::OtherVersion { .. } => "other_version",
            Self::Outside => "outside",
            Self::Gone => "gone",
            Self::Failed { .. } => "failed",
        }
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("it is turned off (fence = \"off\")"),
            Self::NoCgroup2 => {
                f.write_str("no cgroup v2 hierarchy is mounted: mount -t cgroup2 none /sys/fs/cgroup, or boot with it")
            }
            Self::NoBpfFileSystem { path, text } => {
                write!(f, "there is no BPF file system at {} ({text}): mount -t bpf bpf /sys/fs/bpf", path.display())
            }
            Self::NoCapability { missing } => write!(
                f,
                "this process lacks {missing}, and nobody has installed the fence for it: start domicile as root, or run \
                 `domicile fence install --config FILE` as root before it starts"
            ),
            Self::KernelTooOld { release } => {
                write!(f, "Linux {release} lacks what the fence needs: it takes Linux 6.1 or newer")
            }
            Self::ObjectRefused { text } => write!(f, "the kernel refused the fence's programs: {text}"),
            Self::OtherVersion { path, found } => write!(
                f,
                "{} holds maps of another version of domicile (layout {found}): stop what uses them and run `domicile fence remove`",
                path.display()
            ),
            Self::Outside => f.write_str(
                "this process is not in a cgroup that is fenced in: start domicile as root, or put it into the cgroup that \
                 `domicile fence install` names, before it starts",
            ),
            Self::Gone => {
                f.write_str("the fence was there and is not any more: its cgroup was removed, or its links were detached")
            }
            Self::Failed { doing, text } => write!(f, "{doing}: {text}"),
        }
    }
}

impl std::error::Error for Absent {}
