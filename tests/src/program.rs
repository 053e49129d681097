//! PostgreSQL's own programs: where they are, and running one to its end with a limit.
//!
//! A program that hangs is a failed test, not a hung test run.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::signal_process;

/// Where PostgreSQL's server programs are: what `pg_config` says, else the newest of Debian's versioned directories.
pub fn postgres_directory() -> Option<PathBuf> {
    let has_server = |directory: &Path| directory.join("initdb").exists() && directory.join("postgres").exists();
    let from_config = Command::new("pg_config").arg("--bindir").output().ok();
    let from_config = from_config.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    if let Some(directory) = from_config.filter(|directory| has_server(directory)) {
        return Some(directory);
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let number = |path: &Path| path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u32>().ok());
    let mut versions: Vec<_> = versions.filter(|path| has_server(&path.join("bin"))).collect();
    versions.sort_by_key(|path| number(path));
    versions.pop().map(|version| version.join("bin"))
}

/// The path of one of PostgreSQL's programs (`psql`, `pgbench`, `initdb` …).
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = postgres_directory().into_iter().chain(std::env::split_paths(&path));
    places.map(|directory| directory.join(name)).find(|program| program.is_file())
}

/// The same, or what is missing.
pub fn need(name: &str) -> Result<PathBuf, String> {
    find(name).ok_or_else(|| format!("{name} (Debian: apt-get install postgresql)"))
}

/// A command without the settings of the user's own shell: no `PG…` variables, no psqlrc, English messages.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C.UTF-8").env("PSQLRC", "/dev/null").env("PSQL_PAGER", "cat").env("PGPASSWORD", "postgres");
    command.env("PGCONNECT_TIMEOUT", "10").current_dir("/");
    command
}

/// Runs `command` to its end with `input` on its standard input; kills it after `limit`, which is an error.
pub fn run(mut command: Command, input: &str, limit: Duration) -> io::Result<Output> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    wait(command, input, limit)
}

fn wait(mut command: Command, input: &str, limit: Duration) -> io::Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    // The command holds our ends of what it was given to write to.
    drop(command);
    let id = child.id();
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_owned();
        thread::spawn(move || stdin.write_all(input.as_bytes()).ok());
    }
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()).ok());
    receiver.recv_timeout(limit).unwrap_or_else(|_| {
        signal_process(id, Signal::KILL);
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("{name} did not end within {} s", limit.as_secs())))
    })
}

/// The same with standard output and standard error as one text, in the order in which they were written.
pub fn run_together(mut command: Command, input: &str, limit: Duration) -> io::Result<String> {
    let (mut reader, writer) = io::pipe()?;
    command.stderr(writer.try_clone()?).stdout(writer);
    let text = thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    wait(command, input, limit)?;
    text.join().map_err(|_| io::Error::other("the reader of a pipe is gone"))?
}

/// Standard output and standard error of a program, one after the other.
pub fn both(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_killed() {
        let mut sleep = Command::new("sleep");
        sleep.arg("60");
        let error = run(sleep, "", Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.to_string(), "sleep did not end within 0 s");
    }

    #[test]
    fn input_goes_in_and_output_comes_out() {
        assert_eq!(both(&run(Command::new("cat"), "text", Duration::from_secs(10)).unwrap()), "text");
    }
}
