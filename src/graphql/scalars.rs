//! Scalars of the contract that async-graphql does not have as we promise them.

use crate::clock::Timestamp;
use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, Value};

/// RFC 3339 timestamp in UTC with microseconds, e.g. 2026-11-22T22:11:43.000000Z.
#[derive(Clone, Copy, Debug)]
pub struct DateTime(pub Timestamp);

/// RFC 3339 timestamp in UTC with microseconds, e.g. 2026-11-22T22:11:43.000000Z.
#[Scalar(name = "DateTime")]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        let Value::String(text) = &value else {
            return Err(InputValueError::expected_type(value));
        };
        let parsed = chrono::DateTime::parse_from_rfc3339(text)
            .map_err(|_| InputValueError::custom("not an RFC 3339 timestamp"))?;
        Ok(Self(parsed.to_utc()))
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
    }
}

impl From<Timestamp> for DateTime {
    fn from(at: Timestamp) -> Self {
        Self(at)
    }
}

/// Byte count up to 2^53-1; a plain Int stops at 2 GiB.
#[derive(Clone, Copy, Debug)]
pub struct ByteSize(pub i64);

/// Byte count up to 2^53-1; a plain Int stops at 2 GiB.
#[Scalar(name = "ByteSize")]
impl ScalarType for ByteSize {
    fn parse(value: Value) -> InputValueResult<Self> {
        let bytes = match &value {
            Value::Number(number) => number.as_i64().filter(|n| (0..1 << 53).contains(n)),
            _ => None,
        };
        bytes
            .map(Self)
            .ok_or_else(|| InputValueError::custom("not a whole number of bytes from 0 to 2^53-1"))
    }

    fn to_value(&self) -> Value {
        Value::Number(self.0.into())
    }
}

/// An absolute URL: https in production.
#[derive(Clone, Debug)]
pub struct Url(pub String);

/// An absolute URL: https in production.
#[Scalar(name = "URL")]
impl ScalarType for Url {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::String(text) => Ok(Self(text)),
            other => Err(InputValueError::expected_type(other)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}
