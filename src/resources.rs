//! Everything that is exposed, on one page: GraphQL roots, REST routers, jobs.
//!
//! To add a tenant-scoped resource `widget`:
//! 1. `entity/src/tenant/widget.rs`, and a line in `entity/src/tenant/mod.rs`;
//! 2. `migration/src/tenant/m<nnnn>_widget.rs` that calls `audited(…)`, and `personal(…)` if it has columns that are of a
//!    person, and a line in `migration/src/tenant/mod.rs`;
//! 3. `src/widgets/{mod,graphql}.rs` (and `jobs.rs`, `http.rs` where it has some), and a line in `src/lib.rs`;
//! 4. its lines here;
//! 5. `tests/it/widgets.rs`, a line in `tests/it/main.rs`, and the rows that `tests/it/isolation/` then asks for;
//! 6. `cargo run -- schema > schema.graphql`.
//!
//! Binding, history, global ids, loading by id and pages come with it.

use crate::actor::Actor;
use crate::caller::Caller;
use crate::database::{Tenant as TenantRow, TenantTx};
use crate::devices::{self, Device};
use crate::error::{Denial, Error, Result};
use crate::graphql::{ContextExt as _, Costly, Cursor, Kind, Total, parse_global_id};
use crate::history::{
    self,
    graphql::{Change, Subject},
};
use crate::identity::{
    self,
    graphql::{Member, Role},
};
use crate::jobs::{
    self, Kinds,
    graphql::{Job, Schedule},
};
use crate::mail;
use crate::media::{self, graphql::Media};
use crate::rates::Client;
use crate::secret::token_hash;
use crate::services::Services;
use crate::tenancy::{self, graphql::Tenant};
use async_graphql::connection::Connection;
use async_graphql::{
    Context, ID, Interface, MergedObject, MergedSubscription, Object, SchemaBuilder,
};
use axum::Router;
use futures::future::try_join_all;
use std::sync::Arc;
use uuid::Uuid;

/// The schema of the tenant API.
pub type Schema = async_graphql::Schema<Query, Mutation, Subscription>;

/// The tenant API behind its front door.
pub type Door = crate::graphql::door::Door<Query, Mutation, Subscription>;

/// Everything that can be read.
#[derive(Debug, Default, MergedObject)]
pub struct Query(
    Nodes,
    history::graphql::Query,
    identity::graphql::Query,
    tenancy::graphql::Query,
);

/// Everything that can be done. Each field is one unit of work: all of it happens, or nothing.
#[derive(Debug, Default, MergedObject)]
pub struct Mutation(
    devices::graphql::Mutation,
    history::graphql::Mutation,
    history::graphql::ExportMutation,
    identity::graphql::Mutation,
    jobs::graphql::Mutation,
    jobs::graphql::SchedulesMutation,
    media::graphql::Mutation,
);

/// The builder with what the schema says of ids and lists: their types are async-graphql's, which says nothing.
pub fn describe(
    schema: SchemaBuilder<Query, Mutation, Subscription>,
) -> SchemaBuilder<Query, Mutation, Subscription> {
    schema
        .override_output_type_description::<ID>("An opaque, globally unique id.")
        .override_output_type_description::<Connection<Cursor, Change>>("A page of changes.")
        .override_output_type_description::<Connection<Cursor, Device, Total>>("A page of devices.")
        .override_output_type_description::<Connection<Cursor, Job>>("A page of jobs.")
        .override_output_type_description::<Connection<Cursor, Media, Total>>("A page of media.")
        .override_output_type_description::<Connection<Cursor, Member, Total>>("A page of members.")
        .override_output_type_description::<Connection<Cursor, Role>>("A page of roles.")
        .override_output_type_description::<Connection<Cursor, Schedule>>("A page of schedules.")
}

/// The root fields that try a password, or hash one: what they cost is no matter of rows.
pub const COSTLY: Costly = Costly {
    once: &["sessionCreate"],
    hashing: &["deviceCreate", "sessionCreate"],
};

/// Everything that can be followed, by WebSocket or as an event stream.
#[derive(Debug, Default, MergedSubscription)]
pub struct Subscription(
    devices::graphql::Subscription,
    history::graphql::Subscription,
    jobs::graphql::Subscription,
    media::graphql::Subscription,
);

/// The jobs that this binary can run.
pub fn jobs() -> Kinds {
    Kinds::default()
        .with::<history::export::Export>()
        .with::<history::jobs::Retain>()
        .with::<identity::jobs::ForgetCredentials>()
        .with::<mail::jobs::SendMail>()
        .with::<media::jobs::Process>()
        .with::<media::jobs::Sweep>()
        .with_platform::<tenancy::jobs::Erase>()
        .with_platform::<tenancy::jobs::ForgetKeys>()
        .with_platform::<tenancy::jobs::Tidy>()
}

/// The REST routes of a tenant's host.
pub fn routes() -> Router<Arc<Services>> {
    Router::new()
        .merge(devices::http::routes())
        .merge(media::http::routes())
}

/// Who is behind a token, by its prefix.
async fn authenticate(tx: &TenantTx, token: &str) -> Result<Caller> {
    let hash = token_hash(token);
    if token.starts_with(identity::TOKEN_PREFIX) {
        identity::authenticate(tx, &hash).await
    } else if token.starts_with(devices::TOKEN_PREFIX) {
        devices::authenticate(tx, &hash).await
    } else {
        Err(Error::Unauthenticated(Denial::TokenRevoked))
    }
}

/// The caller of a token at a tenant's host, remembered for a moment. One that does not work counts against its client.
pub async fn caller(
    services: &Services,
    tenant: &Arc<TenantRow>,
    client: &Client,
    token: &str,
) -> Result<Arc<Caller>> {
    let now = services.database.clock().now();
    let look_up = caller_now(services, tenant, token);
    let known = services
        .callers
        .get(tenant.id, token_hash(token), now, look_up)
        .await;
    services.rates.credential(tenant, client, known)
}

/// The same, looked up now.
pub async fn caller_now(
    services: &Services,
    tenant: &Arc<TenantRow>,
    token: &str,
) -> Result<Caller> {
    let tx = services.database.read(tenant).await?;
    let caller = authenticate(&tx, token).await;
    let caller = tx.settle(caller).await;
    // Only what really ended forgets the tenant's callers: a made-up token must cost the others nothing.
    let reused = caller.is_err()
        && token.starts_with(devices::TOKEN_PREFIX)
        && devices::end_if_reused(&services.database, tenant, token).await?;
    if reused {
        services.callers.forget(tenant.id);
    }
    caller
}

/// Whether a change may be one of what a caller is or may do, so that they are to be looked up again.
pub fn concerns(change: &history::Row, caller: &Caller) -> bool {
    // What is no change of a row changes nobody.
    if !change.action.is_change() {
        return false;
    }
    let own = match caller.actor {
        Actor::Member(id) | Actor::Device(id) | Actor::Impersonation { member: id, .. } => Some(id),
        Actor::Job(_) | Actor::Operator(_) | Actor::System(_) => None,
    };
    change.subject_id == caller.credential_id
        || Some(change.subject_id) == own
        || matches!(change.subject_type.as_str(), "role" | "member_role")
}

/// Anything with a globally unique, opaque id. Refetch with `node(id:)`.
#[derive(Clone, Debug, Interface)]
#[graphql(field(name = "id", ty = "ID", desc = "Opaque, globally unique."))]
pub enum Node {
    /// A recorded change.
    Change(Change),
    /// A device.
    Device(Device),
    /// A job.
    Job(Job),
    /// A media.
    Media(Media),
    /// A member.
    Member(Member),
    /// A role.
    Role(Role),
    /// Jobs by the clock.
    Schedule(Schedule),
    /// The tenant.
    Tenant(Tenant),
}

impl Node {
    /// The object behind a global id. Malformed, absent and another tenant's are all none.
    async fn find(ctx: &Context<'_>, id: &ID) -> Result<Option<Self>> {
        ctx.request().caller()?;
        match parse_global_id(id) {
            Some((kind, row)) => Self::load(ctx, &kind, row).await,
            None => Ok(None),
        }
    }

    /// The same by its type and row. Several are loaded together.
    async fn load(ctx: &Context<'_>, kind: &str, row: Uuid) -> Result<Option<Self>> {
        Ok(match kind {
            Change::NAME => Change::find(ctx, row).await?.map(Self::Change),
            Device::NAME => Device::find(ctx, row).await?.map(Self::Device),
            Job::NAME => Job::find(ctx, row).await?.map(Self::Job),
            Media::NAME => Media::find(ctx, row).await?.map(Self::Media),
            Member::NAME => Member::find(ctx, row).await?.map(Self::Member),
            Role::NAME => Role::find(ctx, row).await?.map(Self::Role),
            Schedule::NAME => Schedule::find(ctx, row).await?.map(Self::Schedule),
            Tenant::NAME => Some(Tenant(Arc::clone(&ctx.request().tenant)))
                .filter(|tenant| tenant.0.id == row)
                .map(Self::Tenant),
            _ => None,
        })
    }
}

/// What a change has of its subject.
#[Object(name = "ChangeSubject")]
impl Subject {
    /// The object as it is now. Null once it is gone, and for a caller who may not see it.
    async fn subject(&self, ctx: &Context<'_>) -> Result<Option<Node>> {
        match Node::load(ctx, &self.kind, self.id).await {
            Err(Error::Forbidden(_)) => Ok(None),
            found => found,
        }
    }
}

/// Root fields for reading.
#[derive(Debug, Default)]
pub struct Nodes;

/// Root fields for reading.
#[Object]
impl Nodes {
    /// The object with this id, or null.
    async fn node(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Its id.")] id: ID,
    ) -> Result<Option<Node>> {
        Node::find(ctx, &id).await
    }

    /// The objects with these ids, in their order, null for each that is not there; at most 100.
    async fn nodes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Their ids.")] ids: Vec<ID>,
    ) -> Result<Vec<Option<Node>>> {
        if ids.len() > 100 {
            return Err(Error::BadRequest(format!(
                "At most 100 ids, not {}.",
                ids.len()
            )));
        }
        try_join_all(ids.iter().map(|id| Node::find(ctx, id))).await
    }
}
