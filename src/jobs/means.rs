//! Mean run times by kind: what a claim charges a lane, and how many jobs are worth fetching ahead; and what lanes were charged
//! too little.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a kind is taken to cost that never ran here, in seconds.
const UNKNOWN: f64 = 0.01;
/// How much the latest run counts.
const LATEST: f64 = 0.1;
/// The least that a run is taken to cost: its claim and its end.
const LEAST: f64 = 0.000_1;

/// Run times of this process.
#[derive(Debug, Default)]
pub(super) struct Means(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    kinds: HashMap<String, f64>,
    all: Option<f64>,
    corrections: HashMap<i32, f64>,
}

impl Means {
    /// A run took so long, and its lane was charged so much for it.
    pub(super) fn ran(&self, kind: &str, lane: i32, took: Duration, charged: f64) {
        let took = took.as_secs_f64().max(LEAST);
        let mut inner = self.lock();
        let towards = |mean: f64| mean + (took - mean) * LATEST;
        match inner.kinds.get_mut(kind) {
            Some(mean) => *mean = towards(*mean),
            None => {
                inner.kinds.insert(kind.to_owned(), took);
            }
        }
        inner.all = Some(inner.all.map_or(took, towards));
        *inner.corrections.entry(lane).or_default() += took - charged;
    }

    /// A claim that never ran is not charged.
    pub(super) fn gave_back(&self, lane: i32, charged: f64) {
        *self.lock().corrections.entry(lane).or_default() -= charged;
    }

    /// Seconds by kind, as a claim is told them.
    pub(super) fn costs(&self) -> serde_json::Value {
        let inner = self.lock();
        let mut costs: serde_json::Map<_, _> = inner
            .kinds
            .iter()
            .map(|(kind, mean)| (kind.clone(), (*mean).into()))
            .collect();
        costs.insert(String::new(), UNKNOWN.into());
        costs.into()
    }

    /// How many jobs fill this time, by what ran so far; none before anything ran.
    pub(super) fn fill(&self, time: Duration) -> f64 {
        self.lock()
            .all
            .map_or(0.0, |mean| time.as_secs_f64() / mean)
    }

    /// Takes the corrections of these lanes.
    pub(super) fn corrections(&self, lanes: &[i32]) -> Vec<(i32, f64)> {
        let mut inner = self.lock();
        let taken = |lane: &i32| Some((*lane, inner.corrections.remove(lane)?));
        lanes.iter().filter_map(taken).collect()
    }

    /// Puts back what could not be told.
    pub(super) fn put_back(&self, corrections: impl IntoIterator<Item = (i32, f64)>) {
        let mut inner = self.lock();
        for (lane, correction) in corrections {
            *inner.corrections.entry(lane).or_default() += correction;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lane_owes_what_its_runs_took_longer_than_charged() {
        let means = Means::default();
        means.ran("slow", 1, SECOND, 0.25);
        means.ran("slow", 1, SECOND, 1.0);
        means.gave_back(2, 0.5);
        assert_eq!(means.corrections(&[1, 2, 3]), [(1, 0.75), (2, -0.5)]);
        assert!(means.corrections(&[1, 2]).is_empty(), "told once");
        means.put_back([(1, 0.75)]);
        assert_eq!(means.corrections(&[1]), [(1, 0.75)], "unless that failed");
    }

    #[test]
    fn a_kind_costs_what_its_runs_take() {
        let means = Means::default();
        assert!((means.fill(SECOND)).abs() < f64::EPSILON, "nothing ran");
        means.ran("slow", 1, SECOND, 0.0);
        let costs = means.costs();
        assert_eq!((&costs["slow"], &costs[""]), (&1.0.into(), &UNKNOWN.into()));
        means.ran("slow", 1, 2 * SECOND, 0.0);
        assert_eq!(means.costs()["slow"], 1.0 + LATEST);
        assert!((means.fill(11 * SECOND) - 10.0).abs() < 1e-9);
    }
}
