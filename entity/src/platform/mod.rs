//! Tables of the schema `bulkhead`: what belongs to no tenant.

pub mod cell;
pub mod domain;
pub mod operator_log;
pub mod tenant;
