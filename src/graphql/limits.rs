//! Limits on a document, held before it is validated: validation walks the document with its fragments expanded, and
//! fragments that double each other make a text of under 1 kB expand to billions of fields.

use crate::error::{Error, Result};
use async_graphql::Positioned;
use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};
use std::collections::HashMap;

/// Bytes of a document's text.
const MAX_BYTES: usize = 16 * 1024;
/// Fields of a document, its fragments expanded.
const MAX_SELECTIONS: u64 = 2000;

/// Refuses a text that is too long to be parsed.
pub(super) fn check_text(text: &str) -> Result<()> {
    within("documentBytes", MAX_BYTES as u64, text.len() as u64)
}

/// Refuses a document that has too many fields.
pub(super) fn check(document: &ExecutableDocument) -> Result<()> {
    let mut counter = Counter {
        document,
        fragments: HashMap::new(),
    };
    let fields = document
        .operations
        .iter()
        .map(|(_, operation)| counter.set(&operation.node.selection_set))
        .fold(0, u64::saturating_add);
    within("selections", MAX_SELECTIONS, fields)
}

fn within(limit: &'static str, max: u64, actual: u64) -> Result<()> {
    if actual > max {
        return Err(Error::QueryLimit { limit, max, actual });
    }
    Ok(())
}

/// Counts each fragment once, whatever the number of its spreads, and never past the largest number.
struct Counter<'a> {
    document: &'a ExecutableDocument,
    fragments: HashMap<&'a str, u64>,
}

impl<'a> Counter<'a> {
    fn set(&mut self, set: &'a Positioned<SelectionSet>) -> u64 {
        let mut fields: u64 = 0;
        for selection in &set.node.items {
            fields = fields.saturating_add(match &selection.node {
                Selection::Field(field) => self.set(&field.node.selection_set).saturating_add(1),
                Selection::InlineFragment(fragment) => self.set(&fragment.node.selection_set),
                Selection::FragmentSpread(spread) => self.fragment(&spread.node.fragment_name.node),
            });
        }
        fields
    }

    fn fragment(&mut self, name: &'a str) -> u64 {
        if let Some(fields) = self.fragments.get(name) {
            return *fields;
        }
        // What is spread inside itself counts as nothing there; validation refuses it by name.
        self.fragments.insert(name, 0);
        let fields = match self.document.fragments.get(name) {
            Some(fragment) => self.set(&fragment.node.selection_set),
            None => 0,
        };
        self.fragments.insert(name, fields);
        fields
    }
}
