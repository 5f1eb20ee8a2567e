//! The list of devices: what it can be narrowed to and sorted by.

use super::graphql::DeviceState;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::graphql::{DateTime, Key, Order, OrderDirection, Place, SortKey, containing, few};
use async_graphql::{Enum, InputObject};
use entity::tenant::device::{Column, Entity, Model};
use sea_orm::sea_query::extension::postgres::PgExpr as _;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, Select};

/// When a device was last seen, as `device_last_seen_at_idx` has it.
const LAST_SEEN: &str = r#"coalesce("device"."last_seen_at", '-infinity')"#;

/// Which devices; all that is given holds.
#[derive(Debug, Default, InputObject)]
pub struct DeviceFilter {
    /// Somewhere in the name or clientId, in upper or lower case.
    search: Option<String>,
    /// In one of these states.
    states: Option<Vec<DeviceState>>,
    /// Not seen at this time or later; those that never were are among them.
    not_seen_since: Option<DateTime>,
}

impl DeviceFilter {
    /// The devices that pass.
    pub(super) fn select(self, now: Timestamp) -> Result<Select<Entity>> {
        let mut select = Entity::find();
        if let Some(search) = self.search {
            let pattern = containing(&search)?;
            let found = [Column::Name, Column::ClientId]
                .map(|column| column.into_expr().ilike(pattern.as_str()));
            select = select.filter(found.into_iter().fold(Condition::any(), Condition::add));
        }
        few("states", self.states.as_deref())?;
        if let Some(states) = self.states {
            let all = [
                DeviceState::Active,
                DeviceState::Disabled,
                DeviceState::Locked,
                DeviceState::Unclaimed,
            ];
            let wanted = all.into_iter().filter(|state| states.contains(state));
            let any = wanted.fold(Condition::any(), |any, state| any.add(is(state, now)));
            // Of no states there are no devices; an empty condition would be none.
            select = select.filter(any.add_option(states.is_empty().then(|| Expr::value(false))));
        }
        if let Some(DateTime(at)) = self.not_seen_since {
            select = select.filter(Expr::cust(LAST_SEEN).lt(at));
        }
        Ok(select)
    }
}

/// As [`DeviceState::of`] tells them apart.
fn is(state: DeviceState, now: Timestamp) -> Condition {
    let enabled = Condition::all().add(Column::Enabled.eq(true));
    let locked = Column::LockedUntil.gt(now);
    let open = Condition::any()
        .add(Column::LockedUntil.is_null())
        .add(Column::LockedUntil.lte(now));
    match state {
        DeviceState::Disabled => Condition::all().add(Column::Enabled.eq(false)),
        DeviceState::Locked => enabled.add(locked),
        DeviceState::Unclaimed => enabled.add(open).add(Column::ProvisionedAt.is_null()),
        DeviceState::Active => enabled.add(open).add(Column::ProvisionedAt.is_not_null()),
    }
}

/// How devices are sorted; those that are alike, by when they were made.
#[derive(Debug, InputObject)]
pub struct DeviceOrder {
    /// By what.
    field: DeviceOrderField,
    /// Which end comes first.
    #[graphql(default_with = "OrderDirection::Asc")]
    direction: OrderDirection,
}

/// What devices are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum DeviceOrderField {
    /// When they were made.
    CreatedAt,
    /// When they were last seen; those that never were are before all others.
    LastSeenAt,
    /// Their names, character by character by Unicode's numbers: "Zoo" is before "ant".
    Name,
}

impl DeviceOrder {
    /// Newest first, unless asked for otherwise; and where a device is in it.
    pub(super) fn of(asked: Option<Self>) -> (Order, fn(&Model) -> Place) {
        let asked = asked.unwrap_or(Self {
            field: DeviceOrderField::CreatedAt,
            direction: OrderDirection::Desc,
        });
        let (name, key, place): (_, _, fn(&Model) -> Place) = match asked.field {
            DeviceOrderField::CreatedAt => {
                ("devices.created", SortKey::Id, |row| Place::by_id(row.id))
            }
            DeviceOrderField::LastSeenAt => ("devices.seen", SortKey::Time(LAST_SEEN), |row| {
                let key = Key::Time(row.last_seen_at);
                Place { key, id: row.id }
            }),
            DeviceOrderField::Name => {
                ("devices.name", SortKey::Text(r#""device"."name""#), |row| {
                    let key = Key::Text(row.name.clone());
                    Place { key, id: row.id }
                })
            }
        };
        let order = Order {
            name,
            key,
            descending: asked.direction == OrderDirection::Desc,
        };
        (order, place)
    }
}
