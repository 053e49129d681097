//! The short form of `cargo xtask soak`.

use std::time::Duration;

use domicile_tests::soak::{self, Plan};

use crate::world::world;

#[test]
fn mixed_load_with_losses_leaves_nothing_behind() {
    let Some(_) = world() else { return };
    let plan = Plan {
        duration: Duration::from_secs(20),
        clients: 12,
        terminate_every: Duration::from_millis(300),
        crash_every: Duration::from_secs(8),
    };
    soak::run(&plan, &|_| {}).unwrap_or_else(|faults| panic!("{faults}"));
}
