//! Tenants: made whole or not at all, by the command and by many at once, each like the template; and found by their hosts.

mod commands;
mod creation;
mod hosts;

use crate::harness::{bulkhead, finish};
use sqlx::PgConnection;

/// Runs `bulkhead` on the database of the tests: exit code, standard output, standard error. What its start says of the
/// tenants of other tests is left out.
async fn command(args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut bulkhead = bulkhead().await;
    finish(bulkhead.args(args).env("BULKHEAD_LOG", "warn"), input)
}

/// Schemas, roles, ledger and log entries of tenants that there are not. One snapshot, so tenants that others make meanwhile
/// are in none or in all of its tables.
async fn orphans(superuser: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT 'schema ' || nspname FROM pg_namespace
            WHERE nspname ~ '^t_[0-9]+$' AND nspname NOT IN (SELECT schema_name FROM bulkhead.tenant)
         UNION ALL SELECT 'role ' || rolname FROM pg_roles, bulkhead.instance i
            WHERE starts_with(rolname, i.id || '_t_') AND rolname NOT IN (SELECT role_name FROM bulkhead.tenant)
         UNION ALL SELECT 'ledger ' || schema_name FROM bulkhead.migration
            WHERE schema_name ~ '^t_[0-9]+$' AND schema_name NOT IN (SELECT schema_name FROM bulkhead.tenant)
         UNION ALL SELECT 'log ' || tenant_id FROM bulkhead.operator_log
            WHERE tenant_id NOT IN (SELECT id FROM bulkhead.tenant)",
    )
    .fetch_all(superuser)
    .await
    .unwrap()
}

/// How many tenants have this slug.
async fn count(superuser: &mut PgConnection, slug: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM bulkhead.tenant WHERE slug = $1")
        .bind(slug)
        .fetch_one(superuser)
        .await
        .unwrap()
}
