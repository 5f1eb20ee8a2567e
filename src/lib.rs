//! Bulkhead: a multi-tenant backend. This page is the map.
//!
//! Layers, lowest first; a module uses those before it (`tests/it/layers.rs` holds it):
//! 0. [`error`], [`code`], [`clock`], [`config`], [`telemetry`], [`secret`], [`actor`], [`permission`], [`caller`],
//!    [`body`]
//! 1. [`database`]: connects, begins, binds, commits
//! 2. [`tenancy`], [`history`], [`feed`], [`rates`], [`mail`], and `media::store`
//! 3. [`services`]: one of each of the above
//! 4. [`jobs`] and [`graphql`], the frameworks
//! 5. [`identity`], [`devices`], [`media`], and every module's `graphql.rs`, `http.rs` and `jobs.rs`
//! 6. [`resources`], [`app`]
//! 7. [`http`], [`console`], [`cli`]
//!
//! A mutation, `deviceUpdate`: `http/` (route, layers) → `graphql/door.rs` → `resources.rs` → `devices/graphql.rs`
//! (permission, unit of work) → `devices/mod.rs` (the operation) → `database/unit.rs` (commit: row, history and job).
//!
//! A job: its row came with its cause → `jobs/dispatcher.rs` claims it → `media/jobs.rs` runs, bound to the row's tenant →
//! `jobs/ends.rs` writes down how it ended.
//!
//! How to add a resource: [`resources`].

pub mod actor;
pub mod app;
pub mod body;
pub mod caller;
pub mod cli;
pub mod clock;
pub mod code;
pub mod config;
pub mod console;
pub mod database;
pub mod devices;
pub mod error;
pub mod feed;
pub mod graphql;
pub mod history;
pub mod http;
pub mod identity;
pub mod jobs;
pub mod mail;
pub mod media;
pub mod permission;
pub mod rates;
pub mod resources;
pub mod secret;
pub mod services;
pub mod telemetry;
pub mod tenancy;

/// What must not build; `cargo test --doc` tries.
#[cfg(doctest)]
#[doc = include_str!("../tests/ui/does_not_build.md")]
struct DoesNotBuild;
