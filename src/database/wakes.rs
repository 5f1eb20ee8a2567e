//! Word that lanes have jobs to run, and that running ones are to end: within this process at once, to the others by NOTIFY after
//! the commit, many in one. A word that is lost is a delay, for whoever waits for it looks from time to time anyway.

use super::listen::CHANNEL;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// What such a message begins with: then who sent it, and the lanes.
const JOBS: &str = "jobs:";
/// Lanes that one message names: PostgreSQL takes 8,000 bytes.
const NAMED: usize = 500;
/// What it says in place of more.
const ALL: &str = "all";
/// What it says when running jobs are to end.
const CANCEL: &str = "cancel";

/// What the workers of this process have not looked at yet, and what the other processes have not been told.
#[derive(Debug)]
pub struct Wakes {
    /// Whose messages are our own.
    sender: String,
    state: Mutex<State>,
    woken: Notify,
    ending: Notify,
    due: Notify,
}

#[derive(Debug, Default)]
struct State {
    here: Word,
    untold: Word,
    cancel: bool,
}

/// Lanes that may have jobs to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// These.
    pub lanes: BTreeSet<i32>,
    /// They are too many to be named.
    pub all: bool,
}

impl Word {
    fn add(&mut self, lanes: impl IntoIterator<Item = i32>) {
        if !self.all {
            self.lanes.extend(lanes);
            self.all = self.lanes.len() > NAMED;
        }
    }

    fn is_empty(&self) -> bool {
        !self.all && self.lanes.is_empty()
    }
}

impl Wakes {
    /// `sender`: a text without a colon that no other process uses.
    pub(super) fn new(sender: String) -> Self {
        Self {
            sender,
            state: Mutex::default(),
            woken: Notify::new(),
            ending: Notify::new(),
            due: Notify::new(),
        }
    }

    /// Jobs of these lanes can be run, and this is committed.
    pub fn note(&self, lanes: &[i32]) {
        if lanes.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.here.add(lanes.iter().copied());
        state.untold.add(lanes.iter().copied());
        drop(state);
        self.woken.notify_one();
        self.due.notify_one();
    }

    /// Running jobs are to end, and this is committed.
    pub fn note_cancelled(&self) {
        self.lock().cancel = true;
        self.ending.notify_one();
        self.due.notify_one();
    }

    /// Returns when lanes were noted since they were taken last.
    pub async fn woken(&self) {
        while self.lock().here.is_empty() {
            self.woken.notified().await;
        }
    }

    /// Returns when running jobs may have to end, since this returned last.
    pub async fn ending(&self) {
        self.ending.notified().await;
    }

    /// The lanes that were noted.
    pub fn take(&self) -> Word {
        std::mem::take(&mut self.lock().here)
    }

    /// Takes a message of this kind; whether it is one. One's own says nothing new.
    pub(super) fn hear(&self, message: &str) -> bool {
        let Some((sender, said)) = message
            .strip_prefix(JOBS)
            .and_then(|rest| rest.split_once(':'))
        else {
            return false;
        };
        if sender == self.sender {
            return true;
        }
        let mut state = self.lock();
        for word in said.split(',') {
            match word {
                CANCEL => self.ending.notify_one(),
                ALL => state.here.all = true,
                lane => state.here.add(lane.parse::<i32>()),
            }
        }
        drop(state);
        self.woken.notify_one();
        true
    }

    /// Anything may have been missed.
    pub(super) fn wake_all(&self) {
        self.lock().here.all = true;
        self.woken.notify_one();
        self.ending.notify_one();
    }

    /// Returns once there is something to tell. May be dropped at any time.
    pub(super) async fn due(&self) {
        while !self.is_due() {
            self.due.notified().await;
        }
    }

    fn is_due(&self) -> bool {
        let state = self.lock();
        state.cancel || !state.untold.is_empty()
    }

    /// The statement that tells all of it, for a transaction that does not wait for the disk; none if there is nothing.
    pub(super) fn tell(&self) -> Option<String> {
        let mut state = self.lock();
        let untold = std::mem::take(&mut state.untold);
        let words = words(untold, std::mem::take(&mut state.cancel))?;
        let sender = &self.sender;
        Some(format!("NOTIFY {CHANNEL}, '{JOBS}{sender}:{words}'"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The statement that tells every process, this one too, once it is committed: these lanes have jobs to run, or running ones are
/// to end. For operators' acts, which are rare.
pub(super) fn notify(lanes: &[i32], cancelled: bool) -> Option<String> {
    let mut word = Word::default();
    word.add(lanes.iter().copied());
    words(word, cancelled).map(|words| format!("NOTIFY {CHANNEL}, '{JOBS}operator:{words}'"))
}

/// What a message says; none if there is nothing.
fn words(lanes: Word, cancelled: bool) -> Option<String> {
    let mut words: Vec<String> = if lanes.all {
        vec![ALL.to_owned()]
    } else {
        lanes.lanes.iter().map(i32::to_string).collect()
    };
    if cancelled {
        words.push(CANCEL.to_owned());
    }
    (!words.is_empty()).then(|| words.join(","))
}

/// What a unit of work does to jobs, of which its commit brings word.
#[derive(Debug)]
pub struct Noted {
    wakes: Arc<Wakes>,
    lanes: Mutex<Vec<i32>>,
    cancelled: AtomicBool,
}

impl Noted {
    pub(super) fn new(wakes: &Arc<Wakes>) -> Self {
        Self {
            wakes: Arc::clone(wakes),
            lanes: Mutex::default(),
            cancelled: AtomicBool::new(false),
        }
    }

    /// A lane has one more job to run: the commit wakes the workers.
    pub(crate) fn job(&self, lane: i32) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        // Thousands may be of one.
        if lanes.last() != Some(&lane) {
            lanes.push(lane);
        }
    }

    /// A running job is to end: the commit tells its worker.
    pub(crate) fn cancelled(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(super) fn committed(self) {
        let lanes = self.lanes.into_inner();
        self.wakes
            .note(&lanes.unwrap_or_else(PoisonError::into_inner));
        if self.cancelled.into_inner() {
            self.wakes.note_cancelled();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn message(wakes: &Wakes) -> String {
        let told = wakes.tell().unwrap();
        told.split('\'').nth(1).unwrap().to_owned()
    }

    #[test]
    fn many_lanes_are_one_message_and_none_is_too_long() {
        let [here, there] = ["a", "b"].map(|name| Wakes::new(name.to_owned()));
        assert!(here.due().now_or_never().is_none());
        here.note(&[3, 1]);
        here.note(&[3]);
        assert!(here.woken().now_or_never().is_some(), "at once");
        let told = message(&here);
        assert_eq!(told, "jobs:a:1,3");
        assert!(here.tell().is_none(), "all is told");
        assert!(there.hear(&told) && here.hear(&told));
        assert_eq!(there.take().lanes, BTreeSet::from([1, 3]));
        assert!(there.woken().now_or_never().is_none());
        assert!(there.ending().now_or_never().is_none());
        here.note_cancelled();
        assert!(there.hear(&message(&here)));
        assert!(there.ending().now_or_never().is_some());
        let many: Vec<i32> = (2_000_000_000..2_000_000_500).collect();
        here.note(&many);
        let told = message(&here);
        assert!(told.len() < 8000, "{} bytes", told.len());
        here.note(&many);
        here.note(&[1]);
        assert_eq!(message(&here), "jobs:a:all");
        assert!(there.hear("jobs:a:all") && there.take().all);
        assert!(!there.hear("tenant:x") && there.hear("jobs:a:nonsense"));
    }
}
