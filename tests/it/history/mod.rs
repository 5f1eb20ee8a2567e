//! The trail: every write of a tenant's row leaves one entry, nobody can write around it, and no secret is in it.

mod changes;
mod erasing;
mod events;
mod exporting;
mod exports;
mod guards;
mod killed;
mod moments;
mod operators;
mod reading;
mod retention;
mod reverting;
mod sealing;

use crate::harness::{Answer, Tenant, execute, value};
use bulkhead::graphql::parse_global_id;
use bulkhead::history::seal;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

const CHANGE: &str = "id action subjectType subjectId requestId reason transactionId snapshot
    fields { name before after }
    actor { __typename ... on Member { email } ... on SystemActor { reason } }
    cause { __typename ... on Member { email } }";

/// The object's row.
fn row(id: &str) -> Uuid {
    parse_global_id(id).unwrap().1
}

/// The changes of a device, newest first.
async fn history(tenant: &Tenant, token: &str, device: &str) -> Vec<Value> {
    let query = format!(
        "query($id: ID!) {{ node(id: $id) {{ ... on Device {{ history {{ nodes {{ {CHANGE} }} }} }} }} }}"
    );
    let answer = tenant
        .gql_with(Some(token), &query, json!({ "id": device }))
        .await;
    let nodes = &answer.data()["node"]["history"]["nodes"];
    nodes.as_array().unwrap().clone()
}

/// Updates a device through the API, saying why.
async fn update(tenant: &Tenant, token: &str, input: Value) -> Answer {
    let query = "mutation($input: DeviceUpdateInput!) { deviceUpdate(input: $input) {
        device { name version updatedAt } errors { code message } } }";
    let body = json!({ "query": query, "variables": { "input": input } });
    let request = tenant
        .request(Method::POST, "/graphql")
        .bearer_auth(token)
        .header("X-Change-Reason", "Größe geändert: ticket 7".as_bytes())
        .json(&body);
    tenant.send(request).await
}

/// One text from the tenant's rows, as its role reads them.
async fn read(tenant: &Tenant, sql: &str) -> String {
    let database = &tenant.world.app.services.database;
    let tx = database.read(&tenant.row).await.unwrap();
    let text = value(&tx, sql).await.unwrap();
    tx.commit().await.unwrap();
    text
}

/// Runs a statement in a unit of work of its own; the number of rows it changed.
async fn write(tenant: &Tenant, sql: &str) -> u64 {
    let tx = tenant.write().await;
    let rows = execute(&tx, sql).await.unwrap();
    tx.commit().await.unwrap();
    rows
}

/// How many of its entries are sealed.
async fn sealed(tenant: &Tenant) -> u64 {
    let database = &tenant.world.app.services.database;
    let rows = [Arc::clone(&tenant.row)];
    seal::sealed(database, &rows).await.unwrap()
}

async fn entries(tenant: &Tenant) -> u32 {
    let count = read(tenant, "SELECT count(*)::text FROM history").await;
    count.parse().unwrap()
}

/// SQL that adds this many devices in one statement.
fn adding(count: u32) -> String {
    format!(
        "INSERT INTO device (id, name, client_id, pin_hash, created_at, updated_at)
         SELECT id, 'Bulk', id::text, 'none', now(), now()
         FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, {count})) new"
    )
}
