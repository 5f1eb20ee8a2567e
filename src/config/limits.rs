//! Limits on what a client sends: how large a document may be, and how fast root fields may come.

use super::Env;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// Limits on a GraphQL document, held before it is validated. `[document_limits]` in the file,
/// `BULKHEAD_DOCUMENT_LIMITS__DEPTH` in the environment.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DocumentLimits {
    /// Bytes of its text.
    pub bytes: u64,
    /// Lexical tokens.
    pub tokens: u64,
    /// Fragments that it defines.
    pub fragments: u64,
    /// Operations that it defines.
    pub operations: u64,
    /// Variables that it defines, or that come with it.
    pub variables: u64,
    /// Values of variables, each as often as the document uses its variable, with fragments expanded.
    pub variable_values: u64,
    /// Selections of all operations, with fragments expanded.
    pub selections: u64,
    /// Levels of fields.
    pub depth: u64,
    /// Fields that one operation can make: page size × what is asked of each row.
    pub complexity: u64,
    /// Aliases of one operation, with fragments expanded.
    pub aliases: u64,
    /// Root fields of one operation.
    pub root_fields: u64,
    /// Directives in one place.
    pub directives: u64,
    /// Arguments of one field or directive.
    pub arguments: u64,
}

impl Default for DocumentLimits {
    fn default() -> Self {
        Self {
            bytes: 16 * 1024,
            tokens: 2000,
            fragments: 50,
            operations: 10,
            variables: 100,
            variable_values: 2000,
            selections: 2000,
            depth: 15,
            complexity: 5000,
            aliases: 30,
            root_fields: 30,
            directives: 5,
            arguments: 20,
        }
    }
}

/// How many root fields may come in a minute, on each server; as many at once, then at that pace. `[rate_limits]` in the
/// file, `BULKHEAD_RATE_LIMITS__MEMBER` in the environment.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimits {
    /// Whether they are held: not where a gateway in front counts already.
    pub enabled: bool,
    /// Of one member.
    pub member: Option<u32>,
    /// Of one device.
    pub device: Option<u32>,
    /// Of all whose credential is none or does not work, at one address.
    pub anonymous: Option<u32>,
    /// Attempts to sign in, at one address: `sessionCreate` and `POST /device/auth`.
    pub sign_in: Option<u32>,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            enabled: true,
            member: None,
            device: None,
            anonymous: None,
            sign_in: None,
        }
    }
}

/// What is not set, for customers; on somebody's own machine, where programs are tested and measured, [`ROOM`] times that.
const MEMBER: u32 = 60_000;
const DEVICE: u32 = 6_000;
const ANONYMOUS: u32 = 1_200;
const SIGN_IN: u32 = 60;
const ROOM: u32 = 1_000;

impl RateLimits {
    /// The same with nothing left out.
    #[must_use]
    pub fn filled(&self, env: Env) -> Self {
        let room = match env {
            Env::Development => ROOM,
            Env::Production => 1,
        };
        let fill = |set: Option<u32>, default: u32| Some(set.unwrap_or(default * room));
        Self {
            enabled: self.enabled,
            member: fill(self.member, MEMBER),
            device: fill(self.device, DEVICE),
            anonymous: fill(self.anonymous, ANONYMOUS),
            sign_in: fill(self.sign_in, SIGN_IN),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let set = [self.member, self.device, self.anonymous, self.sign_in];
        if set.contains(&Some(0)) {
            return Err(Error::config("rate_limits must be at least 1"));
        }
        Ok(())
    }
}
