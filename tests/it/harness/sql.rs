//! SQL in a unit of work, as a statement that found its way there would be.

use super::Tenant;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, RuntimeErr, Statement};

/// Runs a statement; the number of rows it changed.
pub async fn execute(tx: &impl ConnectionTrait, sql: &str) -> Result<u64, DbErr> {
    let statement = Statement::from_string(DbBackend::Postgres, sql);
    Ok(tx.execute_raw(statement).await?.rows_affected())
}

/// The one value, a text, that a query returns. NULL is the empty text.
pub async fn value(tx: &impl ConnectionTrait, sql: &str) -> Result<String, DbErr> {
    let statement = Statement::from_string(DbBackend::Postgres, sql);
    let row = tx.query_one_raw(statement).await?.expect("a row");
    Ok(row
        .try_get_by_index::<Option<String>>(0)?
        .unwrap_or_default())
}

/// The SQLSTATE that PostgreSQL refused with.
#[track_caller]
pub fn sqlstate(error: &DbErr) -> String {
    let (DbErr::Query(RuntimeErr::SqlxError(cause)) | DbErr::Exec(RuntimeErr::SqlxError(cause))) =
        error
    else {
        panic!("not PostgreSQL's: {error:?}");
    };
    let code = cause
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.unwrap_or_else(|| panic!("not PostgreSQL's: {error:?}"))
        .into_owned()
}

/// Runs each statement in a unit of work of its own, and asserts that PostgreSQL says `permission denied` to each.
pub async fn refused(tenant: &Tenant, statements: &[&str]) {
    for sql in statements {
        let tx = tenant.write().await;
        match execute(&tx, sql).await {
            Ok(_) => panic!("not refused: {sql}"),
            Err(error) => assert_eq!(sqlstate(&error), "42501", "{sql}: {error}"),
        }
        tx.rollback().await.unwrap();
    }
}
