//! Expressions of times, and which times are due by them.

use crate::clock::Timestamp;
use chrono::TimeDelta;
use chrono_tz::Tz;
pub use entity::tenant::schedule::CatchUp;
use std::str::FromStr as _;

/// How late a time may be and still be on time.
const LATE: TimeDelta = TimeDelta::minutes(1);
/// Times that are made up for at once at most, the newest.
const MOST: usize = 1000;

/// An expression that was understood.
#[derive(Clone, Debug)]
pub(super) struct Times {
    schedule: croner::Cron,
    zone: Tz,
}

impl Times {
    /// From five fields: minute, hour, day of the month, month, day of the week (POSIX crontab), and a time zone of the IANA
    /// database. Or why not.
    pub(super) fn parse(expression: &str, time_zone: &str) -> Result<Self, String> {
        if expression.split_whitespace().count() != 5 {
            return Err("an expression has five fields: minute, hour, day, month, weekday".into());
        }
        Ok(Self {
            schedule: croner::Cron::from_str(expression).map_err(|e| e.to_string())?,
            zone: Tz::from_str(time_zone).map_err(|e| e.to_string())?,
        })
    }

    /// The times after this one; none if there are none any more.
    pub(super) fn after(&self, time: Timestamp) -> impl Iterator<Item = Timestamp> {
        let times = self.schedule.iter_after(time.with_timezone(&self.zone));
        times.map(|time| time.to_utc())
    }

    /// The times after `last` up to `now`, oldest first, and whether each is to have its jobs.
    pub(super) fn due(
        &self,
        catch_up: CatchUp,
        last: Timestamp,
        now: Timestamp,
    ) -> Vec<(Timestamp, bool)> {
        let mut times: Vec<Timestamp> = self.after(last).take_while(|time| *time <= now).collect();
        times.dedup();
        let missed = times.len().saturating_sub(MOST);
        times.drain(..missed);
        let Some(newest) = times.last().copied() else {
            return Vec::new();
        };
        match catch_up {
            CatchUp::All => times.into_iter().map(|time| (time, true)).collect(),
            CatchUp::Last => vec![(newest, true)],
            CatchUp::Skip => vec![(newest, now - newest <= LATE)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn due(catch_up: CatchUp, last: &str, now: &str) -> Vec<(String, bool)> {
        let hourly = Times::parse("0 * * * *", "UTC").unwrap();
        let due = hourly.due(catch_up, at(last), at(now)).into_iter();
        due.map(|(time, runs)| (time.format("%dT%H:%M").to_string(), runs))
            .collect()
    }

    #[test]
    fn missed_times_are_made_up_for_as_asked() {
        let (last, now) = ("2026-01-05T00:30:00Z", "2026-01-05T03:10:00Z");
        assert_eq!(
            due(CatchUp::All, last, now),
            ["05T01:00", "05T02:00", "05T03:00"].map(|time| (time.to_owned(), true))
        );
        let newest = |runs| [("05T03:00".to_owned(), runs)];
        assert_eq!(due(CatchUp::Last, last, now), newest(true));
        assert_eq!(due(CatchUp::Skip, last, now), newest(false));
        let on_time = due(CatchUp::Skip, last, "2026-01-05T03:00:30Z");
        assert_eq!(on_time, newest(true));
        let again = due(CatchUp::Last, "2026-01-05T03:00:00Z", now);
        assert_eq!(again, [], "each time once");
    }

    #[test]
    fn a_time_of_a_zone_is_there_once_a_day_on_any_day() {
        let nightly = Times::parse("30 2 * * *", "Europe/Berlin").unwrap();
        // Clocks go forward on 29 March, back on 25 October.
        for (last, now) in [
            ("2026-03-27T12:00:00Z", "2026-03-31T12:00:00Z"),
            ("2026-10-23T12:00:00Z", "2026-10-27T12:00:00Z"),
        ] {
            let times = nightly.due(CatchUp::All, at(last), at(now));
            assert_eq!(times.len(), 4, "{times:?}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        assert!(Times::parse("61 * * * *", "UTC").is_err());
        assert!(Times::parse("* * * * * *", "UTC").is_err(), "seconds");
        assert!(Times::parse("* * * * *", "Mars/Base").is_err());
        let never = Times::parse("0 0 30 2 *", "UTC");
        let first = |times: Times| times.after(at("2026-01-05T00:00:00Z")).next();
        assert!(never.ok().and_then(first).is_none());
    }
}
