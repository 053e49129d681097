//! Whether the memory of the process may be looked at: passwords and keys stand in it, and what clients send and get.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tracing::warn;

/// From now on the kernel writes no core file of the process, and only root may look into it (prctl(2), PR_SET_DUMPABLE).
pub(super) fn conceal() {
    set(DumpableBehavior::NotDumpable);
}

/// The same or its contrary, as configured. A change of user, which the kernel answers in its own way, is to be over.
pub(super) fn configure(core_dumps: bool) {
    set(if core_dumps { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable });
}

fn set(behavior: DumpableBehavior) {
    if let Err(error) = set_dumpable_behavior(behavior) {
        warn!(%error, "whether the memory of the process may be looked at could not be set");
    }
}
