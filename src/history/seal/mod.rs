//! Evidence: every entry of a tenant's history gets a number and a link of a keyed chain, after its commit, so that no writer
//! waits for another. What was changed, removed, put in or cut off since then is found by [`verify`].
//!
//! The order is that of being sealed. What was committed between two looks is told by PostgreSQL's own snapshots, so nothing is
//! left out or comes in between later, however long its transaction ran. The key is in no database; the heads of the chains
//! are anchored where no database reaches.

mod anchor;
mod archive;
mod chain;
mod checkpoint;
mod keys;
mod purge;
mod sealer;
mod verify;

pub use anchor::{anchor, anchor_due};
pub use archive::{ArchiveFault, Archives, archives};
pub use keys::Keys;
pub use purge::{Purge, raise};
pub use sealer::Sealer;
pub use verify::{Fault, Places, Verified, verify};

use super::Snapshot;
use crate::clock::Timestamp;
use crate::database::{Database, PlatformTx, Tenant, TenantTx};
use crate::error::{Error, Result};
use chain::{ENTRIES, End};
use entity::platform::{seal, seal_head};
use keys::Key;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, FromQueryResult,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, Set, Statement,
};
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

/// How far a history is sealed.
type Head = seal_head::Model;

/// Entries sealed in one transaction, unless one transaction wrote more.
const MOST: usize = 20_000;

/// Seals what was committed since it was sealed last. Whether there is more to seal at once.
///
/// Nothing is locked while entries are read: if somebody else has sealed meanwhile, nothing is kept, and theirs holds.
pub async fn seal(database: &Database, keys: &Keys, tenant: &Arc<Tenant>) -> Result<bool> {
    let Some(head) = head(database, tenant.id).await? else {
        return Ok(false);
    };
    let tx = database.read(tenant).await?;
    let found = next(&tx, &head).await;
    let found = tx.settle(found).await?;
    let ids = new_ones(database, &head, &found).await?;
    if ids.is_empty() && !found.is_other {
        return Ok(found.more);
    }
    let tx = database.read(tenant).await?;
    let seals = link(&tx, keys.sealing(), &head, &ids).await;
    let seals = tx.settle(seals).await?;
    let kept = keep(database, &head, &found, seals).await?;
    Ok(found.more || !kept)
}

/// Entries of these tenants that are sealed.
pub async fn sealed(database: &Database, tenants: &[Arc<Tenant>]) -> Result<u64> {
    let tx = database.platform().await?;
    let heads = seal_head::Entity::find()
        .filter(seal_head::Column::TenantId.is_in(tenants.iter().map(|tenant| tenant.id)))
        .all(&tx)
        .await?;
    tx.commit().await?;
    let numbers = heads
        .iter()
        .map(|head| u64::try_from(head.number).unwrap_or_default());
    Ok(numbers.sum())
}

/// An entry that is sealed.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Its number.
    pub number: i64,
    /// Its id.
    pub id: Uuid,
    /// Its link, in hexadecimal.
    pub link: String,
}

/// The entries after this number that were sealed together; none if there are no more.
pub async fn sealed_after(
    database: &Database,
    tenant: &Tenant,
    number: i64,
) -> Result<Vec<Sealed>> {
    let tx = database.platform().await?;
    let next = seal::Entity::find()
        .filter(seal::Column::TenantId.eq(tenant.id))
        .filter(seal::Column::Last.gt(number))
        .order_by_asc(seal::Column::First)
        .one(&tx)
        .await?;
    tx.commit().await?;
    let Some(next) = next else {
        return Ok(Vec::new());
    };
    let linked = next.entries.iter().zip(next.links.chunks(chain::LINK));
    let sealed = (next.first..)
        .zip(linked)
        .map(|(number, (id, link))| Sealed {
            number,
            id: *id,
            link: crate::secret::hex(link),
        });
    Ok(sealed.filter(|sealed| sealed.number > number).collect())
}

/// The head of a tenant's chain; of a new one if there is none. None if there is no such tenant.
async fn head(database: &Database, tenant: Uuid) -> Result<Option<Head>> {
    let tx = database.platform().await?;
    let head = seal_head::Entity::find_by_id(tenant);
    if let Some(head) = head.clone().one(&tx).await? {
        tx.commit().await?;
        return Ok(Some(head));
    }
    let begin = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "INSERT INTO seal_head (tenant_id) SELECT id FROM tenant WHERE id = $1 ON CONFLICT DO NOTHING",
        [tenant.into()],
    );
    tx.execute_raw(begin).await?;
    let head = head.one(&tx).await?;
    tx.commit().await?;
    Ok(head)
}

/// An entry that is to be sealed, perhaps.
#[derive(Debug, FromQueryResult)]
struct Candidate {
    id: Uuid,
    recorded_at: Timestamp,
    transaction_id: i64,
}

/// What there is to seal.
#[derive(Debug)]
struct Found {
    entries: Vec<Candidate>,
    /// With them, everything of this snapshot is sealed.
    reached: Snapshot,
    /// And there is more.
    more: bool,
    /// Transactions have other numbers than those that were sealed last: the database was brought to another server.
    is_other: bool,
}

/// What became visible since the head, in an order that is the same for everybody.
async fn next(tx: &TenantTx, head: &Head) -> Result<Found> {
    let now = Snapshot::take(tx).await?;
    if now.next < head.next {
        let entries = candidates(tx, "true", Vec::new()).await?;
        return Ok(Found {
            entries,
            reached: now,
            more: false,
            is_other: true,
        });
    }
    let fresh = "(transaction_id = ANY ($1) OR transaction_id >= $2) AND transaction_id < $3 AND transaction_id <> ALL ($4)";
    let window = |limit: String| {
        let values = vec![
            head.running.clone().into(),
            head.next.into(),
            now.next.into(),
            now.running.clone().into(),
        ];
        (format!("{fresh} {limit}"), values)
    };
    let order = "ORDER BY transaction_id, recorded_at, id";
    let (sql, values) = window(format!("{order} LIMIT {}", MOST + 1));
    let mut entries = candidates(tx, &sql, values).await?;
    let mut found = Found {
        entries: Vec::new(),
        reached: now.clone(),
        more: entries.len() > MOST,
        is_other: false,
    };
    if let Some(last) = entries.last().filter(|_| found.more) {
        // As far as the last transaction that is here whole.
        let cut = last.transaction_id;
        found.reached.next = cut;
        if entries[0].transaction_id == cut {
            found.reached.next = cut + 1;
            let (sql, values) = window(format!("AND transaction_id = {cut} {order}"));
            entries = candidates(tx, &sql, values).await?;
        } else {
            entries.retain(|entry| entry.transaction_id < cut);
        }
        let next = found.reached.next;
        found.reached.running.retain(|id| *id < next);
    }
    found.entries = entries;
    Ok(found)
}

async fn candidates(
    tx: &TenantTx,
    which: &str,
    values: Vec<sea_orm::Value>,
) -> Result<Vec<Candidate>> {
    let sql = format!("SELECT id, recorded_at, transaction_id FROM history WHERE {which}");
    let query = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
    Ok(Candidate::find_by_statement(query).all(tx).await?)
}

/// Those that are not sealed yet. Only of what may be another server's it has to be looked up.
async fn new_ones(database: &Database, head: &Head, found: &Found) -> Result<Vec<Uuid>> {
    let old = |entry: &Candidate| {
        found.is_other || head.since.is_some_and(|since| entry.recorded_at < since)
    };
    let mut sealed = HashSet::new();
    if found.entries.iter().any(old) {
        let tx = database.platform().await?;
        sealed.extend(checkpoint::ids(&tx, head.tenant_id).await?);
        let mut after = 0;
        loop {
            let seals = seals(&tx, head.tenant_id, after, 20).await?;
            let Some(last) = seals.last() else { break };
            after = last.last;
            sealed.extend(seals.into_iter().flat_map(|seal| seal.entries));
        }
        tx.commit().await?;
    }
    let ids = found.entries.iter().map(|entry| entry.id);
    Ok(ids.filter(|id| !sealed.contains(id)).collect())
}

/// The seals of a tenant after this number, in order.
async fn seals(tx: &PlatformTx, tenant: Uuid, after: i64, limit: u64) -> Result<Vec<seal::Model>> {
    Ok(seal::Entity::find()
        .filter(seal::Column::TenantId.eq(tenant))
        .filter(seal::Column::First.gt(after))
        .order_by_asc(seal::Column::First)
        .limit(limit)
        .all(tx)
        .await?)
}

/// The seals of these entries, which go on from the head.
async fn link(
    tx: &TenantTx,
    key: &Key,
    head: &Head,
    ids: &[Uuid],
) -> Result<Vec<seal::ActiveModel>> {
    let mut end = End {
        number: head.number,
        link: head.link.clone(),
    };
    let mut seals = Vec::new();
    for some in ids.chunks(ENTRIES) {
        let first = end.number + 1;
        let mut links = Vec::with_capacity(some.len() * chain::LINK);
        for entry in chain::read(tx, some).await? {
            let entry = entry.ok_or_else(|| Error::internal("an entry went away unsealed"))?;
            end.advance(key, head.tenant_id, &entry.text);
            links.extend_from_slice(&end.link);
        }
        seals.push(seal::ActiveModel {
            tenant_id: Set(head.tenant_id),
            first: Set(first),
            last: Set(end.number),
            key_id: Set(key.id.clone()),
            entries: Set(some.to_vec()),
            links: Set(links),
            ..Default::default()
        });
    }
    Ok(seals)
}

/// Keeps the seals, unless somebody else has sealed since the head was read.
async fn keep(
    database: &Database,
    head: &Head,
    found: &Found,
    seals: Vec<seal::ActiveModel>,
) -> Result<bool> {
    let tx = database.platform().await?;
    let locked = seal_head::Entity::find_by_id(head.tenant_id)
        .lock_exclusive()
        .one(&tx)
        .await?;
    let same = |now: &Head| {
        (now.number, &now.link, now.next, &now.running)
            == (head.number, &head.link, head.next, &head.running)
    };
    if !locked.as_ref().is_some_and(same) {
        tx.rollback().await?;
        return Ok(locked.is_none());
    }
    let mut now = seal_head::ActiveModel {
        tenant_id: Set(head.tenant_id),
        next: Set(found.reached.next),
        running: Set(found.reached.running.clone()),
        ..Default::default()
    };
    if found.is_other {
        now.since = Set(Some(tx.now()));
    }
    for seal in seals {
        if let (Some(last), Some(links)) = (seal.last.try_as_ref(), seal.links.try_as_ref()) {
            now.number = Set(*last);
            now.link = Set(links[links.len() - chain::LINK..].to_vec());
        }
        seal::Entity::insert(seal)
            .exec_without_returning(&tx)
            .await?;
    }
    seal_head::Entity::update(now).exec(&tx).await?;
    tx.commit().await?;
    Ok(true)
}
