//! The type `Tenant`: the root of everything that a tenant has.

use crate::database::Tenant as Row;
use crate::devices::{Device, DeviceFilter, DeviceOrder};
use crate::error::Result;
use crate::graphql::{
    ContextExt as _, Cursor, DateTime, Id, Kind, PageArgs, Quota, Total, global_id,
};
use crate::history::graphql::{Change, ChangeFilter};
use crate::identity::graphql::{Member, Role};
use crate::jobs::graphql::{Job, JobState, Schedule, ScheduleKind};
use crate::media::{MediaFilter, graphql::Media};
use crate::permission::Permission;
use crate::tenancy::quota;
use async_graphql::connection::Connection;
use async_graphql::{Context, ID, Object};
use std::sync::Arc;

/// One customer.
#[derive(Clone, Debug)]
pub struct Tenant(pub Arc<Row>);

impl Kind for Tenant {
    const NAME: &'static str = "Tenant";
}

/// One customer.
#[Object]
impl Tenant {
    /// Opaque, globally unique.
    pub async fn id(&self) -> ID {
        global_id::<Self>(self.0.id)
    }

    /// Its subdomain; never changes.
    async fn slug(&self) -> &str {
        &self.0.slug
    }

    /// Name for people.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// What it may have, and has. Needs MEMBERS_READ.
    async fn quotas(&self, ctx: &Context<'_>) -> Result<Vec<Quota>> {
        let tx = ctx.read(Permission::MembersRead).await?;
        let quotas = quota::quotas(&tx).await?;
        Ok(quotas.into_iter().filter_map(Quota::shown).collect())
    }

    /// The people who work in it, newest first.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the arguments of the field"
    )]
    async fn members(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Rows from the beginning, at most 100; 20 if last is not given either.")]
        first: Option<i32>,
        #[graphql(desc = "After the row of this cursor.")] after: Option<String>,
        #[graphql(desc = "Rows from the end, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Before the row of this cursor.")] before: Option<String>,
        #[graphql(desc = "Somewhere in the name or address, in upper or lower case.")]
        search: Option<String>,
        #[graphql(desc = "Only those who hold this role.")] role: Option<Id<Role>>,
        #[graphql(
            desc = "As they were at this moment, and all that they lead to. Needs AUDIT_READ."
        )]
        as_of: Option<DateTime>,
    ) -> Result<Connection<Cursor, Member, Total>> {
        let page = PageArgs {
            first,
            after,
            last,
            before,
        };
        let role = role.map(|id| id.uuid());
        Member::page(ctx, page, (search, role), as_of.map(|at| at.0)).await
    }

    /// What members can be, newest first.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the arguments of the field"
    )]
    async fn roles(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Rows from the beginning, at most 100; 20 if last is not given either.")]
        first: Option<i32>,
        #[graphql(desc = "After the row of this cursor.")] after: Option<String>,
        #[graphql(desc = "Rows from the end, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Before the row of this cursor.")] before: Option<String>,
        #[graphql(
            desc = "As they were at this moment, and all that they lead to. Needs AUDIT_READ."
        )]
        as_of: Option<DateTime>,
    ) -> Result<Connection<Cursor, Role>> {
        let page = PageArgs {
            first,
            after,
            last,
            before,
        };
        Role::page(ctx, page, as_of.map(|at| at.0)).await
    }

    /// Its devices, newest first unless asked for otherwise.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the arguments of the field"
    )]
    async fn devices(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Rows from the beginning, at most 100; 20 if last is not given either.")]
        first: Option<i32>,
        #[graphql(desc = "After the row of this cursor.")] after: Option<String>,
        #[graphql(desc = "Rows from the end, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Before the row of this cursor.")] before: Option<String>,
        #[graphql(desc = "Which of them.")] filter: Option<DeviceFilter>,
        #[graphql(desc = "How they are sorted; a cursor is good for one order alone.")]
        order_by: Option<DeviceOrder>,
        #[graphql(
            desc = "As they were at this moment, and all that they lead to. Needs AUDIT_READ."
        )]
        as_of: Option<DateTime>,
    ) -> Result<Connection<Cursor, Device, Total>> {
        let page = PageArgs {
            first,
            after,
            last,
            before,
        };
        Device::page(ctx, page, (filter, order_by), as_of.map(|at| at.0)).await
    }

    /// Its media, newest first.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the arguments of the field"
    )]
    async fn media(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Rows from the beginning, at most 100; 20 if last is not given either.")]
        first: Option<i32>,
        #[graphql(desc = "After the row of this cursor.")] after: Option<String>,
        #[graphql(desc = "Rows from the end, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Before the row of this cursor.")] before: Option<String>,
        #[graphql(desc = "Which of them.")] filter: Option<MediaFilter>,
        #[graphql(
            desc = "As they were at this moment, and all that they lead to. Needs AUDIT_READ."
        )]
        as_of: Option<DateTime>,
    ) -> Result<Connection<Cursor, Media, Total>> {
        let page = PageArgs {
            first,
            after,
            last,
            before,
        };
        Media::page(ctx, page, filter, as_of.map(|at| at.0)).await
    }

    /// Its jobs, newest first.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the arguments of the field"
    )]
    async fn jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Rows from the beginning, at most 100; 20 if last is not given either.")]
        first: Option<i32>,
        #[graphql(desc = "After the row of this cursor.")] after: Option<String>,
        #[graphql(desc = "Rows from the end, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Before the row of this cursor.")] before: Option<String>,
        #[graphql(desc = "Only those in this state.")] state: Option<JobState>,
    ) -> Result<Connection<Cursor, Job>> {
        let page = PageArgs {
            first,
            after,
            last,
            before,
        };
        Job::page(ctx, page, state).await
    }

    /// Its jobs by the clock, newest first. Needs MEMBERS_READ.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the arguments of the field"
    )]
    async fn schedules(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Rows from the beginning, at most 100; 20 if last is not given either.")]
        first: Option<i32>,
        #[graphql(desc = "After the row of this cursor.")] after: Option<String>,
        #[graphql(desc = "Rows from the end, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Before the row of this cursor.")] before: Option<String>,
    ) -> Result<Connection<Cursor, Schedule>> {
        let page = PageArgs {
            first,
            after,
            last,
            before,
        };
        Schedule::page(ctx, page).await
    }

    /// Kinds of jobs that schedules may be of. Needs MEMBERS_READ.
    async fn schedule_kinds(&self, ctx: &Context<'_>) -> Result<Vec<ScheduleKind>> {
        ScheduleKind::all(ctx)
    }

    /// The whole tenant's trail, newest first. Needs AUDIT_READ.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the arguments of the field"
    )]
    async fn changes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Rows from the beginning, at most 100; 20 if last is not given either.")]
        first: Option<i32>,
        #[graphql(desc = "After the row of this cursor.")] after: Option<String>,
        #[graphql(desc = "Rows from the end, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Before the row of this cursor.")] before: Option<String>,
        #[graphql(desc = "Which of them.")] filter: Option<ChangeFilter>,
    ) -> Result<Connection<Cursor, Change>> {
        let page = PageArgs {
            first,
            after,
            last,
            before,
        };
        Change::page(ctx, page, filter).await
    }
}

/// Root fields for reading.
#[derive(Debug, Default)]
pub struct Query;

/// Root fields for reading.
#[Object(name = "TenancyQuery")]
impl Query {
    /// The tenant this request was routed to.
    async fn tenant(&self, ctx: &Context<'_>) -> Result<Tenant> {
        ctx.request().caller()?;
        Ok(Tenant(Arc::clone(&ctx.request().tenant)))
    }
}
