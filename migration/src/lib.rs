//! The steps that make and change the schemas: [`platform`] for `bulkhead`, [`tenant`] for every tenant's.
//!
//! A step runs in one transaction whose search path is the one schema it is for, so it names no schema but the
//! platform's. It adds: columns and tables, never a change of a column's type; what it takes away no older binary uses. Tenant
//! steps call [`history::audited`] for each new table.

pub mod history;
pub mod platform;
pub mod tenant;

use sea_orm_migration::prelude::*;

/// Runs several statements of a step, in order.
async fn run(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    for statement in statements {
        manager
            .get_connection()
            .execute_unprepared(statement)
            .await?;
    }
    Ok(())
}
