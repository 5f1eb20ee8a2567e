//! The one who claims for all workers of this process: as many as are idle, and some ahead while jobs are short, so that no worker
//! waits for the queue and no job waits for a busy worker.

use super::claim::{self, Taken, Wanted};
use super::lanes::Lanes;
use super::worker::{InHand, Inner};
use crate::error::Result;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep_until;

/// How long it sleeps at most when there is nothing to do: word that is lost is a delay of this.
const POLL: Duration = Duration::from_secs(1);
/// How much work is fetched ahead for each worker: so much longer a job of a quiet tenant may wait.
const AHEAD: Duration = Duration::from_millis(25);
/// How many lanes with many jobs share a claim at least: each costs, and what one gets too early the others get the next time.
const SHARING: usize = 8;
/// How long what was fetched ahead waits until it goes back to the queue.
const STALE: Duration = Duration::from_millis(100);
/// How often jobs are looked for whose time has come, while others come.
const PROMOTE: Duration = Duration::from_millis(250);

/// Claimed jobs on their way to workers, and workers on their way to jobs: one of the two is empty.
#[derive(Debug, Default)]
pub(super) struct Counter {
    state: Mutex<State>,
    /// Somebody waits, or little is left.
    demand: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<InHand>,
    waiting: VecDeque<oneshot::Sender<InHand>>,
    /// When one was put in or taken last.
    put: Option<Instant>,
    /// So few are left that more are to be claimed.
    low: usize,
    /// Those who come now are sent away.
    closed: bool,
}

impl Counter {
    /// The next job, when there is one; none when the worker stops.
    pub(super) async fn next(&self) -> Option<InHand> {
        let waiting = {
            let mut state = self.lock();
            if state.closed {
                return None;
            }
            if let Some(job) = state.ready.pop_front() {
                state.put = Some(Instant::now());
                let is_low = state.ready.len() <= state.low;
                drop(state);
                if is_low {
                    self.demand.notify_one();
                }
                return Some(job);
            }
            let (sender, waiting) = oneshot::channel();
            state.waiting.push_back(sender);
            waiting
        };
        self.demand.notify_one();
        waiting.await.ok()
    }

    fn put(&self, jobs: Vec<InHand>) {
        let mut state = self.lock();
        state.put = Some(Instant::now());
        for mut job in jobs {
            loop {
                match state.waiting.pop_front() {
                    // One that is gone hands it back.
                    Some(waiting) => match waiting.send(job) {
                        Ok(()) => break,
                        Err(back) => job = back,
                    },
                    None => {
                        state.ready.push_back(job);
                        break;
                    }
                }
            }
        }
    }

    /// Jobs that were fetched ahead and nobody has come for: the others turned out to be long. Another process may be idle.
    fn stale(&self) -> Vec<InHand> {
        let mut state = self.lock();
        match state.put {
            Some(put) if put.elapsed() > STALE => state.ready.drain(..).collect(),
            _ => Vec::new(),
        }
    }

    /// How long until it is to be looked for those.
    fn look(&self) -> Duration {
        if self.lock().ready.is_empty() {
            POLL
        } else {
            STALE
        }
    }

    /// Sends everybody away. What nobody has taken is returned.
    fn close(&self) -> Vec<InHand> {
        let mut state = self.lock();
        state.closed = true;
        state.waiting.clear();
        state.ready.drain(..).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The dispatcher.
#[derive(Debug)]
pub(super) struct Dispatcher {
    inner: Arc<Inner>,
    lanes: Lanes,
    scanned: Instant,
    promoted: Instant,
    /// When the first job that is scheduled has its time.
    due: Option<Instant>,
}

impl Dispatcher {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self {
            inner,
            lanes: Lanes::default(),
            scanned: Instant::now(),
            promoted: Instant::now(),
            due: Some(Instant::now()),
        }
    }

    /// Claims until the worker stops; then gives back what nobody has begun.
    pub(super) async fn run(mut self) {
        let inner = Arc::clone(&self.inner);
        // A stop waits for the claim that is under way, and for what becomes of it.
        let _running = inner.running();
        while !inner.is_stopping() {
            for job in inner.counter.stale() {
                inner.give_back(job);
            }
            let wanted = self.wanted();
            let until = if wanted == 0 {
                Instant::now() + inner.counter.look()
            } else {
                match self.fill(wanted).await {
                    // What is in hand may turn out to be stale before.
                    Ok(Some(until)) => until.min(Instant::now() + inner.counter.look()),
                    Ok(None) => continue,
                    Err(error) => {
                        tracing::warn!(?error, "cannot claim jobs");
                        Instant::now() + POLL
                    }
                }
            };
            let word = async {
                if wanted == 0 {
                    std::future::pending::<()>().await;
                } else {
                    inner.services.database.wakes().woken().await;
                }
            };
            tokio::select! {
                () = inner.counter.demand.notified() => {}
                () = inner.room.notified() => {}
                () = word => {}
                () = sleep_until(until.into()) => {}
                () = inner.stopped() => {}
            }
        }
        for job in inner.counter.close() {
            inner.give_back(job);
        }
    }

    /// How many jobs to claim now: for those who wait, and ahead once half of that is used up.
    fn wanted(&self) -> usize {
        let ahead = self.ahead();
        let mut state = self.inner.counter.lock();
        state.low = ahead / 2;
        let (waiting, ready) = (state.waiting.len(), state.ready.len());
        if waiting == 0 && (ahead == 0 || ready > state.low) {
            return 0;
        }
        waiting + ahead.saturating_sub(ready)
    }

    /// For the workers whose job is short. One that has a long job takes no other soon.
    fn ahead(&self) -> usize {
        let config = &self.inner.services.config;
        let long = u32::try_from(self.inner.held.long(2 * AHEAD)).unwrap_or(u32::MAX);
        let short = config.worker_concurrency.saturating_sub(long);
        let fill = self.inner.means.fill(AHEAD) * f64::from(short);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number, rounded down"
        )]
        let fill = fill as usize;
        fill.min(config.worker_prefetch as usize)
    }

    /// Claims. None: it got some; else when to look again, if there is no word before.
    async fn fill(&mut self, wanted: usize) -> Result<Option<Instant>> {
        if let Err(error) = self.promote().await {
            tracing::warn!(?error, "cannot look for jobs whose time has come");
        }
        // However busy the known ones keep it: of others there may have been no word.
        if self.scanned.elapsed() > 2 * POLL {
            self.scan().await?;
        }
        loop {
            if self.inner.is_stopping() {
                return Ok(Some(Instant::now()));
            }
            self.listen();
            let offered = self.lanes.pick(wanted, wanted / SHARING);
            if !offered.is_empty() {
                if self.claim(&offered, wanted).await? {
                    return Ok(None);
                }
                continue;
            }
            match self.lanes.scan_due() {
                Some(at) if at <= Instant::now() => self.scan().await?,
                Some(at) => return Ok(Some(at)),
                None => break,
            }
        }
        // Nothing is there that could run: the next time, look at all anew.
        self.lanes.incomplete();
        let soonest = [self.due, self.lanes.unblocked()];
        let poll = Instant::now() + POLL;
        Ok(soonest
            .into_iter()
            .flatten()
            .fold(poll, Instant::min)
            .into())
    }

    /// Takes the word that came, of jobs and of ends.
    fn listen(&mut self) {
        let word = self.inner.services.database.wakes().take();
        if word.all {
            self.lanes.incomplete();
        }
        self.lanes.woken(word.lanes);
        for lane in self.inner.take_freed() {
            self.lanes.freed(lane);
        }
    }

    /// Whether it got some.
    async fn claim(&mut self, offered: &[i32], jobs: usize) -> Result<bool> {
        let inner = &self.inner;
        let corrections = inner.means.corrections(offered);
        let wanted = Wanted {
            node: inner.id,
            lanes: offered,
            jobs,
            queues: &inner.services.config.worker_queues,
            costs: inner.means.costs(),
            corrections: &corrections,
        };
        let began = Instant::now();
        let taken = claim::claim(&inner.services.database, &wanted).await;
        inner.services.metrics.claimed(began.elapsed());
        let Taken { jobs, lanes } = match taken {
            Ok(taken) => taken,
            Err(error) => {
                inner.means.put_back(corrections);
                return Err(error);
            }
        };
        let charged = |lane: i32| {
            lanes
                .iter()
                .any(|(id, looked)| *id == lane && looked.taken > 0)
        };
        let unused = corrections.into_iter().filter(|(lane, _)| !charged(*lane));
        inner.means.put_back(unused);
        let standing: Vec<_> = lanes
            .iter()
            .map(|(id, looked)| (*id, looked.standing()))
            .collect();
        let missed = self.lanes.claimed(offered, &standing);
        let got = !jobs.is_empty();
        inner
            .counter
            .put(jobs.into_iter().map(|job| inner.take(job)).collect());
        // After the jobs are in hand: this may fail.
        if !missed.is_empty() {
            let queues = &inner.services.config.worker_queues;
            let (others, closed) = claim::shut(&inner.services.database, &missed, queues).await?;
            self.lanes.shut(others, closed);
        }
        Ok(got)
    }

    async fn scan(&mut self) -> Result<()> {
        let began = Instant::now();
        let queues = &self.inner.services.config.worker_queues;
        let scanned = claim::scan(&self.inner.services.database, queues, &mut self.lanes).await;
        self.lanes.rest(began.elapsed());
        self.scanned = Instant::now();
        scanned
    }

    /// Makes those ready whose time has come.
    async fn promote(&mut self) -> Result<()> {
        let now = Instant::now();
        let is_due = self.due.is_some_and(|due| due <= now);
        if !is_due && self.promoted.elapsed() < PROMOTE {
            return Ok(());
        }
        let (lanes, next) = claim::promote(&self.inner.services.database).await?;
        self.lanes.woken(lanes);
        self.promoted = now;
        self.due = next.map(|next| now + next);
        Ok(())
    }
}
