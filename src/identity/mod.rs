//! Members, their roles and sessions.

mod actor;
pub mod erase;
pub mod graphql;
pub mod impersonation;
pub mod jobs;
mod list;

pub use crate::permission::BuiltIn;
pub use actor::ActorObject;

use crate::actor::Actor;
use crate::caller::Caller;
use crate::database::TenantTx;
use crate::error::{Denial, Error, OnConstraint as _, Result};
use crate::history::{signed_in, signed_out};
use crate::permission::Permission;
use crate::tenancy::quota::{self, Coming};
use chrono::Duration;
use entity::tenant::{member, member_role, role, session};
use sea_orm::sea_query::{Expr, LockType, Query};
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait as _, EntityTrait as _,
    PaginatorTrait as _, QueryFilter as _, QuerySelect as _, Set,
};
use serde_json::json;
use uuid::Uuid;

/// What the tokens of sessions begin with.
pub const TOKEN_PREFIX: &str = "bhs_";

/// A member to be made.
#[derive(Clone, Debug)]
pub struct NewMember {
    /// Any case; kept in lower case.
    pub email: String,
    /// For people.
    pub name: Option<String>,
    /// From [`crate::secret::HashSlot::hash`].
    pub password_hash: String,
    /// The role they begin with.
    pub role: BuiltIn,
}

/// Makes a member with a built-in role, if the tenant may have one more.
pub async fn create_member(tx: &TenantTx, new: NewMember) -> Result<member::Model> {
    let email = normal_email(&new.email)?;
    quota::admit(tx, Coming::Member).await?;
    let now = tx.now();
    let taken = || Error::already_exists("email", "There is a member with this address already.");
    let member = member::ActiveModel {
        id: Set(tx.new_id()),
        email: Set(email),
        name: Set(new.name),
        password_hash: Set(new.password_hash),
        avatar_id: Set(None),
        last_seen_at: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
        version: Set(1),
    };
    let member = member
        .insert(tx)
        .await
        .on_constraint("member_email_key", taken)?;
    let held = Query::insert()
        .into_table(member_role::Entity)
        .columns([
            member_role::Column::Id,
            member_role::Column::MemberId,
            member_role::Column::RoleId,
        ])
        .select_from(
            Query::select()
                .expr(Expr::value(tx.new_id()))
                .expr(Expr::value(member.id))
                .column(role::Column::Id)
                .from(role::Entity)
                .and_where(role::Column::Name.eq(new.role.name()))
                .take(),
        )
        .map_err(Error::internal)?
        .take();
    if tx.execute(&held).await?.rows_affected() == 0 {
        return Err(Error::NotFound("role"));
    }
    Ok(member)
}

/// Refuses what has left the tenant without an owner, if it knows the role. Of two who do so at once, the second sees what the
/// first did.
pub async fn require_owner(tx: &TenantTx) -> Result<()> {
    let owner = role::Entity::find().filter(role::Column::Name.eq(BuiltIn::Owner.name()));
    let owner = owner.lock(LockType::NoKeyUpdate).one(tx).await?;
    let Some(owner) = owner else { return Ok(()) };
    let held = member_role::Entity::find().filter(member_role::Column::RoleId.eq(owner.id));
    if held.count(tx).await? == 0 {
        return Err(Error::invalid(
            "changeId",
            "This would leave the tenant without an owner; make somebody else an owner first.",
        ));
    }
    Ok(())
}

/// Refuses a password that is too short or too long to be one (NIST SP 800-63B §5.1.1).
pub fn check_password(password: &str) -> Result<()> {
    if (8..=128).contains(&password.chars().count()) {
        Ok(())
    } else {
        Err(Error::invalid(
            "password",
            "A password has 8 to 128 characters.",
        ))
    }
}

/// The member with this address, for signing in.
pub async fn by_email(tx: &TenantTx, email: &str) -> Result<Option<member::Model>> {
    let Ok(email) = normal_email(email) else {
        return Ok(None);
    };
    Ok(member::Entity::find()
        .filter(member::Column::Email.eq(email))
        .one(tx)
        .await?)
}

/// Begins a session of a member whose password was verified.
pub async fn begin_session(
    tx: &TenantTx,
    member: Uuid,
    token_hash: String,
    days: u32,
) -> Result<session::Model> {
    let now = tx.now();
    let session = session::ActiveModel {
        id: Set(tx.new_id()),
        member_id: Set(member),
        token_hash: Set(token_hash),
        expires_at: Set(now + Duration::days(days.into())),
        revoked_at: Set(None),
        created_at: Set(now),
        operator: Set(None),
    };
    let session = session.insert(tx).await?;
    signed_in(tx, ("member", member), json!({ "session": session.id })).await?;
    member::Entity::update_many()
        .col_expr(member::Column::LastSeenAt, Expr::value(now))
        .filter(member::Column::Id.eq(member))
        .exec(tx)
        .await?;
    Ok(session)
}

/// Ends the caller's session, or all of the member's. Returns how many ended; one that had its time ended by itself.
pub async fn revoke_sessions(tx: &TenantTx, member: Uuid, only: Option<Uuid>) -> Result<u64> {
    let now = tx.now();
    let mut update = session::Entity::update_many()
        .col_expr(session::Column::RevokedAt, Expr::value(now))
        .filter(session::Column::MemberId.eq(member))
        .filter(session::Column::ExpiresAt.gt(now))
        .filter(session::Column::RevokedAt.is_null());
    if let Some(session) = only {
        update = update.filter(session::Column::Id.eq(session));
    }
    let ended = update.exec(tx).await?.rows_affected;
    if ended > 0 {
        signed_out(tx, member, ended).await?;
    }
    Ok(ended)
}

/// Who is behind a session's token.
pub async fn authenticate(tx: &TenantTx, token_hash: &str) -> Result<Caller> {
    let session = session::Entity::find()
        .filter(session::Column::TokenHash.eq(token_hash))
        .one(tx)
        .await?
        .filter(|session| session.revoked_at.is_none())
        .ok_or(Error::Unauthenticated(Denial::TokenRevoked))?;
    if session.expires_at <= tx.now() {
        return Err(Error::Unauthenticated(Denial::TokenExpired));
    }
    let member = session.member_id;
    Ok(Caller {
        permissions: permissions(tx, member).await?,
        actor: match session.operator {
            Some(operator) => Actor::Impersonation { member, operator },
            None => Actor::Member(member),
        },
        expires_at: session.expires_at,
        credential_id: session.id,
    })
}

/// What a member may do: all that their roles allow.
async fn permissions(tx: &TenantTx, member: Uuid) -> Result<Vec<Permission>> {
    let held = member_role::Entity::find()
        .filter(member_role::Column::MemberId.eq(member))
        .find_also_related(role::Entity)
        .all(tx)
        .await?;
    let names: Vec<String> = held
        .into_iter()
        .filter_map(|(_, role)| role)
        .flat_map(|role| role.permissions)
        .collect();
    Ok(Permission::parse_all(&names).collect())
}

/// Lower case, with one `@` that has something on both sides; the mail server knows the rest.
fn normal_email(email: &str) -> Result<String> {
    let email = email.trim().to_lowercase();
    let shaped = email.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && domain.contains('.')
            && !domain.contains('@')
            && !domain.starts_with('.')
    });
    if !shaped || email.len() > 254 || email.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return Err(Error::invalid("email", "This is not an e-mail address."));
    }
    Ok(email)
}
