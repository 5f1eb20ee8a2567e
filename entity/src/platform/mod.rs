//! Tables of the schema `bulkhead`: what belongs to no tenant.

pub mod cell;
pub mod domain;
pub mod erasure;
pub mod operator_log;
pub mod plan;
pub mod seal;
pub mod seal_checkpoint;
pub mod seal_head;
pub mod spare;
pub mod tenant;
