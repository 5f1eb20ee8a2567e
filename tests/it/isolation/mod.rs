//! Every root field, list, type behind `node(id:)` and route, and how it answers those who must not have it. What has no row
//! in [`rows`] is red.

mod doors;
mod following;
mod jobs;
mod links;
mod login;
mod rows;

use crate::harness::{Answer, PASSWORD, Tenant};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bulkhead::clock::Clock;
use bulkhead::identity::BuiltIn;
use reqwest::Method;
use rows::{Ask, NODES, ROWS};
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A tenant with one of everything, and a caller of every kind.
struct Side {
    tenant: Tenant,
    owner: String,
    viewer: String,
    device: String,
    /// What the documents of the tables name, the other tenant's things aside.
    names: BTreeMap<&'static str, String>,
    link: String,
    export: String,
    upload: String,
}

impl Side {
    async fn new() -> Self {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let viewer = tenant.token(BuiltIn::Viewer).await;
        let (device, client_id, pin) = tenant.device(&owner).await;
        let auth = tenant.device_auth(&client_id, &pin).await;
        let photo = tenant.photo(&owner).await;
        let pending = tenant.upload(&owner).await;
        let access = auth.body["access_token"].as_str().unwrap().to_owned();
        tenant.upload(&access).await;
        let export = tenant.export(&owner, serde_json::json!({})).await;
        let schedule = "mutation { scheduleCreate(input: { kind: \"media.sweep\", expression: \"0 4 * * *\" }) { schedule { id } } }";
        let schedule = tenant.gql(Some(&owner), schedule).await.payload()["schedule"].clone();
        let ids = "{ tenant { id changes(first: 1) { nodes { id } } members(first: 1) { nodes { id roles { id } } } } }";
        let ids = tenant.gql(Some(&owner), ids).await.data()["tenant"].clone();
        let member = &ids["members"]["nodes"][0];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let names = BTreeMap::from([
            ("Change", text(&ids["changes"]["nodes"][0]["id"])),
            ("Client", client_id),
            ("Device", device),
            ("Export", text(&export["result"]["id"])),
            ("ExportJob", text(&export["id"])),
            ("File", Clock::default().new_id().to_string()),
            ("Job", text(&photo["job"])),
            ("Media", text(&photo["id"])),
            ("Member", text(&member["id"])),
            ("Owner", format!("owner@{}.test", tenant.slug)),
            ("Password", PASSWORD.to_owned()),
            ("Pending", text(&pending["media"]["id"])),
            ("Pin", pin),
            ("Role", text(&member["roles"][0]["id"])),
            ("Schedule", text(&schedule["id"])),
            ("Tenant", text(&ids["id"])),
        ]);
        Self {
            device: access,
            link: text(&photo["url"]),
            export: text(&export["result"]["url"]),
            upload: text(&pending["upload"]["url"]),
            tenant,
            owner,
            viewer,
            names,
        }
    }

    /// Two of them, made side by side.
    async fn two() -> (Self, Self) {
        futures::join!(Self::new(), Self::new())
    }

    /// The text with the names in it, longest first so that none is taken for the beginning of another.
    fn fill(&self, other: &Self, text: &str) -> String {
        let theirs = other.names.iter().map(|(k, v)| (format!("$Their{k}"), v));
        let mut names: Vec<_> = theirs
            .chain(self.names.iter().map(|(k, v)| (format!("${k}"), v)))
            .collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        names
            .into_iter()
            .fold(text.to_owned(), |text, (name, value)| {
                text.replace(&name, value)
            })
    }

    async fn ask(&self, other: &Self, ask: Ask, token: Option<&str>) -> Answer {
        let (method, path, body) = match ask {
            Ask::Gql(query) => return self.tenant.gql(token, &self.fill(other, query)).await,
            Ask::Follow(query) => {
                return following::ask(self, token, &self.fill(other, query)).await;
            }
            Ask::Get(path) => (Method::GET, path, ""),
            Ask::Post(path, body) => (Method::POST, path, body),
            Ask::Put(path) => (Method::PUT, path, "bytes"),
        };
        let mut request = self
            .tenant
            .request(method, &self.fill(other, path))
            .header("Content-Type", "application/json")
            .body(self.fill(other, body));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        self.tenant.send(request).await
    }

    /// Asks for each row as each caller where the answer is, or is not, to be a refusal.
    async fn check(&self, other: &Self, refusals: bool) {
        let names: Vec<_> = NODES.iter().map(|kind| &other.names[kind]).collect();
        for row in ROWS {
            let callers = [
                ("anonymous", None, row.anonymous),
                ("device", Some(&self.device), row.device),
                ("viewer", Some(&self.viewer), row.viewer),
                ("stranger", Some(&other.owner), row.stranger),
            ];
            for (caller, token, wanted) in callers {
                if matches!(wanted, "ok" | "200") == refusals {
                    continue;
                }
                let answer = self.ask(other, row.ask, token.map(String::as_str)).await;
                assert_eq!(
                    outcome(&answer),
                    wanted,
                    "{} as {caller}: {:#}",
                    row.name,
                    answer.body
                );
                let text = answer.body.to_string();
                let told = |name: &str| text.contains(name);
                assert!(
                    !told(&other.tenant.slug) && !names.iter().any(|name| told(name)),
                    "{} tells {caller} of the other tenant: {text}",
                    row.name
                );
            }
        }
    }
}

/// An answer in a word: `ok`, `null`, a top-level code, `errors CODE` for an expected failure, and the status unless it is
/// GraphQL's 200.
fn outcome(answer: &Answer) -> String {
    let (status, body) = (answer.status.as_u16(), &answer.body);
    let top = body["errors"][0]["extensions"]["code"].as_str();
    match (top, body["code"].as_str(), body["data"].as_object()) {
        (Some(code), ..) if status == 200 => code.to_owned(),
        (Some(code), ..) | (None, Some(code), _) => format!("{status} {code}"),
        (None, None, Some(data)) => {
            let value = data.values().next().unwrap();
            match value["errors"][0]["code"].as_str() {
                Some(code) => format!("errors {code}"),
                None if value.is_null() => "null".to_owned(),
                None => "ok".to_owned(),
            }
        }
        (None, None, None) => status.to_string(),
    }
}

/// The row of a global id: its last 16 bytes.
fn row_of(id: &str) -> Uuid {
    let bytes = URL_SAFE_NO_PAD.decode(id).unwrap();
    Uuid::from_slice(&bytes[bytes.len() - 16..]).unwrap()
}
