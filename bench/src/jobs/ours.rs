//! Our queue: workers of this process on a PostgreSQL of its own.

use super::kinds::{self, LongRest, Noop, Rest, Stamp, notes};
use crate::Result;
use crate::place::{Place, explain};
use crate::postgres::Postgres;
use crate::stats::percentile;
use bulkhead::actor::Actor;
use bulkhead::app::App;
use bulkhead::config::Config;
use bulkhead::database::Tenant;
use bulkhead::jobs::{self, Job, Worker};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// An id in the order of time, as a job that is added has it.
const ID: &str =
    "(lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') || '7'
    || left(md5(random()::text), 3) || '8' || left(md5(random()::text), 15))::uuid";
/// How long nothing may happen.
const STALL: Duration = Duration::from_mins(2);

/// The queue, its tenants, and a second way to it.
pub(super) struct Ours<'a> {
    pub(super) place: &'a Place,
    pub(super) app: &'a App,
    pub(super) tenants: Vec<Arc<Tenant>>,
    superuser: PgConnection,
}

impl<'a> Ours<'a> {
    pub(super) async fn new(place: &'a Place, app: &'a App, postgres: &Postgres) -> Result<Self> {
        let tx = app.services.database.platform().await.map_err(explain)?;
        let tenants = bulkhead::tenancy::all(&tx).await.map_err(explain)?;
        tx.commit().await.map_err(explain)?;
        let mut superuser = postgres.connect().await?;
        superuser
            .execute("SET search_path TO bulkhead, pg_temp")
            .await?;
        Ok(Self {
            place,
            app,
            tenants: tenants.into_iter().map(Arc::new).collect(),
            superuser,
        })
    }

    /// Adds so many jobs, dealt to the first tenants in turn.
    pub(super) async fn fill<J: Job>(&mut self, job: &J, jobs: u32, tenants: usize) -> Result<()> {
        let ids: Vec<String> = self.tenants[..tenants]
            .iter()
            .map(|tenant| format!("'{}'", tenant.id))
            .collect();
        let args = serde_json::to_string(job)?;
        let fill = format!(
            "INSERT INTO job (id, lane, tenant_id, kind, args, max_attempts, timeout_ms, actor)
             SELECT {ID}, l.id, l.tenant_id, '{}', '{args}', 8, 60000, 'system:bench'
             FROM generate_series(0, {jobs} - 1) n JOIN (
                 SELECT id, tenant_id, row_number() OVER (ORDER BY id) - 1 AS place FROM lane
                 WHERE queue = 'default' AND tenant_id IN ({})) l ON l.place = n % {tenants}
             ORDER BY n",
            J::NAME,
            ids.join(", ")
        );
        self.superuser
            .execute(sqlx::raw_sql(AssertSqlSafe(fill)))
            .await?;
        self.superuser.execute("VACUUM ANALYZE job").await?;
        Ok(())
    }

    pub(super) async fn sql(&mut self, sql: &str) -> Result<()> {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        self.superuser.execute(sql).await?;
        Ok(())
    }

    pub(super) async fn count(&mut self, sql: &str) -> Result<i64> {
        let sql = AssertSqlSafe(sql.to_owned());
        Ok(sqlx::query_scalar(sql)
            .fetch_one(&mut self.superuser)
            .await?)
    }

    /// A server of its own with a worker.
    pub(super) async fn worker(&self, concurrency: u32, prefetch: u32) -> Result<(App, Worker)> {
        let app = self.server(concurrency, prefetch).await?;
        let worker = Worker::start(Arc::clone(&app.services), kinds::all()).await;
        Ok((app, worker))
    }

    async fn server(&self, concurrency: u32, prefetch: u32) -> Result<App> {
        let config = Config {
            worker_concurrency: concurrency,
            worker_prefetch: prefetch,
            ..Config::default()
        };
        self.place.app_with(config).await
    }

    /// Jobs per second until all are over, from the start of the workers.
    pub(super) async fn drain(&mut self, jobs: u32, tenants: usize, prefetch: u32) -> Result<f64> {
        self.sql("TRUNCATE job_done").await?;
        self.fill(&Noop {}, jobs, tenants).await?;
        notes().clear();
        let app = self.server(8, prefetch).await?;
        let began = Instant::now();
        let worker = Worker::start(Arc::clone(&app.services), kinds::all()).await;
        // To look at the table takes time from those who work on it.
        while notes().runs() < u64::from(jobs) && began.elapsed() < STALL {
            sleep(Duration::from_millis(1)).await;
        }
        self.until_over().await?;
        let rate = f64::from(jobs) / began.elapsed().as_secs_f64();
        worker.stop().await;
        app.stop().await.map_err(explain)?;
        Ok(rate)
    }

    /// Waits until no job is left, as long as any comes to its end.
    pub(super) async fn until_over(&mut self) -> Result<()> {
        let left = "SELECT count(*) FROM (SELECT FROM job LIMIT 1) j";
        let (mut runs, mut since) = (0, Instant::now());
        while self.count(left).await? > 0 {
            if notes().runs() > runs {
                (runs, since) = (notes().runs(), Instant::now());
            } else if since.elapsed() > STALL {
                return Err("jobs are left, and nobody runs them".into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Milliseconds from the commit to the start of each of so many jobs of a tenant, at this pace; sorted.
    pub(super) async fn waits(&self, tenant: usize, jobs: u32, gap: Duration) -> Result<Vec<f64>> {
        let mut committed = Vec::new();
        let actor = Actor::System("bench".to_owned());
        for number in 0..u64::from(jobs) {
            let database = &self.app.services.database;
            let by = actor.clone().into();
            let tx = database.write(&self.tenants[tenant], &by).await;
            let tx = tx.map_err(explain)?;
            jobs::enqueue(&tx, &Stamp { number })
                .await
                .map_err(explain)?;
            tx.commit().await.map_err(explain)?;
            committed.push(Instant::now());
            sleep(gap).await;
        }
        let mut waits = Vec::new();
        for (number, committed) in (0..).zip(committed) {
            let deadline = Instant::now() + Duration::from_mins(1);
            let started = loop {
                if let Some(started) = notes().started(number) {
                    break started;
                }
                if Instant::now() > deadline {
                    return Err("a job was not started within a minute".into());
                }
                sleep(Duration::from_millis(1)).await;
            };
            // One may start before its commit is known here.
            waits.push(started.saturating_duration_since(committed).as_secs_f64() * 1e3);
        }
        waits.sort_by(f64::total_cmp);
        Ok(waits)
    }

    /// Jain's index of what each tenant got for its weight, by count or by seconds, while all of them have jobs.
    pub(super) async fn shares(&mut self, time: bool) -> Result<f64> {
        self.sql("TRUNCATE job_done; DELETE FROM job; UPDATE lane SET weight = 1, vtime = 0")
            .await?;
        let weights: [f64; 3] = if time { [1.0; 3] } else { [1.0, 2.0, 4.0] };
        for (tenant, weight) in weights.into_iter().enumerate() {
            let id = self.tenants[tenant].id;
            self.sql(&format!(
                "UPDATE lane SET weight = {weight} WHERE tenant_id = '{id}'"
            ))
            .await?;
        }
        notes().clear();
        self.fill(&Rest { ms: 2 }, 9_000, 3).await?;
        if time {
            // One tenant's jobs take five times as long as the others'.
            let long = serde_json::to_string(&LongRest { ms: 10 })?;
            let id = self.tenants[0].id;
            let kind = LongRest::NAME;
            self.sql(&format!(
                "UPDATE job SET kind = '{kind}', args = '{long}' WHERE tenant_id = '{id}'"
            ))
            .await?;
        }
        let (app, worker) = self.worker(8, super::AHEAD).await?;
        while notes().runs() < 2_500 {
            sleep(Duration::from_millis(5)).await;
        }
        let got: Vec<f64> = (0..3)
            .map(|tenant| {
                let (runs, seconds) = notes().of(self.tenants[tenant].id);
                #[expect(clippy::cast_precision_loss, reason = "a count of runs")]
                let runs = runs as f64;
                if time {
                    seconds
                } else {
                    runs / weights[tenant]
                }
            })
            .collect();
        worker.stop().await;
        app.stop().await.map_err(explain)?;
        self.sql("DELETE FROM job; UPDATE lane SET weight = 1")
            .await?;
        Ok(jain(&got))
    }

    /// Milliseconds of a claim of 16 among so many ready jobs in 10,000 lanes, each time. The last of all: it leaves them there.
    pub(super) async fn claims(&mut self, ready: u32) -> Result<Vec<f64>> {
        self.sql(&format!(
            "INSERT INTO lane (queue) SELECT 'q' || n FROM generate_series(1, 10000) n;
             INSERT INTO job (id, lane, kind, args, max_attempts, timeout_ms, actor)
             SELECT gen_random_uuid(), l.id, 'bench.noop', '{{}}', 8, 60000, 'system:bench'
             FROM lane l, generate_series(1, {ready} / 10000) n WHERE l.queue LIKE 'q%'; ANALYZE job; ANALYZE lane"
        ))
        .await?;
        let mut times = Vec::new();
        for round in 0..60 {
            let sql = format!(
                "SELECT count(*) FROM take_jobs(gen_random_uuid(), ARRAY(SELECT id FROM lane WHERE queue LIKE 'q%' ORDER BY id
                     OFFSET {} LIMIT 32), 16, NULL, '{{\"\": 0.01}}', '{{}}') WHERE id IS NOT NULL",
                round * 32
            );
            // The hint comes from memory: it is not what is measured.
            let hint = format!("SELECT count(*) FROM lane WHERE queue LIKE 'q%' AND id > {round}");
            let before = Instant::now();
            self.count(&hint).await?;
            let hint = before.elapsed();
            let began = Instant::now();
            if self.count(&sql).await? != 16 {
                return Err("a claim of 16 got others than 16".into());
            }
            times.push(began.elapsed().saturating_sub(hint).as_secs_f64() * 1e3);
        }
        // The first ones make the plans.
        Ok(times.split_off(10))
    }
}

/// Jain's index: 1 if all got the same, 1/n if one got all.
pub(super) fn jain(got: &[f64]) -> f64 {
    let sum: f64 = got.iter().sum();
    let squares: f64 = got.iter().map(|got| got * got).sum();
    #[expect(clippy::cast_precision_loss, reason = "three or so")]
    let count = got.len() as f64;
    sum * sum / (count * squares)
}

/// The value that this many hundredths of the sorted values do not exceed.
pub(super) fn at(sorted: &[f64], hundredths: usize) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "microseconds of at most a minute"
    )]
    let micros: Vec<u32> = sorted.iter().map(|ms| (ms * 1e3) as u32).collect();
    f64::from(percentile(&micros, hundredths)) / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_one_if_all_got_the_same() {
        assert!((jain(&[2.0, 2.0, 2.0]) - 1.0).abs() < 1e-9);
        assert!((jain(&[3.0, 0.0, 0.0]) - 1.0 / 3.0).abs() < 1e-9);
        assert!((at(&[1.0, 2.0, 3.0, 4.0], 50) - 2.0).abs() < 1e-9);
    }
}
