//! Tenants: who they are, which host is whose, and how one comes into being.

pub mod cells;
pub mod check;
pub mod clone;
mod create;
mod dns;
pub mod doctor;
pub mod domain;
pub mod erase;
pub mod fingerprint;
pub mod graphql;
mod home;
pub mod host;
pub mod jobs;
mod keeper;
pub mod lifecycle;
pub mod limits;
pub mod log;
pub mod quota;
mod registry;
pub mod retries;
pub mod spares;
mod template;

pub use create::{NewTenant, create};
pub use dns::{Dns, Record};
pub use keeper::Keeper;
pub use log::Act;
pub use registry::{Registry, all, by_slug, domains};
pub use template::render as render_template;
