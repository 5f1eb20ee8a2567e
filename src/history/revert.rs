//! Taking changes back: an object is put to how it was just before one, unless newer changes are in the way.
//!
//! What is done is a change like any other, recorded by the same triggers with its actor and reason, and with the change that
//! it takes back.

use crate::database::{TenantTx, identifier};
use crate::error::{Error, Result, is_violation};
use entity::tenant::history::{Action, Column, Entity, Model};
use migration::tenant::{BLANK, CREDENTIALS, REVERTIBLE};
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, DbErr, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _, Statement,
};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Changes of one transaction that are taken back at most.
const MOST: u64 = 1000;

/// The change with this id, and those that were committed with it if they are wanted, the newest first.
///
/// Of a whole transaction the credentials are left out: they are not put back, and what made or ended them need not be.
pub async fn changes(tx: &TenantTx, id: Uuid, whole: bool) -> Result<(Model, Vec<Model>)> {
    let change = Entity::find_by_id(id).one(tx).await?;
    let change = change.ok_or(Error::NotFound("change"))?;
    if !whole {
        return Ok((change.clone(), vec![change]));
    }
    let mut together = Entity::find()
        .filter(Column::TransactionId.eq(change.transaction_id))
        .filter(Column::Action.is_in([Action::Create, Action::Update, Action::Delete]))
        .filter(Column::SubjectType.is_not_in(CREDENTIALS))
        .order_by_desc(Column::RecordedAt)
        .order_by_desc(Column::Id)
        .limit(MOST + 1)
        .all(tx)
        .await?;
    if together.len() as u64 > MOST {
        let why =
            format!("The transaction has more than {MOST} changes; take them back one by one.");
        return Err(refused(why));
    }
    // What is removed with something else is recorded after it, and can only be made again after it, too.
    let removed = |change: &Model| change.action == Action::Delete;
    for some in together.chunk_by_mut(|one, next| removed(one) && removed(next)) {
        some.sort_by_key(|change| {
            let place = |(table, _): &(&str, _)| *table == change.subject_type;
            REVERTIBLE.iter().position(place)
        });
    }
    Ok((change, together))
}

/// Takes these changes back, in their order, and returns what that changed, in its order. The unit of work says by
/// [`TenantTx::reverting`] which change was asked for.
pub async fn revert(tx: &TenantTx, asked: Uuid, changes: &[Model]) -> Result<Vec<Model>> {
    tx.reverting(asked).await?;
    for change in changes {
        put_back(tx, change).await?;
    }
    Ok(Entity::find()
        .filter(Column::Reverts.eq(asked))
        .filter(Expr::col(Column::TransactionId).eq(Expr::cust("txid_current()")))
        .order_by_asc(Column::RecordedAt)
        .order_by_asc(Column::Id)
        .all(tx)
        .await?)
}

async fn put_back(tx: &TenantTx, change: &Model) -> Result<()> {
    let columns = scope(change)?;
    let now = current(tx, change).await?;
    match (change.action, now) {
        (Action::Update, Some(now)) => {
            let fields = fields(change, columns)?;
            let moved = fields
                .iter()
                .find(|name| now.get(**name) != change.row.get(**name));
            if let Some(name) = moved {
                return Err(in_the_way(
                    change,
                    Some(&now),
                    &format!("its {name} was changed since"),
                ));
            }
            set(tx, change, &fields).await
        }
        (Action::Create, Some(now)) => {
            let same = match change.row.get("version") {
                Some(version) => now.get("version") == Some(version),
                None => change.row == now,
            };
            if !same {
                return Err(in_the_way(change, Some(&now), "it was changed since"));
            }
            remove(tx, change).await
        }
        (Action::Delete, None) => insert(tx, change).await,
        (Action::Delete, Some(now)) => Err(in_the_way(change, Some(&now), "it is there again")),
        (_, None) => Err(in_the_way(change, None, "it is gone by now")),
        (_, Some(_)) => Err(refused("This is no change of an object.".to_owned())),
    }
}

/// Which columns of a change may be put back; none named is all.
fn scope(change: &Model) -> Result<Option<&'static [&'static str]>> {
    if !change.action.is_change() {
        return Err(refused("This is no change of an object.".to_owned()));
    }
    if change.is_erased() {
        let why = "What this change had of a person was erased; it cannot be put back.";
        return Err(refused(why.to_owned()));
    }
    let table = change.subject_type.as_str();
    let Some((_, columns)) = REVERTIBLE.iter().find(|(of, _)| *of == table) else {
        let why = format!("Changes of a {table} are not taken back.");
        return Err(refused(why));
    };
    if columns.is_some() && change.action != Action::Update {
        let why = format!("That a {table} was made or removed is not taken back.");
        return Err(refused(why));
    }
    Ok(*columns)
}

/// The fields that a change changed, if all of them can be put back.
fn fields<'a>(change: &'a Model, columns: Option<&[&str]>) -> Result<Vec<&'a str>> {
    let names = change.changed.iter().map(String::as_str);
    for name in names.clone() {
        if change.row.get(name).is_none() {
            let why = format!("What {name} was before is a secret, and not in the trail.");
            return Err(refused(why));
        }
        if columns.is_some_and(|columns| !columns.contains(&name)) {
            let table = &change.subject_type;
            let why = format!("A change of a {table}'s {name} is not taken back.");
            return Err(refused(why));
        }
    }
    Ok(names.collect())
}

/// The row as it is, locked; without its secrets it compares with those of the history.
async fn current(tx: &TenantTx, change: &Model) -> Result<Option<Value>> {
    let table = identifier(&change.subject_type)?;
    let sql = format!("SELECT to_jsonb(t) AS row FROM {table} t WHERE t.id = $1 FOR UPDATE");
    let row = Statement::from_sql_and_values(DbBackend::Postgres, sql, [change.subject_id.into()]);
    let row = tx.query_one_raw(row).await?;
    Ok(row.map(|row| row.try_get("", "row")).transpose()?)
}

async fn set(tx: &TenantTx, change: &Model, fields: &[&str]) -> Result<()> {
    let table = identifier(&change.subject_type)?;
    let names: Result<Vec<String>> = fields.iter().map(|name| identifier(name)).collect();
    let sets: Vec<String> = names?
        .iter()
        .map(|name| format!("{name} = r.{name}"))
        .collect();
    let sql = format!(
        "UPDATE {table} SET {} FROM jsonb_populate_record(NULL::{table}, $1) r WHERE {table}.id = $2",
        sets.join(", ")
    );
    let values = [change.before.clone().into(), change.subject_id.into()];
    run(
        tx,
        change,
        Statement::from_sql_and_values(DbBackend::Postgres, sql, values),
    )
    .await
}

async fn remove(tx: &TenantTx, change: &Model) -> Result<()> {
    let sql = format!(
        "DELETE FROM {} WHERE id = $1",
        identifier(&change.subject_type)?
    );
    let values = [change.subject_id.into()];
    run(
        tx,
        change,
        Statement::from_sql_and_values(DbBackend::Postgres, sql, values),
    )
    .await
}

/// Makes the row again, with new secrets to be given to it, and its version going on.
async fn insert(tx: &TenantTx, change: &Model) -> Result<()> {
    let table = identifier(&change.subject_type)?;
    let mut row: Map<String, Value> = change.row.as_object().cloned().unwrap_or_default();
    let blank = BLANK.iter().filter(|(of, _)| *of == change.subject_type);
    row.extend(blank.map(|(_, column)| ((*column).to_owned(), Value::from(""))));
    if let Some(version) = row.get("version").and_then(Value::as_i64) {
        row.insert("version".to_owned(), Value::from(version + 1));
        row.insert("updated_at".to_owned(), Value::from(tx.now().to_rfc3339()));
    }
    let names: Result<Vec<String>> = row.keys().map(|name| identifier(name)).collect();
    let names = names?.join(", ");
    let sql = format!(
        "INSERT INTO {table} ({names}) SELECT {names} FROM jsonb_populate_record(NULL::{table}, $1)"
    );
    let values = [Value::from(row).into()];
    run(
        tx,
        change,
        Statement::from_sql_and_values(DbBackend::Postgres, sql, values),
    )
    .await
}

async fn run(tx: &TenantTx, change: &Model, statement: Statement) -> Result<()> {
    let clash = |error: DbErr| {
        if is_violation(&error) {
            let why = "what it leads to is gone, or its place is taken";
            in_the_way(change, None, why)
        } else {
            error.into()
        }
    };
    tx.execute_raw(statement).await.map_err(clash)?;
    Ok(())
}

fn refused(why: String) -> Error {
    Error::invalid("changeId", why)
}

fn in_the_way(change: &Model, now: Option<&Value>, why: &str) -> Error {
    let version = now
        .and_then(|now| now.get("version"))
        .and_then(Value::as_i64);
    let version = version.and_then(|version| i32::try_from(version).ok());
    let table = change.subject_type.replace('_', " ");
    Error::InTheWay(format!("This {table} cannot be put back: {why}."), version)
}
