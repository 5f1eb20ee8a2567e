//! The load: so many connections, each asking again as soon as it has its answer.

use crate::Result;
use crate::http::{Answer, Connection};
use crate::site::Target;
use crate::stats::percentile;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much load, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Connections, each with one request under way.
    pub(crate) connections: usize,
    /// How long new requests are sent.
    pub(crate) time: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Requests answered in a second.
    pub(crate) rate: f64,
    /// The median latency; pgbench's mean.
    pub(crate) p50_ms: f64,
    /// The 99th percentile.
    pub(crate) p99_ms: Option<f64>,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// Loads the target. One answer that is not the expected one fails it all.
pub(crate) async fn run(target: &Target, plan: Plan) -> Result<Sample> {
    let target = Arc::new(target.clone());
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..plan.connections {
        let step = (number, plan.connections);
        clients.spawn(client(Arc::clone(&target), step, began + plan.time));
    }
    let all = timeout(plan.time + PATIENCE, clients.join_all()).await;
    let seconds = began.elapsed().as_secs_f64();
    let all = all.map_err(|_| format!("{} stopped answering", target.address))?;
    let mut latencies = Vec::new();
    for one in all {
        latencies.append(&mut one?);
    }
    latencies.sort_unstable();
    let milliseconds = |hundredths| f64::from(percentile(&latencies, hundredths)) / 1000.0;
    Ok(Sample {
        rate: f64::from(u32::try_from(latencies.len())?) / seconds,
        p50_ms: milliseconds(50),
        p99_ms: Some(milliseconds(99)),
        seconds,
    })
}

/// One connection's latencies in microseconds.
async fn client(
    target: Arc<Target>,
    (first, step): (usize, usize),
    until: Instant,
) -> Result<Vec<u32>> {
    let mut asked = first;
    let mut connection = Connection::new(&target.address);
    let mut latencies = Vec::with_capacity(1 << 14);
    let mut sent = Instant::now();
    while sent < until {
        let request = &target.requests[asked % target.requests.len()];
        asked += step;
        let answer = connection.exchange(request).await?;
        if !target.is_answered(&answer) {
            let Answer { status, body } = answer;
            let text = String::from_utf8_lossy(body);
            return Err(format!("under load, {} answered {status}: {text}", target.address).into());
        }
        let answered = Instant::now();
        latencies.push(u32::try_from((answered - sent).as_micros())?);
        sent = answered;
    }
    Ok(latencies)
}
