//! `bulkhead config show`.

use super::out;
use crate::config::Config;
use crate::error::{Error, Result};
use clap::Subcommand;
use serde_json::Value;

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum Command {
    /// Print every key with its value, from file, environment and flags; secrets are masked
    Show,
}

pub(super) fn show(config: &Config) -> Result<()> {
    let Value::Object(keys) = serde_json::to_value(config).map_err(Error::internal)? else {
        return Err(Error::internal("a configuration is an object"));
    };
    let rows = keys.into_iter().flat_map(|(key, value)| rows(key, value));
    out::print(&out::table(["KEY", "VALUE"], rows))
}

/// A key, or the keys of a group.
fn rows(key: String, value: Value) -> Vec<[String; 2]> {
    match value {
        Value::Object(group) => group
            .into_iter()
            .map(|(name, value)| [format!("{key}.{name}"), text(value)])
            .collect(),
        value => vec![[key, text(value)]],
    }
}

fn text(value: Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text,
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.into_iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
