//! A copy of a tenant under a new slug, for staging: its rows as of one moment, without its credentials, and its media.
//!
//! The new tenant is `provisioning` until all of it is there; whoever begins it again goes on where it was cut.

use super::create::create_from;
use super::lifecycle::{enter, lock, refused};
use super::log::Act;
use super::{NewTenant, by_slug};
use crate::actor::{Actor, Attribution};
use crate::database::{Database, TEMPLATE_SCHEMA, Tenant, TenantTx, identifier};
use crate::error::{Error, Result};
use crate::media::store::Store;
use entity::platform::tenant::{ActiveModel, State};
use futures::TryStreamExt as _;
use futures::future::{ready, try_join_all};
use migration::tenant::{CREDENTIALS, EMPTIED};
use sea_orm::{ActiveModelTrait as _, ConnectionTrait as _, DbBackend, Set, Statement};
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;

/// Rows copied by one statement: the history's trigger holds them in memory.
const ROWS: usize = 2_000;
/// Objects copied at once.
const OBJECTS: usize = 8;
/// What a clone has done: its rows are there.
const ROWS_DONE: &str = "rows";

/// The template's tables with their columns, each after those it refers to.
const TABLES: &str = "WITH RECURSIVE ranked AS (
        SELECT c.oid, 0 AS rank FROM pg_catalog.pg_class c
        WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r' AND c.relname <> 'history'
        UNION
        SELECT k.conrelid, r.rank + 1 FROM ranked r
        JOIN pg_catalog.pg_constraint k ON k.confrelid = r.oid AND k.contype = 'f' AND k.conrelid <> k.confrelid
        WHERE r.rank < 32
    )
    SELECT c.relname::text AS name, array_agg(DISTINCT a.attname::text) AS columns
    FROM ranked r JOIN pg_catalog.pg_class c ON c.oid = r.oid
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    GROUP BY c.oid, c.relname ORDER BY max(r.rank), c.relname";

/// The clone, new and empty; or as far as it came, if it was begun before.
pub async fn begin(database: &Database, source: &str, new: NewTenant) -> Result<(Tenant, Tenant)> {
    let tx = database.platform().await?;
    let source = lock(&tx, source).await?;
    let begun = by_slug(&tx, &new.slug).await?;
    tx.commit().await?;
    if matches!(source.state, State::Provisioning | State::Deleting) {
        return Err(refused(&source, "cloned"));
    }
    if let Some(begun) = begun {
        if begun.state == State::Provisioning && begun.source_id == Some(source.id) {
            return Ok((source, begun));
        }
        let taken = format!("There is a tenant {} already.", new.slug);
        return Err(Error::already_exists("slug", taken));
    }
    let tx = create_from(database, new, Some(&source)).await?;
    let clone = Tenant::clone(tx.tenant());
    tx.commit().await?;
    Ok((source, clone))
}

/// Copies the rows, and returns the open unit of work inside the clone for what the copy has to be adjusted for; nothing if
/// they are there already.
pub async fn rows(
    database: &Database,
    (source, clone): (&Tenant, &Tenant),
    act: &Act,
) -> Result<Option<TenantTx>> {
    let tx = database.platform().await?;
    tx.snapshot().await?;
    let clone = lock(&tx, &clone.slug).await?;
    if clone.step.as_deref() == Some(ROWS_DONE) || clone.state != State::Provisioning {
        return Ok(None);
    }
    let tables = tx
        .query_all_raw(Statement::from_sql_and_values(
            DbBackend::Postgres,
            TABLES,
            [TEMPLATE_SCHEMA.into()],
        ))
        .await?;
    let mut row: ActiveModel = clone.into();
    row.step = Set(Some(ROWS_DONE.to_owned()));
    let clone = Arc::new(row.update(&tx).await?);
    let why = match &act.reason {
        Some(reason) => format!("clone of {}: {reason}", source.slug),
        None => format!("clone of {}", source.slug),
    };
    let attribution = Attribution {
        reason: Some(why),
        ..Actor::Operator(act.operator.clone()).into()
    };
    let tx = tx.enter(clone, &attribution).await?;
    for table in tables {
        let name: String = table.try_get("", "name")?;
        let columns: Vec<String> = table.try_get("", "columns")?;
        if !CREDENTIALS.contains(&name.as_str()) {
            copy(&tx, source, &name, &columns).await?;
        }
    }
    Ok(Some(tx))
}

/// Copies one table, in the order of its ids.
async fn copy(tx: &TenantTx, source: &Tenant, table: &str, columns: &[String]) -> Result<()> {
    let names: Result<Vec<String>> = columns.iter().map(|column| identifier(column)).collect();
    let names = names?.join(", ");
    let values: Result<Vec<String>> = columns
        .iter()
        .map(|column| {
            let emptied = EMPTIED.contains(&(table, column.as_str()));
            if emptied {
                Ok("''".to_owned())
            } else {
                identifier(column)
            }
        })
        .collect();
    let (values, table) = (values?.join(", "), identifier(table)?);
    let from = format!("{}.{table}", identifier(&source.schema_name)?);
    let sql = format!(
        "INSERT INTO {table} ({names}) SELECT {values} FROM {from} WHERE id > $1
         ORDER BY id LIMIT {ROWS} RETURNING id"
    );
    let mut last = Uuid::nil();
    loop {
        let statement =
            Statement::from_sql_and_values(DbBackend::Postgres, sql.as_str(), [last.into()]);
        let copied = tx.query_all_raw(statement).await?;
        for row in &copied {
            let id: Uuid = row.try_get("", "id")?;
            last = last.max(id);
        }
        if copied.len() < ROWS {
            return Ok(());
        }
    }
}

/// Copies the objects of the media that the clone has; `told` hears of each. The clone cannot be deleted while some are on
/// their way: what came after would be nobody's.
pub async fn objects(
    database: &Database,
    store: &Store,
    (source, clone): (&Tenant, &Tenant),
    media: &BTreeSet<Uuid>,
    told: impl Fn(),
) -> Result<()> {
    let listed = store.list(source).map_err(Error::from);
    let wanted = listed.try_filter(|object| {
        let name = object.location.filename();
        let id = name.and_then(|name| name.split('.').next());
        let id = id.and_then(|id| Uuid::parse_str(id).ok());
        ready(id.is_some_and(|id| media.contains(&id)))
    });
    let mut chunks = wanted.try_chunks(OBJECTS);
    while let Some(some) = chunks.try_next().await.map_err(|cut| cut.1)? {
        let tx = database.platform().await?;
        if lock(&tx, &clone.slug).await?.state != State::Provisioning {
            return Ok(());
        }
        let copies = some.iter().map(async |object| {
            store.copy(&object.location, clone).await?;
            told();
            Ok(())
        });
        let copied: Result<Vec<()>> = try_join_all(copies).await;
        tx.commit().await?;
        copied?;
    }
    Ok(())
}

/// Puts the clone to use.
pub async fn activate(database: &Database, clone: &Tenant, act: &Act) -> Result<Tenant> {
    let tx = database.platform().await?;
    let tenant = lock(&tx, &clone.slug).await?;
    let tenant = match tenant.state {
        State::Provisioning => enter(&tx, tenant, State::Active, act).await?,
        State::Active => tenant,
        // It was deleted while it was made.
        _ => return Err(refused(&tenant, "activated")),
    };
    tx.commit().await?;
    Ok(tenant)
}
