//! Subscriptions: what is followed, over WebSockets and event streams; who may, and for how long.

mod clients;
mod ending;
mod events;
mod following;
mod slow;
mod sockets;

use crate::harness::{Process, Socket, Tenant, World, until};
use regex_lite::Regex;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

/// Waits until so many follow the tenant: each connection with a credential is one, and each subscription of theirs.
pub async fn followed(tenant: &Tenant, count: usize) {
    let feeds = &tenant.world.app.services.feeds;
    until("the tenant is followed", async || {
        (feeds.followers(tenant.row.id) == count).then_some(())
    })
    .await;
}

/// Renames a device.
pub async fn rename(tenant: &Tenant, token: &str, device: &str, name: &str) {
    let query = "mutation($input: DeviceUpdateInput!) { deviceUpdate(input: $input) { errors { message } } }";
    let input = json!({ "input": { "deviceId": device, "name": name } });
    let done = tenant.gql_with(Some(token), query, input).await;
    assert_eq!(done.payload()["errors"], json!([]));
}

fn name_of(answer: &Value) -> &str {
    answer["data"]["deviceUpdated"]["name"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer:#}"))
}

/// `bulkhead serve` on a world's database: another server, in a process of its own.
struct Server {
    process: Process,
    address: String,
}

impl Server {
    async fn start(world: &World) -> Self {
        let serve = ["serve", "--http", "127.0.0.1:0"];
        let mut process = Process::start(world.command().args(serve));
        let said = process.says("serving").await;
        let address = Regex::new(r"address=(127\.0\.0\.1:\d+)").unwrap();
        let address = address.captures(&said).unwrap()[1].to_owned();
        Self { process, address }
    }

    fn host(&self, tenant: &Tenant) -> String {
        let (_, port) = self.address.rsplit_once(':').unwrap();
        format!("{}.localhost:{port}", tenant.slug)
    }

    fn request(&self, tenant: &Tenant) -> RequestBuilder {
        let url = format!("http://{}/graphql", self.address);
        let request = tenant.world.client.post(url);
        request.header("Host", self.host(tenant))
    }

    async fn socket(&self, tenant: &Tenant) -> Socket {
        let request = Socket::request_at(&self.address, &self.host(tenant), "graphql-transport-ws");
        Socket::connect(request).await.unwrap()
    }

    async fn gql(&self, tenant: &Tenant, token: &str, query: &str) {
        let request = self.request(tenant).bearer_auth(token);
        let answer = tenant.send(request.json(&json!({ "query": query }))).await;
        answer.data();
    }
}
