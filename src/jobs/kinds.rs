//! The kinds of jobs that a binary can run, by name.

use super::cron::{How, Scheduled};
use super::schedule::{Schedulable, Schedules};
use super::{Job, JobContext, PlatformContext, PlatformJob};
use crate::database::TenantTx;
use crate::error::{Error, Result};
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// What is done with a kind's arguments.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// For a tenant.
    Tenant(TenantKind),
    /// For the platform.
    Platform(fn(serde_json::Value, PlatformContext) -> BoxFuture<'static, Result<()>>),
}

/// The same, for a tenant.
#[derive(Clone, Copy, Debug)]
pub(super) struct TenantKind {
    pub(super) run: fn(serde_json::Value, JobContext) -> BoxFuture<'static, Result<()>>,
    pub(super) bury:
        for<'a> fn(serde_json::Value, &'a TenantTx, &'a Error) -> BoxFuture<'a, Result<()>>,
}

/// The kinds that this binary can run.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    known: BTreeMap<&'static str, Kind>,
    scheduled: Vec<Scheduled>,
    schedulable: BTreeMap<&'static str, Schedulable>,
    queues: BTreeMap<&'static str, &'static str>,
}

impl Kinds {
    /// Adds a kind of tenants' jobs.
    #[must_use]
    pub fn with<J: Job>(mut self) -> Self {
        let kind = TenantKind {
            run: |args, ctx| Box::pin(async move { decode::<J>(args)?.run(&ctx).await }),
            bury: |args, tx, error| {
                Box::pin(async move {
                    match serde_json::from_value::<J>(args) {
                        Ok(job) => job.bury(tx, error).await,
                        // It was about nothing.
                        Err(_) => Ok(()),
                    }
                })
            },
        };
        self.known.insert(J::NAME, Kind::Tenant(kind));
        self.queues.insert(J::NAME, J::QUEUE);
        let how = How {
            kind: J::NAME,
            queue: J::QUEUE,
            priority: J::PRIORITY,
            timeout: J::TIMEOUT,
            max_attempts: J::MAX_ATTEMPTS,
            unique: J::UNIQUE,
        };
        self.scheduled.extend(J::CRON.map(|cron| Scheduled {
            cron,
            how,
            for_tenants: true,
        }));
        if let Some(schedules) = J::SCHEDULES {
            let schedulable = Schedulable {
                how,
                schedules,
                takes: |args| serde_json::from_value::<J>(args).is_ok(),
            };
            self.schedulable.insert(J::NAME, schedulable);
        }
        self
    }

    /// Adds a kind of the platform's jobs.
    #[must_use]
    pub fn with_platform<J: PlatformJob>(mut self) -> Self {
        let run: fn(_, _) -> _ = |args, ctx| {
            let run: BoxFuture<'static, _> =
                Box::pin(async move { decode::<J>(args)?.run(&ctx).await });
            run
        };
        self.known.insert(J::NAME, Kind::Platform(run));
        self.queues.insert(J::NAME, J::QUEUE);
        self.scheduled.extend(J::CRON.map(|cron| Scheduled {
            cron,
            how: How {
                kind: J::NAME,
                queue: J::QUEUE,
                priority: 0,
                timeout: J::TIMEOUT,
                max_attempts: J::MAX_ATTEMPTS,
                unique: J::UNIQUE,
            },
            for_tenants: false,
        }));
        self
    }

    /// Those that tenants may put on schedules of their own, by name, and within which bounds.
    pub fn schedulable(&self) -> impl Iterator<Item = (&'static str, Schedules)> {
        self.schedulable
            .iter()
            .map(|(name, kind)| (*name, kind.schedules))
    }

    pub(super) fn schedulable_named(&self, name: &str) -> Option<&Schedulable> {
        self.schedulable.get(name)
    }

    pub(super) fn get(&self, name: &str) -> Option<Kind> {
        self.known.get(name).copied()
    }

    /// The queue of a kind; of one that is not known, none.
    pub(super) fn queue(&self, name: &str) -> &'static str {
        self.queues.get(name).copied().unwrap_or_default()
    }

    /// The names of all.
    pub fn names(&self) -> Vec<String> {
        self.known.keys().map(|&name| name.to_owned()).collect()
    }

    /// Those that have a schedule.
    pub(super) fn scheduled(&self) -> &[Scheduled] {
        &self.scheduled
    }
}

fn decode<J: DeserializeOwned>(args: serde_json::Value) -> Result<J> {
    serde_json::from_value(args).map_err(|e| {
        tracing::warn!(error = %e, "a job's arguments do not fit its kind");
        Error::invalid("args", "The job's arguments do not fit its kind.")
    })
}
