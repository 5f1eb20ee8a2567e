//! What a client asks for, read from the body of a POST or the query of a GET (GraphQL over HTTP §5).

use crate::error::{Error, Result};
use async_graphql::Variables;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt::Display;

/// What a client asks for.
#[derive(Debug)]
pub struct Asked {
    /// Which document.
    pub document: Wanted,
    /// Which of its operations.
    pub operation_name: Option<String>,
    /// Values of its variables.
    pub variables: Variables,
}

/// A document, as it is named or sent.
#[derive(Debug)]
pub enum Wanted {
    /// By its text.
    Text(String),
    /// By its id in a list of trusted documents.
    Id(String),
    /// By the SHA-256 of its text, in hexadecimal digits, and by that text too where the hash alone was not known.
    Hash(String, Option<String>),
}

/// The parameters, the same for both methods. Others are ignored, as the specification has it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Parameters<V, E> {
    query: Option<String>,
    document_id: Option<String>,
    operation_name: Option<String>,
    variables: Option<V>,
    extensions: Option<E>,
}

type Extensions = HashMap<String, serde_json::Value>;

/// Apollo's extension `persistedQuery`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PersistedQuery {
    version: u8,
    sha256_hash: String,
}

impl Asked {
    /// Reads the body of a POST.
    pub fn by_post(body: &[u8]) -> Result<Self> {
        match body.trim_ascii_start().first() {
            Some(b'{') => {}
            Some(b'[') => {
                return Err(refused(
                    &"batches are not taken, send one request at a time",
                ));
            }
            _ => return Err(refused(&"it is no JSON object")),
        }
        let read: Parameters<Variables, Extensions> =
            serde_json::from_slice(body).map_err(|e| refused(&place(&e)))?;
        Self::from_parameters(read)
    }

    /// Reads the payload of a message.
    pub fn by_message(payload: serde_json::Map<String, serde_json::Value>) -> Result<Self> {
        let read =
            Parameters::<Variables, Extensions>::deserialize(serde_json::Value::Object(payload));
        Self::from_parameters(read.map_err(|_| refused(&"a field is of another type"))?)
    }

    /// Reads the query of a GET, where variables and extensions are JSON in a text.
    pub fn by_get(query: &str) -> Result<Self> {
        let read: Parameters<String, String> = serde_urlencoded::from_str(query)
            .map_err(|_| Error::BadRequest("Each parameter of the query comes once.".to_owned()))?;
        Self::from_parameters(Parameters {
            query: read.query,
            document_id: read.document_id,
            operation_name: read.operation_name,
            variables: json("variables", read.variables)?,
            extensions: json("extensions", read.extensions)?,
        })
    }

    fn from_parameters(read: Parameters<Variables, Extensions>) -> Result<Self> {
        let persisted = read
            .extensions
            .and_then(|mut extensions| extensions.remove("persistedQuery"))
            .map(persisted_query)
            .transpose()?;
        let document = match (read.document_id, persisted, read.query) {
            (None, None, Some(text)) => Wanted::Text(text),
            (None, Some(hash), text) => Wanted::Hash(hash, text),
            (Some(id), None, None) => Wanted::Id(id),
            (None, None, None) => {
                return Err(Error::BadRequest(
                    "The request has neither query nor documentId.".to_owned(),
                ));
            }
            (Some(_), ..) => {
                return Err(Error::BadRequest(
                    "Beside documentId there is neither query nor extensions.persistedQuery."
                        .to_owned(),
                ));
            }
        };
        Ok(Self {
            document,
            operation_name: read.operation_name,
            variables: read.variables.unwrap_or_default(),
        })
    }
}

fn persisted_query(value: serde_json::Value) -> Result<String> {
    match serde_json::from_value(value) {
        Ok(PersistedQuery {
            version: 1,
            sha256_hash,
        }) => Ok(sha256_hash),
        _ => Err(Error::BadRequest(
            "extensions.persistedQuery is {\"version\": 1, \"sha256Hash\": \"…\"}.".to_owned(),
        )),
    }
}

/// The JSON object in a parameter of a GET, if there is one.
fn json<T: DeserializeOwned>(name: &str, text: Option<String>) -> Result<Option<T>> {
    let text = text.filter(|text| !text.is_empty() && text != "null");
    let read = |text: String| {
        let object = text.trim_start().starts_with('{');
        let read = serde_json::from_str(&text).ok().filter(|_| object);
        read.ok_or_else(|| Error::BadRequest(format!("The parameter {name} is a JSON object.")))
    };
    text.map(read).transpose()
}

fn refused(why: &dyn Display) -> Error {
    Error::BadRequest(format!(
        "The body is not a GraphQL request such as {{\"query\": \"…\", \"variables\": {{}}}}: {why}."
    ))
}

/// Where, and not what: serde's own words name our types.
fn place(error: &serde_json::Error) -> String {
    format!(
        "line {}, column {} is not like that",
        error.line(),
        error.column()
    )
}
