//! The job that tidies up: uploads that were announced and never came, those that nobody looked at, exports that had their time,
//! and bytes that nobody waits for.

use super::Process;
use crate::error::{Error, Result};
use crate::jobs::{self, Cron, Job, JobContext, Schedules};
use crate::media::{self, exports};
use chrono::TimeDelta;
use entity::tenant::media::{Column, Entity, State};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectMeta;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;

/// How long an upload that was announced may take: much longer than the link to it lives.
const ANNOUNCED: TimeDelta = TimeDelta::days(1);
/// How old bytes are that nothing waits for: a link to upload lives for an hour, and a job may be about to look at them, or to
/// make the row of those it has written.
const STALE: TimeDelta = TimeDelta::hours(3);
/// Bytes that are looked up, and removed, at a time.
const SOME: usize = 500;

/// Fails uploads that did not come within a day, so that they count no more; has those looked at, again, that came a day ago and
/// were not; and removes exports of the trail a week after they were made. So it does with bytes that no upload waits for, those
/// of exports that came to nothing, and what of an object was written when its writer was killed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {}

impl Job for Sweep {
    const NAME: &'static str = "media.sweep";
    const TIMEOUT: Duration = Duration::from_mins(30);
    const UNIQUE: bool = true;
    const CRON: Option<Cron> = Some(Cron::new("23 3 * * *"));
    const SCHEDULES: Option<Schedules> = Some(Schedules {
        most: 4,
        every: Duration::from_hours(1),
    });

    async fn run(self, ctx: &JobContext) -> Result<()> {
        let tx = ctx.begin().await?;
        let before = tx.now() - ANNOUNCED;
        let ended = Entity::update_many()
            .col_expr(Column::State, Expr::value(State::Failed))
            .col_expr(
                Column::Failure,
                Expr::value("The upload did not come within a day."),
            )
            .filter(Column::State.eq(State::AwaitingUpload))
            .filter(Column::CreatedAt.lt(before))
            .exec(&tx)
            .await;
        tx.settle(ended.map_err(Into::into)).await?;
        look_again(ctx).await?;
        end_exports(ctx).await?;
        let (store, tenant) = (&ctx.services.store, &ctx.tenant);
        let awaited = [State::AwaitingUpload, State::Processing];
        sweep(ctx, store.staged(tenant), &awaited).await?;
        sweep(ctx, store.exports(tenant), &[State::Ready]).await?;
        let stale = ctx.services.database.clock().now() - STALE;
        store.remove_parts(tenant, stale.into()).await
    }
}

/// Adds the jobs again of uploads that none has looked at: a worker was lost while its job was cancelled. One that waits still is
/// there already.
async fn look_again(ctx: &JobContext) -> Result<()> {
    let tx = ctx.begin().await?;
    let before = tx.now() - ANNOUNCED;
    let added = async {
        let forgotten = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(Column::State.eq(State::Processing))
            .filter(Column::UpdatedAt.lt(before))
            .limit(SOME as u64)
            .into_tuple::<Uuid>();
        for media in forgotten.all(&tx).await? {
            match jobs::enqueue(&tx, &Process { media }).await {
                // The next sweep does.
                Err(Error::QuotaExceeded(_)) => break,
                added => added?,
            };
        }
        Ok(())
    };
    let added = added.await;
    tx.settle(added).await
}

/// Removes the exports that had their time: their objects first, so that a sweep that is cut off knows them still.
async fn end_exports(ctx: &JobContext) -> Result<()> {
    let tx = ctx.begin().await?;
    let before = tx.now() - exports::KEPT;
    let ended = exports::made(&tx, Some(before)).await;
    let ended = tx.settle(ended).await?;
    media::remove_objects(&ctx.services.store, &ctx.tenant, &ended).await?;
    let ids: Vec<Uuid> = ended.iter().map(|media| media.id).collect();
    let tx = ctx.begin().await?;
    let removed = media::remove(&tx, &ids).await;
    tx.settle(removed).await?;
    Ok(())
}

/// Removes those of the objects that are old, and not of a media in one of these states.
async fn sweep(
    ctx: &JobContext,
    objects: BoxStream<'_, object_store::Result<ObjectMeta>>,
    states: &[State],
) -> Result<()> {
    let stale = ctx.services.database.clock().now() - STALE;
    let old = objects.try_filter(|object| std::future::ready(object.last_modified < stale));
    let mut chunks = old.try_chunks(SOME).boxed();
    while let Some(some) = chunks.try_next().await.map_err(|cut| cut.1)? {
        remove(ctx, &some, states).await?;
    }
    Ok(())
}

async fn remove(ctx: &JobContext, objects: &[ObjectMeta], states: &[State]) -> Result<()> {
    let named = |object: &ObjectMeta| {
        let name = object.location.filename()?;
        Uuid::parse_str(name.split('.').next()?).ok()
    };
    let ids: Vec<Uuid> = objects.iter().filter_map(named).collect();
    let tx = ctx.begin().await?;
    let awaited = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::Id.is_in(ids))
        .filter(Column::State.is_in(states.iter().copied()))
        .into_tuple::<Uuid>()
        .all(&tx)
        .await;
    let awaited: BTreeSet<Uuid> = tx
        .settle(awaited.map_err(Into::into))
        .await?
        .into_iter()
        .collect();
    for object in objects {
        if !named(object).is_some_and(|id| awaited.contains(&id)) {
            ctx.services.store.remove(&object.location).await?;
        }
    }
    Ok(())
}
