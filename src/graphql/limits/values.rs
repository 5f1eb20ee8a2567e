//! The values of variables, each as often as its variable is used: so often validation copies it, and what reads the argument.

use async_graphql::parser::types::{
    Directive, ExecutableDocument, OperationDefinition, Selection, SelectionSet,
};
use async_graphql::{Name, Positioned, Value, Variables};
use async_graphql_value::Value as Argument;
use std::collections::HashMap;

/// Bytes of a text that count as one value.
const TEXT: usize = 1024;

/// How often a document uses each variable, fragments expanded. Validation gives all operations the variables of the one that
/// runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses(HashMap<Name, u64>);

impl Uses {
    /// Those of a document whose selections were counted: it expands to a bounded number of them, and is not cyclic.
    pub(super) fn of(document: &ExecutableDocument) -> Self {
        let mut uses = Self::default();
        for (_, operation) in document.operations.iter() {
            uses.directives(&operation.node.directives);
            uses.set(document, &operation.node.selection_set.node);
        }
        uses
    }

    fn set(&mut self, document: &ExecutableDocument, set: &SelectionSet) {
        for selection in &set.items {
            self.directives(selection.node.directives());
            match &selection.node {
                Selection::Field(field) => {
                    for (_, argument) in &field.node.arguments {
                        self.argument(&argument.node);
                    }
                    self.set(document, &field.node.selection_set.node);
                }
                Selection::InlineFragment(inline) => {
                    self.set(document, &inline.node.selection_set.node);
                }
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    if let Some(fragment) = document.fragments.get(name) {
                        self.directives(&fragment.node.directives);
                        self.set(document, &fragment.node.selection_set.node);
                    }
                }
            }
        }
    }

    fn directives(&mut self, directives: &[Positioned<Directive>]) {
        for directive in directives {
            for (_, argument) in &directive.node.arguments {
                self.argument(&argument.node);
            }
        }
    }

    fn argument(&mut self, argument: &Argument) {
        match argument {
            Argument::Variable(name) => match self.0.get_mut(name) {
                Some(times) => *times += 1,
                None => {
                    self.0.insert(name.clone(), 1);
                }
            },
            Argument::List(items) => items.iter().for_each(|item| self.argument(item)),
            Argument::Object(fields) => fields.values().for_each(|field| self.argument(field)),
            _ => {}
        }
    }

    /// How many values there are: those that came with the request, and the defaults of the operation that runs.
    pub(super) fn values(
        &self,
        operation: Option<&OperationDefinition>,
        variables: &Variables,
    ) -> u64 {
        let definitions = operation.map_or(&[][..], |one| &one.variable_definitions);
        let defaults = definitions.iter().filter_map(|definition| {
            let definition = &definition.node;
            let name = &definition.name.node;
            let default = definition.default_value.as_ref()?;
            (!variables.contains_key(name)).then_some((name, &default.node))
        });
        let all = variables.iter().chain(defaults).map(|(name, value)| {
            let times = self.0.get(name).copied().unwrap_or(0).max(1);
            count(value).saturating_mul(times)
        });
        all.fold(0, u64::saturating_add)
    }
}

/// A value, and all that is in it.
fn count(value: &Value) -> u64 {
    let texts = |text: &str| (text.len() / TEXT) as u64;
    let within = match value {
        Value::String(text) => texts(text),
        Value::List(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| texts(name) + count(field))
            .sum(),
        _ => 0,
    };
    1 + within
}
