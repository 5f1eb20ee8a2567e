//! The one integration binary: a file a resource, through the public doors, against a real PostgreSQL.

#![expect(unreachable_pub, reason = "a test binary has no public surface")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod devices;
mod graphql;
mod harness;
mod identity;
mod isolation;
mod layers;
mod managed;
mod schema;
mod smoke;
