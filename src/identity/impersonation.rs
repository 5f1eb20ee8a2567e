//! Operators in a member's session: for a reason, for a while, and never unseen. What is done in it is in the tenant's history as
//! the operator's doing for the member; that it began and ended is there too, written with the operators' log.

use super::{TOKEN_PREFIX, normal_email};
use crate::actor::{Actor, Attribution};
use crate::clock::Timestamp;
use crate::database::{Database, PlatformTx, Tenant, TenantTx, identifier};
use crate::error::{Error, Result};
use crate::secret::{new_token, token_hash};
use crate::tenancy::Act;
use crate::tenancy::lifecycle::{lock, refused};
use entity::platform::tenant::State;
use entity::tenant::session;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _,
    FromQueryResult, QueryFilter as _, Set, Statement,
};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// How long an operator acts as a member at most.
pub const LONGEST: Duration = Duration::from_hours(4);

/// A session of a member's that an operator acts in.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "it holds a secret")]
pub struct Impersonation {
    /// The token; only its hash is stored.
    pub token: String,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// Of which tenant's.
    pub tenant: Arc<Tenant>,
}

/// Begins a session of the member with this address, for so long. It is there with its entry in the operators' log and the
/// tenant's history, or it is not.
pub async fn begin(
    database: &Database,
    (slug, email): (&str, &str),
    lasts: Duration,
    act: &Act,
) -> Result<Impersonation> {
    if act.reason.as_ref().is_none_or(|why| why.trim().is_empty()) {
        return Err(Error::invalid("reason", "Say why: --reason \"ticket 7\"."));
    }
    if lasts.is_zero() || lasts > LONGEST {
        let why = "An operator acts as a member for 1 second to 4 hours.";
        return Err(Error::invalid("for", why));
    }
    let tx = database.platform().await?;
    let tenant = lock(&tx, slug).await?;
    if tenant.state != State::Active {
        return Err(refused(&tenant, "entered"));
    }
    let member = member(&tx, &tenant, email).await?;
    let (id, now) = (tx.new_id(), tx.now());
    let (token, expires_at) = (new_token(TOKEN_PREFIX), now + lasts);
    let detail = json!({ "session": id, "member": member, "until": expires_at.to_rfc3339() });
    act.log(&tx, ("tenant.impersonate", Some(tenant.id)), detail)
        .await?;
    let tx = enter(tx, tenant, act).await?;
    let session = session::ActiveModel {
        id: Set(id),
        member_id: Set(member),
        token_hash: Set(token_hash(&token)),
        expires_at: Set(expires_at),
        revoked_at: Set(None),
        created_at: Set(now),
        operator: Set(Some(act.operator.clone())),
    };
    session.insert(&tx).await?;
    let tenant = Arc::clone(tx.tenant());
    tx.commit().await?;
    Ok(Impersonation {
        token,
        expires_at,
        tenant,
    })
}

/// A session that an operator acts in.
#[derive(Debug, FromQueryResult)]
struct Live {
    id: Uuid,
    member_id: Uuid,
}

/// Ends all such sessions of the tenant's, or only those of the member with this address. How many ended.
pub async fn end(
    database: &Database,
    (slug, email): (&str, Option<&str>),
    act: &Act,
) -> Result<usize> {
    let tx = database.platform().await?;
    let tenant = lock(&tx, slug).await?;
    if tenant.state == State::Deleting {
        return Err(refused(&tenant, "entered"));
    }
    let member = match email {
        Some(email) => Some(member(&tx, &tenant, email).await?),
        None => None,
    };
    let sql = format!(
        "SELECT id, member_id FROM {}.session WHERE operator IS NOT NULL AND revoked_at IS NULL AND expires_at > $1
             AND ($2::uuid IS NULL OR member_id = $2) ORDER BY id",
        identifier(&tenant.schema_name)?
    );
    let values = [tx.now().into(), member.into()];
    let live = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
    let live = Live::find_by_statement(live).all(&tx).await?;
    for Live { id, member_id } in &live {
        let detail = json!({ "session": id, "member": member_id });
        act.log(&tx, ("tenant.impersonate.end", Some(tenant.id)), detail)
            .await?;
    }
    let tx = enter(tx, tenant, act).await?;
    session::Entity::update_many()
        .col_expr(session::Column::RevokedAt, Expr::value(tx.now()))
        .filter(session::Column::Id.is_in(live.iter().map(|live| live.id)))
        .exec(&tx)
        .await?;
    tx.commit().await?;
    Ok(live.len())
}

/// Goes on in the tenant's schema as the operator.
async fn enter(tx: PlatformTx, tenant: Tenant, act: &Act) -> Result<TenantTx> {
    let attribution = Attribution {
        reason: act.reason.clone(),
        ..Actor::Operator(act.operator.clone()).into()
    };
    tx.enter(Arc::new(tenant), &attribution).await
}

async fn member(tx: &PlatformTx, tenant: &Tenant, email: &str) -> Result<Uuid> {
    let sql = format!(
        "SELECT id FROM {}.member WHERE email = $1",
        identifier(&tenant.schema_name)?
    );
    let values = [normal_email(email)?.into()];
    let found = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
    let found = tx.query_one_raw(found).await?;
    let none = || {
        let why = format!("{} has no member with the address {email}.", tenant.slug);
        Error::invalid("member", why)
    };
    Ok(found.ok_or_else(none)?.try_get("", "id")?)
}
