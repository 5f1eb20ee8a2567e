//! The template's DDL: read from the catalogue once a version, kept as a list of statements, played for each new tenant.
//! The catalogue is too slow to read per tenant: 270 ms a query at 10,000 of them.

use crate::database::{PlatformTx, TEMPLATE_SCHEMA, grants};
use crate::error::{Error, Result};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

/// Tables with columns, defaults and the constraints that need no other table.
const TABLES: &str = "SELECT format('CREATE TABLE %s (%s)', c.oid::regclass, concat_ws(', ',
        (SELECT string_agg(format('%I %s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
                ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), CASE WHEN a.attnotnull THEN ' NOT NULL' END),
                ', ' ORDER BY a.attnum)
         FROM pg_catalog.pg_attribute a
         LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
        (SELECT string_agg(format('CONSTRAINT %I %s', k.conname, pg_get_constraintdef(k.oid)), ', ' ORDER BY k.conname)
         FROM pg_catalog.pg_constraint k
         WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'c')))) AS statement
    FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 't_template'::regnamespace AND c.relkind = 'r'
    ORDER BY c.relname";

const FOREIGN_KEYS: &str =
    "SELECT format('ALTER TABLE %s ADD CONSTRAINT %I %s', k.conrelid::regclass, k.conname,
        pg_get_constraintdef(k.oid)) AS statement
    FROM pg_catalog.pg_constraint k
    WHERE k.connamespace = 't_template'::regnamespace AND k.contype = 'f'
    ORDER BY k.conname";

/// Indexes that no constraint has made.
const INDEXES: &str = "SELECT pg_get_indexdef(c.oid) AS statement
    FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 't_template'::regnamespace AND c.relkind = 'i'
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u'))
    ORDER BY c.relname";

const FUNCTIONS: &str = "SELECT pg_get_functiondef(p.oid) AS statement
    FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = 't_template'::regnamespace
    ORDER BY p.proname";

const TRIGGERS: &str = "SELECT pg_get_triggerdef(t.oid) AS statement
    FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = 't_template'::regnamespace AND NOT t.tgisinternal
    ORDER BY c.relname, t.tgname";

/// Renders the template at its present version, unless that was done before.
pub async fn render(tx: &PlatformTx) -> Result<()> {
    if stored(tx).await?.is_some() {
        return Ok(());
    }
    let mut statements = Vec::new();
    for query in [TABLES, FOREIGN_KEYS, INDEXES, FUNCTIONS, TRIGGERS] {
        let rows = tx
            .query_all_raw(Statement::from_string(DbBackend::Postgres, query))
            .await?;
        for row in rows {
            statements.push(row.try_get::<String>("", "statement")?);
        }
    }
    statements.extend(grants(tx).await?);
    let keep = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "INSERT INTO template (version, statements) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        [version()?.into(), serde_json::json!(statements).into()],
    );
    tx.execute_raw(keep).await?;
    tracing::info!(statements = statements.len(), "{TEMPLATE_SCHEMA} rendered");
    Ok(())
}

/// The statements, for the schema [`TEMPLATE_SCHEMA`].
pub(super) async fn read(tx: &PlatformTx) -> Result<Vec<String>> {
    let statements = stored(tx)
        .await?
        .ok_or_else(|| Error::internal("the template is not rendered"))?;
    serde_json::from_value(statements).map_err(Error::internal)
}

async fn stored(tx: &PlatformTx) -> Result<Option<serde_json::Value>> {
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT statements FROM template WHERE version = $1",
        [version()?.into()],
    );
    let row = tx.query_one_raw(query).await?;
    Ok(row.map(|row| row.try_get("", "statements")).transpose()?)
}

/// The name of the newest tenant step.
fn version() -> Result<String> {
    migration::tenant::migrations()
        .last()
        .map(|step| step.name().to_owned())
        .ok_or_else(|| Error::internal("there are no tenant migrations"))
}
