//! The type `Schedule` and its mutations.

use super::kinds;
use crate::error::Result;
use crate::graphql::{
    ContextExt as _, Cursor, DateTime, Id, Kind, Order, PageArgs, Place, SortKey, UserError,
    expected, global_id, load_row, rows,
};
use crate::jobs::schedule::{self, Change, Wanted};
use crate::jobs::{CatchUp, Schedules};
use crate::permission::Permission;
use async_graphql::connection::Connection;
use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use entity::tenant::schedule::{Entity, Model};
use futures::FutureExt as _;
use sea_orm::EntityTrait as _;
use serde_json::{Value, json};
use uuid::Uuid;

/// The order of schedules: newest first.
const NEWEST_FIRST: Order = Order {
    name: "schedules",
    key: SortKey::Id,
    descending: true,
};
/// Next runs that are shown.
const NEXT: usize = 5;

/// What becomes of times that passed while nothing ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "CatchUp")]
pub enum ScheduleCatchUp {
    /// Each has its job.
    All,
    /// The last one has.
    Last,
    /// None has.
    Skip,
}

/// Jobs by the clock.
#[derive(Clone, Debug)]
pub struct Schedule(Model);

impl Kind for Schedule {
    const NAME: &'static str = "Schedule";
}

/// Jobs by the clock.
#[Object]
impl Schedule {
    /// Opaque, globally unique.
    pub async fn id(&self) -> ID {
        global_id::<Self>(self.0.id)
    }

    /// Kind of the jobs.
    async fn kind(&self) -> &str {
        &self.0.kind
    }

    /// What they are about.
    async fn arguments(&self) -> Value {
        self.0.args.clone()
    }

    /// Five fields: minute, hour, day of the month, month, day of the week.
    async fn expression(&self) -> &str {
        &self.0.expression
    }

    /// Of the IANA database, e.g. Europe/Berlin.
    async fn time_zone(&self) -> &str {
        &self.0.time_zone
    }

    /// What becomes of times that passed while nothing ran.
    async fn catch_up(&self) -> ScheduleCatchUp {
        self.0.catch_up.into()
    }

    /// False: it has no times.
    async fn enabled(&self) -> bool {
        self.0.enabled
    }

    /// The next five times; fewer if there are no more, none if it is not enabled.
    async fn next_runs(&self, ctx: &Context<'_>) -> Vec<DateTime> {
        let now = ctx.request().services.database.clock().now();
        let next = schedule::next_runs(&self.0, now, NEXT).into_iter();
        next.map(DateTime).collect()
    }

    /// When it was made.
    async fn created_at(&self) -> DateTime {
        self.0.created_at.into()
    }

    /// When it was last changed.
    async fn updated_at(&self) -> DateTime {
        self.0.updated_at.into()
    }

    /// Bumped by every write; pass back as `ifVersion` to refuse lost updates.
    async fn version(&self) -> i32 {
        self.0.version
    }
}

impl Schedule {
    /// The schedule with this id, if it is the tenant's.
    pub async fn find(ctx: &Context<'_>, id: Uuid) -> Result<Option<Self>> {
        ctx.require(Permission::MembersRead)?;
        Ok(load_row::<Entity>(ctx, id).await?.map(Self))
    }

    /// A page of the tenant's schedules, newest first.
    pub async fn page(ctx: &Context<'_>, page: PageArgs) -> Result<Connection<Cursor, Self>> {
        let tx = ctx.read(Permission::MembersRead).await?;
        let page = page.of(NEWEST_FIRST)?;
        let fetch = |slice| rows(&tx, Entity::find(), slice).boxed();
        let found = page.fetch(ctx, |row| Place::by_id(row.id), fetch).await?;
        Ok(found.connection(Self))
    }
}

/// A kind of jobs that schedules may be of.
#[derive(Clone, Debug, SimpleObject)]
pub struct ScheduleKind {
    /// Its name.
    kind: String,
    /// Schedules that there may be of it.
    maximum: i32,
    /// Minutes from one time to the next, at least.
    minimum_minutes: i32,
}

impl ScheduleKind {
    /// Those there are.
    pub fn all(ctx: &Context<'_>) -> Result<Vec<Self>> {
        ctx.require(Permission::MembersRead)?;
        let number = |number: u64| i32::try_from(number).unwrap_or(i32::MAX);
        let shown = |(kind, bounds): (&str, Schedules)| Self {
            kind: kind.to_owned(),
            maximum: number(bounds.most.into()),
            minimum_minutes: number(bounds.every.as_secs() / 60),
        };
        Ok(kinds(ctx).schedulable().map(shown).collect())
    }
}

/// A schedule to be made.
#[derive(Debug, InputObject)]
pub struct ScheduleCreateInput {
    /// Kind of the jobs: one of `scheduleKinds`.
    kind: String,
    /// What they are about; nothing unless given.
    arguments: Option<Value>,
    /// Five fields: minute, hour, day of the month, month, day of the week.
    expression: String,
    /// Of the IANA database, e.g. Europe/Berlin.
    #[graphql(default_with = "\"UTC\".to_owned()")]
    time_zone: String,
    /// What becomes of times that pass while nothing runs.
    #[graphql(default_with = "ScheduleCatchUp::Last")]
    catch_up: ScheduleCatchUp,
    /// False: it has no times.
    #[graphql(default = true)]
    enabled: bool,
}

/// The new schedule.
#[derive(Debug, SimpleObject)]
pub struct ScheduleCreatePayload {
    /// The new schedule.
    schedule: Option<Schedule>,
    /// Expected failures.
    errors: Vec<UserError>,
}

/// What to change of a schedule.
#[derive(Debug, InputObject)]
pub struct ScheduleUpdateInput {
    /// Which.
    schedule_id: Id<Schedule>,
    /// What the jobs are about.
    arguments: Option<Value>,
    /// Other times; they count from now on.
    expression: Option<String>,
    /// Of the IANA database, e.g. Europe/Berlin.
    time_zone: Option<String>,
    /// What becomes of times that pass while nothing runs.
    catch_up: Option<ScheduleCatchUp>,
    /// False: it has no times.
    enabled: Option<bool>,
    /// Refuse unless this is its version.
    if_version: Option<i32>,
}

/// The changed schedule.
#[derive(Debug, SimpleObject)]
pub struct ScheduleUpdatePayload {
    /// The schedule after the change.
    schedule: Option<Schedule>,
    /// Expected failures.
    errors: Vec<UserError>,
}

/// Which schedule is to go.
#[derive(Debug, InputObject)]
pub struct ScheduleDeleteInput {
    /// Which.
    schedule_id: Id<Schedule>,
}

/// The schedule that is gone.
#[derive(Debug, SimpleObject)]
pub struct ScheduleDeletePayload {
    /// Its id.
    deleted_schedule_id: Option<ID>,
    /// Expected failures.
    errors: Vec<UserError>,
}

/// Root fields for writing.
#[derive(Debug, Default)]
pub struct Mutation;

/// Root fields for writing.
#[Object(name = "SchedulesMutation")]
impl Mutation {
    /// Adds jobs by the clock, of a kind that allows it. Needs MEMBERS_MANAGE.
    async fn schedule_create(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The schedule to be made.")] input: ScheduleCreateInput,
    ) -> Result<ScheduleCreatePayload> {
        let wanted = Wanted {
            kind: input.kind,
            args: input.arguments.unwrap_or_else(|| json!({})),
            expression: input.expression,
            time_zone: input.time_zone,
            catch_up: input.catch_up.into(),
            enabled: input.enabled,
        };
        let (schedule, errors) = expected(create(ctx, wanted).await)?;
        Ok(ScheduleCreatePayload {
            schedule: schedule.map(Schedule),
            errors,
        })
    }

    /// Changes jobs by the clock, or switches them on or off. Needs MEMBERS_MANAGE.
    async fn schedule_update(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which schedule, and what to change.")] input: ScheduleUpdateInput,
    ) -> Result<ScheduleUpdatePayload> {
        let change = Change {
            args: input.arguments,
            expression: input.expression,
            time_zone: input.time_zone,
            catch_up: input.catch_up.map(CatchUp::from),
            enabled: input.enabled,
            if_version: input.if_version,
        };
        let updated = update(ctx, input.schedule_id.uuid(), change).await;
        let (schedule, errors) = expected(updated)?;
        Ok(ScheduleUpdatePayload {
            schedule: schedule.map(Schedule),
            errors,
        })
    }

    /// Ends jobs by the clock; those that were added go on. Needs MEMBERS_MANAGE.
    async fn schedule_delete(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which schedule.")] input: ScheduleDeleteInput,
    ) -> Result<ScheduleDeletePayload> {
        let id = input.schedule_id.uuid();
        let (gone, errors) = expected(delete(ctx, id).await)?;
        Ok(ScheduleDeletePayload {
            deleted_schedule_id: gone.map(|()| global_id::<Schedule>(id)),
            errors,
        })
    }
}

async fn create(ctx: &Context<'_>, wanted: Wanted) -> Result<Model> {
    let tx = ctx.write(Permission::MembersManage).await?;
    let created = schedule::create(&tx, kinds(ctx), wanted).await;
    tx.settle(created).await
}

async fn update(ctx: &Context<'_>, id: Uuid, change: Change) -> Result<Model> {
    let tx = ctx.write(Permission::MembersManage).await?;
    let updated = schedule::update(&tx, kinds(ctx), id, change).await;
    tx.settle(updated).await
}

async fn delete(ctx: &Context<'_>, id: Uuid) -> Result<()> {
    let tx = ctx.write(Permission::MembersManage).await?;
    let deleted = schedule::delete(&tx, id).await;
    tx.settle(deleted).await
}
