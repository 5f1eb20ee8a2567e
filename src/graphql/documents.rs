//! Parsed documents, kept so that a query that was sent before is neither parsed nor validated again.

use super::limits::Verdict;
use super::shape::Shape;
use super::types::Types;
use async_graphql::Name;
use async_graphql::parser::types::{
    DocumentOperations, ExecutableDocument, OperationDefinition, OperationType,
};
use moka::future::Cache;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use uuid::Uuid;

/// Bytes of memory for them, about.
const CAPACITY: u64 = 32 * 1024 * 1024;
/// What a parsed field takes, about.
const FIELD_BYTES: u64 = 640;
/// What a byte of text takes once it is parsed, at worst: arguments and their values.
const TEXT_FACTOR: u64 = 32;

/// How long one that nobody sends is kept: an erased tenant's own go with it.
const IDLE: Duration = Duration::from_mins(10);

/// A document that was parsed, within the limits.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) parsed: ExecutableDocument,
    /// What the limits say of it.
    pub(super) verdict: Verdict,
    /// It has passed validation.
    valid: AtomicBool,
    /// The variables, a bit each, that it has passed with as null: where null may not be is told by validation alone.
    nulls: AtomicU64,
    /// Of each operation, once it was executed.
    shapes: OnceLock<Vec<(Option<Name>, Shape)>>,
}

impl Document {
    /// A document within the limits.
    pub(super) fn new(parsed: ExecutableDocument, verdict: Verdict) -> Self {
        Self {
            parsed,
            verdict,
            valid: AtomicBool::new(false),
            nulls: AtomicU64::new(0),
            shapes: OnceLock::new(),
        }
    }

    /// The operation of this name, or the only one; none if that is not said.
    pub(super) fn operation(&self, name: Option<&str>) -> Option<&OperationDefinition> {
        match (&self.parsed.operations, name) {
            (DocumentOperations::Single(only), None) => Some(&only.node),
            (DocumentOperations::Multiple(all), Some(name)) => all.get(name).map(|one| &one.node),
            (DocumentOperations::Multiple(all), None) if all.len() == 1 => {
                all.values().next().map(|only| &only.node)
            }
            _ => None,
        }
    }

    /// Whether it has passed validation, with these variables as null; nothing else of it can differ from one request to the
    /// next, for variables are looked at before.
    pub(super) fn is_valid(&self, nulls: u64) -> bool {
        self.valid.load(Ordering::Relaxed) && nulls & !self.nulls.load(Ordering::Relaxed) == 0
    }

    /// Notes that it has. Of several operations validation looks at the values of the one that runs alone, so that such a
    /// document is validated each time.
    pub(super) fn passed(&self, nulls: u64) {
        if self.parsed.operations.iter().len() != 1 {
            return;
        }
        self.valid.store(true, Ordering::Relaxed);
        // A bit is a variable of the one operation.
        if nulls != u64::MAX {
            self.nulls.fetch_or(nulls, Ordering::Relaxed);
        }
    }

    /// The shape of an operation of a document whose fragments do not spread themselves. `root` names the type of an operation.
    pub(super) fn shape(
        &self,
        types: &Types,
        root: impl Fn(OperationType) -> String,
        name: Option<&str>,
    ) -> Option<&Shape> {
        let shapes = self.shapes.get_or_init(|| {
            let operations = self.parsed.operations.iter();
            let shape = |operation: &OperationDefinition| {
                Shape::of(types, &self.parsed, operation, &root(operation.ty))
            };
            operations
                .map(|(name, operation)| (name.cloned(), shape(&operation.node)))
                .collect()
        });
        let named = |known: &Option<Name>| known.as_deref() == name;
        match shapes.as_slice() {
            [(_, only)] => Some(only),
            many => many
                .iter()
                .find(|(known, _)| named(known))
                .map(|(_, shape)| shape),
        }
    }

    fn only_reads(&self) -> bool {
        let mut operations = self.parsed.operations.iter();
        operations.all(|(_, operation)| operation.node.ty == OperationType::Query)
    }
}

/// Documents by their text, those within the limits only. Never mutations: what one writes into its text may be a password.
#[derive(Clone, Debug)]
pub(super) struct Documents(Cache<Key, Arc<Document>>);

/// A text, and whose it is. One without a string and a comment has no free text, and all tenants whose members use the same
/// program share it: what it is parsed to follows from it alone, and all that time can tell is that somebody sent the same. Were
/// it parsed for each, some thousand tenants would have it parsed each time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    tenant: Option<Uuid>,
    pub(super) text: String,
}

impl Key {
    pub(super) fn new(tenant: Uuid, text: String) -> Self {
        let tenant = text.contains(['"', '#']).then_some(tenant);
        Self { tenant, text }
    }
}

impl Default for Documents {
    fn default() -> Self {
        let weigh = |key: &Key, document: &Arc<Document>| {
            let fields = document.verdict.selections;
            let bytes = key.text.len() as u64 * TEXT_FACTOR + fields * FIELD_BYTES;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        Self(
            Cache::builder()
                .weigher(weigh)
                .max_capacity(CAPACITY)
                .time_to_idle(IDLE)
                .build(),
        )
    }
}

impl Documents {
    /// The document of this text, if it was kept.
    pub(super) async fn get(&self, key: &Key) -> Option<Arc<Document>> {
        self.0.get(key).await
    }

    /// Keeps a document, if it only reads.
    pub(super) async fn keep(&self, key: Key, document: &Arc<Document>) {
        if document.only_reads() {
            self.0.insert(key, Arc::clone(document)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_about_somebody_is_its_tenants_alone() {
        let [one, other] = [1, 2].map(Uuid::from_u128);
        let is_shared =
            |text: &str| Key::new(one, text.to_owned()) == Key::new(other, text.to_owned());
        assert!(is_shared("query($id: ID!) { node(id: $id) { id } }"));
        assert!(!is_shared(
            "{ tenant { devices(filter: { name: { eq: \"Jane's\" } }) { totalCount } } }"
        ));
        assert!(!is_shared("{ viewer { __typename } } # for Jane"));
    }
}
