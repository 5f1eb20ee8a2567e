//! A new tenant: registry row, schema, role and grants, in one transaction, so that it ends absent or complete.

use super::template::{self, Template};
use crate::actor::{Actor, Attribution};
use crate::database::{Database, Tenant, TenantTx, for_tenant, identifier};
use crate::error::{Error, OnConstraint as _, Result};
use entity::platform::{operator_log, tenant};
use sea_orm::{ActiveModelTrait as _, ConnectionTrait as _, DbBackend, Set, Statement};
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
    /// Who makes it.
    pub operator: String,
}

/// Makes the tenant and returns the open unit of work, now inside its schema: the caller writes the first rows and commits.
/// Until then there is no tenant; dropped, nothing remains.
pub async fn create(database: &Database, new: NewTenant) -> Result<TenantTx> {
    check(&new)?;
    let tx = database.platform().await?;
    let template = template::read(&tx).await?;
    let number = tx
        .query_one_raw(Statement::from_string(
            DbBackend::Postgres,
            "SELECT nextval('tenant_number') AS number",
        ))
        .await?
        .ok_or_else(|| Error::internal("no number"))?
        .try_get::<i64>("", "number")?;
    let row = tenant::ActiveModel {
        id: Set(tx.new_id()),
        slug: Set(new.slug.clone()),
        name: Set(new.name.clone()),
        state: Set(tenant::State::Active),
        schema_name: Set(format!("t_{number}")),
        role_name: Set(format!("{}_t_{number}", database.instance())),
        cell_id: Set(0),
        created_at: Set(tx.now()),
    };
    let taken =
        || Error::already_exists("slug", format!("There is a tenant {} already.", new.slug));
    let tenant = row
        .insert(&tx)
        .await
        .on_constraint("tenant_slug_key", taken)?;
    tx.batch(&ddl(&tenant, database.instance(), &template)?)
        .await?;
    let log = operator_log::ActiveModel {
        id: Set(tx.new_id()),
        at: Set(tx.now()),
        operator: Set(new.operator.clone()),
        action: Set("tenant.create".to_owned()),
        tenant_id: Set(Some(tenant.id)),
        detail: Set(serde_json::json!({ "slug": tenant.slug, "name": tenant.name })),
    };
    log.insert(&tx).await?;
    tx.enter(
        Arc::new(tenant),
        &Attribution::from(Actor::Operator(new.operator)),
    )
    .await
}

/// Everything the tenant needs from the database, as one text for one round trip: the statements, one by one, take twice
/// as long.
fn ddl(tenant: &Tenant, instance: &str, template: &Template) -> Result<String> {
    let role = identifier(&tenant.role_name)?;
    let cell = identifier(&format!("{instance}_c_{}", tenant.cell_id))?;
    let schema = &tenant.schema_name;
    let head =
        format!("CREATE ROLE {role} NOLOGIN; GRANT {role} TO {cell}; CREATE SCHEMA {schema}");
    let body = for_tenant(&template.statements.join(";\n"), schema, &tenant.role_name)?;
    let steps = template
        .steps
        .iter()
        .map(|step| format!("('{schema}', '{step}')"));
    let steps = steps.collect::<Vec<_>>().join(", ");
    let ledger = format!("INSERT INTO bulkhead.migration (schema_name, name) VALUES {steps}");
    Ok([head, body, ledger].join(";\n"))
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
    if RESERVED.contains(&slug.as_str()) {
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
