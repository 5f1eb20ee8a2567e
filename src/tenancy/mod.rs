//! Tenants: who they are, which host is whose, and how one comes into being.

mod create;
pub mod graphql;
pub mod host;
mod registry;
mod template;

pub use create::{NewTenant, create};
pub use registry::{Registry, all, by_slug, domains};
pub use template::render as render_template;
