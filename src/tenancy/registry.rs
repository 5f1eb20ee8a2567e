//! The registry as requests and jobs see it: host or id to tenant, cached for a moment.

use super::host;
use crate::database::{Database, PlatformTx, Tenant};
use crate::error::{Error, Result};
use entity::platform::{domain, tenant};
use moka::future::Cache;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long an answer is kept, a "no" included: so long may a change made by another process go unseen.
const FRESH: Duration = Duration::from_secs(2);
/// Hosts kept at most; a flood of made-up hosts takes no more memory than this.
const HOSTS: u64 = 10_000;

/// Tenants by host and by id. Whoever asks at the same time shares one query.
#[derive(Clone, Debug)]
pub struct Registry {
    database: Database,
    base_domains: Arc<[String]>,
    by_host: Cache<String, Option<Arc<Tenant>>>,
    by_id: Cache<Uuid, Option<Arc<Tenant>>>,
}

impl Registry {
    /// A registry whose tenants are subdomains of `base_domains`, or have domains of their own.
    pub fn new(database: Database, base_domains: &[String]) -> Self {
        Self {
            database,
            base_domains: base_domains.into(),
            by_host: Cache::builder()
                .max_capacity(HOSTS)
                .time_to_live(FRESH)
                .build(),
            by_id: Cache::builder()
                .max_capacity(HOSTS)
                .time_to_live(FRESH)
                .build(),
        }
    }

    /// The tenant that the authority of a request names. Unknown is [`Error::TenantNotFound`].
    pub async fn at(&self, authority: &str) -> Result<Arc<Tenant>> {
        let host = host::parse(authority)?;
        self.by_host
            .try_get_with_by_ref(&host, self.look_up(&host))
            .await
            .map_err(Error::shared)?
            .ok_or(Error::TenantNotFound)
    }

    /// The tenant of a job.
    pub async fn get(&self, id: Uuid) -> Result<Arc<Tenant>> {
        let look_up = async {
            let tx = self.database.platform().await?;
            let found = tenant::Entity::find_by_id(id).one(&tx).await?;
            tx.commit().await?;
            Ok(found.map(Arc::new))
        };
        self.by_id
            .try_get_with(id, look_up)
            .await
            .map_err(Error::shared)?
            .ok_or(Error::TenantNotFound)
    }

    async fn look_up(&self, host: &str) -> Result<Option<Arc<Tenant>>> {
        let tx = self.database.platform().await?;
        let found = match host::slug(host, &self.base_domains) {
            Some(slug) => by_slug(&tx, slug).await?,
            None => by_domain(&tx, host).await?,
        };
        tx.commit().await?;
        Ok(found.map(Arc::new))
    }
}

/// The tenant with this slug.
pub async fn by_slug(tx: &PlatformTx, slug: &str) -> Result<Option<Tenant>> {
    Ok(tenant::Entity::find()
        .filter(tenant::Column::Slug.eq(slug))
        .one(tx)
        .await?)
}

/// All tenants, by slug.
pub async fn all(tx: &PlatformTx) -> Result<Vec<Tenant>> {
    Ok(tenant::Entity::find()
        .order_by_asc(tenant::Column::Slug)
        .all(tx)
        .await?)
}

/// The tenant's own domains, verified or not.
pub async fn domains(tx: &PlatformTx, tenant: Uuid) -> Result<Vec<domain::Model>> {
    Ok(domain::Entity::find()
        .filter(domain::Column::TenantId.eq(tenant))
        .order_by_asc(domain::Column::Host)
        .all(tx)
        .await?)
}

async fn by_domain(tx: &PlatformTx, host: &str) -> Result<Option<Tenant>> {
    let found = domain::Entity::find_by_id(host)
        .filter(domain::Column::VerifiedAt.is_not_null())
        .find_also_related(tenant::Entity)
        .one(tx)
        .await?;
    Ok(found.and_then(|(_, tenant)| tenant))
}
