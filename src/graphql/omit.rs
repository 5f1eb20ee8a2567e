//! Variables without a value: an argument or input field that stands for one is as if it was not there, and has its default
//! (GraphQL §6.4.1). async-graphql (7.2.1) would take it for null.

use async_graphql::parser::types::{
    Directive, DocumentOperations, ExecutableDocument, Selection, SelectionSet,
};
use async_graphql::{Name, Positioned};
use async_graphql_value::Value;

type Arguments = Vec<(Positioned<Name>, Positioned<Value>)>;

/// Takes variables out of a document of one operation. Says whether it could: in one of many, another may need them.
pub(super) fn omit(document: &mut ExecutableDocument, absent: &[Name]) -> bool {
    let operation = match &mut document.operations {
        DocumentOperations::Single(only) => &mut only.node,
        DocumentOperations::Multiple(all) if all.len() == 1 => match all.values_mut().next() {
            Some(only) => &mut only.node,
            None => return false,
        },
        DocumentOperations::Multiple(_) => return false,
    };
    let kept = |name: &Name| !absent.contains(name);
    let definitions = &mut operation.variable_definitions;
    definitions.retain(|definition| kept(&definition.node.name.node));
    directives(&mut operation.directives, absent);
    selections(&mut operation.selection_set.node, absent);
    for fragment in document.fragments.values_mut() {
        selections(&mut fragment.node.selection_set.node, absent);
    }
    true
}

fn selections(set: &mut SelectionSet, absent: &[Name]) {
    for selection in &mut set.items {
        directives(selection.node.directives_mut(), absent);
        match &mut selection.node {
            Selection::Field(field) => {
                arguments(&mut field.node.arguments, absent);
                selections(&mut field.node.selection_set.node, absent);
            }
            Selection::InlineFragment(fragment) => {
                selections(&mut fragment.node.selection_set.node, absent);
            }
            Selection::FragmentSpread(_) => {}
        }
    }
}

fn directives(directives: &mut [Positioned<Directive>], absent: &[Name]) {
    for directive in directives {
        arguments(&mut directive.node.arguments, absent);
    }
}

fn arguments(arguments: &mut Arguments, absent: &[Name]) {
    arguments.retain_mut(|(_, argument)| keep(&mut argument.node, absent));
}

/// Whether a value is there. In a list there is a null in its place.
fn keep(value: &mut Value, absent: &[Name]) -> bool {
    match value {
        Value::Variable(name) => return !absent.contains(name),
        Value::Object(fields) => fields.retain(|_, field| keep(field, absent)),
        Value::List(items) => {
            for item in items {
                if !keep(item, absent) {
                    *item = Value::Null;
                }
            }
        }
        _ => {}
    }
    true
}
