//! Time, ids and randomness: the only place that makes them.

use chrono::{DateTime, SubsecRound, Utc};
use uuid::Uuid;

/// An instant in UTC. PostgreSQL keeps microseconds.
pub type Timestamp = DateTime<Utc>;

/// Where operations take the time and new ids from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// The time, cut to the microseconds that PostgreSQL keeps, so that what is returned equals what is stored.
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn now(self) -> Timestamp {
        Utc::now().trunc_subsecs(6)
    }

    /// A new UUIDv7 (RFC 9562 §5.7): ids sort by the time they were made.
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn new_id(self) -> Uuid {
        Uuid::now_v7()
    }
}
