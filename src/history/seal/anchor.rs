//! Anchors: the heads of the chains, where whoever has the database cannot change them: in the object store and in the log. A
//! chain that was cut off is shorter than its anchor.

use super::keys::Key;
use super::{Head, Keys};
use crate::database::{Database, Tenant};
use crate::error::{Error, Result};
use crate::media::store::{self, Store};
use crate::secret::{equal, hex};
use chrono::TimeDelta;
use entity::platform::tenant::State;
use entity::platform::{seal_head, tenant};
use futures::TryStreamExt as _;
use object_store::{ObjectStoreExt as _, PutMode};
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QuerySelect as _};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What is anchored.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Anchor {
    tenant: Uuid,
    pub(super) number: i64,
    /// In hexadecimal, as the rest.
    pub(super) link: String,
    key: String,
    mac: String,
}

impl Anchor {
    fn of(head: &Head, key: &Key) -> Self {
        let mut anchor = Self {
            tenant: head.tenant_id,
            number: head.number,
            link: hex(&head.link),
            key: key.id.clone(),
            mac: String::new(),
        };
        anchor.mac = anchor.signed(key);
        anchor
    }

    fn signed(&self, key: &Key) -> String {
        let number = self.number.to_be_bytes();
        let parts = [self.tenant.as_bytes(), &number[..], self.link.as_bytes()];
        hex(&key.mac("history anchor 1", &parts))
    }

    /// Whether it was made for this tenant by who had the key.
    fn is_true(&self, keys: &Keys, tenant: Uuid) -> bool {
        let mac = keys.named(&self.key).map(|key| self.signed(key));
        self.tenant == tenant && mac.is_some_and(|mac| equal(mac.as_bytes(), self.mac.as_bytes()))
    }
}

/// Anchors the heads that have moved since they were anchored, if that is as many minutes ago; none are anchored if it is 0.
pub async fn anchor_due(
    database: &Database,
    keys: &Keys,
    store: &Store,
    minutes: u32,
) -> Result<()> {
    if minutes == 0 {
        return Ok(());
    }
    let before = database.clock().now() - TimeDelta::minutes(minutes.into());
    let due = Condition::any()
        .add(seal_head::Column::AnchoredAt.is_null())
        .add(seal_head::Column::AnchoredAt.lt(before));
    for (tenant, head) in moved(database, due).await? {
        if let Err(error) = put(database, keys, store, (&tenant, &head)).await {
            let slug = tenant.slug;
            tracing::warn!(
                ?error,
                slug,
                "the head of a history is not anchored for now"
            );
        }
    }
    Ok(())
}

/// Anchors the head of one tenant, or of all, if it has moved. How many were.
pub async fn anchor(
    database: &Database,
    keys: &Keys,
    store: &Store,
    only: Option<Uuid>,
) -> Result<usize> {
    let only = only.map(|tenant| seal_head::Column::TenantId.eq(tenant));
    let moved = moved(database, Condition::all().add_option(only)).await?;
    for (tenant, head) in &moved {
        put(database, keys, store, (tenant, head)).await?;
    }
    Ok(moved.len())
}

async fn moved(database: &Database, which: Condition) -> Result<Vec<(Tenant, Head)>> {
    let tx = database.platform().await?;
    let heads = seal_head::Entity::find()
        .filter(Expr::col(seal_head::Column::Number).gt(Expr::col(seal_head::Column::Anchored)))
        .filter(which)
        .all(&tx)
        .await?;
    let ids = heads.iter().map(|head| head.tenant_id);
    let tenants = tenant::Entity::find()
        .filter(tenant::Column::Id.is_in(ids))
        .all(&tx)
        .await?;
    tx.commit().await?;
    let with_head = |tenant: Tenant| {
        let head = heads.iter().find(|head| head.tenant_id == tenant.id);
        head.map(|head| (tenant, head.clone()))
    };
    Ok(tenants.into_iter().filter_map(with_head).collect())
}

/// First the store, then the database's word that it is there. The tenant stays meanwhile: what came after its erasure would be
/// nobody's.
async fn put(
    database: &Database,
    keys: &Keys,
    store: &Store,
    (tenant, head): (&Tenant, &Head),
) -> Result<()> {
    let anchor = Anchor::of(head, keys.sealing());
    let text = serde_json::to_vec(&anchor).map_err(Error::internal)?;
    let path = store::Key::anchor(tenant, head.number);
    let tx = database.platform().await?;
    let held = tenant::Entity::find_by_id(tenant.id)
        .filter(tenant::Column::State.ne(State::Deleting))
        .lock_shared()
        .one(&tx)
        .await?;
    if held.is_none() {
        return tx.rollback().await;
    }
    let objects = store.objects();
    let there = objects.put_opts(path.path(), text.into(), PutMode::Create.into());
    match there.await {
        Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let (slug, link) = (&tenant.slug, &anchor.link);
    tracing::info!(slug, number = head.number, link, "history anchored");
    seal_head::Entity::update_many()
        .col_expr(seal_head::Column::Anchored, Expr::value(head.number))
        .col_expr(seal_head::Column::AnchoredAt, Expr::value(tx.now()))
        .filter(seal_head::Column::TenantId.eq(head.tenant_id))
        .filter(seal_head::Column::Anchored.lt(head.number))
        .exec(&tx)
        .await?;
    tx.commit().await
}

/// The newest anchor of a tenant, if there is one; what we did not make is none.
pub(super) async fn newest(store: &Store, keys: &Keys, tenant: &Tenant) -> Result<Option<Anchor>> {
    let mut paths: Vec<_> = store
        .anchors(tenant)
        .map_ok(|object| object.location)
        .try_collect()
        .await?;
    // Their names are their numbers.
    paths.sort();
    while let Some(path) = paths.pop() {
        let bytes = store.objects().get(&path).await?.bytes().await?;
        let anchor: Option<Anchor> = serde_json::from_slice(&bytes).ok();
        let anchor = anchor.filter(|anchor| anchor.is_true(keys, tenant.id));
        if anchor.is_some() {
            return Ok(anchor);
        }
    }
    Ok(None)
}
