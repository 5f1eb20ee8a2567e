//! What PostgreSQL lets everybody do, and a tenant's statement must not: leave its role, read by way of another, wait for
//! ever, or talk to everyone. Applied where we may, checked at every start, because a restore loses it.

use crate::error::Result;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};

/// Functions that no tenant needs: they change the role, run SQL given as text, open large objects, sleep, lock and notify
/// across tenants, and fill the log or the disk. `SET LOCAL` by the server goes on working, and triggers fire.
const FUNCTIONS: &str = "SELECT p.oid::regprocedure::text
    FROM pg_catalog.pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace
        AND p.proname ~ '^(set_config|query_to_xml.*|cursor_to_xml.*|table_to_xml.*|schema_to_xml.*|database_to_xml.*|lo_.*|loread|lowrite|pg_sleep.*|pg_advisory_.*|pg_try_advisory_.*|pg_notify|pg_logical_emit_message|pg_export_snapshot)$'
        AND has_function_privilege('public', p.oid, 'EXECUTE')
    ORDER BY 1";

/// What is open besides functions, as the statement that closes it.
const OTHERS: &str =
    "SELECT format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database())
        WHERE has_database_privilege('public', current_database(), 'TEMPORARY')
    UNION ALL SELECT format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database())
        WHERE has_database_privilege('public', current_database(), 'CONNECT')
    UNION ALL SELECT 'REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC'
        WHERE has_language_privilege('public', 'plpgsql', 'USAGE')
    UNION ALL SELECT 'REVOKE CREATE ON SCHEMA public FROM PUBLIC'
        WHERE has_schema_privilege('public', 'public', 'CREATE')";

/// The statements that are still to be run, as a superuser. Empty when all is closed.
pub(super) async fn missing(connection: &mut PgConnection) -> Result<Vec<String>> {
    let functions: Vec<(String,)> = sqlx::query_as(FUNCTIONS)
        .fetch_all(&mut *connection)
        .await?;
    let others: Vec<(String,)> = sqlx::query_as(OTHERS).fetch_all(&mut *connection).await?;
    let revoke = |(name,)| format!("REVOKE EXECUTE ON FUNCTION pg_catalog.{name} FROM PUBLIC");
    let others = others.into_iter().map(|(statement,)| statement);
    Ok(others.chain(functions.into_iter().map(revoke)).collect())
}

/// Runs them, as a superuser, and leaves to the owner what it needs for itself.
pub(super) async fn apply(connection: &mut PgConnection, owner: &str) -> Result<()> {
    let mut statements = missing(connection).await?;
    if statements.is_empty() {
        return Ok(());
    }
    let owner = super::identifier(owner)?;
    statements.push(format!("GRANT USAGE ON LANGUAGE plpgsql TO {owner}"));
    statements.push(format!(
        "GRANT EXECUTE ON FUNCTION pg_catalog.pg_advisory_xact_lock(bigint) TO {owner}"
    ));
    let all = statements.join(";\n");
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(all)))
        .await?;
    Ok(())
}

/// Says at the start what is open, and how to close it.
pub(super) async fn warn(connection: &mut PgConnection) -> Result<()> {
    let missing = missing(connection).await?;
    if !missing.is_empty() {
        tracing::warn!(
            open = missing.len(),
            "PostgreSQL is not hardened: one injected statement could leave its tenant. `bulkhead hardening` prints the SQL to run as a superuser"
        );
    }
    Ok(())
}
