//! What the doctor asks of PostgreSQL: what it is, what it lets whom do, and what stands between it and us. It changes
//! nothing.

use super::connect::{direct, find, unreachable_database, version};
use super::listen::CHANNEL;
use super::{hardening, rules};
use crate::config::Config;
use crate::database::managed::Server;
use crate::error::{Error, Result};
use crate::secret::SecretKey;
use sea_orm::{ConnectionTrait as _, DatabaseConnection, SqlxPostgresConnector, Statement};
use serde::Serialize;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Row as _};
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// How long a NOTIFY may be on its way.
const NOTIFIED: Duration = Duration::from_secs(1);
/// Connections opened to see whether they are one and the same behind a pooler, and how often each is asked.
const PROBES: usize = 3;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Ok,
    /// It works, and could be better.
    Warn,
    /// To be mended.
    Fail,
}

/// What was looked at, how it is, and what mends it.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it is.
    pub health: Health,
    /// What was found.
    pub detail: String,
    /// The SQL or the command that mends it.
    pub mend: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self {
            check,
            health: Health::Ok,
            detail: detail.into(),
            mend: None,
        }
    }

    /// All is not.
    pub fn trouble(
        (check, health): (&'static str, Health),
        detail: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            check,
            health,
            detail: detail.into(),
            mend: Some(mend.into()),
        }
    }
}

/// A look at a database, through a connection of the owner's.
#[derive(Debug)]
pub struct Look {
    /// For queries.
    pub connection: DatabaseConnection,
    /// As `database_url` says.
    given: PgConnectOptions,
    /// The same past the pooler, if there is one.
    owner: PgConnectOptions,
    /// Whether the configuration says that there is one.
    pooled: bool,
    server: Option<Server>,
}

impl Look {
    /// Finds the database, and does nothing else: no migration, no hardening.
    pub async fn new(config: &Config, key: &SecretKey) -> Result<Self> {
        let (given, server) = find(config, key, false).await?;
        let owner = direct(config, &given)?;
        let pool = PgPoolOptions::new().max_connections(1);
        let pool = pool.connect_lazy_with(owner.clone());
        Ok(Self {
            connection: SqlxPostgresConnector::from_sqlx_postgres_pool(pool),
            given,
            owner,
            pooled: config.pooler,
            server,
        })
    }

    /// Everything else that can be asked of PostgreSQL itself. Refuses a database that is none of Bulkhead's.
    pub async fn findings(&self) -> Result<Vec<Finding>> {
        let there = self
            .rows("SELECT 'there', '' WHERE to_regclass('bulkhead.spare') IS NOT NULL")
            .await?;
        if there.is_empty() {
            return Err(Error::config(
                "this database is not at this binary's version; `bulkhead serve` or `bulkhead worker` brings it there",
            ));
        }
        let mut connection = self.owner.connect().await?;
        let version = version(&mut connection).await?;
        let mut findings = vec![Finding::ok("postgresql", format!("version {version}"))];
        findings.push(self.hardened(&mut connection).await?);
        for rule in &rules::RULES {
            findings.extend(self.apply(rule).await?);
        }
        findings.push(self.notified(&mut connection).await?);
        Ok(findings)
    }

    /// What a rule finds: it asks for what is wrong, and how to mend each.
    pub async fn apply(&self, rule: &rules::Rule) -> Result<Vec<Finding>> {
        let found = self.rows(rule.wrong).await?;
        if found.is_empty() {
            return Ok(vec![Finding::ok(rule.check, rule.well)]);
        }
        let trouble = |(detail, mend)| Finding::trouble((rule.check, rule.health), detail, mend);
        Ok(found.into_iter().map(trouble).collect())
    }

    /// Closes the connection, and stops the PostgreSQL that was started for the look.
    pub async fn end(self) -> Result<()> {
        // A connection that cannot say goodbye is gone already.
        let _ = self.connection.close().await;
        match self.server {
            Some(server) => server.stop().await.map_err(Error::internal),
            None => Ok(()),
        }
    }

    async fn rows(&self, query: &'static str) -> Result<Vec<(String, String)>> {
        let query = Statement::from_string(sea_orm::DbBackend::Postgres, query);
        let rows = self.connection.query_all_raw(query).await?;
        let pair =
            |row: &sea_orm::QueryResult| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?));
        Ok(rows
            .iter()
            .map(pair)
            .collect::<Result<_, sea_orm::DbErr>>()?)
    }

    async fn hardened(&self, connection: &mut PgConnection) -> Result<Finding> {
        let check = "hardening";
        let missing = hardening::missing(connection, self.owner.get_username()).await?;
        if missing.is_empty() {
            return Ok(Finding::ok(check, "PostgreSQL leaves nothing open"));
        }
        let database = self.owner.get_database().unwrap_or_default();
        Ok(Finding::trouble(
            (check, Health::Fail),
            format!("{} statements are to be run as a superuser", missing.len()),
            format!("bulkhead hardening | psql -U postgres {database}"),
        ))
    }

    /// Whether what is said on one connection is heard on another.
    async fn notified(&self, connection: &mut PgConnection) -> Result<Finding> {
        let check = "notify";
        let nonce = format!("probe:{}", Uuid::from_u128(rand::random()));
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .connect_lazy_with(self.owner.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        let notify = format!("NOTIFY {CHANNEL}, '{nonce}'");
        connection.execute(AssertSqlSafe(notify)).await?;
        let heard = async {
            while listener.recv().await?.payload() != nonce {}
            Ok::<_, sqlx::Error>(())
        };
        Ok(match timeout(NOTIFIED, heard).await {
            Ok(Ok(())) => Finding::ok(check, "what one connection says, another hears"),
            Ok(Err(_)) | Err(_) => Finding::trouble(
                (check, Health::Warn),
                "a NOTIFY does not arrive: changes of tenants are seen 2 s late",
                "let database_url reach PostgreSQL itself, not through a transaction pooler",
            ),
        })
    }

    /// What stands between servers and PostgreSQL, and what it hands on.
    pub async fn pooler(&self) -> Result<Finding> {
        Ok(pooler(probe(&self.given).await?, self.pooled))
    }

    /// Whether even what is to lead past the pooler leads through one: the rest of what is asked is prepared, which no pooler
    /// of transactions can do.
    pub async fn is_pooled(&self) -> Result<bool> {
        let Seen { shared, carried } = probe(&self.owner).await?;
        Ok(shared || carried)
    }
}

/// What connections have in common that are PostgreSQL's own would not.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// A process of PostgreSQL's.
    shared: bool,
    /// A setting of one's session.
    carried: bool,
}

/// Whether connections are PostgreSQL's own. By statements that no pooler has to prepare.
async fn probe(options: &PgConnectOptions) -> Result<Seen> {
    // A pooler refuses what it does not know at the start of a session.
    let options = options.clone().extra_float_digits(None);
    let nonce = Uuid::from_u128(rand::random()).to_string();
    let mut connections = Vec::new();
    for _ in 0..PROBES {
        let connected = options.connect().await;
        connections.push(connected.map_err(|e| unreachable_database(&options, &e))?);
    }
    let set = format!("SET bulkhead.probe = '{nonce}'");
    connections[0]
        .execute(sqlx::raw_sql(AssertSqlSafe(set)))
        .await?;
    let (mut shared, mut carried) = (false, false);
    let mut backends: Vec<Option<String>> = vec![None; PROBES];
    for _ in 0..PROBES {
        for (number, connection) in connections.iter_mut().enumerate() {
            let ask = "SELECT pg_backend_pid()::text, coalesce(current_setting('bulkhead.probe', true), '')";
            let row = connection.fetch_one(sqlx::raw_sql(ask)).await?;
            let (backend, probe): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            carried |= number > 0 && probe == nonce;
            let mut others = backends.iter().enumerate();
            shared |=
                others.any(|(other, theirs)| other != number && theirs.as_ref() == Some(&backend));
            let before = backends[number].replace(backend.clone());
            shared |= before.is_some_and(|before| before != backend);
        }
    }
    for mut connection in connections {
        connection
            .execute(sqlx::raw_sql("RESET bulkhead.probe"))
            .await?;
        let _ = connection.close().await;
    }
    Ok(Seen { shared, carried })
}

fn pooler(seen: Seen, expected: bool) -> Finding {
    let check = "pooler";
    match (seen.shared || seen.carried, seen.carried) {
        (false, _) => Finding::ok(check, "none in front: each connection is PostgreSQL's own"),
        (true, _) if !expected => Finding::trouble(
            (check, Health::Warn),
            "a transaction pooler is in front, and the configuration does not say so: statements are not found where they were prepared",
            "set pooler = true, and direct_url to PostgreSQL itself",
        ),
        (true, false) => Finding::ok(
            check,
            "a transaction pooler is in front; it hands no session setting on",
        ),
        (true, true) => Finding::trouble(
            (check, Health::Warn),
            "a transaction pooler is in front, and hands one client's session settings to the next; Bulkhead sets all of its own for one transaction, other programs may not",
            "server_reset_query_always = 1 in pgbouncer.ini, if others use these logins",
        ),
    }
}
