//! What must hold when all is quiet: no transaction left open, the pool whole, each tenant's rows its own.

use super::clients::sessions;
use super::world::{SLUGS, Tenant, host};
use crate::http::{Connection, request};
use crate::postgres::Postgres;
use crate::{Error, Result};
use serde_json::json;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long nobody asks anything.
const QUIET: Duration = Duration::from_secs(2);
/// Requests that are made at once of each tenant, afterwards.
const AT_ONCE: usize = 4;
/// How long all of these may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct After {
    /// Sessions whose transaction has been open and idle for more than a second.
    pub(super) idle_in_transaction: i64,
    /// Sessions of the server's.
    pub(super) sessions: usize,
    /// Requests that were answered, and made, afterwards.
    pub(super) answered: (usize, usize),
    /// Rows that were looked at.
    pub(super) rows: i64,
    /// Rows with another tenant's marker, actor or job.
    pub(super) foreign_rows: i64,
    /// Jobs that ended.
    pub(super) jobs: i64,
}

/// Looks at all of it.
pub(super) async fn look(address: &str, tenants: &[Tenant], postgres: &Postgres) -> Result<After> {
    let mut connection = postgres.connect().await?;
    sleep(QUIET).await;
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '1 second'";
    let idle_in_transaction = sqlx::query_scalar(idle).fetch_one(&mut connection).await?;
    let answered = ask_all(address, tenants).await?;
    let mut after = After {
        idle_in_transaction,
        sessions: sessions(&mut connection).await?.len(),
        answered,
        ..After::default()
    };
    for slug in SLUGS {
        let (rows, foreign) = rows(&mut connection, slug).await?;
        after.rows += rows;
        after.foreign_rows += foreign;
    }
    let jobs = "SELECT count(*) FROM bulkhead.job_done";
    after.jobs = sqlx::query_scalar(jobs).fetch_one(&mut connection).await?;
    Ok(after)
}

/// Asks every tenant for a row, all at once and more than there are connections.
async fn ask_all(address: &str, tenants: &[Tenant]) -> Result<(usize, usize)> {
    let mut asked = JoinSet::new();
    for tenant in tenants {
        let body = json!({"query": "{ tenant { devices(first: 1) { nodes { name } } } }"});
        let token = Some(tenant.owner.as_str());
        let bytes = request(
            "/graphql",
            &host(tenant.slug),
            token,
            Some(&body.to_string()),
        );
        for _ in 0..AT_ONCE {
            let (address, bytes) = (address.to_owned(), bytes.clone());
            asked.spawn(async move {
                let mut connection = Connection::new(&address);
                let answer = connection.exchange(&bytes).await?;
                Ok::<bool, Error>(
                    answer.status == 200 && answer.body.windows(3).any(|w| w == b"mk-"),
                )
            });
        }
    }
    let all = asked.len();
    let answers = timeout(PATIENCE, asked.join_all())
        .await
        .unwrap_or_default();
    let good = answers
        .into_iter()
        .filter(|answer| matches!(answer, Ok(true)));
    Ok((good.count(), all))
}

/// The tenant's rows in all its tables, and how many of them name another.
async fn rows(connection: &mut PgConnection, slug: &str) -> Result<(i64, i64)> {
    let schema: String =
        sqlx::query_scalar("SELECT schema_name FROM bulkhead.tenant WHERE slug = $1")
            .bind(slug)
            .fetch_one(&mut *connection)
            .await?;
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = $1")
            .bind(&schema)
            .fetch_all(&mut *connection)
            .await?;
    let others: Vec<&str> = SLUGS.into_iter().filter(|other| *other != slug).collect();
    let others = format!("mk-({})-", others.join("|"));
    let (mut all, mut foreign) = (0, 0);
    for table in tables {
        let count = format!(
            r#"SELECT count(*), count(*) FILTER (WHERE t::text ~ $1) FROM "{schema}"."{table}" t"#
        );
        let (rows, bad): (i64, i64) = sqlx::query_as(AssertSqlSafe(count))
            .bind(&others)
            .fetch_one(&mut *connection)
            .await?;
        all += rows;
        foreign += bad;
    }
    // What has no marker: who acted, and which media a job is about.
    let links = format!(
        r#"SELECT
            (SELECT count(*) FROM "{schema}".history h WHERE actor LIKE 'member:%'
                AND NOT EXISTS (SELECT FROM "{schema}".member m WHERE 'member:' || m.id = h.actor))
          + (SELECT count(*) FROM "{schema}".history h WHERE actor LIKE 'device:%'
                AND NOT EXISTS (SELECT FROM "{schema}".device d WHERE 'device:' || d.id = h.actor))
          + (SELECT count(*) FROM bulkhead.job_done j JOIN bulkhead.tenant t ON t.id = j.tenant_id
                WHERE t.slug = $1 AND j.kind = 'media.process'
                AND NOT EXISTS (SELECT FROM "{schema}".media m WHERE m.id::text = j.args->>'media'))"#
    );
    let bad: i64 = sqlx::query_scalar(AssertSqlSafe(links))
        .bind(slug)
        .fetch_one(&mut *connection)
        .await?;
    Ok((all, foreign + bad))
}
