//! The lists of members and roles.

use crate::error::Result;
use crate::graphql::{Order, SortKey, containing};
use entity::tenant::{member, member_role};
use sea_orm::sea_query::Query;
use sea_orm::sea_query::extension::postgres::PgExpr as _;
use sea_orm::{ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, Select};
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
pub(super) fn members(search: Option<&str>, role: Option<Uuid>) -> Result<Select<member::Entity>> {
    let mut select = member::Entity::find();
    if let Some(search) = search {
        let pattern = containing(search)?;
        let found = [member::Column::Name, member::Column::Email]
            .map(|column| column.into_expr().ilike(pattern.as_str()));
        select = select.filter(found.into_iter().fold(Condition::any(), Condition::add));
    }
    if let Some(role) = role {
        let holders = Query::select()
            .column(member_role::Column::MemberId)
            .from(member_role::Entity)
            .and_where(member_role::Column::RoleId.eq(role))
            .take();
        select = select.filter(member::Column::Id.in_subquery(holders));
    }
    Ok(select)
}
