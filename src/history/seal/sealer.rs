//! Who seals: a task of each worker process. Which of them comes first does not matter.

use super::{Keys, anchor_due, seal};
use crate::database::{Database, Touched};
use crate::error::Result;
use crate::media::store::Store;
use entity::platform::tenant::{Column, Entity, Model, State};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, QueryFilter as _,
    Statement,
};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;
use tokio::time::sleep;
use uuid::Uuid;

/// How long between two rounds: so old is at most what word of a change came of.
const ROUND: Duration = Duration::from_secs(1);
/// How often it looks for what no word came of: what was written by hand, or before a process was killed.
const LOOK: Duration = Duration::from_secs(3);
/// How often it looks for heads that are to be anchored.
const ANCHOR: Duration = Duration::from_secs(20);

/// How many rows were ever inserted into each history, as PostgreSQL counts them. Found by the name of the tables, which has an
/// index; the count begins anew after a crash, and is another then too.
const COUNTS: &str = "SELECT t.id, pg_stat_get_tuples_inserted(c.oid) AS rows
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN bulkhead.tenant t ON t.schema_name = n.nspname
    WHERE c.relname = 'history' AND c.relkind = 'r'";

/// Seals until it is dropped. Cut off anywhere, it goes on with the next round, here or elsewhere.
#[derive(Debug)]
pub struct Sealer(AbortHandle);

impl Sealer {
    /// Begins.
    #[expect(
        clippy::disallowed_methods,
        reason = "it lives as long as the process, and ends with its handle"
    )]
    pub fn start(database: Database, keys: Keys, (store, minutes): (Store, u32)) -> Self {
        let task = tokio::spawn(async move {
            let anchoring = async {
                loop {
                    sleep(ANCHOR).await;
                    if let Err(error) = anchor_due(&database, &keys, &store, minutes).await {
                        tracing::warn!(
                            ?error,
                            "heads of histories cannot be anchored; it is tried again"
                        );
                    }
                }
            };
            tokio::join!(sealing(&database, &keys), anchoring)
        });
        Self(task.abort_handle())
    }
}

impl Drop for Sealer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn sealing(database: &Database, keys: &Keys) {
    let mut round = Round::default();
    loop {
        if let Err(error) = round.run(database, keys).await {
            tracing::warn!(?error, "histories cannot be sealed; it is tried again");
        }
        sleep(ROUND).await;
    }
}

/// What is known from round to round.
#[derive(Debug, Default)]
struct Round {
    /// What each history had when it was last looked at.
    counts: HashMap<Uuid, i64>,
    looked: Option<Instant>,
    /// To be sealed: again, if it failed.
    due: HashSet<Uuid>,
}

impl Round {
    async fn run(&mut self, database: &Database, keys: &Keys) -> Result<()> {
        match database.touched() {
            Touched::Some(tenants) => self.due.extend(tenants),
            Touched::All => self.counts.clear(),
        }
        if self.counts.is_empty() || self.looked.is_none_or(|at| at.elapsed() > LOOK) {
            self.look(database).await?;
        }
        let due: Vec<Uuid> = self.due.iter().copied().collect();
        for some in due.chunks(100) {
            for tenant in tenants(database, some).await? {
                let (id, slug) = (tenant.id, tenant.slug.clone());
                // One that cannot be sealed now does not hold up the others.
                match seal(database, keys, &Arc::new(tenant)).await {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(?error, slug, "a history is not sealed for now");
                        continue;
                    }
                }
                self.due.remove(&id);
            }
        }
        Ok(())
    }

    /// Those whose histories have grown, or are not known.
    async fn look(&mut self, database: &Database) -> Result<()> {
        let tx = database.platform().await?;
        let counts = Statement::from_string(DbBackend::Postgres, COUNTS);
        let counts = tx.query_all_raw(counts).await?;
        tx.commit().await?;
        for row in counts {
            let (id, rows) = (row.try_get("", "id")?, row.try_get("", "rows")?);
            if self.counts.insert(id, rows) != Some(rows) {
                self.due.insert(id);
            }
        }
        self.looked = Some(Instant::now());
        Ok(())
    }
}

/// Those of these tenants that have a history to be sealed.
async fn tenants(database: &Database, ids: &[Uuid]) -> Result<Vec<Model>> {
    let tx = database.platform().await?;
    let found = Entity::find()
        .filter(Column::Id.is_in(ids.iter().copied()))
        .filter(Column::State.is_in([State::Active, State::Suspended, State::Archived]))
        .all(&tx)
        .await?;
    tx.commit().await?;
    Ok(found)
}
