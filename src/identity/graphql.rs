//! Members, roles, the viewer, and signing in and out.

use super::{ActorObject, TOKEN_PREFIX};
use crate::actor::Actor;
use crate::caller::Caller;
use crate::error::{Denial, Error, Result};
use crate::graphql::{
    ContextExt as _, Cursor, DateTime, Kind, Loaders, PageInput, Total, UserError, expected,
    global_id, load, page_by_id, with_fields,
};
use crate::history::graphql::Change;
use crate::permission::Permission;
use crate::secret;
use async_graphql::connection::Connection;
use async_graphql::dataloader::Loader;
use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use entity::tenant::{member, member_role, role};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};
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
    async fn history(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 20)] first: i32,
        after: Option<String>,
    ) -> Result<Connection<Cursor, Change>> {
        Change::page(
            ctx,
            PageInput::new(first, after.as_deref())?,
            Some(self.0.id),
        )
        .await
    }
}

impl Member {
    /// The member with this id, if it is the tenant's.
    pub async fn find(ctx: &Context<'_>, id: Uuid) -> Result<Option<Self>> {
        let tx = ctx.read(Permission::MembersRead).await?;
        Ok(member::Entity::find_by_id(id).one(&*tx).await?.map(Self))
    }

    /// A page of the tenant's members, newest first.
    pub async fn page(
        ctx: &Context<'_>,
        page: PageInput,
    ) -> Result<Connection<Cursor, Self, Total>> {
        let tx = ctx.read(Permission::MembersRead).await?;
        let total = Total::of(ctx, &tx, member::Entity::find()).await?;
        let rows = page_by_id(&tx, member::Entity::find(), member::Column::Id, page).await?;
        Ok(with_fields(rows, total, |row| row.id, Self))
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
        let tx = ctx.read(Permission::MembersRead).await?;
        Ok(role::Entity::find_by_id(id).one(&*tx).await?.map(Self))
    }
}

/// The roles of the member with this id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RolesOf(Uuid);

impl Loader<RolesOf> for Loaders {
    type Value = Vec<Role>;
    type Error = Arc<Error>;

    async fn load(&self, keys: &[RolesOf]) -> Result<HashMap<RolesOf, Vec<Role>>, Arc<Error>> {
        let tx = self.0.reading().await?;
        let held = member_role::Entity::find()
            .filter(member_role::Column::MemberId.is_in(keys.iter().map(|key| key.0)))
            .find_also_related(role::Entity)
            .all(&*tx)
            .await
            .map_err(Error::from)?;
        let mut roles: HashMap<RolesOf, Vec<Role>> = HashMap::new();
        for (held, role) in held {
            roles
                .entry(RolesOf(held.member_id))
                .or_default()
                .extend(role.map(Role));
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
        input: SessionCreateInput,
    ) -> Result<SessionCreatePayload> {
        let request = ctx.request();
        request.end_reading().await?;
        let services = &request.services;
        let slot = services.hasher.slot().await?;
        let tx = services.database.read(&request.tenant).await?;
        let found = super::by_email(&tx, &input.email).await;
        let member = tx.settle(found).await?;
        let stored = member.as_ref().map(|member| member.password_hash.as_str());
        let matches = slot.verify(&input.password, stored).await?;
        let member = member
            .filter(|_| matches)
            .ok_or(Error::Unauthenticated(Denial::InvalidCredentials))?;
        let token = secret::new_token(TOKEN_PREFIX);
        let hash = secret::token_hash(&token);
        let attribution = request.attribution(&Actor::Member(member.id));
        let tx = services
            .database
            .write(&request.tenant, &attribution)
            .await?;
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
        input: SessionRevokeInput,
    ) -> Result<SessionRevokePayload> {
        let request = ctx.request();
        let caller = request.caller()?;
        let Actor::Member(member) = caller.actor else {
            return Err(Error::BadRequest("Only members have sessions.".to_owned()));
        };
        request.end_reading().await?;
        let attribution = request.attribution(&caller.actor);
        let tx = request
            .services
            .database
            .write(&request.tenant, &attribution)
            .await?;
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
