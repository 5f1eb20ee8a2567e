//! SQL in a unit of work, as a statement that found its way there would be.

use super::Tenant;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, RuntimeErr, Statement};
use sqlx::{AssertSqlSafe, Executor as _};

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

/// Runs each statement in a transaction of its own, bound as a unit of work is, and asserts that PostgreSQL says `permission
/// denied` to each. Not in a unit of work: that does not even send some of them.
pub async fn refused(tenant: &Tenant, statements: &[&str]) {
    let mut cell = tenant.cell().await;
    let bind = format!(
        "BEGIN; SET LOCAL ROLE {}; SET LOCAL search_path TO {}, pg_temp; SET LOCAL bulkhead.actor = 'system:tests'",
        tenant.row.role_name, tenant.row.schema_name
    );
    for sql in statements {
        let bind = sqlx::raw_sql(AssertSqlSafe(bind.clone()));
        cell.execute(bind).await.unwrap();
        let statement = sqlx::query(AssertSqlSafe((*sql).to_owned()));
        let Err(error) = cell.execute(statement).await else {
            panic!("not refused: {sql}");
        };
        let code = error.as_database_error().unwrap().code().unwrap();
        assert_eq!(code, "42501", "{sql}: {error}");
        cell.execute("ROLLBACK").await.unwrap();
    }
}
