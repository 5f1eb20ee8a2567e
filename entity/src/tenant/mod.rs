//! The tables that every tenant has. This is the list.

pub mod device;
pub mod device_token;
pub mod history;
pub mod idempotency_key;
pub mod media;
pub mod member;
pub mod member_role;
pub mod role;
pub mod schedule;
pub mod session;
