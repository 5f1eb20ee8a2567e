//! Logs: one subscriber, set up once. Every line inside a request or job carries its tenant, actor and request id, because
//! the spans that `http` and `jobs` open carry them. Traces, and what is counted.

mod metrics;
mod trace;

pub use metrics::{Metrics, PREFIX};
pub use trace::Trace;

use crate::config::{Config, LogFormat};
use crate::error::{Error, Result};
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Installs the subscriber; logs go to standard error, so that a command's output stays clean.
pub fn init(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(&config.log).map_err(|e| {
        Error::config(format!(
            "BULKHEAD_LOG is not a filter such as info,bulkhead=debug: {e}"
        ))
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let installed = match config.log_format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    installed.map_err(Error::internal)
}
