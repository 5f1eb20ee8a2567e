//! Plans, a tenant's own limits, its settings: how operators set them. Every change is in the operators' log, and every
//! server hears of it. Plans are locked before tenants, so no two of these acts wait for each other.

use super::log::Act;
use super::registry::by_slug;
use crate::database::{PlatformTx, Tenant};
use crate::error::{Error, Result};
use entity::platform::plan::{DEFAULT, Limit, Limits};
use entity::platform::tenant::{Flag, Retention, Settings};
use entity::platform::{plan, tenant};
use sea_orm::sea_query::LockType;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _,
    FromQueryResult, IntoActiveModel as _, PaginatorTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Set, Statement,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Feature flags that a tenant may have: each server keeps them in memory.
const MAX_FLAGS: usize = 100;
/// Milliseconds that a tenant's statements may be given.
const TIMEOUTS: std::ops::RangeInclusive<u32> = 10..=3_600_000;
/// Days that a history may be kept.
const RETENTION: std::ops::RangeInclusive<u32> = 1..=36_500;

/// A plan.
pub type Plan = plan::Model;

/// A limit of a tenant's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// At most so much.
    Max(u64),
    /// No limit, whatever the plan says.
    Unlimited,
    /// None of its own: the plan's.
    Plan,
}

/// What to change of a tenant; what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Name for people.
    pub name: Option<String>,
    /// The plan its limits come from.
    pub plan: Option<String>,
    /// Limits of its own.
    pub limits: BTreeMap<Limit, Own>,
    /// Milliseconds that a statement may take; none is the server's default.
    pub statement_timeout_ms: Option<Option<u32>>,
    /// Feature flags; none takes the flag away.
    pub flags: BTreeMap<String, Option<Flag>>,
    /// How long its history is kept.
    pub retention: RetentionChange,
}

/// What to change of a tenant's retention; what is not named stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionChange {
    /// Days that an entry is kept.
    pub days: Option<u32>,
    /// Whether nothing is purged.
    pub legal_hold: Option<bool>,
    /// Whether what is purged is archived first.
    pub archive: Option<bool>,
}

/// Changes a tenant. Nothing is written, or told, if it is like that already.
pub async fn change_tenant(
    tx: &PlatformTx,
    slug: &str,
    change: &Change,
    act: &Act,
) -> Result<Tenant> {
    check(change)?;
    let plans = plan::Entity::find()
        .order_by_asc(plan::Column::Name)
        .lock_shared()
        .all(tx)
        .await?;
    let before = tenant::Entity::find()
        .filter(tenant::Column::Slug.eq(slug))
        .lock(LockType::NoKeyUpdate)
        .one(tx)
        .await?
        .ok_or_else(|| no_tenant(slug))?;
    let plan = change.plan.as_ref().unwrap_or(&before.plan);
    let plan = plans
        .iter()
        .find(|known| known.name == *plan)
        .ok_or_else(|| no_plan(plan, &plans))?;
    let overrides = overrides(&before.overrides, &change.limits);
    let after = Tenant {
        name: change.name.as_ref().unwrap_or(&before.name).clone(),
        plan: plan.name.clone(),
        settings: settings(&before.settings, change)?,
        overrides: overrides.into(),
        ..before.clone()
    };
    if after == before {
        return Ok(before);
    }
    let id = before.id;
    let written = tenant::ActiveModel {
        id: Set(id),
        name: Set(after.name.clone()),
        plan: Set(after.plan.clone()),
        overrides: Set(after.overrides.clone()),
        settings: Set(after.settings.clone()),
        ..Default::default()
    };
    written.update(tx).await?;
    refresh(tx, "t.id = $1", id.into()).await?;
    tx.notify_tenant(id).await?;
    let detail = json!({ "from": described(&before), "to": described(&after) });
    act.log(tx, ("tenant.set", Some(id)), detail).await?;
    by_slug(tx, slug).await?.ok_or_else(|| no_tenant(slug))
}

/// The limits of a new tenant, or of a copy of another one. Until it is there, its plan does not change.
pub(super) async fn of_new_tenant(tx: &PlatformTx, source: Option<&Tenant>) -> Result<Limits> {
    let name = source.map_or(DEFAULT, |source| source.plan.as_str());
    let plan = plan::Entity::find_by_id(name).lock_shared().one(tx).await?;
    let mut limits = object(&json!(plan.map(|plan| plan.limits)));
    if let Some(source) = source {
        limits.extend(object(&source.overrides));
    }
    limits.retain(|_, limit| !limit.is_null());
    serde_json::from_value(limits.into()).map_err(Error::internal)
}

/// All plans by name, each with the number of its tenants.
pub async fn plans(tx: &PlatformTx) -> Result<Vec<(Plan, u64)>> {
    let plans = plan::Entity::find()
        .order_by_asc(plan::Column::Name)
        .all(tx)
        .await?;
    let mut counted = Vec::with_capacity(plans.len());
    for plan in plans {
        let tenants = tenants_of(tx, &plan.name).await?;
        counted.push((plan, tenants));
    }
    Ok(counted)
}

/// Makes a plan, or changes the limits that are named; none is no limit. Its tenants have them when this is committed.
pub async fn set_plan(
    tx: &PlatformTx,
    name: &str,
    limits: &BTreeMap<Limit, Option<u64>>,
    act: &Act,
) -> Result<Plan> {
    check_plan_name(name)?;
    for (limit, value) in limits {
        check_limit(*limit, *value)?;
    }
    let new = plan::ActiveModel {
        name: Set(name.to_owned()),
        limits: Set(Limits::default()),
    };
    let made = plan::Entity::insert(new)
        .on_conflict_do_nothing()
        .exec_without_returning(tx)
        .await?;
    let before = locked_plan(tx, name).await?;
    let mut changed = object(&json!(before.limits));
    for (limit, value) in limits {
        changed.insert(limit.name().to_owned(), json!(value));
    }
    let after: Limits = serde_json::from_value(changed.into()).map_err(Error::internal)?;
    let fresh = matches!(made, sea_orm::TryInsertResult::Inserted(1));
    if after == before.limits && !fresh {
        return Ok(before);
    }
    let detail = json!({ "plan": name, "from": before.limits, "to": after });
    let mut written = before.into_active_model();
    written.limits = Set(after);
    let written = written.update(tx).await?;
    for tenant in refresh(tx, "t.plan = $1", name.into()).await? {
        let action = ("tenant.limits", Some(tenant));
        act.log(tx, action, detail.clone()).await?;
        tx.notify_tenant(tenant).await?;
    }
    act.log(tx, ("plan.set", None), detail).await?;
    Ok(written)
}

/// Deletes a plan that no tenant has.
pub async fn delete_plan(tx: &PlatformTx, name: &str, act: &Act) -> Result<()> {
    let plan = locked_plan(tx, name).await?;
    if name == DEFAULT {
        let why = format!("The plan {DEFAULT} stays: new tenants have it.");
        return Err(Error::invalid("plan", why));
    }
    let tenants = tenants_of(tx, name).await?;
    if tenants > 0 {
        let why = format!(
            "The plan {name} is in use by {tenants} tenants; give them another first: bulkhead tenant set <slug> --plan …"
        );
        return Err(Error::invalid("plan", why));
    }
    plan::Entity::delete_by_id(name).exec(tx).await?;
    let detail = json!({ "plan": name, "limits": plan.limits });
    act.log(tx, ("plan.delete", None), detail).await
}

/// The limit of this name.
pub fn limit_named(name: &str) -> Result<Limit> {
    let found = Limit::ALL.into_iter().find(|limit| limit.name() == name);
    found.ok_or_else(|| {
        let known = Limit::ALL.map(Limit::name).join(", ");
        Error::invalid(
            "limit",
            format!("There is no limit {name}; there are {known}."),
        )
    })
}

#[derive(FromQueryResult)]
struct Refreshed {
    id: Uuid,
}

/// Writes what counts for these tenants: the plan's limits with their own over them. A null is no limit, and is left out.
async fn refresh(tx: &PlatformTx, which: &str, value: sea_orm::Value) -> Result<Vec<Uuid>> {
    let sql = format!(
        "UPDATE tenant t SET limits = jsonb_strip_nulls(p.limits || t.overrides) FROM plan p
         WHERE p.name = t.plan AND {which} AND t.limits <> jsonb_strip_nulls(p.limits || t.overrides)
         RETURNING t.id"
    );
    let update = Statement::from_sql_and_values(DbBackend::Postgres, sql, [value]);
    let changed = tx.query_all_raw(update).await?;
    let ids = changed
        .iter()
        .map(|row| Refreshed::from_query_result(row, "").map(|row| row.id));
    Ok(ids.collect::<Result<_, _>>()?)
}

async fn locked_plan(tx: &PlatformTx, name: &str) -> Result<Plan> {
    let found = plan::Entity::find_by_id(name).lock_exclusive().one(tx);
    match found.await? {
        Some(plan) => Ok(plan),
        None => {
            let known = plan::Entity::find().order_by_asc(plan::Column::Name);
            Err(no_plan(name, &known.all(tx).await?))
        }
    }
}

async fn tenants_of(tx: &PlatformTx, plan: &str) -> Result<u64> {
    let tenants = tenant::Entity::find().filter(tenant::Column::Plan.eq(plan));
    Ok(tenants.count(tx).await?)
}

fn overrides(before: &Value, changes: &BTreeMap<Limit, Own>) -> Map<String, Value> {
    let mut overrides = object(before);
    for (limit, own) in changes {
        let name = limit.name().to_owned();
        match own {
            Own::Max(max) => overrides.insert(name, json!(max)),
            Own::Unlimited => overrides.insert(name, Value::Null),
            Own::Plan => overrides.remove(&name),
        };
    }
    overrides
}

fn settings(before: &Settings, change: &Change) -> Result<Settings> {
    let mut settings = before.clone();
    if let Some(timeout) = change.statement_timeout_ms {
        settings.statement_timeout_ms = timeout;
    }
    let (kept, wanted) = (settings.retention, change.retention);
    settings.retention = Retention {
        days: wanted.days.unwrap_or(kept.days),
        legal_hold: wanted.legal_hold.unwrap_or(kept.legal_hold),
        archive: wanted.archive.unwrap_or(kept.archive),
    };
    for (name, value) in &change.flags {
        match value {
            Some(value) => settings.flags.insert(name.clone(), value.clone()),
            None => settings.flags.remove(name),
        };
    }
    if settings.flags.len() > MAX_FLAGS {
        let why = format!("A tenant has at most {MAX_FLAGS} flags.");
        return Err(Error::invalid("flag", why));
    }
    Ok(settings)
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// What of a tenant is set here, for the log.
fn described(tenant: &Tenant) -> Value {
    json!({
        "name": tenant.name,
        "plan": tenant.plan,
        "limits": tenant.overrides,
        "settings": tenant.settings,
    })
}

fn check(change: &Change) -> Result<()> {
    let name = change.name.as_deref();
    if name.is_some_and(|name| name.trim().is_empty() || name.len() > 200) {
        let why = "A tenant's name has 1 to 200 characters.";
        return Err(Error::invalid("name", why));
    }
    for (limit, own) in &change.limits {
        if let Own::Max(max) = own {
            check_limit(*limit, Some(*max))?;
        }
    }
    if let Some(Some(timeout)) = change.statement_timeout_ms
        && !TIMEOUTS.contains(&timeout)
    {
        let why = format!("A statement timeout is from 10ms to 1h, not {timeout}ms.");
        return Err(Error::invalid("statementTimeout", why));
    }
    if let Some(days) = change.retention.days
        && !RETENTION.contains(&days)
    {
        let why = format!("A history is kept for 1 to 36500 days, not {days}.");
        return Err(Error::invalid("days", why));
    }
    for (name, value) in &change.flags {
        check_flag(name, value.as_ref())?;
    }
    Ok(())
}

fn check_limit(limit: Limit, value: Option<u64>) -> Result<()> {
    if value.is_some_and(|value| value > limit.max()) {
        let why = format!(
            "The limit {limit} is at most {}, or unlimited.",
            limit.max()
        );
        return Err(Error::invalid("limit", why));
    }
    Ok(())
}

fn check_flag(name: &str, value: Option<&Flag>) -> Result<()> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
    if name.len() > 63
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
        || !name.bytes().all(inner)
    {
        let why = format!(
            "{name:?} cannot be a flag: use up to 63 lower-case letters, digits, hyphens and underscores, beginning with a letter."
        );
        return Err(Error::invalid("flag", why));
    }
    match value {
        Some(Flag::Text(text)) if text.len() > 200 || text.contains(char::is_control) => {
            Err(Error::invalid(
                "flag",
                format!(
                    "The flag {name} has a text of more than 200 bytes, or with control characters."
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// As the table's own check has it.
fn check_plan_name(name: &str) -> Result<()> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=31).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(inner)
    {
        return Ok(());
    }
    let why = format!(
        "{name:?} cannot be a plan: use 1 to 31 lower-case letters, digits and hyphens, beginning with a letter."
    );
    Err(Error::invalid("plan", why))
}

fn no_plan(name: &str, plans: &[Plan]) -> Error {
    let known: Vec<_> = plans.iter().map(|plan| plan.name.as_str()).collect();
    let known = known.join(", ");
    Error::invalid(
        "plan",
        format!("There is no plan {name}; there are {known}."),
    )
}

/// That there is none of this slug, for operators.
pub fn no_tenant(slug: &str) -> Error {
    Error::config(format!(
        "there is no tenant {slug}; `bulkhead tenant list` shows those there are"
    ))
}
