//! Looks how much memory the process has, and says when it comes near to `limits.memory_limit`.

use std::fs;
use std::rc::Rc;

use tokio::time::{Duration, interval};
use tracing::{info, warn};

use crate::engine::give_memory_back;
use crate::login::Desk;
use crate::session::Pressure;

/// How often it is looked. A client can send some 100 MB in that time.
const PERIOD: Duration = Duration::from_millis(100);
/// Clients are not read from this part of the limit on, in hundredths; what they have sent by then has to fit too.
const HIGH_PERCENT: u64 = 85;

/// Looks for as long as the process lives.
pub(super) async fn watch(desk: Rc<Desk>) {
    let mut periods = interval(PERIOD);
    loop {
        periods.tick().await;
        let rules = desk.rules();
        let limit = rules.config.limits.memory_limit.and_then(|limit| u64::try_from(limit).ok());
        let Some(used) = resident_bytes() else { continue };
        let mut pressure = limit.map_or(Pressure::None, |limit| pressure(used, limit));
        if pressure != Pressure::None {
            // What has been freed may still count.
            give_memory_back();
            pressure = limit.zip(resident_bytes()).map_or(pressure, |(limit, used)| self::pressure(used, limit));
        }
        let before = rules.memory.pressure();
        rules.memory.set(pressure, used);
        if before == Pressure::None && pressure != before {
            warn!(used, limit, "memory is short: clients that send much are not read, and new ones are not taken");
        } else if pressure == Pressure::None && pressure != before {
            info!(used, limit, "memory is not short any more");
        }
    }
}

fn pressure(used: u64, limit: u64) -> Pressure {
    match used.saturating_mul(100) / limit.max(1) {
        100.. => Pressure::Full,
        HIGH_PERCENT.. => Pressure::High,
        _ => Pressure::None,
    }
}

/// Bytes that the process has in memory (proc_pid_statm(5)).
fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_begins_before_the_limit() {
        let at = |used| pressure(used, 1000);
        assert_eq!([at(0), at(849), at(850), at(999), at(1000), at(u64::MAX)].map(|pressure| pressure as u8), [0, 0, 1, 1, 2, 2]);
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
