//! SeaORM entities, and nothing else: [`platform`] holds the tables of the schema `bulkhead`, [`tenant`] the tables that
//! every tenant's schema has. Entities name no schema; the unit of work's search path does.

pub mod platform;
pub mod tenant;
