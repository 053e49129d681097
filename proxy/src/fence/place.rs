//! Where the fence stands: the cgroup v2 hierarchy, the cgroup in it, and the directory of pins on a BPF file system.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FsWord, statfs};
use rustix::mount::{MountFlags, mount};

use super::Absent;
use crate::config::{Cgroup, Kernel};

/// BPF_FS_MAGIC (statfs(2)).
const BPF_FS_MAGIC: FsWord = 0xcafe_4a11;
/// The cgroup of whoever is in no service.
const CGROUP: &str = "domicile";

/// The root of the cgroup v2 hierarchy: the file system's root if that is mounted there, else wherever it is mounted beside v1.
pub(super) fn cgroup_root() -> Result<PathBuf, Absent> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| Absent::failed("/proc/self/mountinfo", error))?;
    cgroup_mount(&mounts).ok_or(Absent::NoCgroup2)
}

/// The mount point of cgroup2 in the text of mountinfo (proc_pid_mountinfo(5)).
fn cgroup_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        (after.split(' ').next() == Some("cgroup2") && root == "/").then(|| PathBuf::from(point))
    })
}

/// The path of the cgroup that this process is in, below the root of the v2 hierarchy.
fn own_cgroup() -> Result<PathBuf, Absent> {
    let text = fs::read_to_string("/proc/self/cgroup").map_err(|error| Absent::failed("/proc/self/cgroup", error))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).ok_or(Absent::NoCgroup2)?;
    Ok(PathBuf::from(path))
}

/// The directory of the cgroup that is to be fenced in.
pub(super) fn cgroup(configured: &Cgroup) -> Result<PathBuf, Absent> {
    let root = cgroup_root()?;
    let path = match configured {
        Cgroup::Path(path) => path.clone(),
        Cgroup::Own => own_cgroup()?,
        Cgroup::Auto => {
            let own = own_cgroup()?;
            if own.extension().is_some_and(|kind| kind == "service") { own } else { PathBuf::from(CGROUP) }
        }
    };
    // All processes of the host are in the root; and it cannot be removed.
    if path.as_os_str().is_empty() {
        return Err(Absent::failed(
            "kernel.cgroup = \"own\"",
            "this process is in the root cgroup, and with it all others: name a cgroup, or start it in one",
        ));
    }
    Ok(root.join(path))
}

/// Makes the cgroup if it is not there.
pub(super) fn make_cgroup(path: &Path) -> Result<(), Absent> {
    fs::create_dir_all(path).map_err(|error| Absent::failed(format!("making the cgroup {}", path.display()), error))
}

/// Puts this process, with all its threads, into the cgroup.
pub(super) fn enter_cgroup(path: &Path) -> Result<(), Absent> {
    let procs = path.join("cgroup.procs");
    fs::write(&procs, "0").map_err(|error| Absent::failed(format!("entering the cgroup {}", path.display()), error))
}

/// Whether another process than this one is in the cgroup.
pub(super) fn has_others(path: &Path) -> Result<bool, Absent> {
    let procs = path.join("cgroup.procs");
    let text = fs::read_to_string(&procs).map_err(|error| Absent::failed(format!("reading {}", procs.display()), error))?;
    let own = std::process::id().to_string();
    Ok(text.lines().any(|process| process != own))
}

/// Makes the directory of pins, on a BPF file system, which is mounted if it is not there.
pub(super) fn make_pins(kernel: &Kernel) -> Result<(), Absent> {
    let path = &kernel.pins;
    let refused = |error: io::Error| Absent::NoBpfFileSystem { path: path.clone(), text: error.to_string() };
    if !is_on_bpffs(path) {
        // As systemd mounts it.
        let point = Path::new("/sys/fs/bpf");
        if !path.starts_with(point) {
            return Err(refused(io::Error::other("it is on another file system")));
        }
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
        mount("bpf", point, "bpf", flags, Some(c"mode=0700")).map_err(|error| refused(error.into()))?;
    }
    fs::create_dir_all(path).map_err(refused)
}

/// Whether the nearest directory of a path that exists is on a BPF file system.
fn is_on_bpffs(path: &Path) -> bool {
    let existing = path.ancestors().find(|path| path.exists());
    existing.and_then(|path| statfs(path).ok()).is_some_and(|found| found.f_type == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_alone_and_beside_version_1() {
        let beside = "25 22 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      30 25 0:27 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n\
                      31 25 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu";
        assert_eq!(cgroup_mount(beside), Some("/sys/fs/cgroup/unified".into()));
        let alone = "26 23 0:24 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw";
        assert_eq!(cgroup_mount(alone), Some("/sys/fs/cgroup".into()));
        assert_eq!(cgroup_mount("25 22 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw"), None);
        // A part of it, bound elsewhere, is not the hierarchy.
        assert_eq!(cgroup_mount("26 23 0:24 /a /mnt rw - cgroup2 cgroup2 rw"), None);
    }
}
