//! What is done when memory is short: clients that are sending much are not read, and if that does not help, sessions end.
//!
//! What a session keeps of its client's bytes is the one thing that grows without the proxy's doing: a Query is gathered whole, and what
//! comes while a session waits is held. Everything else of a session has bounds of its own. How much memory the process has is looked
//! at elsewhere (time and files are not for the core); here is only what follows from it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::client::Session;
use super::output::Output;
use super::{Core, Outputs, Refusal, SessionKey, Slot};
use crate::limits::BUFFERED_UNDER_PRESSURE_BYTES;
use crate::wire::SqlState;

/// How much of what the process may have is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Not much, or it may have all there is.
    #[default]
    None,
    /// Little is left: clients that send much are not read, and new ones are not taken. If it stays so, the sessions that keep most end.
    High,
    /// Nothing is: those sessions end, one after the other.
    Full,
}

impl Pressure {
    const ALL: [Self; 3] = [Self::None, Self::High, Self::Full];
}

/// The memory of the process: one thread looks at it, all others go by that.
#[derive(Debug, Default)]
pub struct Memory {
    pressure: AtomicU8,
    resident_bytes: AtomicU64,
}

impl Memory {
    /// What was found.
    pub fn set(&self, pressure: Pressure, resident_bytes: u64) {
        self.pressure.store(pressure as u8, Ordering::Relaxed);
        self.resident_bytes.store(resident_bytes, Ordering::Relaxed);
    }

    /// What was found last.
    pub fn pressure(&self) -> Pressure {
        Pressure::ALL.get(usize::from(self.pressure.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// Bytes of memory that the process had then.
    pub fn resident_bytes(&self) -> u64 {
        self.resident_bytes.load(Ordering::Relaxed)
    }
}

impl Core {
    /// Time has passed: goes by how short memory is.
    pub(super) fn mind_memory(&mut self, out: &mut Outputs) {
        let pressure = self.common.settings.memory.pressure();
        let unread_since = self.common.unread_since.take();
        if pressure == Pressure::None && unread_since.is_none() {
            return;
        }
        let now = self.common.now;
        let mut largest: Option<(usize, SessionKey)> = None;
        for slot in &mut self.sessions.slots {
            let Slot::Taken(session) = slot else { continue };
            let buffered = session.buffered();
            if pressure == Pressure::None {
                session.read_again(out);
            } else if session.stop_reading_if_large(out) {
                self.common.unread_since = unread_since.or(Some(now));
                if largest.is_none_or(|(most, _)| buffered > most) {
                    largest = Some((buffered, session.key));
                }
            }
        }
        // Who is not read does not give anything back either: his statement never becomes whole.
        let is_over = unread_since.is_some_and(|since| now.saturating_duration_since(since) >= PATIENCE);
        if let Some((_, key)) = largest.filter(|_| pressure == Pressure::Full || is_over) {
            self.common.counters.memory_ended_total.add(1);
            self.cut_off(key, &out_of_memory(), out);
        }
    }
}

impl Session {
    /// Bytes of its client that it keeps.
    fn buffered(&self) -> usize {
        self.held_bytes() + self.splitter.gathered_bytes()
    }

    /// Memory is short. True: it keeps much, and its client is not read.
    pub(super) fn stop_reading_if_large(&mut self, out: &mut Outputs) -> bool {
        if self.buffered() < BUFFERED_UNDER_PRESSURE_BYTES {
            return self.unread;
        }
        if !std::mem::replace(&mut self.unread, true) && !self.paused {
            out.push(Output::PauseFrontend(self.key));
        }
        true
    }

    fn read_again(&mut self, out: &mut Outputs) {
        if std::mem::take(&mut self.unread) && !self.paused {
            out.push(Output::ResumeFrontend(self.key));
        }
    }
}

/// How long clients are not read before the first session ends because of that.
const PATIENCE: Duration = Duration::from_secs(2);

fn out_of_memory() -> Refusal {
    Refusal::new(SqlState::OUT_OF_MEMORY, "out of memory")
        .with_hint("The proxy has used up limits.memory_limit, and this session kept more of it than others.")
}
