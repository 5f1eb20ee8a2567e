//! Clients that ask tenants at random, and how long the answers took.

use crate::http::{Connection, request};
use crate::population::Resident;
use crate::stats::percentile;
use crate::{Error, Result};
use futures::future::try_join_all;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use std::cell::RefCell;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Connections, each with one request under way.
const CLIENTS: u64 = 16;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked, and how often: in a hundred. Between them they touch most of a tenant's tables.
const DOCUMENTS: [(u32, &str); 5] = [
    (50, POINT),
    (
        20,
        "{ tenant { devices(first: 10) { totalCount nodes { id name state } } } }",
    ),
    (
        10,
        "{ tenant { members { nodes { id email roles { name } } } } }",
    ),
    (
        10,
        "{ tenant { changes(first: 10) { nodes { id action fields { name after } } } } }",
    ),
    (
        10,
        "{ tenant { media(first: 5) { nodes { id filename } } jobs(first: 5) { nodes { id kind } } } }",
    ),
];
/// One device by its id.
const POINT: &str = "query($id: ID!) { node(id: $id) { ... on Device { name state } } }";

/// Which requests are made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mix {
    /// All kinds.
    All,
    /// One device by its id.
    Point,
}

/// Latencies in microseconds since they were last taken.
#[derive(Debug, Default)]
pub(super) struct Latencies(RefCell<Vec<u32>>);

/// What they say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Summary {
    /// Answers in a second.
    pub(super) rate: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

impl Latencies {
    /// Takes them, as those of so much time.
    pub(super) fn take(&self, time: Duration) -> Summary {
        let mut latencies = self.0.take();
        latencies.sort_unstable();
        let milliseconds = |hundredths| f64::from(percentile(&latencies, hundredths)) / 1000.0;
        Summary {
            rate: f64::from(u32::try_from(latencies.len()).unwrap_or(u32::MAX))
                / time.as_secs_f64(),
            p50_ms: milliseconds(50),
            p99_ms: milliseconds(99),
        }
    }
}

/// Asks these tenants until then. An answer that is none, or has errors, fails it all.
pub(super) async fn run(
    address: &str,
    residents: &[Resident],
    (mix, seed): (Mix, u64),
    until: Instant,
    latencies: &Latencies,
) -> Result<()> {
    let clients = (0..CLIENTS).map(|number| async move {
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(CLIENTS) + number);
        let mut connection = Connection::new(address);
        while Instant::now() < until {
            let resident = &residents[random.random_range(0..residents.len())];
            let bytes = ask(resident, mix, &mut random);
            let sent = Instant::now();
            let answer = timeout(PATIENCE, connection.exchange(&bytes)).await??;
            if answer.status != 200 || answer.body.windows(11).any(|w| w == b"\"errors\":[{") {
                let text = String::from_utf8_lossy(answer.body);
                let host = &resident.host;
                return Err(format!("{host} answered {}: {text}", answer.status).into());
            }
            let took = u32::try_from(sent.elapsed().as_micros())?;
            latencies.0.borrow_mut().push(took);
        }
        Ok::<(), Error>(())
    });
    try_join_all(clients).await.map(drop)
}

/// The same for so long; what it came to.
pub(super) async fn sample(
    address: &str,
    residents: &[Resident],
    choice: (Mix, u64),
    time: Duration,
) -> Result<Summary> {
    let latencies = Latencies::default();
    let until = Instant::now() + time;
    run(address, residents, choice, until, &latencies).await?;
    Ok(latencies.take(time))
}

fn ask(resident: &Resident, mix: Mix, random: &mut StdRng) -> Vec<u8> {
    let mut at = match mix {
        Mix::All => random.random_range(0..100),
        Mix::Point => 0,
    };
    let mut document = POINT;
    for (weight, next) in DOCUMENTS {
        if at < weight {
            document = next;
            break;
        }
        at -= weight;
    }
    let body = json!({"query": document, "variables": {"id": resident.device}}).to_string();
    request(
        "/graphql",
        &resident.host,
        Some(&resident.token),
        Some(&body),
    )
}
