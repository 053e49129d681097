//! Why a worker could not start, and what to do about it.

use std::fmt;
use std::io;

/// Why a worker could not start. The text says what to do.
#[derive(Debug)]
pub enum StartError {
    /// `kernel.io_uring_disabled` is set to this.
    Disabled(u8),
    /// The kernel has io_uring, but this process may not use it: a seccomp filter or another security module.
    Forbidden,
    /// The kernel is older than 6.1; its release.
    KernelTooOld(String),
    /// Incremental buffers were demanded, and the kernel (before 6.12) has none; its release.
    NoIncrementalBuffers(String),
    /// No descriptor is left: RLIMIT_NOFILE, or the system's bound.
    OpenFiles(io::Error),
    /// No memory for the rings: RLIMIT_MEMLOCK, the control group's bound, or none at all.
    Memory(io::Error),
    /// The thread could not be made, or ended while it started.
    Thread(io::Error),
    /// Another error of the kernel.
    Other(io::Error),
}

impl std::error::Error for StartError {}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled(1) => f.write_str(
                "io_uring is allowed only for privileged processes (kernel.io_uring_disabled = 1): \
                 add the process to the group named by kernel.io_uring_group, or run `sysctl kernel.io_uring_disabled=0`",
            ),
            Self::Disabled(value) => write!(
                f,
                "io_uring is switched off (kernel.io_uring_disabled = {value}): run `sysctl kernel.io_uring_disabled=0`"
            ),
            Self::Forbidden => f.write_str(
                "this process may not use io_uring: allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp \
                 filter of its container or unit (Docker: --security-opt seccomp=…, systemd: SystemCallFilter=)",
            ),
            Self::KernelTooOld(release) => write!(f, "Linux {release} is too old: 6.1 or newer is needed"),
            Self::NoIncrementalBuffers(release) => {
                write!(f, "Linux {release} has no incremental receive buffers: 6.12 or newer is needed, or another buffer mode")
            }
            Self::OpenFiles(error) => {
                write!(f, "no file descriptor is left for a worker ({error}): raise RLIMIT_NOFILE (systemd: LimitNOFILE=)")
            }
            Self::Memory(error) => write!(
                f,
                "no memory for a worker's rings ({error}): raise RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=) or the memory bound of the \
                 control group, or run fewer workers"
            ),
            Self::Thread(error) => write!(f, "a worker's thread could not be started: {error}"),
            Self::Other(error) => write!(f, "io_uring could not be set up: {error}"),
        }
    }
}

impl StartError {
    /// The reason why setting up a ring gave `error`, as far as the system tells.
    pub(super) fn of_ring(error: io::Error) -> Self {
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        Self::of(error, disabled.and_then(|text| text.trim().parse().ok()), release())
    }

    /// The reason why the buffers were refused, when `demanded` incremental ones.
    pub(super) fn of_buffers(error: io::Error, demanded: bool) -> Self {
        if demanded && error.raw_os_error() == Some(libc::EINVAL) {
            return Self::NoIncrementalBuffers(release());
        }
        Self::of_ring(error)
    }

    fn of(error: io::Error, disabled: Option<u8>, release: String) -> Self {
        match (error.raw_os_error(), disabled) {
            (Some(libc::EPERM), Some(value @ 1..)) => Self::Disabled(value),
            (Some(libc::EPERM | libc::EACCES), _) => Self::Forbidden,
            // Some filters answer as if there were no such call.
            (Some(libc::ENOSYS), _) if is_at_least_6_1(&release) => Self::Forbidden,
            (Some(libc::ENOSYS | libc::EINVAL), _) if !is_at_least_6_1(&release) => Self::KernelTooOld(release),
            (Some(libc::EMFILE | libc::ENFILE), _) => Self::OpenFiles(error),
            (Some(libc::ENOMEM), _) => Self::Memory(error),
            _ => Self::Other(error),
        }
    }
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// A release that cannot be read counts as new enough: then the error speaks for itself.
fn is_at_least_6_1(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (6, 1),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(errno: i32, disabled: Option<u8>, release: &str, expected: &str) {
        let text = StartError::of(io::Error::from_raw_os_error(errno), disabled, release.to_owned()).to_string();
        assert!(text.contains(expected), "{text:?} does not say {expected:?}");
    }

    #[test]
    fn the_cause_is_named_with_a_remedy() {
        check(libc::EPERM, Some(2), "6.18.0", "sysctl kernel.io_uring_disabled=0");
        check(libc::EPERM, Some(1), "6.18.0", "kernel.io_uring_group");
        check(libc::EPERM, Some(0), "6.18.0", "seccomp");
        check(libc::EPERM, None, "6.1.0", "seccomp");
        check(libc::ENOSYS, None, "6.1.0-amd64", "seccomp");
        check(libc::ENOSYS, None, "4.19.0", "Linux 4.19.0 is too old");
        check(libc::EINVAL, None, "5.15.0-91-generic", "Linux 5.15.0-91-generic is too old: 6.1");
        check(libc::EINVAL, None, "6.18.0", "Invalid argument");
        check(libc::EMFILE, None, "6.18.0", "LimitNOFILE=");
        check(libc::ENOMEM, None, "6.18.0", "LimitMEMLOCK=");
    }
}
