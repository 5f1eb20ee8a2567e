//! The messages of graphql-transport-ws, and the codes that a socket is closed with.

use super::super::standing::Ended;
use crate::caller::bearer_token;
use crate::error::{Error, Result};
use crate::graphql::Asked;
use crate::graphql::door::Body;
use async_graphql::Response;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, close_code};
use serde::Deserialize;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// What a client says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Said {
    ConnectionInit {
        payload: Option<Map<String, Value>>,
    },
    Ping {
        payload: Option<Map<String, Value>>,
    },
    Pong {
        #[serde(rename = "payload")]
        _payload: Option<Map<String, Value>>,
    },
    Subscribe {
        id: String,
        payload: Map<String, Value>,
    },
    Complete {
        id: String,
    },
}

impl Said {
    /// Reads a message; one that is none closes the socket.
    pub(super) fn read(text: &str) -> Result<Self, Close> {
        let read = serde_json::from_str(text);
        // serde would take the fields from an array, by their order.
        let read = read
            .ok()
            .filter(|_| text.trim_ascii_start().starts_with('{'));
        read.filter(|said| !matches!(said, Self::Subscribe { id, .. } | Self::Complete { id } if id.is_empty()))
            .ok_or(Close::INVALID)
    }
}

/// The token of `connectionParams.authorization`: `Bearer …`, as in the header.
pub(super) fn token(params: Option<&Map<String, Value>>) -> Result<Option<String>> {
    let given = params.and_then(|params| {
        let mut found = params
            .iter()
            .filter(|(name, value)| name.eq_ignore_ascii_case("authorization") && !value.is_null());
        found.next().map(|(_, value)| value)
    });
    match given {
        Some(value) => bearer_token(value.as_str().unwrap_or_default()).map(|t| Some(t.to_owned())),
        None => Ok(None),
    }
}

/// What a `subscribe` asks for.
pub(super) fn asked(payload: Map<String, Value>) -> Result<Asked, Close> {
    Asked::by_message(payload).map_err(|_| Close::INVALID)
}

pub(super) fn ack() -> Message {
    text(&json!({ "type": "connection_ack" }))
}

pub(super) fn pong(payload: Option<Map<String, Value>>) -> Message {
    text(&match payload {
        Some(payload) => json!({ "type": "pong", "payload": payload }),
        None => json!({ "type": "pong" }),
    })
}

pub(super) fn next(id: &str, response: &Response) -> Message {
    #[derive(Serialize)]
    struct Next<'a> {
        id: &'a str,
        r#type: &'static str,
        payload: Body<'a>,
    }
    text(&Next {
        id,
        r#type: "next",
        payload: Body::from(response),
    })
}

pub(super) fn error(id: &str, response: &Response) -> Message {
    text(&json!({ "id": id, "type": "error", "payload": response.errors }))
}

pub(super) fn complete(id: &str) -> Message {
    text(&json!({ "id": id, "type": "complete" }))
}

fn text(message: &impl Serialize) -> Message {
    // Values that come from JSON or go to a client as JSON: they can be written.
    Message::Text(serde_json::to_string(message).unwrap_or_default().into())
}

/// How a socket ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Close {
    code: u16,
    reason: Cow<'static, str>,
}

impl Close {
    pub(super) const INVALID: Self = Self::new(4400, "Invalid message received");
    pub(super) const UNAUTHORIZED: Self = Self::new(4401, "Unauthorized");
    pub(super) const SUBPROTOCOL: Self = Self::new(4406, "Subprotocol not acceptable");
    pub(super) const NO_INIT: Self = Self::new(4408, "Connection initialisation timeout");
    pub(super) const TOO_SLOW: Self = Self::new(4413, "Too slow: more came than was read");
    pub(super) const TOO_MANY_INITS: Self = Self::new(4429, "Too many initialisation requests");
    pub(super) const INTERNAL: Self = Self::new(4500, "Internal server error");
    pub(super) const AWAY: Self = Self::new(close_code::AWAY, "The server stops");
    pub(super) const SILENT: Self = Self::new(close_code::AWAY, "Nothing was heard from you");
    pub(super) const BROKEN: Self = Self::new(close_code::PROTOCOL, "Not a WebSocket's frame");
    pub(super) const TOO_LARGE: Self = Self::new(close_code::SIZE, "The message is too large");
    const MOVED: Self = Self::new(close_code::RESTART, "Connect again");

    const fn new(code: u16, reason: &'static str) -> Self {
        Self {
            code,
            reason: Cow::Borrowed(reason),
        }
    }

    /// An id that is in use.
    pub(super) fn exists(id: &str) -> Self {
        Self {
            reason: Cow::Owned(format!("Subscriber for {id} already exists")),
            ..Self::new(4409, "")
        }
    }

    /// Whoever it is, they are not let in.
    pub(super) fn refused(error: &Error) -> Self {
        match error {
            Error::Internal(_) => {
                tracing::error!(?error, "a socket failed");
                Self::INTERNAL
            }
            error => Self {
                reason: Cow::Owned(error.to_string()),
                ..Self::new(4403, "")
            },
        }
    }

    pub(super) fn frame(self) -> Message {
        // RFC 6455 §5.5: a control frame has 125 bytes, two of them the code.
        let mut reason = self.reason.into_owned();
        let end = (0..=123.min(reason.len())).rfind(|&end| reason.is_char_boundary(end));
        reason.truncate(end.unwrap_or_default());
        Message::Close(Some(CloseFrame {
            code: self.code,
            reason: Utf8Bytes::from(reason),
        }))
    }
}

impl From<Ended> for Close {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Credential(error) => Self {
                reason: Cow::Owned(error.to_string()),
                ..Self::UNAUTHORIZED
            },
            Ended::Tenant(error) => Self::refused(&error),
            Ended::Moved => Self::MOVED,
        }
    }
}
