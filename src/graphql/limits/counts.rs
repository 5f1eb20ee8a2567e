//! Counts what a document has with its fragments expanded, each fragment once: fragments that double each other make a text
//! of under 1 kB expand to billions of selections.

use async_graphql::Positioned;
use async_graphql::parser::types::{
    Directive, ExecutableDocument, OperationDefinition, Selection, SelectionSet,
};
use std::collections::HashMap;

/// Selection sets in each other, fragments expanded. async-graphql goes no deeper.
pub(super) const MAX_LEVELS: u64 = 32;

/// What a selection set has, all that is in it included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Fields, spreads and inline fragments.
    pub(super) selections: u64,
    pub(super) aliases: u64,
    /// Levels of fields.
    pub(super) depth: u64,
    /// Levels of selection sets.
    pub(super) levels: u64,
    /// Directives in one place, at most.
    pub(super) directives: u64,
    /// Arguments of one field or directive, at most.
    pub(super) arguments: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.selections = self.selections.saturating_add(other.selections);
        self.aliases = self.aliases.saturating_add(other.aliases);
        self.depth = self.depth.max(other.depth);
        self.levels = self.levels.max(other.levels);
        self.directives = self.directives.max(other.directives);
        self.arguments = self.arguments.max(other.arguments);
    }

    fn at_least(mut self, directives: &[Positioned<Directive>]) -> Self {
        self.directives = self.directives.max(directives.len() as u64);
        for directive in directives {
            self.arguments = self.arguments.max(directive.node.arguments.len() as u64);
        }
        self
    }
}

/// Counts each fragment once, whatever the number of its spreads, and never past the largest number.
#[derive(Debug)]
pub(super) struct Counter<'a> {
    document: &'a ExecutableDocument,
    /// None while it is counted.
    fragments: HashMap<&'a str, Option<Counts>>,
    /// Whether a fragment is spread within itself. Such a document cannot be expanded.
    pub(super) is_cyclic: bool,
}

impl<'a> Counter<'a> {
    pub(super) fn new(document: &'a ExecutableDocument) -> Self {
        Self {
            document,
            fragments: HashMap::new(),
            is_cyclic: false,
        }
    }

    pub(super) fn operation(&mut self, operation: &'a OperationDefinition) -> Counts {
        let variables = operation.variable_definitions.iter();
        variables.fold(
            self.set(&operation.selection_set.node, 1)
                .at_least(&operation.directives),
            |counts, variable| counts.at_least(&variable.node.directives),
        )
    }

    fn set(&mut self, set: &'a SelectionSet, level: u64) -> Counts {
        let mut counts = Counts {
            levels: u64::from(!set.items.is_empty()),
            ..Counts::default()
        };
        if level > MAX_LEVELS {
            // Refused for that: what is below does not matter, and must not be walked.
            return counts;
        }
        for selection in &set.items {
            let mut one = match &selection.node {
                Selection::Field(field) => {
                    let field = &field.node;
                    let mut one = self.set(&field.selection_set.node, level + 1);
                    one.depth += 1;
                    one.aliases = one.aliases.saturating_add(field.alias.is_some().into());
                    one.arguments = one.arguments.max(field.arguments.len() as u64);
                    one.at_least(&field.directives)
                }
                Selection::InlineFragment(inline) => self
                    .set(&inline.node.selection_set.node, level + 1)
                    .at_least(&inline.node.directives),
                Selection::FragmentSpread(spread) => self
                    .fragment(&spread.node.fragment_name.node, level + 1)
                    .at_least(&spread.node.directives),
            };
            one.selections = one.selections.saturating_add(1);
            one.levels += 1;
            counts.add(one);
        }
        counts
    }

    fn fragment(&mut self, name: &'a str, level: u64) -> Counts {
        match self.fragments.get(name) {
            Some(Some(counts)) => return *counts,
            Some(None) => {
                self.is_cyclic = true;
                return Counts::default();
            }
            None => {}
        }
        // An unknown one is validation's to refuse.
        let Some(fragment) = self.document.fragments.get(name) else {
            return Counts::default();
        };
        self.fragments.insert(name, None);
        let counts = self
            .set(&fragment.node.selection_set.node, level)
            .at_least(&fragment.node.directives);
        self.fragments.insert(name, Some(counts));
        counts
    }
}
