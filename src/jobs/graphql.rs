//! The type `Job`.

use super::queue::{self, JobRow, State};
use crate::error::Result;
use crate::graphql::{
    ContextExt as _, Cursor, DateTime, Kind, PageInput, Paged, connection, global_id,
};
use async_graphql::connection::Connection;
use async_graphql::{Context, Enum, ID, Object};
use uuid::Uuid;

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
    /// Waits for its time, or for another try.
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

    /// Runs begun so far.
    async fn attempts(&self) -> i32 {
        self.row.attempt
    }

    /// Redacted for tenants; operators see the full text.
    async fn last_error(&self) -> Option<&str> {
        self.row.last_error.as_deref()
    }

    /// When it may run, or run again.
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
        let tx = ctx.request().reading().await?;
        Ok(queue::find(&tx, id).await?.map(Self::new))
    }

    /// A page of the tenant's jobs, newest first.
    pub async fn page(
        ctx: &Context<'_>,
        page: PageInput,
        state: Option<JobState>,
    ) -> Result<Connection<Cursor, Self>> {
        ctx.request().caller()?;
        let tx = ctx.request().reading().await?;
        let rows = queue::list(&tx, state.map(stored), page.after, page.first + 1).await?;
        Ok(connection(Paged::of(rows, page), |row| row.id, Self::new))
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
