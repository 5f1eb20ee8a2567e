//! `tenants`: many tenants in one database, asked at random for long: whether memory levels off and answers stay quick, what
//! it costs to go from tenant to tenant, and whether a tenant that is known is looked up again.

mod traffic;

use crate::http::{Connection, request};
use crate::place::{Place, explain};
use crate::population::{self, Resident};
use crate::postgres::{self, Postgres};
use crate::proxy::{Faults, Proxy};
use crate::report::{Report, note};
use crate::server::{self, Server};
use crate::stats::median;
use crate::usage::{private_mb, resident_mb};
use crate::{Common, Result};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::time::sleep_until;
use traffic::{Latencies, Mix, Summary};

/// Tenants that the many are compared with.
const FEW: usize = 10;
/// Tenants at random that one hot tenant is compared with.
const HUNDRED: usize = 100;
/// Rounds of that comparison.
const ROUNDS: u64 = 3;
/// Points of the curve at least, where the interval is not shorter anyway.
const POINTS: u32 = 8;
/// Requests to a tenant that is known.
const WARM: u32 = 1000;

/// What `tenants` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Tenants in the database
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u32).range(10..))]
    tenants: u32,
    /// Minutes that they are asked at random
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Seconds between two points of the curve, at most
    #[arg(long, default_value_t = 20.0)]
    every: f64,
    /// Of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A point of the curve.
#[derive(Clone, Copy, Debug)]
struct Point {
    at: Duration,
    rss_mb: f64,
    pg_mb: f64,
    sessions: usize,
    summary: Summary,
}

/// The server under test and all that is known of it.
#[derive(Debug)]
struct Run<'a> {
    server: Server,
    postgres: &'a Postgres,
    residents: &'a [Resident],
    seed: u64,
    every: Duration,
}

/// What was measured.
#[derive(Debug)]
struct Measured {
    few: Vec<Point>,
    many: Vec<Point>,
    hot: Vec<f64>,
    hundred: Vec<f64>,
}

/// Runs it.
pub(crate) async fn run(options: Options) -> Result<()> {
    let mut report = Report::new(options.common.json);
    let program = server::program(&options.common)?;
    let mut place = Place::new(&options.common)?;
    note("starting PostgreSQL");
    let postgres = Postgres::start(&mut place, false).await?;
    let done = with(&options, (&program, &place), &postgres, &mut report).await;
    postgres.stop().await?;
    done?;
    report.finish()
}

async fn with(
    options: &Options,
    (program, place): (&PathBuf, &Place),
    postgres: &Postgres,
    report: &mut Report,
) -> Result<()> {
    let settings = population::settings(options.tenants);
    let (cells, connections) = (settings.cells, settings.max_connections);
    note(&format!(
        "making {} tenants in {cells} cells, {connections} connections",
        options.tenants
    ));
    let began = Instant::now();
    let app = place.app_with(settings.clone()).await?;
    let made = population::make(&app, 0..options.tenants).await;
    app.stop().await.map_err(explain)?;
    let residents = made?;
    let each = began.elapsed().as_secs_f64() * 1e3 / f64::from(options.tenants);
    note(&format!("made in {each:.1} ms each"));
    let statements = warm(program, place, postgres, &residents[0]).await?;
    let time = Duration::from_secs_f64(options.minutes * 60.0);
    let variables = population::variables(&settings);
    let run = Run {
        server: Server::run(program, place, &["serve"], &variables).await?,
        postgres,
        residents: &residents,
        seed: options.seed,
        every: Duration::from_secs_f64(options.every).min(time / POINTS),
    };
    let measured = run.measure(time).await?;
    tell(report, options, &measured)?;
    report.count("warm_lookup_statements", statements);
    report.text(&format!(
        "\n{WARM} requests to a tenant that was asked a moment before: {statements} statements reached PostgreSQL."
    ))
}

/// How many statements reach PostgreSQL while a tenant is asked that is known: of these requests, each looks its tenant up
/// and needs nothing else of the database.
async fn warm(
    program: &Path,
    place: &Place,
    postgres: &Postgres,
    resident: &Resident,
) -> Result<u64> {
    let proxy = Proxy::start(postgres.port(), Faults::default()).await?;
    let variables = [("DATABASE_URL", postgres::url(proxy.port)?)];
    let server = Server::run(program, place, &["serve"], &variables).await?;
    let mut connection = Connection::new(&server.address());
    let body = Some(r#"{"query":"{ __typename }"}"#);
    let bytes = request("/graphql", &resident.host, None, body);
    let mut seen = 0;
    // The first is the one that looks it up.
    for number in 0..=WARM {
        let answer = connection.exchange(&bytes).await?;
        if answer.status != 200 {
            let text = String::from_utf8_lossy(answer.body);
            return Err(format!("{} answered {text}", resident.host).into());
        }
        if number == 0 {
            seen = proxy.seen.statements.load(Ordering::Relaxed);
        }
    }
    Ok(proxy.seen.statements.load(Ordering::Relaxed) - seen)
}

impl Run<'_> {
    /// Few tenants, then all, then few again; and one beside a hundred.
    async fn measure(&self, time: Duration) -> Result<Measured> {
        let some = (time / 10).max(self.every * 2);
        let few = &self.residents[..FEW];
        note(&format!("{FEW} tenants"));
        let mut few_points = self.curve(few, some).await?;
        note(&format!("{} tenants", self.residents.len()));
        let many = self.curve(self.residents, time).await?;
        note(&format!("{FEW} tenants again"));
        few_points.extend(self.curve(few, some).await?);
        let hundred = &self.residents[..HUNDRED.min(self.residents.len())];
        let mut measured = Measured {
            few: few_points,
            many,
            hot: Vec::new(),
            hundred: Vec::new(),
        };
        note("one tenant beside a hundred");
        for round in 0..ROUNDS {
            let choice = (Mix::Point, self.seed + round);
            let address = self.server.address();
            let sample = async |residents| {
                traffic::sample(&address, residents, choice, self.every / 2).await
            };
            measured.hot.push(sample(&hundred[..1]).await?.rate);
            measured.hundred.push(sample(hundred).await?.rate);
        }
        Ok(measured)
    }

    /// Asks these tenants for so long, and looks every now and then.
    async fn curve(&self, residents: &[Resident], time: Duration) -> Result<Vec<Point>> {
        let began = Instant::now();
        let latencies = Latencies::default();
        let address = self.server.address();
        let traffic = traffic::run(
            &address,
            residents,
            (Mix::All, self.seed),
            began + time,
            &latencies,
        );
        let mut points = Vec::new();
        let watch = async {
            loop {
                let before = Instant::now();
                sleep_until((before + self.every).into()).await;
                let point = self.look(began.elapsed(), latencies.take(before.elapsed()));
                note(&format!(
                    "{:.0} s: {:.0} MB, PostgreSQL {:.0} MB, {:.0}/s, p99 {:.1} ms",
                    point.at.as_secs_f64(),
                    point.rss_mb,
                    point.pg_mb,
                    point.summary.rate,
                    point.summary.p99_ms
                ));
                points.push(point);
            }
        };
        tokio::select! {
            done = traffic => done?,
            () = watch => {}
        }
        Ok(points)
    }

    fn look(&self, at: Duration, summary: Summary) -> Point {
        let (pg_mb, processes) = private_mb(self.postgres.postmaster).unwrap_or((f64::NAN, 0));
        Point {
            at,
            rss_mb: resident_mb(self.server.pid()).unwrap_or(f64::NAN),
            pg_mb,
            sessions: processes,
            summary,
        }
    }
}

fn tell(report: &mut Report, options: &Options, measured: &Measured) -> Result<()> {
    let row = |point: &Point| {
        let numbers = [
            point.rss_mb,
            point.pg_mb,
            f64::from(u32::try_from(point.sessions).unwrap_or(u32::MAX)),
            point.summary.rate,
        ];
        let times = [point.summary.p50_ms, point.summary.p99_ms];
        std::iter::once(format!("{:.0} s", point.at.as_secs_f64()))
            .chain(numbers.map(|number| format!("{number:.0}")))
            .chain(times.map(|ms| format!("{ms:.2}")))
            .collect()
    };
    let header = [
        "",
        "server MB",
        "PostgreSQL MB",
        "its processes",
        "per s",
        "p50 ms",
        "p99 ms",
    ];
    let many = &measured.many;
    let title = format!("{} tenants at random", options.tenants);
    report.table(&title, &header, many.iter().map(row).collect())?;
    let title = format!("{FEW} tenants, before and after");
    report.table(&title, &header, measured.few.iter().map(row).collect())?;
    let (Some(half), Some(end)) = (many.get(many.len() / 2), many.last()) else {
        return Err("too short to see anything".into());
    };
    let p99 = |points: &[Point]| median(points.iter().map(|point| point.summary.p99_ms));
    // The first half is the warming up.
    let (many_p99, few_p99) = (p99(&many[many.len() / 2..]), p99(&measured.few));
    let (hot, hundred) = (
        median(measured.hot.iter().copied()),
        median(measured.hundred.iter().copied()),
    );
    let figures = [
        ("p99_ms", many_p99),
        ("p99_few_ms", few_p99),
        ("p99_ratio", many_p99 / few_p99),
        ("pg_memory_mb_half", half.pg_mb),
        ("pg_memory_mb_end", end.pg_mb),
        ("rss_mb_half", half.rss_mb),
        ("rss_mb_end", end.rss_mb),
        ("hot_rps", hot),
        ("random100_rps", hundred),
    ];
    for (name, value) in figures {
        report.figure(name, value);
    }
    let rows = [
        ("one tenant", hot),
        (&format!("{HUNDRED} at random"), hundred),
    ];
    let rows = rows.map(|(name, rate)| vec![name.to_owned(), format!("{rate:.0}")]);
    report.table("Binding: one device by its id", &["", "per s"], rows.into())?;
    report.text(&format!(
        "\np99 of the second half: {many_p99:.2} ms, {:.2} × that of {FEW} tenants.",
        many_p99 / few_p99
    ))
}
