//! The mutation that has the trail written out.

use crate::error::{Error, Result};
use crate::graphql::{ContextExt as _, DateTime, UserError, expected};
use crate::history::export::{Export, Format, now};
use crate::jobs;
use crate::jobs::graphql::Job;
use crate::permission::Permission;
use async_graphql::{Context, Enum, InputObject, Object, SimpleObject};

/// How the entries of an export are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "Format")]
pub enum ChangesExportFormat {
    /// A table with a header.
    Csv,
    /// A JSON object a line, with all that there is of the entry.
    JsonLines,
}

/// Which entries of the trail to write out, and how.
#[derive(Debug, InputObject)]
pub struct ChangesExportInput {
    /// How.
    #[graphql(default_with = "ChangesExportFormat::JsonLines")]
    format: ChangesExportFormat,
    /// At this time or later; from the beginning unless given.
    from: Option<DateTime>,
    /// Before this time; until now unless given, and never beyond.
    until: Option<DateTime>,
}

/// The job that writes the trail out.
#[derive(Debug, SimpleObject)]
pub struct ChangesExportPayload {
    /// Its result is the export, for a week.
    job: Option<Job>,
    /// Expected failures.
    errors: Vec<UserError>,
}

/// Root fields for writing.
#[derive(Debug, Default)]
pub struct ExportMutation;

/// Root fields for writing.
#[Object(name = "HistoryExportMutation")]
impl ExportMutation {
    /// Has the tenant's trail written to a file, as a job. Needs AUDIT_READ; the file, and links to it, MEDIA_READ too.
    async fn changes_export(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which entries, and how.")] input: ChangesExportInput,
    ) -> Result<ChangesExportPayload> {
        let (job, errors) = expected(export(ctx, input).await)?;
        Ok(ChangesExportPayload {
            job: job.flatten(),
            errors,
        })
    }
}

/// The job and that the trail is taken along are there together.
async fn export(ctx: &Context<'_>, input: ChangesExportInput) -> Result<Option<Job>> {
    let tx = ctx.write(Permission::AuditRead).await?;
    let added = async {
        let now = now(&tx).await?;
        let export = Export {
            format: input.format.into(),
            from: input.from.map(|from| from.0),
            until: input.until.map_or(now, |until| until.0.min(now)),
        };
        if export.from.is_some_and(|from| from >= export.until) {
            return Err(Error::invalid(
                "from",
                "from must be before until, and past.",
            ));
        }
        export.note(&tx).await?;
        let job = jobs::enqueue(&tx, &export).await?;
        Job::within(&tx, job).await
    };
    let added = added.await;
    tx.settle(added).await
}
