//! The job that sends a message.

use super::Message;
use crate::error::Result;
use crate::jobs::{Job, JobContext};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Sends one message of a tenant's. It may arrive twice, with the same `Message-ID`, when the worker is lost just then.
#[derive(Debug, Serialize, Deserialize)]
pub struct SendMail {
    /// What is sent.
    pub message: Message,
}

impl Job for SendMail {
    const NAME: &'static str = "mail.send";
    const QUEUE: &'static str = "mail";
    const TIMEOUT: Duration = Duration::from_mins(2);
    const MAX_ATTEMPTS: i32 = 10;

    async fn run(self, ctx: &JobContext) -> Result<()> {
        let sent = ctx.services.mailer.send(&self.message, ctx.id()).await;
        sent.map(drop)
    }
}
