//! Custom domains: claimed by anybody, proven by a TXT record, one of a tenant's the primary.
//!
//! A host is a tenant's from its proof until it is removed, whatever becomes of the record: a mistake in the DNS must not take
//! a customer off the net. Until its proof it is kept from nobody.

use super::dns::{Dns, Proof, Record};
use super::host::{self, Authority};
use super::log::Act;
use crate::database::{Database, PlatformTx, Tenant};
use crate::error::{Error, OnConstraint as _, Result};
use crate::secret::new_token;
use entity::platform::{domain, tenant};
use sea_orm::sea_query::LockType;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, EntityTrait as _, IntoActiveModel as _,
    ModelTrait as _, QueryFilter as _, QuerySelect as _, Set,
};

/// One custom domain of a tenant.
pub type Domain = domain::Model;

/// The host that somebody names, as it is kept: lower case, without trailing dot. All below take it like this.
pub fn name(text: &str) -> Result<String> {
    let read = Authority::parse(text)
        .ok()
        .filter(|read| read.port().is_none());
    let read = read.ok_or_else(|| {
        Error::invalid(
            "host",
            format!("{text:?} is not a host name such as shop.example.com; other scripts are written as punycode, xn--…."),
        )
    })?;
    Ok(read.host().to_owned())
}

/// Claims a host for the tenant. It routes nowhere until it is proven; [`Record::of`] says by what. A repeated claim is the
/// first one still.
pub async fn add(
    tx: &PlatformTx,
    tenant: &Tenant,
    host: &str,
    base_domains: &[String],
    act: &Act,
) -> Result<Domain> {
    check(host, base_domains)?;
    lock(tx, tenant).await?;
    let claimed = domain::Entity::find()
        .filter(domain::Column::Host.eq(host))
        .all(tx)
        .await?;
    let (own, others): (Vec<_>, Vec<_>) = claimed
        .into_iter()
        .partition(|domain| domain.tenant_id == tenant.id);
    if let Some(own) = own.into_iter().next() {
        return Ok(own);
    }
    if others.iter().any(|domain| domain.verified_at.is_some()) {
        return Err(taken(host));
    }
    let row = domain::ActiveModel {
        tenant_id: Set(tenant.id),
        host: Set(host.to_owned()),
        verified_at: Set(None),
        created_at: Set(tx.now()),
        token: Set(new_token("")),
        is_primary: Set(false),
    };
    let row = row.insert(tx).await?;
    tx.notify_tenant(tenant.id).await?;
    noted(tx, tenant, &row, ("add", act)).await?;
    Ok(row)
}

/// Asks the DNS for the proof of a claim, between two units of work, and notes it: from here on the host leads to the tenant.
/// What is proven already is not asked for again. [`Error::Invalid`] says what the DNS lacks; that can change.
pub async fn verify(
    database: &Database,
    dns: &Dns,
    tenant: &Tenant,
    host: &str,
    act: &Act,
) -> Result<Domain> {
    let tx = database.platform().await?;
    let claim = find(&tx, tenant, host).await?;
    tx.commit().await?;
    if claim.verified_at.is_some() {
        return Ok(claim);
    }
    let proof = dns.prove(claim).await?;
    let tx = database.platform().await?;
    let verified = proven(&tx, tenant, proof, act).await?;
    tx.commit().await?;
    Ok(verified)
}

async fn proven(tx: &PlatformTx, tenant: &Tenant, proof: Proof, act: &Act) -> Result<Domain> {
    let claim = proof.of();
    lock(tx, tenant).await?;
    let found = find(tx, tenant, &claim.host).await?;
    if found.verified_at.is_some() {
        return Ok(found);
    }
    // Removed and added again meanwhile: that is another claim.
    if found.token != claim.token {
        return Err(Error::NotFound("domain"));
    }
    let mut row = found.into_active_model();
    row.verified_at = Set(Some(tx.now()));
    let row = row
        .update(tx)
        .await
        .on_constraint("domain_verified_key", || taken(&claim.host))?;
    tx.notify_tenant(tenant.id).await?;
    noted(tx, tenant, &row, ("verify", act)).await?;
    Ok(row)
}

/// Makes a proven domain the one that the tenant goes by, instead of the one that was.
pub async fn make_primary(
    tx: &PlatformTx,
    tenant: &Tenant,
    host: &str,
    act: &Act,
) -> Result<Domain> {
    lock(tx, tenant).await?;
    let found = find(tx, tenant, host).await?;
    if found.is_primary {
        return Ok(found);
    }
    if found.verified_at.is_none() {
        let message = format!("{host} is not verified yet, and so cannot be the primary.");
        return Err(Error::invalid("host", message));
    }
    let former = domain::Entity::find()
        .filter(domain::Column::TenantId.eq(tenant.id))
        .filter(domain::Column::IsPrimary.eq(true))
        .one(tx)
        .await?;
    if let Some(former) = former {
        let mut row = former.into_active_model();
        row.is_primary = Set(false);
        row.update(tx).await?;
    }
    let mut row = found.into_active_model();
    row.is_primary = Set(true);
    let row = row.update(tx).await?;
    tx.notify_tenant(tenant.id).await?;
    noted(tx, tenant, &row, ("primary", act)).await?;
    Ok(row)
}

/// Gives the host up; at once anybody may claim and prove it.
pub async fn remove(tx: &PlatformTx, tenant: &Tenant, host: &str, act: &Act) -> Result<()> {
    lock(tx, tenant).await?;
    let row = match find(tx, tenant, host).await {
        Err(Error::NotFound(_)) => return Ok(()),
        found => found?,
    };
    row.clone().delete(tx).await?;
    tx.notify_tenant(tenant.id).await?;
    noted(tx, tenant, &row, ("remove", act)).await
}

/// The tenant's claim of this host.
pub async fn find(tx: &PlatformTx, tenant: &Tenant, host: &str) -> Result<Domain> {
    domain::Entity::find_by_id((tenant.id, host.to_owned()))
        .one(tx)
        .await?
        .ok_or(Error::NotFound("domain"))
}

/// What may be a domain of a tenant's own.
fn check(host: &str, base_domains: &[String]) -> Result<()> {
    let why = if host::is_ours(host, base_domains) {
        "subdomains of the base domains are the tenants' slugs"
    } else if !host.contains('.') {
        "it has one label; name it in full"
    } else if Record::name_of(host).len() > host::MAX_NAME {
        "it is too long to be proven"
    } else {
        return Ok(());
    };
    let message = format!("{host} cannot be a tenant's own domain: {why}.");
    Err(Error::invalid("host", message))
}

fn taken(host: &str) -> Error {
    let message =
        format!("{host} is verified by another tenant; it has to be removed there first.");
    Error::already_exists("host", message)
}

/// One change of a tenant's domains at a time.
async fn lock(tx: &PlatformTx, tenant: &Tenant) -> Result<()> {
    let locked = tenant::Entity::find_by_id(tenant.id)
        .lock(LockType::NoKeyUpdate)
        .one(tx)
        .await?;
    locked.map(drop).ok_or(Error::NotFound("tenant"))
}

async fn noted(
    tx: &PlatformTx,
    tenant: &Tenant,
    domain: &Domain,
    (what, act): (&str, &Act),
) -> Result<()> {
    let detail = serde_json::json!({ "slug": tenant.slug, "host": domain.host });
    let action = format!("tenant.domain.{what}");
    act.log(tx, (&action, Some(tenant.id)), detail).await
}
