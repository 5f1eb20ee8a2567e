//! The front door of GraphQL: what it takes, what it refuses and how, and the pages behind it.

mod adversary;
mod answers;
mod audits;
mod complexity;
mod deadline;
mod filters;
mod idempotency;
mod limits;
mod lists;
mod pages;
mod persisted;
mod rates;
mod requests;
mod transport;
mod values;

use crate::harness::{Answer, Tenant};
use reqwest::Method;
use serde_json::json;

/// A request with a body of any kind.
async fn post(
    tenant: &Tenant,
    token: Option<&str>,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = tenant
        .request(Method::POST, "/graphql")
        .body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    tenant.send(request).await
}

const JSON: (&str, &str) = ("Content-Type", "application/json");
const MODERN: &str = "application/graphql-response+json";

fn body(query: &str) -> String {
    json!({ "query": query }).to_string()
}

/// A request by GET.
async fn get(
    tenant: &Tenant,
    token: Option<&str>,
    accept: &str,
    parameters: &[(&str, &str)],
) -> Answer {
    let mut request = tenant
        .request(Method::GET, "/graphql")
        .query(parameters)
        .header("Accept", accept);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    tenant.send(request).await
}
