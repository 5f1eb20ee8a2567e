//! Devices: hardware that signs in with `client_id` and PIN, and works with a token that rotates.

pub mod graphql;
pub mod http;
mod list;
mod token;

pub use graphql::Device;
pub use list::{DeviceFilter, DeviceOrder};
pub use token::{TOKEN_PREFIX, authenticate, end_if_reused, rotate};

use crate::actor::{Actor, RequestId};
use crate::clock::Timestamp;
use crate::database::{Database, Tenant, TenantTx};
use crate::error::{Denial, Error, OnConstraint as _, Result};
use crate::history::{sign_in_failed, signed_in};
use crate::secret::HashSlot;
use crate::tenancy::quota::{self, Coming};
use chrono::Duration;
use entity::tenant::device::{ActiveModel, Column, Entity, Model};
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _,
    Set,
};
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

/// Wrong PINs before the device is locked.
const MAX_ATTEMPTS: i32 = 10;
/// How long it is locked then.
const LOCK: Duration = Duration::minutes(15);

/// A device to be made.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// For people.
    pub name: String,
    /// What it presents; made up if not given.
    pub client_id: Option<String>,
    /// From [`HashSlot::hash`].
    pub pin_hash: String,
}

/// Makes a device, if the tenant may have one more.
pub async fn create(tx: &TenantTx, new: NewDevice) -> Result<Model> {
    check_name(&new.name)?;
    let client_id = match new.client_id {
        Some(client_id) => check_client_id(client_id)?,
        None => format!("D-{}", &crate::secret::new_pin()),
    };
    quota::admit(tx, Coming::Device).await?;
    let now = tx.now();
    let taken = || {
        Error::already_exists(
            "clientId",
            format!("There is a device {client_id} already."),
        )
    };
    let device = ActiveModel {
        id: Set(tx.new_id()),
        name: Set(new.name),
        client_id: Set(client_id.clone()),
        pin_hash: Set(new.pin_hash),
        enabled: Set(true),
        firmware_version: Set(None),
        provisioned_at: Set(None),
        last_seen_at: Set(None),
        failed_pin_attempts: Set(0),
        locked_until: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
        version: Set(1),
    };
    device
        .insert(tx)
        .await
        .on_constraint("device_client_id_key", taken)
}

/// What to change of a device.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// A new name.
    pub name: Option<String>,
    /// Whether it may sign in.
    pub enabled: Option<bool>,
    /// Refuse unless this is its version.
    pub if_version: Option<i32>,
}

/// Changes a device.
pub async fn update(tx: &TenantTx, id: Uuid, change: Change) -> Result<Model> {
    let device = lock(tx, Column::Id.eq(id))
        .await?
        .ok_or(Error::NotFound("device"))?;
    if change
        .if_version
        .is_some_and(|version| version != device.version)
    {
        return Err(Error::VersionConflict(device.version));
    }
    let mut update = ActiveModel {
        id: Set(id),
        ..Default::default()
    };
    if let Some(name) = change.name {
        check_name(&name)?;
        update.name = Set(name);
    }
    if let Some(enabled) = change.enabled {
        update.enabled = Set(enabled);
        if !enabled {
            token::revoke_all(tx, id).await?;
        }
    }
    if !update.is_changed() {
        return Ok(device);
    }
    Ok(update.update(tx).await?)
}

/// The device, if it is the tenant's.
pub async fn find(tx: &TenantTx, id: Uuid) -> Result<Model> {
    Entity::find_by_id(id)
        .one(tx)
        .await?
        .ok_or(Error::NotFound("device"))
}

/// What a device sends to sign in.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "it holds a secret")]
pub struct Credentials {
    /// Which.
    pub client_id: String,
    /// Its PIN.
    pub pin: String,
    /// What it runs, if it says.
    pub firmware_version: Option<String>,
}

/// A token that was given out, and to whom.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "it holds a secret")]
pub struct Issued {
    /// The token; only its hash is stored.
    pub token: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The device.
    pub device: Model,
}

/// Signs a device in. The row is locked while its PIN is looked at: of two that try at once the second waits, so attempts
/// are counted one by one and one token lives. An unknown `client_id` takes as long as a wrong PIN and answers the same.
pub async fn sign_in(
    database: &Database,
    tenant: &Arc<Tenant>,
    slot: HashSlot,
    credentials: Credentials,
    request: &RequestId,
) -> Result<Issued> {
    let unknown = Actor::System("device sign-in".to_owned());
    let tx = database.read(tenant).await?;
    let found = Entity::find()
        .filter(Column::ClientId.eq(&credentials.client_id))
        .one(&tx)
        .await;
    let found = tx.settle(found.map_err(Error::from)).await?;
    let actor = found.map_or(unknown, |device| Actor::Device(device.id));
    let tx = database.write(tenant, &actor.by_request(request)).await?;
    match attempt(&tx, slot, credentials).await {
        // A wrong PIN is counted: the unit of work is kept, and the answer is the refusal.
        Ok(Attempt::Refused(error)) => {
            tx.commit().await?;
            Err(error)
        }
        Ok(Attempt::Issued(issued)) => {
            tx.commit().await?;
            Ok(*issued)
        }
        Err(error) => tx.settle(Err(error)).await,
    }
}

enum Attempt {
    Issued(Box<Issued>),
    Refused(Error),
}

async fn attempt(tx: &TenantTx, slot: HashSlot, credentials: Credentials) -> Result<Attempt> {
    let device = lock(tx, Column::ClientId.eq(&credentials.client_id)).await?;
    let now = tx.now();
    let locked = device
        .as_ref()
        .and_then(|device| device.locked_until)
        .filter(|until| *until > now);
    if let Some(until) = locked {
        let wait = (until - now).to_std().unwrap_or_default();
        return Ok(Attempt::Refused(Error::RateLimited(wait)));
    }
    let stored = device.as_ref().map(|device| device.pin_hash.as_str());
    let matches = slot.verify(&credentials.pin, stored).await?;
    let Some(device) = device else {
        sign_in_failed(tx, "device", None).await?;
        return Ok(Attempt::Refused(Error::Unauthenticated(
            Denial::InvalidCredentials,
        )));
    };
    if !matches {
        count_failure(tx, &device).await?;
        sign_in_failed(tx, "device", Some(device.id)).await?;
        return Ok(Attempt::Refused(Error::Unauthenticated(
            Denial::InvalidCredentials,
        )));
    }
    if !device.enabled {
        return Ok(Attempt::Refused(Error::Unauthenticated(
            Denial::DeviceDisabled,
        )));
    }
    let device = ActiveModel {
        id: Set(device.id),
        provisioned_at: Set(device.provisioned_at.or(Some(now))),
        last_seen_at: Set(Some(now)),
        failed_pin_attempts: Set(0),
        locked_until: Set(None),
        firmware_version: Set(credentials.firmware_version.or(device.firmware_version)),
        ..Default::default()
    };
    let device = device.update(tx).await?;
    token::revoke_all(tx, device.id).await?;
    let (token, expires_at) = token::issue(tx, device.id).await?;
    signed_in(tx, ("device", device.id), json!({})).await?;
    Ok(Attempt::Issued(Box::new(Issued {
        token,
        expires_at,
        device,
    })))
}

async fn count_failure(tx: &TenantTx, device: &Model) -> Result<()> {
    let attempts = device.failed_pin_attempts + 1;
    let update = if attempts >= MAX_ATTEMPTS {
        ActiveModel {
            failed_pin_attempts: Set(0),
            locked_until: Set(Some(tx.now() + LOCK)),
            ..Default::default()
        }
    } else {
        ActiveModel {
            failed_pin_attempts: Set(attempts),
            ..Default::default()
        }
    };
    ActiveModel {
        id: Set(device.id),
        ..update
    }
    .update(tx)
    .await?;
    Ok(())
}

async fn lock(tx: &TenantTx, which: sea_orm::sea_query::SimpleExpr) -> Result<Option<Model>> {
    Ok(Entity::find()
        .filter(which)
        .lock_exclusive()
        .one(tx)
        .await?)
}

fn check_name(name: &str) -> Result<()> {
    if name.trim().is_empty() || name.chars().count() > 100 || name.contains(char::is_control) {
        return Err(Error::invalid(
            "name",
            "A device's name has 1 to 100 characters.",
        ));
    }
    Ok(())
}

fn check_client_id(client_id: String) -> Result<String> {
    let taken = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    if (1..=64).contains(&client_id.len()) && client_id.bytes().all(taken) {
        Ok(client_id)
    } else {
        Err(Error::invalid(
            "clientId",
            "A clientId has 1 to 64 letters, digits, hyphens, underscores, dots and colons.",
        ))
    }
}
