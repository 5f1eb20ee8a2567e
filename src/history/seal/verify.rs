//! Verifying: the chain is made again from what is there, and compared link by link.

use super::anchor;
use super::chain::{self, End, LINK};
use super::{Head, Keys, head, seals};
use crate::database::{Database, Tenant, TenantTx};
use crate::error::Result;
use crate::media::store::Store;
use entity::platform::seal;
use sea_orm::{ConnectionTrait as _, DbBackend, FromQueryResult, Statement};
use serde::Serialize;
use std::sync::Arc;
use uuid::Uuid;

/// Seals read at a time.
const SEALS: u64 = 10;

/// What was found of one tenant's history.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// Whose.
    pub tenant: String,
    /// Entries whose links are good.
    pub entries: i64,
    /// Entries that came too lately to be sealed.
    pub unsealed: i64,
    /// The number of the newest anchor, which the chain was held against.
    pub anchored: Option<i64>,
    /// The first thing that is wrong.
    pub fault: Option<Fault>,
}

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Fault {
    /// The entry with this number is not what was sealed: it was changed, or is another's.
    Changed {
        /// Its number.
        number: i64,
        /// Its id.
        id: Uuid,
    },
    /// The entry with this number is not there.
    Missing {
        /// Its number.
        number: i64,
        /// Its id.
        id: Uuid,
    },
    /// There is an entry that was never sealed, older than the newest that are.
    Inserted {
        /// Its id.
        id: Uuid,
    },
    /// The seals from this number on are not there.
    SealMissing {
        /// The number.
        number: i64,
    },
    /// The seal from this number on is no seal.
    SealBroken {
        /// The number.
        number: i64,
    },
    /// The seal from this number on was made with a key that is not configured.
    KeyUnknown {
        /// The number.
        number: i64,
        /// The key's id.
        key: String,
    },
    /// The chain ends before its anchor.
    CutOff {
        /// Where it ends.
        number: i64,
        /// Where it was.
        anchored: i64,
    },
    /// The chain is not the one that was anchored.
    NotAnchored {
        /// The number of the anchor.
        anchored: i64,
    },
    /// The newest anchor is not in the object store.
    AnchorMissing {
        /// Its number.
        anchored: i64,
    },
}

/// Verifies a tenant's history as far as it is sealed now. `told` hears how many entries more were looked at.
pub async fn verify(
    (database, store): (&Database, &Store),
    keys: &Keys,
    tenant: &Arc<Tenant>,
    told: impl Fn(u64),
) -> Result<Verified> {
    let mut verified = Verified {
        tenant: tenant.slug.clone(),
        entries: 0,
        unsealed: 0,
        anchored: None,
        fault: None,
    };
    // Before the head: it can only be older.
    let anchor = anchor::newest(store, keys, tenant).await?;
    let Some(head) = head(database, tenant.id).await? else {
        return Ok(verified);
    };
    let mut walk = Walk {
        database,
        keys,
        tenant,
        end: End {
            number: 0,
            link: Vec::new(),
        },
        anchor: anchor
            .as_ref()
            .map(|anchor| (anchor.number, anchor.link.clone())),
    };
    verified.anchored = anchor.map(|anchor| anchor.number);
    verified.fault = walk.seals(&head, told).await?;
    verified.entries = walk.end.number;
    if verified.fault.is_none() {
        verified.fault = walk.ends(&head);
    }
    if verified.fault.is_none() {
        let rest = rest(database, tenant, &head).await?;
        verified.unsealed = rest.unsealed;
        if rest.sealed > head.number {
            verified.fault = walk.inserted(&head).await?;
        }
    }
    Ok(verified)
}

/// Where a verification is.
struct Walk<'a> {
    database: &'a Database,
    keys: &'a Keys,
    tenant: &'a Arc<Tenant>,
    end: End,
    /// The number of the newest anchor, and its link.
    anchor: Option<(i64, String)>,
}

impl Walk<'_> {
    /// All seals up to the head, in order, until the first fault.
    async fn seals(&mut self, head: &Head, told: impl Fn(u64)) -> Result<Option<Fault>> {
        while self.end.number < head.number {
            let tx = self.database.platform().await?;
            let some = seals(&tx, self.tenant.id, self.end.number, SEALS).await?;
            tx.commit().await?;
            if some.is_empty() {
                let number = self.end.number + 1;
                return Ok(Some(Fault::SealMissing { number }));
            }
            let tx = self.database.read(self.tenant).await?;
            let fault = self.some(&tx, some, &told).await;
            if let Some(fault) = tx.settle(fault).await? {
                return Ok(Some(fault));
            }
        }
        Ok(None)
    }

    async fn some(
        &mut self,
        tx: &TenantTx,
        seals: Vec<seal::Model>,
        told: &impl Fn(u64),
    ) -> Result<Option<Fault>> {
        for seal in seals {
            let entries = chain::read(tx, &seal.entries).await?;
            let fault = self.compare(&seal, &entries);
            if fault.is_some() {
                return Ok(fault);
            }
            told(seal.entries.len() as u64);
        }
        Ok(None)
    }

    /// One seal, against the entries that are there.
    fn compare(&mut self, seal: &seal::Model, entries: &[Option<String>]) -> Option<Fault> {
        let number = self.end.number + 1;
        if seal.first != number {
            return Some(Fault::SealMissing { number });
        }
        let Some(key) = self.keys.named(&seal.key_id) else {
            let key = seal.key_id.clone();
            return Some(Fault::KeyUnknown { number, key });
        };
        let count = seal.entries.len();
        let last = number.checked_add(i64::try_from(count).unwrap_or(i64::MAX) - 1);
        if count == 0 || last != Some(seal.last) || seal.links.len() != count * LINK {
            return Some(Fault::SealBroken { number });
        }
        let sealed = seal.entries.iter().zip(seal.links.chunks(LINK));
        for ((id, link), entry) in sealed.zip(entries) {
            let (number, id) = (self.end.number + 1, *id);
            let Some(entry) = entry else {
                return Some(Fault::Missing { number, id });
            };
            let mut end = self.end.clone();
            end.advance(key, self.tenant.id, entry);
            if end.link != link {
                return Some(Fault::Changed { number, id });
            }
            self.end = end;
            let anchor = self.anchor.as_ref().filter(|(at, _)| *at == number);
            if anchor.is_some_and(|(_, link)| *link != crate::secret::hex(&self.end.link)) {
                return Some(Fault::NotAnchored { anchored: number });
            }
        }
        None
    }

    /// Whether the chain ends where its head and its anchor say.
    fn ends(&self, head: &Head) -> Option<Fault> {
        let number = self.end.number;
        let anchored = self.anchor.as_ref().map_or(0, |(number, _)| *number);
        if number < anchored {
            return Some(Fault::CutOff { number, anchored });
        }
        if anchored < head.anchored {
            let anchored = head.anchored;
            return Some(Fault::AnchorMissing { anchored });
        }
        (self.end.link != head.link).then_some(Fault::SealBroken { number })
    }

    /// An entry that no seal has, of those that all would have to be sealed. They are told apart by their ids alone: an entry
    /// cannot hide by its time.
    async fn inserted(&self, head: &Head) -> Result<Option<Fault>> {
        let mut sealed = std::collections::HashSet::new();
        let mut after = 0;
        while after < head.number {
            let tx = self.database.platform().await?;
            let some = seals(&tx, self.tenant.id, after, SEALS).await?;
            tx.commit().await?;
            let Some(last) = some.last() else { break };
            after = last.last;
            sealed.extend(some.into_iter().flat_map(|seal| seal.entries));
        }
        let mut last = Uuid::nil();
        loop {
            let tx = self.database.read(self.tenant).await?;
            let ids = due(&tx, head, last).await;
            let ids = tx.settle(ids).await?;
            let Some(newest) = ids.last() else {
                return Ok(None);
            };
            last = *newest;
            if let Some(id) = ids.into_iter().find(|id| !sealed.contains(id)) {
                return Ok(Some(Fault::Inserted { id }));
            }
        }
    }
}

/// What a history has besides what was walked.
#[derive(Debug, FromQueryResult)]
struct Rest {
    sealed: i64,
    unsealed: i64,
}

/// Entries that have to be sealed by the head's own word.
const DUE: &str = "((transaction_id < $1 AND transaction_id <> ALL ($2)) OR recorded_at < $3)";

async fn rest(database: &Database, tenant: &Arc<Tenant>, head: &Head) -> Result<Rest> {
    let tx = database.read(tenant).await?;
    let sql = format!(
        "SELECT count(*) FILTER (WHERE {DUE} IS TRUE) AS sealed, count(*) FILTER (WHERE {DUE} IS NOT TRUE) AS unsealed FROM history"
    );
    let query = Statement::from_sql_and_values(DbBackend::Postgres, sql, due_values(head));
    let rest = Rest::find_by_statement(query).one(&tx).await;
    let rest = tx.settle(rest.map_err(Into::into)).await?;
    Ok(rest.unwrap_or(Rest {
        sealed: 0,
        unsealed: 0,
    }))
}

async fn due(tx: &TenantTx, head: &Head, after: Uuid) -> Result<Vec<Uuid>> {
    let sql = format!("SELECT id FROM history WHERE {DUE} AND id > $4 ORDER BY id LIMIT 10000");
    let mut values = due_values(head);
    values.push(after.into());
    let query = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
    let rows = tx.query_all_raw(query).await?;
    let ids = rows.iter().map(|row| row.try_get("", "id"));
    Ok(ids.collect::<std::result::Result<_, _>>()?)
}

fn due_values(head: &Head) -> Vec<sea_orm::Value> {
    vec![
        head.next.into(),
        head.running.clone().into(),
        head.since.into(),
    ]
}
