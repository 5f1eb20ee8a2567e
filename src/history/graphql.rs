//! The type `Change`: one recorded change of one object.

use super::Filter;
use crate::error::Result;
use crate::graphql::{
    ContextExt as _, Cursor, DateTime, Key, Kind, Order, Owned, PageArgs, Place, SortKey, few,
    follow, global_id, global_id_of, load_row, parse_global_id, rows, rows_of, until_error,
};
use crate::identity::ActorObject;
use crate::permission::Permission;
use async_graphql::connection::Connection;
use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject, Subscription};
use entity::tenant::history::{Action, Column, Entity, Model};
use futures::{FutureExt as _, Stream, TryStreamExt as _};
use serde_json::Value;
use uuid::Uuid;

/// The order of the trail: newest first.
const NEWEST: Order = Order {
    name: "changes",
    key: SortKey::Time(r#""history"."recorded_at""#),
    descending: true,
};
/// That of one object's part of it: the same.
const OBJECTS: Order = Order {
    name: "changes.object",
    ..NEWEST
};

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "Action")]
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
        self.0.action.into()
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
        global_id_of(&camel(&self.0.subject_type, true), self.0.subject_id)
    }

    #[graphql(flatten)]
    async fn subject(&self) -> Subject {
        Subject {
            kind: camel(&self.0.subject_type, true),
            id: self.0.subject_id,
        }
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
        ctx.require(Permission::AuditRead)?;
        Ok(load_row::<Entity>(ctx, id).await?.map(Self))
    }

    /// A page of the whole tenant's trail, newest first.
    pub async fn page(
        ctx: &Context<'_>,
        page: PageArgs,
        filter: Option<ChangeFilter>,
    ) -> Result<Connection<Cursor, Self>> {
        let tx = ctx.read(Permission::AuditRead).await?;
        let page = page.of(NEWEST)?;
        let select = super::select(filter.unwrap_or_default().checked()?);
        let fetch = |slice| rows(&tx, select.clone(), slice).boxed();
        Ok(page.fetch(ctx, place, fetch).await?.connection(Self))
    }

    /// A page of one object's part of it, newest first.
    pub async fn of(
        ctx: &Context<'_>,
        subject: Uuid,
        page: PageArgs,
    ) -> Result<Connection<Cursor, Self>> {
        ctx.require(Permission::AuditRead)?;
        let fetch = |slice| rows_of::<Entity>(ctx, subject, slice).boxed();
        let found = page.of(OBJECTS)?.fetch(ctx, place, fetch).await?;
        Ok(found.connection(Self))
    }
}

/// Where a change is in the trail.
fn place(row: &Model) -> Place {
    Place {
        key: Key::Time(Some(row.recorded_at)),
        id: row.id,
    }
}

/// Changes belong to what was changed.
impl Owned for Entity {
    type Owner = Uuid;

    fn owned_by() -> Column {
        Column::SubjectId
    }

    fn owner(row: &Model) -> Uuid {
        row.subject_id
    }

    fn array(owners: Vec<Uuid>) -> sea_orm::Value {
        owners.into()
    }
}

/// What a change changed, by its type's name and its row. The list of resources knows how to get it.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The type's name.
    pub kind: String,
    /// The row.
    pub id: Uuid,
}

/// Which changes; all that is given holds.
#[derive(Debug, Default, InputObject)]
pub struct ChangeFilter {
    /// By this member or device.
    actor: Option<ID>,
    /// Of this object.
    subject: Option<ID>,
    /// Of objects of these types, such as Device.
    subject_types: Option<Vec<String>>,
    /// Of these kinds.
    actions: Option<Vec<ChangeAction>>,
    /// At this time or later.
    from: Option<DateTime>,
    /// Before this time.
    until: Option<DateTime>,
}

impl ChangeFilter {
    /// As the rows have it. An id that names nothing becomes one that no row has.
    fn checked(self) -> Result<Filter> {
        let types = self.subject_types;
        few("subjectTypes", types.as_deref())?;
        few("actions", self.actions.as_deref())?;
        let actor = |id: ID| {
            let actor = ActorObject::named(&id);
            actor.map_or(String::new(), |actor| actor.to_string())
        };
        let subject = |id: ID| parse_global_id(&id).map_or(Uuid::nil(), |(_, row)| row);
        let snakes = |types: Vec<String>| types.iter().map(|name| snake(name)).collect();
        let actions = |actions: Vec<ChangeAction>| {
            let kinds = [Action::Create, Action::Update, Action::Delete].into_iter();
            kinds
                .filter(|kind| actions.contains(&ChangeAction::from(*kind)))
                .collect()
        };
        Ok(Filter {
            actor: self.actor.map(actor),
            subject: self.subject.map(subject),
            subject_types: types.map(snakes),
            actions: self.actions.map(actions),
            from: self.from.map(|from| from.0),
            until: self.until.map(|until| until.0),
        })
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

/// The table of a type's name: `ClientId` as the rows spell it, `client_id`.
fn snake(name: &str) -> String {
    let mut spelled = String::with_capacity(name.len() + 4);
    for (index, c) in name.char_indices() {
        if c.is_ascii_uppercase() && index > 0 {
            spelled.push('_');
        }
        spelled.push(c.to_ascii_lowercase());
    }
    spelled
}

/// Root fields for following.
#[derive(Debug, Default)]
pub struct Subscription;

/// Root fields for following.
#[Subscription(name = "HistorySubscription")]
impl Subscription {
    /// Each change of the tenant's rows as it is committed, in order.
    async fn change_recorded(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which of them.")] filter: Option<ChangeFilter>,
    ) -> Result<impl Stream<Item = async_graphql::Result<Change>>> {
        let filter = filter.unwrap_or_default().checked()?;
        let changes = follow(ctx, Permission::AuditRead).await?;
        let changes = changes.try_filter(move |change| std::future::ready(filter.takes(change)));
        Ok(until_error(
            changes.map_ok(|change| Change(Model::clone(&change))),
        ))
    }
}
