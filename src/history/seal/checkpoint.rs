//! Checkpoints: what stands for entries that were purged. Each says where the chain goes on, and what of its part is kept; it
//! is signed with a key of the chain, so that none can be made up for entries that somebody removed.

use super::Keys;
use super::chain::{End, LINK};
use super::keys::Key;
use crate::database::PlatformTx;
use crate::error::Result;
use crate::secret::equal;
use entity::platform::seal_checkpoint::{Column, Entity, Model};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, IntoActiveModel as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};
use uuid::Uuid;

/// One checkpoint.
pub(super) type Checkpoint = Model;

/// An entry of a chain: where it is in it, and the link that proves it without those before it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) number: i64,
    pub(super) id: Uuid,
    /// The link of the entry before.
    pub(super) before: Vec<u8>,
    pub(super) own: Vec<u8>,
    /// The key that made it.
    pub(super) key: String,
}

impl Link {
    /// Whether it is that of this entry; none if its key is not known.
    pub(super) fn proves(&self, keys: &Keys, tenant: Uuid, entry: &str) -> Option<bool> {
        let mut end = End {
            number: self.number - 1,
            link: self.before.clone(),
        };
        end.advance(keys.named(&self.key)?, tenant, entry);
        Some(end.link == self.own)
    }
}

/// What is kept of the part that it stands for; none if it is no checkpoint.
pub(super) fn kept(checkpoint: &Checkpoint) -> Option<Vec<Link>> {
    let count = checkpoint.entries.len();
    let all = checkpoint.last.checked_sub(checkpoint.first)? + 1;
    let fits = checkpoint.numbers.len() == count
        && checkpoint.keys.len() == count
        && checkpoint.links.len() == count * 2 * LINK
        && Some(checkpoint.purged) == all.checked_sub(i64::try_from(count).ok()?);
    fits.then(|| {
        let named = checkpoint.entries.iter().zip(&checkpoint.numbers);
        let linked = checkpoint.links.chunks(2 * LINK).zip(&checkpoint.keys);
        let links = named.zip(linked);
        links
            .map(|((id, number), (links, key))| Link {
                number: *number,
                id: *id,
                before: before(*number, &links[..LINK]),
                own: links[LINK..].to_vec(),
                key: key.clone(),
            })
            .collect()
    })
}

/// Before the first there is none.
fn before(number: i64, link: &[u8]) -> Vec<u8> {
    if number == 1 {
        Vec::new()
    } else {
        link.to_vec()
    }
}

/// Writes down what is kept, counts the rest, and signs.
pub(super) fn sign(checkpoint: &mut Checkpoint, kept: &[Link], key: &Key) {
    let count = i64::try_from(kept.len()).unwrap_or(i64::MAX);
    checkpoint.purged = checkpoint.last - checkpoint.first + 1 - count;
    checkpoint.entries = kept.iter().map(|link| link.id).collect();
    checkpoint.numbers = kept.iter().map(|link| link.number).collect();
    checkpoint.links.clear();
    for link in kept {
        let before = checkpoint.links.len() + LINK;
        checkpoint.links.extend_from_slice(&link.before);
        // Where there is none, zeros are in its place.
        checkpoint.links.resize(before, 0);
        checkpoint.links.extend_from_slice(&link.own);
    }
    checkpoint.keys = kept.iter().map(|link| link.key.clone()).collect();
    checkpoint.key_id.clone_from(&key.id);
    checkpoint.mac = mac(checkpoint, key);
}

/// Whether it was signed by who had the key.
pub(super) fn is_true(checkpoint: &Checkpoint, keys: &Keys) -> bool {
    let key = keys.named(&checkpoint.key_id);
    key.is_some_and(|key| equal(&mac(checkpoint, key), &checkpoint.mac))
}

fn mac(checkpoint: &Checkpoint, key: &Key) -> Vec<u8> {
    let numbers = [
        checkpoint.first,
        checkpoint.last,
        checkpoint.purged,
        checkpoint.archived,
        checkpoint.until.timestamp_micros(),
        checkpoint.made_at.timestamp_micros(),
    ];
    let bytes =
        |numbers: &[i64]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_be_bytes()).collect() };
    let entries: Vec<u8> = checkpoint
        .entries
        .iter()
        .flat_map(|id| *id.as_bytes())
        .collect();
    let (numbers, places) = (bytes(&numbers), bytes(&checkpoint.numbers));
    let keys = checkpoint.keys.join(",");
    let parts = [
        &checkpoint.tenant_id.as_bytes()[..],
        &numbers,
        &checkpoint.link,
        &entries,
        &places,
        &checkpoint.links,
        keys.as_bytes(),
    ];
    key.mac("history checkpoint 1", &parts).to_vec()
}

/// The checkpoints of a tenant after this number, in order.
pub(super) async fn after(
    tx: &PlatformTx,
    tenant: Uuid,
    number: i64,
    limit: u64,
) -> Result<Vec<Checkpoint>> {
    Ok(Entity::find()
        .filter(Column::TenantId.eq(tenant))
        .filter(Column::First.gt(number))
        .order_by_asc(Column::First)
        .limit(limit)
        .all(tx)
        .await?)
}

/// The newest checkpoint of a tenant.
pub(super) async fn last(tx: &PlatformTx, tenant: Uuid) -> Result<Option<Checkpoint>> {
    Ok(Entity::find()
        .filter(Column::TenantId.eq(tenant))
        .order_by_desc(Column::First)
        .one(tx)
        .await?)
}

/// Puts it in the place of the one with the same first number, if there is one.
pub(super) async fn put(tx: &PlatformTx, checkpoint: Checkpoint) -> Result<()> {
    Entity::delete_by_id((checkpoint.tenant_id, checkpoint.first))
        .exec(tx)
        .await?;
    Entity::insert(checkpoint.into_active_model())
        .exec_without_returning(tx)
        .await?;
    Ok(())
}

/// Ids of all that is kept of what was purged.
pub(super) async fn ids(tx: &PlatformTx, tenant: Uuid) -> Result<Vec<Uuid>> {
    let entries = Entity::find()
        .filter(Column::TenantId.eq(tenant))
        .select_only()
        .column(Column::Entries)
        .into_tuple::<Vec<Uuid>>()
        .all(tx)
        .await?;
    Ok(entries.concat())
}
