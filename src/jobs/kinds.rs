//! The kinds of jobs that a binary can run, by name.

use super::{Job, JobContext};
use crate::error::{Error, Result};
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is done with a kind's arguments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) run: fn(serde_json::Value, JobContext) -> BoxFuture<'static, Result<()>>,
    pub(super) bury:
        fn(serde_json::Value, JobContext, Arc<Error>) -> BoxFuture<'static, Result<()>>,
}

/// The kinds that this binary can run.
#[derive(Clone, Debug, Default)]
pub struct Kinds(BTreeMap<&'static str, Kind>);

impl Kinds {
    /// Adds a kind.
    #[must_use]
    pub fn with<J: Job>(mut self) -> Self {
        let kind = Kind {
            run: |args, ctx| Box::pin(async move { decode::<J>(args)?.run(&ctx).await }),
            bury: |args, ctx, error| {
                Box::pin(async move { decode::<J>(args)?.bury(&ctx, &error).await })
            },
        };
        self.0.insert(J::NAME, kind);
        self
    }

    pub(super) fn get(&self, name: &str) -> Option<Kind> {
        self.0.get(name).copied()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.keys().map(|&name| name.to_owned()).collect()
    }
}

fn decode<J: Job>(args: serde_json::Value) -> Result<J> {
    serde_json::from_value(args).map_err(|e| {
        tracing::warn!(error = %e, "a job's arguments do not fit its kind");
        Error::invalid("args", "The job's arguments do not fit its kind.")
    })
}
