//! Verifying: the chain is made again from what is there, and compared link by link.

use super::anchor;
use super::chain::{self, End, Entry, LINK};
use super::checkpoint::{self, Checkpoint, Link};
use super::{Head, Keys, head, seals};
use crate::clock::Timestamp;
use crate::database::{Database, Tenant, TenantTx, any};
use crate::error::Result;
use crate::media::store::Store;
use entity::platform::seal;
use entity::tenant::history;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sea_orm::sea_query::ExprTrait as _;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, FromQueryResult,
    QueryFilter as _, QuerySelect as _, Statement,
};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use uuid::Uuid;

/// Seals read at a time.
const SEALS: u64 = 50;
/// Seals whose entries are read side by side: PostgreSQL takes longer to write them out than it takes to make their links.
const AT_ONCE: usize = 3;

/// What was found of one tenant's history.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    /// Whose.
    pub tenant: String,
    /// Entries whose links are good.
    pub entries: i64,
    /// Entries that were purged before them, for which a signed checkpoint stands.
    pub purged: i64,
    /// Those were recorded before this moment.
    pub purged_until: Option<Timestamp>,
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
    /// The personal values of the entry with this number were taken out, and the person was not erased.
    Emptied {
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
    /// The entries from this number on were purged, and the checkpoint that stands for them is not there.
    CheckpointMissing {
        /// The number.
        number: i64,
    },
    /// The checkpoint from this number on was changed, or made up.
    CheckpointForged {
        /// The number.
        number: i64,
    },
    /// The newest anchor is not in the object store.
    AnchorMissing {
        /// Its number.
        anchored: i64,
    },
}

/// Where histories are: in the database, their anchors and archives in the store.
pub type Places<'a> = (&'a Database, &'a Store);

/// Verifies a tenant's history as far as it is sealed now. `told` hears how many entries more were looked at.
pub async fn verify(
    places: Places<'_>,
    keys: &Keys,
    tenant: &Arc<Tenant>,
    told: impl Fn(u64),
) -> Result<Verified> {
    loop {
        let before = purged_to(places.0, tenant).await?;
        let verified = verify_once(places, keys, tenant, &told).await?;
        // What was purged meanwhile is not missing.
        if verified.fault.is_none() || purged_to(places.0, tenant).await? == before {
            return Ok(verified);
        }
    }
}

async fn purged_to(database: &Database, tenant: &Tenant) -> Result<Option<(i64, Timestamp)>> {
    let tx = database.platform().await?;
    let last = checkpoint::last(&tx, tenant.id).await?;
    tx.commit().await?;
    Ok(last.map(|last| (last.last, last.made_at)))
}

async fn verify_once(
    (database, store): Places<'_>,
    keys: &Keys,
    tenant: &Arc<Tenant>,
    told: &impl Fn(u64),
) -> Result<Verified> {
    let mut verified = Verified {
        tenant: tenant.slug.clone(),
        entries: 0,
        purged: 0,
        purged_until: None,
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
        purged: 0,
        until: None,
        erased: HashMap::new(),
        anchor: anchor
            .as_ref()
            .map(|anchor| (anchor.number, anchor.link.clone())),
    };
    verified.anchored = anchor.map(|anchor| anchor.number);
    verified.fault = walk.checkpoints(told).await?;
    if verified.fault.is_none() {
        verified.fault = walk.seals(&head, told).await?;
    }
    verified.entries = walk.end.number - walk.purged;
    (verified.purged, verified.purged_until) = (walk.purged, walk.until);
    if verified.fault.is_none() {
        verified.fault = walk.ends(&head);
    }
    if verified.fault.is_none() && !walk.erased.is_empty() {
        verified.fault = walk.emptied().await?;
    }
    if verified.fault.is_none() {
        let rest = rest(database, tenant, &head).await?;
        verified.unsealed = rest.unsealed;
        if rest.sealed > verified.entries {
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
    /// Entries that are gone, and from before when.
    purged: i64,
    until: Option<Timestamp>,
    /// Persons who were erased, and for each the first entry that had something of them.
    erased: HashMap<Uuid, (i64, Uuid)>,
    /// The number of the newest anchor, and its link.
    anchor: Option<(i64, String)>,
}

impl Walk<'_> {
    /// All checkpoints, in order, until the first fault; and the entries that they keep.
    async fn checkpoints(&mut self, told: &impl Fn(u64)) -> Result<Option<Fault>> {
        loop {
            let tx = self.database.platform().await?;
            let some = checkpoint::after(&tx, self.tenant.id, self.end.number, SEALS).await?;
            tx.commit().await?;
            if some.is_empty() {
                return Ok(None);
            }
            for checkpoint in some {
                let tx = self.database.read(self.tenant).await?;
                let entries = chain::read(&tx, &checkpoint.entries).await;
                let entries = tx.settle(entries).await?;
                let fault = self.pass(&checkpoint, &entries);
                if fault.is_some() {
                    return Ok(fault);
                }
                told(u64::try_from(checkpoint.last - checkpoint.first + 1).unwrap_or_default());
            }
        }
    }

    /// One checkpoint, against the entries that it keeps.
    fn pass(&mut self, checkpoint: &Checkpoint, entries: &[Option<Entry>]) -> Option<Fault> {
        let number = self.end.number + 1;
        if checkpoint.first != number {
            return Some(Fault::CheckpointMissing { number });
        }
        if self.keys.named(&checkpoint.key_id).is_none() {
            let key = checkpoint.key_id.clone();
            return Some(Fault::KeyUnknown { number, key });
        }
        let is_true = checkpoint::is_true(checkpoint, self.keys);
        let kept = Some(checkpoint).filter(|_| is_true);
        let Some(kept) = kept.and_then(checkpoint::kept) else {
            return Some(Fault::CheckpointForged { number });
        };
        for (link, entry) in kept.iter().zip(entries) {
            let fault = self.single(link, entry.as_ref());
            if fault.is_some() {
                return fault;
            }
        }
        self.end = End {
            number: checkpoint.last,
            link: checkpoint.link.clone(),
        };
        self.purged += checkpoint.purged;
        self.until = std::cmp::max(self.until, Some(checkpoint.until));
        self.not_anchored()
    }

    /// An entry that is kept of those that were purged around it.
    fn single(&mut self, link: &Link, entry: Option<&Entry>) -> Option<Fault> {
        let (number, id) = (link.number, link.id);
        let Some(entry) = entry else {
            return Some(Fault::Missing { number, id });
        };
        match link.proves(self.keys, self.tenant.id, &entry.text) {
            Some(true) => self.person(entry, number, id),
            Some(false) => Some(Fault::Changed { number, id }),
            None => {
                let key = link.key.clone();
                Some(Fault::KeyUnknown { number, key })
            }
        }
    }

    /// Whether what an entry has of a person is what it commits to; who was erased is noted.
    fn person(&mut self, entry: &Entry, number: i64, id: Uuid) -> Option<Fault> {
        if let Some(person) = entry.erased() {
            self.erased.entry(person).or_insert((number, id));
        }
        (!entry.is_committed()).then_some(Fault::Changed { number, id })
    }

    /// An entry whose personal values were taken out, and the trail does not say that the person was erased.
    async fn emptied(&self) -> Result<Option<Fault>> {
        let persons: Vec<Uuid> = self.erased.keys().copied().collect();
        let tx = self.database.read(self.tenant).await?;
        let known = history::Entity::find()
            .filter(history::Column::SubjectId.into_expr().eq(any(persons)))
            .filter(history::Column::Action.eq(history::Action::Erased))
            .select_only()
            .column(history::Column::SubjectId)
            .into_tuple::<Uuid>()
            .all(&tx)
            .await;
        let known = tx.settle(known.map_err(Into::into)).await?;
        let mut unknown: Vec<_> = self.erased.iter().collect();
        unknown.retain(|(person, _)| !known.contains(person));
        let first = unknown.into_iter().map(|(_, first)| *first).min();
        Ok(first.map(|(number, id)| Fault::Emptied { number, id }))
    }

    /// Whether the chain was another here when it was anchored.
    fn not_anchored(&self) -> Option<Fault> {
        let number = self.end.number;
        let (_, link) = self.anchor.as_ref().filter(|(at, _)| *at == number)?;
        let same = *link == crate::secret::hex(&self.end.link);
        (!same).then_some(Fault::NotAnchored { anchored: number })
    }

    /// All seals up to the head, in order, until the first fault.
    async fn seals(&mut self, head: &Head, told: &impl Fn(u64)) -> Result<Option<Fault>> {
        while self.end.number < head.number {
            let tx = self.database.platform().await?;
            let some = seals(&tx, self.tenant.id, self.end.number, SEALS).await?;
            tx.commit().await?;
            if some.is_empty() {
                return Ok(Some(self.gap()));
            }
            let (database, tenant) = (self.database, self.tenant);
            let read = stream::iter(some).map(|seal| sealed(database, tenant, seal));
            let mut read = read.buffered(AT_ONCE);
            while let Some((seal, entries)) = read.try_next().await? {
                let fault = self.compare(&seal, &entries);
                if fault.is_some() {
                    return Ok(fault);
                }
                told(seal.entries.len() as u64);
            }
        }
        Ok(None)
    }

    /// One seal, against the entries that are there.
    fn compare(&mut self, seal: &seal::Model, entries: &[Option<Entry>]) -> Option<Fault> {
        let number = self.end.number + 1;
        if seal.first != number {
            return Some(self.gap());
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
            end.advance(key, self.tenant.id, &entry.text);
            if end.link != link {
                return Some(Fault::Changed { number, id });
            }
            self.end = end;
            let fault = self
                .person(entry, number, id)
                .or_else(|| self.not_anchored());
            if fault.is_some() {
                return fault;
            }
        }
        None
    }

    /// What comes next is not there: of a history that was purged, the beginning is a checkpoint's.
    fn gap(&self) -> Fault {
        let number = self.end.number + 1;
        if number == 1 && self.tenant.history_from.is_some() {
            Fault::CheckpointMissing { number }
        } else {
            Fault::SealMissing { number }
        }
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
        let tx = self.database.platform().await?;
        let kept = checkpoint::ids(&tx, self.tenant.id).await?;
        tx.commit().await?;
        let mut sealed: HashSet<Uuid> = kept.into_iter().collect();
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

/// A seal, and the entries that are there for it.
async fn sealed(
    database: &Database,
    tenant: &Arc<Tenant>,
    seal: seal::Model,
) -> Result<(seal::Model, Vec<Option<Entry>>)> {
    let tx = database.read(tenant).await?;
    let entries = chain::read(&tx, &seal.entries).await;
    Ok((seal, tx.settle(entries).await?))
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
