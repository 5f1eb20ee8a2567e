//! What a write costs with a history and without, by one connection: one row, and many in one statement.

use super::{Options, Stage, TABLES};
use crate::Result;
use crate::report::note;
use rand::RngExt as _;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use std::time::Instant;
use uuid::Uuid;

/// Times without a history and with one, round by round.
#[derive(Debug, Default)]
pub(super) struct Costs {
    /// Of one row whose commit does not wait for the disk: what it costs the processor.
    pub(super) row_us: [Vec<f64>; 2],
    /// Of one row, durable.
    pub(super) durable_us: [Vec<f64>; 2],
    /// Of many rows.
    pub(super) bulk_ms: [Vec<f64>; 2],
}

impl Costs {
    pub(super) async fn measure(options: &Options, stage: &Stage<'_>) -> Result<Self> {
        let mut connection = stage.connect().await?;
        let ids: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM device LIMIT 10000")
            .fetch_all(&mut connection)
            .await?;
        let mut costs = Self::default();
        for round in 1..=options.rounds {
            note(&format!("writing, round {round} of {}", options.rounds));
            for (durable, times) in [(false, &mut costs.row_us), (true, &mut costs.durable_us)] {
                let set = format!("SET synchronous_commit = {durable}");
                connection.execute(AssertSqlSafe(set)).await?;
                for (table, times) in TABLES.into_iter().zip(times) {
                    // The first are not counted: plans are made and pages read.
                    rows(&mut connection, table, &ids, 50).await?;
                    times.push(rows(&mut connection, table, &ids, options.updates).await?);
                }
            }
            for (table, times) in TABLES.into_iter().zip(&mut costs.bulk_ms) {
                times.push(bulk(&mut connection, table, (options.bulk, round)).await?);
            }
            connection.execute("VACUUM").await?;
        }
        Ok(costs)
    }
}

/// Microseconds of one update.
async fn rows(
    connection: &mut PgConnection,
    table: &str,
    ids: &[Uuid],
    updates: u32,
) -> Result<f64> {
    let sql = format!("UPDATE {table} SET name = $2 WHERE id = $1");
    let mut random = rand::rng();
    let began = Instant::now();
    for _ in 0..updates {
        let id = ids[random.random_range(0..ids.len())];
        let name = format!("Device {}", random.random::<u32>());
        sqlx::query(AssertSqlSafe(sql.clone()))
            .bind(id)
            .bind(name)
            .execute(&mut *connection)
            .await?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(updates))
}

/// Milliseconds of one update of many rows.
async fn bulk(
    connection: &mut PgConnection,
    table: &str,
    (rows, round): (u32, u32),
) -> Result<f64> {
    let sql = format!(
        "UPDATE {table} SET name = 'Round {round}' WHERE id = ANY (ARRAY(SELECT id FROM {table} ORDER BY id LIMIT {rows}))"
    );
    let began = Instant::now();
    let done = connection.execute(AssertSqlSafe(sql)).await?;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    if done.rows_affected() != u64::from(rows) {
        return Err(format!("{} rows were changed, not {rows}", done.rows_affected()).into());
    }
    Ok(ms)
}
