//! The model: what the functions of the queue are to do, in memory.

use super::How;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Lanes, of weights 1, 2 and 4.
pub(super) const LANES: usize = 3;
/// The first of them are a tenant's, the last is the platform's.
pub(super) const THEIRS: std::ops::Range<usize> = 0..2;
/// Runs that a job may have.
pub(super) const ATTEMPTS: i32 = 2;
const READY: i16 = 1;
const RUNNING: i16 = 2;
const SCHEDULED: i16 = 6;
const WAITING: i16 = 7;

/// A job that is not over.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) lane: usize,
    pub(super) state: i16,
    pub(super) attempt: i32,
    pub(super) cancel: bool,
    pub(super) key: Option<u8>,
    pub(super) claim: i64,
    /// The job that waits for this one.
    batch: Option<Uuid>,
    priority: i16,
    /// In the order in which they were added.
    nth: u64,
}

/// A job that is over.
#[derive(Clone, Debug)]
pub(super) struct Over {
    pub(super) state: i16,
    pub(super) attempt: i32,
    job: Job,
}

#[derive(Clone, Debug)]
pub(super) struct Lane {
    /// Its number in the database.
    pub(super) id: i32,
    pub(super) weight: f64,
    pub(super) vtime: f64,
    pub(super) tokens: Option<i32>,
    pub(super) cap: Option<i32>,
    pub(super) paused: bool,
}

/// The lanes of a claim: those that it holds, and of those the ones that it may take from.
pub(super) struct Lanes {
    pub(super) locked: BTreeSet<usize>,
    pub(super) open: BTreeSet<usize>,
}

impl From<&BTreeSet<usize>> for Lanes {
    fn from(lanes: &BTreeSet<usize>) -> Self {
        Self {
            locked: lanes.clone(),
            open: lanes.clone(),
        }
    }
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    pub(super) jobs: BTreeMap<Uuid, Job>,
    pub(super) over: BTreeMap<Uuid, Over>,
    pub(super) lanes: Vec<Lane>,
    /// How many jobs the tenant may run at once.
    pub(super) limit: Option<usize>,
    /// Of the nodes that have claimed.
    times: [Option<f64>; 2],
    /// In the order in which they were added first.
    known: Vec<Uuid>,
    added: u64,
}

impl Queue {
    pub(super) fn new(lanes: [i32; LANES]) -> Self {
        let lane = |(id, weight)| Lane {
            id,
            weight,
            vtime: 0.0,
            tokens: None,
            cap: None,
            paused: false,
        };
        Self {
            jobs: BTreeMap::new(),
            over: BTreeMap::new(),
            lanes: lanes.into_iter().zip([1.0, 2.0, 4.0]).map(lane).collect(),
            limit: None,
            times: [None; 2],
            known: Vec::new(),
            added: 0,
        }
    }

    /// Which job a number means; none if there is none yet.
    pub(super) fn pick(&self, number: usize) -> Option<Uuid> {
        let count = self.known.len();
        (count > 0).then(|| self.known[number % count])
    }

    /// The id that is told: the job's, or that of the one that has its key.
    pub(super) fn add(
        &mut self,
        id: Uuid,
        lane: usize,
        (priority, later, key): (i16, bool, Option<u8>),
    ) -> Uuid {
        if let Some(other) = self.with_key(lane, key) {
            return other;
        }
        let job = Job {
            lane,
            state: if later { SCHEDULED } else { READY },
            attempt: 0,
            cancel: false,
            key,
            claim: 0,
            batch: None,
            priority,
            nth: 0,
        };
        self.known.push(id);
        self.put(id, job);
        id
    }

    /// Jobs, and the one that waits until they are over.
    pub(super) fn batch(&mut self, lane: usize, members: &[Uuid], last: Uuid) {
        for id in members.iter().chain([&last]) {
            let is_last = *id == last;
            let job = Job {
                lane,
                state: if is_last && !members.is_empty() {
                    WAITING
                } else {
                    READY
                },
                attempt: 0,
                cancel: false,
                key: None,
                claim: 0,
                batch: (!is_last).then_some(last),
                priority: 0,
                nth: 0,
            };
            self.known.push(*id);
            self.put(*id, job);
        }
    }

    /// Those that wait for nothing any more are ready. How many they are.
    pub(super) fn release(&mut self) -> i64 {
        let waited_for: BTreeSet<Uuid> = self.jobs.values().filter_map(|job| job.batch).collect();
        let free = |(id, job): &(&Uuid, &mut Job)| job.state == WAITING && !waited_for.contains(id);
        let mut released = 0;
        for (_, job) in self.jobs.iter_mut().filter(free) {
            job.state = READY;
            released += 1;
        }
        released
    }

    /// Keys are its owner's.
    fn with_key(&self, lane: usize, key: Option<u8>) -> Option<Uuid> {
        let key = key?;
        let same = |(id, job): (&Uuid, &Job)| {
            let is_same =
                job.key == Some(key) && THEIRS.contains(&job.lane) == THEIRS.contains(&lane);
            is_same.then_some(*id)
        };
        self.jobs.iter().find_map(same)
    }

    fn put(&mut self, id: Uuid, job: Job) {
        self.added += 1;
        let nth = self.added;
        self.jobs.insert(id, Job { nth, ..job });
    }

    /// The smallest time of the nodes: all have claimed just now.
    pub(super) fn present(&self) -> f64 {
        let told = self.times.iter().flatten().copied();
        told.reduce(f64::min).unwrap_or(0.0)
    }

    /// The lanes of a claim that may be claimed from.
    pub(super) fn open(&self, lanes: u8) -> BTreeSet<usize> {
        let is_open = |lane: &usize| lanes & (1 << lane) != 0 && !self.lanes[*lane].paused;
        (0..LANES).filter(is_open).collect()
    }

    /// Start-time fair queueing: the jobs with their start tags, in the order in which they start. One that another transaction
    /// holds just now is not taken.
    pub(super) fn claim(
        &mut self,
        node: usize,
        (lanes, wanted): (&Lanes, usize),
        (present, token): (f64, i64),
        held: Option<Uuid>,
    ) -> Vec<(Uuid, f64)> {
        let mut ready = Vec::new();
        for lane in &lanes.open {
            let start = self.lanes[*lane].vtime.max(present);
            let room = self.room(*lane, &lanes.locked, wanted);
            for (place, id) in self.ready(*lane).into_iter().take(room).enumerate() {
                #[expect(clippy::cast_precision_loss, reason = "a few")]
                let tag = start + place as f64 / self.lanes[*lane].weight;
                ready.push((tag, self.lanes[*lane].id, place, id, *lane, start));
            }
        }
        ready.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        if let Some(limit) = self.limit {
            let mut left = limit.saturating_sub(self.running(THEIRS));
            ready.retain(|each| {
                let is_theirs = THEIRS.contains(&each.4);
                let may = !is_theirs || left > 0;
                left -= usize::from(is_theirs && may);
                may
            });
        }
        ready.truncate(wanted);
        ready.retain(|each| Some(each.3) != held);
        let mut taken: Vec<(f64, i32, Uuid)> = Vec::new();
        for (_, id, _, job, lane, start) in ready {
            let lane = &mut self.lanes[lane];
            let before = taken.iter().filter(|each| each.1 == id).count();
            #[expect(clippy::cast_precision_loss, reason = "a few")]
            let [tag, vtime] = [before, before + 1].map(|jobs| start + jobs as f64 / lane.weight);
            taken.push((tag, id, job));
            lane.vtime = vtime;
            lane.tokens = lane.tokens.map(|tokens| tokens - 1);
            let job = self.jobs.get_mut(&job).unwrap();
            (job.state, job.claim) = (RUNNING, token);
            job.attempt += 1;
        }
        taken.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        if let Some(first) = taken.first() {
            let time = &mut self.times[node];
            *time = Some(time.map_or(first.0, |time| time.max(first.0)));
        }
        taken.into_iter().map(|each| (each.2, each.0)).collect()
    }

    fn running(&self, lanes: std::ops::Range<usize>) -> usize {
        let of = |job: &&Job| lanes.contains(&job.lane) && job.state == RUNNING;
        self.jobs.values().filter(of).count()
    }

    /// How many of a lane's jobs a claim looks at: half as much again as its share by weight, and no more than may start.
    fn room(&self, lane: usize, lanes: &BTreeSet<usize>, wanted: usize) -> usize {
        let weights: f64 = lanes.iter().map(|lane| self.lanes[*lane].weight).sum();
        let lane_of = &self.lanes[lane];
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few"
        )]
        let share = (1.5 * wanted as f64 * lane_of.weight / weights).ceil() as usize;
        let running = self.running(lane..lane + 1);
        let left = |limit: i32| usize::try_from(limit).unwrap();
        let cap = lane_of.cap.map(|cap| left(cap).saturating_sub(running));
        let rate = lane_of.tokens.map(left);
        [Some(share), cap, rate]
            .into_iter()
            .flatten()
            .fold(wanted, usize::min)
    }

    fn ready(&self, lane: usize) -> Vec<Uuid> {
        let of = |(_, job): &(&Uuid, &Job)| job.lane == lane && job.state == READY;
        let mut ready: Vec<_> = self.jobs.iter().filter(of).collect();
        ready.sort_by_key(|(_, job)| (job.priority, job.nth));
        ready.into_iter().map(|(id, _)| *id).collect()
    }

    /// Whether it was still theirs.
    pub(super) fn end(&mut self, id: Uuid, claim: i64, how: How) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        if job.state != RUNNING || job.claim != claim {
            return false;
        }
        let (state, back, _) = how.said();
        if (3..=5).contains(&state) || job.cancel {
            self.close(id, if (3..=5).contains(&state) { state } else { 5 });
        } else {
            job.state = state;
            job.attempt -= i32::from(back);
        }
        true
    }

    /// Whether a run of the tenant's ended well in its own unit of work.
    pub(super) fn complete(&mut self, id: Uuid, claim: i64) -> bool {
        let job = self.jobs.get(&id);
        let is_ours = job.is_some_and(|job| {
            THEIRS.contains(&job.lane) && job.state == RUNNING && job.claim == claim
        });
        if is_ours {
            self.close(id, 3);
        }
        is_ours
    }

    /// Whose it is: the tenant's, or the platform's.
    pub(super) fn is_theirs(&self, id: Uuid) -> bool {
        let over = self.over.get(&id).map(|over| &over.job);
        let job = self.jobs.get(&id).or(over);
        job.is_some_and(|job| THEIRS.contains(&job.lane))
    }

    fn close(&mut self, id: Uuid, state: i16) {
        let job = self.jobs.remove(&id).unwrap();
        let attempt = job.attempt;
        self.over.insert(
            id,
            Over {
                state,
                attempt,
                job,
            },
        );
    }

    /// The lease of one ends. Whether there was one, and so it is taken back.
    pub(super) fn reap(&mut self, id: Uuid) -> bool {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.state == RUNNING) else {
            return false;
        };
        if job.cancel {
            self.close(id, 5);
        } else if job.attempt > ATTEMPTS {
            self.close(id, 4);
        } else {
            job.state = READY;
        }
        true
    }

    /// The time of one has come. Its lane, if it was waiting for that.
    pub(super) fn promote(&mut self, id: Uuid) -> Option<i32> {
        let job = self
            .jobs
            .get_mut(&id)
            .filter(|job| job.state == SCHEDULED)?;
        job.state = READY;
        Some(self.lanes[job.lane].id)
    }

    /// What is told.
    pub(super) fn cancel(&mut self, id: Uuid) -> &'static str {
        match self.jobs.get_mut(&id) {
            None => "over",
            Some(job) if job.state == RUNNING => {
                job.cancel = true;
                "asked"
            }
            Some(_) => {
                self.close(id, 5);
                "cancelled"
            }
        }
    }

    /// The lane that is told.
    pub(super) fn retry(&mut self, id: Uuid) -> Option<i32> {
        if let Some(job) = self.jobs.get_mut(&id) {
            if matches!(job.state, RUNNING | WAITING) {
                return None;
            }
            job.state = READY;
            return Some(self.lanes[job.lane].id);
        }
        let over = self.over.get(&id)?;
        if over.state == 3 || self.with_key(over.job.lane, over.job.key).is_some() {
            return None;
        }
        let over = self.over.remove(&id)?;
        let job = Job {
            state: READY,
            attempt: 0,
            cancel: false,
            claim: 0,
            ..over.job
        };
        let lane = self.lanes[job.lane].id;
        self.put(id, job);
        Some(lane)
    }
}
