//! Tests that cannot run here say what they lack.
//!
//! `cargo test` has no way to skip a test while it runs: such a test passes for it. So the line
//! `skipped: <test>: needs <what>` goes to standard error, past the runner's capture, and `cargo xtask test` counts and lists
//! these lines. A test begins with
//!
//! ```ignore
//! let Some(world) = available(world()) else { return };
//! ```

use std::io::Write;
use std::thread;

/// The value, or after saying that the running test is skipped because of what it lacks, `None`.
pub fn available<T>(found: Result<T, String>) -> Option<T> {
    match found {
        Ok(value) => Some(value),
        Err(needs) => {
            let test = thread::current();
            // Not eprintln!, which the test runner keeps from the terminal when a test passes.
            writeln!(std::io::stderr(), "skipped: {}: needs {needs}", test.name().unwrap_or("a test")).ok();
            None
        }
    }
}

/// Whether this kernel lets this process have io_uring, which the proxy cannot do without.
pub fn io_uring() -> Result<(), String> {
    // SAFETY: with a null parameter block the call makes nothing and fails: EFAULT where io_uring is to be had.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<u8>()) };
    let error = std::io::Error::last_os_error();
    match (result, error.raw_os_error()) {
        (-1, Some(libc::ENOSYS | libc::EPERM)) => Err(format!("io_uring ({error}: seccomp, or kernel.io_uring_disabled)")),
        _ => Ok(()),
    }
}
