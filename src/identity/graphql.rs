//! Members, roles, the viewer, and signing in and out.

use super::list::{MEMBERS, ROLES, members, roles_of};
use super::{ActorObject, TOKEN_PREFIX};
use crate::actor::Actor;
use crate::caller::Caller;
use crate::clock::Timestamp;
use crate::database::TenantTx;
use crate::error::{Denial, Error, Result};
use crate::graphql::{
    Batch, ContextExt as _, Cursor, DateTime, Kind, PageArgs, Place, Total, UserError, expected,
    global_id, load, load_row_at, rows,
};
use crate::history::{as_of, graphql::Change, sign_in_failed};
use crate::media::graphql::Media;
use crate::permission::Permission;
use crate::secret;
use async_graphql::connection::Connection;
use async_graphql::{Context, ID, InputObject, Object, SimpleObject};
use entity::tenant::{member, role};
use futures::FutureExt as _;
use sea_orm::EntityTrait as _;
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// A person who works in the tenant.
#[derive(Clone, Debug)]
pub struct Member {
    row: member::Model,
    /// The moment that they are shown as of; none is now.
    at: Option<Timestamp>,
}

impl Kind for Member {
    const NAME: &'static str = "Member";
}

impl From<member::Model> for Member {
    fn from(row: member::Model) -> Self {
        Self { row, at: None }
    }
}

/// A person who works in the tenant.
#[Object]
impl Member {
    /// Opaque, globally unique.
    pub async fn id(&self) -> ID {
        global_id::<Self>(self.row.id)
    }

    /// Lower case; unique in the tenant.
    async fn email(&self) -> &str {
        &self.row.email
    }

    /// Name for people.
    async fn name(&self) -> Option<&str> {
        self.row.name.as_deref()
    }

    /// Their picture. Null if they have none.
    async fn avatar(&self, ctx: &Context<'_>) -> Result<Option<Media>> {
        let Some(id) = self.row.avatar_id else {
            return Ok(None);
        };
        ctx.require(Permission::MediaRead)?;
        Media::find_at(ctx, id, self.at).await
    }

    /// The roles they hold.
    async fn roles(&self, ctx: &Context<'_>) -> Result<Vec<Role>> {
        ctx.require(Permission::MembersRead)?;
        Ok(load(ctx, RolesOf(self.row.id, self.at))
            .await?
            .unwrap_or_default())
    }

    /// When they last signed in.
    async fn last_seen_at(&self) -> Option<DateTime> {
        self.row.last_seen_at.map(DateTime)
    }

    /// When they joined.
    async fn created_at(&self) -> DateTime {
        self.row.created_at.into()
    }

    /// When the member was last changed.
    async fn updated_at(&self) -> DateTime {
        self.row.updated_at.into()
    }

    /// Bumped by every write.
    async fn version(&self) -> i32 {
        self.row.version
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
        Change::of(ctx, (self.row.id, self.at), page).await
    }
}

impl Member {
    /// The member with this id, if it is the tenant's.
    pub async fn find(ctx: &Context<'_>, id: Uuid) -> Result<Option<Self>> {
        ctx.require(Permission::MembersRead)?;
        Self::find_at(ctx, id, None).await
    }

    /// The same as they were at a moment, if there is one.
    pub async fn find_at(
        ctx: &Context<'_>,
        id: Uuid,
        at: Option<Timestamp>,
    ) -> Result<Option<Self>> {
        let row = load_row_at::<member::Entity>(ctx, id, at).await?;
        Ok(row.map(|row| Self { row, at }))
    }

    /// A page of the tenant's members, now or as of a moment, newest first: of those that have the text in their name or address, and hold the role.
    pub async fn page(
        ctx: &Context<'_>,
        page: PageArgs,
        (search, role): (Option<String>, Option<Uuid>),
        at: Option<Timestamp>,
    ) -> Result<Connection<Cursor, Self, Total>> {
        ctx.require_past(at)?;
        let tx = ctx.read(Permission::MembersRead).await?;
        let page = page.of(MEMBERS)?;
        let select = members(search.as_deref(), role, at)?;
        let fetch = |slice| rows(&tx, select.clone(), slice).boxed();
        let found = page.fetch(ctx, |row| Place::by_id(row.id), fetch).await?;
        Ok(found.with_fields(Total::of(select), |row| Self { row, at }))
    }
}

/// A named set of permissions.
#[derive(Clone, Debug)]
pub struct Role {
    row: role::Model,
    /// The moment that it is shown as of; none is now.
    at: Option<Timestamp>,
}

impl Kind for Role {
    const NAME: &'static str = "Role";
}

/// A named set of permissions.
#[Object]
impl Role {
    /// Opaque, globally unique.
    pub async fn id(&self) -> ID {
        global_id::<Self>(self.row.id)
    }

    /// Unique in the tenant.
    async fn name(&self) -> &str {
        &self.row.name
    }

    /// What it allows.
    async fn permissions(&self) -> Vec<Permission> {
        Permission::parse_all(&self.row.permissions).collect()
    }

    /// Shipped with Bulkhead; cannot be edited.
    async fn built_in(&self) -> bool {
        self.row.built_in
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
        Change::of(ctx, (self.row.id, self.at), page).await
    }
}

impl Role {
    /// The role with this id, if it is the tenant's.
    pub async fn find(ctx: &Context<'_>, id: Uuid) -> Result<Option<Self>> {
        ctx.require(Permission::MembersRead)?;
        Self::find_at(ctx, id, None).await
    }

    /// The same as it was at a moment, if there is one.
    pub async fn find_at(
        ctx: &Context<'_>,
        id: Uuid,
        at: Option<Timestamp>,
    ) -> Result<Option<Self>> {
        let row = load_row_at::<role::Entity>(ctx, id, at).await?;
        Ok(row.map(|row| Self { row, at }))
    }

    /// A page of the tenant's roles, now or as of a moment, newest first.
    pub async fn page(
        ctx: &Context<'_>,
        page: PageArgs,
        at: Option<Timestamp>,
    ) -> Result<Connection<Cursor, Self>> {
        ctx.require_past(at)?;
        let tx = ctx.read(Permission::MembersRead).await?;
        let all = as_of(role::Entity::find(), at);
        let fetch = |slice| rows(&tx, all.clone(), slice).boxed();
        let page = page.of(ROLES)?;
        let found = page.fetch(ctx, |row| Place::by_id(row.id), fetch).await?;
        Ok(found.connection(|row| Self { row, at }))
    }
}

/// The roles of the member with this id, as of a moment or as they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RolesOf(Uuid, Option<Timestamp>);

impl Batch for RolesOf {
    type Value = Vec<Role>;

    async fn load(tx: &TenantTx, keys: Vec<Self>) -> Result<HashMap<Self, Vec<Role>>> {
        let mut moments: HashMap<Option<Timestamp>, Vec<Uuid>> = HashMap::new();
        for Self(member, at) in keys {
            moments.entry(at).or_default().push(member);
        }
        let mut roles: HashMap<Self, Vec<Role>> = HashMap::new();
        for (at, members) in moments {
            for (member, row) in roles_of(tx, members, at).await? {
                let of = roles.entry(Self(member, at)).or_default();
                of.push(Role { row, at });
            }
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
        let member = self.0.actor.acted_for();
        ActorObject::load(ctx, member.as_ref().unwrap_or(&self.0.actor)).await
    }

    /// Whether an operator acts as this member: all that is done says so.
    async fn impersonated(&self) -> bool {
        self.0.actor.acted_for().is_some()
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
        let known = member.as_ref().map(|member| member.id);
        let Some(member) = member.filter(|_| matches) else {
            // Whoever it was to be or was not: it takes as long.
            let by = Actor::System("sign-in".to_owned());
            let tx = request.writing(&by).await?;
            let recorded = sign_in_failed(&tx, "member", known).await;
            tx.settle(recorded).await?;
            return Err(Error::Unauthenticated(Denial::InvalidCredentials));
        };
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
        let (Actor::Member(member) | Actor::Impersonation { member, .. }) = caller.actor else {
            return Err(Error::BadRequest("Only members have sessions.".to_owned()));
        };
        let tx = request.writing(&caller.actor).await?;
        let only = (!input.everywhere).then_some(caller.credential_id);
        let revoked = match only {
            None if caller.actor.acted_for().is_some() => Err(Error::invalid(
                "everywhere",
                "An operator who acts as a member ends no session but this one.",
            )),
            only => super::revoke_sessions(&tx, member, only).await,
        };
        let (revoked, errors) = expected(tx.settle(revoked).await)?;
        if revoked.is_some() {
            request.services.callers.forget(request.tenant.id);
            request.sign_out();
        }
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
