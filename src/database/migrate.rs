//! Brings the platform's schema, the template and every tenant's schema to this binary's migrations.
//!
//! One ledger for all of them, in the platform schema; one schema's step is one transaction with its ledger row in it.

use super::{PlatformTx, identifier, listen};
use crate::error::{Error, Result};
use migration::tenant::UNAUDITED;
use regex_lite::Regex;
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, FromQueryResult, SqlxPostgresConnector, Statement,
    TransactionTrait as _,
};
use sea_orm_migration::{MigrationTrait, SchemaManager};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{AssertSqlSafe, Executor as _};
use std::collections::HashSet;
use uuid::Uuid;

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

/// Migrates the template, then every tenant whose schema is behind. A tenant that cannot be migrated is said, and stands in
/// nobody's way: until it can, its requests are refused as upgrading.
pub(super) async fn tenants(owner: &PgConnectOptions) -> Result<()> {
    let migrator = Migrator::connect(owner).await?;
    migrator
        .bring(TEMPLATE_SCHEMA, migration::tenant::migrations(), None)
        .await?;
    let behind = migrator.behind().await?;
    if behind.is_empty() {
        return Ok(());
    }
    let grants = [grants(&migrator.0).await?, calls(&migrator.0).await?];
    let grants = grants.concat().join("; ");
    let mut failed = 0;
    for tenant in behind {
        let grants = for_tenant(&grants, &tenant.schema_name, &tenant.role_name)?;
        let last = format!("{grants}; {}", listen::notify_tenant(tenant.id));
        let (slug, schema) = (&tenant.slug, &tenant.schema_name);
        let steps = migration::tenant::migrations();
        match migrator.bring(schema, steps, Some(&last)).await {
            Ok(()) => tracing::info!(slug, schema, "tenant migrated"),
            Err(error) => {
                failed += 1;
                tracing::error!(slug, schema, ?error, "a tenant cannot be migrated");
            }
        }
    }
    if failed > 0 {
        tracing::error!(
            tenants = failed,
            "not migrated; those in use are refused until they are, and `bulkhead tenant check` names what they lack"
        );
    }
    Ok(())
}

/// Names of the steps that this binary wants a tenant to have.
pub fn steps() -> Vec<String> {
    let steps = migration::tenant::migrations();
    steps.iter().map(|step| step.name().to_owned()).collect()
}

/// A tenant that lacks a step.
#[derive(Debug, FromQueryResult)]
struct Behind {
    id: Uuid,
    slug: String,
    schema_name: String,
    role_name: String,
}

/// What a tenant's role may do with tables, read from the template: everything with rows of audited ones and of those that are
/// said not to be, and read the history. Statements for the template's schema and the role [`ROLE`].
pub async fn grants(connection: &impl ConnectionTrait) -> Result<Vec<String>> {
    let query = Statement::from_sql_and_values(
        sea_orm::DbBackend::Postgres,
        GRANTS,
        [UNAUDITED.map(str::to_owned).to_vec().into()],
    );
    statements(connection, query).await
}

/// The right to run a schema's functions that are not triggers, where they are there already: of all, less the triggers'. All take
/// as long as one that is named, which PostgreSQL looks for among those of all tenants.
async fn calls(connection: &impl ConnectionTrait) -> Result<Vec<String>> {
    let query = Statement::from_string(sea_orm::DbBackend::Postgres, CALLS);
    statements(connection, query).await
}

async fn statements(connection: &impl ConnectionTrait, query: Statement) -> Result<Vec<String>> {
    let rows = connection.query_all_raw(query).await?;
    Ok(rows
        .iter()
        .map(|row| row.try_get("", "statement"))
        .collect::<Result<_, _>>()?)
}

/// What stands around the functions of the template that are not triggers: they are the role's to run as they are made, and
/// what is made after them is not.
pub const CALLABLE: [&str; 2] = [
    r#"ALTER DEFAULT PRIVILEGES IN SCHEMA t_template GRANT EXECUTE ON FUNCTIONS TO "{role}""#,
    r#"ALTER DEFAULT PRIVILEGES IN SCHEMA t_template REVOKE EXECUTE ON FUNCTIONS FROM "{role}""#,
];

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
        SELECT tgrelid FROM pg_catalog.pg_trigger WHERE tgfoid = 't_template.record_history'::regproc
        UNION SELECT oid FROM pg_catalog.pg_class
        WHERE relnamespace = 't_template'::regnamespace AND relname = ANY ($1)
    )
    SELECT 'GRANT USAGE ON SCHEMA t_template TO "{role}"' AS statement
    UNION ALL SELECT format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO "{role}"',
        string_agg(tgrelid::regclass::text, ', ' ORDER BY tgrelid::regclass::text)) FROM audited
    UNION ALL SELECT 'GRANT SELECT ON t_template.history TO "{role}"'"#;

const CALLS: &str = r#"SELECT 'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA t_template TO "{role}"' AS statement
    UNION ALL SELECT format('REVOKE EXECUTE ON FUNCTION %s FROM "{role}"', oid::regprocedure) FROM pg_catalog.pg_proc
    WHERE pronamespace = 't_template'::regnamespace AND prorettype = 'trigger'::regtype"#;

struct Migrator(sea_orm::DatabaseConnection);

impl Migrator {
    async fn connect(owner: &PgConnectOptions) -> Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_with(owner.clone())
            .await?;
        Ok(Self(SqlxPostgresConnector::from_sqlx_postgres_pool(pool)))
    }

    /// Tenants that lack a step of this binary and are not being erased. A clone that was begun is among them: it
    /// goes on with it. Every command asks that first: the steps are counted in one go through the ledger, a fifth of what to look
    /// each up takes.
    async fn behind(&self) -> Result<Vec<Behind>> {
        let query = Statement::from_sql_and_values(
            sea_orm::DbBackend::Postgres,
            "SELECT t.id, t.slug, t.schema_name, t.role_name FROM bulkhead.tenant t
             LEFT JOIN (SELECT m.schema_name, count(*) AS steps FROM bulkhead.migration m
                 WHERE m.name = ANY ($1::text[]) GROUP BY m.schema_name) m ON m.schema_name = t.schema_name
             WHERE t.state <> 'deleting' AND coalesce(m.steps, 0) < cardinality($1::text[])
             ORDER BY t.schema_name",
            [steps().into()],
        );
        Ok(Behind::find_by_statement(query).all(&self.0).await?)
    }

    /// Applies to a schema the steps it lacks, each in a transaction of its own. The one that makes it whole ends with these
    /// statements, the grants above all: a schema that the ledger calls whole is one that its tenant can use.
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    async fn bring(
        &self,
        schema: &str,
        steps: Vec<Box<dyn MigrationTrait>>,
        finally: Option<&str>,
    ) -> Result<()> {
        for step in &steps {
            let transaction = self.0.begin().await?;
            transaction.execute_unprepared(LOCK).await?;
            if finally.is_some() {
                // A clone that is being copied is locked until it is there; whoever tidies tries it again.
                transaction
                    .execute_unprepared("SET LOCAL lock_timeout = '5s'")
                    .await?;
                if !holds(&transaction, schema).await? {
                    return Ok(());
                }
                transaction
                    .execute_unprepared("SET LOCAL lock_timeout TO DEFAULT")
                    .await?;
            }
            let mut done = applied(&transaction, schema).await?;
            if done.insert(step.name().to_owned()) {
                apply(&transaction, schema, step.as_ref()).await?;
                let is_whole = steps.iter().all(|step| done.contains(step.name()));
                if let Some(finally) = finally.filter(|_| is_whole) {
                    transaction.execute_unprepared(finally).await?;
                }
            }
            transaction.commit().await?;
        }
        Ok(())
    }
}

/// Whether a tenant still has this schema, and keeps it until the transaction ends: one that is being deleted is not made
/// again.
async fn holds(transaction: &DatabaseTransaction, schema: &str) -> Result<bool> {
    let query = Statement::from_sql_and_values(
        sea_orm::DbBackend::Postgres,
        "SELECT FROM bulkhead.tenant WHERE schema_name = $1 AND state <> 'deleting' FOR SHARE",
        [schema.into()],
    );
    Ok(transaction.query_one_raw(query).await?.is_some())
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
