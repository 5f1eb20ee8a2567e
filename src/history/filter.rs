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
    pub actions: Option<Actions>,
    /// At this time or later.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

/// Kinds of changes.
#[derive(Clone, Debug)]
pub struct Actions {
    /// Those that take others back, whatever they did to the row.
    pub reverts: bool,
    /// Of those that do not, these.
    pub others: Vec<Action>,
}

impl Actions {
    fn has(&self, change: &Row) -> bool {
        match change.reverts {
            Some(_) => self.reverts,
            None => self.others.contains(&change.action),
        }
    }
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
                .is_none_or(|actions| actions.has(change))
            && self.from.is_none_or(|from| at >= from)
            && self.until.is_none_or(|until| at < until)
    }
}
