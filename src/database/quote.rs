//! Text that goes into SQL: identifiers and settings, each quoted by one function. `SET LOCAL` takes no parameters.

use super::Tenant;
use crate::actor::Attribution;
use crate::error::{Error, Result};
use std::fmt::Write as _;

/// What takes back, for one transaction, the settings that another client of a transaction pooler may have left on the
/// session. Role, path, isolation and who acts are set by every begin anyway.
pub(super) const UNPLANTED: &str = "SET LOCAL ROLE NONE; SET LOCAL statement_timeout TO DEFAULT; \
    SET LOCAL lock_timeout TO DEFAULT; SET LOCAL idle_in_transaction_session_timeout TO DEFAULT; \
    SET LOCAL synchronous_commit TO DEFAULT; SET LOCAL bulkhead.cause = ''; SET LOCAL bulkhead.request_id = ''; \
    SET LOCAL bulkhead.reason = ''; SET LOCAL bulkhead.reverts = ''; SET LOCAL bulkhead.traceparent = ''; ";

/// An identifier in double quotes. Refuses what PostgreSQL would cut or cannot hold.
pub fn identifier(name: &str) -> Result<String> {
    if name.is_empty() || name.len() > 63 || name.contains('\0') {
        return Err(Error::internal(format!("not an identifier: {name:?}")));
    }
    Ok(format!("\"{}\"", name.replace('"', "\"\"")))
}

/// A literal in single quotes, the same to servers with and without `standard_conforming_strings`.
pub(super) fn literal(text: &str) -> Result<String> {
    if text.contains('\0') {
        return Err(Error::BadRequest("A value has a NUL character.".to_owned()));
    }
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        return Ok(format!("E'{}'", quoted.replace('\\', "\\\\")));
    }
    Ok(format!("'{quoted}'"))
}

/// The statements that bind a transaction to a tenant: role first, then path, with `pg_temp` last so that no temporary
/// table can stand in for a tenant's. The login role has the server's timeout; a tenant's own comes with its binding.
pub(super) fn binding(tenant: &Tenant) -> Result<String> {
    let mut binding = format!(
        "SET LOCAL ROLE {}; {}",
        identifier(&tenant.role_name)?,
        search_path(&tenant.schema_name)?
    );
    if let Some(timeout) = tenant.settings.statement_timeout_ms {
        // Writing into a String cannot fail.
        let _ = write!(binding, "; SET LOCAL statement_timeout = {timeout}");
    }
    Ok(binding)
}

/// The statement that makes a tenant's schema the path.
pub(super) fn search_path(schema: &str) -> Result<String> {
    Ok(format!(
        "SET LOCAL search_path TO {}, pg_temp",
        identifier(schema)?
    ))
}

/// The statements that tell the history who acts.
pub(super) fn attribution(attribution: &Attribution) -> Result<String> {
    let mut statements = format!(
        "SET LOCAL bulkhead.actor = {}",
        literal(&attribution.actor.to_string())?
    );
    let trace = attribution.trace.map(|trace| trace.to_string());
    let rest = [
        ("cause", &attribution.cause),
        ("request_id", &attribution.request_id),
        ("reason", &attribution.reason),
        ("traceparent", &trace),
    ];
    for (name, value) in rest {
        if let Some(value) = value {
            // Writing into a String cannot fail.
            let _ = write!(
                statements,
                "; SET LOCAL bulkhead.{name} = {}",
                literal(value)?
            );
        }
    }
    Ok(statements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_close_nothing_early() {
        assert_eq!(identifier("a\"b").unwrap(), "\"a\"\"b\"");
        assert_eq!(literal("it's; DROP").unwrap(), "'it''s; DROP'");
        assert_eq!(literal("\\'; DROP").unwrap(), "E'\\\\''; DROP'");
        assert!(identifier(&"x".repeat(64)).is_err());
        assert!(literal("a\0b").is_err());
    }
}
