//! What a tenant has of what its limits count. A tenant without a limit is not counted.

use crate::database::TenantTx;
use crate::error::{Error, Quota, Result};
use entity::platform::plan::Limit;
use entity::tenant::{device, media, member, role};
use sea_orm::sea_query::{Expr, LockType};
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, PaginatorTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};
use uuid::Uuid;

/// What is about to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coming {
    /// One more member.
    Member,
    /// One more device.
    Device,
    /// A media of this size; if its row is there already, the size is instead of the row's.
    Media {
        /// Which.
        id: Uuid,
        /// Its size.
        bytes: u64,
    },
}

/// Refuses what would go over the tenant's limit. Who asks waits until the one before has committed, so two at once cannot
/// both take the last place.
pub async fn admit(tx: &TenantTx, coming: Coming) -> Result<()> {
    let (limit, more, except) = match coming {
        Coming::Member => (Limit::Members, 1, None),
        Coming::Device => (Limit::Devices, 1, None),
        Coming::Media { id, bytes } => (Limit::MediaBytes, bytes, Some(id)),
    };
    let Some(max) = tx.tenant().limits.get(limit) else {
        return Ok(());
    };
    take_turn(tx).await?;
    let used = used(tx, limit, except).await?;
    if used.saturating_add(more) > max {
        let max = Some(max);
        return Err(Error::QuotaExceeded(Quota { limit, used, max }));
    }
    Ok(())
}

/// What the tenant has of each thing that is counted, and what it may have.
pub async fn quotas(tx: &TenantTx) -> Result<Vec<Quota>> {
    let mut quotas = Vec::new();
    for limit in [Limit::Devices, Limit::MediaBytes, Limit::Members] {
        quotas.push(Quota {
            limit,
            used: used(tx, limit, None).await?,
            max: tx.tenant().limits.get(limit),
        });
    }
    Ok(quotas)
}

/// Waits until those who count in the tenant before have committed. A role's row is the turnstile: each tenant has some that
/// stay, and locking one stops nobody who refers to it.
pub async fn take_turn(tx: &TenantTx) -> Result<()> {
    role::Entity::find()
        .filter(role::Column::BuiltIn.eq(true))
        .order_by_asc(role::Column::Name)
        .limit(1)
        .lock(LockType::NoKeyUpdate)
        .one(tx)
        .await?;
    Ok(())
}

/// Media whose bytes were refused are not there; an upload that is announced is.
async fn used(tx: &TenantTx, limit: Limit, except: Option<Uuid>) -> Result<u64> {
    match limit {
        Limit::Members => Ok(member::Entity::find().count(tx).await?),
        Limit::Devices => Ok(device::Entity::find().count(tx).await?),
        Limit::MediaBytes => {
            let mut stored = media::Entity::find()
                .select_only()
                .expr(Expr::cust("coalesce(sum(size), 0)::bigint"))
                .filter(media::Column::State.ne(media::State::Failed));
            if let Some(id) = except {
                stored = stored.filter(media::Column::Id.ne(id));
            }
            let sum: Option<i64> = stored.into_tuple().one(tx).await?;
            u64::try_from(sum.unwrap_or_default()).map_err(Error::internal)
        }
        Limit::RequestsPerMinute
        | Limit::ConcurrentRequests
        | Limit::ConcurrentJobs
        | Limit::QueuedJobs => Err(Error::internal(format!(
            "{limit} is not counted in the tenant"
        ))),
    }
}
