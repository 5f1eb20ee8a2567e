//! From one state to the next: each change is one transaction under the tenant's row lock, with its entry in the operators'
//! log. Repeated, it changes nothing and logs nothing.

use crate::clock::Timestamp;
use crate::database::{Database, PlatformTx, Tenant, identifier};
use crate::error::{Error, Result};
use crate::tenancy::limits::no_tenant;
use crate::tenancy::log::Act;
use entity::platform::tenant::{ActiveModel, Column, Entity, State};
use sea_orm::sea_query::LockType;
use sea_orm::{
    ActiveEnum as _, ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait as _, DbBackend,
    EntityTrait as _, QueryFilter as _, QuerySelect as _, Set, Statement,
};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How long an archive waits for the tenant's running jobs: longer than most may take.
const JOBS_END: Duration = Duration::from_mins(2);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(200);

/// The tenant with this slug, its row locked until the unit of work ends; a clear error if there is none.
pub async fn lock(tx: &PlatformTx, slug: &str) -> Result<Tenant> {
    let found = Entity::find()
        .filter(Column::Slug.eq(slug))
        .lock(LockType::NoKeyUpdate)
        .one(tx)
        .await?;
    found.ok_or_else(|| no_tenant(slug))
}

/// Refuses its requests and lets its jobs wait, until it is resumed.
pub async fn suspend(database: &Database, slug: &str, act: &Act) -> Result<Tenant> {
    let tx = database.platform().await?;
    let tenant = lock(&tx, slug).await?;
    let changed = match tenant.state {
        State::Suspended => tenant,
        State::Active => enter(&tx, tenant, State::Suspended, act).await?,
        _ => return Err(refused(&tenant, "suspended")),
    };
    tx.commit().await?;
    Ok(changed)
}

/// Takes its requests again, and goes on with its jobs.
pub async fn resume(database: &Database, slug: &str, act: &Act) -> Result<Tenant> {
    let tx = database.platform().await?;
    let tenant = lock(&tx, slug).await?;
    let changed = match tenant.state {
        State::Active => tenant,
        State::Suspended => enter(&tx, tenant, State::Active, act).await?,
        _ => return Err(refused(&tenant, "resumed")),
    };
    tx.commit().await?;
    Ok(changed)
}

/// Takes the tenant out of use: no requests, no jobs, and, once the jobs that run have ended, no way into its schema. All
/// is kept.
pub async fn archive(database: &Database, slug: &str, act: &Act) -> Result<Tenant> {
    let tx = database.platform().await?;
    let tenant = lock(&tx, slug).await?;
    match tenant.state {
        State::Archived => {}
        State::Active | State::Suspended => {
            let before = tenant.state.to_value();
            let mut kept: ActiveModel = enter(&tx, tenant, State::Archived, act).await?.into();
            // What a restore goes back to.
            kept.step = Set(Some(before));
            kept.update(&tx).await?;
        }
        _ => return Err(refused(&tenant, "archived")),
    }
    tx.commit().await?;
    let began = Instant::now();
    loop {
        let tx = database.platform().await?;
        let tenant = lock(&tx, slug).await?;
        if tenant.state != State::Archived {
            return Err(Error::invalid(
                "slug",
                format!("{slug} was restored meanwhile."),
            ));
        }
        let running = running(&tx, tenant.id).await?;
        if running == 0 {
            lock_role(&tx, &tenant).await?;
            tx.commit().await?;
            return Ok(tenant);
        }
        tx.rollback().await?;
        if began.elapsed() > JOBS_END {
            return Err(Error::invalid(
                "slug",
                format!(
                    "{slug} is archived, but {running} of its jobs still run, so its role is not locked yet; archive it again in a while."
                ),
            ));
        }
        sleep(LOOK).await;
    }
}

/// Undoes an archive that is no older than `within`: the tenant is as it was, suspended or active.
pub async fn restore(
    database: &Database,
    slug: &str,
    within: Duration,
    act: &Act,
) -> Result<Tenant> {
    let tx = database.platform().await?;
    let tenant = lock(&tx, slug).await?;
    if matches!(tenant.state, State::Active | State::Suspended) {
        return Ok(tenant);
    }
    if tenant.state != State::Archived {
        return Err(refused(&tenant, "restored"));
    }
    let until = restorable_until(&tenant, within);
    if tx.now() > until {
        return Err(Error::invalid(
            "slug",
            format!(
                "{slug} could be restored until {}; see archive_days.",
                until.format("%Y-%m-%d %H:%M UTC")
            ),
        ));
    }
    unlock_role(&tx, &tenant).await?;
    let before = match tenant.step.as_deref() {
        Some("suspended") => State::Suspended,
        _ => State::Active,
    };
    let tenant = enter(&tx, tenant, before, act).await?;
    tx.commit().await?;
    Ok(tenant)
}

/// Until when an archived tenant can be restored.
pub fn restorable_until(tenant: &Tenant, within: Duration) -> Timestamp {
    tenant.state_since + within
}

/// Changes the state, tells every process, and writes it down under the new state's name.
pub(super) async fn enter(
    tx: &PlatformTx,
    tenant: Tenant,
    state: State,
    act: &Act,
) -> Result<Tenant> {
    let from = tenant.state;
    let mut row: ActiveModel = tenant.into();
    row.state = Set(state);
    row.state_since = Set(tx.now());
    row.step = Set(None);
    let tenant = row.update(tx).await?;
    let action = match (from, state) {
        (State::Provisioning, State::Active) => "tenant.activate",
        (State::Archived, State::Active | State::Suspended) => "tenant.restore",
        (_, State::Active) => "tenant.resume",
        (_, State::Suspended) => "tenant.suspend",
        (_, State::Archived) => "tenant.archive",
        (_, State::Deleting) => "tenant.delete",
        (_, State::Provisioning) => "tenant.create",
    };
    let detail = serde_json::json!({ "slug": tenant.slug, "from": from.to_value() });
    act.log(tx, (action, Some(tenant.id)), detail).await?;
    tx.notify_tenant(tenant.id).await?;
    Ok(tenant)
}

/// Takes the tenant's role from the logins: from here on PostgreSQL itself refuses.
pub(super) async fn lock_role(tx: &PlatformTx, tenant: &Tenant) -> Result<()> {
    let role = identifier(&tenant.role_name)?;
    let holders = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT c.login FROM cell c WHERE pg_has_role(c.login, $1, 'MEMBER')",
        [tenant.role_name.as_str().into()],
    );
    for row in tx.query_all_raw(holders).await? {
        let login = identifier(&row.try_get::<String>("", "login")?)?;
        tx.batch(&format!("REVOKE {role} FROM {login}")).await?;
    }
    Ok(())
}

async fn unlock_role(tx: &PlatformTx, tenant: &Tenant) -> Result<()> {
    let cell = entity::platform::cell::Entity::find_by_id(tenant.cell_id)
        .one(tx)
        .await?
        .ok_or_else(|| Error::internal(format!("{} is in an unknown cell", tenant.slug)))?;
    let (role, login) = (identifier(&tenant.role_name)?, identifier(&cell.login)?);
    tx.batch(&format!("GRANT {role} TO {login}")).await
}

/// How many of its jobs run now.
pub async fn running(tx: &PlatformTx, tenant: Uuid) -> Result<u64> {
    let count = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT count(*) AS running FROM job
         WHERE lane = ANY (ARRAY(SELECT id FROM lane WHERE tenant_id = $1)) AND state = 2",
        [tenant.into()],
    );
    let row = tx.query_one_raw(count).await?;
    let running: i64 = row.map_or(Ok(0), |row| row.try_get("", "running"))?;
    u64::try_from(running).map_err(Error::internal)
}

/// How many of its jobs are not over.
pub async fn queued(tx: &PlatformTx, tenant: Uuid) -> Result<u64> {
    let count = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT count(*) AS queued FROM job WHERE tenant_id = $1",
        [tenant.into()],
    );
    let row = tx.query_one_raw(count).await?;
    let queued: i64 = row.map_or(Ok(0), |row| row.try_get("", "queued"))?;
    u64::try_from(queued).map_err(Error::internal)
}

/// That a tenant in its state cannot be what is wanted, and what to do first.
pub fn refused(tenant: &Tenant, wanted: &str) -> Error {
    let (slug, state) = (&tenant.slug, tenant.state);
    let hint = match state {
        State::Provisioning => "finish it by the command that began it, or delete it",
        State::Active => "archive it first",
        State::Suspended => "resume or archive it first",
        State::Archived => "restore it first",
        State::Deleting => "nothing brings it back",
    };
    Error::invalid(
        "slug",
        format!("{slug} is {state} and cannot be {wanted}: {hint}."),
    )
}
