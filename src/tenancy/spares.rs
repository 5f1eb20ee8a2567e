//! Spares: schemas with role, grants and ledger, made ahead of time, so that a new tenant is a few rows.
//!
//! A spare is a row of `spare` and what it names, made and taken in one transaction each: it is there or not.

use super::home::{self, Furnished, Home};
use super::template;
use crate::database::{Database, PlatformTx};
use crate::error::Result;
use entity::platform::spare;
use sea_orm::{ConnectionTrait as _, DbBackend, EntityTrait as _, QueryResult, Set, Statement};
use std::time::Instant;
use tokio::time::sleep;

/// Spares made in one transaction: they empty the caches of who may take which role once, not one by one. No more, because
/// each takes a hundred locks until the commit.
const BATCH: u32 = 4;
/// How long to rest after a batch, in its own time: so much is left to who is served.
const REST: u32 = 2;
/// Spares that are rehearsed: those that are handed out next.
const REHEARSED: u64 = 16;

/// Makes spares until as many as `up_to` of the newest template are there, and removes those of older ones. Returns how many
/// it made; none if somebody else is at it.
pub async fn fill(database: &Database, up_to: u32) -> Result<u32> {
    let mut made = 0;
    loop {
        let began = Instant::now();
        let work = batch(database, up_to).await?;
        if work == (Work::default()) {
            if made > 0 {
                rehearse(database).await?;
            }
            return Ok(made);
        }
        made += work.made;
        sleep(began.elapsed() * REST).await;
    }
}

/// Writes the first rows of the spares that come next, as a new tenant's are written, and undoes them. PostgreSQL takes longer
/// over a table's first row in a session than over all the rest of onboarding: it reads what the table is, compiles its
/// triggers and plans what they and the foreign keys do. Afterwards this session knows, and it is the one that the pool hands
/// out next for the platform's work. A session that does not know is slower, no more.
async fn rehearse(database: &Database) -> Result<()> {
    let tx = database.platform().await?;
    let next = tx
        .query_all_raw(Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT s.schema_name, s.role_name, s.cell_id, c.login FROM spare s JOIN cell c ON c.id = s.cell_id
             WHERE s.version = (SELECT max(version) FROM template) ORDER BY s.created_at, s.schema_name LIMIT $1",
            [REHEARSED.into()],
        ))
        .await?;
    for row in next {
        home_of(&row)?.rehearse(&tx).await?;
    }
    tx.rollback().await
}

/// Takes a spare of the newest template, if there is one. It is given back if the unit of work does not commit.
pub(super) async fn take(tx: &PlatformTx) -> Result<Option<Home>> {
    let taken = tx
        .query_one_raw(Statement::from_string(
            DbBackend::Postgres,
            "DELETE FROM spare WHERE schema_name = (
                 SELECT schema_name FROM spare WHERE version = (SELECT max(version) FROM template)
                 ORDER BY created_at, schema_name LIMIT 1 FOR UPDATE SKIP LOCKED)
             RETURNING schema_name, role_name, cell_id, (SELECT login FROM cell WHERE id = cell_id) AS login",
        ))
        .await?;
    taken.as_ref().map(home_of).transpose()
}

fn home_of(row: &QueryResult) -> Result<Home> {
    Ok(Home {
        schema: row.try_get("", "schema_name")?,
        role: row.try_get("", "role_name")?,
        cell: row.try_get("", "cell_id")?,
        login: row.try_get("", "login")?,
    })
}

/// What one transaction did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Work {
    made: u32,
    removed: u32,
}

async fn batch(database: &Database, up_to: u32) -> Result<Work> {
    let tx = database.platform().await?;
    // Without a lock first: every second, and seldom is there anything to do.
    if (Counted::now(&tx).await?).is_well(up_to) {
        tx.commit().await?;
        return Ok(Work::default());
    }
    // The template's row is what one filler has at a time, over all servers.
    let Some(template) = template::lock(&tx).await? else {
        return Ok(Work::default());
    };
    tx.relax().await?;
    let counted = Counted::now(&tx).await?;
    let mut work = Work::default();
    if counted.stale > 0 {
        work.removed = remove(&tx, &template.version).await?;
    } else {
        work.made = counted.lacking(up_to).min(BATCH);
        let homes = Home::new(&tx, database.instance(), work.made).await?;
        make(&tx, &template, &homes).await?;
    }
    tx.commit().await?;
    Ok(work)
}

async fn make(tx: &PlatformTx, template: &template::Template, homes: &[Home]) -> Result<()> {
    if homes.is_empty() {
        return Ok(());
    }
    home::build(tx, homes, template, Furnished::WithRoles).await?;
    let rows = homes.iter().map(|home| spare::ActiveModel {
        schema_name: Set(home.schema.clone()),
        role_name: Set(home.role.clone()),
        cell_id: Set(home.cell),
        version: Set(template.version.clone()),
        created_at: Set(tx.now()),
    });
    spare::Entity::insert_many(rows)
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

/// Removes one spare of another template than the newest: to make it anew is as quick as to migrate it, and nobody misses
/// it. One, because dropping takes more locks than making.
async fn remove(tx: &PlatformTx, version: &str) -> Result<u32> {
    let stale = tx
        .query_one_raw(Statement::from_sql_and_values(
            DbBackend::Postgres,
            "DELETE FROM spare WHERE schema_name = (
                 SELECT schema_name FROM spare WHERE version <> $1 LIMIT 1 FOR UPDATE SKIP LOCKED)
             RETURNING schema_name, role_name, cell_id, (SELECT login FROM cell WHERE id = cell_id) AS login",
            [version.into()],
        ))
        .await?;
    let Some(row) = stale else { return Ok(0) };
    tx.batch(&home_of(&row)?.drop_ddl()?).await?;
    Ok(1)
}

/// How many spares there are.
#[derive(Debug)]
struct Counted {
    /// Of the newest template.
    fresh: u32,
    /// Of others.
    stale: u32,
}

impl Counted {
    async fn now(tx: &PlatformTx) -> Result<Self> {
        let row = tx
            .query_one_raw(Statement::from_string(
                DbBackend::Postgres,
                "SELECT count(*) FILTER (WHERE version = newest) AS fresh, count(*) FILTER (WHERE version <> newest) AS stale
                 FROM spare, (SELECT max(version) AS newest FROM template) t",
            ))
            .await?;
        let count = |name| -> Result<u32> {
            let count: i64 = row.as_ref().map_or(Ok(0), |row| row.try_get("", name))?;
            Ok(u32::try_from(count).unwrap_or(u32::MAX))
        };
        Ok(Self {
            fresh: count("fresh")?,
            stale: count("stale")?,
        })
    }

    fn lacking(&self, up_to: u32) -> u32 {
        up_to.saturating_sub(self.fresh)
    }

    fn is_well(&self, up_to: u32) -> bool {
        self.stale == 0 && self.lacking(up_to) == 0
    }
}
