//! Devices: made by members, signed in by PIN, kept in by tokens that rotate.

mod management;
mod sign_in;
mod tokens;

use crate::harness::{Answer, Tenant};
use bulkhead::identity::BuiltIn;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const UPDATE: &str = "mutation($input: DeviceUpdateInput!) { deviceUpdate(input: $input) {
    device { name state version } errors { __typename code message field ... on ConflictError { currentVersion } } } }";

/// A tenant with a device.
struct Fixture {
    tenant: Tenant,
    owner: String,
    id: String,
    client_id: String,
    pin: String,
}

impl Fixture {
    async fn new() -> Self {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (id, client_id, pin) = tenant.device(&owner).await;
        Self {
            tenant,
            owner,
            id,
            client_id,
            pin,
        }
    }

    /// A PIN that is not the device's.
    fn wrong_pin(&self) -> String {
        self.pin
            .chars()
            .map(|digit| if digit == '0' { '1' } else { '0' })
            .collect()
    }

    async fn auth(&self, pin: &str) -> Answer {
        self.tenant.device_auth(&self.client_id, pin).await
    }

    /// A new token of the device.
    async fn token(&self) -> String {
        token_of(&self.auth(&self.pin).await)
    }

    async fn me(&self, token: &str) -> Answer {
        let request = self.tenant.request(Method::GET, "/device/me");
        self.tenant.send(request.bearer_auth(token)).await
    }

    async fn rotate(&self, token: &str) -> Answer {
        let request = self.tenant.request(Method::POST, "/device/token/rotate");
        self.tenant.send(request.bearer_auth(token)).await
    }

    async fn update(&self, input: Value) -> Answer {
        let variables = json!({ "input": input });
        let owner = Some(self.owner.as_str());
        self.tenant.gql_with(owner, UPDATE, variables).await
    }

    /// A field of the device, as its owner sees it.
    async fn field(&self, name: &str) -> Value {
        let query = format!(
            r#"{{ node(id: "{}") {{ ... on Device {{ {name} }} }} }}"#,
            self.id
        );
        self.tenant.gql(Some(&self.owner), &query).await.payload()[name].clone()
    }
}

#[track_caller]
fn token_of(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::OK, "{:#}", answer.body);
    answer.body["access_token"].as_str().unwrap().to_owned()
}

/// The answer is a problem (RFC 9457) with this status and code, and says nothing twice.
#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status.as_u16(), status, "{:#}", answer.body);
    assert_eq!(answer.header("Content-Type"), "application/problem+json");
    assert_eq!(answer.body["code"], code, "{:#}", answer.body);
    assert_eq!(answer.body["status"], status);
    assert!(answer.body["detail"].is_string(), "{:#}", answer.body);
    assert!(!answer.header("X-Request-Id").is_empty());
    let challenge = if status == 401 { "Bearer" } else { "" };
    assert_eq!(answer.header("WWW-Authenticate"), challenge);
}
