//! Exports: the trail of a tenant, written out for somebody to take along.

use super::event::record;
use super::line::{self, Persons};
use crate::clock::Timestamp;
use crate::database::{Database, Tenant, TenantTx};
use crate::error::{Error, Result};
use entity::tenant::history::{Action, Column, Entity};
use futures::stream::{self, Stream, StreamExt as _};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait as _, DbBackend, EntityTrait as _,
    PaginatorTrait as _, QueryFilter as _, Statement,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use uuid::Uuid;

/// Entries read at a time.
const SOME: i64 = 1000;
/// How often it is looked whether others' transactions are over, and how many times.
const WAIT: Duration = Duration::from_millis(200);
const WAITS: u32 = 3_000;
/// The columns of a table of entries, as the history names them.
const COLUMNS: [&str; 14] = [
    "id",
    "recorded_at",
    "subject_type",
    "subject_id",
    "action",
    "row",
    "before",
    "changed",
    "transaction_id",
    "actor",
    "cause",
    "request_id",
    "reason",
    "reverts",
];

/// How entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object a line, with all that the history has of the entry.
    JsonLines,
    /// A table with a header (RFC 4180), what is no text as JSON.
    Csv,
}

impl Format {
    /// The extension of such a file.
    pub fn ext(self) -> &'static str {
        match self {
            Self::JsonLines => "jsonl",
            Self::Csv => "csv",
        }
    }

    /// Its MIME type.
    pub fn mime(self) -> &'static str {
        match self {
            Self::JsonLines => "application/x-ndjson",
            Self::Csv => "text/csv",
        }
    }

    /// What is before the first entry.
    fn head(self) -> Vec<u8> {
        match self {
            Self::JsonLines => Vec::new(),
            Self::Csv => format!("{}\r\n", COLUMNS.join(",")).into_bytes(),
        }
    }

    fn line(self, to: &mut Vec<u8>, line: &Value) -> Result<()> {
        match self {
            Self::JsonLines => {
                serde_json::to_writer(&mut *to, line).map_err(Error::internal)?;
                to.push(b'\n');
            }
            Self::Csv => {
                let cells = COLUMNS.map(|column| cell(&line[column]));
                to.extend_from_slice(cells.join(",").as_bytes());
                to.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }
}

/// Which entries of a tenant, and how they are written.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Export {
    /// How.
    pub format: Format,
    /// Recorded at this time or later.
    pub from: Option<Timestamp>,
    /// Recorded before this time.
    pub until: Timestamp,
}

/// A part of what is written.
#[derive(Debug)]
pub struct Page {
    /// As they are written.
    pub bytes: Vec<u8>,
    /// Entries in it.
    pub entries: u64,
}

/// An entry's place in the order of the trail.
type Place = (Timestamp, Uuid);

impl Export {
    /// Notes in the trail that the entries are taken along. To be committed before the first is written.
    pub async fn note(&self, tx: &TenantTx) -> Result<()> {
        let detail = json!({ "format": self.format.ext(), "from": self.from, "until": self.until });
        let subject = ("tenant", tx.tenant().id);
        record(tx, subject, Action::Exported, detail).await
    }

    /// How many entries there are.
    pub async fn count(&self, database: &Database, tenant: &Arc<Tenant>) -> Result<u64> {
        let tx = database.read(tenant).await?;
        let from = self.from.map(|from| Column::RecordedAt.gte(from));
        let count = Entity::find()
            .filter(Condition::all().add_option(from))
            .filter(Column::RecordedAt.lt(self.until))
            .count(&tx)
            .await;
        tx.settle(count.map_err(Into::into)).await
    }

    /// The entries as they are written, oldest first, some at a time. Each page is read when it is asked for.
    pub fn pages(
        &self,
        database: &Database,
        tenant: &Arc<Tenant>,
    ) -> impl Stream<Item = Result<Page>> + Send {
        let head = Page {
            bytes: self.format.head(),
            entries: 0,
        };
        let rest = stream::try_unfold(None, move |after| async move {
            let tx = database.read(tenant).await?;
            let page = self.page(&tx, after).await;
            let page = tx.settle(page).await?;
            Ok(page.map(|(page, last)| (page, Some(last))))
        });
        stream::iter([Ok(head)]).chain(rest)
    }

    /// The entries after one, and the place of the last of them.
    async fn page(&self, tx: &TenantTx, after: Option<Place>) -> Result<Option<(Page, Place)>> {
        let (at, id) = after.unzip();
        let query = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT id, recorded_at FROM history
             WHERE recorded_at >= coalesce($1::timestamptz, $2::timestamptz, '-infinity') AND recorded_at < $3
                 AND ($1 IS NULL OR (recorded_at, id) > ($1, $4::uuid))
             ORDER BY recorded_at, id LIMIT $5",
            [
                at.into(),
                self.from.into(),
                self.until.into(),
                id.into(),
                SOME.into(),
            ],
        );
        let rows = tx.query_all_raw(query).await?;
        let Some(last) = rows.last() else {
            return Ok(None);
        };
        let last = (last.try_get("", "recorded_at")?, last.try_get("", "id")?);
        let ids = rows.iter().map(|row| row.try_get("", "id"));
        let ids: Vec<Uuid> = ids.collect::<std::result::Result<_, _>>()?;
        let lines = line::of(tx, &ids, Persons::Shown).await?;
        let mut bytes = Vec::new();
        for line in &lines {
            self.format.line(&mut bytes, line)?;
        }
        let entries = lines.len() as u64;
        Ok(Some((Page { bytes, entries }, last)))
    }
}

/// Waits until what is being written to the trail is written, or undone: an entry has the time of its statement, and is there
/// from its commit on. To be awaited before the first page: then no entry from before this is missing.
pub async fn settled(database: &Database, tenant: &Arc<Tenant>) -> Result<()> {
    let mut before = writers(database, tenant).await?;
    for _ in 0..WAITS {
        if before.is_empty() {
            return Ok(());
        }
        sleep(WAIT).await;
        let now = writers(database, tenant).await?;
        before.retain(|writer| now.contains(writer));
    }
    Err(Error::Timeout)
}

/// The transactions that have written to the trail and are not over, by the locks that they hold until then.
async fn writers(database: &Database, tenant: &Arc<Tenant>) -> Result<Vec<String>> {
    let tx = database.read(tenant).await?;
    let query = Statement::from_string(
        DbBackend::Postgres,
        "SELECT l.virtualtransaction AS writer FROM pg_locks l
         WHERE l.relation = 'history'::regclass AND l.mode = 'RowExclusiveLock' AND l.granted
             AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())",
    );
    let rows = tx.query_all_raw(query).await;
    let rows = tx.settle(rows.map_err(Into::into)).await?;
    let writers = rows.iter().map(|row| row.try_get("", "writer"));
    Ok(writers.collect::<std::result::Result<_, _>>()?)
}

/// The time by PostgreSQL's clock, which entries have theirs from.
pub async fn now(tx: &TenantTx) -> Result<Timestamp> {
    let now = Statement::from_string(DbBackend::Postgres, "SELECT clock_timestamp() AS now");
    let row = tx.query_one_raw(now).await?;
    let row = row.ok_or_else(|| Error::internal("PostgreSQL does not know the time"))?;
    Ok(row.try_get("", "now")?)
}

/// A cell. A text that a spreadsheet would take for a formula begins with an apostrophe, as it would have it.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => {
            format!("'{text}")
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.contains([',', '"', '\r', '\n']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_one_cell_and_no_formula() {
        for (value, text) in [
            (json!(null), ""),
            (json!("plain"), "plain"),
            (json!(7), "7"),
            (json!("a,\"b\"\n"), "\"a,\"\"b\"\"\n\""),
            (json!("=1+1"), "'=1+1"),
            (json!({ "a": 1 }), "\"{\"\"a\"\":1}\""),
        ] {
            assert_eq!(cell(&value), text);
        }
    }
}
