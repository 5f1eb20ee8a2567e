//! Embedded web assets. They are built by npm and committed, so that cargo never calls npm.

use rust_embed::RustEmbed;

/// The GraphiQL playground, from `web/playground`.
#[derive(Debug, RustEmbed)]
#[folder = "web/playground/dist"]
pub struct Playground;
