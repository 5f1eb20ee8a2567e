//! What was committed at one moment, as PostgreSQL says it.

use crate::error::{Error, Result};
use sea_orm::{ConnectionTrait, DbBackend, Statement};

/// The transactions that were over at one moment (PostgreSQL, "pg_snapshot"): `10:20:10,14` is all before 20 but 10 and 14.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The first that had not begun.
    pub next: i64,
    /// Those before it that were not over.
    pub running: Vec<i64>,
}

impl Snapshot {
    /// Of this moment.
    pub async fn take(tx: &impl ConnectionTrait) -> Result<Self> {
        let query = Statement::from_string(
            DbBackend::Postgres,
            "SELECT txid_current_snapshot()::text AS snapshot",
        );
        let row = tx.query_one_raw(query).await?;
        let text: String = row.map_or(Ok(String::new()), |row| row.try_get("", "snapshot"))?;
        Self::parse(&text).ok_or_else(|| Error::internal(format!("not a snapshot: {text}")))
    }

    /// Whether the transaction was over.
    pub fn has(&self, transaction: i64) -> bool {
        transaction < self.next && !self.running.contains(&transaction)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':').skip(1);
        let next = parts.next()?.parse().ok()?;
        let running = parts.next()?.split(',').filter(|id| !id.is_empty());
        Some(Self {
            next,
            running: running.map(|id| id.parse().ok()).collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_what_was_over() {
        let busy = Snapshot::parse("10:20:10,14").unwrap();
        let had: Vec<_> = (8..22).filter(|&id| busy.has(id)).collect();
        assert_eq!(had, [8, 9, 11, 12, 13, 15, 16, 17, 18, 19]);
        let quiet = Snapshot::parse("10:10:").unwrap();
        assert!(quiet.has(9) && !quiet.has(10));
        for text in ["", "10", "10:20", "10:x:", "10:20:1,,x"] {
            assert_eq!(Snapshot::parse(text), None, "{text}");
        }
    }
}
