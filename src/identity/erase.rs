//! Erasing a person: their member, what goes with it, and what the history has of them. Nothing brings it back.

use super::{BuiltIn, by_email};
use crate::database::{Tenant, TenantTx};
use crate::error::{Error, Result};
use crate::graphql::parse_global_id;
use crate::history::erase;
use crate::media::{self, exports};
use crate::services::Services;
use crate::tenancy::Act;
use crate::tenancy::quota::take_turn;
use entity::platform::tenant::{self, State};
use entity::tenant::{member, member_role, role};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, QueryFilter as _,
    QuerySelect as _, Statement,
};
use serde_json::json;
use std::sync::Arc;
use uuid::Uuid;

/// What was erased.
#[derive(Clone, Copy, Debug)]
pub struct Erased {
    /// Whose.
    pub member: Uuid,
    /// Entries of the history that had something of them.
    pub entries: u64,
    /// Pictures of theirs that were removed.
    pub media: u64,
    /// Exports of the trail that were removed: all that there were, for they may have something of them.
    pub exports: usize,
    /// Entries from before personal values were kept apart, which still have them.
    pub left: i64,
}

/// The member with this address or id, and what is theirs.
struct Found {
    member: Uuid,
    /// What the member's picture is, or was.
    pictures: Vec<Uuid>,
    media: Vec<media::Row>,
}

/// Erases the member with this address or id. What is in the media store goes first; all the rest is one transaction, so that
/// whoever begins it again after a crash finds the member still there, or nothing.
pub async fn erase_member(
    services: &Services,
    tenant: &Arc<Tenant>,
    who: &str,
    act: &Act,
) -> Result<Erased> {
    let database = &services.database;
    let tx = database.read(tenant).await?;
    let found = find(&tx, who).await;
    let found = tx.settle(found).await?;
    may_erase(tenant)?;
    media::remove_objects(&services.store, tenant, &found.media).await?;
    exports::remove_objects(&services.store, tenant).await?;
    let tx = database.platform().await?;
    let held = tenant::Entity::find_by_id(tenant.id).lock_shared().one(&tx);
    may_erase(&held.await?.ok_or_else(|| gone(tenant, who))?)?;
    let detail = json!({ "member": found.member });
    act.log(&tx, ("member.erase", Some(tenant.id)), detail)
        .await?;
    let tx = tx.enter(Arc::clone(tenant), &act.attribution()).await?;
    let erased = remove(&tx, &found).await;
    let (erased, exports) = tx.settle(erased).await?;
    // One may have been made since they were looked for.
    media::remove_objects(&services.store, tenant, &exports).await?;
    services.callers.forget(tenant.id);
    Ok(erased)
}

fn may_erase(tenant: &Tenant) -> Result<()> {
    let slug = &tenant.slug;
    if !matches!(tenant.state, State::Active | State::Suspended) {
        let state = tenant.state;
        return Err(Error::config(format!(
            "{slug} is {state}: nobody is erased from it; restore it first, or delete it as a whole"
        )));
    }
    if tenant.settings.retention.legal_hold {
        return Err(Error::config(format!(
            "{slug} is under legal hold: nobody is erased until it is lifted: bulkhead audit retention {slug} --no-legal-hold"
        )));
    }
    Ok(())
}

async fn find(tx: &TenantTx, who: &str) -> Result<Found> {
    let id = Uuid::parse_str(who).ok();
    let id = id.or_else(|| parse_global_id(who).map(|(_, id)| id));
    let member = match id {
        Some(id) => member::Entity::find_by_id(id).one(tx).await?,
        None => by_email(tx, who).await?,
    };
    let member = member.ok_or_else(|| gone(tx.tenant(), who))?.id;
    others_own(tx, member).await?;
    let pictures = pictures(tx, member).await?;
    let media = media::with_ids(tx, &pictures).await?;
    Ok(Found {
        member,
        pictures,
        media,
    })
}

fn gone(tenant: &Tenant, who: &str) -> Error {
    let slug = &tenant.slug;
    Error::config(format!(
        "{slug} has no member {who}: give an e-mail address or an id; who was erased is not found again"
    ))
}

/// Refuses to leave the tenant without an owner.
async fn others_own(tx: &TenantTx, member: Uuid) -> Result<()> {
    let owners = member_role::Entity::find()
        .inner_join(role::Entity)
        .filter(role::Column::Name.eq(BuiltIn::Owner.name()))
        .all(tx)
        .await?;
    let (own, others): (Vec<_>, Vec<_>) = owners.iter().partition(|held| held.member_id == member);
    if !own.is_empty() && others.is_empty() {
        return Err(Error::config(
            "this is the last owner of the tenant; make somebody else an owner first",
        ));
    }
    Ok(())
}

async fn pictures(tx: &TenantTx, member: Uuid) -> Result<Vec<Uuid>> {
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT DISTINCT (row ->> 'avatar_id')::uuid AS id FROM history
         WHERE subject_type = 'member' AND subject_id = $1 AND row ->> 'avatar_id' IS NOT NULL",
        [member.into()],
    );
    let rows = tx.query_all_raw(query).await?;
    let ids = rows.iter().map(|row| row.try_get("", "id"));
    Ok(ids.collect::<std::result::Result<_, _>>()?)
}

/// The rows first: that they are removed is in the history too, with all that they had. Exports that are under way wait: they
/// find out that somebody was erased. Those that were there are returned.
async fn remove(tx: &TenantTx, found: &Found) -> Result<(Erased, Vec<media::Row>)> {
    take_turn(tx).await?;
    others_own(tx, found.member).await?;
    let media = media::remove(tx, &found.pictures).await?;
    member::Entity::delete_by_id(found.member).exec(tx).await?;
    let mut persons = vec![("member", found.member)];
    persons.extend(found.pictures.iter().map(|id| ("media", *id)));
    let entries = erase::erase(tx, &persons).await?;
    let exports = exports::remove_all(tx).await?;
    let erased = Erased {
        member: found.member,
        entries,
        media,
        exports: exports.len(),
        left: left(tx, &persons).await?,
    };
    Ok((erased, exports))
}

async fn left(tx: &TenantTx, persons: &[(&str, Uuid)]) -> Result<i64> {
    let ids: Vec<Uuid> = persons.iter().map(|(_, id)| *id).collect();
    let query = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT count(*) AS entries FROM history WHERE subject_id = ANY ($1) AND subject_type IN ('member', 'media')
             AND action IN ('create', 'update', 'delete') AND person IS NULL",
        [ids.into()],
    );
    let row = tx.query_one_raw(query).await?;
    Ok(row.map_or(Ok(0), |row| row.try_get("", "entries"))?)
}
