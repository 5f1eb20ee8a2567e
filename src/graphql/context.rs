//! What a resolver knows of its request, and the only door from a resolver to the database.

use super::idempotency::Once;
use super::limits::Demand;
use crate::actor::{Actor, Attribution, RequestId};
use crate::caller::Caller;
use crate::clock::Timestamp;
use crate::database::{Tenant, TenantTx};
use crate::error::{Denial, Error, Result};
use crate::history::Note;
use crate::history::readable;
use crate::permission::Permission;
use crate::rates::Client;
use crate::services::Services;
use crate::telemetry::Trace;
use crate::tenancy::host::Authority;
use async_graphql::Context;
use std::sync::{self, Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::timeout_at;

/// Who is calling: nobody, if anonymous. What they may do can change while they follow something, so it is shared with who
/// keeps it up to date.
pub type Calling = Arc<RwLock<Option<Arc<Caller>>>>;

/// One request: its tenant, its caller, and the unit of work that its reads share.
#[derive(Debug)]
pub struct RequestContext {
    /// Shared by all requests.
    pub services: Arc<Services>,
    /// From the host, never from an argument.
    pub tenant: Arc<Tenant>,
    /// The authority the client used, for links back to it.
    pub authority: Authority,
    /// Identity of the request, in logs, errors and history.
    pub request_id: String,
    /// Where it belongs: the jobs that it causes too.
    pub trace: Option<Trace>,
    /// The other end, for limits on how fast requests come.
    pub client: Arc<Client>,
    /// The caller's `X-Change-Reason`.
    pub reason: Option<String>,
    /// The caller's `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// What it means to this request.
    pub(super) once: Option<Once>,
    /// Whoever signs in, from then on.
    caller: RwLock<Calling>,
    /// How long an operation of the tenant's may take, and when this one is over. One that goes on from answer to answer never
    /// is: each of its units of work has the time of an operation.
    allowed: Duration,
    deadline: OnceLock<Instant>,
    reading: Mutex<Option<Arc<TenantTx>>>,
    /// What is to be in the trail, and by whom.
    noted: sync::Mutex<Vec<(Actor, Note)>>,
}

impl RequestContext {
    /// A request that has read nothing yet.
    pub fn new(
        services: Arc<Services>,
        tenant: Arc<Tenant>,
        request_id: String,
        authority: Authority,
    ) -> Self {
        let allowed = tenant.settings.statement_timeout_ms;
        let allowed = allowed.unwrap_or(services.config.statement_timeout_ms);
        let allowed = Duration::from_millis(allowed.into());
        Self {
            allowed,
            deadline: OnceLock::new(),
            services,
            tenant,
            caller: RwLock::default(),
            authority,
            trace: RequestId(request_id.clone()).trace(),
            request_id,
            client: Arc::default(),
            reason: None,
            idempotency_key: None,
            once: None,
            reading: Mutex::new(None),
            noted: sync::Mutex::default(),
        }
    }

    /// The same, by whoever it is at each moment.
    #[must_use]
    pub fn by(self, caller: Calling) -> Self {
        Self {
            caller: RwLock::new(caller),
            ..self
        }
    }

    /// Its operation begins now, and may take as long as one statement of the tenant's.
    pub(super) fn begin(&self) {
        self.deadline.get_or_init(|| Instant::now() + self.allowed);
    }

    /// When a unit of work that begins now is to be over, unless it comes too late.
    fn deadline(&self) -> Result<Instant> {
        let now = Instant::now();
        match self.deadline.get() {
            Some(deadline) if *deadline <= now => Err(Error::Timeout),
            Some(deadline) => Ok(*deadline),
            None => Ok(now + self.allowed),
        }
    }

    /// Waits for something else than PostgreSQL, the store say, as long as the operation has time.
    pub async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let deadline = self.deadline()?;
        let done = timeout_at(deadline.into(), work).await;
        done.map_err(|_| Error::Timeout)
    }

    /// The caller, or UNAUTHENTICATED.
    pub fn caller(&self) -> Result<Arc<Caller>> {
        self.viewer()
            .ok_or(Error::Unauthenticated(Denial::NoCredential))
    }

    /// The caller, if there is one.
    pub fn viewer(&self) -> Option<Arc<Caller>> {
        let calling = self.caller.read().unwrap_or_else(PoisonError::into_inner);
        let caller = calling.read().unwrap_or_else(PoisonError::into_inner);
        caller.clone()
    }

    /// From here on the request is this caller's.
    pub fn sign_in(&self, caller: Arc<Caller>) {
        self.become_caller(Some(caller));
    }

    /// From here on it is nobody's.
    pub fn sign_out(&self) {
        self.become_caller(None);
    }

    fn become_caller(&self, caller: Option<Arc<Caller>>) {
        let mut calling = self.caller.write().unwrap_or_else(PoisonError::into_inner);
        *calling = Arc::new(RwLock::new(caller));
    }

    /// Counts an operation, or refuses it because too many came.
    pub(super) fn count(&self, demand: &Demand) -> Result<()> {
        let caller = self.viewer();
        let caller = caller.as_ref().map(|caller| &caller.actor);
        let fields = (demand.root_fields, demand.attempts);
        let rates = &self.services.rates;
        rates.operation(&self.tenant, (caller, &self.client), fields)
    }

    /// What the history keeps of a change that this actor makes.
    fn attribution(&self, actor: &Actor) -> Attribution {
        Attribution {
            actor: actor.clone(),
            cause: None,
            request_id: Some(self.request_id.clone()),
            reason: self.reason.clone(),
            trace: self.trace,
        }
    }

    /// The unit of work that all reads of this request share, begun by the first of them. While what a mutation has written
    /// waits for its answer, it is that.
    pub async fn reading(&self) -> Result<Arc<TenantTx>> {
        if let Some(once) = &self.once
            && let Some(tx) = once.written()?
        {
            return Ok(tx);
        }
        let mut reading = self.reading.lock().await;
        // One in which a statement failed answers nothing any more: its other fields are not to blame.
        if let Some(tx) = reading.as_ref().filter(|tx| !tx.is_broken()) {
            return Ok(Arc::clone(tx));
        }
        drop(reading.take());
        let deadline = self.deadline()?;
        let tx = self.services.database.read(&self.tenant).await?;
        let tx = Arc::new(tx.until(deadline, self.allowed));
        *reading = Some(Arc::clone(&tx));
        Ok(tx)
    }

    /// Begins the unit of work of a root field that writes, of this actor's. The only way to one: with an `Idempotency-Key` it
    /// is done once.
    pub async fn writing(&self, actor: &Actor) -> Result<TenantTx> {
        let tx = self.beginning(actor).await?;
        match &self.once {
            Some(once) => once.claim(tx).await,
            None => Ok(tx),
        }
    }

    /// A unit of work for writing, of this actor's.
    pub(super) async fn beginning(&self, actor: &Actor) -> Result<TenantTx> {
        self.end_reading().await?;
        let deadline = self.deadline()?;
        let attribution = self.attribution(actor);
        let database = &self.services.database;
        let tx = database.write(&self.tenant, &attribution).await?;
        Ok(tx.until(deadline, self.allowed))
    }

    /// Notes what is to be in the trail, if it is somebody's doing. It is written when the request is answered.
    pub fn note(&self, note: Note) {
        if let Some(caller) = self.viewer() {
            let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.push((caller.actor.clone(), note));
        }
    }

    /// Writes what was noted. That it cannot is for the log: the answer is there.
    pub(super) async fn write_notes(&self) {
        let noted = std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner));
        let mut noted = noted.into_iter().peekable();
        while let Some((actor, note)) = noted.next() {
            let mut notes = vec![note];
            while let Some((_, note)) = noted.next_if(|(by, _)| *by == actor) {
                notes.push(note);
            }
            let written = async {
                self.end_reading().await?;
                let (services, by) = (&self.services, self.attribution(&actor));
                let notes = services
                    .notes
                    .write(&services.database, &self.tenant, &by, notes);
                notes.await
            };
            if let Err(error) = written.await {
                let request_id = &self.request_id;
                tracing::error!(?error, %actor, request_id, "what is to be in the trail is not");
            }
        }
    }

    /// The same error; that a permission was denied is noted.
    fn denied(&self, error: Error) -> Error {
        if let Error::Forbidden(permission) = error {
            self.note(Note::Denied(permission));
        }
        error
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

    /// Whether the caller may see what was, if it is asked for: that is a part of the trail, and kept for so long.
    fn require_past(&self, at: Option<Timestamp>) -> Result<()>;

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
        let request = self.request();
        let required = request.caller()?.require(permission);
        required.map_err(|error| request.denied(error))
    }

    fn require_past(&self, at: Option<Timestamp>) -> Result<()> {
        let Some(at) = at else {
            return Ok(());
        };
        self.require(Permission::AuditRead)?;
        readable(&self.request().tenant, at)
    }

    async fn read(&self, permission: Permission) -> Result<Arc<TenantTx>> {
        self.require(permission)?;
        self.request().reading().await
    }

    async fn write(&self, permission: Permission) -> Result<TenantTx> {
        self.require(permission)?;
        let caller = self.request().caller()?;
        self.request().writing(&caller.actor).await
    }
}
