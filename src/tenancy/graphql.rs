//! The type `Tenant`: the root of everything that a tenant has.

use crate::database::Tenant as Row;
use crate::devices::Device;
use crate::error::Result;
use crate::graphql::{ContextExt as _, Cursor, Kind, PageInput, Total, global_id};
use crate::history::graphql::Change;
use crate::identity::graphql::Member;
use crate::jobs::graphql::{Job, JobState};
use crate::media::graphql::Media;
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

    /// The people who work in it, newest first.
    async fn members(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 20)] first: i32,
        after: Option<String>,
    ) -> Result<Connection<Cursor, Member, Total>> {
        Member::page(ctx, PageInput::new(first, after.as_deref())?).await
    }

    /// Its devices, newest first.
    async fn devices(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 20)] first: i32,
        after: Option<String>,
    ) -> Result<Connection<Cursor, Device, Total>> {
        Device::page(ctx, PageInput::new(first, after.as_deref())?).await
    }

    /// Its media, newest first.
    async fn media(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 20)] first: i32,
        after: Option<String>,
    ) -> Result<Connection<Cursor, Media, Total>> {
        Media::page(ctx, PageInput::new(first, after.as_deref())?).await
    }

    /// Its jobs, newest first.
    async fn jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 20)] first: i32,
        after: Option<String>,
        state: Option<JobState>,
    ) -> Result<Connection<Cursor, Job>> {
        Job::page(ctx, PageInput::new(first, after.as_deref())?, state).await
    }

    /// The whole tenant's trail. Needs AUDIT_READ.
    async fn changes(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 50)] first: i32,
        after: Option<String>,
    ) -> Result<Connection<Cursor, Change>> {
        Change::page(ctx, PageInput::new(first, after.as_deref())?, None).await
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
