//! A GraphQL server with a host and a token: questions asked once, and requests to load it with.

use crate::Result;
use crate::http::{Answer, Connection, request};
use serde_json::{Value, json};
use std::str::FromStr;

/// What is asked over and over, and the answer that each must have.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Host and port.
    pub(crate) address: String,
    /// The whole requests, asked in turn: of n connections, each takes every n-th.
    pub(crate) requests: Vec<Vec<u8>>,
    /// The body of the answer to each, which was looked at.
    pub(crate) expected: Vec<u8>,
    /// Whether what is answered changes within itself: signed links.
    pub(crate) changes: bool,
}

impl Target {
    /// Asks once, and keeps the answer if it is one.
    async fn verified(address: &str, request: Vec<u8>) -> Result<Self> {
        let mut connection = Connection::new(address);
        let Answer { status, body } = connection.exchange(&request).await?;
        let text = String::from_utf8_lossy(body);
        if status != 200 || has_errors(&text) {
            return Err(format!("{address} answered {status}: {text}").into());
        }
        Ok(Self {
            address: address.to_owned(),
            requests: vec![request],
            expected: body.to_owned(),
            changes: false,
        })
    }

    /// Whether this is the answer; of one that changes, whether it may be.
    pub(crate) fn is_answered(&self, answer: &Answer<'_>) -> bool {
        answer.status == 200
            && (answer.body == self.expected
                || self.changes
                    && answer.body.len() == self.expected.len()
                    && !has_errors(&String::from_utf8_lossy(answer.body)))
    }
}

fn has_errors(text: &str) -> bool {
    let text = text.replace(' ', "");
    text.contains("\"errors\":[{")
}

/// Where GraphQL is served, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Host and port to connect to.
    pub(crate) address: String,
    /// The path of GraphQL.
    pub(crate) path: String,
    /// The `Host` header, which names the tenant.
    pub(crate) host: String,
    /// The bearer token.
    pub(crate) token: Option<String>,
}

impl Site {
    /// A path to read.
    pub(crate) async fn page(&self, path: &str) -> Result<Target> {
        let request = request(path, &self.host, None, None);
        Target::verified(&self.address, request).await
    }

    /// A document to execute.
    pub(crate) async fn document(&self, document: &str) -> Result<Target> {
        let body = json!({ "query": document }).to_string();
        let request = request(&self.path, &self.host, self.token.as_deref(), Some(&body));
        Target::verified(&self.address, request).await
    }

    /// The first of these documents that is answered: peers have different schemas.
    pub(crate) async fn one_of(&self, documents: &[&str]) -> Result<Target> {
        let mut refused = String::new();
        for document in documents {
            match self.document(document).await {
                Ok(target) => return Ok(target),
                Err(error) => refused = error.to_string(),
            }
        }
        Err(refused.into())
    }

    /// Documents to execute in turn, whose answers are the same.
    pub(crate) async fn documents(&self, documents: &[String]) -> Result<Target> {
        let first = documents.first().map_or("", String::as_str);
        let mut all = self.document(first).await?;
        let more = documents.iter().skip(1).map(|document| {
            let body = json!({ "query": document }).to_string();
            request(&self.path, &self.host, self.token.as_deref(), Some(&body))
        });
        all.requests.extend(more);
        Ok(all)
    }

    /// The string at `pointer` (RFC 6901) in the answer to a document.
    pub(crate) async fn ask(&self, document: &str, pointer: &str) -> Result<String> {
        let target = self.document(document).await?;
        let answer: Value = serde_json::from_slice(&target.expected)?;
        let found = answer.pointer(pointer).and_then(Value::as_str);
        found
            .map(ToOwned::to_owned)
            .ok_or_else(|| format!("there is no {pointer} in {answer}").into())
    }
}

/// `name=url|host|token`: something else that runs already.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// What it is called in the figures.
    pub(crate) name: String,
    /// Where it answers.
    pub(crate) site: Site,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || "a peer is given as name=http://address:port|host|token".to_owned();
        let (name, rest) = text.split_once('=').ok_or_else(wanted)?;
        let [url, host, token] = rest.split('|').collect::<Vec<_>>()[..] else {
            return Err(wanted());
        };
        let place = url.strip_prefix("http://").ok_or_else(wanted)?;
        let (address, path) = place.split_once('/').unwrap_or((place, ""));
        let path = if path.is_empty() {
            "/graphql".to_owned()
        } else {
            format!("/{path}")
        };
        Ok(Self {
            name: name.to_owned(),
            site: Site {
                address: address.to_owned(),
                path,
                host: host.to_owned(),
                token: Some(token.to_owned()),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers() {
        let peer: Peer = "django=http://127.0.0.1:8100|t0.localhost|bench"
            .parse()
            .unwrap();
        assert_eq!(
            (peer.name.as_str(), peer.site.address.as_str()),
            ("django", "127.0.0.1:8100")
        );
        assert_eq!(
            (peer.site.path.as_str(), peer.site.host.as_str()),
            ("/graphql", "t0.localhost")
        );
        assert!("django=127.0.0.1:8100".parse::<Peer>().is_err());
    }
}
