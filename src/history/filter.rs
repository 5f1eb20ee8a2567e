//! Which changes somebody wants to see.

use super::Row;
use crate::clock::Timestamp;
use entity::tenant::history::Action;
use uuid::Uuid;

/// Which changes; all that is given holds.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// By whom, as the rows keep it.
    pub actor: Option<String>,
    /// Of this row.
    pub subject: Option<Uuid>,
    /// Of rows of these tables.
    pub subject_types: Option<Vec<String>>,
    /// Of these kinds.
    pub actions: Option<Vec<Action>>,
    /// At this time or later.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Whether the change passes.
    pub fn takes(&self, change: &Row) -> bool {
        let at = change.recorded_at;
        self.actor
            .as_ref()
            .is_none_or(|actor| *actor == change.actor)
            && self
                .subject
                .is_none_or(|subject| subject == change.subject_id)
            && self
                .subject_types
                .as_ref()
                .is_none_or(|types| types.contains(&change.subject_type))
            && self
                .actions
                .as_ref()
                .is_none_or(|actions| actions.contains(&change.action))
            && self.from.is_none_or(|from| at >= from)
            && self.until.is_none_or(|until| at < until)
    }
}
