//! The chain: what a link is made of, and how entries are read for it.

use super::keys::Key;
use crate::database::TenantTx;
use crate::error::Result;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use uuid::Uuid;

/// Bytes of a link.
pub(super) const LINK: usize = 32;
/// Entries of a seal at most.
pub(super) const ENTRIES: usize = 1000;

/// Entries by their ids, in the order of those, each as one text: PostgreSQL's own of a row, with the time in microseconds, so
/// that it is the same on every server and whatever columns are added later. An entry that is not there has none.
const READ: &str = "SELECT CASE WHEN h.id IS NULL THEN NULL ELSE ROW(h.id, (extract(epoch FROM h.recorded_at) * 1000000)::bigint,
        h.subject_type, h.subject_id, h.action, h.row, h.before, h.changed, h.transaction_id, h.actor, h.cause, h.request_id,
        h.reason, h.reverts)::text END AS entry
    FROM unnest($1::uuid[]) WITH ORDINALITY wanted (id, at) LEFT JOIN history h ON h.id = wanted.id ORDER BY wanted.at";

/// The entries with these ids, as they are sealed.
pub(super) async fn read(tx: &TenantTx, ids: &[Uuid]) -> Result<Vec<Option<String>>> {
    let values = [ids.to_vec().into()];
    let query = Statement::from_sql_and_values(DbBackend::Postgres, READ, values);
    let rows = tx.query_all_raw(query).await?;
    let entries = rows.iter().map(|row| row.try_get("", "entry"));
    Ok(entries.collect::<std::result::Result<_, _>>()?)
}

/// The end of a chain: as many entries, the last of which has this link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) number: i64,
    pub(super) link: Vec<u8>,
}

impl End {
    /// Goes on with one entry more: the link binds it to its tenant, its number, and all before it.
    pub(super) fn advance(&mut self, key: &Key, tenant: Uuid, entry: &str) {
        self.number += 1;
        let number = self.number.to_be_bytes();
        let parts = [tenant.as_bytes(), &number[..], &self.link, entry.as_bytes()];
        self.link = key.mac("history link 1", &parts).to_vec();
    }
}
