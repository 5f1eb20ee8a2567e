//! Time, ids and randomness: the only place that makes them.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use uuid::Uuid;

/// An instant in UTC. PostgreSQL keeps microseconds.
pub type Timestamp = DateTime<Utc>;

/// Where operations take the time and new ids from: the machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    off: TimeDelta,
}

impl Clock {
    /// A clock that is wrong by this: ahead, or behind if it is negative. Those of two machines never agree.
    pub fn off_by(off: TimeDelta) -> Self {
        Self { off }
    }

    /// The time, cut to the microseconds that PostgreSQL keeps, so that what is returned equals what is stored.
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn now(self) -> Timestamp {
        (Utc::now() + self.off).trunc_subsecs(6)
    }

    /// A new UUIDv7 (RFC 9562 §5.7): ids sort by the time they were made.
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub fn new_id(self) -> Uuid {
        // The first 48 bits are milliseconds.
        let off = i128::from(self.off.num_milliseconds()) << 80;
        Uuid::from_u128(Uuid::now_v7().as_u128().wrapping_add_signed(off))
    }
}
