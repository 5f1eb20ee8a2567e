//! What validation would tell many times over, told once and before it. async-graphql (7.2.1) tells of a field that repeats
//! the key of another one by one: for each of its arguments, and for each selection set around it, so that 3 kB of text make
//! millions of errors.

use async_graphql::parser::types::{Directive, ExecutableDocument, Field, Selection, SelectionSet};
use async_graphql::{Name, Positioned, ServerError};
use async_graphql_value::Value;
use std::collections::{HashMap, HashSet};

type Found = Result<(), ServerError>;

/// Refuses a document with a fragment that nothing spreads, an argument that is there twice, or two fields of one key that
/// are not the same: with the first that is found, in the words of validation.
///
/// The document is within the limits: its fields have few arguments, and its selection sets are in few others.
pub(in crate::graphql) fn refuse(document: &ExecutableDocument) -> Found {
    unused(document)?;
    for (_, operation) in document.operations.iter() {
        let operation = &operation.node;
        directives(&operation.directives)?;
        for variable in &operation.variable_definitions {
            directives(&variable.node.directives)?;
        }
        below(document, &operation.selection_set.node)?;
    }
    for fragment in document.fragments.values() {
        directives(&fragment.node.directives)?;
        below(document, &fragment.node.selection_set.node)?;
    }
    Ok(())
}

/// A fragment that no operation spreads is counted nowhere, and would be validated all the same.
fn unused(document: &ExecutableDocument) -> Found {
    let mut used = HashSet::new();
    for (_, operation) in document.operations.iter() {
        spread(document, &operation.node.selection_set.node, &mut used);
    }
    let fragments = document.fragments.iter();
    let unused = fragments.filter(|(name, _)| !used.contains(name.as_str()));
    match unused.min_by_key(|(_, fragment)| fragment.pos) {
        Some((name, fragment)) => {
            let message = format!("Fragment \"{name}\" is never used");
            Err(ServerError::new(message, Some(fragment.pos)))
        }
        None => Ok(()),
    }
}

fn spread<'a>(
    document: &'a ExecutableDocument,
    set: &'a SelectionSet,
    used: &mut HashSet<&'a str>,
) {
    for selection in &set.items {
        let set = match &selection.node {
            Selection::Field(field) => &field.node.selection_set,
            Selection::InlineFragment(inline) => &inline.node.selection_set,
            Selection::FragmentSpread(spread) => {
                let name = spread.node.fragment_name.node.as_str();
                match document.fragments.get(name) {
                    Some(fragment) if used.insert(name) => &fragment.node.selection_set,
                    _ => continue,
                }
            }
        };
        spread(document, &set.node, used);
    }
}

/// Looks at a selection set and at those in it, but for what it spreads.
fn below(document: &ExecutableDocument, set: &SelectionSet) -> Found {
    let mut keys = Keys {
        document,
        first: HashMap::new(),
        spread: HashSet::new(),
    };
    keys.add(None, set)?;
    for selection in &set.items {
        directives(selection.node.directives())?;
        match &selection.node {
            Selection::Field(field) => {
                once(&field.node.arguments)?;
                below(document, &field.node.selection_set.node)?;
            }
            Selection::InlineFragment(inline) => {
                below(document, &inline.node.selection_set.node)?;
            }
            Selection::FragmentSpread(_) => {}
        }
    }
    Ok(())
}

fn directives(directives: &[Positioned<Directive>]) -> Found {
    let mut directives = directives.iter();
    directives.try_for_each(|directive| once(&directive.node.arguments))
}

fn once(arguments: &[(Positioned<Name>, Positioned<Value>)]) -> Found {
    for (index, (name, _)) in arguments.iter().enumerate() {
        if arguments[..index].iter().any(|(other, _)| other == name) {
            let message = format!("There can only be one argument named \"{}\"", name.node);
            return Err(ServerError::new(message, Some(name.pos)));
        }
    }
    Ok(())
}

/// The fields of one selection set, those of its fragments among them.
struct Keys<'a> {
    document: &'a ExecutableDocument,
    /// The first of each type condition and key, as async-graphql tells them apart.
    first: HashMap<(Option<&'a str>, &'a str), &'a Positioned<Field>>,
    /// Fragments that were looked at.
    spread: HashSet<&'a str>,
}

impl<'a> Keys<'a> {
    fn add(&mut self, on: Option<&'a str>, set: &'a SelectionSet) -> Found {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => self.field(on, field)?,
                Selection::InlineFragment(inline) => {
                    let on = inline.node.type_condition.as_ref();
                    let on = on.map(|on| on.node.on.node.as_str());
                    self.add(on, &inline.node.selection_set.node)?;
                }
                Selection::FragmentSpread(spread) => {
                    let name = spread.node.fragment_name.node.as_str();
                    if let Some(fragment) = self.document.fragments.get(name)
                        && self.spread.insert(name)
                    {
                        let on = fragment.node.type_condition.node.on.node.as_str();
                        self.add(Some(on), &fragment.node.selection_set.node)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn field(&mut self, on: Option<&'a str>, field: &'a Positioned<Field>) -> Found {
        let key = field.node.response_key().node.as_str();
        let first = *self.first.entry((on, key)).or_insert(field);
        let (one, other) = (&first.node, &field.node);
        let (name, its) = (&one.name.node, &other.name.node);
        let same = |(name, value): &(Positioned<Name>, Positioned<Value>)| {
            other.get_argument(&name.node) == Some(value)
        };
        let why = if name != its {
            format!("\"{name}\" and \"{its}\" are different fields")
        } else if one.arguments.len() != other.arguments.len() || !one.arguments.iter().all(same) {
            "they have differing arguments".to_owned()
        } else {
            return Ok(());
        };
        let message = format!(
            "Fields \"{key}\" conflict because {why}. Use different aliases on the fields to fetch both if this was intentional."
        );
        let mut error = ServerError::new(message, Some(first.pos));
        error.locations.push(field.pos);
        Err(error)
    }
}
