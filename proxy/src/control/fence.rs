//! The fence while the proxy runs: whether it still holds, what it tells of, and its list when the configuration changes.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, interval, sleep};
use tracing::{debug, error, info, warn};

use crate::fence::{Events, Fence, Wish};
use crate::login::{Desk, Rules};
use crate::pool::NodeIdentity;

/// How often it is looked whether the fence still holds.
const LOOKS: Duration = Duration::from_secs(2);
/// How often it is looked whether the last backend of a node that is gone has been closed.
const FAREWELLS: Duration = Duration::from_secs(1);
/// Violations that are recorded at once, and how many more a second; the others are counted.
const RECORDS_AT_ONCE: u32 = 50;
const RECORDS_PER_SECOND: u32 = 10;

/// Looks after the fence, for ever.
pub(super) fn watch(desk: &Rc<Desk>) {
    let fence = Rc::clone(&desk.fence);
    tokio_uring::spawn(async move {
        let mut looks = interval(LOOKS);
        loop {
            looks.tick().await;
            fence.look();
        }
    });
    if desk.fence.loads.is_none() {
        return;
    }
    match Events::open(desk.fence.pins()) {
        Ok(events) => {
            let desk = Rc::clone(desk);
            tokio_uring::spawn(async move {
                if let Err(error) = record(&desk, events).await {
                    error!(%error, "what the fence stops is not recorded any more; it is counted all the same");
                }
            });
        }
        Err(error) => warn!(%error, "what the fence stops is not recorded; it is counted all the same"),
    }
}

/// Records what the kernel has stopped.
async fn record(desk: &Desk, events: Events) -> io::Result<()> {
    // SAFETY: the ring keeps its one descriptor for as long as it lives.
    let mut events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }?;
    let mut allowance = Allowance::new(Instant::now());
    loop {
        let mut ready = events.readable_mut().await?;
        while let Some(violation) = ready.get_inner_mut().take() {
            if let Some(unrecorded) = allowance.take(Instant::now()) {
                desk.audit.write_violation(&violation, unrecorded);
            }
        }
        ready.clear_ready();
    }
}

/// A bound on records: what an attacker can cause must not fill disks.
struct Allowance {
    left: u32,
    filled_at: Instant,
    unrecorded: u64,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: RECORDS_AT_ONCE, filled_at: now, unrecorded: 0 }
    }

    /// Whether one may be recorded; how many were not since the last one that was.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let seconds = u32::try_from(now.duration_since(self.filled_at).as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            self.left = self.left.saturating_add(seconds.saturating_mul(RECORDS_PER_SECOND)).min(RECORDS_AT_ONCE);
            self.filled_at += Duration::from_secs(seconds.into());
        }
        if self.left == 0 {
            self.unrecorded += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.unrecorded))
    }
}

/// Lets the kernel allow what a new configuration does, beside what it allows already. Whether it was this configuration that the keeper
/// has read too.
///
/// # Errors
/// It does not: the old configuration has to stay in force.
pub(super) async fn widen(fence: &Fence, digest: &[u8; 32]) -> Result<bool, String> {
    if !fence.is_there() {
        return Ok(true);
    }
    let Some(keeper) = &fence.keeper else {
        if fence.knows(digest) == Some(false) {
            warn!(
                "the fence was installed for another configuration: run `domicile fence install` before a reload, or nodes that are new cannot be reached"
            );
        }
        return Ok(true);
    };
    Ok(keeper.ask(Wish::Widen).await? == *digest)
}

/// Nodes that the configuration has lost, and that may still be in use.
#[derive(Default)]
pub(super) struct Leaving(RefCell<Vec<Weak<NodeIdentity>>>);

impl Leaving {
    /// Lets the kernel forget what the new configuration does not allow, once nothing of it is left: nor of what one before it has lost.
    pub(super) fn narrow_later(self: &Rc<Self>, fence: &Rc<Fence>, old: &Rules, new: &Rules) {
        if !fence.is_there() || fence.keeper.is_none() {
            return;
        }
        let stays = |node: &Arc<NodeIdentity>| new.nodes.iter().any(|other| Arc::ptr_eq(&other.identity, node));
        let gone = old.nodes.iter().map(|node| &node.identity).filter(|node| !stays(node));
        self.0.borrow_mut().extend(gone.map(Arc::downgrade));
        let (leaving, fence, digest) = (Rc::clone(self), Rc::clone(fence), new.config.digest);
        tokio_uring::spawn(async move {
            while !leaving.are_gone() {
                sleep(FAREWELLS).await;
            }
            let Some(keeper) = &fence.keeper else { return };
            match keeper.ask(Wish::Narrow).await {
                Ok(found) if found == digest => info!("the fence allows nothing any more of what the configuration has lost"),
                Ok(_) => debug!("the fence allows what a newer configuration does"),
                Err(why) => error!(why, "the fence still allows what the configuration has lost"),
            }
        });
    }

    /// Whether the last backend of the last of them has been closed.
    fn are_gone(&self) -> bool {
        let mut nodes = self.0.borrow_mut();
        nodes.retain(|node| node.strong_count() > 0);
        nodes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_bounded_and_those_left_out_are_told_of() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let recorded = (0..1000).filter(|_| allowance.take(start).is_some()).count();
        assert_eq!(recorded, RECORDS_AT_ONCE as usize);
        assert_eq!(allowance.take(start + Duration::from_secs(1)), Some(950));
        let more = (0..1000).filter(|_| allowance.take(start + Duration::from_secs(1)).is_some()).count();
        assert_eq!(more, RECORDS_PER_SECOND as usize - 1);
    }
}
