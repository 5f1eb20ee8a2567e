//! Members, roles, the viewer, and signing in and out.

use super::list::{MEMBERS, ROLES, members};
use super::{ActorObject, TOKEN_PREFIX};
use crate::actor::Actor;
use crate::caller::Caller;
use crate::database::{TenantTx, any};
use crate::error::{Denial, Error, Result};
use crate::graphql::{
    Batch, ContextExt as _, Cursor, DateTime, Kind, PageArgs, Place, Total, UserError, expected,
    global_id, load, load_row, rows,
};
use crate::history::graphql::Change;
use crate::media::graphql::Media;
use crate::permission::Permission;
use crate::secret;
use async_graphql::connection::Connection;
use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use entity::tenant::{media, member, member_role, role};
use futures::FutureExt as _;
use sea_orm::sea_query::ExprTrait as _;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _};
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// A person who works in the tenant.
#[derive(Clone, Debug)]
pub struct Member(member::Model);

impl Kind for Member {
    const NAME: &'static str = "Member";
}

impl From<member::Model> for Member {
    fn from(row: member::Model) -> Self {
        Self(row)
    }
}

/// A person who works in the tenant.
#[Object]
impl Member {
    /// Opaque, globally unique.
    pub async fn id(&self) -> ID {
        global_id::<Self>(self.0.id)
    }

    /// Lower case; unique in the tenant.
    async fn email(&self) -> &str {
        &self.0.email
    }

    /// Name for people.
    async fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Their picture. Null if they have none.
    async fn avatar(&self, ctx: &Context<'_>) -> Result<Option<Media>> {
        let Some(id) = self.0.avatar_id else {
            return Ok(None);
        };
        ctx.require(Permission::MediaRead)?;
        Ok(load_row::<media::Entity>(ctx, id).await?.map(Media::from))
    }

    /// The roles they hold.
    async fn roles(&self, ctx: &Context<'_>) -> Result<Vec<Role>> {
        ctx.require(Permission::MembersRead)?;
        Ok(load(ctx, RolesOf(self.0.id)).await?.unwrap_or_default())
    }

    /// When they last signed in.
    async fn last_seen_at(&self) -> Option<DateTime> {
        self.0.last_seen_at.map(DateTime)
    }

    /// When they joined.
    async fn created_at(&self) -> DateTime {
        self.0.created_at.into()
    }

    /// When the member was last changed.
    async fn updated_at(&self) -> DateTime {
        self.0.updated_at.into()
    }

    /// Bumped by every write.
    async fn version(&self) -> i32 {
        self.0.version
    }

    /// Every recorded change of this object, newest first.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the arguments of the field"
    )]
    async fn history(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Rows from the beginning, at most 100; 20 if last is not given either.")]
        first: Option<i32>,
        #[graphql(desc = "After the row of this cursor.")] after: Option<String>,
        #[graphql(desc = "Rows from the end, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Before the row of this cursor.")] before: Option<String>,
    ) -> Result<Connection<Cursor, Change>> {
        let page = PageArgs {
            first,
            after,
            last,
            before,
        };
        Change::of(ctx, self.0.id, page).await
    }
}

impl Member {
    /// The member with this id, if it is the tenant's.
    pub async fn find(ctx: &Context<'_>, id: Uuid) -> Result<Option<Self>> {
        ctx.require(Permission::MembersRead)?;
        Ok(load_row::<member::Entity>(ctx, id).await?.map(Self))
    }

    /// A page of the tenant's members, newest first: of those that have the text in their name or address, and hold the role.
    pub async fn page(
        ctx: &Context<'_>,
        page: PageArgs,
        search: Option<String>,
        role: Option<Uuid>,
    ) -> Result<Connection<Cursor, Self, Total>> {
        let tx = ctx.read(Permission::MembersRead).await?;
        let page = page.of(MEMBERS)?;
        let select = members(search.as_deref(), role)?;
        let fetch = |slice| rows(&tx, select.clone(), slice).boxed();
        let found = page.fetch(ctx, |row| Place::by_id(row.id), fetch).await?;
        Ok(found.with_fields(Total::of(select), Self))
    }
}

/// A named set of permissions.
#[derive(Clone, Debug)]
pub struct Role(role::Model);

impl Kind for Role {
    const NAME: &'static str = "Role";
}

/// A named set of permissions.
#[Object]
impl Role {
    /// Opaque, globally unique.
    pub async fn id(&self) -> ID {
        global_id::<Self>(self.0.id)
    }

    /// Unique in the tenant.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// What it allows.
    async fn permissions(&self) -> Vec<Permission> {
        Permission::parse_all(&self.0.permissions).collect()
    }

    /// Shipped with Bulkhead; cannot be edited.
    async fn built_in(&self) -> bool {
        self.0.built_in
    }
}

impl Role {
    /// The role with this id, if it is the tenant's.
    pub async fn find(ctx: &Context<'_>, id: Uuid) -> Result<Option<Self>> {
        ctx.require(Permission::MembersRead)?;
        Ok(load_row::<role::Entity>(ctx, id).await?.map(Self))
    }

    /// A page of the tenant's roles, newest first.
    pub async fn page(ctx: &Context<'_>, page: PageArgs) -> Result<Connection<Cursor, Self>> {
        let tx = ctx.read(Permission::MembersRead).await?;
        let fetch = |slice| rows(&tx, role::Entity::find(), slice).boxed();
        let page = page.of(ROLES)?;
        let found = page.fetch(ctx, |row| Place::by_id(row.id), fetch).await?;
        Ok(found.connection(Self))
    }
}

/// The roles of the member with this id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RolesOf(Uuid);

impl Batch for RolesOf {
    type Value = Vec<Role>;

    async fn load(tx: &TenantTx, keys: Vec<Self>) -> Result<HashMap<Self, Vec<Role>>> {
        let members: Vec<Uuid> = keys.into_iter().map(|key| key.0).collect();
        let held = member_role::Entity::find()
            .filter(member_role::Column::MemberId.into_expr().eq(any(members)))
            .find_also_related(role::Entity)
            .order_by_asc(role::Column::Id)
            .all(tx)
            .await?;
        let mut roles: HashMap<Self, Vec<Role>> = HashMap::new();
        for (held, role) in held {
            let of = roles.entry(Self(held.member_id)).or_default();
            of.extend(role.map(Role));
        }
        Ok(roles)
    }
}

/// The caller.
#[derive(Clone, Debug)]
pub struct Viewer(Arc<Caller>);

/// The caller.
#[Object]
impl Viewer {
    /// Who they are.
    async fn actor(&self, ctx: &Context<'_>) -> Result<ActorObject> {
        ActorObject::load(ctx, &self.0.actor).await
    }

    /// What they may do.
    async fn permissions(&self) -> &[Permission] {
        &self.0.permissions
    }

    /// When the presented credential stops working.
    async fn expires_at(&self) -> Option<DateTime> {
        Some(self.0.expires_at.into())
    }
}

/// Root fields for reading.
#[derive(Debug, Default)]
pub struct Query;

/// Root fields for reading.
#[Object(name = "IdentityQuery")]
impl Query {
    /// The caller, or null when anonymous.
    async fn viewer(&self, ctx: &Context<'_>) -> Option<Viewer> {
        ctx.request().viewer().map(Viewer)
    }
}

/// What somebody signs in with.
#[derive(Debug, InputObject)]
pub struct SessionCreateInput {
    /// The member's address.
    email: String,
    /// Their password.
    #[graphql(secret)]
    password: String,
}

/// A new session.
#[derive(Debug, SimpleObject)]
pub struct SessionCreatePayload {
    /// Who is signed in now.
    viewer: Option<Viewer>,
    /// Send as `Authorization: Bearer …`. Shown once; only a hash is stored.
    token: Option<String>,
    /// When the session ends.
    expires_at: Option<DateTime>,
    /// Expected failures.
    errors: Vec<UserError>,
}

/// Which sessions to end.
#[derive(Debug, InputObject)]
pub struct SessionRevokeInput {
    /// Also end every other session of this member.
    #[graphql(default = false)]
    everywhere: bool,
}

/// What was ended.
#[derive(Debug, SimpleObject)]
pub struct SessionRevokePayload {
    /// Sessions that ended now.
    revoked_count: i32,
    /// Expected failures.
    errors: Vec<UserError>,
}

/// Root fields for writing.
#[derive(Debug, Default)]
pub struct Mutation;

/// Root fields for writing.
#[Object(name = "IdentityMutation")]
impl Mutation {
    /// Signs a member in. A wrong address and a wrong password give the same answer, UNAUTHENTICATED.
    async fn session_create(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Who signs in.")] input: SessionCreateInput,
    ) -> Result<SessionCreatePayload> {
        let request = ctx.request();
        request.end_reading().await?;
        let services = &request.services;
        let slot = services.hasher.slot().await?;
        let tx = request.reading().await?;
        let member = super::by_email(&tx, &input.email).await?;
        drop(tx);
        request.end_reading().await?;
        let stored = member.as_ref().map(|member| member.password_hash.as_str());
        let matches = slot.verify(&input.password, stored).await?;
        let member = member
            .filter(|_| matches)
            .ok_or(Error::Unauthenticated(Denial::InvalidCredentials))?;
        let token = secret::new_token(TOKEN_PREFIX);
        let hash = secret::token_hash(&token);
        let tx = request.writing(&Actor::Member(member.id)).await?;
        let begun = begin(&tx, member.id, hash, services.config.session_days).await;
        let caller = Arc::new(tx.settle(begun).await?);
        request.sign_in(Arc::clone(&caller));
        Ok(SessionCreatePayload {
            expires_at: Some(caller.expires_at.into()),
            viewer: Some(Viewer(caller)),
            token: Some(token),
            errors: Vec::new(),
        })
    }

    /// Signs the caller out.
    async fn session_revoke(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which sessions.")] input: SessionRevokeInput,
    ) -> Result<SessionRevokePayload> {
        let request = ctx.request();
        let caller = request.caller()?;
        let Actor::Member(member) = caller.actor else {
            return Err(Error::BadRequest("Only members have sessions.".to_owned()));
        };
        let tx = request.writing(&caller.actor).await?;
        let only = (!input.everywhere).then_some(caller.credential_id);
        let revoked = super::revoke_sessions(&tx, member, only).await;
        let (revoked, errors) = expected(tx.settle(revoked).await)?;
        request.services.callers.forget(request.tenant.id);
        request.sign_out();
        Ok(SessionRevokePayload {
            revoked_count: i32::try_from(revoked.unwrap_or_default()).unwrap_or(i32::MAX),
            errors,
        })
    }
}

async fn begin(
    tx: &crate::database::TenantTx,
    member: Uuid,
    hash: String,
    days: u32,
) -> Result<Caller> {
    super::begin_session(tx, member, hash.clone(), days).await?;
    super::authenticate(tx, &hash).await
}
