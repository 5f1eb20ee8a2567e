//! Steps of every tenant's schema, in order. At most 16 tables and 40 indexes: each is a file, an fsync and memory in
//! every backend, times thousands of tenants. A step that adds a table says why it earns its place.

use sea_orm_migration::prelude::*;

mod m0001_history;
mod m0002_identity;
mod m0003_device;
mod m0004_media;
mod m0005_job;
mod m0007_lists;
mod m0008_feed;
mod m0009_history_plans;
mod m0010_idempotency;
mod m0011_history_reads;
mod m0015_jobs;
mod m0016_security_events;
mod m0019_personal;
mod m0023_job_batches;
mod m0024_schedule;
mod m0025_job_cancel;
mod m0027_history_row;
mod m0028_triggers;

/// The ordered list.
pub fn migrations() -> Vec<Box<dyn MigrationTrait>> {
    vec![
        Box::new(m0001_history::Migration),
        Box::new(m0002_identity::Migration),
        Box::new(m0003_device::Migration),
        Box::new(m0004_media::Migration),
        Box::new(m0005_job::Migration),
        Box::new(m0007_lists::Migration),
        Box::new(m0008_feed::Migration),
        Box::new(m0009_history_plans::Migration),
        Box::new(m0010_idempotency::Migration),
        Box::new(m0011_history_reads::Migration),
        Box::new(m0015_jobs::Migration),
        Box::new(m0016_security_events::Migration),
        Box::new(m0019_personal::Migration),
        Box::new(m0023_job_batches::Migration),
        Box::new(m0024_schedule::Migration),
        Box::new(m0025_job_cancel::Migration),
        Box::new(m0027_history_row::Migration),
        Box::new(m0028_triggers::Migration),
    ]
}

/// Tables that are nothing but credentials, or answers to who has one: a clone of a tenant has none of their rows.
pub const CREDENTIALS: [&str; 3] = ["session", "device_token", "idempotency_key"];

/// Tables that are not under the history; their steps say why.
pub const UNAUDITED: [&str; 1] = ["idempotency_key"];

/// Secret columns that are empty in a clone: the row stays, its credential does not.
pub const EMPTIED: [(&str, &str); 1] = [("device", "pin_hash")];

/// Secret columns that a clone has too.
pub const CLONED: [(&str, &str); 1] = [("member", "password_hash")];

/// Tables whose changes can be taken back, each after those it refers to, and which columns; without a list whole rows, made and removed ones too. The bytes
/// of a media are not the database's to bring back, nor is its state; credentials are nobody's.
pub const REVERTIBLE: [(&str, Option<&[&str]>); 5] = [
    ("device", None),
    ("media", Some(&["filename"])),
    ("member", None),
    ("member_role", None),
    ("schedule", None),
];

/// Secret columns that must have a value. The history has none, so a row that is read or made from it has the empty text there,
/// which no password, PIN or token matches.
pub const BLANK: [(&str, &str); 4] = [
    ("device", "pin_hash"),
    ("device_token", "token_hash"),
    ("member", "password_hash"),
    ("session", "token_hash"),
];

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
