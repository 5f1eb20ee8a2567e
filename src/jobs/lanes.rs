//! The lanes that may have jobs to run, as this process remembers them: a hint, and never trusted. What it lacks is found by a
//! scan before anybody sleeps, and what it has too much is said by the claim.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// How long a lane is left alone that may not run more for now: at its cap, or without tokens.
const BLOCKED: Duration = Duration::from_millis(100);
/// How long one is left alone that another process holds just now.
const HELD: Duration = Duration::from_millis(3);
/// How often a lane is offered and not looked at until it is forgotten: it is paused, or locked each time.
const MISSES: u8 = 8;
/// How long between two scans at least.
const SCANS: Duration = Duration::from_millis(100);
/// How many times its own time a scan is waited for after it.
const REST: u32 = 5;

/// How a lane stands after a claim.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Standing {
    /// It has no more to run.
    Empty,
    /// It may have more, from this virtual time on.
    More(f64),
    /// It may have more, but may not run it for now.
    Blocked(f64),
}

#[derive(Debug)]
struct Lane {
    vtime: f64,
    blocked: Option<Instant>,
    misses: u8,
    /// It had more than was taken, the last time.
    deep: bool,
}

/// The lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    known: HashMap<i32, Lane>,
    /// Of queues that this process does not serve: word of them is nothing to it.
    others: HashSet<i32>,
    /// When a scan may be made again.
    scan: Instant,
    /// Something may be there that no lane here stands for.
    incomplete: bool,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            others: HashSet::new(),
            scan: Instant::now(),
            incomplete: true,
        }
    }
}

impl Lanes {
    /// There is word of these. What they stand at is not known: they are looked at first.
    pub(super) fn woken(&mut self, lanes: impl IntoIterator<Item = i32>) {
        for lane in lanes {
            if self.others.contains(&lane) {
                continue;
            }
            self.known.entry(lane).or_insert(Lane {
                vtime: f64::MIN,
                blocked: None,
                misses: 0,
                deep: false,
            });
        }
    }

    /// There may be others.
    pub(super) fn incomplete(&mut self) {
        self.incomplete = true;
    }

    /// A job of this lane ended here: it may run another.
    pub(super) fn freed(&mut self, lane: i32) {
        if let Some(lane) = self.known.get_mut(&lane) {
            lane.blocked = None;
        }
    }

    /// The lanes that are to be looked at first, for so many jobs: twice as many as would do if each that is known to have many
    /// gave `share` of them, and each other one.
    pub(super) fn pick(&self, jobs: usize, share: usize) -> Vec<i32> {
        let now = Instant::now();
        let open = |lane: &Lane| lane.blocked.is_none_or(|until| until <= now);
        let mut lanes: Vec<(f64, i32, bool)> = self
            .known
            .iter()
            .filter(|(_, lane)| open(lane))
            .map(|(id, lane)| (lane.vtime, *id, lane.deep))
            .collect();
        let most = 2 * jobs;
        if lanes.len() > most {
            lanes.select_nth_unstable_by(most, |a, b| order((a.0, a.1), (b.0, b.1)));
            lanes.truncate(most);
        }
        lanes.sort_unstable_by(|a, b| order((a.0, a.1), (b.0, b.1)));
        let mut expected = 0;
        let enough = |(_, _, deep): &(f64, i32, bool)| {
            let is_short = expected < most;
            expected += if *deep { share.max(1) } else { 1 };
            is_short
        };
        let lanes = lanes.into_iter().take_while(enough);
        lanes.map(|(_, id, _)| id).collect()
    }

    /// What a claim said of the lanes that were offered. Returns those that it did not look at, and maybe never will: it is to be
    /// asked why.
    pub(super) fn claimed(&mut self, offered: &[i32], said: &[(i32, Standing)]) -> Vec<i32> {
        for (id, standing) in said {
            match *standing {
                Standing::Empty => {
                    self.known.remove(id);
                }
                Standing::More(vtime) => self.set(*id, vtime, None, true),
                Standing::Blocked(vtime) => {
                    self.set(*id, vtime, Some(Instant::now() + BLOCKED), false);
                }
            }
        }
        let said: HashSet<i32> = said.iter().map(|(id, _)| *id).collect();
        let mut odd = Vec::new();
        for id in offered.iter().filter(|id| !said.contains(id)) {
            if let Some(lane) = self.known.get_mut(id) {
                // One that was looked at before is held by another process, as a rule.
                if lane.vtime <= f64::MIN || lane.misses > 0 {
                    odd.push(*id);
                }
                lane.misses += 1;
                lane.blocked = Some(Instant::now() + HELD);
            }
        }
        let known = self.known.len();
        self.known.retain(|_, lane| lane.misses < MISSES);
        self.incomplete |= self.known.len() < known;
        odd
    }

    /// Those are of other queues, for good; these are closed until there is word of them, or a scan finds them.
    pub(super) fn shut(&mut self, others: Vec<i32>, closed: Vec<i32>) {
        for lane in others.iter().chain(&closed) {
            self.known.remove(lane);
        }
        self.others.extend(others);
    }

    /// Whether a scan is due before sleeping: now, or at that time.
    pub(super) fn scan_due(&self) -> Option<Instant> {
        self.incomplete.then_some(self.scan)
    }

    /// These, and no others, have jobs. It took so long to find out.
    pub(super) fn scanned(&mut self, found: Vec<(i32, f64)>) {
        let mut before = std::mem::take(&mut self.known);
        for (id, vtime) in found {
            let lane = before.remove(&id);
            let (blocked, deep) = lane.map_or((None, false), |lane| (lane.blocked, lane.deep));
            self.set(id, vtime, blocked, deep);
        }
        self.incomplete = false;
    }

    /// When the next scan may be, after one that took this long.
    pub(super) fn rest(&mut self, took: Duration) {
        self.scan = Instant::now() + SCANS.max(took * REST);
    }

    /// When the first that is left alone is to be looked at again.
    pub(super) fn unblocked(&self) -> Option<Instant> {
        self.known.values().filter_map(|lane| lane.blocked).min()
    }

    fn set(&mut self, id: i32, vtime: f64, blocked: Option<Instant>, deep: bool) {
        let lane = Lane {
            vtime,
            blocked,
            misses: 0,
            deep,
        };
        self.known.insert(id, lane);
    }
}

/// By virtual time, then by number.
fn order(a: (f64, i32), b: (f64, i32)) -> Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_furthest_behind_are_picked_and_the_blocked_are_not() {
        let mut lanes = Lanes::default();
        lanes.scanned((1..=10).map(|id| (id, f64::from(id))).collect());
        assert_eq!(lanes.pick(2, 10), [1, 2, 3, 4]);
        let said = [
            (1, Standing::Empty),
            (2, Standing::Blocked(2.0)),
            (3, Standing::More(50.0)),
        ];
        lanes.claimed(&[1, 2, 3], &said);
        assert_eq!(lanes.pick(1, 10), [4, 5]);
        lanes.freed(2);
        lanes.woken([11]);
        assert_eq!(
            lanes.pick(2, 10),
            [11, 2, 4, 5],
            "one that woke is looked at first"
        );
    }

    /// A claim costs by lane: those that have many share it out among few.
    #[test]
    fn of_lanes_with_many_jobs_few_are_picked() {
        let mut lanes = Lanes::default();
        let all: Vec<i32> = (1..=100).collect();
        let said: Vec<_> = all
            .iter()
            .map(|id| (*id, Standing::More(f64::from(*id))))
            .collect();
        lanes.scanned(all.iter().map(|id| (*id, f64::from(*id))).collect());
        lanes.claimed(&all, &said);
        assert_eq!(lanes.pick(64, 10), (1..=13).collect::<Vec<_>>());
        assert_eq!(lanes.pick(2, 1), [1, 2, 3, 4]);
        assert_eq!(lanes.pick(200, 0).len(), 100);
    }

    #[test]
    fn one_that_another_holds_is_left_alone_for_a_moment_and_forgotten_in_the_end() {
        let mut lanes = Lanes::default();
        lanes.scanned(vec![(1, 1.0)]);
        lanes.woken([2]);
        assert_eq!(
            lanes.claimed(&[1, 2], &[]),
            [2],
            "nobody has ever looked at it"
        );
        assert!(lanes.pick(2, 1).is_empty() && lanes.unblocked().is_some());
        assert_eq!(lanes.claimed(&[1], &[]), [1], "twice");
        for _ in 2..MISSES {
            assert!(lanes.scan_due().is_none());
            lanes.claimed(&[1], &[]);
        }
        lanes.freed(1);
        assert!(lanes.pick(2, 1).is_empty(), "it is never looked at");
        assert!(lanes.scan_due().is_some(), "so a scan is to say why");
    }
}
