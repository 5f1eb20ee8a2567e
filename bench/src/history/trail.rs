//! A long trail: made, sealed, verified, and read as of a moment.

use super::Stage;
use crate::Result;
use crate::place::explain;
use crate::stats::median;
use bulkhead::clock::Timestamp;
use bulkhead::error::Error;
use bulkhead::history::{as_of, seal, version};
use entity::tenant::device;
use rand::RngExt as _;
use sea_orm::{EntityTrait as _, QueryOrder as _, QuerySelect as _};
use sqlx::{AssertSqlSafe, Executor as _};
use std::slice::from_ref;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use uuid::Uuid;

/// Entries of an object in the long trail.
const OF_ONE: u32 = 10;
/// Objects whose entries are one transaction.
const AT_ONCE: u32 = 1_000;
/// Reads of each kind that are timed.
const READS: usize = 200;
/// A page as the API gives it, and one row that says whether there are more.
const PAGE: u64 = 21;
/// How long sealing may lag.
const PATIENCE: Duration = Duration::from_mins(10);

/// Waits until everything is sealed.
pub(super) async fn all_sealed(stage: &Stage<'_>) -> Result<()> {
    let database = &stage.app.services.database;
    let mut connection = stage.connect().await?;
    let began = Instant::now();
    loop {
        let there: i64 = sqlx::query_scalar("SELECT count(*) FROM history")
            .fetch_one(&mut connection)
            .await?;
        let sealed = seal::sealed(database, from_ref(&stage.tenant)).await;
        if sealed.map_err(explain)? == u64::try_from(there)? {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err("the history is not sealed in time".into());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What verifying found.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) entries: i64,
    /// In a second.
    pub(super) rate: f64,
}

/// Verifies all of it; an error if something is wrong, or not sealed.
pub(super) async fn verify(stage: &Stage<'_>) -> Result<Verified> {
    let services = &stage.app.services;
    let places = (&services.database, &services.store);
    let began = Instant::now();
    let verified = seal::verify(places, &stage.keys, &stage.tenant, |_| ()).await;
    let seconds = began.elapsed().as_secs_f64();
    let verified = verified.map_err(explain)?;
    if verified.fault.is_some() || verified.unsealed > 0 {
        return Err(format!("the history is not whole: {verified:?}").into());
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of entries")]
    let rate = verified.entries as f64 / seconds;
    Ok(Verified {
        entries: verified.entries,
        rate,
    })
}

/// Adds devices by so many entries as ten changes of each leave: one that makes it, nine that rename it.
pub(super) async fn fill(stage: &Stage<'_>, entries: u32) -> Result<()> {
    let sql = format!(
        "INSERT INTO history (id, recorded_at, subject_type, subject_id, action, row, before, changed, transaction_id, actor)
         SELECT gen_random_uuid(), now() - interval '1 day' + n * interval '1 minute' + d.number * interval '10 us', 'device', d.id,
             CASE n WHEN 0 THEN 'create' ELSE 'update' END,
             to_jsonb(e) - 'pin_hash' || jsonb_build_object('id', d.id, 'client_id', d.id, 'name', 'Name ' || n, 'version', n + 1),
             CASE n WHEN 0 THEN '{{}}' ELSE jsonb_build_object('name', 'Name ' || n - 1) END,
             CASE n WHEN 0 THEN '{{}}' ELSE ARRAY['name'] END, txid_current(), 'system:bench'
         FROM (SELECT number, gen_random_uuid() AS id FROM generate_series(1, $1) number) d,
             (SELECT * FROM device LIMIT 1) e, generate_series(0, {OF_ONE} - 1) n"
    );
    let mut connection = stage.connect().await?;
    let mut devices = entries.div_ceil(OF_ONE);
    while devices > 0 {
        let some = devices.min(AT_ONCE);
        sqlx::query(AssertSqlSafe(sql.clone()))
            .bind(i32::try_from(some)?)
            .execute(&mut connection)
            .await?;
        devices -= some;
    }
    connection.execute("VACUUM ANALYZE history").await?;
    Ok(())
}

/// Seals what there is; entries in a second.
pub(super) async fn seal(stage: &Stage<'_>) -> Result<f64> {
    let database = &stage.app.services.database;
    let sealed = async || seal::sealed(database, from_ref(&stage.tenant)).await;
    let before = sealed().await.map_err(explain)?;
    let began = Instant::now();
    while seal::seal(database, &stage.keys, &stage.tenant)
        .await
        .map_err(explain)?
    {}
    let seconds = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a count of entries")]
    let count = (sealed().await.map_err(explain)? - before) as f64;
    Ok(count / seconds)
}

/// Milliseconds, the median of each.
#[derive(Debug)]
pub(super) struct Reads {
    /// One object.
    pub(super) one: f64,
    /// A page of the list.
    pub(super) page: f64,
}

/// Reads devices as of moments within the long trail.
pub(super) async fn as_of_moments(stage: &Stage<'_>) -> Result<Reads> {
    let some = "SELECT subject_id, recorded_at FROM history TABLESAMPLE SYSTEM (5)
        WHERE subject_type = 'device' AND row ->> 'name' LIKE 'Name %' LIMIT 2000";
    let moments: Vec<(Uuid, Timestamp)> = sqlx::query_as(some)
        .fetch_all(&mut stage.connect().await?)
        .await?;
    if moments.is_empty() {
        return Err("there is nothing to read".into());
    }
    let (mut one, mut page) = (Vec::new(), Vec::new());
    for _ in 0..READS {
        let (subject, at) = moments[rand::rng().random_range(0..moments.len())];
        one.push(object(stage, subject, at).await.map_err(explain)?);
        page.push(list(stage, at).await.map_err(explain)?);
    }
    Ok(Reads {
        one: median(one),
        page: median(page),
    })
}

async fn object(stage: &Stage<'_>, subject: Uuid, at: Timestamp) -> Result<f64, Error> {
    let tx = stage.app.services.database.read(&stage.tenant).await?;
    let began = Instant::now();
    let found = version(&tx, subject, at).await;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    let found = tx.settle(found).await?;
    found.map(|_| ms).ok_or(Error::NotFound("device"))
}

async fn list(stage: &Stage<'_>, at: Timestamp) -> Result<f64, Error> {
    let tx = stage.app.services.database.read(&stage.tenant).await?;
    let page = as_of(device::Entity::find(), Some(at))
        .order_by_desc(device::Column::Id)
        .limit(PAGE);
    let began = Instant::now();
    let found = page.all(&tx).await.map_err(Error::from);
    let ms = began.elapsed().as_secs_f64() * 1e3;
    tx.settle(found).await.map(|_| ms)
}
