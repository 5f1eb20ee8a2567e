//! What a resolver knows of its request, and the only door from a resolver to the database.

use crate::actor::{Actor, Attribution};
use crate::caller::Caller;
use crate::database::{Tenant, TenantTx};
use crate::error::{Denial, Error, Result};
use crate::permission::Permission;
use crate::services::Services;
use async_graphql::Context;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::Mutex;

/// One request: its tenant, its caller, and the unit of work that its reads share.
#[derive(Debug)]
pub struct RequestContext {
    /// Shared by all requests.
    pub services: Arc<Services>,
    /// From the host, never from an argument.
    pub tenant: Arc<Tenant>,
    /// The authority the client used, for links back to it.
    pub authority: String,
    /// Identity of the request, in logs, errors and history.
    pub request_id: String,
    /// The caller's `X-Change-Reason`.
    pub reason: Option<String>,
    /// Nobody, if anonymous; whoever signs in, from then on.
    caller: RwLock<Option<Arc<Caller>>>,
    reading: Mutex<Option<Arc<TenantTx>>>,
}

impl RequestContext {
    /// A request that has read nothing yet.
    pub fn new(
        services: Arc<Services>,
        tenant: Arc<Tenant>,
        request_id: String,
        authority: String,
    ) -> Self {
        Self {
            services,
            tenant,
            caller: RwLock::default(),
            authority,
            request_id,
            reason: None,
            reading: Mutex::new(None),
        }
    }

    /// The caller, or UNAUTHENTICATED.
    pub fn caller(&self) -> Result<Arc<Caller>> {
        self.viewer()
            .ok_or(Error::Unauthenticated(Denial::NoCredential))
    }

    /// The caller, if there is one.
    pub fn viewer(&self) -> Option<Arc<Caller>> {
        self.caller
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// From here on the request is this caller's.
    pub fn sign_in(&self, caller: Arc<Caller>) {
        *self.caller.write().unwrap_or_else(PoisonError::into_inner) = Some(caller);
    }

    /// From here on it is nobody's.
    pub fn sign_out(&self) {
        *self.caller.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What the history keeps of a change that this actor makes.
    pub fn attribution(&self, actor: &Actor) -> Attribution {
        Attribution {
            actor: actor.clone(),
            cause: None,
            request_id: Some(self.request_id.clone()),
            reason: self.reason.clone(),
        }
    }

    /// The unit of work that all reads of this request share, begun by the first of them.
    pub async fn reading(&self) -> Result<Arc<TenantTx>> {
        let mut reading = self.reading.lock().await;
        // One in which a statement failed answers nothing any more: its other fields are not to blame.
        if let Some(tx) = reading.as_ref().filter(|tx| !tx.is_broken()) {
            return Ok(Arc::clone(tx));
        }
        drop(reading.take());
        let tx = Arc::new(self.services.database.read(&self.tenant).await?);
        *reading = Some(Arc::clone(&tx));
        Ok(tx)
    }

    /// Ends the reads, so that a request never holds two connections.
    pub async fn end_reading(&self) -> Result<()> {
        let reading = self.reading.lock().await.take();
        match reading.map(Arc::try_unwrap) {
            Some(Ok(tx)) => tx.commit().await,
            // A field that was cut short still holds it: dropping the last handle rolls it back.
            Some(Err(_)) | None => Ok(()),
        }
    }
}

/// What resolvers call on async-graphql's context.
pub trait ContextExt {
    /// The request.
    fn request(&self) -> &RequestContext;

    /// Whether the caller may; UNAUTHENTICATED or FORBIDDEN if not.
    fn require(&self, permission: Permission) -> Result<()>;

    /// The shared unit of work for reading, if the caller may.
    fn read(&self, permission: Permission) -> impl Future<Output = Result<Arc<TenantTx>>> + Send;

    /// A unit of work for one mutation, if the caller may. End it with [`TenantTx::settle`].
    fn write(&self, permission: Permission) -> impl Future<Output = Result<TenantTx>> + Send;
}

impl ContextExt for Context<'_> {
    fn request(&self) -> &RequestContext {
        self.data_unchecked::<Arc<RequestContext>>()
    }

    fn require(&self, permission: Permission) -> Result<()> {
        self.request().caller()?.require(permission)
    }

    async fn read(&self, permission: Permission) -> Result<Arc<TenantTx>> {
        self.require(permission)?;
        self.request().reading().await
    }

    async fn write(&self, permission: Permission) -> Result<TenantTx> {
        let request = self.request();
        let caller = request.caller()?;
        caller.require(permission)?;
        request.end_reading().await?;
        let attribution = request.attribution(&caller.actor);
        request
            .services
            .database
            .write(&request.tenant, &attribution)
            .await
    }
}
