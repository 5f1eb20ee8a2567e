//! Everything that is exposed, on one page: GraphQL roots, REST routers, jobs.
//!
//! To add a tenant-scoped resource `widget`:
//! 1. `entity/src/tenant/widget.rs`, and a line in `entity/src/tenant/mod.rs`;
//! 2. `migration/src/tenant/m<nnnn>_widget.rs` that calls `audited(…)`, and a line in `migration/src/tenant/mod.rs`;
//! 3. `src/widgets/{mod,graphql}.rs` (and `jobs.rs`, `http.rs` where it has some), and a line in `src/lib.rs`;
//! 4. its lines here;
//! 5. `tests/it/widgets.rs`, a line in `tests/it/main.rs`, and the rows that `tests/it/isolation/` then asks for;
//! 6. `cargo run -- schema > schema.graphql`.
//!
//! Binding, history, global ids, loading by id and pages come with it.

use crate::caller::Caller;
use crate::database::{Tenant as TenantRow, TenantTx};
use crate::devices::{self, Device};
use crate::error::{Denial, Error, Result};
use crate::graphql::{ContextExt as _, Kind, parse_global_id};
use crate::history::graphql::Change;
use crate::identity::{
    self,
    graphql::{Member, Role},
};
use crate::jobs::{Kinds, graphql::Job};
use crate::media::{self, graphql::Media};
use crate::secret::token_hash;
use crate::services::Services;
use crate::tenancy::{self, graphql::Tenant};
use async_graphql::{Context, EmptySubscription, ID, Interface, MergedObject, Object};
use axum::Router;
use std::sync::Arc;

/// The schema of the tenant API.
pub type Schema = async_graphql::Schema<Query, Mutation, EmptySubscription>;

/// Everything that can be read.
#[derive(Debug, Default, MergedObject)]
pub struct Query(Nodes, identity::graphql::Query, tenancy::graphql::Query);

/// Everything that can be done. Each field is one unit of work: all of it happens, or nothing.
#[derive(Debug, Default, MergedObject)]
pub struct Mutation(
    devices::graphql::Mutation,
    identity::graphql::Mutation,
    media::graphql::Mutation,
);

/// The jobs that this binary can run.
pub fn jobs() -> Kinds {
    Kinds::default().with::<media::jobs::Process>()
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

/// The caller of a token at a tenant's host, remembered for a moment.
pub async fn caller(
    services: &Services,
    tenant: &Arc<TenantRow>,
    token: &str,
) -> Result<Arc<Caller>> {
    let now = services.database.clock().now();
    let look_up = async {
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
    };
    services
        .callers
        .get(tenant.id, token_hash(token), now, look_up)
        .await
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
    /// The tenant.
    Tenant(Tenant),
}

impl Node {
    /// The object behind a global id. Malformed, absent and another tenant's are all none.
    async fn find(ctx: &Context<'_>, id: &ID) -> Result<Option<Self>> {
        ctx.request().caller()?;
        let Some((kind, row)) = parse_global_id(id) else {
            return Ok(None);
        };
        Ok(match kind.as_str() {
            Change::NAME => Change::find(ctx, row).await?.map(Self::Change),
            Device::NAME => Device::find(ctx, row).await?.map(Self::Device),
            Job::NAME => Job::find(ctx, row).await?.map(Self::Job),
            Media::NAME => Media::find(ctx, row).await?.map(Self::Media),
            Member::NAME => Member::find(ctx, row).await?.map(Self::Member),
            Role::NAME => Role::find(ctx, row).await?.map(Self::Role),
            Tenant::NAME => Some(Tenant(Arc::clone(&ctx.request().tenant)))
                .filter(|tenant| tenant.0.id == row)
                .map(Self::Tenant),
            _ => None,
        })
    }
}

/// Root fields for reading.
#[derive(Debug, Default)]
pub struct Nodes;

/// Root fields for reading.
#[Object]
impl Nodes {
    /// The object with this id, or null.
    async fn node(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Node>> {
        Node::find(ctx, &id).await
    }

    /// The objects with these ids, in their order, null for each that is not there; at most 100.
    async fn nodes(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Node>>> {
        if ids.len() > 100 {
            return Err(Error::BadRequest(format!(
                "At most 100 ids, not {}.",
                ids.len()
            )));
        }
        let mut nodes = Vec::with_capacity(ids.len());
        for id in &ids {
            nodes.push(Node::find(ctx, id).await?);
        }
        Ok(nodes)
    }
}
