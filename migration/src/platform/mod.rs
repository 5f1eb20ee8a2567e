//! Steps of the schema `bulkhead`, in order.

use sea_orm_migration::prelude::*;

mod m0001_registry;
mod m0002_job;

/// The ordered list.
pub fn migrations() -> Vec<Box<dyn MigrationTrait>> {
    vec![
        Box::new(m0001_registry::Migration),
        Box::new(m0002_job::Migration),
    ]
}
