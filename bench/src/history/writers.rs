//! Many who write at once, each now and then, through units of work as the server's.

use super::{Options, Stage};
use crate::Result;
use crate::place::explain;
use bulkhead::actor::Actor;
use bulkhead::error::Error;
use futures::future::try_join_all;
use rand::RngExt as _;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use std::cell::RefCell;
use std::time::{Duration, Instant};
use tokio::time::{sleep, sleep_until};
use uuid::Uuid;

/// How long a write took, in milliseconds.
#[derive(Debug)]
pub(super) struct Waits {
    pub(super) writes: usize,
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// Who writes, how often and how long.
#[derive(Debug)]
pub(super) struct Load {
    /// One for each writer.
    devices: Vec<Uuid>,
    /// Between two writes of a writer, on average.
    pause: Duration,
    time: Duration,
}

impl Load {
    pub(super) async fn of(options: &Options, stage: &Stage<'_>) -> Result<Self> {
        let devices: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM device ORDER BY id LIMIT $1")
            .bind(i64::from(options.writers))
            .fetch_all(&mut stage.connect().await?)
            .await?;
        Ok(Self {
            devices,
            pause: Duration::from_secs(1) * options.writers / options.rate,
            time: Duration::from_secs(options.seconds.into()),
        })
    }

    /// All write to this table, each a row of its own.
    pub(super) async fn run(&self, stage: &Stage<'_>, table: &str) -> Result<Waits> {
        let waits = RefCell::new(Vec::new());
        let until = Instant::now() + self.time;
        let writing = self.devices.iter().map(|device| async {
            // Not all at once at first.
            sleep(self.pause.mul_f64(rand::rng().random())).await;
            while Instant::now() < until {
                let began = Instant::now();
                write(stage, table, *device).await?;
                waits.borrow_mut().push(began.elapsed().as_secs_f64() * 1e3);
                let pause = self.pause.mul_f64(rand::rng().random_range(0.5..1.5));
                sleep_until((began + pause).into()).await;
            }
            Ok::<(), Error>(())
        });
        try_join_all(writing).await.map_err(explain)?;
        let mut waits = waits.into_inner();
        waits.sort_by(f64::total_cmp);
        let at = |hundredths: usize| {
            let rank = (waits.len() * hundredths).div_ceil(100).saturating_sub(1);
            waits.get(rank).copied().unwrap_or(f64::NAN)
        };
        Ok(Waits {
            writes: waits.len(),
            p50: at(50),
            p99: at(99),
        })
    }
}

async fn write(stage: &Stage<'_>, table: &str, device: Uuid) -> Result<(), Error> {
    let by = Actor::System("bench".to_owned()).into();
    let tx = stage
        .app
        .services
        .database
        .write(&stage.tenant, &by)
        .await?;
    let name = format!("Device {}", rand::rng().random::<u32>());
    let update = Statement::from_sql_and_values(
        DbBackend::Postgres,
        format!("UPDATE {table} SET name = $2 WHERE id = $1"),
        [device.into(), name.into()],
    );
    let done = tx.execute_raw(update).await.map_err(Error::from);
    tx.settle(done).await.map(drop)
}
