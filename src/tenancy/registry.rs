//! The registry as requests and jobs see it: host or id to tenant, kept until a change is heard of.

use super::host::{self, Authority};
use crate::database::{Database, Event, PlatformTx, Tenant, steps};
use crate::error::{Error, Result};
use entity::platform::{domain, tenant};
use moka::future::Cache;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, Statement,
};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long an answer is kept while every change is heard of.
const HEARD: Duration = Duration::from_mins(5);
/// How long while none is: so long may a change go unseen then.
const UNHEARD: Duration = Duration::from_secs(2);
/// How long a "no" is kept: so soon is a new host served.
const NO: Duration = Duration::from_millis(500);
/// Answers kept at most, and changes remembered; a flood of made-up hosts takes no more memory than this.
const KEPT: usize = 10_000;

/// Tenants by host and by id. Whoever asks at the same time shares one query.
#[derive(Clone, Debug)]
pub struct Registry {
    database: Database,
    base_domains: Arc<[String]>,
    by_host: Cache<String, Answer>,
    by_id: Cache<Uuid, Answer>,
    news: Arc<RwLock<News>>,
}

/// What the registry said, and how much of the news it knew when it was asked.
#[derive(Clone, Debug)]
struct Answer {
    tenant: Option<Arc<Tenant>>,
    /// It lacks a step that this binary counts on.
    behind: bool,
    at: Instant,
    as_of: u64,
}

impl Answer {
    fn tenant(self) -> Result<Arc<Tenant>> {
        match self.tenant {
            Some(_) if self.behind => Err(Error::TenantUpgrading),
            tenant => tenant.ok_or(Error::TenantNotFound),
        }
    }
}

/// What was heard of changes, counted.
#[derive(Debug, Default)]
struct News {
    listening: bool,
    heard: u64,
    /// Answers from before this are worth nothing.
    flushed: u64,
    /// When a tenant changed last.
    changed: HashMap<Uuid, u64>,
}

impl News {
    fn hear(&mut self, event: Event) {
        self.heard += 1;
        match event {
            Event::Listening => {
                self.listening = true;
                self.flush();
            }
            Event::Deaf => self.listening = false,
            Event::Tenant(id) => {
                self.changed.insert(id, self.heard);
                if self.changed.len() > KEPT {
                    self.flush();
                }
            }
        }
    }

    fn flush(&mut self) {
        self.changed.clear();
        self.flushed = self.heard;
    }

    fn bears_out(&self, answer: &Answer) -> bool {
        let may_be = match &answer.tenant {
            None => NO,
            Some(_) if self.listening => HEARD,
            Some(_) => UNHEARD,
        };
        let changed = answer
            .tenant
            .as_ref()
            .and_then(|tenant| self.changed.get(&tenant.id))
            .is_some_and(|&changed| changed > answer.as_of);
        answer.at.elapsed() < may_be && answer.as_of >= self.flushed && !changed
    }
}

impl Registry {
    /// A registry whose tenants are subdomains of `base_domains`, or have domains of their own.
    pub fn new(database: Database, base_domains: &[String]) -> Self {
        Self {
            database,
            base_domains: base_domains.into(),
            by_host: Cache::builder()
                .max_capacity(KEPT as u64)
                .time_to_live(HEARD)
                .build(),
            by_id: Cache::builder()
                .max_capacity(KEPT as u64)
                .time_to_live(HEARD)
                .build(),
            news: Arc::default(),
        }
    }

    /// Takes note of a change, so that no answer from before it is given again.
    pub fn hear(&self, event: Event) {
        let mut news = self.news.write().unwrap_or_else(PoisonError::into_inner);
        news.hear(event);
    }

    /// The tenant that the authority of a request names. Unknown is [`Error::TenantNotFound`]; one in use whose schema is
    /// behind this binary is [`Error::TenantUpgrading`].
    pub async fn at(&self, authority: &Authority) -> Result<Arc<Tenant>> {
        let host = authority.host();
        if let Some(answer) = self.by_host.get(host).await {
            if self.bears_out(&answer) {
                return answer.tenant();
            }
            self.by_host.invalidate(host).await;
        }
        let look_up = self.look_up(async |tx| match host::slug(host, &self.base_domains) {
            Some(slug) => by_slug(tx, slug).await,
            None => by_domain(tx, host).await,
        });
        // Apart: it is rare, and in the future of each request.
        let answer = Box::pin(self.by_host.try_get_with_by_ref(host, look_up)).await;
        answer.map_err(Arc::unwrap_or_clone)?.tenant()
    }

    /// The tenant of a job.
    pub async fn get(&self, id: Uuid) -> Result<Arc<Tenant>> {
        if let Some(answer) = self.by_id.get(&id).await {
            if self.bears_out(&answer) {
                return answer.tenant();
            }
            self.by_id.invalidate(&id).await;
        }
        let look_up = self.look_up(async |tx| Ok(tenant::Entity::find_by_id(id).one(tx).await?));
        // Apart: it is rare, and in the future of each run of a job.
        let answer = Box::pin(self.by_id.try_get_with(id, look_up)).await;
        answer.map_err(Arc::unwrap_or_clone)?.tenant()
    }

    fn bears_out(&self, answer: &Answer) -> bool {
        let news = self.news.read().unwrap_or_else(PoisonError::into_inner);
        news.bears_out(answer)
    }

    async fn look_up(
        &self,
        query: impl AsyncFnOnce(&PlatformTx) -> Result<Option<Tenant>>,
    ) -> Result<Answer> {
        // Before the query: what is heard while it runs may be newer than what it finds.
        let as_of = self
            .news
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .heard;
        let at = Instant::now();
        let tx = self.database.platform().await?;
        let found = query(&tx).await?;
        let behind = match &found {
            Some(tenant) if tenant.state == tenant::State::Active => is_behind(&tx, tenant).await?,
            _ => false,
        };
        tx.commit().await?;
        Ok(Answer {
            tenant: found.map(Arc::new),
            behind,
            at,
            as_of,
        })
    }
}

async fn is_behind(tx: &PlatformTx, tenant: &Tenant) -> Result<bool> {
    let steps = steps();
    let wanted = i64::try_from(steps.len()).map_err(Error::internal)?;
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT count(*) AS there FROM migration WHERE schema_name = $1 AND name = ANY ($2)",
        [tenant.schema_name.as_str().into(), steps.into()],
    );
    let row = tx.query_one_raw(query).await?;
    let there: i64 = row.map_or(Ok(0), |row| row.try_get("", "there"))?;
    Ok(there < wanted)
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
    let found = domain::Entity::find()
        .filter(domain::Column::Host.eq(host))
        .filter(domain::Column::VerifiedAt.is_not_null())
        .find_also_related(tenant::Entity)
        .one(tx)
        .await?;
    Ok(found.and_then(|(_, tenant)| tenant))
}
