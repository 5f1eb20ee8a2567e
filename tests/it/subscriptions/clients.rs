//! The official clients from npm, over each transport: graphql-ws, graphql-sse, Apollo, urql. `tests/clients` is theirs.

use super::{followed, rename};
use crate::harness::{Package, Tenant, run};
use bulkhead::identity::BuiltIn;
use serde_json::{Value, json};
use std::io::Write as _;
use std::process::{Command, Stdio};

const CLIENTS: [&str; 9] = [
    "POST fetch",
    "POST apollo",
    "POST urql",
    "WS graphql-ws",
    "WS apollo",
    "WS urql",
    "SSE graphql-sse",
    "SSE apollo",
    "SSE urql",
];

fn node(package: &Package, script: &str, tenant: &Tenant, token: &str) -> Command {
    let mut command = package.node(script);
    command.env("HOST", tenant.host()).env("TOKEN", token);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What it printed, once it has ended well.
async fn printed(mut command: Command, input: String) -> Value {
    let ended = tokio::task::spawn_blocking(move || {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // One that does not read may be gone already.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().unwrap()
    });
    let output = ended.await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_operation_gives_the_same_over_each_transport() {
    run(async {
        let Some(package) = Package::new("tests/clients") else {
            return;
        };
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let operations = json!([
            { "query": "query { tenant { slug name quotas { name limit } } }" },
            { "query": "query($id: ID!) { node(id: $id) { id ... on Device { name state version } } }", "variables": { "id": device } },
            { "query": "mutation($n: String!) { deviceCreate(input: { name: $n }) { device { name state version } errors { message } } }",
              "variables": { "n": "Größe 7 \u{1f512}" } },
            { "query": r#"mutation { deviceCreate(input: { name: "" }) { device { id } errors { code message field } } }"# },
            { "query": "query { tenant { slug devices(first: 101) { nodes { id } } } }" },
        ]);
        let command = node(&package, "operations.js", &tenant, &owner);
        let answers = printed(command, operations.to_string()).await;
        let first = answers[CLIENTS[0]].as_array().unwrap();
        assert_eq!(first[0]["data"]["tenant"]["slug"], tenant.slug.as_str());
        assert_eq!(first[1]["data"]["node"]["version"], 1);
        assert_eq!(
            first[2]["data"]["deviceCreate"]["device"]["name"],
            "Größe 7 \u{1f512}"
        );
        assert_eq!(
            first[3]["data"]["deviceCreate"]["errors"][0]["code"],
            "INVALID"
        );
        assert_eq!(
            first[4]["errors"][0]["extensions"]["code"],
            "BAD_USER_INPUT"
        );
        assert_eq!(answers.as_object().unwrap().len(), CLIENTS.len());
        for client in CLIENTS {
            assert_eq!(answers[client], answers[CLIENTS[0]], "{client}");
        }
        let made = tenant
            .count("SELECT count(*) FROM device WHERE name <> 'A device'")
            .await;
        assert_eq!(
            made,
            i64::try_from(CLIENTS.len()).unwrap(),
            "each sent it once"
        );
    });
}

#[test]
fn each_client_is_told_of_a_hundred_changes_in_order() {
    run(async {
        let Some(package) = Package::new("tests/clients") else {
            return;
        };
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (device, ..) = tenant.device(&owner).await;
        let mut command = node(&package, "follow.js", &tenant, &owner);
        let query = "subscription($id: ID) { deviceUpdated(deviceId: $id) { id name version } }";
        let variables = json!({ "id": device }).to_string();
        command.args(["100", query, &variables]);
        let told = tokio::spawn(printed(command, String::new()));
        // Each has a connection of its own.
        followed(&tenant, 2 * (CLIENTS.len() - 3)).await;
        let mut wanted = Vec::new();
        for number in 0..100 {
            let name = format!("name {number}");
            rename(&tenant, &owner, &device, &name).await;
            wanted.push(
                json!({ "deviceUpdated": { "id": device, "name": name, "version": number + 2 } }),
            );
        }
        let told = told.await.unwrap();
        for client in &CLIENTS[3..] {
            assert_eq!(told[client], json!(wanted), "{client}");
        }
    });
}
