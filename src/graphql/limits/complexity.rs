//! What an operation can cost: its fields, those of a list for each row that the list can have.

use super::MAX_PAGE;
use super::lists::{Fields, Rows};
use async_graphql::parser::types::{
    ExecutableDocument, Field as Asked, OperationDefinition, OperationType, Selection, SelectionSet,
};
use async_graphql::{Value, Variables};
use async_graphql_value::Value as Argument;

/// What a root field costs that hashes a password or PIN: a few in one operation, not thirty.
const HASHING: u64 = 1000;

/// What an operation costs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Price {
    /// Of what it asks of the tenant.
    pub(super) data: u64,
    /// Of what it asks of the schema.
    pub(super) introspection: u64,
    /// Whether the values of variables made a difference.
    pub(super) varies: bool,
}

/// Adds up one operation of a document whose selections were counted: it expands to a bounded number of them, and is not
/// cyclic.
pub(super) struct Pricing<'a> {
    pub(super) fields: &'a Fields,
    pub(super) document: &'a ExecutableDocument,
    pub(super) operation: &'a OperationDefinition,
    /// None before they are known.
    pub(super) variables: Option<&'a Variables>,
    /// Root fields that hash.
    pub(super) hashing: &'static [&'static str],
    /// Whether the value of a variable made a difference.
    pub(super) varies: bool,
}

impl<'a> Pricing<'a> {
    pub(super) fn price(mut self) -> Price {
        let root = match self.operation.ty {
            OperationType::Query => 0,
            OperationType::Mutation => 1,
            OperationType::Subscription => 2,
        };
        let root = self.fields.roots[root].as_str();
        let mut price = Price::default();
        let document = self.document;
        each_field(document, &self.operation.selection_set.node, &mut |field| {
            let name = field.name.node.as_str();
            let hashing = self.hashing.contains(&name);
            let cost = self.field(field, root, None);
            match name {
                "__schema" | "__type" => {
                    price.introspection = price.introspection.saturating_add(cost);
                }
                _ if hashing => {
                    price.data = price.data.saturating_add(cost.saturating_add(HASHING));
                }
                _ => price.data = price.data.saturating_add(cost),
            }
        });
        price.varies = self.varies;
        price
    }

    /// `page`: rows of the page that the set's lists are of.
    fn set(&mut self, set: &'a SelectionSet, parent: &'a str, page: Option<u64>) -> u64 {
        let mut sum: u64 = 0;
        for selection in &set.items {
            sum = sum.saturating_add(match &selection.node {
                Selection::Field(field) => self.field(&field.node, parent, page),
                Selection::InlineFragment(inline) => {
                    let inline = &inline.node;
                    let on = inline.type_condition.as_ref();
                    let parent = on.map_or(parent, |on| on.node.on.node.as_str());
                    self.set(&inline.selection_set.node, parent, page)
                }
                Selection::FragmentSpread(spread) => {
                    match self.document.fragments.get(&spread.node.fragment_name.node) {
                        Some(fragment) => {
                            let fragment = &fragment.node;
                            let on = fragment.type_condition.node.on.node.as_str();
                            self.set(&fragment.selection_set.node, on, page)
                        }
                        None => 0,
                    }
                }
            });
        }
        sum
    }

    fn field(&mut self, asked: &'a Asked, parent: &'a str, page: Option<u64>) -> u64 {
        let fields = self.fields;
        let known = fields.get(parent, &asked.name.node);
        let (rows, below) = match known.map(|field| &field.rows) {
            None | Some(Rows::One) => (1, None),
            Some(Rows::Paged { default, is_list }) => {
                let page = self.page(asked).unwrap_or(*default).min(MAX_PAGE);
                (if *is_list { page } else { 1 }, Some(page))
            }
            Some(Rows::AsMany(arguments)) => (self.longest(asked, arguments), None),
            Some(Rows::About(rows)) => (page.unwrap_or(*rows), None),
        };
        let named = known.map_or("", |field| field.named.as_str());
        let each = self.set(&asked.selection_set.node, named, below);
        rows.saturating_mul(each).saturating_add(1)
    }

    /// Rows of a page: what `first` or `last` says, the larger of them.
    fn page(&mut self, asked: &'a Asked) -> Option<u64> {
        let said = ["first", "last"].map(|name| match &asked.get_argument(name)?.node {
            Argument::Number(number) => number.as_u64(),
            Argument::Variable(name) => match self.value(name)? {
                Value::Number(number) => number.as_u64(),
                _ => None,
            },
            _ => None,
        });
        said.into_iter().flatten().max()
    }

    /// Length of the longest of these arguments; what is no list counts as one of one.
    fn longest(&mut self, asked: &'a Asked, arguments: &[String]) -> u64 {
        let lengths = arguments.iter().filter_map(|name| {
            Some(match &asked.get_argument(name)?.node {
                Argument::List(items) => items.len() as u64,
                Argument::Variable(name) => match self.value(name)? {
                    Value::List(items) => items.len() as u64,
                    _ => 1,
                },
                _ => 1,
            })
        });
        lengths.max().unwrap_or(0)
    }

    /// The value of a variable: what came with the request, or the operation's default.
    fn value(&mut self, name: &str) -> Option<&'a Value> {
        self.varies = true;
        if let Some(given) = self.variables.and_then(|given| given.get(name)) {
            return Some(given);
        }
        let mut defined = self.operation.variable_definitions.iter();
        let defined = defined.find(|defined| defined.node.name.node == name)?;
        defined.node.default_value.as_ref().map(|value| &value.node)
    }
}

/// Calls for each field of a set, those of its fragments included.
pub(super) fn each_field<'a>(
    document: &'a ExecutableDocument,
    set: &'a SelectionSet,
    call: &mut impl FnMut(&'a Asked),
) {
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) => call(&field.node),
            Selection::InlineFragment(inline) => {
                each_field(document, &inline.node.selection_set.node, call);
            }
            Selection::FragmentSpread(spread) => {
                if let Some(fragment) = document.fragments.get(&spread.node.fragment_name.node) {
                    each_field(document, &fragment.node.selection_set.node, call);
                }
            }
        }
    }
}
