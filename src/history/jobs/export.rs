//! The job that writes the trail out, to a media that only who may read the trail sees.

use crate::actor::Actor;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::history::erase;
use crate::history::export::{Export, now, settled};
use crate::jobs::{Job, JobContext};
use crate::media::exports::{Writing, Written};
use crate::tenancy::quota::{Coming, admit, take_turn};
use futures::TryStreamExt as _;
use std::pin::pin;
use std::time::Duration;

impl Job for Export {
    const NAME: &'static str = "history.export";
    const TIMEOUT: Duration = Duration::from_hours(2);

    async fn run(self, ctx: &JobContext) -> Result<()> {
        let begun = begin(ctx).await?;
        let written = async {
            settled(&ctx.services.database, &ctx.tenant).await?;
            write(&self, ctx).await
        };
        tokio::select! {
            written = written => end(ctx, begun, &written?).await,
            () = ctx.cancelled() => ctx.discard("The export was cancelled."),
        }
    }
}

/// When the run begins, by PostgreSQL's clock. Who is erased before has left no value that it could read.
async fn begin(ctx: &JobContext) -> Result<Timestamp> {
    let tx = ctx.begin().await?;
    let begun = async {
        take_turn(&tx).await?;
        // Not once all of it is written: whoever has no room has none now.
        let id = ctx.id();
        admit(&tx, Coming::Media { id, bytes: 1 }).await?;
        now(&tx).await
    };
    let begun = begun.await;
    tx.settle(begun).await
}

/// Writes the entries to an object of this run's own: of two runs that both believe that they have the job, the one that ends it
/// has named what it wrote.
async fn write(export: &Export, ctx: &JobContext) -> Result<Written> {
    let (services, tenant) = (&ctx.services, &ctx.tenant);
    let database = &services.database;
    // Too many to be counted in time, they are written all the same: nobody is told how far that has come.
    let all = match export.count(database, tenant).await {
        Err(Error::Timeout) => None,
        all => Some(all?.max(1)),
    };
    let id = database.clock().new_id();
    let until = export.until.format("%Y%m%dT%H%M%SZ");
    let filename = format!("{}-changes-{until}.{}", tenant.slug, export.format.ext());
    let file = (filename, export.format.mime());
    let mut writing = Writing::begin(&services.store, tenant, id, file).await?;
    let mut pages = pin!(export.pages(database, tenant));
    let mut done = 0;
    while let Some(page) = pages.try_next().await? {
        writing.write(page.bytes).await?;
        done += page.entries;
        if let Some(all) = all {
            let thousandths = u16::try_from(done * 1000 / all).unwrap_or(u16::MAX);
            ctx.progress(f32::from(thousandths) / 1000.0);
        }
    }
    writing.finish().await
}

/// Makes the media and ends the job, both or neither. If somebody was erased meanwhile, they can be in what was written: it goes,
/// and the job begins anew.
async fn end(ctx: &JobContext, begun: Timestamp, written: &Written) -> Result<()> {
    let tx = match ctx.begin().await {
        Ok(tx) => tx,
        Err(error) => {
            forget(ctx, written).await?;
            return Err(error);
        }
    };
    let ended = async {
        take_turn(&tx).await?;
        if erase::any_since(&tx, begun).await? {
            return Ok(false);
        }
        written.add(&tx, &Actor::Job(ctx.id())).await?;
        ctx.made(written.id);
        ctx.complete_in(&tx).await?;
        Ok(true)
    };
    let ended = ended.await;
    let is_named = matches!(ended, Ok(true));
    let ended = tx.settle(ended).await;
    // One that is named by a commit of which nothing is known may be there: the next sweep looks.
    if !is_named {
        forget(ctx, written).await?;
    }
    if ended? {
        return Ok(());
    }
    ctx.snooze(Duration::ZERO)
}

/// Removes what no row will name.
async fn forget(ctx: &JobContext, written: &Written) -> Result<()> {
    let key = written.key(&ctx.tenant);
    ctx.services.store.remove(key.path()).await
}
