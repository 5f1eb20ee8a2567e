//! Subscriptions as doors: who may follow, and that nobody is told of another tenant.

use super::{Side, outcome};
use crate::harness::{Answer, Events, Heard, Socket, Tenant, run, until};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// What a caller gets who would follow: over a socket and as an event stream the same.
pub(super) async fn ask(side: &Side, token: Option<&str>, query: &str) -> Answer {
    let over_socket = by_socket(&side.tenant, token, query).await;
    let streamed = by_stream(&side.tenant, token, query).await;
    assert_eq!(outcome(&over_socket), outcome(&streamed), "{query}");
    // One body with all that was told, for who looks for what must not be in it.
    let mut answer = streamed;
    answer.body["extensions"] = over_socket.body;
    answer
}

async fn by_socket(tenant: &Tenant, token: Option<&str>, query: &str) -> Answer {
    nobody_follows(tenant).await;
    let mut socket = Socket::open(tenant).await;
    let payload = token.map(|token| json!({ "authorization": format!("Bearer {token}") }));
    let init = json!({ "type": "connection_init", "payload": payload });
    match socket.ask(init).await {
        Heard::Said(_) => {}
        Heard::Closed(4403, reason) => {
            let refused = json!({ "errors": [{ "message": reason, "extensions": { "code": "UNAUTHENTICATED" } }] });
            return answer(StatusCode::UNAUTHORIZED, refused);
        }
        other => panic!("{other:?}"),
    }
    socket.subscribe("a", query).await;
    let told = first(tenant, async || match socket.hear().await {
        Heard::Said(said) => said["payload"].clone(),
        other => panic!("{other:?}"),
    });
    answer(StatusCode::OK, told.await)
}

async fn by_stream(tenant: &Tenant, token: Option<&str>, query: &str) -> Answer {
    nobody_follows(tenant).await;
    let request = tenant.request(Method::POST, "/graphql");
    let request = Events::asking(request, token, query);
    let response = request.try_clone().unwrap().send().await.unwrap();
    if response.status() != StatusCode::OK {
        return tenant.send(request).await;
    }
    drop(response);
    nobody_follows(tenant).await;
    let mut events = Events::of(request).await;
    let told = first(tenant, async || events.next().await);
    answer(StatusCode::OK, told.await)
}

/// What comes first: an answer, or that the follower is one.
async fn first(tenant: &Tenant, mut hear: impl AsyncFnMut() -> Value) -> Value {
    let feeds = &tenant.world.app.services.feeds;
    until("the subscription begins or is refused", async || {
        let mut told = async || timeout(Duration::from_millis(100), hear()).await.ok();
        if let Some(told) = told().await {
            return Some(told);
        }
        if feeds.followers(tenant.row.id) != 2 {
            return None;
        }
        // Who follows is looked at afterwards. With one connection that has its turn before this.
        tenant.write().await.commit().await.unwrap();
        let told = told().await;
        Some(told.unwrap_or_else(|| json!({ "data": { "followed": {} } })))
    })
    .await
}

async fn nobody_follows(tenant: &Tenant) {
    let feeds = &tenant.world.app.services.feeds;
    until("nobody follows", async || {
        (feeds.followers(tenant.row.id) == 0).then_some(())
    })
    .await;
}

fn answer(status: StatusCode, body: Value) -> Answer {
    Answer {
        status,
        headers: HeaderMap::new(),
        body,
    }
}

#[test]
fn nobody_is_told_of_another_tenant() {
    run(async {
        let (a, b) = Side::two().await;
        let all = [
            "subscription { changeRecorded { id subjectId snapshot fields { name before after } actor { ... on Member { email } } } }",
            "subscription { deviceUpdated { id name clientId } }",
            "subscription { jobUpdated { id kind } }",
        ];
        let mut sides = Vec::new();
        for side in [&a, &b] {
            let mut socket = Socket::init(&side.tenant, Some(&side.owner)).await;
            for (id, query) in all.iter().enumerate() {
                socket.subscribe(&id.to_string(), query).await;
            }
            let feeds = &side.tenant.world.app.services.feeds;
            until("all is followed", async || {
                (feeds.followers(side.tenant.row.id) == 4).then_some(())
            })
            .await;
            sides.push(socket);
        }
        // Each tenant has a device, a media and a job more; the last change of each is known by its name.
        for side in [&a, &b] {
            side.tenant.device(&side.owner).await;
            side.tenant.photo(&side.owner).await;
            let rename = format!(
                r#"mutation {{ deviceUpdate(input: {{ deviceId: "{}", name: "the last" }}) {{ device {{ id }} }} }}"#,
                side.names["Device"]
            );
            side.tenant.gql(Some(&side.owner), &rename).await.data();
        }
        for (socket, own, other) in [(0, &a, &b), (1, &b, &a)] {
            let mut told = String::new();
            let mut finals = 0;
            while finals < 2 {
                let Heard::Said(said) = sides[socket].hear().await else {
                    panic!("closed")
                };
                let text = said.to_string();
                finals += usize::from(text.contains("the last"));
                told += &text;
            }
            assert!(told.contains(&own.names["Device"]), "{told}");
            assert!(told.contains("media.process"), "{told}");
            for name in other
                .names
                .iter()
                .filter(|(kind, _)| !["Password", "Pin"].contains(kind))
            {
                assert!(!told.contains(name.1.as_str()), "{name:?} is in {told}");
            }
            assert!(!told.contains(&other.tenant.slug), "{told}");
        }
    });
}
