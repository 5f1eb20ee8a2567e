//! Purging: the oldest entries of a history go, and a signed checkpoint stands for them, so that the rest of the chain still
//! proves itself. What is needed to read as of the horizon and later stays: of each object that was there then the newest
//! change until then, and the one that made it.
//!
//! Each step is one transaction, and finds for itself where to go on: whoever comes after a crash does, and of two at once one
//! does nothing. What does not prove itself is not purged: its evidence would go with it.

use super::chain::{self, End, Entry, LINK};
use super::checkpoint::{self, Checkpoint, Link};
use super::{Keys, archive, seals};
use crate::clock::Timestamp;
use crate::database::{Database, PlatformTx, Tenant, TenantTx, identifier};
use crate::error::{Error, Result};
use crate::media::store::Store;
use entity::platform::tenant::{self, State};
use entity::platform::{seal, seal_head};
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, FromQueryResult,
    QueryFilter as _, QuerySelect as _, Statement,
};
use std::collections::HashSet;
use std::sync::Arc;
use uuid::Uuid;

/// Seals whose entries go in one transaction at most.
const SEALS: u64 = 10;
/// Entries that one checkpoint keeps before the next is begun.
const KEPT: usize = 1000;

/// Entries by their ids, in the order of those, and whether reading as of a moment from `$2` on still needs them.
const OLD: &str = "SELECT h.id, h.recorded_at, coalesce(n.action <> 'delete' AND (n.id = h.id OR (h.action = 'create' AND NOT EXISTS (
            SELECT FROM history o WHERE o.subject_type = h.subject_type AND o.subject_id = h.subject_id AND o.action = 'create'
                AND (o.recorded_at, o.id) < (h.recorded_at, h.id)))), false) AS needed
    FROM unnest($1::uuid[]) WITH ORDINALITY wanted (id, at) JOIN history h ON h.id = wanted.id
    LEFT JOIN LATERAL (SELECT x.id, x.action FROM history x
        WHERE x.subject_id = h.subject_id AND x.subject_type = h.subject_type AND x.recorded_at <= $2
            AND x.action IN ('create', 'update', 'delete')
        ORDER BY x.recorded_at DESC, x.id DESC LIMIT 1) n ON h.action IN ('create', 'update')
    ORDER BY wanted.at";

#[derive(Debug, FromQueryResult)]
struct Old {
    id: Uuid,
    recorded_at: Timestamp,
    needed: bool,
}

/// What is purged, and by what means.
#[derive(Debug)]
pub struct Purge<'a> {
    /// Where it is.
    pub database: &'a Database,
    /// Where it is written to first.
    pub store: &'a Store,
    /// What proves it, and signs for it.
    pub keys: &'a Keys,
    /// Whose.
    pub tenant: &'a Arc<Tenant>,
    /// What was recorded before this moment.
    pub until: Timestamp,
}

/// Some seals in a row, all of whose entries are old.
struct Batch {
    /// Of all their entries, in order.
    links: Vec<Link>,
    needed: HashSet<Uuid>,
    end: End,
}

impl Purge<'_> {
    /// Whether there is something that was never purged.
    pub async fn is_due(&self) -> Result<bool> {
        let (before, mut seals) = self.next().await?;
        seals.truncate(1);
        let tx = self.database.read(self.tenant).await?;
        let batch = self.batch(&tx, before.as_ref(), &seals).await;
        Ok(tx.settle(batch).await?.is_some())
    }

    /// Purges the oldest that was not yet. How many entries that were, the kept ones among them; 0 when
    /// there are none left, or none may go.
    pub async fn some(&self) -> Result<u64> {
        let (before, seals) = self.next().await?;
        let tx = self.database.read(self.tenant).await?;
        let found = async {
            let Some(batch) = self.batch(&tx, before.as_ref(), &seals).await? else {
                return Ok(None);
            };
            let archives = self.tenant.settings.retention.archive;
            let lines = if archives {
                archive::lines(&tx, &batch.links).await?
            } else {
                Vec::new()
            };
            Ok(Some((batch, lines)))
        };
        let found = found.await;
        let Some((batch, lines)) = tx.settle(found).await? else {
            return Ok(0);
        };
        if !lines.is_empty() {
            archive::put(self.store, self.keys, self.tenant, &lines).await?;
        }
        let count = batch.links.len() as u64;
        let goes_on = self.replace(before, batch, lines.len()).await?;
        Ok(if goes_on { count } else { 0 })
    }

    /// Purges what was kept and is needed no longer: it was changed or removed since. How many entries.
    pub async fn kept(&self) -> Result<u64> {
        let (mut after, mut gone) = (0, 0);
        loop {
            let tx = self.database.platform().await?;
            let next = checkpoint::after(&tx, self.tenant.id, after, 1).await?;
            tx.commit().await?;
            let Some(next) = next.into_iter().next() else {
                return Ok(gone);
            };
            after = next.first;
            gone += self.thin(next).await?;
        }
    }

    async fn thin(&self, before: Checkpoint) -> Result<u64> {
        let links = self.checked(&before)?;
        let tx = self.database.read(self.tenant).await?;
        let old = self.old(&tx, &before.entries).await;
        let needed = tx.settle(old).await?;
        let needed: HashSet<Uuid> = needed
            .into_iter()
            .filter(|old| old.needed)
            .map(|old| old.id)
            .collect();
        let (stay, go): (Vec<_>, Vec<_>) = links
            .into_iter()
            .partition(|link| needed.contains(&link.id));
        if go.is_empty() {
            return Ok(0);
        }
        let tx = self.database.platform().await?;
        if !self.may_go_on(&tx).await? {
            tx.rollback().await?;
            return Ok(0);
        }
        let same = checkpoint::after(&tx, self.tenant.id, before.first - 1, 1).await?;
        if same.first() != Some(&before) {
            tx.rollback().await?;
            return Ok(0);
        }
        self.remove(&tx, &go).await?;
        let mut now = before;
        (now.until, now.made_at) = (self.until, tx.now());
        checkpoint::sign(&mut now, &stay, self.keys.sealing());
        checkpoint::put(&tx, now).await?;
        tx.commit().await?;
        Ok(go.len() as u64)
    }

    /// The newest checkpoint, and the seals that come after it.
    async fn next(&self) -> Result<(Option<Checkpoint>, Vec<seal::Model>)> {
        let tx = self.database.platform().await?;
        let last = checkpoint::last(&tx, self.tenant.id).await?;
        let after = last.as_ref().map_or(0, |last| last.last);
        let seals = seals(&tx, self.tenant.id, after, SEALS).await?;
        tx.commit().await?;
        Ok((last, seals))
    }

    /// As many of these seals as are old as a whole, each of whose entries is what was sealed.
    async fn batch(
        &self,
        tx: &TenantTx,
        before: Option<&Checkpoint>,
        seals: &[seal::Model],
    ) -> Result<Option<Batch>> {
        let mut batch = Batch {
            links: Vec::new(),
            needed: HashSet::new(),
            end: End {
                number: before.map_or(0, |before| before.last),
                link: before.map_or(Vec::new(), |before| before.link.clone()),
            },
        };
        for seal in seals {
            let old = self.old(tx, &seal.entries).await?;
            if old.len() != seal.entries.len() {
                return Err(self.unproven());
            }
            if old.iter().any(|old| old.recorded_at >= self.until) {
                break;
            }
            let entries = chain::read(tx, &seal.entries).await?;
            self.follow(&mut batch, seal, &entries)?;
            let needed = old.iter().filter(|old| old.needed).map(|old| old.id);
            batch.needed.extend(needed);
        }
        Ok((!batch.links.is_empty()).then_some(batch))
    }

    /// Makes the links of a seal again: they are its own, or nothing is purged.
    fn follow(
        &self,
        batch: &mut Batch,
        seal: &seal::Model,
        entries: &[Option<Entry>],
    ) -> Result<()> {
        let key = self.keys.named(&seal.key_id);
        let key = key.ok_or_else(|| self.unproven())?;
        if seal.first != batch.end.number + 1 || seal.links.len() != entries.len() * LINK {
            return Err(self.unproven());
        }
        let sealed = seal.entries.iter().zip(seal.links.chunks(LINK));
        for ((id, link), entry) in sealed.zip(entries) {
            let before = batch.end.link.clone();
            let entry = entry.as_ref().ok_or_else(|| self.unproven())?;
            batch.end.advance(key, self.tenant.id, &entry.text);
            if batch.end.link != link || !entry.is_committed() {
                return Err(self.unproven());
            }
            batch.links.push(Link {
                number: batch.end.number,
                id: *id,
                before,
                own: link.to_vec(),
                key: key.id.clone(),
            });
        }
        Ok(())
    }

    /// Puts a checkpoint in the place of the batch, or makes the last one go as far. Whether there may be more to do.
    async fn replace(
        &self,
        before: Option<Checkpoint>,
        batch: Batch,
        archived: usize,
    ) -> Result<bool> {
        let tx = self.database.platform().await?;
        if !self.may_go_on(&tx).await? {
            tx.rollback().await?;
            return Ok(false);
        }
        if checkpoint::last(&tx, self.tenant.id).await? != before {
            // Somebody else was faster: the next look finds what there is.
            tx.rollback().await?;
            return Ok(true);
        }
        let (mut stay, go): (Vec<_>, Vec<_>) = batch
            .links
            .into_iter()
            .partition(|link| batch.needed.contains(&link.id));
        self.remove(&tx, &go).await?;
        let first = before.as_ref().map_or(0, |before| before.last) + 1;
        seal::Entity::delete_many()
            .filter(seal::Column::TenantId.eq(self.tenant.id))
            .filter(seal::Column::First.between(first, batch.end.number))
            .exec(&tx)
            .await?;
        let mut made = Checkpoint {
            tenant_id: self.tenant.id,
            first,
            last: batch.end.number,
            link: batch.end.link,
            purged: 0,
            archived: i64::try_from(archived).map_err(Error::internal)?,
            until: self.until,
            made_at: tx.now(),
            entries: Vec::new(),
            numbers: Vec::new(),
            links: Vec::new(),
            keys: Vec::new(),
            key_id: String::new(),
            mac: Vec::new(),
        };
        if let Some(open) = before.filter(|before| before.entries.len() + stay.len() <= KEPT) {
            let mut all = self.checked(&open)?;
            all.append(&mut stay);
            stay = all;
            made.first = open.first;
            made.archived += open.archived;
        }
        checkpoint::sign(&mut made, &stay, self.keys.sealing());
        checkpoint::put(&tx, made).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// One at a time; and not while the tenant is being erased, or is held.
    async fn may_go_on(&self, tx: &PlatformTx) -> Result<bool> {
        let head = seal_head::Entity::find_by_id(self.tenant.id)
            .lock_exclusive()
            .one(tx)
            .await?;
        let tenant = tenant::Entity::find_by_id(self.tenant.id)
            .filter(tenant::Column::State.ne(State::Deleting))
            .lock_shared()
            .one(tx)
            .await?;
        let free = tenant.is_some_and(|tenant| !tenant.settings.retention.legal_hold);
        Ok(head.is_some() && free)
    }

    /// Removes these entries: all of them, or none.
    async fn remove(&self, tx: &PlatformTx, links: &[Link]) -> Result<()> {
        let sql = format!(
            "DELETE FROM {}.history WHERE id = ANY ($1)",
            identifier(&self.tenant.schema_name)?
        );
        let ids: Vec<Uuid> = links.iter().map(|link| link.id).collect();
        let delete = Statement::from_sql_and_values(DbBackend::Postgres, sql, [ids.into()]);
        if tx.execute_raw(delete).await?.rows_affected() == links.len() as u64 {
            return Ok(());
        }
        Err(self.unproven())
    }

    async fn old(&self, tx: &TenantTx, ids: &[Uuid]) -> Result<Vec<Old>> {
        let values = [ids.to_vec().into(), self.until.into()];
        let query = Statement::from_sql_and_values(DbBackend::Postgres, OLD, values);
        Ok(Old::find_by_statement(query).all(tx).await?)
    }

    /// What a checkpoint keeps, if it is one of ours.
    fn checked(&self, of: &Checkpoint) -> Result<Vec<Link>> {
        let true_one = Some(of).filter(|of| checkpoint::is_true(of, self.keys));
        let kept = true_one.and_then(checkpoint::kept);
        kept.ok_or_else(|| self.unproven())
    }

    fn unproven(&self) -> Error {
        let slug = &self.tenant.slug;
        Error::internal(format!(
            "the oldest part of the history of {slug} does not prove itself, and is not purged: `bulkhead audit verify {slug}` says why"
        ))
    }
}

/// From when on the tenant's history is to be readable, and since when every server knows. Only ever later.
pub async fn raise(database: &Database, tenant: &Tenant, until: Timestamp) -> Result<()> {
    let tx = database.platform().await?;
    let raised = tenant::Entity::update_many()
        .col_expr(tenant::Column::HistoryFrom, Expr::value(until))
        .col_expr(tenant::Column::HistoryFromSet, Expr::value(tx.now()))
        .filter(tenant::Column::Id.eq(tenant.id))
        .filter(
            tenant::Column::HistoryFrom
                .is_null()
                .or(tenant::Column::HistoryFrom.lt(until)),
        )
        .exec(&tx)
        .await?;
    if raised.rows_affected > 0 {
        tx.notify_tenant(tenant.id).await?;
    }
    tx.commit().await
}
