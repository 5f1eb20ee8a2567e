//! Processor time and memory of processes, from Linux's `/proc`; elsewhere there is none.

use std::fs::{read_dir, read_link, read_to_string};
use std::ops::Sub;
use std::path::PathBuf;

/// Ticks of processor time in a second: `USER_HZ`, which Linux keeps at 100 for every program (`man 7 time`).
const TICKS: f64 = 100.0;

/// Seconds of processor time, by whom, over all cores.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// The server under test.
    pub(crate) server: f64,
    /// PostgreSQL, all its processes.
    pub(crate) postgres: f64,
    /// What makes the load: this process, and pgbench.
    pub(crate) load: f64,
    /// Nobody.
    pub(crate) idle: f64,
}

impl Usage {
    /// Up to now; none where it cannot be seen.
    pub(crate) fn now(server: i32, postmaster: i32) -> Option<Self> {
        let own = Times::of("self")?;
        let first = Times::of(postmaster)?;
        let backends = children(postmaster)?;
        let backends: f64 = backends
            .into_iter()
            .filter_map(|pid| Some(Times::of(pid)?.own))
            .sum();
        Some(Self {
            server: Times::of(server)?.own,
            postgres: first.own + first.children + backends,
            load: own.own + own.children,
            idle: idle()?,
        })
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            server: self.server - earlier.server,
            postgres: self.postgres - earlier.postgres,
            load: self.load - earlier.load,
            idle: self.idle - earlier.idle,
        }
    }
}

/// One line of `/proc/<pid>/stat`, as far as it matters.
struct Times {
    parent: i32,
    own: f64,
    /// Of children that have ended and were waited for.
    children: f64,
}

impl Times {
    fn of(pid: impl std::fmt::Display) -> Option<Self> {
        let text = read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses can hold anything. After it come state, parent and, as fields 14 to 17, the times.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let seconds = |index: usize| Some(fields.get(index)?.parse::<f64>().ok()? / TICKS);
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: seconds(11)? + seconds(12)?,
            children: seconds(13)? + seconds(14)?,
        })
    }
}

/// Seconds that the cores did nothing, waiting for disks included: the fourth and fifth number of the first line.
fn idle() -> Option<f64> {
    let text = read_to_string("/proc/stat").ok()?;
    let numbers = text.lines().next()?.split_whitespace().skip(4).take(2);
    let ticks: f64 = numbers
        .filter_map(|number| number.parse::<f64>().ok())
        .sum();
    Some(ticks / TICKS)
}

/// The processes that this one started.
fn children(parent: i32) -> Option<Vec<i32>> {
    let numbers = read_dir("/proc").ok()?.flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        (Times::of(pid)?.parent == parent).then_some(pid)
    });
    Some(numbers.collect())
}

/// Private memory of PostgreSQL's processes in MB (10⁶ bytes), and how many they are. What they share counts nowhere, not
/// even a page that only one of them has touched yet.
pub(crate) fn private_mb(postmaster: i32) -> Option<(f64, usize)> {
    let mut processes = children(postmaster)?;
    processes.push(postmaster);
    // One that has just ended has none.
    let kib = processes.iter().filter_map(|pid| private_kib(*pid));
    Some((kib.sum::<f64>() * 1024.0 / 1e6, processes.len()))
}

fn private_kib(pid: i32) -> Option<f64> {
    let text = read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let (mut sum, mut shared) = (0.0, false);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next()?, words.next().unwrap_or_default());
        if !first.ends_with(':') {
            // A mapping: its addresses, then its permissions, the last of which says whether it is shared.
            shared = second.ends_with('s');
        } else if !shared && matches!(first, "Private_Clean:" | "Private_Dirty:") {
            sum += second.parse().unwrap_or(0.0);
        }
    }
    Some(sum)
}

/// Resident memory of a process in MB (10⁶ bytes).
pub(crate) fn resident_mb(pid: i32) -> Option<f64> {
    let text = read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// The file that a process runs.
pub(crate) fn program(pid: i32) -> Option<PathBuf> {
    read_link(format!("/proc/{pid}/exe")).ok()
}
