//! Brings the platform's schema, the template and every tenant's schema to this binary's migrations.
//!
//! One ledger for all of them, in the platform schema; one schema's step is one transaction with its ledger row in it.

use super::{PlatformTx, identifier};
use crate::error::{Error, Result};
use regex_lite::Regex;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, SqlxPostgresConnector, Statement, TransactionTrait as _,
};
use sea_orm_migration::{MigrationTrait, SchemaManager};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor as _};
use std::collections::HashSet;

/// The schema that new tenants are copies of.
pub const TEMPLATE_SCHEMA: &str = "t_template";
const PLATFORM_SCHEMA: &str = "bulkhead";

/// One migrator at a time, until its transaction ends. The number is the bytes of "bulkhead".
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(7094708893894106468)";

/// Waits until no migrator is at work, and keeps others out until the unit of work ends.
pub async fn lock_migrations(tx: &PlatformTx) -> Result<()> {
    tx.batch(LOCK).await
}

/// Makes the schema and its ledger.
const LEDGER: &str = "CREATE SCHEMA IF NOT EXISTS bulkhead;
    CREATE TABLE IF NOT EXISTS bulkhead.migration (
        schema_name text NOT NULL,
        name text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT migration_pkey PRIMARY KEY (schema_name, name)
    )";

/// The instance's id, made once with the database.
const INSTANCE: &str = "INSERT INTO bulkhead.instance (id)
    SELECT chr(97 + floor(random() * 26)::int) || substr(md5(gen_random_uuid()::text), 1, 5)
    WHERE NOT EXISTS (SELECT FROM bulkhead.instance)";

/// Migrates the schema `bulkhead` and returns the instance's id.
pub(super) async fn platform(
    owner: &PgConnectOptions,
    connection: &mut PgConnection,
) -> Result<String> {
    run(connection, format!("BEGIN; {LOCK}; {LEDGER}; COMMIT")).await?;
    let migrator = Migrator::connect(owner).await?;
    migrator
        .bring(PLATFORM_SCHEMA, migration::platform::migrations(), None)
        .await?;
    run(connection, format!("BEGIN; {LOCK}; {INSTANCE}; COMMIT")).await?;
    let (instance,): (String,) = sqlx::query_as("SELECT id FROM bulkhead.instance")
        .fetch_one(connection)
        .await?;
    Ok(instance)
}

/// Migrates the template, then every tenant whose schema is behind.
pub(super) async fn tenants(owner: &PgConnectOptions) -> Result<()> {
    let migrator = Migrator::connect(owner).await?;
    migrator
        .bring(TEMPLATE_SCHEMA, migration::tenant::migrations(), None)
        .await?;
    let behind = migrator.behind().await?;
    if behind.is_empty() {
        return Ok(());
    }
    let grants = grants(&migrator.0).await?.join("; ");
    for (schema, role) in behind {
        let grants = for_tenant(&grants, &schema, &role)?;
        migrator
            .bring(&schema, migration::tenant::migrations(), Some(&grants))
            .await?;
        tracing::info!(schema, "tenant schema migrated");
    }
    Ok(())
}

/// What a tenant's role may do, read from the template: everything with rows of audited tables, read the history, and run
/// the functions that are not triggers. Statements for the template's schema and the role [`ROLE`].
pub async fn grants(connection: &impl ConnectionTrait) -> Result<Vec<String>> {
    let rows = connection
        .query_all_raw(Statement::from_string(sea_orm::DbBackend::Postgres, GRANTS))
        .await?;
    Ok(rows
        .iter()
        .map(|row| row.try_get("", "statement"))
        .collect::<Result<_, _>>()?)
}

/// A statement of the template, for a tenant's schema and role.
pub fn for_tenant(statement: &str, schema: &str, role: &str) -> Result<String> {
    let statement = statement.replace(ROLE, &identifier(role)?);
    // As a whole word: a table may well be called report_template.
    let template = Regex::new(r"\bt_template\b").map_err(Error::internal)?;
    Ok(template.replace_all(&statement, schema).into_owned())
}

/// Stands for the tenant's role in the template's statements.
const ROLE: &str = "\"{role}\"";

const GRANTS: &str = r#"WITH audited AS (
        SELECT DISTINCT tgrelid FROM pg_catalog.pg_trigger
        WHERE tgfoid = 't_template.record_history'::regproc
    ), callable AS (
        SELECT oid::regprocedure::text AS name FROM pg_catalog.pg_proc
        WHERE pronamespace = 't_template'::regnamespace AND prorettype <> 'trigger'::regtype
    )
    SELECT 'GRANT USAGE ON SCHEMA t_template TO "{role}"' AS statement
    UNION ALL SELECT format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO "{role}"',
        string_agg(tgrelid::regclass::text, ', ' ORDER BY tgrelid::regclass::text)) FROM audited
    UNION ALL SELECT 'GRANT SELECT ON t_template.history TO "{role}"'
    UNION ALL SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', name) FROM callable
    UNION ALL SELECT format('GRANT EXECUTE ON FUNCTION %s TO "{role}"', name) FROM callable"#;

struct Migrator(sea_orm::DatabaseConnection);

impl Migrator {
    async fn connect(owner: &PgConnectOptions) -> Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_with(owner.clone())
            .await?;
        Ok(Self(SqlxPostgresConnector::from_sqlx_postgres_pool(pool)))
    }

    /// Schemas and roles of tenants that lack a step of this binary.
    async fn behind(&self) -> Result<Vec<(String, String)>> {
        let names: Vec<String> = migration::tenant::migrations()
            .iter()
            .map(|step| step.name().to_owned())
            .collect();
        let query = Statement::from_sql_and_values(
            sea_orm::DbBackend::Postgres,
            "SELECT t.schema_name, t.role_name FROM bulkhead.tenant t
             WHERE EXISTS (SELECT FROM unnest($1::text[]) step WHERE NOT EXISTS (
                 SELECT FROM bulkhead.migration m WHERE m.schema_name = t.schema_name AND m.name = step))
             ORDER BY t.schema_name",
            [names.into()],
        );
        let rows = self.0.query_all_raw(query).await?;
        Ok(rows
            .iter()
            .map(|row| {
                Ok((
                    row.try_get("", "schema_name")?,
                    row.try_get("", "role_name")?,
                ))
            })
            .collect::<Result<_, sea_orm::DbErr>>()?)
    }

    /// Applies to a schema the steps it lacks, each in a transaction of its own. The last one's ends with `grants`: a schema
    /// that the ledger calls whole is one that its tenant can use.
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    async fn bring(
        &self,
        schema: &str,
        steps: Vec<Box<dyn MigrationTrait>>,
        grants: Option<&str>,
    ) -> Result<()> {
        let last = steps.len().saturating_sub(1);
        for (number, step) in steps.iter().enumerate() {
            let transaction = self.0.begin().await?;
            transaction.execute_unprepared(LOCK).await?;
            if !applied(&transaction, schema).await?.contains(step.name()) {
                apply(&transaction, schema, step.as_ref()).await?;
            }
            if let Some(grants) = grants.filter(|_| number == last) {
                transaction.execute_unprepared(grants).await?;
            }
            transaction.commit().await?;
        }
        Ok(())
    }
}

async fn applied(transaction: &DatabaseTransaction, schema: &str) -> Result<HashSet<String>> {
    let query = Statement::from_sql_and_values(
        sea_orm::DbBackend::Postgres,
        "SELECT name FROM bulkhead.migration WHERE schema_name = $1",
        [schema.into()],
    );
    let rows = transaction.query_all_raw(query).await?;
    Ok(rows
        .iter()
        .map(|row| row.try_get("", "name"))
        .collect::<Result<_, _>>()?)
}

async fn apply(
    transaction: &DatabaseTransaction,
    schema: &str,
    step: &dyn MigrationTrait,
) -> Result<()> {
    let name = identifier(schema)?;
    let bind =
        format!("CREATE SCHEMA IF NOT EXISTS {name}; SET LOCAL search_path TO {name}, pg_temp");
    transaction.execute_unprepared(&bind).await?;
    step.up(&SchemaManager::new(transaction))
        .await
        .map_err(|e| Error::internal(format!("step {} of schema {schema}: {e}", step.name())))?;
    let ledger = Statement::from_sql_and_values(
        sea_orm::DbBackend::Postgres,
        "INSERT INTO bulkhead.migration (schema_name, name) VALUES ($1, $2)",
        [schema.into(), step.name().into()],
    );
    transaction.execute_raw(ledger).await?;
    Ok(())
}

async fn run(connection: &mut PgConnection, statements: String) -> Result<()> {
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(statements)))
        .await?;
    Ok(())
}
