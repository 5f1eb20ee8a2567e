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

/// What the owner of the schemas has no longer by way of PUBLIC and cannot work without: the language of the triggers, the
/// migrator's lock, the database. With each, whether it has it now.
const OWNERS: &str =
    "SELECT format('GRANT USAGE ON LANGUAGE plpgsql TO %I', $1), has_language_privilege($1, 'plpgsql', 'USAGE')
    UNION ALL SELECT format('GRANT EXECUTE ON FUNCTION pg_catalog.pg_advisory_xact_lock(bigint) TO %I', $1),
        has_function_privilege($1, 'pg_catalog.pg_advisory_xact_lock(bigint)', 'EXECUTE')
    UNION ALL SELECT format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), $1),
        has_database_privilege($1, current_database(), 'CONNECT')";

/// The statements that are still to be run, as a superuser: they close what is open, and leave to the owner what it needs.
/// Empty when all is closed.
pub(super) async fn missing(connection: &mut PgConnection, owner: &str) -> Result<Vec<String>> {
    let functions: Vec<(String,)> = sqlx::query_as(FUNCTIONS)
        .fetch_all(&mut *connection)
        .await?;
    let others: Vec<(String,)> = sqlx::query_as(OTHERS).fetch_all(&mut *connection).await?;
    let owners: Vec<(String, bool)> = sqlx::query_as(OWNERS)
        .bind(owner)
        .fetch_all(&mut *connection)
        .await?;
    let revoke = |(name,)| format!("REVOKE EXECUTE ON FUNCTION pg_catalog.{name} FROM PUBLIC");
    let others = others.into_iter().map(|(statement,)| statement);
    let mut missing: Vec<String> = others.chain(functions.into_iter().map(revoke)).collect();
    let closing = !missing.is_empty();
    let needed = owners.into_iter().filter(|(_, held)| closing || !held);
    missing.extend(needed.map(|(statement, _)| statement));
    Ok(missing)
}

/// Runs them, as a superuser.
pub(super) async fn apply(connection: &mut PgConnection, owner: &str) -> Result<()> {
    let statements = missing(connection, owner).await?;
    if statements.is_empty() {
        return Ok(());
    }
    connection
        .execute(sqlx::raw_sql(AssertSqlSafe(statements.join(";\n"))))
        .await?;
    Ok(())
}

/// Says at the start what is open, and how to close it.
pub(super) async fn warn(connection: &mut PgConnection, owner: &str) -> Result<()> {
    let missing = missing(connection, owner).await?;
    if !missing.is_empty() {
        tracing::warn!(
            open = missing.len(),
            "PostgreSQL is not hardened: one injected statement could leave its tenant. `bulkhead hardening` prints the SQL to run as a superuser"
        );
    }
    Ok(())
}
