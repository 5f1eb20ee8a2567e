//! `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): a mutation that is sent again is answered as it was, and
//! not done again.
//!
//! The key's row, what the mutation writes, and the answer are one transaction: the commit of the mutation's unit of work is
//! put off until its answer is there. Cut anywhere, all of it happened or nothing, so that whoever sends it again gets the
//! first answer, or has it done now.
//!
//! Answers hold what is shown once, such as a PIN: they are kept encrypted, with a key made of the instance's secret and the
//! client's `Idempotency-Key`, which is not kept.

use super::RequestContext;
use super::asked::{Asked, Wanted};
use super::door::Ready;
use super::persisted::bare;
use crate::actor::Actor;
use crate::code::KINDS;
use crate::database::{Deferred, TenantTx};
use crate::error::{Error, Result};
use crate::secret::{equal, hex, open, seal};
use crate::tenancy::retries::KEPT;
use async_graphql::parser::types::OperationType;
use async_graphql::{Response, ServerError, Value};
use axum::http::{HeaderName, HeaderValue};
use entity::tenant::idempotency_key::{Column, Entity};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, QueryFilter as _,
    Statement,
};
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Marks an answer that was given before.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// How long an answer waits for the reads of fields that nobody waits for any more.
const PATIENCE: Duration = Duration::from_secs(5);

/// A mutation that came with a key.
pub(super) struct Once {
    /// Of the key's row: made of tenant, actor and key.
    id: Uuid,
    by: Actor,
    /// What was sent, hashed.
    request: [u8; 32],
    /// What the answer is encrypted with.
    key: [u8; 32],
    /// The mutation's unit of work, from its end to that of its answer.
    written: Deferred,
    /// Somebody else had the key, and is done.
    is_taken: AtomicBool,
}

impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Once")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A hash of what is asked for, if it comes with a key; only who has the secret can tell what it is of. A document is the same
/// by its text and by the hash of it.
pub(super) fn digest(context: &RequestContext, asked: &Asked) -> Result<Option<[u8; 32]>> {
    if context.idempotency_key.is_none() {
        return Ok(None);
    }
    let document = match &asked.document {
        Wanted::Text(text) => hex(&Sha256::digest(text)),
        Wanted::Id(id) | Wanted::Hash(id, _) => bare(id).to_owned(),
    };
    let variables = serde_json::to_vec(&asked.variables).map_err(Error::internal)?;
    let operation = asked.operation_name.as_deref().unwrap_or("");
    let parts = [document.as_bytes(), &variables, operation.as_bytes()];
    let secret = &context.services.key;
    Ok(Some(secret.mac("idempotent request", &parts)))
}

impl Once {
    /// What a request with a key is, if the key means something to it.
    pub(super) fn of(context: &RequestContext, ready: &Ready) -> Result<Option<Self>> {
        let (Some(key), Some(request)) = (&context.idempotency_key, ready.digest) else {
            return Ok(None);
        };
        if ready.kind != Some(OperationType::Mutation) {
            return Ok(None);
        }
        if ready.demand.root_fields != 1 {
            let why = "A mutation with an Idempotency-Key has one root field: each is a unit of work of its own.";
            return Err(Error::BadRequest(why.to_owned()));
        }
        // Nobody may do anything but sign in, and to do that again is no harm: a token is not kept for it.
        let Some(caller) = context.viewer().filter(|_| ready.demand.attempts == 0) else {
            return Ok(None);
        };
        let secret = &context.services.key;
        let actor = caller.actor.to_string();
        let parts = [
            context.tenant.id.as_bytes().as_slice(),
            actor.as_bytes(),
            key.as_bytes(),
        ];
        let hash = secret.mac("idempotency key", &parts);
        Ok(Some(Self {
            id: Uuid::from_slice(&hash[..16]).map_err(Error::internal)?,
            by: caller.actor.clone(),
            request,
            key: secret.mac("idempotent answer", &parts),
            written: Deferred::default(),
            is_taken: AtomicBool::new(false),
        }))
    }

    /// What the mutation has written, until its answer is there.
    pub(super) fn written(&self) -> Result<Option<Arc<TenantTx>>> {
        match self.written.get() {
            Some(tx) if tx.is_broken() => Err(Error::Unavailable),
            written => Ok(written),
        }
    }

    /// Claims the key as the first thing in the mutation's unit of work, and puts its commit off. Waits for whoever has the
    /// key and is not done.
    pub(super) async fn claim(&self, tx: TenantTx) -> Result<TenantTx> {
        if self.written.get().is_some() {
            return Err(Error::internal("a root field writes in one unit of work"));
        }
        match self.insert(&tx).await {
            Ok(true) => Ok(tx.deferred(&self.written)),
            Ok(false) => {
                self.is_taken.store(true, Ordering::Relaxed);
                tx.rollback().await?;
                Err(Error::KeyInUse)
            }
            Err(error) => tx.settle(Err(error)).await,
        }
    }

    /// Whether the key is ours: nobody had it, or so long ago that it is forgotten.
    async fn insert(&self, tx: &TenantTx) -> Result<bool> {
        let now = tx.now();
        let statement = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "INSERT INTO idempotency_key (id, request, answer, created_at) VALUES ($1, $2, '', $3)
             ON CONFLICT (id) DO UPDATE
             SET request = excluded.request, answer = excluded.answer, created_at = excluded.created_at
             WHERE idempotency_key.created_at <= $4 RETURNING id",
            [
                self.id.into(),
                self.request.to_vec().into(),
                now.into(),
                (now - KEPT).into(),
            ],
        );
        Ok(tx.query_one_raw(statement).await?.is_some())
    }

    async fn store(&self, tx: &TenantTx, response: &Response) -> Result<()> {
        let answer = serde_json::to_vec(response).map_err(Error::internal)?;
        let sealed = seal(&self.key, &self.request, answer)?;
        Entity::update_many()
            .col_expr(Column::Answer, Expr::value(sealed))
            .filter(Column::Id.eq(self.id))
            .exec(tx)
            .await?;
        Ok(())
    }

    /// The first answer, if the key is known.
    async fn kept(&self, context: &RequestContext) -> Result<Option<Response>> {
        let tx = context.reading().await?;
        let since = tx.now() - KEPT;
        let known = Entity::find_by_id(self.id).filter(Column::CreatedAt.gt(since));
        let known = known.one(&*tx).await;
        drop(tx);
        context.end_reading().await?;
        let Some(known) = known? else {
            return Ok(None);
        };
        if !equal(&known.request, &self.request) {
            return Err(Error::KeyReused);
        }
        let answer = open(&self.key, &self.request, known.answer)?;
        let mut response: Response = serde_json::from_slice(&answer).map_err(Error::internal)?;
        let replayed = HeaderValue::from_static("true");
        response.http_headers.insert(IDEMPOTENCY_REPLAYED, replayed);
        Ok(Some(response))
    }

    /// Ends what the mutation began: its rows, the key and the answer are there together, or none of them.
    async fn keep(&self, context: &RequestContext, response: Response) -> Result<Response> {
        let written = self.written.take();
        if self.is_taken.load(Ordering::Relaxed) {
            return self.first(context).await;
        }
        let is_answer = is_answer(&response);
        let Some(tx) = written else {
            // It wrote nothing: a failure, of the kind that is an answer or of the other.
            return if is_answer && !self.keep_failure(context, &response).await? {
                self.first(context).await
            } else {
                Ok(response)
            };
        };
        if tx.is_broken() || !is_answer {
            // Closing the connection undoes it too.
            let _ = alone(tx).await?.rollback().await;
            return Ok(Response::from_errors(response.errors));
        }
        let tx = alone(tx).await?;
        let stored = self.store(&tx, &response).await;
        tx.settle(stored).await?;
        // What the mutation forgot was remembered again while it was not committed yet.
        context.services.callers.forget(context.tenant.id);
        Ok(response)
    }

    /// What was answered to whoever had the key.
    async fn first(&self, context: &RequestContext) -> Result<Response> {
        self.kept(context).await?.ok_or(Error::Unavailable)
    }

    /// Whether the key was ours, and the answer is kept.
    async fn keep_failure(&self, context: &RequestContext, response: &Response) -> Result<bool> {
        let tx = context.beginning(&self.by).await?;
        let kept = async {
            let ours = self.insert(&tx).await?;
            if ours {
                self.store(&tx, response).await?;
            }
            Ok(ours)
        };
        let kept = kept.await;
        tx.settle(kept).await
    }
}

/// Whether it is what the same request would be answered again: not, if it failed as a whole, or a part of it by our fault.
fn is_answer(response: &Response) -> bool {
    response.data != Value::Null && !response.errors.iter().any(is_ours)
}

fn is_ours(error: &ServerError) -> bool {
    let code = error.extensions.as_ref().and_then(|all| all.get("code"));
    let ours = |code: &str| {
        KINDS
            .iter()
            .any(|kind| kind.code == code && kind.status >= 500)
    };
    matches!(code, Some(Value::String(code)) if ours(code))
}

/// Runs a request; one with a key, if nobody did before.
pub(super) async fn answer(
    context: &RequestContext,
    under_way: &UnderWay,
    run: impl Future<Output = Response>,
) -> Result<Response> {
    let Some(once) = &context.once else {
        return Ok(run.await);
    };
    let _turn = under_way.begin(once.id)?;
    if let Some(answer) = once.kept(context).await? {
        return Ok(answer);
    }
    let response = run.await;
    once.keep(context, response).await
}

/// The unit of work, once nobody else reads on it: the batches of fields that were given up may do so for a moment.
async fn alone(mut tx: Arc<TenantTx>) -> Result<TenantTx> {
    let began = Instant::now();
    loop {
        match Arc::try_unwrap(tx) {
            Ok(tx) => return Ok(tx),
            Err(shared) => tx = shared,
        }
        if began.elapsed() > PATIENCE {
            return Err(Error::Unavailable);
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Keys whose mutations are under way on this server: whoever comes second is told so, and holds no connection meanwhile.
#[derive(Clone, Debug, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashSet<Uuid>>>);

impl UnderWay {
    fn begin(&self, id: Uuid) -> Result<Turn> {
        if self.lock().insert(id) {
            Ok(Turn(self.clone(), id))
        } else {
            Err(Error::KeyInUse)
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Turn(UnderWay, Uuid);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}
