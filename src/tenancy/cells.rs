//! Cells as the registry has them: which one a new tenant is dealt to, one more of them, and tenants moved from full ones to
//! empty ones. A cell is a login role with connections of its own; the more tenants it serves, the less often a connection knows
//! the tables of the one that is asked for, and the longer PostgreSQL takes to let it take a role.

use super::log::Act;
use crate::database::{Database, PlatformTx, identifier, lock_migrations};
use crate::error::{Error, Result};
use entity::platform::cell;
use sea_orm::{ConnectionTrait as _, DbBackend, FromQueryResult, Statement};
use uuid::Uuid;

/// Tenants that a cell should have at most: fewer than a connection may know the tables of before it is retired.
pub const ROOMY: i64 = 250;

/// How long a moved tenant's former cell may serve it on: servers keep a tenant's row for some minutes where they hear of no
/// change, and a request or job for as long as it runs.
const GRACE: &str = "interval '15 minutes'";

/// A cell, and how many tenants it serves.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Load {
    /// Number of the cell.
    pub id: i16,
    /// Name of its login role.
    pub login: String,
    /// Tenants that are dealt to it.
    pub tenants: i64,
}

/// A tenant and a login role that is to serve it, or to serve it no longer.
#[derive(Debug, FromQueryResult)]
struct Membership {
    id: Uuid,
    role_name: String,
    login: String,
}

/// All cells, by number.
pub async fn all(tx: &PlatformTx) -> Result<Vec<Load>> {
    let query =
        "SELECT c.id, c.login, (SELECT count(*) FROM tenant t WHERE t.cell_id = c.id) AS tenants
        FROM cell c ORDER BY c.id";
    let query = Statement::from_string(DbBackend::Postgres, query);
    Ok(Load::find_by_statement(query).all(tx).await?)
}

/// Makes one more cell. It is empty: [`redeal`] moves tenants to it.
pub async fn add(database: &Database, act: &Act) -> Result<cell::Model> {
    let tx = database.platform().await?;
    // Two at once would make the same one.
    lock_migrations(&tx).await?;
    let last = all(&tx).await?.last().map_or(-1, |load| load.id);
    let id = last
        .checked_add(1)
        .ok_or_else(|| Error::config("there are as many cells as there can be"))?;
    let login = database.add_cell(&tx, id).await?;
    let detail = serde_json::json!({ "cell": id, "login": login });
    act.log(&tx, ("cell.add", None), detail).await?;
    tx.commit().await?;
    Ok(cell::Model { id, login })
}

/// How many tenants [`redeal`] would move.
pub fn to_move(mut loads: Vec<Load>) -> u64 {
    let mut moves = 0;
    while let Some((from, to)) = next_move(&loads) {
        loads[from].tenants -= 1;
        loads[to].tenants += 1;
        moves += 1;
    }
    moves
}

/// Moves tenants from the fullest cell to the emptiest, `at_most` so many, and takes from former cells the tenants that they
/// may no longer serve. How many it moved; 0 when they are even. One tenant a transaction: stopped anywhere, it goes on the
/// next time. No request fails for it: while a server may still route by the old row, both cells may serve the tenant.
pub async fn redeal(database: &Database, at_most: u64, act: &Act) -> Result<u64> {
    revoke(database, at_most).await?;
    let mut moved = 0;
    while moved < at_most && move_one(database, act).await? {
        moved += 1;
    }
    if moved > 0 {
        tracing::info!(moved, "tenants were moved to other cells");
    }
    Ok(moved)
}

/// Takes from former cells the tenants that no server can still route there, `at_most` so many. How many it took.
pub async fn revoke(database: &Database, at_most: u64) -> Result<u64> {
    let mut revoked = 0;
    while revoked < at_most && revoke_one(database).await? {
        revoked += 1;
    }
    Ok(revoked)
}

/// From where to where, as indexes: none when no cell has more than a twentieth above another. A move costs every connection
/// its cache of roles, so the last few are not worth it.
fn next_move(loads: &[Load]) -> Option<(usize, usize)> {
    let by = |&index: &usize| loads[index].tenants;
    let fullest = (0..loads.len()).max_by_key(by)?;
    let emptiest = (0..loads.len()).min_by_key(by)?;
    let most = loads[fullest].tenants;
    let uneven = most - loads[emptiest].tenants > (most / 20).max(1);
    uneven.then_some((fullest, emptiest))
}

/// Only those in use: what is on its way out is left where it is. The lock leaves room for the foreign keys of its new rows.
const MOVABLE: &str = "SELECT t.id, t.role_name, c.login FROM tenant t JOIN cell c ON c.id = $2
    WHERE t.cell_id = $1 AND t.state = 'active' AND NOT EXISTS (SELECT FROM former_cell f WHERE f.tenant_id = t.id)
    ORDER BY t.id LIMIT 1 FOR NO KEY UPDATE OF t SKIP LOCKED";

async fn move_one(database: &Database, act: &Act) -> Result<bool> {
    let tx = database.platform().await?;
    let loads = all(&tx).await?;
    let Some((from, to)) = next_move(&loads) else {
        tx.rollback().await?;
        return Ok(false);
    };
    let (from, to) = (loads[from].id, loads[to].id);
    let Some(tenant) = one(&tx, MOVABLE, [from.into(), to.into()]).await? else {
        tx.rollback().await?;
        return Ok(false);
    };
    let (role, login) = (identifier(&tenant.role_name)?, identifier(&tenant.login)?);
    tx.batch(&format!("GRANT {role} TO {login}")).await?;
    let id = tenant.id;
    let moved = "UPDATE tenant SET cell_id = $2 WHERE id = $1";
    run(&tx, moved, vec![id.into(), to.into()]).await?;
    let former = "INSERT INTO former_cell (tenant_id, cell_id) VALUES ($1, $2)";
    run(&tx, former, vec![id.into(), from.into()]).await?;
    let detail = serde_json::json!({ "from": from, "to": to });
    act.log(&tx, ("tenant.cell", Some(id)), detail).await?;
    tx.notify_tenant(id).await?;
    tx.commit().await?;
    Ok(true)
}

async fn revoke_one(database: &Database) -> Result<bool> {
    let tx = database.platform().await?;
    let over = format!(
        "SELECT t.id, t.role_name, c.login
         FROM former_cell f JOIN tenant t ON t.id = f.tenant_id JOIN cell c ON c.id = f.cell_id
         WHERE f.moved_at < now() - {GRACE} AND t.state <> 'deleting' LIMIT 1 FOR NO KEY UPDATE OF t, f SKIP LOCKED"
    );
    let Some(former) = one(&tx, &over, []).await? else {
        tx.rollback().await?;
        return Ok(false);
    };
    let (role, login) = (identifier(&former.role_name)?, identifier(&former.login)?);
    tx.batch(&format!("REVOKE {role} FROM {login}")).await?;
    let gone = "DELETE FROM former_cell WHERE tenant_id = $1";
    run(&tx, gone, vec![former.id.into()]).await?;
    tx.commit().await?;
    Ok(true)
}

async fn one<const N: usize>(
    tx: &PlatformTx,
    query: &str,
    values: [sea_orm::Value; N],
) -> Result<Option<Membership>> {
    let query = Statement::from_sql_and_values(DbBackend::Postgres, query, values);
    Ok(Membership::find_by_statement(query).one(tx).await?)
}

async fn run(tx: &PlatformTx, statement: &str, values: Vec<sea_orm::Value>) -> Result<()> {
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, statement, values);
    tx.execute_raw(statement).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dealing_ends_when_it_is_even_enough() {
        let loads = |tenants: &[i64]| {
            let load = |(id, &tenants)| Load {
                id: i16::try_from(id).unwrap(),
                login: String::new(),
                tenants,
            };
            tenants.iter().enumerate().map(load).collect()
        };
        for (tenants, moves) in [
            (&[0_i64, 0] as &[i64], 0),
            (&[], 0),
            (&[5], 0),
            (&[4, 3], 0),
            (&[8, 0], 4),
            (&[3, 3, 3, 0], 2),
            (&[700, 690], 0),
            (&[1000, 0], 488),
        ] {
            assert_eq!(to_move(loads(tenants)), moves, "{tenants:?}");
        }
    }
}
