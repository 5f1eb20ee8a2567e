//! What belongs into the trail and is no change of a row.

use crate::actor::{Actor, Attribution};
use crate::database::{Database, Tenant, TenantTx};
use crate::error::Result;
use entity::tenant::history::Action;
use moka::sync::Cache;
use sea_orm::{ActiveEnum as _, ConnectionTrait as _, DbBackend, Statement};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long what is noted again is no news.
const NEWS: Duration = Duration::from_mins(1);
/// So much of it is known at most, over all tenants.
const KNOWN: u64 = 100_000;

/// Of what: a table and its row.
type Subject<'a> = (&'a str, Uuid);

/// The member or device signed in.
pub async fn signed_in(tx: &TenantTx, subject: Subject<'_>, detail: Value) -> Result<()> {
    record(tx, subject, Action::SignIn, detail).await
}

/// The member signed out of so many sessions.
pub async fn signed_out(tx: &TenantTx, member: Uuid, sessions: u64) -> Result<()> {
    let detail = json!({ "sessions": sessions });
    record(tx, ("member", member), Action::SignOut, detail).await
}

/// Somebody tried to sign in as this member or device and failed; as none that there is, if none is given: the entry is the
/// tenant's then. What they sent is not kept: it may be a secret in the wrong place.
pub async fn sign_in_failed(tx: &TenantTx, kind: &str, subject: Option<Uuid>) -> Result<()> {
    let subject = match subject {
        Some(id) => (kind, id),
        None => ("tenant", tx.tenant().id),
    };
    record(tx, subject, Action::SignInFailed, json!({ "as": kind })).await
}

/// Something was done with this subject that is no change of it, and there is this to say of it.
pub async fn record(
    tx: &TenantTx,
    subject: Subject<'_>,
    action: Action,
    detail: Value,
) -> Result<()> {
    record_all(tx, json!([event(subject, action, detail)])).await
}

fn event((table, id): Subject<'_>, action: Action, detail: Value) -> Value {
    json!({ "subject": table, "id": id, "act": action.to_value(), "detail": detail })
}

/// Any number of events, in one statement.
async fn record_all(tx: &TenantTx, events: Value) -> Result<()> {
    let events = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT record_event(e.subject, e.id, e.act, e.detail)
         FROM jsonb_to_recordset($1) e (subject text, id uuid, act text, detail jsonb)",
        [events.into()],
    );
    tx.execute_raw(events).await?;
    Ok(())
}

/// What is noted of a request while it is answered, and written when it is: so no read is a write, and what was undone is
/// written all the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Note {
    /// Its actor was denied this permission.
    Denied(&'static str),
    /// They were given a link to the bytes of this media.
    Download(Uuid),
    /// Or one for the bytes to come.
    Upload(Uuid),
}

impl Note {
    fn event(&self, actor: &Actor, tenant: Uuid) -> Value {
        match self {
            Self::Denied(permission) => {
                let whom = match actor {
                    Actor::Member(id) | Actor::Impersonation { member: id, .. } => ("member", *id),
                    Actor::Device(id) => ("device", *id),
                    Actor::Job(_) | Actor::Operator(_) | Actor::System(_) => ("tenant", tenant),
                };
                event(whom, Action::Denied, json!({ "permission": permission }))
            }
            Self::Download(media) => Self::link(*media, "download"),
            Self::Upload(media) => Self::link(*media, "upload"),
        }
    }

    fn link(media: Uuid, to: &str) -> Value {
        event(("media", media), Action::LinkIssued, json!({ "to": to }))
    }
}

/// What was noted within the last minute, by tenant and actor: noted again, it is not written again. So a flood of refusals is
/// a row a minute.
#[derive(Clone, Debug)]
pub struct Notes(Cache<Key, ()>);

impl Default for Notes {
    fn default() -> Self {
        let known = Cache::builder().max_capacity(KNOWN).time_to_live(NEWS);
        Self(known.build())
    }
}

impl Notes {
    /// Writes what is news, in a unit of work of its own.
    pub async fn write(
        &self,
        database: &Database,
        tenant: &Arc<Tenant>,
        attribution: &Attribution,
        notes: Vec<Note>,
    ) -> Result<()> {
        let actor = &attribution.actor;
        let mut news = News {
            known: &self.0,
            keys: Vec::new(),
        };
        let mut events = Vec::new();
        for note in notes {
            let key = (tenant.id, actor.to_string(), note);
            if self.0.entry(key.clone()).or_insert(()).is_fresh() {
                events.push(key.2.event(actor, tenant.id));
                news.keys.push(key);
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        let tx = database.write(tenant, attribution).await?;
        let recorded = record_all(&tx, events.into()).await;
        tx.settle(recorded).await?;
        news.keys.clear();
        Ok(())
    }
}

/// By tenant, actor and what was noted.
type Key = (Uuid, String, Note);

/// What is being written. Dropped before that is done, by an error or by a client who hangs up, it is news again.
#[derive(Debug)]
struct News<'a> {
    known: &'a Cache<Key, ()>,
    keys: Vec<Key>,
}

impl Drop for News<'_> {
    fn drop(&mut self) {
        for key in &self.keys {
            self.known.invalidate(key);
        }
    }
}
