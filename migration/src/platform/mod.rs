//! Steps of the schema `bulkhead`, in order.

use sea_orm_migration::prelude::*;

mod m0001_registry;
mod m0002_job;
mod m0003_tenancy;
mod m0004_cells;
mod m0005_domain;
mod m0006_acting;
mod m0007_job_result;
mod m0008_job_changes;
mod m0009_queue;
mod m0010_claim;
mod m0011_job_ends;
mod m0012_job_doors;
mod m0013_cron;
mod m0020_seal;
mod m0021_operators_trail;
mod m0023_retention;
mod m0024_audit_stream;
mod m0030_claim;
mod m0031_few_lanes;
mod m0032_promote;
mod m0033_batches;
mod m0034_schedule;
mod m0035_breaker;
mod m0036_triggers;
mod m0037_take;
mod m0038_queues;

/// The ordered list.
pub fn migrations() -> Vec<Box<dyn MigrationTrait>> {
    vec![
        Box::new(m0001_registry::Migration),
        Box::new(m0002_job::Migration),
        Box::new(m0003_tenancy::Migration),
        Box::new(m0004_cells::Migration),
        Box::new(m0005_domain::Migration),
        Box::new(m0006_acting::Migration),
        Box::new(m0007_job_result::Migration),
        Box::new(m0008_job_changes::Migration),
        Box::new(m0009_queue::Migration),
        Box::new(m0010_claim::Migration),
        Box::new(m0011_job_ends::Migration),
        Box::new(m0012_job_doors::Migration),
        Box::new(m0013_cron::Migration),
        Box::new(m0020_seal::Migration),
        Box::new(m0021_operators_trail::Migration),
        Box::new(m0023_retention::Migration),
        Box::new(m0024_audit_stream::Migration),
        Box::new(m0030_claim::Migration),
        Box::new(m0031_few_lanes::Migration),
        Box::new(m0032_promote::Migration),
        Box::new(m0033_batches::Migration),
        Box::new(m0034_schedule::Migration),
        Box::new(m0035_breaker::Migration),
        Box::new(m0036_triggers::Migration),
        Box::new(m0037_take::Migration),
        Box::new(m0038_queues::Migration),
    ]
}
