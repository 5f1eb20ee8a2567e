//! The end of a tenant: everything that is its own is erased, in small steps, and a certificate is left.
//!
//! Each step is one transaction under the tenant's row lock and finds for itself what is left to do, so whoever comes
//! after a crash goes on, and two at once do no harm.

use super::lifecycle::{enter, lock, lock_role, refused};
use super::log::Act;
use crate::clock::Timestamp;
use crate::database::{Database, PlatformTx, Tenant, identifier};
use crate::error::{Error, Result};
use crate::media::store::{MAX_LINK, Store};
use chrono::TimeDelta;
use entity::platform::tenant::{ActiveModel, Column, Entity, State};
use entity::platform::{domain, erasure};
use futures::{StreamExt as _, TryStreamExt as _};
use sea_orm::sea_query::{Expr, ExprTrait as _, LockType};
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _,
    QueryFilter as _, QuerySelect as _, Set, Statement,
};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Jobs removed in one transaction.
const JOBS: u64 = 5_000;
/// Pages up to which a table's rows are counted; those of a larger one are estimated.
const COUNTED: i64 = 50_000;
/// How long a request that was begun before may go on, and sign a link.
const UNDER_WAY: Duration = Duration::from_mins(5);
/// How long a step is tried again while somebody holds a lock on what it drops.
const BUSY: Duration = Duration::from_mins(2);

/// Refuses a tenant that is in use.
pub fn check(tenant: &Tenant) -> Result<()> {
    match tenant.state {
        State::Archived | State::Provisioning | State::Deleting => Ok(()),
        State::Active | State::Suspended => Err(refused(tenant, "deleted")),
    }
}

/// Begins the erasure of an archived tenant, or of one that was never finished. From here on nothing brings it back.
pub async fn begin(database: &Database, slug: &str, act: &Act) -> Result<Tenant> {
    let tx = database.platform().await?;
    let tenant = lock(&tx, slug).await?;
    if tenant.state == State::Deleting {
        return Ok(tenant);
    }
    check(&tenant)?;
    let tenant = enter(&tx, tenant, State::Deleting, act).await?;
    lock_role(&tx, &tenant).await?;
    let certificate = erasure::ActiveModel {
        tenant_id: Set(tenant.id),
        slug: Set(tenant.slug.clone()),
        name: Set(tenant.name.clone()),
        schema_name: Set(tenant.schema_name.clone()),
        requested_by: Set(act.operator.clone()),
        reason: Set(act.reason.clone()),
        started_at: Set(tx.now()),
        ..Default::default()
    };
    certificate.insert(&tx).await?;
    tx.commit().await?;
    Ok(tenant)
}

/// Goes on with an erasure to its end, and returns the certificate. `told` hears of each step.
pub async fn go_on(
    database: &Database,
    store: &Store,
    id: Uuid,
    told: impl Fn(&str),
) -> Result<erasure::Model> {
    while let Some(table) = patiently(database, id, Part::Table).await? {
        told(&format!("dropped {table}"));
    }
    patiently(database, id, Part::Schema).await?;
    told("dropped schema and role");
    for table in ["job", "job_done"] {
        while remove_jobs(database, id, table).await? == JOBS {
            told("removed jobs");
        }
    }
    told("removed jobs");
    remove_objects(database, store, id).await?;
    told("removed media");
    finish(database, store, id).await
}

/// When no link to upload works any more that a store checks itself, and not we: until then it takes what is sent, and the
/// erasure is not over, nor the slug free.
pub fn links_end(store: &Store, begun: Timestamp) -> Option<Timestamp> {
    store.signer()?;
    Some(begun + TimeDelta::seconds(MAX_LINK.into()) + UNDER_WAY)
}

/// Goes on with the erasures that were begun a while ago and not finished: whoever began them is gone, or works beside this.
pub async fn resume(database: &Database, store: &Store) -> Result<()> {
    let tx = database.platform().await?;
    let found = Entity::find()
        .filter(Column::State.eq(State::Deleting))
        .filter(Column::StateSince.lt(tx.now() - BUSY))
        .all(&tx)
        .await?;
    tx.commit().await?;
    for tenant in found {
        if let Err(error) = go_on(database, store, tenant.id, |_| {}).await {
            tracing::warn!(
                slug = tenant.slug,
                ?error,
                "an erasure cannot go on; it is tried again"
            );
        }
    }
    Ok(())
}

/// The certificates, newest first.
pub async fn certificates(tx: &PlatformTx) -> Result<Vec<erasure::Model>> {
    use sea_orm::QueryOrder as _;
    Ok(erasure::Entity::find()
        .order_by_desc(erasure::Column::StartedAt)
        .all(tx)
        .await?)
}

/// The tenant, its row locked, while there is something of it to erase.
async fn doomed(tx: &PlatformTx, id: Uuid) -> Result<Option<Tenant>> {
    Ok(Entity::find_by_id(id)
        .filter(Column::State.eq(State::Deleting))
        .lock(LockType::NoKeyUpdate)
        .one(tx)
        .await?)
}

/// Drops one table of the schema, and counts what was in it.
async fn next_table(database: &Database, id: Uuid) -> Result<Option<String>> {
    let tx = database.platform().await?;
    let Some(tenant) = doomed(&tx, id).await? else {
        return Ok(None);
    };
    let tables = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT c.relname::text AS name, pg_relation_size(c.oid) / 8192 AS pages,
             greatest(c.reltuples, 0)::bigint AS estimate
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') ORDER BY c.relname LIMIT 1",
        [tenant.schema_name.as_str().into()],
    );
    let Some(row) = tx.query_one_raw(tables).await? else {
        return Ok(None);
    };
    let name: String = row.try_get("", "name")?;
    let table = format!(
        "{}.{}",
        identifier(&tenant.schema_name)?,
        identifier(&name)?
    );
    let pages: i64 = row.try_get("", "pages")?;
    let rows: i64 = if pages > COUNTED {
        row.try_get("", "estimate")?
    } else {
        let count = format!("SELECT count(*) AS rows FROM {table}");
        let count = Statement::from_string(DbBackend::Postgres, count);
        let row = tx.query_one_raw(count).await?;
        row.map_or(Ok(0), |row| row.try_get("", "rows"))?
    };
    tx.batch(&format!("DROP TABLE {table} CASCADE")).await?;
    add(
        &tx,
        id,
        &[(erasure::Column::Tables, 1), (erasure::Column::Rows, rows)],
    )
    .await?;
    tx.commit().await?;
    Ok(Some(name))
}

async fn drop_schema(database: &Database, id: Uuid) -> Result<()> {
    let tx = database.platform().await?;
    let Some(tenant) = doomed(&tx, id).await? else {
        return Ok(());
    };
    let (schema, role) = (
        identifier(&tenant.schema_name)?,
        identifier(&tenant.role_name)?,
    );
    tx.batch(&format!(
        "DROP SCHEMA IF EXISTS {schema} CASCADE; DROP ROLE IF EXISTS {role}"
    ))
    .await?;
    let ledger = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "DELETE FROM migration WHERE schema_name = $1",
        [tenant.schema_name.into()],
    );
    tx.execute_raw(ledger).await?;
    tx.commit().await
}

async fn remove_jobs(database: &Database, id: Uuid, table: &str) -> Result<u64> {
    let tx = database.platform().await?;
    let some = Statement::from_sql_and_values(
        DbBackend::Postgres,
        format!(
            "DELETE FROM {table} WHERE id = ANY (ARRAY(SELECT id FROM {table} WHERE tenant_id = $1 LIMIT {JOBS})) AND tenant_id = $1"
        ),
        [id.into()],
    );
    let removed = tx.execute_raw(some).await?.rows_affected();
    let count = i64::try_from(removed).map_err(Error::internal)?;
    add(&tx, id, &[(erasure::Column::Jobs, count)]).await?;
    tx.commit().await?;
    Ok(removed)
}

/// Removes what is under the tenant's prefix, and the anchors of its history. It is counted first: a removal that was cut short cannot say what it removed.
async fn remove_objects(database: &Database, store: &Store, id: Uuid) -> Result<()> {
    let tx = database.platform().await?;
    let Some(tenant) = doomed(&tx, id).await? else {
        return Ok(());
    };
    tx.commit().await?;
    let (mut objects, mut bytes) = (0, 0);
    let mut listed = store.list(&tenant);
    while let Some(object) = listed.try_next().await? {
        objects += 1;
        bytes += i64::try_from(object.size).map_err(Error::internal)?;
    }
    if tenant.step.is_none() {
        let tx = database.platform().await?;
        let Some(now) = doomed(&tx, id).await? else {
            return Ok(());
        };
        let counted = [
            (erasure::Column::Objects, objects),
            (erasure::Column::Bytes, bytes),
        ];
        if now.step.is_none() {
            add(&tx, id, &counted).await?;
            let mut row: ActiveModel = now.into();
            row.step = Set(Some("counted".to_owned()));
            row.update(&tx).await?;
        }
        tx.commit().await?;
    }
    let all = store.list(&tenant).chain(store.anchors(&tenant));
    let locations = all.map_ok(|object| object.location);
    let mut removed = store.objects().delete_stream(locations.boxed());
    while let Some(removed) = removed.next().await {
        match removed {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let now = database.clock().now();
    store.remove_parts(&tenant, now.into()).await
}

/// The last step: the registry forgets it, and its slug is free. It waits for the end of the tenant's links.
async fn finish(database: &Database, store: &Store, id: Uuid) -> Result<erasure::Model> {
    let tx = database.platform().await?;
    let doomed = doomed(&tx, id).await?;
    let is_over =
        |tenant: &Tenant| links_end(store, tenant.state_since).is_none_or(|end| end < tx.now());
    if doomed.as_ref().is_some_and(is_over) {
        domain::Entity::delete_many()
            .filter(domain::Column::TenantId.eq(id))
            .exec(&tx)
            .await?;
        Entity::delete_by_id(id).exec(&tx).await?;
        let done = erasure::ActiveModel {
            tenant_id: Set(id),
            finished_at: Set(Some(tx.now())),
            ..Default::default()
        };
        let certificate = done.update(&tx).await?;
        let act = Act {
            operator: certificate.requested_by.clone(),
            reason: certificate.reason.clone(),
        };
        let detail = json!({
            "slug": certificate.slug, "tables": certificate.tables, "rows": certificate.rows,
            "jobs": certificate.jobs, "objects": certificate.objects, "bytes": certificate.bytes,
        });
        act.log(&tx, ("tenant.erased", Some(id)), detail).await?;
        tx.notify_tenant(id).await?;
    }
    let certificate = erasure::Entity::find_by_id(id).one(&tx).await?;
    tx.commit().await?;
    certificate.ok_or_else(|| Error::internal("an erasure without a certificate"))
}

async fn add(tx: &PlatformTx, id: Uuid, numbers: &[(erasure::Column, i64)]) -> Result<()> {
    let mut update = erasure::Entity::update_many().filter(erasure::Column::TenantId.eq(id));
    for (column, number) in numbers {
        update = update.col_expr(*column, Expr::col(*column).add(*number));
    }
    update.exec(tx).await?;
    Ok(())
}

/// What a step drops.
#[derive(Clone, Copy, Debug)]
enum Part {
    Table,
    Schema,
}

/// Drops a part, again and again while it is in use; the name of the table it was.
async fn patiently(database: &Database, id: Uuid, part: Part) -> Result<Option<String>> {
    let began = Instant::now();
    loop {
        let done = match part {
            Part::Table => next_table(database, id).await,
            Part::Schema => drop_schema(database, id).await.map(|()| None),
        };
        match done {
            Err(Error::Unavailable | Error::Timeout) if began.elapsed() < BUSY => {
                sleep(Duration::from_millis(500)).await;
            }
            done => return done,
        }
    }
}
