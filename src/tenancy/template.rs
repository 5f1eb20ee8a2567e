//! The template's DDL: read from the catalogue once a version, kept as a list of statements, played for each new tenant.
//! The catalogue is too slow to read per tenant: 270 ms a query at 10,000 of them.

use crate::database::{CALLABLE, PlatformTx, TEMPLATE_SCHEMA, grants, lock_migrations};
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

/// What triggers do: nobody's to run.
const TRIGGERED: &str = "SELECT pg_get_functiondef(p.oid) AS statement
    FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = 't_template'::regnamespace AND p.prorettype = 'trigger'::regtype
    ORDER BY p.proname";

/// The tenant's to run.
const FUNCTIONS: &str = "SELECT pg_get_functiondef(p.oid) AS statement
    FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = 't_template'::regnamespace AND p.prorettype <> 'trigger'::regtype
    ORDER BY p.proname";

const TRIGGERS: &str = "SELECT pg_get_triggerdef(t.oid) AS statement
    FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
    WHERE c.relnamespace = 't_template'::regnamespace AND NOT t.tgisinternal
    ORDER BY c.relname, t.tgname";

/// What no query above renders. The template must have none of it.
const UNRENDERED: &str = "SELECT concat_ws(' ', 'column', a.attrelid::regclass, a.attname) AS what
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = 't_template'::regnamespace AND (a.attidentity <> '' OR a.attgenerated <> '')
    UNION ALL SELECT concat_ws(' ', 'relation', c.oid::regclass) FROM pg_catalog.pg_class c
    WHERE c.relnamespace = 't_template'::regnamespace
        AND (c.relkind NOT IN ('r', 'i') OR c.relrowsecurity OR c.reloptions IS NOT NULL)
    UNION ALL SELECT concat_ws(' ', 'constraint', k.conname) FROM pg_catalog.pg_constraint k
    WHERE k.connamespace = 't_template'::regnamespace AND k.contype NOT IN ('p', 'u', 'c', 'f', 'n')
    UNION ALL SELECT concat_ws(' ', 'type', t.typname) FROM pg_catalog.pg_type t
    WHERE t.typnamespace = 't_template'::regnamespace AND t.typtype <> 'c' AND t.typelem = 0";

/// Renders the template as it is now, unless that was done before. Whatever the binary's own newest step is: another may
/// have migrated the template further.
pub async fn render(tx: &PlatformTx) -> Result<()> {
    lock_migrations(tx).await?;
    let steps: Vec<String> = column(tx, STEPS, "name").await?;
    let version = steps
        .last()
        .ok_or_else(|| Error::internal("the template has no steps"))?
        .clone();
    let there = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT version FROM template WHERE version = $1",
        [version.clone().into()],
    );
    if tx.query_one_raw(there).await?.is_some() {
        return Ok(());
    }
    let unrendered: Vec<String> = column(tx, UNRENDERED, "what").await?;
    if !unrendered.is_empty() {
        let what = unrendered.join(", ");
        return Err(Error::internal(format!(
            "{TEMPLATE_SCHEMA} has what new tenants would lack: {what}"
        )));
    }
    let mut statements: Vec<String> = Vec::new();
    for query in [TABLES, FOREIGN_KEYS, INDEXES, TRIGGERED] {
        statements.extend(column(tx, query, "statement").await?);
    }
    let [open, close] = CALLABLE.map(str::to_owned);
    statements.push(open);
    statements.extend(column(tx, FUNCTIONS, "statement").await?);
    statements.push(close);
    statements.extend(grants(tx).await?);
    statements.extend(column(tx, TRIGGERS, "statement").await?);
    let count = statements.len();
    let keep = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "INSERT INTO template (version, steps, statements) VALUES ($1, $2, $3)",
        [
            version.clone().into(),
            serde_json::json!(steps).into(),
            serde_json::json!(statements).into(),
        ],
    );
    tx.execute_raw(keep).await?;
    tracing::info!(version, statements = count, "{TEMPLATE_SCHEMA} rendered");
    Ok(())
}

const STEPS: &str = "SELECT name FROM migration WHERE schema_name = 't_template' ORDER BY name";

/// The template as it was rendered last.
#[derive(Debug)]
pub(super) struct Template {
    /// Name of the newest step it has.
    pub(super) version: String,
    /// Names of the steps it has.
    pub(super) steps: Vec<String>,
    /// DDL for the schema [`TEMPLATE_SCHEMA`], all but the triggers'.
    pub(super) statements: Vec<String>,
    /// The triggers.
    pub(super) triggers: Vec<String>,
}

/// The newest template: it serves an older binary too, because no step takes what that uses.
pub(super) async fn read(tx: &PlatformTx) -> Result<Template> {
    let newest = "SELECT version, steps, statements FROM template ORDER BY version DESC LIMIT 1";
    one(tx, newest)
        .await?
        .ok_or_else(|| Error::internal("the template is not rendered"))
}

/// The newest template, locked until the unit of work ends; none if somebody else has it locked.
pub(super) async fn lock(tx: &PlatformTx) -> Result<Option<Template>> {
    let newest = "SELECT version, steps, statements FROM template
        WHERE version = (SELECT max(version) FROM template) FOR UPDATE SKIP LOCKED";
    one(tx, newest).await
}

async fn one(tx: &PlatformTx, query: &'static str) -> Result<Option<Template>> {
    let found = tx
        .query_one_raw(Statement::from_string(DbBackend::Postgres, query))
        .await?;
    let Some(row) = found else { return Ok(None) };
    let list = |name| -> Result<Vec<String>> {
        serde_json::from_value(row.try_get("", name)?).map_err(Error::internal)
    };
    let is_trigger = |statement: &String| statement.starts_with("CREATE TRIGGER ");
    let (triggers, statements) = list("statements")?.into_iter().partition(is_trigger);
    Ok(Some(Template {
        version: row.try_get("", "version")?,
        steps: list("steps")?,
        statements,
        triggers,
    }))
}

async fn column(tx: &PlatformTx, query: &'static str, name: &str) -> Result<Vec<String>> {
    let rows = tx
        .query_all_raw(Statement::from_string(DbBackend::Postgres, query))
        .await?;
    Ok(rows
        .iter()
        .map(|row| row.try_get("", name))
        .collect::<Result<_, _>>()?)
}
