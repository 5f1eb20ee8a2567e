//! Steps of every tenant's schema, in order. At most 16 tables and 40 indexes: each is a file, an fsync and memory in
//! every backend, times thousands of tenants. A step that adds a table says why it earns its place.

use sea_orm_migration::prelude::*;

mod m0001_history;
mod m0002_identity;
mod m0003_device;
mod m0004_media;
mod m0005_job;

/// The ordered list.
pub fn migrations() -> Vec<Box<dyn MigrationTrait>> {
    vec![
        Box::new(m0001_history::Migration),
        Box::new(m0002_identity::Migration),
        Box::new(m0003_device::Migration),
        Box::new(m0004_media::Migration),
        Box::new(m0005_job::Migration),
    ]
}

/// The schema that the step runs in, for the functions that have its name baked in.
async fn schema(manager: &SchemaManager<'_>) -> Result<String, DbErr> {
    let current = sea_orm::Statement::from_string(
        manager.get_database_backend(),
        "SELECT current_schema()::text AS schema",
    );
    let row = manager.get_connection().query_one_raw(current).await?;
    row.ok_or_else(|| DbErr::Custom("the search path names no schema".into()))?
        .try_get("", "schema")
}
