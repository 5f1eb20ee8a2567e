//! `requests`: one device by its id, lists and a mutation, beside pgbench and peers, and where the time goes.

mod fixture;
mod tables;

use crate::load::{self, Plan, Sample};
use crate::place::Place;
use crate::postgres::Postgres;
use crate::report::{Report, note};
use crate::server::{self, Server};
use crate::site::{Peer, Target};
use crate::usage::{Usage, resident_mb};
use crate::{Common, Result};
use clap::Args;
use std::time::Duration;
use tokio::time::sleep;

/// How long the server is left alone before its memory is read.
const QUIET: Duration = Duration::from_secs(3);
/// How long pgbench's sessions may take to end.
const SETTLE: Duration = Duration::from_millis(500);
/// Short turns with and without limits on rates, side by side: what they cost is less than the machine's moods.
const PAIRS: usize = 16;

/// What `requests` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Something else that answers the same query: name=http://address:port|host|token
    #[arg(long = "peer", value_name = "PEER")]
    peers: Vec<Peer>,
    /// Rounds, each of which measures everything once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds that everything is measured in a round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Seconds that everything is warmed up before
    #[arg(long, default_value_t = 2)]
    warm: u64,
    /// Connections
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
}

/// Something that is measured.
#[derive(Debug)]
struct Subject {
    /// In the tables.
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// pgbench.
    Floor,
    /// A step on the way to the point query, the last of which is that query.
    Step(Target),
    /// The point query to the server that limits no rates.
    Unlimited(Target),
    /// Another query.
    Query(Query, Target),
    /// The same query to something else.
    Peer(Query, String, Target),
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Query {
    /// A row by its id.
    Point,
    /// The first 20 devices.
    List,
    /// The first 20 media, each with a signed link and its uploader.
    Nested,
    /// A device has another name, and the history has it.
    Mutation,
}

impl Query {
    /// In the figures.
    fn name(self) -> &'static str {
        match self {
            Self::Point => "point",
            Self::List => "list",
            Self::Nested => "nested",
            Self::Mutation => "mutation",
        }
    }
}

/// A measurement.
#[derive(Clone, Copy, Debug)]
struct Measured {
    sample: Sample,
    usage: Option<Usage>,
}

/// Runs it.
pub(crate) async fn run(options: Options) -> Result<()> {
    let mut report = Report::new(options.common.json);
    let program = server::program(&options.common)?;
    let mut place = Place::new(&options.common)?;
    note("starting bulkhead dev");
    let server = Server::start(&program, &place).await?;
    sleep(QUIET).await;
    let idle = resident_mb(server.pid());
    let postgres = Postgres::attach(&mut place).await?;
    note("filling the databases");
    postgres.prepare().await?;
    fixture::fill(&place, &postgres).await?;
    let free = [("BULKHEAD_RATE_LIMITS__ENABLED", "false".to_owned())];
    let unlimited = Server::run(&program, &place, &["dev"], &free).await?;
    let servers = Servers {
        server: &server,
        unlimited: &unlimited,
        postgres: &postgres,
    };
    let subjects = fixture::subjects(&server, &unlimited, &options).await?;
    let measured = measure(&subjects, &options, servers).await?;
    let loaded = resident_mb(server.pid());
    let pairs = pairs(&subjects, options.connections, servers).await?;

    let cores = std::thread::available_parallelism()?.get();
    report.text(&format!(
        "{cores} cores, PostgreSQL {}, {} connections, {} rounds of {} s; medians (ratios: of the rounds')",
        postgres.version(),
        options.connections,
        options.rounds,
        options.seconds
    ))?;
    tables::rates(&mut report, &subjects, &measured)?;
    let cores = u32::try_from(cores)?;
    tables::costs(&mut report, &subjects, &measured, cores)?;
    tables::limits(&mut report, &pairs, cores)?;
    tables::memory(&mut report, idle, loaded)?;
    report.finish()
}

/// What runs.
#[derive(Clone, Copy, Debug)]
struct Servers<'a> {
    server: &'a Server,
    unlimited: &'a Server,
    postgres: &'a Postgres,
}

/// Everything once in each round, beginning with another each time.
async fn measure(
    subjects: &[Subject],
    options: &Options,
    servers: Servers<'_>,
) -> Result<Vec<Vec<Measured>>> {
    let plan = |seconds| Plan {
        connections: options.connections.into(),
        time: Duration::from_secs(seconds),
    };
    if options.warm > 0 {
        for subject in subjects {
            note(&format!("warming up {}", subject.name));
            once(subject, plan(options.warm), servers.postgres).await?;
        }
    }
    let mut measured = vec![Vec::new(); subjects.len()];
    for round in 0..usize::try_from(options.rounds)? {
        for step in 0..subjects.len() {
            let index = (round + step) % subjects.len();
            let now = turn(&subjects[index], plan(options.seconds), servers).await?;
            note(&format!(
                "round {}: {} {:.0}/s",
                round + 1,
                subjects[index].name,
                now.sample.rate
            ));
            measured[index].push(now);
        }
    }
    Ok(measured)
}

/// The row with limits on rates and without, in short turns, each first as often as the other.
async fn pairs(
    subjects: &[Subject],
    connections: u16,
    servers: Servers<'_>,
) -> Result<Vec<[Measured; 2]>> {
    note("what limits on rates cost");
    let plan = Plan {
        connections: connections.into(),
        time: Duration::from_secs(1),
    };
    let free = tables::unlimited(subjects);
    let point = tables::point(subjects);
    let mut pairs = Vec::with_capacity(PAIRS);
    for number in 0..PAIRS {
        let mut order = [point, free];
        if number % 2 == 1 {
            order.reverse();
        }
        let first = turn(&subjects[order[0]], plan, servers).await?;
        let second = turn(&subjects[order[1]], plan, servers).await?;
        let mut pair = [first, second];
        if number % 2 == 1 {
            pair.reverse();
        }
        pairs.push(pair);
    }
    Ok(pairs)
}

/// Measures once, and the processor time that it took.
async fn turn(subject: &Subject, plan: Plan, servers: Servers<'_>) -> Result<Measured> {
    let server = match subject.kind {
        Kind::Unlimited(_) => servers.unlimited,
        _ => servers.server,
    };
    let usage = || Usage::now(server.pid(), servers.postgres.postmaster);
    let before = usage();
    let sample = once(subject, plan, servers.postgres).await?;
    let mut after = usage();
    if let Kind::Floor = subject.kind {
        // The time of pgbench's sessions is counted once they have ended.
        sleep(SETTLE).await;
        let later = usage().zip(after);
        after = later.map(|(later, after)| Usage {
            idle: after.idle,
            ..later
        });
    }
    let usage = after.zip(before).map(|(after, before)| after - before);
    Ok(Measured { sample, usage })
}

async fn once(subject: &Subject, plan: Plan, postgres: &Postgres) -> Result<Sample> {
    match &subject.kind {
        Kind::Floor => postgres.select(plan).await,
        Kind::Step(target)
        | Kind::Unlimited(target)
        | Kind::Query(_, target)
        | Kind::Peer(_, _, target) => load::run(target, plan).await,
    }
}
