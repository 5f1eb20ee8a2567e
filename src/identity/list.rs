//! The lists of members and roles.

use crate::clock::Timestamp;
use crate::database::{TenantTx, any};
use crate::error::Result;
use crate::graphql::{Order, SortKey, containing};
use crate::history::as_of;
use entity::tenant::{member, member_role, role};
use sea_orm::sea_query::ExprTrait as _;
use sea_orm::sea_query::extension::postgres::PgExpr as _;
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, QueryTrait as _, Select,
};
use uuid::Uuid;

/// Of members: newest first.
pub(super) const MEMBERS: Order = Order {
    name: "members",
    key: SortKey::Id,
    descending: true,
};
/// Of roles: newest first.
pub(super) const ROLES: Order = Order {
    name: "roles",
    ..MEMBERS
};

/// The members that have the text somewhere in their name or address, in upper or lower case, and hold the role.
/// As of a moment, those who did then.
pub(super) fn members(
    search: Option<&str>,
    role: Option<Uuid>,
    at: Option<Timestamp>,
) -> Result<Select<member::Entity>> {
    let mut select = member::Entity::find();
    if let Some(search) = search {
        let pattern = containing(search)?;
        let found = [member::Column::Name, member::Column::Email]
            .map(|column| column.into_expr().ilike(pattern.as_str()));
        select = select.filter(found.into_iter().fold(Condition::any(), Condition::add));
    }
    if let Some(role) = role {
        let holders = as_of(member_role::Entity::find(), at)
            .select_only()
            .column(member_role::Column::MemberId)
            .filter(member_role::Column::RoleId.eq(role))
            .into_query();
        select = select.filter(member::Column::Id.in_subquery(holders));
    }
    Ok(as_of(select, at))
}

/// The roles that each of these members holds, or held as of a moment, in the order of their ids.
pub(super) async fn roles_of(
    tx: &TenantTx,
    members: Vec<Uuid>,
    at: Option<Timestamp>,
) -> Result<Vec<(Uuid, role::Model)>> {
    let held = as_of(member_role::Entity::find(), at)
        .filter(member_role::Column::MemberId.into_expr().eq(any(members)))
        .all(tx)
        .await?;
    let wanted: Vec<Uuid> = held.iter().map(|held| held.role_id).collect();
    let roles = as_of(role::Entity::find(), at)
        .filter(role::Column::Id.into_expr().eq(any(wanted)))
        .order_by_asc(role::Column::Id)
        .all(tx)
        .await?;
    let of = |role: &role::Model| {
        let held = held.iter().filter(|held| held.role_id == role.id);
        held.map(|held| (held.member_id, role.clone()))
            .collect::<Vec<_>>()
    };
    Ok(roles.iter().flat_map(of).collect())
}
