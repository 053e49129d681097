//! The workers: threads that each drive a core with one io_uring.
//!
//! ```text
//!            ┌────────────────────────── a turn ───────────────────────────┐
//!   kernel ─▶ ring ─▶ worker ─▶ core ─▶ outputs ─▶ traffic ─▶ ring ─▶ kernel
//!            completions    bytes, events        queues, sends, receives
//! ```
//!
//! A worker enters the kernel once a turn. What a client or backend sends arrives in a buffer that the kernel has picked, the core
//! looks at it there, and what the core lets through is sent from there. Accepted connections go to the control thread, which logs
//! clients in and hands them back through the [`Mailbox`]; backends are opened in the same way.
//!
//! What the kernel has decides how this is done, and nothing else:
//!
//! | Linux | receive buffers       | one receive request                                   |
//! |-------|-----------------------|-------------------------------------------------------|
//! | 6.1   | plain, 16 KiB         | brings one buffer                                     |
//! | 6.12  | incremental, 64 KiB   | brings one buffer, or what is left of it              |
//! | 6.17  | incremental, 64 KiB   | goes on until it has brought a credit of 64 or 256 KiB |
//!
//! An older kernel does not do: its [`StartError`] says so.
//!
//! Only this module names `io_uring`. It decides nothing about sessions, pools or regions, and understands no message.

mod buffers;
mod listener;
mod mailbox;
mod report;
mod ring;
mod send_queue;
mod sockets;
mod start_error;
mod traffic;
mod worker;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use io_uring::IoUring;

use buffers::{Groups, Side};
use ring::Ring;
use traffic::Traffic;
use worker::Worker;

pub use buffers::BufferMode;
pub use mailbox::{ControlSender, Mailbox, Reply, ToControl, ToWorker};
pub use start_error::StartError;

use crate::fence::{DenialCounters, Loads};
use crate::session::Core;

/// Gives memory that has been freed back to the system, where the allocator knows how.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks and no argument that could be wrong.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// How workers work; the same for all of them.
#[derive(Clone)]
pub struct Options {
    /// The mailboxes of all workers, in the order of their numbers.
    pub mailboxes: Arc<[Mailbox]>,
    /// How the kernel fills receive buffers.
    pub buffer_mode: BufferMode,
    /// Memory for what clients send, in bytes per worker; rounded to a power of two.
    pub frontend_buffer_bytes: usize,
    /// Memory for what backends send, in bytes per worker; rounded to a power of two.
    pub backend_buffer_bytes: usize,
    /// Whether to use receives that are bounded in bytes where the kernel has them (6.17). False only to try the other way.
    pub bounded_receive: bool,
    /// Where denials are counted for those who read the fence's maps.
    pub denials: Option<Arc<DenialCounters>>,
    /// Where clients are counted for the program that chooses their workers.
    pub loads: Option<Arc<Loads>>,
}

impl Options {
    /// What suits a server: 4 MiB for clients, 16 MiB for backends, the best mode that the kernel has.
    pub fn new(mailboxes: Arc<[Mailbox]>) -> Self {
        Self {
            mailboxes,
            buffer_mode: BufferMode::Auto,
            frontend_buffer_bytes: 4 << 20,
            backend_buffer_bytes: 16 << 20,
            bounded_receive: true,
            denials: None,
            loads: None,
        }
    }
}

/// A worker that has started.
pub struct WorkerHandle {
    /// The way to it.
    pub mailbox: Mailbox,
    /// Its thread; it ends after [`ToWorker::Stop`], or with [`ToControl::Failed`].
    pub join: JoinHandle<()>,
}

/// Starts worker number `worker`, which accepts clients from `listeners` and makes its core with `core`, in its own thread. Returns
/// when it works, or cannot. One that has broken down can be followed by another of its number.
///
/// # Errors
/// [`StartError`] names the cause and what to do.
pub fn start(
    worker: usize,
    listeners: Vec<OwnedFd>,
    core: impl FnOnce() -> Core + Send + 'static,
    control: ControlSender,
    options: Options,
) -> Result<WorkerHandle, StartError> {
    let Some(mailbox) = options.mailboxes.get(worker).cloned() else {
        return Err(StartError::Thread(io::Error::other(format!("worker {worker} has no mailbox"))));
    };
    mailbox.open();
    let (started, wait) = sync_channel(1);
    let own_mailbox = mailbox.clone();
    let body = move || {
        let failed = control.clone();
        let outcome = work(worker, listeners, core, control, &options, &started);
        own_mailbox.close();
        if let Err(error) = outcome
            && failed.send(ToControl::Failed { worker, error }).is_err()
        {
            tracing::debug!("the control thread is gone");
        }
    };
    let join = Builder::new().name(format!("worker-{worker}")).spawn(body).map_err(StartError::Thread)?;
    match wait.recv() {
        Ok(Ok(())) => Ok(WorkerHandle { mailbox, join }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StartError::Thread(io::Error::other("it panicked"))),
    }
}

/// The life of a worker's thread. Whatever way it ends, its sockets are closed; memory that the kernel may still use is left alone.
///
/// # Errors
/// It has broken down; the text is for the log.
fn work(
    worker: usize,
    listeners: Vec<OwnedFd>,
    core: impl FnOnce() -> Core,
    control: ControlSender,
    options: &Options,
    started: &SyncSender<Result<(), StartError>>,
) -> Result<(), String> {
    let report = |outcome| {
        if started.send(outcome).is_err() {
            tracing::debug!("nobody waits for this worker to start");
        }
    };
    let mut uring = match ring::open().map_err(StartError::of_ring) {
        Ok(uring) => uring,
        Err(error) => {
            report(Err(error));
            return Ok(());
        }
    };
    let run = AssertUnwindSafe(|| {
        let traffic = match prepare(&mut uring, options) {
            Ok(traffic) => traffic,
            Err(error) => {
                report(Err(error));
                return Ok(());
            }
        };
        let mut worker = Worker::new(worker, traffic, core(), options, control, listeners);
        report(Ok(()));
        worker.run()
    });
    let outcome = catch_unwind(run);
    ring::close_unseen(&mut uring);
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(breakdown)) => Err(breakdown.to_string()),
        Err(panic) => Err(format!("it panicked: {}", panic_text(&*panic))),
    }
}

fn prepare<'uring>(uring: &'uring mut IoUring, options: &Options) -> Result<Traffic<'uring>, StartError> {
    let ring = Ring::new(uring).map_err(StartError::of_ring)?;
    let demanded = options.buffer_mode == BufferMode::Incremental;
    let groups = Groups::new(options.buffer_mode, options.frontend_buffer_bytes, options.backend_buffer_bytes, &ring)
        .map_err(|error| StartError::of_buffers(error, demanded))?;
    let incremental = groups[Side::Frontend].is_incremental();
    let traffic = Traffic::new(ring, groups, options.bounded_receive).map_err(StartError::Other)?;
    tracing::info!(incremental_buffers = incremental, bounded_receive = traffic.has_credit(), "a worker's ring is ready");
    Ok(traffic)
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
