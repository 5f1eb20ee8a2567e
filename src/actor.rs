//! Who does it: always known, always in the history.

use crate::telemetry::Trace;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Who acts. Written as `member:<uuid>`, `device:<uuid>`, `job:<uuid>`, `operator:<name>`, `impersonation:<uuid>:<name>` or
/// `system:<reason>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A person with a session.
    Member(Uuid),
    /// A device with a token.
    Device(Uuid),
    /// A job; who caused it is the attribution's cause.
    Job(Uuid),
    /// An operator, by the name the operating system knows.
    Operator(String),
    /// An operator in a session of a member's.
    Impersonation {
        /// For whom.
        member: Uuid,
        /// Who, as [`Actor::Operator`].
        operator: String,
    },
    /// The platform itself, and why.
    System(String),
}

impl Actor {
    /// The member for whom an operator acts, if one does.
    pub fn acted_for(&self) -> Option<Self> {
        match self {
            Self::Impersonation { member, .. } => Some(Self::Member(*member)),
            _ => None,
        }
    }

    /// What the history keeps of a unit of work that this actor begins by a request.
    pub fn by_request(self, request: &RequestId) -> Attribution {
        Attribution {
            request_id: Some(request.0.clone()),
            trace: request.trace(),
            ..self.into()
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(id) => write!(f, "member:{id}"),
            Self::Device(id) => write!(f, "device:{id}"),
            Self::Job(id) => write!(f, "job:{id}"),
            Self::Operator(name) => write!(f, "operator:{name}"),
            Self::Impersonation { member, operator } => {
                write!(f, "impersonation:{member}:{operator}")
            }
            Self::System(reason) => write!(f, "system:{reason}"),
        }
    }
}

impl FromStr for Actor {
    type Err = UnknownActor;

    fn from_str(text: &str) -> Result<Self, UnknownActor> {
        let (kind, rest) = text.split_once(':').ok_or(UnknownActor)?;
        let id = || Uuid::parse_str(rest).map_err(|_| UnknownActor);
        match kind {
            "member" => id().map(Self::Member),
            "device" => id().map(Self::Device),
            "job" => id().map(Self::Job),
            "operator" => Ok(Self::Operator(rest.to_owned())),
            "impersonation" => {
                let (member, operator) = rest.split_once(':').ok_or(UnknownActor)?;
                Ok(Self::Impersonation {
                    member: Uuid::parse_str(member).map_err(|_| UnknownActor)?,
                    operator: operator.to_owned(),
                })
            }
            "system" => Ok(Self::System(rest.to_owned())),
            _ => Err(UnknownActor),
        }
    }
}

/// The text names no actor.
#[derive(Clone, Copy, Debug)]
pub struct UnknownActor;

impl fmt::Display for UnknownActor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an actor")
    }
}

impl std::error::Error for UnknownActor {}

/// The identity of a request, in logs, errors, history and the answer's `X-Request-Id`.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

impl RequestId {
    /// Its span, in a trace of its own.
    pub fn trace(&self) -> Option<Trace> {
        let id = Uuid::parse_str(&self.0).ok()?;
        Some(Trace::within(None, id))
    }
}

/// What the history keeps of a unit of work besides the rows.
#[derive(Clone, Debug)]
pub struct Attribution {
    /// Who.
    pub actor: Actor,
    /// For a job: who caused it, written as an actor.
    pub cause: Option<String>,
    /// The request it came with.
    pub request_id: Option<String>,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// Where it belongs, for the jobs that come of it.
    pub trace: Option<Trace>,
}

impl From<Actor> for Attribution {
    fn from(actor: Actor) -> Self {
        Self {
            actor,
            cause: None,
            request_id: None,
            reason: None,
            trace: None,
        }
    }
}
