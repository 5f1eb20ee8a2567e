//! The answer as GraphQL §6.4 has it: fields in the order of the document, and null where a field failed.
//!
//! async-graphql (7.2.1) puts fields in the order in which they were done, and leaves out those that failed.

use super::types::Types;
use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{
    BaseType, ExecutableDocument, OperationDefinition, Selection, SelectionSet, Type,
};
use async_graphql::{Name, PathSegment, Response, Value};

/// The fields of a selection, those of its fragments among them, in the order of the document.
#[derive(Debug, Default)]
pub(super) struct Shape(Vec<Field>);

#[derive(Debug)]
struct Field {
    /// What it is called in the answer.
    key: Name,
    /// Not known of introspection.
    ty: Option<Type>,
    fields: Shape,
}

impl Shape {
    /// The shape of an operation of a valid document: one whose fragments do not spread themselves.
    pub(super) fn of(
        types: &Types,
        document: &ExecutableDocument,
        operation: &OperationDefinition,
        root: &str,
    ) -> Self {
        let mut shape = Self::default();
        let builder = Builder { types, document };
        builder.add(&mut shape, &operation.selection_set.node, root);
        shape
    }

    /// Makes of a response what the specification has it be.
    pub(super) fn complete(&self, response: &mut Response) {
        if response.errors.is_empty() && response.data == Value::Null {
            // Every field was skipped.
            response.data = Value::Object(IndexMap::new());
        }
        for pass in [Pass::Mend, Pass::Propagate] {
            for error in &response.errors {
                if self.fail(&mut response.data, &error.path, pass) {
                    response.data = Value::Null;
                }
            }
        }
        self.order(&mut response.data);
    }

    /// Says whether the object must be null, for the field at this path failed and may not be null.
    fn fail(&self, value: &mut Value, path: &[PathSegment], pass: Pass) -> bool {
        let Some((PathSegment::Field(key), rest)) = path.split_first() else {
            return false;
        };
        if pass == Pass::Mend && *value == Value::Null {
            // An object of which every field failed.
            *value = Value::Object(IndexMap::new());
        }
        let field = self.0.iter().find(|field| field.key == *key);
        let (Value::Object(fields), Some(field)) = (value, field) else {
            return false;
        };
        match fields.get_mut(key.as_str()) {
            Some(value) => field.fail(field.ty.as_ref(), value, rest, pass),
            None if is_nullable(field.ty.as_ref()) => {
                fields.insert(field.key.clone(), Value::Null);
                false
            }
            None => pass == Pass::Propagate,
        }
    }

    fn order(&self, value: &mut Value) {
        match value {
            Value::List(items) => items.iter_mut().for_each(|item| self.order(item)),
            Value::Object(fields) => {
                let mut expected = self.0.iter();
                let in_order = fields
                    .keys()
                    .all(|key| expected.any(|field| field.key == *key));
                if !in_order {
                    let place = |key: &Name| self.0.iter().position(|field| field.key == *key);
                    fields.sort_by_cached_key(|key, _| place(key));
                }
                let mut expected = self.0.iter();
                for (key, value) in fields {
                    let field = expected.find(|field| field.key == *key);
                    if let Some(field) = field.filter(|field| !field.fields.0.is_empty()) {
                        field.fields.order(value);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Field {
    /// The same of what is below a field, of this type: itself, or an item of its list.
    fn fail(&self, ty: Option<&Type>, value: &mut Value, path: &[PathSegment], pass: Pass) -> bool {
        let failed = match (path.split_first(), &mut *value) {
            (Some((PathSegment::Index(index), rest)), Value::List(items)) => {
                let item = items.get_mut(*index);
                item.is_some_and(|item| self.fail(ty.and_then(item_of), item, rest, pass))
            }
            (Some((PathSegment::Field(_), _)), value) => self.fields.fail(value, path, pass),
            _ => false,
        };
        if failed {
            *value = Value::Null;
        }
        failed && !is_nullable(ty)
    }
}

/// First what was left out is put back, for an object without a field is told from one that is null by that alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Mend,
    Propagate,
}

fn item_of(ty: &Type) -> Option<&Type> {
    match &ty.base {
        BaseType::List(item) => Some(item),
        BaseType::Named(_) => None,
    }
}

fn is_nullable(ty: Option<&Type>) -> bool {
    ty.is_none_or(|ty| ty.nullable)
}

struct Builder<'a> {
    types: &'a Types,
    document: &'a ExecutableDocument,
}

impl Builder<'_> {
    fn add(&self, shape: &mut Shape, set: &SelectionSet, parent: &str) {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => {
                    let key = &field.node.response_key().node;
                    let ty = self.types.field(parent, &field.node.name.node);
                    let known = shape.0.iter().position(|field| field.key == *key);
                    let index = known.unwrap_or(shape.0.len());
                    if known.is_none() {
                        shape.0.push(Field {
                            key: key.clone(),
                            ty: ty.cloned(),
                            fields: Shape::default(),
                        });
                    }
                    let within = ty.map_or("", named);
                    let fields = &mut shape.0[index].fields;
                    self.add(fields, &field.node.selection_set.node, within);
                }
                Selection::InlineFragment(fragment) => {
                    let on = fragment.node.type_condition.as_ref();
                    let on = on.map_or(parent, |on| on.node.on.node.as_str());
                    self.add(shape, &fragment.node.selection_set.node, on);
                }
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    if let Some(fragment) = self.document.fragments.get(name) {
                        let on = fragment.node.type_condition.node.on.node.as_str();
                        self.add(shape, &fragment.node.selection_set.node, on);
                    }
                }
            }
        }
    }
}

/// The type without its lists.
fn named(ty: &Type) -> &str {
    match &ty.base {
        BaseType::Named(name) => name.as_str(),
        BaseType::List(item) => named(item),
    }
}
