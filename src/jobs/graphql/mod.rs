//! The type `Job`.

pub mod schedule;

pub use schedule::{Mutation as SchedulesMutation, Schedule, ScheduleKind};

use super::Kinds;
use super::rows::{self, JobRow, Listed, State};
use crate::database::TenantTx;
use crate::error::{Error, Result};
use crate::graphql::{
    Batch, ContextExt as _, Cursor, DateTime, Id, Kind, Order, PageArgs, Place, RequestContext,
    Slice, SortKey, UserError, expected, global_id, load, until_error,
};
use crate::media::graphql::Media;
use crate::permission::Permission;
use async_graphql::connection::Connection;
use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject, Subscription};
use futures::FutureExt as _;
use futures::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use std::collections::HashMap;
use std::sync::Arc;
use uuid::Uuid;

/// The order of jobs: newest first.
const NEWEST_FIRST: Order = Order {
    name: "jobs",
    key: SortKey::Id,
    descending: true,
};
/// Jobs that a follower of all is shown at first, those that are over among them left out.
const NEWEST: u64 = 100;

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum JobState {
    /// Ended before it ran.
    Cancelled,
    /// Failed for good.
    Failed,
    /// Waits for a worker.
    Queued,
    /// Runs.
    Running,
    /// Waits for its time, for another try, or for other jobs to end.
    Scheduled,
    /// Did its work.
    Succeeded,
}

/// Work that goes on after its request was answered.
#[derive(Clone, Debug)]
pub struct Job {
    row: JobRow,
    state: JobState,
}

impl Kind for Job {
    const NAME: &'static str = "Job";
}

/// Work that goes on after its request was answered.
#[Object]
impl Job {
    /// Opaque, globally unique.
    pub async fn id(&self) -> ID {
        global_id::<Self>(self.row.id)
    }

    /// What kind of work, e.g. media.process.
    async fn kind(&self) -> &str {
        &self.row.kind
    }

    /// Where it is in its life.
    async fn state(&self) -> JobState {
        self.state
    }

    /// 0 to 1, null when the job cannot tell.
    async fn progress(&self) -> Option<f64> {
        // What it told last was written down at most twice a second.
        let is_whole = self.state == JobState::Succeeded;
        let told = self.row.progress.map(f64::from);
        told.map(|told| if is_whole { 1.0 } else { told })
    }

    /// Runs begun so far.
    async fn attempts(&self) -> i32 {
        self.row.attempt
    }

    /// Redacted for tenants; operators see the full text.
    async fn last_error(&self) -> Option<&str> {
        self.row.last_error.as_deref()
    }

    /// The media that it made: the one whose upload was looked at, or an export. Null until SUCCEEDED, once it is gone, and for
    /// a caller who may not see it.
    async fn result(&self, ctx: &Context<'_>) -> Result<Option<Media>> {
        let Some(id) = self.row.result_id else {
            return Ok(None);
        };
        if ctx
            .request()
            .caller()?
            .require(Permission::MediaRead)
            .is_err()
        {
            return Ok(None);
        }
        Media::find(ctx, id).await
    }

    /// When it may run, or run again; of one that waits for other jobs, when it was added.
    async fn scheduled_at(&self) -> DateTime {
        self.row.run_at.into()
    }

    /// When its last run began.
    async fn started_at(&self) -> Option<DateTime> {
        self.row.started_at.map(DateTime)
    }

    /// When it ended.
    async fn finished_at(&self) -> Option<DateTime> {
        self.row.finished_at.map(DateTime)
    }
}

impl Job {
    fn new(row: JobRow) -> Self {
        let state = match row.state {
            1 => JobState::Queued,
            2 => JobState::Running,
            3 => JobState::Succeeded,
            5 => JobState::Cancelled,
            6 => JobState::Scheduled,
            _ => JobState::Failed,
        };
        Self { row, state }
    }

    /// The job with this id, if it is the tenant's. Anybody who is signed in may see how the tenant's work is going.
    pub async fn find(ctx: &Context<'_>, id: Uuid) -> Result<Option<Self>> {
        ctx.request().caller()?;
        Ok(load(ctx, ById(id)).await?.map(Self::new))
    }

    /// The job with this id as a unit of work has it: one that it added too.
    pub async fn within(tx: &TenantTx, id: Uuid) -> Result<Option<Self>> {
        Ok(rows::find(tx, vec![id]).await?.pop().map(Self::new))
    }

    /// A page of the tenant's jobs, newest first.
    pub async fn page(
        ctx: &Context<'_>,
        page: PageArgs,
        state: Option<JobState>,
    ) -> Result<Connection<Cursor, Self>> {
        ctx.request().caller()?;
        let page = page.of(NEWEST_FIRST)?;
        let tx = ctx.request().reading().await?;
        let state = state.map(stored);
        // The list has the newest first: what is before a place in it was made after.
        let fetch = |slice: Slice| {
            let listed = Listed {
                state,
                before: slice.after.map(|place| place.id),
                after: slice.before.map(|place| place.id),
                oldest: slice.backwards,
                limit: slice.limit,
            };
            rows::list(&tx, listed).boxed()
        };
        let found = page.fetch(ctx, |row| Place::by_id(row.id), fetch).await?;
        Ok(found.connection(Self::new))
    }
}

/// The job with this id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ById(Uuid);

impl Batch for ById {
    type Value = JobRow;

    async fn load(tx: &TenantTx, keys: Vec<Self>) -> Result<HashMap<Self, JobRow>> {
        let ids = keys.into_iter().map(|key| key.0).collect();
        let rows = rows::find(tx, ids).await?.into_iter();
        Ok(rows.map(|row| (Self(row.id), row)).collect())
    }
}

fn stored(state: JobState) -> State {
    match state {
        JobState::Cancelled => State::Cancelled,
        JobState::Failed => State::Dead,
        JobState::Queued => State::Ready,
        JobState::Running => State::Running,
        JobState::Scheduled => State::Scheduled,
        JobState::Succeeded => State::Done,
    }
}

/// Which job is to end.
#[derive(Debug, InputObject)]
pub struct JobCancelInput {
    /// Which.
    job_id: Id<Job>,
}

/// The job that is to end.
#[derive(Debug, SimpleObject)]
pub struct JobCancelPayload {
    /// CANCELLED if it did not run; one that runs is told, and is cancelled within seconds.
    job: Option<Job>,
    /// Expected failures.
    errors: Vec<UserError>,
}

/// Which job is to begin anew.
#[derive(Debug, InputObject)]
pub struct JobRetryInput {
    /// Which.
    job_id: Id<Job>,
}

/// The job that begins anew.
#[derive(Debug, SimpleObject)]
pub struct JobRetryPayload {
    /// QUEUED, with all its attempts.
    job: Option<Job>,
    /// Expected failures.
    errors: Vec<UserError>,
}

/// Root fields for writing.
#[derive(Debug, Default)]
pub struct Mutation;

/// Root fields for writing.
#[Object(name = "JobsMutation")]
impl Mutation {
    /// Ends a job that waits, and tells one that runs to end. Needs MEMBERS_MANAGE.
    async fn job_cancel(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which job.")] input: JobCancelInput,
    ) -> Result<JobCancelPayload> {
        let (job, errors) = expected(cancel(ctx, input.job_id.uuid()).await)?;
        Ok(JobCancelPayload { job, errors })
    }

    /// Begins a job anew that failed or was cancelled; one that waits for its time, or for another try, has it now. Needs
    /// MEMBERS_MANAGE.
    async fn job_retry(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which job.")] input: JobRetryInput,
    ) -> Result<JobRetryPayload> {
        let (job, errors) = expected(retry(ctx, input.job_id.uuid()).await)?;
        Ok(JobRetryPayload { job, errors })
    }
}

async fn cancel(ctx: &Context<'_>, id: Uuid) -> Result<Job> {
    let tx = ctx.write(Permission::MembersManage).await?;
    let cancelled = async {
        match rows::cancel(&tx, kinds(ctx), id).await? {
            Some(true) => changed(&tx, id).await,
            Some(false) => Err(Error::invalid("jobId", "The job is over already.")),
            None => Err(Error::NotFound("job")),
        }
    };
    let cancelled = cancelled.await;
    tx.settle(cancelled).await
}

async fn retry(ctx: &Context<'_>, id: Uuid) -> Result<Job> {
    let tx = ctx.write(Permission::MembersManage).await?;
    let begun = async {
        let is_begun = rows::retry(&tx, id).await?;
        let job = changed(&tx, id).await?;
        if is_begun {
            return Ok(job);
        }
        let told =
            "The job runs, waits for others or has succeeded: there is nothing to try again.";
        Err(Error::invalid("jobId", told))
    };
    let begun = begun.await;
    tx.settle(begun).await
}

/// The kinds that this binary runs, which the schema was made with.
fn kinds<'a>(ctx: &Context<'a>) -> &'a Kinds {
    ctx.data_unchecked()
}

/// The job as the unit of work leaves it.
async fn changed(tx: &TenantTx, id: Uuid) -> Result<Job> {
    Job::within(tx, id).await?.ok_or(Error::NotFound("job"))
}

/// Root fields for following.
#[derive(Debug, Default)]
pub struct Subscription;

/// Root fields for following.
#[Subscription(name = "JobsSubscription")]
impl Subscription {
    /// The job as it is now, then after its changes. Without a job: those of the tenant's newest 100 that are not over, then
    /// each that is added or changed.
    async fn job_updated(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only this one.")] job_id: Option<Id<Job>>,
    ) -> Result<impl Stream<Item = async_graphql::Result<Job>>> {
        let request = Arc::clone(ctx.data_unchecked::<Arc<RequestContext>>());
        request.caller()?;
        // Before what is there now is read: so nothing comes between the two.
        let changed = request.services.feeds.jobs(&request.tenant).await?;
        let only = job_id.map(|id| id.uuid());
        let there = there(&request, only).await?;
        let changed = changed
            .try_filter(move |id| std::future::ready(only.is_none_or(|only| only == *id)))
            .and_then(move |id| find_again(Arc::clone(&request), id));
        let jobs = stream::iter(there.into_iter().map(Ok))
            .chain(changed.try_filter_map(|job| std::future::ready(Ok(job))));
        Ok(until_error(jobs.map_ok(Job::new)))
    }
}

/// What a follower is shown at first.
async fn there(request: &RequestContext, only: Option<Uuid>) -> Result<Vec<JobRow>> {
    let tx = request.reading().await?;
    let rows = match only {
        Some(id) => {
            let found = rows::find(&tx, vec![id]).await?;
            if found.is_empty() {
                return Err(Error::NotFound("job"));
            }
            found
        }
        None => {
            let newest = Listed {
                limit: NEWEST,
                ..Listed::default()
            };
            let mut rows = rows::list(&tx, newest).await?;
            let over = [State::Done, State::Dead, State::Cancelled].map(|state| state as i16);
            rows.retain(|row| !over.contains(&row.state));
            rows.reverse();
            rows
        }
    };
    drop(tx);
    request.end_reading().await?;
    Ok(rows)
}

/// The job as it is now, if its follower may still see it.
async fn find_again(request: Arc<RequestContext>, id: Uuid) -> Result<Option<JobRow>> {
    request.caller()?;
    let tx = request.reading().await?;
    Ok(rows::find(&tx, vec![id]).await?.pop())
}
