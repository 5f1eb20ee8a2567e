//! The stream: every sealed entry of every tenant, sent to where the operators collect trails. Each is sent at least once, in the
//! order of its tenant's chain, with its number: who gets one twice can tell.
//!
//! How far each tenant is, is in the platform's schema. Nothing waits for the receiver but this: no writer, and no sealer.

use super::line::{self, Persons};
use super::seal::{self, Sealed};
use crate::config::AuditStream;
use crate::database::{Database, Tenant};
use crate::error::{Error, Result};
use entity::platform::tenant::{Column, Entity, State};
use reqwest::header::CONTENT_TYPE;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait as _, DbBackend, EntityTrait as _, QueryFilter as _,
    Statement,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use uuid::Uuid;

/// How long between two rounds.
const ROUND: Duration = Duration::from_secs(1);
/// How long after failures, doubled with each up to this.
const LONGEST: Duration = Duration::from_mins(1);
/// How long a receiver may take; the lease, a minute, lasts longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Tenants of a round at most.
const TENANTS: u64 = 100;

/// Those that have sealed entries which were not received, and nobody is sending: at random, for not all may get their turn.
const BEHIND: &str = "SELECT h.tenant_id FROM seal_head h LEFT JOIN audit_stream s ON s.tenant_id = h.tenant_id
    WHERE h.number > coalesce(s.number, 0) AND coalesce(s.leased_until, '-infinity') < now() ORDER BY random() LIMIT $1";

/// Only of one that is behind: a lease that a killed process leaves is in the way for a minute.
const LEASE: &str = "INSERT INTO audit_stream AS s (tenant_id, leased_until)
    SELECT h.tenant_id, now() + interval '1 minute' FROM seal_head h LEFT JOIN audit_stream o ON o.tenant_id = h.tenant_id
    WHERE h.tenant_id = $1 AND h.number > coalesce(o.number, 0)
    ON CONFLICT (tenant_id) DO UPDATE SET leased_until = excluded.leased_until WHERE s.leased_until < now() RETURNING number";

/// A sender that came too late changes nothing.
const RECEIVED: &str = "UPDATE audit_stream SET number = $2, leased_until = '-infinity' WHERE tenant_id = $1 AND number = $3";

/// Sends until it is dropped. Cut off anywhere, it goes on with the next round, here or elsewhere.
#[derive(Debug)]
pub struct Streamer(AbortHandle);

impl Streamer {
    /// Begins, if there is somewhere to send to.
    #[expect(
        clippy::disallowed_methods,
        reason = "it lives as long as the process, and ends with its handle"
    )]
    pub fn start(database: Database, to: &AuditStream) -> Option<Self> {
        let sink = match Sink::of(to) {
            Ok(sink) => sink?,
            Err(error) => {
                tracing::error!(?error, "the trails are not sent on");
                return None;
            }
        };
        let task = tokio::spawn(async move { streaming(&database, &sink).await });
        Some(Self(task.abort_handle()))
    }
}

impl Drop for Streamer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn streaming(database: &Database, sink: &Sink) {
    let mut wait = ROUND;
    loop {
        sleep(wait).await;
        match round(database, sink).await {
            Ok(()) => wait = ROUND,
            Err(error) => {
                wait = (wait * 2).min(LONGEST);
                tracing::warn!(
                    ?error,
                    ?wait,
                    "the trails cannot be sent on; it is tried again"
                );
            }
        }
    }
}

/// Sends what there is of each tenant, until there is no more or one fails: the receiver is the same for all.
async fn round(database: &Database, sink: &Sink) -> Result<()> {
    for tenant in behind(database).await? {
        while some(database, sink, &tenant).await? {}
    }
    Ok(())
}

async fn behind(database: &Database) -> Result<Vec<Arc<Tenant>>> {
    let tx = database.platform().await?;
    let limit = i64::try_from(TENANTS).unwrap_or(i64::MAX);
    let query = Statement::from_sql_and_values(DbBackend::Postgres, BEHIND, [limit.into()]);
    let rows = tx.query_all_raw(query).await?;
    let ids = rows.iter().map(|row| row.try_get("", "tenant_id"));
    let ids: Vec<Uuid> = ids.collect::<std::result::Result<_, _>>()?;
    let tenants = Entity::find()
        .filter(Column::Id.is_in(ids))
        .filter(Column::State.is_in([State::Active, State::Suspended]))
        .all(&tx)
        .await?;
    tx.commit().await?;
    Ok(tenants.into_iter().map(Arc::new).collect())
}

/// Sends one seal's entries. Whether there may be more.
async fn some(database: &Database, sink: &Sink, tenant: &Arc<Tenant>) -> Result<bool> {
    let Some(after) = lease(database, tenant).await? else {
        return Ok(false);
    };
    let sent = send(database, sink, tenant, after).await;
    let number = match &sent {
        Ok(Some(number)) => *number,
        Ok(None) | Err(_) => after,
    };
    let tx = database.platform().await?;
    let values = [tenant.id.into(), number.into(), after.into()];
    let received = Statement::from_sql_and_values(DbBackend::Postgres, RECEIVED, values);
    tx.execute_raw(received).await?;
    tx.commit().await?;
    Ok(sent?.is_some())
}

async fn lease(database: &Database, tenant: &Tenant) -> Result<Option<i64>> {
    let tx = database.platform().await?;
    let lease = Statement::from_sql_and_values(DbBackend::Postgres, LEASE, [tenant.id.into()]);
    let row = tx.query_one_raw(lease).await?;
    let number = row.map(|row| row.try_get("", "number")).transpose()?;
    tx.commit().await?;
    Ok(number)
}

/// Sends the entries of the next seal, and returns the number of the last; none if there is no seal.
async fn send(
    database: &Database,
    sink: &Sink,
    tenant: &Arc<Tenant>,
    after: i64,
) -> Result<Option<i64>> {
    let entries = seal::sealed_after(database, tenant, after).await?;
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return Ok(None);
    };
    if first.number > after + 1 {
        let slug = &tenant.slug;
        let missed = first.number - after - 1;
        tracing::warn!(slug, missed, "entries were purged before they were sent on");
    }
    let last = last.number;
    let tx = database.read(tenant).await?;
    let ids: Vec<Uuid> = entries.iter().map(|entry| entry.id).collect();
    let lines = line::of(&tx, &ids, Persons::Shown).await;
    let lines = tx.settle(lines).await?;
    let mut text = Vec::new();
    for line in &numbered(tenant, &entries, lines) {
        serde_json::to_writer(&mut text, line).map_err(Error::internal)?;
        text.push(b'\n');
    }
    sink.put(text).await?;
    Ok(Some(last))
}

/// The lines with whose they are, and where in the chain. One may have been purged just now.
fn numbered(tenant: &Tenant, entries: &[Sealed], lines: Vec<Value>) -> Vec<Value> {
    let mut entries = entries.iter();
    let mut numbered = Vec::with_capacity(lines.len());
    for mut line in lines {
        let id = line["id"].as_str().and_then(|id| Uuid::parse_str(id).ok());
        if let Some(entry) = entries.by_ref().find(|entry| Some(entry.id) == id) {
            line["tenant"] = tenant.slug.as_str().into();
            line["number"] = entry.number.into();
            line["link"] = entry.link.as_str().into();
            numbered.push(line);
        }
    }
    numbered
}

/// Where lines go.
#[derive(Debug)]
enum Sink {
    File(PathBuf),
    Url {
        client: reqwest::Client,
        url: String,
        token: Option<SecretString>,
    },
}

impl Sink {
    fn of(to: &AuditStream) -> Result<Option<Self>> {
        if let Some(file) = &to.file {
            return Ok(Some(Self::File(file.clone())));
        }
        let Some(url) = to.url.clone() else {
            return Ok(None);
        };
        // What is sent on is not to be taken elsewhere.
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .map_err(Error::internal)?;
        Ok(Some(Self::Url {
            client,
            url,
            token: to.token.clone(),
        }))
    }

    /// Returns when they are received: on the disk, or taken with a status of success.
    async fn put(&self, lines: Vec<u8>) -> Result<()> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let written = tokio::task::spawn_blocking(move || append(&path, &lines));
                let written = written.await.map_err(Error::internal)?;
                written.map_err(Error::internal)
            }
            Self::Url { client, url, token } => {
                let mut request = client
                    .post(url)
                    .header(CONTENT_TYPE, "application/x-ndjson")
                    .body(lines);
                if let Some(token) = token {
                    request = request.bearer_auth(token.expose_secret());
                }
                let answer = request.send().await.map_err(Error::internal)?;
                let status = answer.status();
                if status.is_success() {
                    return Ok(());
                }
                Err(Error::internal(format!("the receiver answered {status}")))
            }
        }
    }
}

/// Appends lines. One that a crash has left in the middle is ended first, and is here again as a whole.
fn append(path: &Path, lines: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(path)?;
    // Until it is closed: other processes of this machine append too.
    file.lock()?;
    if is_torn(&mut file)? {
        file.write_all(b"\n")?;
    }
    file.write_all(lines)?;
    file.sync_data()
}

fn is_torn(file: &mut File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}
