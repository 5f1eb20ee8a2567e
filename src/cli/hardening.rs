//! `bulkhead hardening`.

use super::out;
use crate::config::Config;
use crate::database;
use crate::error::Result;

pub(super) async fn run(config: Config) -> Result<()> {
    let key = super::serve::key(&config)?;
    let missing = database::missing_hardening(&config, &key).await?;
    if missing.is_empty() {
        return out::print("-- PostgreSQL is hardened; there is nothing to run\n");
    }
    out::print(&format!("{};\n", missing.join(";\n")))
}
