//! What the schema's fields are: of which type, and how many rows a list can have.

use super::DEFAULT_PAGE;
use async_graphql::registry::{MetaField, MetaType, Registry};
use async_graphql::{ObjectType, SubscriptionType};
use std::collections::HashMap;

/// Rows that a list is taken to have that neither pages nor is as long as one of its arguments: a member's roles, a
/// mutation's errors.
pub(super) const UNPAGED: u64 = 10;

/// A field, as far as its price goes.
#[derive(Clone, Debug)]
pub(super) struct Field {
    /// Its type, without lists and non-nulls.
    pub(super) named: String,
    pub(super) rows: Rows,
}

/// How many rows a field has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// It is no list.
    One,
    /// `first` or `last` of them, and this many if it has neither. The lists right below have the page's rows.
    Paged { default: u64, is_list: bool },
    /// As many as the longest of these arguments, which are lists.
    AsMany(Vec<String>),
    /// As many as the page above it; without one, about so many.
    About(u64),
}

/// All fields, by type and name.
#[derive(Debug)]
pub(super) struct Fields {
    by_type: HashMap<String, HashMap<String, Field>>,
    /// Names of the types that queries, mutations and subscriptions begin at.
    pub(super) roots: [String; 3],
    /// How many types there are.
    pub(super) types: u64,
}

impl Fields {
    /// Those of a schema.
    pub(super) fn of<Q: ObjectType, M: ObjectType, S: SubscriptionType>() -> Self {
        let mut registry = Registry::default();
        Q::create_type_info(&mut registry);
        M::create_type_info(&mut registry);
        S::create_type_info(&mut registry);
        let fields = registry.types.iter().filter_map(|(name, kind)| {
            let (MetaType::Object { fields, .. } | MetaType::Interface { fields, .. }) = kind
            else {
                return None;
            };
            let fields = fields.iter().map(|(name, field)| (name.clone(), of(field)));
            Some((name.clone(), fields.collect()))
        });
        let mut by_type: HashMap<String, HashMap<String, Field>> = fields.collect();
        by_type.extend(introspection(&registry));
        let root = by_type.entry(Q::type_name().into_owned()).or_default();
        for (name, named) in [("__schema", "__Schema"), ("__type", "__Type")] {
            let (named, rows) = (named.to_owned(), Rows::One);
            root.insert(name.to_owned(), Field { named, rows });
        }
        Self {
            by_type,
            roots: [
                Q::type_name().into_owned(),
                M::type_name().into_owned(),
                S::type_name().into_owned(),
            ],
            types: registry.types.len() as u64,
        }
    }

    pub(super) fn get(&self, parent: &str, name: &str) -> Option<&Field> {
        self.by_type.get(parent)?.get(name)
    }
}

fn of(field: &MetaField) -> Field {
    let is_list = field.ty.starts_with('[');
    let paged = ["first", "last"]
        .iter()
        .filter_map(|name| field.args.get(*name));
    let default = paged
        .map(|argument| argument.default_value.as_ref()?.parse().ok())
        .reduce(Option::or);
    let lists = field.args.iter().filter(|(_, of)| of.ty.starts_with('['));
    let lists: Vec<String> = lists.map(|(name, _)| name.clone()).collect();
    let rows = match default {
        Some(default) => Rows::Paged {
            default: default.unwrap_or(DEFAULT_PAGE),
            is_list,
        },
        None if !is_list => Rows::One,
        None if lists.is_empty() => Rows::About(UNPAGED),
        None => Rows::AsMany(lists),
    };
    Field {
        named: field.ty.trim_matches(['[', ']', '!']).to_owned(),
        rows,
    }
}

/// The fields of introspection (GraphQL §4.2) whose lists have many rows: as many as the schema has on the average.
fn introspection(registry: &Registry) -> HashMap<String, HashMap<String, Field>> {
    let types = registry.types.len() as u64;
    let (mut fields, mut inputs, mut values) = (0, 0, 0);
    for kind in registry.types.values() {
        match kind {
            MetaType::Object { fields: own, .. } | MetaType::Interface { fields: own, .. } => {
                fields += own.len() as u64;
            }
            MetaType::InputObject { input_fields, .. } => inputs += input_fields.len() as u64,
            MetaType::Enum { enum_values, .. } => values += enum_values.len() as u64,
            MetaType::Scalar { .. } | MetaType::Union { .. } => {}
        }
    }
    let about = |sum: u64| Rows::About(sum.div_ceil(types.max(1)).max(1));
    let one = || Rows::One;
    let table = |rows: Vec<(&str, &str, Rows)>| {
        let fields = rows.into_iter().map(|(name, named, rows)| {
            let named = named.to_owned();
            (name.to_owned(), Field { named, rows })
        });
        fields.collect()
    };
    let schema = vec![
        ("types", "__Type", Rows::About(types)),
        ("queryType", "__Type", one()),
        ("mutationType", "__Type", one()),
        ("subscriptionType", "__Type", one()),
        ("directives", "__Directive", Rows::About(UNPAGED)),
    ];
    let kind = vec![
        ("fields", "__Field", about(fields)),
        ("inputFields", "__InputValue", about(inputs)),
        ("enumValues", "__EnumValue", about(values)),
        ("interfaces", "__Type", about(types)),
        ("possibleTypes", "__Type", about(types)),
        ("ofType", "__Type", one()),
    ];
    let field = vec![
        ("args", "__InputValue", about(types)),
        ("type", "__Type", one()),
    ];
    let directive = vec![("args", "__InputValue", about(types))];
    let tables = [
        ("__Schema", table(schema)),
        ("__Type", table(kind)),
        ("__Field", table(field)),
        ("__InputValue", table(vec![("type", "__Type", one())])),
        ("__Directive", table(directive)),
    ];
    tables.map(|(name, table)| (name.to_owned(), table)).into()
}
