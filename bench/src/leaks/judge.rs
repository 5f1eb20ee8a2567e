//! Tells whether an answer holds what is another tenant's.

use super::world::SLUGS;
use crate::proxy::find;
use std::collections::HashMap;

/// Bytes of an answer shown as evidence, before and after what was found.
const AROUND: usize = 120;

/// Knows the tenants' markers, and at whose host each id was seen first.
#[derive(Debug, Default)]
pub(super) struct Judge {
    ids: HashMap<Vec<u8>, usize>,
}

impl Judge {
    /// What of the answer is not of the tenant that was asked: a marker, or an id that was seen at another.
    pub(super) fn foreign(&mut self, tenant: Option<usize>, answer: &[u8]) -> Option<String> {
        let marker = after(answer, b"mk-").find(|&at| {
            let whose = SLUGS.iter().position(|slug| {
                let rest = answer[at..].strip_prefix(slug.as_bytes());
                rest.is_some_and(|rest| rest.starts_with(b"-"))
            });
            whose.is_some() && whose != tenant
        });
        let id = tenant.and_then(|tenant| {
            after(answer, b"\"id\":\"").find(|&at| {
                let Some(end) = find(&answer[at..], b"\"") else {
                    return false;
                };
                let id = answer[at..at + end].to_vec();
                *self.ids.entry(id).or_insert(tenant) != tenant
            })
        });
        marker.or(id).map(|at| {
            let shown = at.saturating_sub(AROUND)..answer.len().min(at + AROUND);
            String::from_utf8_lossy(&answer[shown]).into_owned()
        })
    }
}

/// Where something ends, each time.
fn after(text: &[u8], what: &'static [u8]) -> impl Iterator<Item = usize> {
    let mut from = 0;
    std::iter::from_fn(move || {
        from += find(&text[from..], what)? + what.len();
        Some(from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_and_ids_of_others_are_foreign() {
        let mut judge = Judge::default();
        assert_eq!(
            judge.foreign(Some(0), b"{\"id\":\"x\",\"name\":\"mk-aster-1\"}"),
            None
        );
        assert!(
            judge
                .foreign(Some(0), b"mk-aster-1 mk-birch-1 mk-aster-2")
                .is_some()
        );
        assert!(judge.foreign(None, b"mk-aster-1").is_some());
        assert!(judge.foreign(Some(1), b"{\"id\":\"x\"}").is_some());
        assert_eq!(judge.foreign(Some(0), b"{\"id\":\"x\"} mk-birc"), None);
    }
}
