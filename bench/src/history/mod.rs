//! `history`: what the trail costs whoever writes, beside the same table without it and beside a peer; what its chain costs writers
//! at once; how fast it is verified; and how soon it says what was.

mod cost;
mod peer;
mod trail;
mod writers;

use crate::place::{Place, explain};
use crate::population;
use crate::postgres::Postgres;
use crate::report::{Report, note};
use crate::stats::median;
use crate::{Common, Result};
use bulkhead::app::App;
use bulkhead::database::Tenant;
use bulkhead::history::seal::{Keys, Sealer};
use clap::Args;
use cost::Costs;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use std::sync::Arc;
use writers::Load;

/// What `history` can be told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Each cost is the median of so many, in turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Updates of one row in a round
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(10..))]
    updates: u32,
    /// Rows that one statement updates
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..))]
    bulk: u32,
    /// Writers at once
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    writers: u32,
    /// Writes in a second of all of them
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Seconds that they write, of each kind
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Entries of a trail that is verified and read
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    entries: u32,
    /// What measures a peer on this server, e.g. "python bench/peers/django_history.py": it is told by `PG…` where, and by
    /// `BENCH_…` how much, and says {"name": …, "row_us": …, "bulk_ms": …}
    #[arg(long, value_name = "COMMAND")]
    peer: Option<String>,
}

/// Where it is measured: one tenant, and a table of it that has no history.
pub(crate) struct Stage<'a> {
    app: &'a App,
    postgres: &'a Postgres,
    tenant: Arc<Tenant>,
    keys: Keys,
}

/// The tables: the one with a history, and its like without.
const TABLES: [&str; 2] = ["device_plain", "device"];

/// Runs it.
pub(crate) async fn run(options: Options) -> Result<()> {
    let mut report = Report::new(options.common.json);
    let mut place = Place::new(&options.common)?;
    note("starting PostgreSQL");
    let postgres = Postgres::start(&mut place, true).await?;
    let done = with(&options, &place, &postgres, &mut report).await;
    postgres.stop().await?;
    done?;
    report.finish()
}

async fn with(
    options: &Options,
    place: &Place,
    postgres: &Postgres,
    report: &mut Report,
) -> Result<()> {
    let app = place.app().await?;
    let measured = async {
        let stage = Stage::new(&app, postgres, options.bulk.max(options.writers)).await?;
        let version = postgres.version();
        report.text(&format!("PostgreSQL {version}, durable (fsync on)"))?;
        costs(options, &stage, report).await?;
        writing(options, &stage, report).await?;
        reading(options, &stage, report).await
    };
    let measured: Result<()> = Box::pin(measured).await;
    app.stop().await.map_err(explain)?;
    measured
}

impl<'a> Stage<'a> {
    /// Makes the tenant, so many devices, and their like.
    async fn new(app: &'a App, postgres: &'a Postgres, devices: u32) -> Result<Self> {
        population::make(app, 0..1).await?;
        let tx = app.services.database.platform().await.map_err(explain)?;
        let tenant = bulkhead::tenancy::by_slug(&tx, &population::slug(0)).await;
        tx.commit().await.map_err(explain)?;
        let tenant = tenant.map_err(explain)?.ok_or("the tenant is not there")?;
        let services = &app.services;
        let stage = Self {
            app,
            postgres,
            tenant: Arc::new(tenant),
            keys: Keys::of(&services.config, &services.key).map_err(explain)?,
        };
        let role = &stage.tenant.role_name;
        let sql = format!(
            "INSERT INTO device (id, name, client_id, pin_hash, created_at, updated_at)
                 SELECT id, 'Device', id::text, 'none', now(), now()
                 FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, {devices})) new;
             CREATE TABLE device_plain (LIKE device INCLUDING ALL);
             INSERT INTO device_plain SELECT * FROM device;
             CREATE TRIGGER touch BEFORE UPDATE ON device_plain FOR EACH ROW EXECUTE FUNCTION bulkhead.touch('last_seen_at');
             GRANT SELECT, UPDATE ON device_plain TO \"{role}\""
        );
        let mut connection = stage.connect().await?;
        connection
            .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
            .await?;
        connection.execute("VACUUM ANALYZE").await?;
        Ok(stage)
    }

    /// A connection in the tenant's schema, as the superuser.
    async fn connect(&self) -> Result<PgConnection> {
        let mut connection = self.postgres.connect().await?;
        let bind = format!(
            "SET search_path TO {}, pg_temp; SET bulkhead.actor = 'system:bench'",
            self.tenant.schema_name
        );
        let bind = sqlx::raw_sql(AssertSqlSafe(bind));
        connection.execute(bind).await?;
        Ok(connection)
    }

    /// Seals from now on, as a worker does, until it is dropped.
    fn sealer(&self) -> Sealer {
        let services = &self.app.services;
        let anchors = (services.store.clone(), services.config.audit_anchor_minutes);
        Sealer::start(services.database.clone(), self.keys.clone(), anchors)
    }
}

async fn costs(options: &Options, stage: &Stage<'_>, report: &mut Report) -> Result<()> {
    let sealer = stage.sealer();
    let costs = Costs::measure(options, stage).await?;
    drop(sealer);
    let [row, durable, bulk] = [&costs.row_us, &costs.durable_us, &costs.bulk_ms]
        .map(|pair| pair.each_ref().map(|times| median(times.iter().copied())));
    report.figure("row_ratio", row[1] / row[0]);
    report.figure("row_ratio_durable", durable[1] / durable[0]);
    report.figure("bulk_ratio", bulk[1] / bulk[0]);
    let line = |name: &str, [plain, kept]: [f64; 2], unit: &str| {
        vec![
            name.to_owned(),
            format!("{plain:.1} {unit}"),
            format!("{kept:.1} {unit}"),
            format!("{:.2} ×", kept / plain),
        ]
    };
    let rows = vec![
        line("one row, its commit not waited for", row, "µs"),
        line("one row, durable", durable, "µs"),
        line(&format!("{} rows", options.bulk), bulk, "ms"),
    ];
    let header = ["update of", "no history", "history, sealed beside", "costs"];
    report.table("What the history costs", &header, rows)?;
    let Some(command) = &options.peer else {
        return Ok(());
    };
    note("measuring the peer");
    let peer = peer::measure(command, options, stage).await?;
    let [row, bulk] = [peer.row_us / durable[1], peer.bulk_ms / bulk[1]];
    report.figure(&format!("row_x_{}", peer.name), row);
    report.figure(&format!("bulk_x_{}", peer.name), bulk);
    report.text(&format!(
        "{}: {:.1} µs for one row, durable ({row:.1} × ours), {:.1} ms for {} ({bulk:.1} × ours)",
        peer.name, peer.row_us, peer.bulk_ms, options.bulk
    ))
}

async fn writing(options: &Options, stage: &Stage<'_>, report: &mut Report) -> Result<()> {
    let load = Load::of(options, stage).await?;
    let [plain, kept] = TABLES;
    note("writing without a history");
    let alone = load.run(stage, plain).await?;
    note("writing with one");
    let unsealed = load.run(stage, kept).await?;
    note("writing with one that is sealed");
    let sealer = stage.sealer();
    let sealed = load.run(stage, kept).await?;
    trail::all_sealed(stage).await?;
    drop(sealer);
    let verified = trail::verify(stage).await?;
    report.figure("writers_p99_overhead_ms", sealed.p99 - alone.p99);
    report.figure("sealing_p99_overhead_ms", sealed.p99 - unsealed.p99);
    let line = |name: &str, waits: &writers::Waits| {
        vec![
            name.to_owned(),
            waits.writes.to_string(),
            format!("{:.2}", waits.p50),
            format!("{:.2}", waits.p99),
        ]
    };
    let rows = vec![
        line("no history", &alone),
        line("history, not sealed", &unsealed),
        line("history, sealed beside", &sealed),
    ];
    let title = format!(
        "{} writers, {} writes/s, ms from begin to commit",
        options.writers, options.rate
    );
    report.table(&title, &["", "writes", "p50", "p99"], rows)?;
    report.text(&format!(
        "{} entries: no gap, no fork, none missing",
        verified.entries
    ))
}

async fn reading(options: &Options, stage: &Stage<'_>, report: &mut Report) -> Result<()> {
    note(&format!("making {} entries", options.entries));
    stage.postgres.durable(false).await?;
    trail::fill(stage, options.entries).await?;
    stage.postgres.durable(true).await?;
    note("sealing them");
    let rate = trail::seal(stage).await?;
    report.figure("seal_per_s", rate);
    note("verifying them");
    let verified = trail::verify(stage).await?;
    report.figure("verify_per_s", verified.rate);
    let reads = trail::as_of_moments(stage).await?;
    report.figure("as_of_ms", reads.one);
    report.figure("as_of_page_ms", reads.page);
    report.text(&format!(
        "\n{} entries: {rate:.0} sealed in a second, {:.0} verified; as of a moment in {:.2} ms for one object, {:.2} ms for a page of 20",
        verified.entries, verified.rate, reads.one, reads.page
    ))
}
