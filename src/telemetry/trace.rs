//! Traces, as W3C Trace Context writes them in a `traceparent`: from a request to the jobs it causes, and on to theirs.

use std::fmt;
use uuid::Uuid;

/// A span of a trace: what happens there names it as its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    id: u128,
    span: u64,
    flags: u8,
}

impl Trace {
    /// The span of what has this id, within the trace of what caused it; in one of its own if that has none.
    pub fn within(parent: Option<Self>, id: Uuid) -> Self {
        let (_, span) = id.as_u64_pair();
        Self {
            id: parent.map_or(id.as_u128(), |parent| parent.id),
            span,
            flags: parent.map_or(1, |parent| parent.flags),
        }
    }

    /// A `traceparent`; what is none begins no trace.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let mut next = |digits: usize| {
            let part = parts.next()?;
            let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            (part.len() == digits && part.bytes().all(is_hex)).then_some(part)
        };
        let (version, id, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        let trace = Self {
            id: u128::from_str_radix(id, 16).ok()?,
            span: u64::from_str_radix(span, 16).ok()?,
            flags: u8::from_str_radix(flags, 16).ok()?,
        };
        // Later versions may have more parts.
        let is_over = parts.next().is_none() || version != "00";
        (is_over && version != "ff" && trace.id != 0 && trace.span != 0).then_some(trace)
    }

    /// The trace's id: 32 hexadecimal digits.
    pub fn id(&self) -> String {
        format!("{:032x}", self.id)
    }

    /// The span's: 16.
    pub fn span(&self) -> String {
        format!("{:016x}", self.span)
    }
}

/// As a `traceparent`.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.id, self.span, self.flags
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_goes_on_and_what_is_none_does_not() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let parent = Trace::parse(text).unwrap();
        assert_eq!(parent.to_string(), text);
        let id = Uuid::from_u64_pair(1, 2);
        let child = Trace::within(Some(parent), id);
        assert_eq!(
            child.to_string(),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000002-00"
        );
        assert_eq!(
            Trace::within(None, id).id(),
            "00000000000000010000000000000002"
        );
        for none in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::parse(none), None, "{none}");
        }
        assert!(
            Trace::parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").is_some()
        );
    }
}
