//! A new tenant: registry row, schema, role and grants, in one transaction, so that it ends absent or complete.

use super::home::{self, Furnished, Home};
use super::log::Act;
use super::{limits, spares, template};
use crate::database::{Database, PlatformTx, Tenant, TenantTx};
use crate::error::{Error, OnConstraint as _, Result};
use entity::platform::tenant;
use entity::platform::tenant::State;
use sea_orm::{ActiveModelTrait as _, Set};
use serde_json::json;
use std::sync::Arc;

/// Subdomains that are ours, or that a customer must not pass for.
const RESERVED: [&str; 22] = [
    "admin",
    "api",
    "app",
    "assets",
    "auth",
    "billing",
    "blog",
    "bulkhead",
    "cdn",
    "console",
    "dashboard",
    "docs",
    "ftp",
    "localhost",
    "mail",
    "media",
    "ns",
    "operator",
    "static",
    "status",
    "support",
    "www",
];

/// What a tenant is made from.
#[derive(Clone, Debug)]
pub struct NewTenant {
    /// Its subdomain and media prefix, for good.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// Who makes it, and why.
    pub act: Act,
}

/// Makes the tenant and returns the open unit of work, now inside its schema: the caller writes the first rows and commits.
/// Until then there is no tenant; dropped, nothing remains. Its built-in roles are there.
///
/// A spare makes it a matter of rows. Where there is none, the schema is made here.
pub async fn create(database: &Database, new: NewTenant) -> Result<TenantTx> {
    create_from(database, new, None).await
}

/// The same; a copy of another tenant has that one's plan, limits and settings, no rows, and is not in use yet.
pub(super) async fn create_from(
    database: &Database,
    new: NewTenant,
    source: Option<&Tenant>,
) -> Result<TenantTx> {
    check(&new)?;
    let tx = database.platform().await?;
    let furnished = match source {
        Some(_) => Furnished::Empty,
        None => Furnished::WithRoles,
    };
    let spare = match furnished {
        Furnished::WithRoles => spares::take(&tx).await?,
        Furnished::Empty => None,
    };
    let tenant = if let Some(home) = spare {
        register(&tx, &new, &home, source).await?
    } else {
        let home = Home::new(&tx, database.instance(), 1).await?.remove(0);
        let tenant = register(&tx, &new, &home, source).await?;
        let template = template::read(&tx).await?;
        home::build(&tx, &[home], &template, furnished).await?;
        tenant
    };
    // Last: it is in the tenant's history too, which is there now.
    noted(&tx, &new, &tenant, source).await?;
    tx.enter(Arc::new(tenant), &new.act.attribution()).await
}

/// Writes the tenant's row.
async fn register(
    tx: &PlatformTx,
    new: &NewTenant,
    home: &Home,
    source: Option<&Tenant>,
) -> Result<Tenant> {
    let row = tenant::ActiveModel {
        id: Set(tx.new_id()),
        slug: Set(new.slug.clone()),
        name: Set(new.name.clone()),
        state: Set(source.map_or(State::Active, |_| State::Provisioning)),
        state_since: Set(tx.now()),
        schema_name: Set(home.schema.clone()),
        role_name: Set(home.role.clone()),
        cell_id: Set(home.cell),
        created_at: Set(tx.now()),
        limits: Set(limits::of_new_tenant(tx, source).await?),
        ..source.map(inherited).unwrap_or_default()
    };
    let taken =
        || Error::already_exists("slug", format!("There is a tenant {} already.", new.slug));
    row.insert(tx).await.on_constraint("tenant_slug_key", taken)
}

/// Writes it down for the tenant, and for the one that it is a copy of.
async fn noted(
    tx: &PlatformTx,
    new: &NewTenant,
    tenant: &Tenant,
    source: Option<&Tenant>,
) -> Result<()> {
    let mut detail = json!({ "slug": tenant.slug, "name": tenant.name });
    if let Some(source) = source {
        let copied = json!({ "as": tenant.slug });
        let action = ("tenant.clone", Some(source.id));
        new.act.log(tx, action, copied).await?;
        detail["cloneOf"] = source.slug.as_str().into();
    }
    let action = ("tenant.create", Some(tenant.id));
    new.act.log(tx, action, detail).await
}

/// What a copy takes over from the registry's row of its source.
fn inherited(source: &Tenant) -> tenant::ActiveModel {
    tenant::ActiveModel {
        source_id: Set(Some(source.id)),
        plan: Set(source.plan.clone()),
        overrides: Set(source.overrides.clone()),
        settings: Set(source.settings.clone()),
        ..Default::default()
    }
}

fn check(new: &NewTenant) -> Result<()> {
    let slug = &new.slug;
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let shaped = (3..=48).contains(&slug.len())
        && slug.starts_with(|c: char| c.is_ascii_lowercase())
        && !slug.ends_with('-')
        && slug.bytes().all(inner);
    if !shaped {
        return Err(Error::invalid(
            "slug",
            format!(
                "{slug:?} cannot be a slug: use 3 to 48 lower-case letters, digits and hyphens, beginning with a letter, not ending with a hyphen."
            ),
        ));
    }
    // Punycode reads as another name than it is.
    if RESERVED.contains(&slug.as_str()) || slug.starts_with("xn--") {
        return Err(Error::invalid(
            "slug",
            format!("The slug {slug} is reserved; choose another."),
        ));
    }
    if new.name.trim().is_empty() || new.name.len() > 200 {
        return Err(Error::invalid(
            "name",
            "A tenant's name has 1 to 200 characters.",
        ));
    }
    Ok(())
}
