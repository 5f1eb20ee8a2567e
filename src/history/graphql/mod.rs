//! The type `Change`: one recorded change of one object.

mod export;
mod fields;
mod moment;
mod revert;

pub use export::{ChangesExportFormat, ChangesExportInput, ChangesExportPayload, ExportMutation};
pub use fields::FieldChange;
pub use moment::{Query, Snapshot};
pub use revert::{ChangeRevertInput, ChangeRevertPayload, Mutation, Reverted};

use super::{Actions, Filter};
use crate::actor::Actor;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::graphql::{
    ContextExt as _, Cursor, DateTime, Key, Kind, Order, Owned, PageArgs, Place, SortKey, few,
    follow, global_id, global_id_of, load_row, parse_global_id, rows, rows_of, until_error,
};
use crate::identity::ActorObject;
use crate::permission::Permission;
use async_graphql::connection::Connection;
use async_graphql::{Context, Enum, ID, InputObject, Object, Subscription};
use entity::tenant::history::{Action, Column, Entity, Model};
use fields::{camel, snake, values};
use futures::{FutureExt as _, Stream, TryStreamExt as _};
use sea_orm::{ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, Select};
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
pub enum ChangeAction {
    /// The object was made.
    Create,
    /// It was removed.
    Delete,
    /// The actor, who is the subject, was denied the permission that the snapshot names: no change of an object, as all below that
    /// are neither CREATE, UPDATE, DELETE nor REVERT. Repeated within a minute, it is one entry.
    Denied,
    /// The actor was given a link to the media, or one to upload it. Repeated within a minute, it is one entry.
    LinkIssued,
    /// An operator did to the tenant what the snapshot's `what` names: it was suspended, say, or its limits were changed.
    OperatorAct,
    /// What the trail had of this person was erased: no change of the object.
    Erased,
    /// The trail was written out for somebody to take along: no change of the object.
    Exported,
    /// A change was taken back: the object was made again, removed, or changed.
    Revert,
    /// The member or device signed in.
    SignIn,
    /// Somebody tried to sign in, and failed.
    SignInFailed,
    /// The member signed out.
    SignOut,
    /// It was changed.
    Update,
}

impl ChangeAction {
    fn of(change: &Model) -> Self {
        match change.action {
            _ if change.reverts.is_some() => Self::Revert,
            Action::Create => Self::Create,
            Action::Update => Self::Update,
            Action::Delete => Self::Delete,
            Action::SignIn => Self::SignIn,
            Action::SignInFailed => Self::SignInFailed,
            Action::SignOut => Self::SignOut,
            Action::Denied => Self::Denied,
            Action::LinkIssued => Self::LinkIssued,
            Action::OperatorAct => Self::OperatorAct,
            Action::Erased => Self::Erased,
            Action::Exported => Self::Exported,
        }
    }

    /// As the rows have it; nothing of their own is what takes back.
    fn action(self) -> Option<Action> {
        Some(match self {
            Self::Revert => return None,
            Self::Create => Action::Create,
            Self::Update => Action::Update,
            Self::Delete => Action::Delete,
            Self::SignIn => Action::SignIn,
            Self::SignInFailed => Action::SignInFailed,
            Self::SignOut => Action::SignOut,
            Self::Denied => Action::Denied,
            Self::LinkIssued => Action::LinkIssued,
            Self::OperatorAct => Action::OperatorAct,
            Self::Erased => Action::Erased,
            Self::Exported => Action::Exported,
        })
    }
}

/// One recorded change of one object.
#[derive(Clone, Debug)]
pub struct Change(Model);

impl Kind for Change {
    const NAME: &'static str = "Change";
}

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
        ChangeAction::of(&self.0)
    }

    /// Who did it.
    async fn actor(&self, ctx: &Context<'_>) -> Result<ActorObject> {
        ActorObject::parse(ctx, &self.0.actor).await
    }

    /// For what an operator does in a member's session, or a job that comes of it: the member.
    async fn on_behalf_of(&self, ctx: &Context<'_>) -> Result<Option<ActorObject>> {
        let texts = std::iter::once(&self.0.actor).chain(&self.0.cause);
        let mut actors = texts.filter_map(|text| text.parse::<Actor>().ok());
        match actors.find_map(|actor| actor.acted_for()) {
            Some(member) => ActorObject::load(ctx, &member).await.map(Some),
            None => Ok(None),
        }
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
        Subject::of(&self.0)
    }

    /// What changed, field by field. Empty for what is no change of the object.
    async fn fields(&self) -> Vec<FieldChange> {
        FieldChange::of(&self.0)
    }

    /// Values right after this change, before it for a removal; secrets are left out. What there is to say of what is no change
    /// of the object.
    async fn snapshot(&self) -> Value {
        values(&self.0.row)
    }

    /// For what was taken back: the change that was asked to be.
    async fn reverts(&self, ctx: &Context<'_>) -> Result<Option<Self>> {
        match self.0.reverts {
            Some(id) => Self::find(ctx, id).await,
            None => Ok(None),
        }
    }
}

impl Change {
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

    /// A page of one object's part of it, newest first; until a moment, if there is one.
    pub async fn of(
        ctx: &Context<'_>,
        (subject, at): (Uuid, Option<Timestamp>),
        page: PageArgs,
    ) -> Result<Connection<Cursor, Self>> {
        ctx.require(Permission::AuditRead)?;
        let fetch = |slice| rows_of::<Entity>(ctx, (subject, at), slice).boxed();
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

    fn rows(at: Option<Timestamp>) -> Select<Self> {
        let until = at.map(|at| Column::RecordedAt.lte(at));
        Self::find().filter(Condition::all().add_option(until))
    }
}

/// What a change changed, by its type's name and its row; by default nothing. The list of resources knows how to get it.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// The type's name.
    pub kind: String,
    /// The row.
    pub id: Uuid,
}

impl Subject {
    /// Of a change.
    fn of(change: &Model) -> Self {
        Self {
            kind: camel(&change.subject_type, true),
            id: change.subject_id,
        }
    }
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
        let actions = |actions: Vec<ChangeAction>| Actions {
            reverts: actions.contains(&ChangeAction::Revert),
            others: actions
                .into_iter()
                .filter_map(ChangeAction::action)
                .collect(),
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
