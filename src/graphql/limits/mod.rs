//! Limits on a document, held before it is validated: validation walks the document with its fragments expanded. What its
//! text alone decides is decided once, and kept with the parsed document.

mod complexity;
mod counts;
mod lists;
mod repeats;
mod tokens;
mod values;

use super::page;
use crate::config::DocumentLimits;
use crate::error::{Error, Result};
use async_graphql::parser::types::{ExecutableDocument, OperationDefinition};
use async_graphql::{Name, ObjectType, SubscriptionType, Variables};
use complexity::{Price, Pricing, each_field};
use counts::{Counter, Counts, MAX_LEVELS};
use lists::Fields;
pub(super) use repeats::refuse;
use values::Uses;

/// Rows of a page, at most.
const MAX_PAGE: u64 = page::MAX_PAGE.unsigned_abs() as u64;
/// Of a page whose size is not asked for.
const DEFAULT_PAGE: u64 = page::DEFAULT_PAGE.unsigned_abs() as u64;
/// Brackets of a text that are open at once.
const MAX_NESTING: u64 = 64;
/// What introspection may cost for each type of the schema. The playground's query costs about half of it.
const INTROSPECTION: u64 = 500;

/// Root fields that cost more than a look at rows.
#[derive(Clone, Copy, Debug)]
pub struct Costly {
    /// Those that try a secret: one of them in an operation.
    pub once: &'static [&'static str],
    /// Those that hash one.
    pub hashing: &'static [&'static str],
}

/// The limits, and what the schema's fields cost.
#[derive(Debug)]
pub(super) struct Limits {
    max: DocumentLimits,
    fields: Fields,
    costly: Costly,
}

/// What a document's text alone says of it.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    /// Its selections, fragments expanded.
    pub(super) selections: u64,
    /// By name.
    operations: Vec<(Option<String>, Demand)>,
    uses: Uses,
}

/// What one operation asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Its root fields, `__typename` aside.
    pub(super) root_fields: u64,
    /// Those of them that try a secret.
    pub(super) attempts: u64,
    /// Its price depends on its variables.
    varies: bool,
}

/// Nothing: of a document without the operation that was asked for.
const NOTHING: Demand = Demand {
    root_fields: 0,
    attempts: 0,
    varies: false,
};

impl Limits {
    pub(super) fn of<Q: ObjectType, M: ObjectType, S: SubscriptionType>(
        max: DocumentLimits,
        costly: Costly,
    ) -> Self {
        Self {
            max,
            fields: Fields::of::<Q, M, S>(),
            costly,
        }
    }

    /// Refuses a text that is not to be parsed.
    pub(super) fn check_text(&self, text: &str) -> Result<()> {
        within("documentBytes", self.max.bytes, text.len() as u64)?;
        let tokens = tokens::count(text);
        within("tokens", self.max.tokens, tokens.count)?;
        within("nesting", MAX_NESTING, tokens.nesting)
    }

    /// Refuses a document that is not to be validated.
    pub(super) fn check(&self, document: &ExecutableDocument) -> Result<Verdict> {
        let max = &self.max;
        within("fragments", max.fragments, document.fragments.len() as u64)?;
        within(
            "operations",
            max.operations,
            document.operations.iter().len() as u64,
        )?;
        let mut counter = Counter::new(document);
        let counted = document.operations.iter();
        let counted: Vec<(&OperationDefinition, Counts)> = counted
            .map(|(_, operation)| (&operation.node, counter.operation(&operation.node)))
            .collect();
        let selections = counted.iter().map(|(_, counts)| counts.selections);
        let selections = selections.fold(0, u64::saturating_add);
        within("selections", max.selections, selections)?;
        for (operation, counts) in &counted {
            let variables = operation.variable_definitions.len() as u64;
            within("variables", max.variables, variables)?;
            within("nesting", MAX_LEVELS, counts.levels)?;
            within("depth", max.depth, counts.depth)?;
            within("aliases", max.aliases, counts.aliases)?;
            within("directives", max.directives, counts.directives)?;
            within("arguments", max.arguments, counts.arguments)?;
        }
        // One that spreads a fragment within itself is not expanded: async-graphql refuses it, whatever else it has.
        let (operations, uses) = if counter.is_cyclic {
            (Vec::new(), Uses::default())
        } else {
            let asked = document.operations.iter().map(|(name, operation)| {
                let asked = self.operation(document, &operation.node)?;
                Ok((name.map(ToString::to_string), asked))
            });
            (asked.collect::<Result<_>>()?, Uses::of(document))
        };
        Ok(Verdict {
            selections,
            operations,
            uses,
        })
    }

    fn operation(
        &self,
        document: &ExecutableDocument,
        operation: &OperationDefinition,
    ) -> Result<Demand> {
        let (mut root_fields, mut attempts) = (0, 0);
        each_field(document, &operation.selection_set.node, &mut |field| {
            let name = field.name.node.as_str();
            root_fields += u64::from(name != "__typename");
            attempts += u64::from(self.costly.once.contains(&name));
        });
        within("rootFields", self.max.root_fields, root_fields)?;
        within("authentications", 1, attempts)?;
        let price = self.price(document, operation, None);
        if !price.varies {
            self.affordable(price)?;
        }
        Ok(Demand {
            root_fields,
            attempts,
            varies: price.varies,
        })
    }

    /// The operation that is to run; refused, if its variables make it too much. That the document has no such operation is
    /// for async-graphql to say.
    pub(super) fn admit(
        &self,
        (document, verdict): (&ExecutableDocument, &Verdict),
        name: Option<&str>,
        variables: &Variables,
    ) -> Result<Demand> {
        within("variables", self.max.variables, variables.len() as u64)?;
        let mut operations = verdict.operations.iter();
        let found = match name {
            Some(_) => operations.find(|(own, _)| own.as_deref() == name),
            None => operations.next().filter(|_| verdict.operations.len() == 1),
        };
        let operation = found.and_then(|(name, _)| {
            let mut defined = document.operations.iter();
            let same = |own: Option<&Name>| own.map(Name::as_str) == name.as_deref();
            let defined = defined.find(|(own, _)| same(*own));
            defined.map(|(_, operation)| &operation.node)
        });
        let values = verdict.uses.values(operation, variables);
        within("variableValues", self.max.variable_values, values)?;
        let asked = found.map_or(NOTHING, |(_, asked)| *asked);
        if let Some(operation) = operation.filter(|_| asked.varies) {
            self.affordable(self.price(document, operation, Some(variables)))?;
        }
        Ok(asked)
    }

    fn price<'a>(
        &'a self,
        document: &'a ExecutableDocument,
        operation: &'a OperationDefinition,
        variables: Option<&'a Variables>,
    ) -> Price {
        let pricing = Pricing {
            fields: &self.fields,
            document,
            operation,
            variables,
            hashing: self.costly.hashing,
            varies: false,
        };
        pricing.price()
    }

    fn affordable(&self, price: Price) -> Result<()> {
        within("complexity", self.max.complexity, price.data)?;
        let most = INTROSPECTION.saturating_mul(self.fields.types);
        within("introspection", most, price.introspection)
    }
}

fn within(limit: &'static str, max: u64, actual: u64) -> Result<()> {
    if actual > max {
        return Err(Error::QueryLimit { limit, max, actual });
    }
    Ok(())
}
