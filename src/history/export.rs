//! Exports: the trail of a tenant, written out for somebody to take along.

use super::event::record;
use super::line::{self, Persons};
use crate::actor::Attribution;
use crate::clock::Timestamp;
use crate::database::{Database, Tenant, TenantTx};
use crate::error::{Error, Result};
use entity::tenant::history::{Action, Column, Entity};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait as _, DbBackend, EntityTrait as _,
    PaginatorTrait as _, QueryFilter as _, Statement,
};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;
use uuid::Uuid;

/// Entries read at a time.
const SOME: i64 = 1000;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line, with all that the history has of the entry.
    JsonLines,
    /// A table with a header (RFC 4180), what is no text as JSON.
    Csv,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::JsonLines => "jsonl",
            Self::Csv => "csv",
        }
    }
}

/// Which entries of which tenant, and how they are written.
#[derive(Clone, Debug)]
pub struct Export {
    /// Whose.
    pub tenant: Arc<Tenant>,
    /// Recorded at this time or later.
    pub from: Option<Timestamp>,
    /// Recorded before this time.
    pub until: Timestamp,
    /// How.
    pub format: Format,
}

impl Export {
    /// How many entries there are.
    pub async fn count(&self, database: &Database) -> Result<u64> {
        let tx = database.read(&self.tenant).await?;
        let from = self.from.map(|from| Column::RecordedAt.gte(from));
        let count = Entity::find()
            .filter(Condition::all().add_option(from))
            .filter(Column::RecordedAt.lt(self.until))
            .count(&tx)
            .await;
        tx.settle(count.map_err(Into::into)).await
    }

    /// Writes the entries, oldest first, and returns how many. That they are taken along is in the trail before the first is
    /// written. `told` hears of each page.
    pub async fn write(
        &self,
        database: &Database,
        by: &Attribution,
        to: &mut impl Write,
        told: impl Fn(u64),
    ) -> Result<u64> {
        let tx = database.write(&self.tenant, by).await?;
        let detail =
            json!({ "format": self.format.name(), "from": self.from, "until": self.until });
        let subject = ("tenant", self.tenant.id);
        let noted = record(&tx, subject, Action::Exported, detail).await;
        tx.settle(noted).await?;
        if self.format == Format::Csv {
            to.write_all(format!("{}\r\n", COLUMNS.join(",")).as_bytes())
                .map_err(Error::internal)?;
        }
        let (mut count, mut after) = (0, None);
        loop {
            let tx = database.read(&self.tenant).await?;
            let page = self.page(&tx, after).await;
            let (last, lines) = tx.settle(page).await?;
            for line in &lines {
                self.line(to, line).map_err(Error::internal)?;
            }
            count += lines.len() as u64;
            told(lines.len() as u64);
            match last {
                Some(last) => after = Some(last),
                None => return Ok(count),
            }
        }
    }

    /// The entries after one, and the last of them.
    async fn page(
        &self,
        tx: &TenantTx,
        after: Option<(Timestamp, Uuid)>,
    ) -> Result<(Option<(Timestamp, Uuid)>, Vec<Value>)> {
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
        let mut ids = Vec::with_capacity(rows.len());
        for row in &rows {
            ids.push(row.try_get("", "id")?);
        }
        let last = match rows.last() {
            Some(row) => Some((row.try_get("", "recorded_at")?, row.try_get("", "id")?)),
            None => None,
        };
        Ok((last, line::of(tx, &ids, Persons::Shown).await?))
    }

    fn line(&self, to: &mut impl Write, line: &Value) -> std::io::Result<()> {
        match self.format {
            Format::JsonLines => {
                serde_json::to_writer(&mut *to, line)?;
                to.write_all(b"\n")
            }
            Format::Csv => {
                let cells = COLUMNS.map(|column| cell(&line[column]));
                to.write_all(format!("{}\r\n", cells.join(",")).as_bytes())
            }
        }
    }
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
