//! Units of work: bound to one tenant, gone without a trace when they end, whole or not there; and what PostgreSQL refuses
//! to a tenant.

mod binding;
mod budget;
mod connections;
mod pooler;
mod savepoints;
mod units;

use crate::harness::{Tenant, value};
use bulkhead::database::TenantTx;
use bulkhead::devices::{self, NewDevice};
use entity::tenant::device;
use sqlx::{AssertSqlSafe, PgConnection};

/// Two tenants of one cell: the next unit of work of one has the connection of the other's last.
async fn neighbours() -> (Tenant, Tenant) {
    let first = Tenant::new().await;
    loop {
        let second = Tenant::new().await;
        if second.row.cell_id == first.row.cell_id {
            return (first, second);
        }
    }
}

/// Adds a device, by the operation that the API uses.
async fn add(tx: &TenantTx, name: &str) -> bulkhead::error::Result<device::Model> {
    let new = NewDevice {
        name: name.to_owned(),
        client_id: None,
        pin_hash: "none".to_owned(),
    };
    devices::create(tx, new).await
}

/// SQL that adds a number of devices.
fn adding(count: u32) -> String {
    format!(
        "INSERT INTO device (id, name, client_id, pin_hash, created_at, updated_at)
         SELECT id, 'A device', id::text, 'none', now(), now()
         FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, {count})) new"
    )
}

/// How many devices the tenant has, as another connection sees it.
async fn seen(owner: &mut PgConnection, tenant: &Tenant) -> i64 {
    let sql = format!("SELECT count(*) FROM {}.device", tenant.row.schema_name);
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(owner)
        .await
        .unwrap()
}

/// The process that serves the unit of work's connection.
async fn backend(tx: &TenantTx) -> String {
    value(tx, "SELECT pg_backend_pid()::text").await.unwrap()
}
