//! The fuzzer's clients, what becomes of their requests, and the killing of PostgreSQL's sessions beside them.

use super::judge::Judge;
use super::menu::Chooser;
use super::savepoints::Beside;
use super::world::{SLUGS, Tenant};
use crate::http::Connection;
use crate::postgres::{OWNER, Postgres};
use crate::report::progress;
use crate::{Error, Result};
use futures::future::try_join_all;
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::postgres::PgConnection;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// Clients, each with one request under way.
const CLIENTS: u64 = 64;
/// The share of requests that are cut, and after how many microseconds at most.
pub(super) const CUT: (f64, u64) = (0.3, 20_000);
/// How long an answer may take before it counts as none.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// How much, and which.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Requests.
    pub(super) requests: u64,
    /// New requests are sent for so long at most.
    pub(super) time: Duration,
    /// Of all choices.
    pub(super) seed: u64,
    /// A session of PostgreSQL's is killed about so often; never if zero.
    pub(super) kill: Duration,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) requests: u64,
    pub(super) seconds: f64,
    /// Requests whose client went away.
    pub(super) cut: u64,
    /// Requests without an answer: the connection was closed, or nothing came for long.
    pub(super) unanswered: u64,
    /// Sessions of PostgreSQL's that were killed.
    pub(super) killed: u64,
    /// Units of work with savepoints beside them, and how many savepoints these had.
    pub(super) units: u64,
    pub(super) savepoints: u64,
    /// Times that an answer held what is another tenant's.
    pub(super) foreign: u64,
    /// Times that a unit of work beside them read it.
    pub(super) foreign_units: u64,
    /// The first of them.
    pub(super) evidence: Vec<String>,
    /// Answers by their first code, or `ok`.
    pub(super) codes: BTreeMap<String, u64>,
}

impl Tally {
    /// What was found, if it is of the first.
    pub(super) fn found(&mut self, evidence: String) {
        if self.evidence.len() < 5 {
            self.evidence.push(evidence);
        }
    }
}

/// What the clients share; all of them run in one thread.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) load: Load,
    until: Instant,
    left: Cell<u64>,
    judge: RefCell<Judge>,
    pub(super) tally: RefCell<Tally>,
    bar: ProgressBar,
}

impl Shared {
    /// Whether there is another request to be made.
    pub(super) fn goes_on(&self) -> bool {
        self.left.get() > 0 && Instant::now() <= self.until
    }

    fn take(&self) -> bool {
        let goes_on = self.goes_on();
        if goes_on {
            self.left.update(|left| left - 1);
            self.bar.inc(1);
        }
        goes_on
    }
}

/// Runs all of it: requests to the server there, and units of work of this one.
pub(super) async fn run(
    (address, beside): (&str, &Beside),
    tenants: &[Tenant],
    postgres: &Postgres,
    load: Load,
) -> Result<Tally> {
    let began = Instant::now();
    let shared = Shared {
        load,
        until: began + load.time,
        left: Cell::new(load.requests),
        judge: RefCell::default(),
        tally: RefCell::default(),
        bar: progress(load.requests),
    };
    let clients = (0..CLIENTS).map(|number| client(address, tenants, &shared, number));
    let all = async { tokio::try_join!(try_join_all(clients), beside.run(&shared)) };
    tokio::select! {
        done = all => drop(done?),
        failed = kill(postgres, &shared) => failed?,
    }
    shared.bar.finish_and_clear();
    let mut tally = shared.tally.into_inner();
    tally.requests = load.requests - shared.left.get();
    tally.seconds = began.elapsed().as_secs_f64();
    Ok(tally)
}

async fn client(address: &str, tenants: &[Tenant], shared: &Shared, number: u64) -> Result<()> {
    let mut chooser = Chooser::new(tenants, shared.load.seed.wrapping_mul(CLIENTS) + number);
    let mut connection = Connection::new(address);
    while shared.take() {
        let ask = chooser.choose();
        let cut = chooser
            .random
            .random_bool(CUT.0)
            .then(|| Duration::from_micros(chooser.random.random_range(0..CUT.1)));
        let answer = async {
            let answer = connection.exchange(&ask.bytes).await?;
            Ok::<_, Error>((answer.status, answer.body.to_owned()))
        };
        let outcome = timeout(cut.unwrap_or(PATIENCE), answer).await;
        let foreign = shared
            .judge
            .borrow_mut()
            .foreign(ask.tenant, connection.received());
        let mut tally = shared.tally.borrow_mut();
        if let Some(found) = foreign {
            tally.foreign += 1;
            let asked = ask.tenant.map_or("nobody", |tenant| SLUGS[tenant]);
            tally.found(format!("{} of {asked}: {found}", ask.name));
        }
        match outcome {
            Ok(Ok((status, body))) => {
                *tally.codes.entry(code(status, &body)).or_default() += 1;
                drop(tally);
                chooser.learn(ask, status, &body);
            }
            Err(_) if cut.is_some() => tally.cut += 1,
            Ok(Err(_)) | Err(_) => tally.unanswered += 1,
        }
    }
    Ok(())
}

/// The first code in an answer; `ok` if it has none, and the status unless it is 200.
fn code(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let code = text
        .split_once("\"code\":\"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("ok", |(code, _)| code);
    match status {
        200 => code.to_owned(),
        _ => format!("{status} {code}"),
    }
}

/// Ends sessions that are not the superuser's, one after another at random times, for as long as it is let.
async fn kill(postgres: &Postgres, shared: &Shared) -> Result<()> {
    let mut connection = postgres.connect().await?;
    let mut random = StdRng::seed_from_u64(shared.load.seed);
    let pause = shared.load.kill;
    if pause.is_zero() {
        return std::future::pending().await;
    }
    loop {
        sleep(pause.mul_f64(random.random_range(0.0..2.0))).await;
        let sessions = sessions(&mut connection).await?;
        if sessions.is_empty() {
            continue;
        }
        let one = sessions[random.random_range(0..sessions.len())];
        sqlx::query("SELECT pg_terminate_backend($1)")
            .bind(one)
            .execute(&mut connection)
            .await?;
        shared.tally.borrow_mut().killed += 1;
    }
}

/// The sessions of Bulkhead's logins.
pub(super) async fn sessions(connection: &mut PgConnection) -> Result<Vec<i32>> {
    let sessions = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend'
             AND usename <> current_user ORDER BY pid",
    );
    Ok(sessions.bind(OWNER).fetch_all(connection).await?)
}
