//! Tokens of devices: issued, rotated, told apart when they are presented.

use crate::actor::Actor;
use crate::caller::Caller;
use crate::clock::Timestamp;
use crate::database::{Database, Tenant, TenantTx, any};
use crate::error::{Denial, Error, Result};
use crate::history::as_of;
use crate::permission::Permission;
use crate::secret::{SecretKey, new_token, token_from, token_hash};
use chrono::Duration;
use entity::tenant::device_token::{ActiveModel, Column, Entity, Model};
use entity::tenant::{device, device_token};
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoCondition};
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _,
    QuerySelect as _, Set,
};
use std::sync::Arc;
use uuid::Uuid;

/// What the tokens of devices begin with.
pub const TOKEN_PREFIX: &str = "bhd_";
/// How long a token lives.
pub(super) const LIFETIME: Duration = Duration::hours(24);
/// When a device should rotate its token.
pub(super) const ROTATE_AFTER: Duration = Duration::hours(12);
/// How long a rotated token works on, so that a lost answer can be asked for again.
const GRACE: Duration = Duration::seconds(60);
/// What a device may do.
const PERMISSIONS: [Permission; 2] = [Permission::MediaRead, Permission::MediaWrite];

/// Gives out the first token of a family.
pub(super) async fn issue(tx: &TenantTx, device: Uuid) -> Result<(String, Timestamp)> {
    let token = new_token(TOKEN_PREFIX);
    let id = tx.new_id();
    let row = insert(tx, (id, id, device), &token).await?;
    Ok((token, row.expires_at))
}

/// Ends all tokens of a device.
pub(super) async fn revoke_all(tx: &TenantTx, device: Uuid) -> Result<()> {
    revoke(tx, Column::DeviceId.eq(device)).await
}

/// Who is behind a device's token.
pub async fn authenticate(tx: &TenantTx, token_hash: &str) -> Result<Caller> {
    let row = Entity::find()
        .filter(Column::TokenHash.eq(token_hash))
        .one(tx)
        .await?;
    let row = usable(row, tx.now())?;
    let enabled = device::Entity::find_by_id(row.device_id)
        .one(tx)
        .await?
        .is_some_and(|device| device.enabled);
    if !enabled {
        return Err(Error::Unauthenticated(Denial::DeviceDisabled));
    }
    let end = row.rotated_at.map_or(row.expires_at, |at| {
        std::cmp::min(row.expires_at, at + GRACE)
    });
    Ok(Caller {
        actor: Actor::Device(row.device_id),
        permissions: PERMISSIONS.to_vec(),
        expires_at: end,
        credential_id: row.id,
    })
}

/// When the newest token of each of these devices stops working, or did as of a moment; without those that have none, or whose was revoked.
pub(super) async fn ends(
    tx: &TenantTx,
    devices: Vec<Uuid>,
    at: Option<Timestamp>,
) -> Result<Vec<(Uuid, Timestamp)>> {
    let ends = as_of(Entity::find(), at)
        .select_only()
        .column(Column::DeviceId)
        .column_as(Column::ExpiresAt.max(), "expires_at")
        .filter(Column::DeviceId.into_expr().eq(any(devices)))
        .filter(Column::RevokedAt.is_null())
        .group_by(Column::DeviceId)
        .into_tuple();
    Ok(ends.all(tx).await?)
}

/// What becomes of a request to rotate.
#[derive(Debug)]
pub enum Rotation {
    /// The successor, the same for each repeat within the grace time, and when it ends.
    Successor(String, Timestamp, Box<device::Model>),
    /// Refused; if the token was used after its grace time, its whole family was ended, and that is to be kept.
    Refused(Error),
}

/// Replaces a token by its successor, which is derived from it: so a device that lost the answer gets the same one again.
/// Reuse after the grace time means that two parties have the token: it ends the family.
pub async fn rotate(tx: &TenantTx, key: &SecretKey, token: &str) -> Result<Rotation> {
    // The device first, as signing in does: two that lock in another order could wait for each other.
    if let Some(owner) = owner(tx, token).await? {
        device::Entity::find_by_id(owner)
            .lock_exclusive()
            .one(tx)
            .await?;
    }
    let row = Entity::find()
        .filter(Column::TokenHash.eq(token_hash(token)))
        .lock_exclusive()
        .one(tx)
        .await?;
    let now = tx.now();
    if let Some(row) = row.as_ref().filter(|row| is_reused(row, now)) {
        revoke(tx, Column::FamilyId.eq(row.family_id)).await?;
        return Ok(Rotation::Refused(Error::Unauthenticated(
            Denial::TokenRevoked,
        )));
    }
    let row = match usable(row, now) {
        Ok(row) => row,
        Err(refusal) => return Ok(Rotation::Refused(refusal)),
    };
    let Some((successor, next)) = successor(tx, key, (&row, token)).await? else {
        let revoked = Error::Unauthenticated(Denial::TokenRevoked);
        return Ok(Rotation::Refused(revoked));
    };
    let seen = device::ActiveModel {
        id: Set(row.device_id),
        last_seen_at: Set(Some(now)),
        ..Default::default()
    };
    let device = seen.update(tx).await?;
    Ok(Rotation::Successor(
        successor,
        next.expires_at,
        Box::new(device),
    ))
}

/// The successor of a usable token: made now, or the same again. None if it was rotated itself: only the newest
/// predecessor may ask again.
async fn successor(
    tx: &TenantTx,
    key: &SecretKey,
    (row, token): (&Model, &str),
) -> Result<Option<(String, Model)>> {
    let mac = key.mac("device token successor", &[token.as_bytes()]);
    let successor = token_from(TOKEN_PREFIX, mac);
    if let Some(next) = by_token(tx, &successor).await? {
        let newest = next.revoked_at.is_none() && next.rotated_at.is_none();
        return Ok(newest.then_some((successor, next)));
    }
    let rotated = ActiveModel {
        id: Set(row.id),
        rotated_at: Set(Some(tx.now())),
        ..Default::default()
    };
    rotated.update(tx).await?;
    // The grace is the newest predecessor's alone.
    let older = Condition::all()
        .add(Column::FamilyId.eq(row.family_id))
        .add(Column::RotatedAt.is_not_null())
        .add(Column::Id.ne(row.id));
    revoke(tx, older).await?;
    let next = insert(tx, (tx.new_id(), row.family_id, row.device_id), &successor).await?;
    Ok(Some((successor, next)))
}

/// Ends the family of a token that is presented after its grace time, wherever that is: two parties have it. Whether it did.
pub async fn end_if_reused(database: &Database, tenant: &Arc<Tenant>, token: &str) -> Result<bool> {
    let tx = database.read(tenant).await?;
    let row = by_token(&tx, token).await;
    let now = tx.now();
    let row = tx.settle(row).await?;
    let Some(row) = row.filter(|row| row.revoked_at.is_none() && is_reused(row, now)) else {
        return Ok(false);
    };
    let tx = database
        .write(tenant, &Actor::Device(row.device_id).into())
        .await?;
    let ended = revoke(&tx, Column::FamilyId.eq(row.family_id)).await;
    tx.settle(ended).await.map(|()| true)
}

/// The device that a token names, whatever has become of the token.
pub(super) async fn owner(tx: &TenantTx, token: &str) -> Result<Option<Uuid>> {
    Ok(by_token(tx, token).await?.map(|row| row.device_id))
}

async fn by_token(tx: &TenantTx, token: &str) -> Result<Option<Model>> {
    Ok(Entity::find()
        .filter(Column::TokenHash.eq(token_hash(token)))
        .one(tx)
        .await?)
}

/// The row, if its token still works.
fn usable(row: Option<Model>, now: Timestamp) -> Result<Model> {
    let row = row
        .filter(|row| row.revoked_at.is_none())
        .ok_or(Error::Unauthenticated(Denial::TokenRevoked))?;
    if row.expires_at <= now {
        return Err(Error::Unauthenticated(Denial::TokenExpired));
    }
    if is_reused(&row, now) {
        return Err(Error::Unauthenticated(Denial::TokenRevoked));
    }
    Ok(row)
}

/// Whether it is presented after its grace time, even if it was ended before.
fn is_reused(row: &Model, now: Timestamp) -> bool {
    row.rotated_at.is_some_and(|at| at + GRACE <= now)
}

async fn revoke(tx: &TenantTx, which: impl IntoCondition) -> Result<()> {
    device_token::Entity::update_many()
        .col_expr(Column::RevokedAt, Expr::value(tx.now()))
        .filter(which)
        .filter(Column::RevokedAt.is_null())
        .exec(tx)
        .await?;
    Ok(())
}

async fn insert(
    tx: &TenantTx,
    (id, family, device): (Uuid, Uuid, Uuid),
    token: &str,
) -> Result<Model> {
    let now = tx.now();
    let row = ActiveModel {
        id: Set(id),
        device_id: Set(device),
        family_id: Set(family),
        token_hash: Set(token_hash(token)),
        expires_at: Set(now + LIFETIME),
        rotated_at: Set(None),
        revoked_at: Set(None),
        created_at: Set(now),
    };
    Ok(row.insert(tx).await?)
}
