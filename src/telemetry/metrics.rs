//! What this process counts of its jobs, in Prometheus' text form.

use crate::error::{Error, Result};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;

/// What all names begin with.
pub const PREFIX: &str = "bulkhead";

/// Counters and histograms since the process began.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    wait: Family<Queue, Histogram>,
    run: Family<Kind, Histogram>,
    ended: Family<Ended, Counter>,
    claim: Histogram,
    fenced: Counter,
    reaped: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Queue {
    queue: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    queue: String,
    kind: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    queue: String,
    outcome: String,
}

/// From a millisecond to four and a half hours.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 13))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let wait = Family::new_with_constructor(seconds as fn() -> Histogram);
        let run = Family::new_with_constructor(seconds as fn() -> Histogram);
        let ended = Family::default();
        // From a tenth of a millisecond to three seconds.
        let claim = Histogram::new(exponential_buckets(0.000_1, 2.0, 16));
        let (fenced, reaped) = (Counter::default(), Counter::default());
        let help = "Seconds from when a job could run to its start";
        registry.register("job_wait_seconds", help, wait.clone());
        let help = "Seconds that runs took";
        registry.register("job_run_seconds", help, run.clone());
        let help = "Runs by how they ended";
        registry.register("job_runs", help, ended.clone());
        let help = "Seconds that claims of jobs took";
        registry.register("job_claim_seconds", help, claim.clone());
        let help = "Runs whose end was refused, for another run had the job";
        registry.register("job_fenced", help, fenced.clone());
        let help = "Jobs taken back from workers that were lost";
        registry.register("job_reaped", help, reaped.clone());
        Self {
            registry,
            wait,
            run,
            ended,
            claim,
            fenced,
            reaped,
        }
    }
}

impl Metrics {
    /// A run ended (done, retried, dead, cancelled) after it had waited for so many seconds, or was none (released).
    pub fn ended(
        &self,
        (queue, kind): (&str, &str),
        outcome: &str,
        (waited, took): (f32, Duration),
    ) {
        let ended = Ended {
            queue: queue.to_owned(),
            outcome: outcome.to_owned(),
        };
        self.ended.get_or_create(&ended).inc();
        if outcome == "released" {
            return;
        }
        let (queue, kind) = (queue.to_owned(), kind.to_owned());
        let of = Queue {
            queue: queue.clone(),
        };
        self.wait
            .get_or_create(&of)
            .observe(f64::from(waited).max(0.0));
        self.run
            .get_or_create(&Kind { queue, kind })
            .observe(took.as_secs_f64());
    }

    /// A claim took so long.
    pub fn claimed(&self, took: Duration) {
        self.claim.observe(took.as_secs_f64());
    }

    /// The end of a run was refused.
    pub fn fenced(&self) {
        self.fenced.inc();
    }

    /// Jobs were taken back.
    pub fn reaped(&self, jobs: usize) {
        self.reaped.inc_by(jobs as u64);
    }

    /// All of it, and what else is known just now.
    pub fn text(&self, now: &Registry) -> Result<String> {
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)
            .and_then(|()| encode_registry(&mut text, now))
            .and_then(|()| encode_eof(&mut text))
            .map_err(Error::internal)?;
        Ok(text)
    }
}
