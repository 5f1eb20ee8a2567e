//! The chain: what a link is made of, and how entries are read for it.

use super::keys::Key;
use crate::database::TenantTx;
use crate::error::{Error, Result};
use crate::history::ERASED;
use crate::secret::token_hash;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde::Deserialize;
use uuid::Uuid;

/// Bytes of a link.
pub(super) const LINK: usize = 32;
/// Entries of a seal at most.
pub(super) const ENTRIES: usize = 1000;

/// Entries by their ids, in the order of those, each as one text: PostgreSQL's own of a row, with the time in microseconds, so
/// that it is the same on every server and whatever columns are added later. An entry that is not there has none. Of personal
/// values, the text has the commitment.
const READ: &str = "SELECT CASE WHEN h.id IS NULL THEN NULL
        WHEN h.person IS NULL THEN ROW(h.id, (extract(epoch FROM h.recorded_at) * 1000000)::bigint,
            h.subject_type, h.subject_id, h.action, h.row, h.before, h.changed, h.transaction_id, h.actor, h.cause, h.request_id,
            h.reason, h.reverts)::text
        ELSE ROW(h.id, (extract(epoch FROM h.recorded_at) * 1000000)::bigint,
            h.subject_type, h.subject_id, h.action, h.row - h.personal, h.before - h.personal, h.changed, h.transaction_id,
            h.actor, h.cause, h.request_id, h.reason, h.reverts, h.person, h.personal, h.commitment)::text END AS entry,
        CASE WHEN h.person IS NOT NULL THEN json_build_array(h.person, h.salt, h.commitment, (
            SELECT jsonb_agg(jsonb_build_array(h.row -> name, h.before -> name) ORDER BY u.at)::text
            FROM unnest(h.personal) WITH ORDINALITY u (name, at)))::text END AS person
    FROM unnest($1::uuid[]) WITH ORDINALITY wanted (id, at) LEFT JOIN history h ON h.id = wanted.id ORDER BY wanted.at";

/// An entry, as it is sealed.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) text: String,
    person: Option<Person>,
}

/// What it has of a person besides: the person, the salt, the commitment, and for each column its value and the one before.
#[derive(Clone, Debug, Deserialize)]
struct Person(Uuid, Option<String>, Option<String>, Option<String>);

impl Entry {
    /// The person whose values were taken out of it.
    pub(super) fn erased(&self) -> Option<Uuid> {
        let Person(id, salt, ..) = self.person.as_ref()?;
        salt.is_none().then_some(*id)
    }

    /// Whether its personal values are what the sealed text commits to; or nothing, if they were taken out.
    pub(super) fn is_committed(&self) -> bool {
        let Some(Person(_, salt, commitment, values)) = &self.person else {
            return true;
        };
        let values = values.as_deref().unwrap_or_default();
        match salt {
            Some(salt) => Some(token_hash(&format!("{salt}{values}"))) == *commitment,
            None => {
                let values: Option<Vec<[Option<String>; 2]>> = serde_json::from_str(values).ok();
                let gone = |value: Option<String>| value.is_none_or(|value| value == ERASED);
                values.is_some_and(|values| values.into_iter().flatten().all(gone))
            }
        }
    }
}

/// The entries with these ids, as they are sealed.
pub(super) async fn read(tx: &TenantTx, ids: &[Uuid]) -> Result<Vec<Option<Entry>>> {
    let values = [ids.to_vec().into()];
    let query = Statement::from_sql_and_values(DbBackend::Postgres, READ, values);
    let rows = tx.query_all_raw(query).await?;
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        let text: Option<String> = row.try_get("", "entry")?;
        let person: Option<String> = row.try_get("", "person")?;
        let person = person
            .map(|person| serde_json::from_str(&person))
            .transpose();
        let person = person.map_err(Error::internal)?;
        entries.push(text.map(|text| Entry { text, person }));
    }
    Ok(entries)
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
