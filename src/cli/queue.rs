//! `bulkhead jobs lanes|pause|resume|drain|set|list|show|retry|cancel|cron|top`.

use super::log::Why;
use super::{cron, out, top};
use crate::app::App;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::jobs::operate::{self, Change, Filter, JobDetail, Which};
use crate::resources;
use crate::services::Services;
use crate::tenancy::{self, Act};
use clap::{Args, Subcommand};
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;
use uuid::Uuid;

/// How often a drain looks whether something runs still.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the lanes: each tenant's place in each queue, with its share and limits
    Lanes {
        #[command(flatten)]
        lanes: LaneArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let jobs wait, until the lanes are resumed; those that run go on
    Pause {
        #[command(flatten)]
        lanes: LaneArgs,
        /// Why, for those who look
        #[arg(long, default_value = "paused")]
        reason: String,
    },
    /// Go on with the jobs, those of kinds that are held back too
    Resume {
        #[command(flatten)]
        lanes: LaneArgs,
        #[command(flatten)]
        why: Why,
    },
    /// Pause, and wait until nothing runs any more
    Drain {
        #[command(flatten)]
        lanes: LaneArgs,
        /// Why, for those who look
        #[arg(long, default_value = "drained")]
        reason: String,
    },
    /// Change share and limits; every worker has them from its next claim on
    Set {
        #[command(flatten)]
        lanes: LaneArgs,
        /// Its share beside the others', 1 unless set
        #[arg(long)]
        weight: Option<f32>,
        /// Jobs that run at once at most, or `none`
        #[arg(long, value_parser = limit::<i32>)]
        cap: Option<Limit<i32>>,
        /// Jobs that begin in a second at most, or `none`
        #[arg(long, value_parser = limit::<f32>)]
        rate: Option<Limit<f32>>,
        /// Jobs that may begin at once, where there is a rate
        #[arg(long)]
        burst: Option<i32>,
        #[command(flatten)]
        why: Why,
    },
    /// List jobs, newest first
    List {
        #[command(flatten)]
        lanes: LaneArgs,
        /// Only of this kind
        #[arg(long)]
        kind: Option<String>,
        /// Only those that are ready, running, scheduled, waiting, done, dead or cancelled
        #[arg(long)]
        state: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one job, with its arguments and its whole errors
    Show {
        /// Which
        id: Uuid,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Begin jobs anew that are dead or cancelled; those that wait for another try have it now
    Retry(JobArgs),
    /// End jobs that wait, and tell those that run to end
    Cancel(JobArgs),
    /// List the kinds that run by the clock, or switch one off
    Cron(cron::CronArgs),
    /// Watch how the tenants' jobs are doing
    Top {
        /// How many tenants at most
        #[arg(long, default_value_t = 20)]
        limit: u32,
        /// Print it once
        #[arg(long)]
        once: bool,
        /// Print it once, as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Which lanes.
#[derive(Debug, Args)]
pub(super) struct LaneArgs {
    /// Only those of this tenant
    #[arg(long, value_name = "SLUG")]
    tenant: Option<String>,
    /// Only those in this queue
    #[arg(long)]
    queue: Option<String>,
}

/// Which jobs.
#[derive(Debug, Args)]
pub(super) struct JobArgs {
    /// Which
    ids: Vec<Uuid>,
    /// In place of ids: all of this kind, up to 10,000: dead ones to retry, those that do not run yet to cancel
    #[arg(long, conflicts_with = "ids", required_unless_present = "ids")]
    kind: Option<String>,
    /// With --kind: only those of this tenant
    #[arg(long, value_name = "SLUG", requires = "kind")]
    tenant: Option<String>,
    #[command(flatten)]
    why: Why,
}

/// A limit, or none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit<T>(Option<T>);

fn limit<T: std::str::FromStr<Err: std::fmt::Display>>(
    text: &str,
) -> std::result::Result<Limit<T>, String> {
    if text == "none" {
        return Ok(Limit(None));
    }
    let number = text.parse().map_err(|e: T::Err| e.to_string())?;
    Ok(Limit(Some(number)))
}

pub(super) async fn run(config: Config, command: Command) -> Result<()> {
    let key = super::serve::key(&config)?;
    let app = App::start(config, key, false).await?;
    let services = &app.services;
    let done = match command {
        Command::Lanes { lanes, json } => list_lanes(services, &lanes, json).await,
        Command::Pause { lanes, reason } => {
            let act = Why::default().act();
            pause(services, &lanes, Some(&reason), &act).await.map(drop)
        }
        Command::Resume { lanes, why } => pause(services, &lanes, None, &why.act()).await.map(drop),
        Command::Drain { lanes, reason } => drain(services, &lanes, &reason).await,
        Command::Set {
            lanes,
            weight,
            cap,
            rate,
            burst,
            why,
        } => {
            let change = Change {
                weight,
                cap: cap.map(|cap| cap.0),
                rate: rate.map(|rate| rate.0),
                burst,
            };
            set(services, &lanes, change, &why).await
        }
        Command::List {
            lanes,
            kind,
            state,
            limit,
            json,
        } => {
            let filter = Filter {
                which: which(services, &lanes).await?,
                kind,
                state,
                limit,
            };
            list(services, &filter, json).await
        }
        Command::Show { id, json } => show(services, id, json).await,
        Command::Retry(several) => each(services, several, Verb::Retry).await,
        Command::Cancel(several) => each(services, several, Verb::Cancel).await,
        Command::Cron(args) => cron::run(services, args).await,
        Command::Top { limit, once, json } => top::run(services, limit, once, json).await,
    };
    let stopped = app.stop().await;
    done.and(stopped)
}

async fn which(services: &Services, lanes: &LaneArgs) -> Result<Which> {
    let tenant = match &lanes.tenant {
        None => None,
        Some(slug) => {
            let tx = services.database.platform().await?;
            let found = tenancy::by_slug(&tx, slug).await?;
            tx.commit().await?;
            Some(found.ok_or_else(|| tenancy::limits::no_tenant(slug))?.id)
        }
    };
    Ok(Which {
        tenant,
        queue: lanes.queue.clone(),
    })
}

/// What is done to all lanes at once is asked for by a queue.
async fn some(services: &Services, lanes: &LaneArgs) -> Result<Which> {
    if lanes.tenant.is_none() && lanes.queue.is_none() {
        let told = "Say which lanes: --tenant, --queue, or both.";
        return Err(Error::invalid("lanes", told));
    }
    which(services, lanes).await
}

async fn list_lanes(services: &Services, lanes: &LaneArgs, as_json: bool) -> Result<()> {
    let which = which(services, lanes).await?;
    let tx = services.database.platform().await?;
    let lanes = operate::lanes(&tx, &which).await?;
    tx.commit().await?;
    if as_json {
        return out::json(&json!(lanes));
    }
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows = lanes.iter().map(|lane| {
        [
            or_none(lane.tenant.clone()),
            lane.queue.clone(),
            lane.weight.to_string(),
            or_none(lane.cap.map(|cap| cap.to_string())),
            or_none(lane.rate.map(|rate| format!("{rate}/s"))),
            lane.ready.to_string(),
            lane.running.to_string(),
            or_none(lane.oldest.map(out::seconds)),
            held(lane),
            lane.paused.clone().unwrap_or_default(),
        ]
    });
    let header = [
        "TENANT", "QUEUE", "WEIGHT", "CAP", "RATE", "READY", "RUNNING", "OLDEST", "HELD", "PAUSED",
    ];
    out::print(&out::table(header, rows))
}

/// The kinds that are held back in a lane.
fn held(lane: &operate::Lane) -> String {
    let kinds = lane.held.as_array().into_iter().flatten();
    let shown = kinds.map(|held| {
        let kind = held["kind"].as_str().unwrap_or_default();
        format!("{kind} ({} failures)", held["failures"])
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// So many lanes, in words.
fn lanes_of(number: u64) -> String {
    format!("{number} {}", if number == 1 { "lane" } else { "lanes" })
}

async fn pause(
    services: &Services,
    lanes: &LaneArgs,
    why: Option<&str>,
    act: &Act,
) -> Result<Which> {
    let which = some(services, lanes).await?;
    let tx = services.database.platform().await?;
    let changed = operate::pause(&tx, &which, why, act).await?;
    tx.commit().await?;
    let done = if why.is_some() { "paused" } else { "resumed" };
    out::print(&format!("{} {done}\n", lanes_of(changed)))?;
    Ok(which)
}

async fn drain(services: &Services, lanes: &LaneArgs, why: &str) -> Result<()> {
    let which = pause(services, lanes, Some(why), &Why::default().act()).await?;
    loop {
        let tx = services.database.platform().await?;
        let lanes = operate::lanes(&tx, &which).await?;
        tx.commit().await?;
        if lanes.iter().all(|lane| lane.running == 0) {
            return out::print("Nothing runs any more\n");
        }
        sleep(LOOK).await;
    }
}

async fn set(services: &Services, lanes: &LaneArgs, change: Change, why: &Why) -> Result<()> {
    let which = some(services, lanes).await?;
    let tx = services.database.platform().await?;
    let changed = operate::set(&tx, &which, change, &why.act()).await?;
    tx.commit().await?;
    out::print(&format!("{} set\n", lanes_of(changed)))
}

async fn list(services: &Services, filter: &Filter, as_json: bool) -> Result<()> {
    let tx = services.database.platform().await?;
    let jobs = operate::list(&tx, filter).await?;
    tx.commit().await?;
    if as_json {
        return out::json(&json!(jobs));
    }
    let rows = jobs.iter().map(|job| {
        [
            job.id.to_string(),
            job.tenant.clone().unwrap_or_else(|| "-".to_owned()),
            job.kind.clone(),
            job.state.clone(),
            format!("{}/{}", job.attempt, job.max_attempts),
            job.created_at.format("%Y-%m-%d %H:%M:%S").to_string(),
            last_error(job),
        ]
    });
    let header = [
        "JOB",
        "TENANT",
        "KIND",
        "STATE",
        "TRIES",
        "ADDED (UTC)",
        "LAST ERROR",
    ];
    out::print(&out::table(header, rows))
}

/// The beginning of what the last failure was, whole: it is for operators.
fn last_error(job: &JobDetail) -> String {
    let errors = job.errors.as_array();
    let last = errors.and_then(|errors| errors.last());
    let told = last.and_then(|last| last["detail"].as_str());
    told.unwrap_or_default().chars().take(60).collect()
}

async fn show(services: &Services, id: Uuid, as_json: bool) -> Result<()> {
    let tx = services.database.platform().await?;
    let job = operate::find(&tx, id).await?;
    tx.commit().await?;
    if as_json {
        return out::json(&json!(job));
    }
    let at = |time: Option<crate::clock::Timestamp>| {
        time.map_or_else(|| "-".to_owned(), |time| time.to_rfc3339())
    };
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut rows = vec![
        ["tenant".to_owned(), or_none(job.tenant)],
        ["queue".to_owned(), job.queue],
        ["kind".to_owned(), job.kind],
        ["state".to_owned(), job.state],
        [
            "tries".to_owned(),
            format!("{} of {}", job.attempt, job.max_attempts),
        ],
        ["arguments".to_owned(), job.args.to_string()],
        ["caused by".to_owned(), job.actor],
        ["request".to_owned(), or_none(job.request_id)],
        ["trace".to_owned(), or_none(job.trace)],
        ["worker".to_owned(), or_none(job.worker)],
        ["added".to_owned(), at(Some(job.created_at))],
        ["may run".to_owned(), at(Some(job.run_at))],
        ["started".to_owned(), at(job.started_at)],
        ["finished".to_owned(), at(job.finished_at)],
    ];
    for error in job.errors.as_array().into_iter().flatten() {
        let detail = error["detail"].as_str().unwrap_or_default();
        rows.push([
            format!("error of try {}", error["attempt"]),
            detail.to_owned(),
        ]);
    }
    out::print(&out::table(["JOB", &job.id.to_string()], rows))
}

/// What is done to several jobs.
#[derive(Clone, Copy, Debug)]
enum Verb {
    Retry,
    Cancel,
}

async fn each(services: &Services, several: JobArgs, verb: Verb) -> Result<()> {
    let (ids, total) = match several.kind {
        None => {
            let total = several.ids.len();
            (several.ids, total)
        }
        Some(kind) => {
            let ids = of_kind(services, kind, several.tenant, verb).await?;
            let total = ids.len();
            (ids, total)
        }
    };
    let (act, kinds) = (several.why.act(), resources::jobs());
    let mut changed = 0;
    for id in ids {
        let done = match verb {
            Verb::Retry => {
                let tx = services.database.platform().await?;
                let begun = operate::retry(&tx, id, &act).await?;
                tx.commit().await?;
                begun
            }
            Verb::Cancel => Box::pin(operate::cancel(services, &kinds, id, &act)).await?,
        };
        changed += usize::from(done);
    }
    let done = match verb {
        Verb::Retry => "begun anew",
        Verb::Cancel => "cancelled, or told to end",
    };
    out::print(&format!("{changed} of {total} jobs {done}\n"))
}

async fn of_kind(
    services: &Services,
    kind: String,
    tenant: Option<String>,
    verb: Verb,
) -> Result<Vec<Uuid>> {
    let lanes = LaneArgs {
        tenant,
        queue: None,
    };
    let states: &[&str] = match verb {
        Verb::Retry => &["dead"],
        Verb::Cancel => &["ready", "scheduled", "waiting"],
    };
    let which = which(services, &lanes).await?;
    let mut ids = Vec::new();
    for state in states {
        let filter = Filter {
            which: which.clone(),
            kind: Some(kind.clone()),
            state: Some((*state).to_owned()),
            limit: 10_000,
        };
        let tx = services.database.platform().await?;
        let found = operate::list(&tx, &filter).await?;
        tx.commit().await?;
        ids.extend(found.into_iter().map(|job| job.id));
    }
    Ok(ids)
}
