//! Fields of what was changed, as the API spells them.

use async_graphql::SimpleObject;
use entity::tenant::history::{Action, Model};
use serde_json::Value;
use std::collections::BTreeSet;

/// One field of a change.
#[derive(Clone, Debug, SimpleObject)]
pub struct FieldChange {
    /// The field.
    name: String,
    /// Its value before; null where there was none.
    before: Option<Value>,
    /// Its value after; null where there is none.
    after: Option<Value>,
}

/// What stands for a secret's value.
const MASK: &str = "********";

impl FieldChange {
    /// What a change changed, field by field.
    pub(super) fn of(change: &Model) -> Vec<Self> {
        match change.action {
            Action::Update => {
                let fields = change.changed.iter();
                fields.map(|name| Self::updated(change, name)).collect()
            }
            Action::Delete => Self::between(Some(&change.row), None),
            Action::Create => Self::between(None, Some(&change.row)),
            Action::SignIn
            | Action::SignInFailed
            | Action::SignOut
            | Action::Denied
            | Action::LinkIssued
            | Action::OperatorAct
            | Action::Erased
            | Action::Exported => Vec::new(),
        }
    }

    fn updated(change: &Model, name: &str) -> Self {
        let is_secret = change.row.get(name).is_none();
        let shown = |row: &Value| match row.get(name) {
            _ if is_secret => Some(Value::from(MASK)),
            row => present(row),
        };
        Self {
            name: camel(name, false),
            before: shown(&change.before),
            after: shown(&change.row),
        }
    }

    /// What is different from one state of an object to another; none is that it is not there.
    pub(super) fn between(before: Option<&Value>, after: Option<&Value>) -> Vec<Self> {
        let keys = |row: Option<&Value>| -> BTreeSet<String> {
            let fields = row.and_then(Value::as_object).into_iter().flatten();
            fields.map(|(name, _)| name.clone()).collect()
        };
        let of = |row: Option<&Value>, name: &str| present(row.and_then(|row| row.get(name)));
        let names = keys(before).into_iter().chain(keys(after));
        let names: BTreeSet<String> = names.collect();
        names
            .into_iter()
            .map(|name| Self {
                before: of(before, &name),
                after: of(after, &name),
                name: camel(&name, false),
            })
            .filter(|field| field.before != field.after)
            .collect()
    }
}

fn present(value: Option<&Value>) -> Option<Value> {
    value.filter(|value| !value.is_null()).cloned()
}

/// A row as the API spells it.
pub(super) fn values(row: &Value) -> Value {
    let row = row.as_object().cloned().unwrap_or_default();
    row.into_iter()
        .map(|(name, value)| (camel(&name, false), value))
        .collect()
}

/// `client_id` as the API spells it: `clientId`, or `ClientId` for a type.
pub(super) fn camel(name: &str, mut upper: bool) -> String {
    let mut spelled = String::with_capacity(name.len());
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else {
            spelled.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    spelled
}

/// The table of a type's name: `ClientId` as the rows spell it, `client_id`.
pub(super) fn snake(name: &str) -> String {
    let mut spelled = String::with_capacity(name.len() + 4);
    for (index, c) in name.char_indices() {
        if c.is_ascii_uppercase() && index > 0 {
            spelled.push('_');
        }
        spelled.push(c.to_ascii_lowercase());
    }
    spelled
}
