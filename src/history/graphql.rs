//! The type `Change`: one recorded change of one object.

use crate::error::Result;
use crate::graphql::{
    ContextExt as _, Cursor, DateTime, Kind, PageInput, Paged, connection, global_id,
};
use crate::identity::ActorObject;
use crate::permission::Permission;
use async_graphql::connection::Connection;
use async_graphql::{Context, Enum, ID, Object, SimpleObject};
use base64::Engine as _;
use entity::tenant::history::{Action, Model};
use serde_json::Value;
use uuid::Uuid;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum ChangeAction {
    /// The object was made.
    Create,
    /// It was removed.
    Delete,
    /// It was changed.
    Update,
}

/// One field of a change.
#[derive(Clone, Debug, SimpleObject)]
pub struct FieldChange {
    /// The field.
    name: String,
    /// Its value before; null where there was none.
    before: Option<Value>,
    /// Its value after; null where there is none.
    after: Option<Value>,
}

/// One recorded change of one object.
#[derive(Clone, Debug)]
pub struct Change(Model);

impl Kind for Change {
    const NAME: &'static str = "Change";
}

/// What stands for a secret's value.
const MASK: &str = "********";

/// One recorded change of one object.
#[Object]
impl Change {
    /// Opaque, globally unique.
    pub async fn id(&self) -> ID {
        global_id::<Self>(self.0.id)
    }

    /// When, by the database's clock.
    async fn at(&self) -> DateTime {
        self.0.recorded_at.into()
    }

    /// What was done.
    async fn action(&self) -> ChangeAction {
        match self.0.action {
            Action::Create => ChangeAction::Create,
            Action::Update => ChangeAction::Update,
            Action::Delete => ChangeAction::Delete,
        }
    }

    /// Who did it.
    async fn actor(&self, ctx: &Context<'_>) -> Result<ActorObject> {
        ActorObject::parse(ctx, &self.0.actor).await
    }

    /// For a job's change: who caused the job.
    async fn cause(&self, ctx: &Context<'_>) -> Result<Option<ActorObject>> {
        match &self.0.cause {
            Some(cause) => ActorObject::parse(ctx, cause).await.map(Some),
            None => Ok(None),
        }
    }

    /// The request it came with.
    async fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// What the caller gave in the X-Change-Reason header.
    async fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// Equal for all changes that were committed together.
    async fn transaction_id(&self) -> ID {
        ID(self.0.transaction_id.to_string())
    }

    /// Type name of the object, kept after it is deleted.
    async fn subject_type(&self) -> String {
        camel(&self.0.subject_type, true)
    }

    /// Id of the object, kept after it is deleted; `node(id:)` gives the object while it is there.
    async fn subject_id(&self) -> ID {
        let name = camel(&self.0.subject_type, true);
        let bytes = [name.as_bytes(), self.0.subject_id.as_bytes()].concat();
        ID(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What changed, field by field.
    async fn fields(&self) -> Vec<FieldChange> {
        match self.0.action {
            Action::Create => each(&self.0.row, |value| (None, Some(value))),
            Action::Delete => each(&self.0.row, |value| (Some(value), None)),
            Action::Update => self
                .0
                .changed
                .iter()
                .map(|name| self.updated(name))
                .collect(),
        }
    }

    /// Values right after this change; secrets are left out.
    async fn snapshot(&self) -> Value {
        let row = self.0.row.as_object().cloned().unwrap_or_default();
        row.into_iter()
            .map(|(name, value)| (camel(&name, false), value))
            .collect()
    }
}

impl Change {
    fn updated(&self, name: &str) -> FieldChange {
        let is_secret = self.0.row.get(name).is_none();
        let shown = |row: &Value| match row.get(name) {
            _ if is_secret => Some(Value::from(MASK)),
            Some(Value::Null) | None => None,
            Some(value) => Some(value.clone()),
        };
        FieldChange {
            name: camel(name, false),
            before: shown(&self.0.before),
            after: shown(&self.0.row),
        }
    }

    /// The change with this id, if it is the tenant's.
    pub async fn find(ctx: &Context<'_>, id: Uuid) -> Result<Option<Self>> {
        let tx = ctx.read(Permission::AuditRead).await?;
        Ok(super::find(&tx, id).await?.map(Self))
    }

    /// A page of the trail, newest first: one object's, or the whole tenant's.
    pub async fn page(
        ctx: &Context<'_>,
        page: PageInput,
        subject: Option<Uuid>,
    ) -> Result<Connection<Cursor, Self>> {
        let tx = ctx.read(Permission::AuditRead).await?;
        let rows = super::list(&tx, subject, page.after, page.first + 1).await?;
        Ok(connection(Paged::of(rows, page), |row| row.id, Self))
    }
}

/// All fields of a row that have a value.
fn each(row: &Value, sides: impl Fn(Value) -> (Option<Value>, Option<Value>)) -> Vec<FieldChange> {
    let fields = row.as_object().into_iter().flatten();
    fields
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| {
            let (before, after) = sides(value.clone());
            FieldChange {
                name: camel(name, false),
                before,
                after,
            }
        })
        .collect()
}

/// `client_id` as the API spells it: `clientId`, or `ClientId` for a type.
fn camel(name: &str, mut upper: bool) -> String {
    let mut spelled = String::with_capacity(name.len());
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else {
            spelled.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    spelled
}
