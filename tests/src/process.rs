//! Child processes that never outlive this one, and the directories and ports they live on.
//!
//! A cluster that survives its test run is the next run's mystery. So every child dies with this process (the kernel sends it a
//! signal), a normal exit stops the children in order and removes their directories, and a start removes what a killed run left.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicI32, AtomicU16, AtomicU32, Ordering};
use std::sync::{Mutex, Once, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};

use crate::{gate, network};

/// The clock. Tests wait for other processes, so they may read it; the pure modules of the product may not.
#[expect(clippy::disallowed_methods, reason = "deadlines on other processes")]
pub fn now() -> Instant {
    Instant::now()
}

/// Asks `done` every 20 ms until it answers `Some` or `limit` has passed.
pub fn wait_for<T>(limit: Duration, mut done: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = now() + limit;
    loop {
        if let Some(answer) = done() {
            return Some(answer);
        }
        if now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A child process, stopped when dropped, when this process exits, and when it is killed.
pub struct Process {
    child: Child,
    stop: Signal,
}

impl Process {
    /// Starts `command` in a process group of its own (Ctrl-C reaches only us, and we stop children in order). `stop` is the
    /// signal that ends it quickly.
    pub fn start(mut command: Command, stop: Signal) -> io::Result<Self> {
        command.process_group(0);
        // SAFETY: between fork and exec only prctl runs, which is async-signal-safe and allocates nothing.
        unsafe {
            command.pre_exec(move || Ok(rustix::process::set_parent_process_death_signal(Some(stop))?));
        }
        // While everything is stopped, nothing more is started.
        let mut at_exit = at_exit();
        let child = start_from_lasting_thread(command)?;
        at_exit.processes.insert(child.id(), stop);
        drop(at_exit);
        Ok(Self { child, stop })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal`; a process that has gone already is no error.
    pub fn signal(&self, signal: Signal) {
        signal_process(self.id(), signal);
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until it has ended, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        wait_for(limit, || self.exit_status())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(self.stop);
        if self.wait(Duration::from_secs(5)).is_none() {
            self.signal(Signal::KILL);
            self.wait(Duration::from_secs(5));
        }
        at_exit().processes.remove(&self.child.id());
    }
}

/// Sends `signal` to any process; one that has gone already is no error.
pub fn signal_process(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        rustix::process::kill_process(pid, signal).ok();
    }
}

/// The parent-death signal is sent when the *thread* that started the child ends, and a test's thread ends with its test; so
/// every child is started by one thread that stays. It starts it in the network namespace of the one that asks.
fn start_from_lasting_thread(command: Command) -> io::Result<Child> {
    type Job = (Command, Option<OwnedFd>, mpsc::Sender<io::Result<Child>>);
    static STARTER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, namespace, answer) in jobs {
                let ready = namespace.map_or(Ok(()), network::enter);
                answer.send(ready.and_then(|()| command.spawn())).ok();
            }
        });
        sender
    });
    let (sender, answer) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that starts children is gone");
    starter.send((command, network::entered(), sender)).map_err(|_| gone(mpsc::RecvError))?;
    answer.recv().map_err(gone)?
}

/// A directory of this run, removed when dropped or when the process exits. Everybody may pass through it (the server runs as
/// another user), only its owner may list it.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes an empty directory whose name begins with `domicile-` and our process id.
    pub fn new() -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(remove_what_killed_runs_left);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o711))?;
        at_exit().directories.push(path.clone());
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
        at_exit().directories.retain(|path| *path != self.0);
    }
}

/// Has the directories of a fence removed when this process exits, or no more.
pub(crate) fn remove_fence_at_exit(pins: &Path, cgroup: &Path, is_wanted: bool) {
    let mut at_exit = at_exit();
    at_exit.fences.retain(|(known, _)| known != pins);
    if is_wanted {
        at_exit.fences.push((pins.to_owned(), cgroup.to_owned()));
    }
}

/// From now on Ctrl-C, SIGTERM and SIGHUP end this process as its own end would: everything it started is stopped, and what it made
/// is removed.
///
/// # Errors
/// There is no pipe to be had.
pub fn exit_when_signalled() -> io::Result<()> {
    static TOLD: AtomicI32 = AtomicI32::new(-1);
    extern "C" fn tell(signal: libc::c_int) {
        // SAFETY: write is async-signal-safe and gets one byte that lives as long as the call; the pipe is never closed.
        unsafe { libc::write(TOLD.load(Ordering::Relaxed), (&raw const signal).cast(), 1) };
    }
    let (mut reader, writer) = io::pipe()?;
    TOLD.store(writer.into_raw_fd(), Ordering::Relaxed);
    thread::spawn(move || {
        let mut signal = [0];
        if reader.read_exact(&mut signal).is_ok() {
            std::process::exit(128 + i32::from(signal[0]));
        }
    });
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler: extern "C" fn(libc::c_int) = tell;
        // SAFETY: the handler does nothing that is not async-signal-safe.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
    Ok(())
}

const PREFIX: &str = "domicile-";

fn remove_what_killed_runs_left() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|id| id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists()) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// What a normal exit still has to stop and remove: values in statics are never dropped.
#[derive(Default)]
struct AtExit {
    processes: HashMap<u32, Signal>,
    directories: Vec<PathBuf>,
    /// Directories of pins, and cgroups.
    fences: Vec<(PathBuf, PathBuf)>,
}

fn at_exit() -> std::sync::MutexGuard<'static, AtExit> {
    static STATE: OnceLock<Mutex<AtExit>> = OnceLock::new();
    let state = STATE.get_or_init(|| {
        // SAFETY: registers a function that takes nothing, never unwinds over C (the mutex recovers from poison and every
        // result is ignored) and stays loaded as long as the process.
        unsafe { libc::atexit(clean_up) };
        Mutex::default()
    });
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn clean_up() {
    // Nobody gets the lock any more: other threads may still run, and must start nothing.
    let mut at_exit = at_exit();
    let AtExit { processes, directories, fences } = std::mem::take(&mut *at_exit);
    std::mem::forget(at_exit);
    for (id, stop) in &processes {
        signal_process(*id, *stop);
    }
    for id in processes.into_keys() {
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
        let ended = || !matches!(rustix::process::waitpid(pid, WaitOptions::NOHANG), Ok(None));
        if wait_for(Duration::from_secs(5), || ended().then_some(())).is_none() {
            signal_process(id, Signal::KILL);
        }
    }
    for directory in directories {
        fs::remove_dir_all(directory).ok();
    }
    fences.iter().for_each(|(pins, cgroup)| gate::remove(pins, cgroup));
}

/// A TCP port of 127.0.0.1 that nobody listens on. It lies below the kernel's range for outgoing connections (from 32768), so
/// that none of those takes it before its server does.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id().wrapping_mul(97) % 10_000).unwrap_or(0);
    loop {
        let port = 20_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        if port_is_free(port) {
            return port;
        }
    }
}

/// Whether a server could listen on this port of 127.0.0.1 now.
pub fn port_is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// The user that servers run as when we are root, because PostgreSQL refuses root: `postgres`, else `nobody`. `None`: we are not
/// root, they run as us.
pub fn unprivileged_user() -> Option<(u32, u32)> {
    rustix::process::geteuid().is_root().then(|| {
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let find = |name: &str| {
            let mut fields = accounts.lines().map(|line| line.split(':')).find(|line| line.clone().next() == Some(name))?.skip(2);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        };
        find("postgres").or_else(|| find("nobody")).unwrap_or((65_534, 65_534))
    })
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;

    use super::*;

    #[test]
    fn a_child_dies_with_its_handle_and_not_with_the_thread_that_asked_for_it() {
        let sleep = || {
            let mut command = Command::new("sleep");
            command.arg("60");
            Process::start(command, Signal::TERM).unwrap()
        };
        let mut process = thread::spawn(sleep).join().unwrap();
        thread::sleep(Duration::from_millis(50));
        assert!(process.exit_status().is_none());
        let id = process.id();
        drop(process);
        assert!(!Path::new("/proc").join(id.to_string()).exists());
    }

    #[test]
    fn a_scratch_directory_goes_with_its_handle() {
        let scratch = Scratch::new().unwrap();
        fs::write(scratch.path().join("file"), "x").unwrap();
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn a_process_that_is_signalled_removes_what_it_has_made() {
        const CHILD: &str = "DOMICILE_IS_SIGNALLED";
        if std::env::var_os(CHILD).is_some() {
            exit_when_signalled().unwrap();
            let scratch = Scratch::new().unwrap();
            let gate = gate::Gate::named("signalled").ok();
            let fence = gate.as_ref().map(|gate| [gate.pins(), gate.cgroup().to_owned()]);
            fence.iter().flatten().for_each(|directory| fs::create_dir(directory).unwrap());
            let made: Vec<_> = fence.iter().flatten().map(PathBuf::as_path).chain([scratch.path()]).collect();
            println!("\nmade {made:?}");
            thread::sleep(Duration::from_secs(60));
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        let name = "process::tests::a_process_that_is_signalled_removes_what_it_has_made";
        command.args(["--exact", name, "--nocapture"]).env(CHILD, "1");
        let (reader, writer) = io::pipe().unwrap();
        command.stdout(writer);
        let mut child = Process::start(command, Signal::KILL).unwrap();
        let made = io::BufReader::new(reader).lines().map_while(Result::ok).find(|line| line.starts_with("made")).unwrap();
        let made: Vec<&Path> = made.split('"').skip(1).step_by(2).map(Path::new).collect();
        assert!(!made.is_empty() && made.iter().all(|path| path.exists()), "{made:?}");
        child.signal(Signal::TERM);
        assert_eq!(child.wait(Duration::from_secs(10)).and_then(|status| status.code()), Some(143));
        assert!(made.iter().all(|path| !path.exists()), "{made:?}");
    }

    #[test]
    fn ports_are_not_handed_out_twice() {
        assert_ne!(free_port(), free_port());
    }
}
