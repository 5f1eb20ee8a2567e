//! Tenants: made whole or not at all, by the command and by many at once, each like the template; and found by their hosts.

mod authorities;
mod catalogue;
mod cells;
mod check;
mod cloning;
mod commands;
mod creation;
mod cuts;
mod doctor;
mod domains;
mod erasure;
mod hosts;
mod lifecycle;
mod limits;
mod log;
mod registry;
mod settings;
mod spares;
mod upgrading;

use crate::harness::{Tenant, bulkhead, finish, until};
use bulkhead::tenancy::host::Authority;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgConnection;

/// A step that schemas of older binaries lack.
const STEP: &str = "m0010_idempotency";

/// SQL that leaves a schema without it, as an older binary does.
fn without_step(schema: &str) -> String {
    format!(
        "DROP TABLE {schema}.idempotency_key;
         DELETE FROM bulkhead.migration WHERE schema_name = '{schema}' AND name = '{STEP}'"
    )
}

/// Runs `bulkhead` on the database of the tests: exit code, standard output, standard error. What its start says of the
/// tenants of other tests is left out.
async fn command(args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut bulkhead = bulkhead().await;
    finish(bulkhead.args(args).env("BULKHEAD_LOG", "warn"), input)
}

/// The same of a command that succeeds: its standard output.
async fn succeeds(args: &[&str]) -> String {
    let (code, out, err) = command(args, "").await;
    assert_eq!(code, Some(0), "{args:?}: {err}");
    out
}

/// `bulkhead tenant set`, until the running server has it.
pub async fn set(tenant: &Tenant, change: &[&str]) -> String {
    let out = succeeds(&[&["tenant", "set", &tenant.slug], change].concat()).await;
    let row = Tenant::named(&tenant.slug).await.row;
    let host = Authority::parse(&tenant.host()).unwrap();
    until("the server has heard of it", async || {
        let known = tenant.world.app.services.registry.at(&host).await;
        (known.unwrap() == row).then_some(())
    })
    .await;
    out
}

/// Schemas, roles, ledger and log entries of tenants and spares that there are not. One snapshot, so what others make
/// meanwhile is in none or in all of its tables.
async fn orphans(superuser: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(
        "WITH home AS (SELECT schema_name, role_name FROM bulkhead.tenant
             UNION ALL SELECT schema_name, role_name FROM bulkhead.spare)
         SELECT 'schema ' || nspname FROM pg_namespace
            WHERE nspname ~ '^t_[0-9]+$' AND nspname NOT IN (SELECT schema_name FROM home)
         UNION ALL SELECT 'role ' || rolname FROM pg_roles, bulkhead.instance i
            WHERE starts_with(rolname, i.id || '_t_') AND rolname NOT IN (SELECT role_name FROM home)
         UNION ALL SELECT 'ledger ' || schema_name FROM bulkhead.migration
            WHERE schema_name ~ '^t_[0-9]+$' AND schema_name NOT IN (SELECT schema_name FROM home)
         UNION ALL SELECT 'log ' || tenant_id FROM bulkhead.operator_log
            WHERE tenant_id NOT IN (SELECT id FROM bulkhead.tenant UNION SELECT tenant_id FROM bulkhead.erasure)",
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

/// Asks for the tenant's slug at a host, as its owner.
async fn at(tenant: &Tenant, token: &str, host: &str) -> (StatusCode, Value) {
    let request = tenant
        .world
        .client
        .request(
            Method::POST,
            format!("http://{}/graphql", tenant.world.address),
        )
        .header("Host", host)
        .bearer_auth(token)
        .json(&json!({ "query": "{ tenant { slug } }" }));
    let answer = tenant.send(request).await;
    (answer.status, answer.body)
}
