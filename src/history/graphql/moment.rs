//! Objects as they were: at a moment, and from one to another.

use super::fields::{FieldChange, camel, values};
use super::{Change, Subject};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::graphql::{Batch, ContextExt as _, DateTime, global_id_of, load, parse_global_id};
use crate::history;
use crate::{database::TenantTx, history::Row};
use async_graphql::{Context, ID, Object};
use entity::tenant::history::Action;
use std::collections::HashMap;
use uuid::Uuid;

/// An object as it was at a moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    change: Row,
    at: Timestamp,
}

/// An object as it was at a moment.
#[Object]
impl Snapshot {
    /// Type name of the object.
    async fn subject_type(&self) -> String {
        camel(&self.change.subject_type, true)
    }

    /// Id of the object.
    async fn subject_id(&self) -> ID {
        let name = camel(&self.change.subject_type, true);
        global_id_of(&name, self.change.subject_id)
    }

    #[graphql(flatten)]
    async fn subject(&self) -> Subject {
        Subject::of(&self.change)
    }

    /// The moment.
    async fn at(&self) -> DateTime {
        self.at.into()
    }

    /// Its values then; secrets are left out.
    async fn values(&self) -> serde_json::Value {
        values(&self.change.row)
    }

    /// The change that made it so.
    async fn change(&self) -> Change {
        Change(self.change.clone())
    }
}

/// The newest change of an object until a moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Version(Uuid, Timestamp);

impl Batch for Version {
    type Value = Row;

    async fn load(tx: &TenantTx, keys: Vec<Self>) -> Result<HashMap<Self, Row>> {
        let mut found = HashMap::new();
        for key in keys {
            if let Some(row) = history::version(tx, key.0, key.1).await? {
                found.insert(key, row);
            }
        }
        Ok(found)
    }
}

/// The object of a global id as it was; none if there was none.
async fn version(ctx: &Context<'_>, id: &ID, at: Timestamp) -> Result<Option<Row>> {
    ctx.require_past(Some(at))?;
    let Some((kind, row)) = parse_global_id(id) else {
        return Ok(None);
    };
    let found = load(ctx, Version(row, at)).await?;
    Ok(found.filter(|row| row.action != Action::Delete && camel(&row.subject_type, true) == kind))
}

/// Root fields for reading.
#[derive(Debug, Default)]
pub struct Query;

/// Root fields for reading.
#[Object(name = "HistoryQuery")]
impl Query {
    /// An object as it was at a moment. Null if it did not exist then. Needs AUDIT_READ.
    async fn as_of(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Of which object.")] id: ID,
        #[graphql(desc = "When.")] at: DateTime,
    ) -> Result<Option<Snapshot>> {
        let found = version(ctx, &id, at.0).await?;
        Ok(found.map(|change| Snapshot { change, at: at.0 }))
    }

    /// Field-by-field difference between two moments. Null if the object existed at neither. Needs AUDIT_READ.
    async fn diff(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Of which object.")] id: ID,
        #[graphql(desc = "The first moment.")] from: DateTime,
        #[graphql(desc = "The second; now unless given.")] until: Option<DateTime>,
    ) -> Result<Option<Vec<FieldChange>>> {
        let now = ctx.request().services.database.clock().now();
        let until = until.map_or(now, |until| until.0);
        if until < from.0 {
            let why = "until must not be before from.";
            return Err(Error::BadRequest(why.to_owned()));
        }
        let before = version(ctx, &id, from.0).await?;
        let after = version(ctx, &id, until).await?;
        if before.is_none() && after.is_none() {
            return Ok(None);
        }
        let row = |version: Option<&Row>| version.map(|version| version.row.clone());
        let (before, after) = (row(before.as_ref()), row(after.as_ref()));
        Ok(Some(FieldChange::between(before.as_ref(), after.as_ref())))
    }
}
