//! The one integration binary: a file or folder a resource, through the public doors, against a real PostgreSQL.

#![expect(unreachable_pub, reason = "a test binary has no public surface")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "all of it is tests, helpers too: a test says by failing what it did not expect"
)]

mod azure;
mod browser;
mod config;
mod database;
mod dev;
mod devices;
mod graphql;
mod harness;
mod history;
mod http;
mod identity;
mod isolation;
mod jobs;
mod layers;
mod mail;
mod managed;
mod media;
mod playground;
mod schema;
mod smoke;
mod subscriptions;
mod tenancy;
