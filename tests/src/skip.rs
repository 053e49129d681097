//! Tests that cannot run here say what they lack.
//!
//! `cargo test` has no way to skip a test while it runs: such a test passes for it. So the line
//! `skipped: <test>: needs <what>` goes to standard error, past the runner's capture, and to the file that the variable
//! [`FILE`] names: `cargo xtask test` counts and lists what stands there. A test begins with
//!
//! ```ignore
//! let Some(world) = available(world()) else { return };
//! ```

use std::fs::OpenOptions;
use std::io::Write;
use std::thread;

/// The variable with the name of a file that takes one line for each skipped test.
pub const FILE: &str = "DOMICILE_SKIPPED";

/// The value, or after saying that the running test is skipped because of what it lacks, `None`.
pub fn available<T>(found: Result<T, String>) -> Option<T> {
    match found {
        Ok(value) => Some(value),
        Err(needs) => {
            let test = thread::current();
            let line = format!("skipped: {}: needs {needs}\n", test.name().unwrap_or("a test"));
            // Not eprint!, which the test runner keeps from the terminal when a test passes.
            std::io::stderr().write_all(line.as_bytes()).ok();
            let file = std::env::var_os(FILE).and_then(|file| OpenOptions::new().append(true).create(true).open(file).ok());
            if let Some(mut file) = file {
                file.write_all(line.as_bytes()).ok();
            }
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
