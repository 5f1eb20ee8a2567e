//! Breakers: where a kind keeps failing for a tenant, its jobs are put off, uncharged, and one at a time is run to see whether it
//! still does. All processes go by the same rows, which each looks at every two seconds.

use super::claim::Claimed;
use super::ends::{End, Outcome};
use crate::config::Config;
use crate::database::{Database, Reserved};
use crate::error::Result;
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How much later than it could be run a job may come back, so that not all of them do at once.
const SPREAD: f64 = 5.0;

/// A lane and a kind.
type Place = (i32, String);

/// What this process knows of kinds that fail.
#[derive(Debug)]
pub(super) struct Breakers {
    /// Failures in a row until a kind is held back; 0: none is.
    most: u32,
    /// Where the last run failed; until when it is held back, if it is.
    known: Mutex<HashMap<Place, Option<Instant>>>,
}

impl Breakers {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            most: config.breaker_failures(),
            known: Mutex::default(),
        }
    }

    /// How long this job is to be put off; none: it is to be run.
    pub(super) async fn hold(&self, database: &Database, job: &Claimed) -> Option<Duration> {
        let place = (job.lane, job.kind.clone());
        let until = self.lock().get(&place).copied().flatten()?;
        let left = until.saturating_duration_since(Instant::now());
        let left = if left.is_zero() {
            // Apart: it is rare, and in the future of each run.
            match Box::pin(probe(database, &place)).await {
                Ok(left) => left?,
                // It is run: what it needs may fail as this did, and that is told.
                Err(error) => {
                    tracing::warn!(?error, "cannot ask whether a kind is held back");
                    return None;
                }
            }
        } else {
            left
        };
        Some(left + Duration::from_secs_f64(rand::random_range(0.0..SPREAD)))
    }

    /// Notes how these runs ended, those that were still ours. What cannot be noted is forgotten.
    pub(super) async fn note(&self, database: &Database, batch: &[End], ended: &HashSet<Uuid>) {
        let runs = self.runs(batch, ended);
        if runs.is_empty() {
            return;
        }
        if let Err(error) = self.tell(database, runs).await {
            tracing::warn!(?error, "cannot note which kinds of jobs fail");
        }
    }

    /// By place: whether one went well, and how many failed after that. That one went well is of interest where others failed.
    fn runs<'a>(
        &self,
        batch: &'a [End],
        ended: &HashSet<Uuid>,
    ) -> BTreeMap<(i32, &'a str), (bool, u32)> {
        let mut runs: BTreeMap<(i32, &str), (bool, u32)> = BTreeMap::new();
        if self.most == 0 {
            return runs;
        }
        for end in batch {
            let job = &end.job;
            if !end.completed && !ended.contains(&job.id) {
                continue;
            }
            let run = runs.entry((job.lane, &job.kind)).or_default();
            match end.outcome {
                Outcome::Done(_) => *run = (true, 0),
                Outcome::Retry(..) | Outcome::Dead(_) if !end.completed => run.1 += 1,
                _ => {}
            }
        }
        let known = self.lock();
        runs.retain(|(lane, kind), (well, failed)| {
            *failed > 0 || *well && known.contains_key(&(*lane, (*kind).to_owned()))
        });
        runs
    }

    async fn tell(
        &self,
        database: &Database,
        runs: BTreeMap<(i32, &str), (bool, u32)>,
    ) -> Result<()> {
        let told: Value = runs
            .iter()
            .map(|((lane, kind), (well, failed))| {
                json!({ "lane": lane, "kind": kind, "well": well, "failed": failed })
            })
            .collect();
        let most = i32::try_from(self.most).unwrap_or(i32::MAX);
        let note = Statement::from_sql_and_values(
            DbBackend::Postgres,
            "SELECT lane, kind, held FROM note_runs($1, $2)",
            [most.into(), told.into()],
        );
        let tx = database.platform().await?;
        let rows = tx.query_all_raw(note).await?;
        tx.commit().await?;
        let places = rows.iter().map(place).collect::<Result<Vec<_>>>()?;
        let mut known = self.lock();
        for (lane, kind) in runs.into_keys() {
            known.remove(&(lane, kind.to_owned()));
        }
        known.extend(places);
        Ok(())
    }

    /// Looks at what all processes have noted.
    pub(super) async fn look(&self, reserved: &mut Reserved) -> Result<()> {
        if self.most == 0 {
            return Ok(());
        }
        let query = Statement::from_string(
            DbBackend::Postgres,
            "SELECT lane, kind, extract(epoch FROM held_until - clock_timestamp())::double precision AS held FROM breaker",
        );
        let rows = reserved.query(query).await?;
        let known = rows.iter().map(place).collect::<Result<HashMap<_, _>>>()?;
        *self.lock() = known;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Option<Instant>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(row: &sea_orm::QueryResult) -> Result<(Place, Option<Instant>)> {
    let held: Option<f64> = row.try_get("", "held")?;
    let until = held.map(|held| Instant::now() + Duration::from_secs_f64(held.max(0.0)));
    let place = (row.try_get("", "lane")?, row.try_get("", "kind")?);
    Ok((place, until))
}

/// How long others wait while one is run to see how it ends; none: this is the one, or the kind is held back no more.
async fn probe(database: &Database, (lane, kind): &Place) -> Result<Option<Duration>> {
    let probe = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT probe_kind($1, $2) AS wait",
        [(*lane).into(), kind.clone().into()],
    );
    let tx = database.platform().await?;
    let row = tx.query_one_raw(probe).await?;
    tx.commit().await?;
    let left: Option<f64> = row.map_or(Ok(None), |row| row.try_get("", "wait"))?;
    Ok(left.map(|left| Duration::from_secs_f64(left.max(0.0))))
}
