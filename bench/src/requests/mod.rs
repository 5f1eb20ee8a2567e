//! `requests`: one device by its id, lists and a mutation, beside pgbench and peers, and where the time goes.

mod fixture;
mod limits;
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
    let subjects = fixture::subjects(&server, &options).await?;
    let measured = measure(&subjects, &options, Turn::of(&server, &postgres)).await?;
    let loaded = resident_mb(server.pid());
    let pairs = limits::pairs((&program, &place), &postgres, options.connections).await?;

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

/// Everything once in each round, beginning with another each time.
async fn measure(
    subjects: &[Subject],
    options: &Options,
    turn: Turn<'_>,
) -> Result<Vec<Vec<Measured>>> {
    let plan = |seconds| Plan {
        connections: options.connections.into(),
        time: Duration::from_secs(seconds),
    };
    if options.warm > 0 {
        for subject in subjects {
            note(&format!("warming up {}", subject.name));
            turn.whole(subject, plan(options.warm)).await?;
        }
    }
    let mut measured = vec![Vec::new(); subjects.len()];
    for round in 0..usize::try_from(options.rounds)? {
        for step in 0..subjects.len() {
            let index = (round + step) % subjects.len();
            let now = turn.whole(&subjects[index], plan(options.seconds)).await?;
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

/// Who is measured in a turn, and the PostgreSQL below.
#[derive(Clone, Copy, Debug)]
struct Turn<'a> {
    server: &'a Server,
    postgres: &'a Postgres,
}

impl<'a> Turn<'a> {
    fn of(server: &'a Server, postgres: &'a Postgres) -> Self {
        Self { server, postgres }
    }

    fn usage(self) -> Option<Usage> {
        Usage::now(self.server.pid(), self.postgres.postmaster)
    }

    /// Measures once, and the processor time that it took.
    async fn whole(self, subject: &Subject, plan: Plan) -> Result<Measured> {
        let (Kind::Step(target) | Kind::Query(_, target) | Kind::Peer(_, _, target)) =
            &subject.kind
        else {
            return self.floor(plan).await;
        };
        self.load(target, plan).await
    }

    /// The same for requests.
    async fn load(self, target: &Target, plan: Plan) -> Result<Measured> {
        let before = self.usage();
        let sample = load::run(target, plan).await?;
        let usage = self.usage().zip(before);
        let usage = usage.map(|(after, before)| after - before);
        Ok(Measured { sample, usage })
    }

    /// The same for pgbench. The time of its sessions is counted once they have ended.
    async fn floor(self, plan: Plan) -> Result<Measured> {
        let before = self.usage();
        let sample = self.postgres.select(plan).await?;
        let after = self.usage();
        sleep(SETTLE).await;
        let later = self.usage().zip(after).map(|(later, after)| Usage {
            idle: after.idle,
            ..later
        });
        let usage = later.zip(before).map(|(after, before)| after - before);
        Ok(Measured { sample, usage })
    }
}
