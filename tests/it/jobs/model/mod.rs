//! The functions of the queue against a model of them in memory: whatever is done in whatever order, by claims side by side too,
//! both are at the same afterwards. That the model would notice is shown by [`mutants`]. The seed is printed; `BULKHEAD_TEST_SEED`
//! sets it.

mod claims;
mod database;
mod mutants;
mod queue;

use super::private;
use crate::harness::run;
use database::Db;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use queue::{LANES, Queue, THEIRS};
use tokio::sync::Mutex;

/// What is done to the queue. Lanes and jobs are picked by numbers, modulo how many there are.
#[derive(Clone, Debug)]
enum Op {
    /// Adds jobs, whose time is now or later; one, if there is to be one with its key.
    Add {
        lane: usize,
        priority: i16,
        later: bool,
        key: Option<u8>,
        jobs: u8,
    },
    /// Claims of some lanes, by a bit each.
    Claim {
        lanes: u8,
        jobs: usize,
    },
    /// The same while another claim is not committed yet.
    ClaimBeside {
        first: u8,
        second: u8,
        jobs: usize,
    },
    /// A claim while a job is cancelled in a transaction that is not committed yet.
    ClaimDuringCancel {
        job: usize,
        lanes: u8,
        jobs: usize,
    },
    /// So many of the tenant's may run at once.
    Limit {
        jobs: Option<usize>,
    },
    /// Adds jobs of the tenant, and one that waits until they are over.
    Batch {
        lane: usize,
        members: u8,
    },
    /// Those that wait for nothing any more are looked for.
    Release,
    /// Says that a run ended well, in its own unit of work.
    Complete {
        job: usize,
        is_stale: bool,
    },
    /// Says how a run ended, with its claim or with one that was lost.
    End {
        job: usize,
        how: How,
        is_stale: bool,
    },
    /// The lease of a job ends, and the lost are looked for.
    Reap {
        job: usize,
    },
    /// The time of a job comes, and those are looked for.
    Promote {
        job: usize,
    },
    Cancel {
        job: usize,
    },
    Retry {
        job: usize,
    },
    Pause {
        lane: usize,
        paused: bool,
    },
    Cap {
        lane: usize,
        cap: Option<i32>,
    },
    /// So many may start, and no more.
    Rate {
        lane: usize,
        tokens: Option<i32>,
    },
}

#[derive(Clone, Copy, Debug)]
enum How {
    Done,
    /// The same in the words of any end, as one says it that made a media.
    Made,
    Dead,
    Cancelled,
    Again,
    Released,
    Later,
}

impl How {
    /// State, whether the attempt is given back, and for how long it waits.
    fn said(self) -> (i16, bool, i64) {
        match self {
            Self::Done | Self::Made => (3, false, 0),
            Self::Dead => (4, false, 0),
            Self::Cancelled => (5, false, 0),
            Self::Again => (6, false, 3_600_000),
            Self::Released => (1, true, 0),
            Self::Later => (6, true, 3_600_000),
        }
    }
}

fn op() -> impl Strategy<Value = Op> {
    let how = prop_oneof![
        3 => Just(How::Done),
        1 => Just(How::Made),
        1 => Just(How::Dead),
        1 => Just(How::Cancelled),
        2 => Just(How::Again),
        2 => Just(How::Released),
        1 => Just(How::Later),
    ];
    let (lane, job) = (0..LANES, 0..64_usize);
    prop_oneof![
        10 => (lane.clone(), -1..2_i16, prop::bool::weighted(0.15), prop::option::weighted(0.3, 0..3_u8), 1..4_u8)
            .prop_map(|(lane, priority, later, key, jobs)| Op::Add { lane, priority, later, key, jobs }),
        6 => (1..8_u8, 1..5_usize).prop_map(|(lanes, jobs)| Op::Claim { lanes, jobs }),
        3 => (1..8_u8, 1..8_u8, 1..5_usize, any::<bool>()).prop_map(|(first, second, jobs, waits)| {
            // One that finds nothing free waits.
            let second = if waits { second & first } else { second };
            Op::ClaimBeside { first, second, jobs }
        }),
        6 => (job.clone(), how, prop::bool::weighted(0.2))
            .prop_map(|(job, how, is_stale)| Op::End { job, how, is_stale }),
        2 => job.clone().prop_map(|job| Op::Reap { job }),
        1 => job.clone().prop_map(|job| Op::Promote { job }),
        2 => job.clone().prop_map(|job| Op::Cancel { job }),
        2 => job.clone().prop_map(|job| Op::Retry { job }),
        2 => (job.clone(), 1..8_u8, 1..5_usize)
            .prop_map(|(job, lanes, jobs)| Op::ClaimDuringCancel { job, lanes, jobs }),
        1 => prop::option::weighted(0.7, 0..4_usize).prop_map(|jobs| Op::Limit { jobs }),
        2 => (THEIRS, 0..3_u8).prop_map(|(lane, members)| Op::Batch { lane, members }),
        2 => Just(Op::Release),
        2 => (job, prop::bool::weighted(0.3)).prop_map(|(job, is_stale)| Op::Complete { job, is_stale }),
        1 => (lane.clone(), any::<bool>()).prop_map(|(lane, paused)| Op::Pause { lane, paused }),
        2 => (lane.clone(), prop::option::weighted(0.8, 1..4)).prop_map(|(lane, cap)| Op::Cap { lane, cap }),
        1 => (lane, prop::option::of(0..4)).prop_map(|(lane, tokens)| Op::Rate { lane, tokens }),
    ]
}

/// Does the same to both, and compares after each step.
async fn check(db: &mut Db, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut queue = Queue::new(db.clear().await);
    for (nth, op) in ops.iter().enumerate() {
        let told = match db.act(&mut queue, op).await {
            Ok(()) => db.compare(&queue).await,
            wrong => wrong,
        };
        told.map_err(|why| TestCaseError::fail(format!("step {nth}, {op:?}: {why}")))?;
    }
    Ok(())
}

fn seed() -> u64 {
    let asked = std::env::var("BULKHEAD_TEST_SEED").ok();
    let seed = asked.map_or_else(
        || super::new_id().as_u64_pair().1,
        |seed| seed.parse().expect("a number"),
    );
    println!("BULKHEAD_TEST_SEED={seed}");
    seed
}

/// Up to so many cases; why one failed, made small if `is_shrunk`.
fn cases(db: &Mutex<Db>, seed: u64, cases: u32, is_shrunk: bool) -> Option<String> {
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: if is_shrunk { 300 } else { 0 },
        ..Config::default()
    };
    let bytes: Vec<u8> = seed.to_le_bytes().repeat(4);
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let ops = prop::collection::vec(op(), 5..40);
    let ran = runner.run(&ops, |ops| {
        run(async { check(&mut *db.lock().await, &ops).await })
    });
    match ran {
        Ok(()) => None,
        Err(TestError::Fail(why, ops)) => Some(format!("{why}\n{ops:#?}")),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

async fn database() -> Mutex<Db> {
    let (tenant, _) = private(1).await;
    Mutex::new(Db::new(&tenant).await)
}

#[test]
fn the_queue_is_as_its_model() {
    let seed = seed();
    let db = run(database());
    let failed = cases(&db, seed, 40, true);
    assert!(failed.is_none(), "{}", failed.unwrap_or_default());
}
