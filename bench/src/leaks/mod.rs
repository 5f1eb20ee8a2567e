//! `leaks`: tries to make one tenant's answer hold another's data, and shows that it would be seen.

mod after;
mod clients;
mod judge;
mod menu;
mod pooler;
mod savepoints;
mod world;

use crate::place::{Place, explain};
use crate::postgres::{self, Postgres};
use crate::proxy::{Faults, Proxy};
use crate::report::{Report, note};
use crate::server::{self, Server};
use crate::{Common, Result};
use after::After;
use bulkhead::app::App;
use bulkhead::config::Config;
use clap::Args;
use clients::{Load, Tally};
use pooler::Pooler;
use savepoints::Beside;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;
use world::Tenant;

/// Of so many begins one forgets to bind, when that is planted.
const FORGOTTEN: u32 = 5;

/// What `leaks` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Requests
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,
    /// Seconds after which no more requests are sent
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
    /// Requests while a leak is planted, and as many for the control; 0 leaves both out
    #[arg(long, default_value_t = 5000)]
    planted: u64,
    /// Of all random choices [default: another each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Connections of the server, over all tenants
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..))]
    connections: u32,
    /// Cells that the tenants are dealt to: in one, all of them share the connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    cells: u16,
    /// Milliseconds between two sessions of PostgreSQL's that are killed, on average; 0 kills none
    #[arg(long, default_value_t = 300)]
    kill_ms: u64,
    /// Through PgBouncer in transaction mode, which must be installed
    #[arg(long)]
    pooler: bool,
}

/// What all parts of a run have.
#[derive(Debug)]
struct Run {
    program: PathBuf,
    place: Place,
    postgres: Postgres,
    pooler: Option<Pooler>,
    options: Options,
    seed: u64,
}

/// Runs it.
pub(crate) async fn run(options: Options) -> Result<()> {
    let mut report = Report::new(options.common.json);
    let program = server::program(&options.common)?;
    let mut place = Place::new(&options.common)?;
    let seed = options.seed.unwrap_or_else(rand::random);
    note(&format!("seed {seed}; starting PostgreSQL"));
    let postgres = Postgres::start(&mut place, false).await?;
    world::found(&place, options.cells).await?;
    let pooler = if options.pooler {
        Some(Pooler::start(&place, &postgres).await?)
    } else {
        None
    };
    let run = Run {
        program,
        place,
        postgres,
        pooler,
        options,
        seed,
    };
    let found = fuzz(&run, &mut report).await;
    let Run {
        postgres, pooler, ..
    } = run;
    drop(pooler);
    postgres.stop().await?;
    found?;
    report.finish()
}

async fn fuzz(run: &Run, report: &mut Report) -> Result<()> {
    let options = &run.options;
    note("filling the tenants");
    let server = run.serve(None).await?;
    let tenants = world::fill(&server).await?;
    drop(server);
    note(&format!("{} requests", options.requests));
    let (tally, after) = run.part(&tenants, options.requests, None).await?;
    let through = if options.pooler {
        " through PgBouncer"
    } else {
        ""
    };
    let title = format!(
        "Leaks{through}, {} connections, seed {}",
        options.connections, run.seed
    );
    tell(report, &title, &tally, &after)?;
    report.figure("seconds", tally.seconds);
    report.count("requests", tally.requests);
    let foreign = tally.foreign + tally.foreign_units + count(after.foreign_rows);
    report.count("foreign", foreign);
    report.count("idle_in_transaction", count(after.idle_in_transaction));
    report.count("cut", tally.cut);
    report.count("killed", tally.killed);
    report.count("unanswered", tally.unanswered);
    report.count("jobs", count(after.jobs));
    report.count("savepoints", tally.savepoints);
    let unanswered = after.answered.1 - after.answered.0;
    report.count("unanswered_afterwards", u64::try_from(unanswered)?);
    if options.planted > 0 {
        planted(run, &tenants, report).await?;
    }
    if tally.savepoints == 0 {
        return Err("no savepoint came to its end".into());
    }
    match foreign + count(after.idle_in_transaction) + u64::try_from(unanswered)? {
        0 => Ok(()),
        _ => Err(format!(
            "the tenants are not apart, or the pool is not whole: seed {}",
            run.seed
        )
        .into()),
    }
}

/// The same with faults planted: bindings forgotten, which must do nothing; and then with bindings that last as well.
async fn planted(run: &Run, tenants: &[Tenant], report: &mut Report) -> Result<()> {
    let faults = |session| Faults {
        session,
        forgotten: FORGOTTEN,
        seed: run.seed,
    };
    let mut found = Vec::new();
    for (name, session) in [
        ("control: bindings forgotten", false),
        ("planted: and those that last", true),
    ] {
        note(name);
        let requests = run.options.planted;
        let (tally, after) = run.part(tenants, requests, Some(faults(session))).await?;
        tell(report, name, &tally, &after)?;
        let rows = if session {
            0
        } else {
            count(after.foreign_rows)
        };
        found.push((tally.foreign + rows, tally.foreign_units));
    }
    report.count("control_found", found[0].0 + found[0].1);
    report.count("planted_found", found[1].0);
    report.count("planted_found_units", found[1].1);
    match found[..] {
        [(0, 0), (answers, units)] if answers > 0 && units > 0 => Ok(()),
        _ => Err(format!(
            "in answers and units of work the fuzzer saw {found:?} leaks where it is to see none and some"
        )
        .into()),
    }
}

impl Run {
    /// Where PostgreSQL is asked, with what lies before it.
    fn port(&self, proxy: Option<&Proxy>) -> u16 {
        let pooler = self.pooler.as_ref().map(|pooler| pooler.port);
        let port = pooler.unwrap_or(self.postgres.port());
        proxy.map_or(port, |proxy| proxy.port)
    }

    /// The library, set as the server is.
    async fn app(&self, proxy: Option<&Proxy>) -> Result<App> {
        let url = |port| postgres::url(port).map(Into::into);
        let direct_url = match self.pooler {
            Some(_) => Some(url(self.postgres.port())?),
            None => None,
        };
        let config = Config {
            database_url: Some(url(self.port(proxy))?),
            max_connections: self.options.connections,
            cells: self.options.cells,
            pooler: self.pooler.is_some(),
            direct_url,
            ..Config::default()
        };
        self.place.app_with(config).await
    }

    /// The server, with what lies between it and PostgreSQL.
    async fn serve(&self, proxy: Option<&Proxy>) -> Result<Server> {
        let direct = self.postgres.port();
        let port = self.port(proxy);
        let mut variables = vec![
            ("DATABASE_URL", postgres::url(port)?),
            (
                "BULKHEAD_MAX_CONNECTIONS",
                self.options.connections.to_string(),
            ),
            ("BULKHEAD_CELLS", self.options.cells.to_string()),
        ];
        if self.pooler.is_some() {
            variables.push(("BULKHEAD_POOLER", "true".to_owned()));
            variables.push(("BULKHEAD_DIRECT_URL", postgres::url(direct)?));
        }
        Server::run(
            &self.program,
            &self.place,
            &["serve", "--worker"],
            &variables,
        )
        .await
    }

    /// One server, with faults or without, its requests, and what holds afterwards.
    async fn part(
        &self,
        tenants: &[Tenant],
        requests: u64,
        faults: Option<Faults>,
    ) -> Result<(Tally, After)> {
        let proxy = match faults {
            Some(faults) => Some(Proxy::start(self.port(None), faults).await?),
            None => None,
        };
        let mut server = self.serve(proxy.as_ref()).await?;
        let beside = Beside::new(self.app(proxy.as_ref()).await?).await?;
        let load = Load {
            requests,
            time: Duration::from_secs(self.options.seconds),
            seed: self.seed,
            kill: Duration::from_millis(self.options.kill_ms),
        };
        let address = server.address();
        let tally = clients::run((&address, &beside), tenants, &self.postgres, load).await?;
        if faults.is_none() {
            beside.look().await?;
        }
        beside.app.stop().await.map_err(explain)?;
        if server.ended() {
            return Err("the server ended by itself".into());
        }
        let after = after::look(&server.address(), tenants, &self.postgres).await?;
        if let Some(proxy) = proxy {
            let faults = proxy.seen.faults.load(Ordering::Relaxed);
            note(&format!("{faults} faults planted"));
        }
        Ok((tally, after))
    }
}

/// A count of PostgreSQL's, which is none below zero.
fn count(number: i64) -> u64 {
    number.unsigned_abs()
}

fn tell(report: &Report, title: &str, tally: &Tally, after: &After) -> Result<()> {
    let row = |name: &str, number: u64| vec![name.to_owned(), number.to_string()];
    let mut rows = vec![
        row("requests", tally.requests),
        row("of which cut by the client", tally.cut),
        row("without an answer", tally.unanswered),
        row("sessions of PostgreSQL's killed", tally.killed),
        row("units of work beside them", tally.units),
        row("their savepoints", tally.savepoints),
        row("answers with what is another's", tally.foreign),
        row("and of what the units read", tally.foreign_units),
        row("rows afterwards", count(after.rows)),
        row("rows with what is another's", count(after.foreign_rows)),
        row("jobs that ended", count(after.jobs)),
        row(
            "sessions left idle in transaction",
            count(after.idle_in_transaction),
        ),
        row("sessions of the server's", u64::try_from(after.sessions)?),
    ];
    let (answered, asked) = after.answered;
    rows.push(vec![
        "answered afterwards".to_owned(),
        format!("{answered} of {asked}"),
    ]);
    for (code, times) in &tally.codes {
        rows.push(row(&format!("answer: {code}"), *times));
    }
    report.table(&format!("{title}: {:.0} s", tally.seconds), &["", ""], rows)?;
    for found in &tally.evidence {
        report.text(&format!("\n{found}"))?;
    }
    Ok(())
}
