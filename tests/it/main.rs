//! The one integration binary: a file a resource, through the public doors, against a real PostgreSQL.

#![expect(unreachable_pub, reason = "a test binary has no public surface")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "all of it is tests, helpers too"
)]

mod azure;
mod dev;
mod harness;
mod jobs;
mod layers;
mod managed;
mod media;
mod playground;
mod schema;
mod smoke;
