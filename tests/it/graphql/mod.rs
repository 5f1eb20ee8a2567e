//! The front door of GraphQL: what it takes, what it refuses and how, and the pages behind it.

mod limits;
mod pages;
mod requests;

use crate::harness::{Answer, Tenant};
use reqwest::Method;

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
