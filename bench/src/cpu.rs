//! CPU time: of another process with all its threads, and of this thread.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What a process has used since its start: `/proc/PID/task/*/schedstat` (proc(5)), in nanoseconds. Threads that have ended are not
/// counted; a proxy's do not end.
pub fn of_process(process: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let used = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(used.sum())
}

/// What a process and all its children have used since their start.
pub fn of_tree(process: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = tasks.flat_map(|task| {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        text.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<u32>>()
    });
    of_process(process) + children.map(of_tree).sum::<Duration>()
}

/// What this thread has used.
pub fn of_this_thread() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let part = |part: i64| u64::try_from(part).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}
