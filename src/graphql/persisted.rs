//! Documents that are not sent with each request: those of a manifest, which are all that is executed then, or those that
//! clients brought themselves (Apollo's automatic persisted queries).

use super::asked::Wanted;
use super::documents::Document;
use super::limits::{self, Limits};
use super::shelves::Shelves;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::secret::hex;
use async_graphql::parser::parse_query;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// Which documents a door takes.
#[derive(Debug)]
pub(super) enum Taken {
    /// Those that are sent.
    Sent,
    /// Those of the manifest, by their ids.
    Trusted(HashMap<String, Arc<Document>>),
    /// Those that are sent, and those that a tenant's clients brought before.
    Brought(Shelves),
}

/// A document that was found.
#[derive(Debug)]
pub(super) enum Found {
    /// A text, and the hash that it was brought with.
    Text(String, Option<String>),
    Parsed(Arc<Document>),
}

impl Taken {
    /// As configured.
    pub(super) fn by(config: &Config, limits: &Limits) -> Result<Self> {
        Ok(match &config.trusted_documents {
            Some(path) => Self::Trusted(manifest(path, limits)?),
            None if config.persisted_queries => Self::Brought(Shelves::default()),
            None => Self::Sent,
        })
    }

    /// What is wanted, for this tenant.
    pub(super) async fn find(&self, tenant: Uuid, wanted: Wanted) -> Result<Found> {
        match (self, wanted) {
            (Self::Trusted(list), Wanted::Id(id) | Wanted::Hash(id, None)) => trusted(list, &id)
                .map(Found::Parsed)
                .ok_or(Error::DocumentNotFound),
            (Self::Trusted(list), Wanted::Hash(id, Some(_))) => trusted(list, &id)
                .map(Found::Parsed)
                .ok_or(Error::DocumentNotTrusted),
            (Self::Trusted(_), Wanted::Text(_)) => Err(Error::DocumentNotTrusted),
            (Self::Sent | Self::Brought(_), Wanted::Text(text))
            | (Self::Sent, Wanted::Hash(_, Some(text))) => Ok(Found::Text(text, None)),
            (Self::Sent, Wanted::Id(_) | Wanted::Hash(_, None)) => Err(Error::DocumentsNotKept),
            (Self::Brought(shelves), Wanted::Id(hash) | Wanted::Hash(hash, None)) => shelves
                .take(tenant, bare(&hash))
                .await
                .map(|text| Found::Text(text, None))
                .ok_or(Error::DocumentNotFound),
            (Self::Brought(_), Wanted::Hash(hash, Some(text))) => {
                if hex(&Sha256::digest(&text)) != hash {
                    return Err(Error::BadRequest(
                        "sha256Hash is not the SHA-256 of the query, in lower-case hexadecimal digits."
                            .to_owned(),
                    ));
                }
                Ok(Found::Text(text, Some(hash)))
            }
        }
    }

    /// Keeps what a tenant's client brought. Nothing is known of it here: see first that it is fit to be kept.
    pub(super) async fn keep(&self, tenant: Uuid, (hash, text): (String, String)) {
        if let Self::Brought(shelves) = self {
            shelves.put(tenant, hash, text).await;
        }
    }
}

fn trusted(list: &HashMap<String, Arc<Document>>, id: &str) -> Option<Arc<Document>> {
    list.get(id).or_else(|| list.get(bare(id))).cloned()
}

/// An id without the name of its hash.
pub(super) fn bare(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

/// Both forms that tools write: Apollo's persisted-query manifest, and a flat map of ids and texts (Relay, GraphQL Code
/// Generator).
#[derive(Deserialize)]
#[serde(untagged)]
enum Manifest {
    Apollo {
        format: String,
        version: u8,
        operations: Vec<Operation>,
    },
    Flat(HashMap<String, String>),
}

#[derive(Deserialize)]
struct Operation {
    id: String,
    body: String,
}

fn manifest(path: &Path, limits: &Limits) -> Result<HashMap<String, Arc<Document>>> {
    let wrong = |why: &str| {
        let path = path.display();
        Error::config(format!("trusted_documents: {path}: {why}"))
    };
    let text = std::fs::read(path).map_err(|e| wrong(&e.to_string()))?;
    let read: Manifest = serde_json::from_slice(&text).map_err(|_| {
        wrong("it is neither an Apollo persisted-query manifest nor a JSON object of ids and texts")
    })?;
    let listed: Vec<(String, String)> = match read {
        Manifest::Flat(texts) => texts.into_iter().collect(),
        Manifest::Apollo {
            format,
            version: 1,
            operations,
        } if format == "apollo-persisted-query-manifest" => {
            let operations = operations.into_iter();
            operations.map(|one| (one.id, one.body)).collect()
        }
        Manifest::Apollo { .. } => {
            return Err(wrong("this format, or this version of it, is not known"));
        }
    };
    if listed.is_empty() {
        return Err(wrong("it has no documents, so nothing would be executed"));
    }
    let mut documents = HashMap::new();
    for (id, text) in listed {
        let document =
            parse(&text, limits).map_err(|why| wrong(&format!("document {id}: {why}")))?;
        if documents.insert(id.clone(), Arc::new(document)).is_some() {
            return Err(wrong(&format!("document {id} is there twice")));
        }
    }
    Ok(documents)
}

/// A document of the manifest is held to the limits too.
fn parse(text: &str, limits: &Limits) -> Result<Document, String> {
    limits.check_text(text).map_err(|e| e.to_string())?;
    let parsed = parse_query(text).map_err(|e| e.to_string())?;
    let verdict = limits.check(&parsed).map_err(|e| e.to_string())?;
    limits::refuse(&parsed).map_err(|e| e.message)?;
    Ok(Document::new(parsed, verdict))
}
