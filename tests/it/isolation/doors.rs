//! Each door as its row says; and ids, lists and tokens of the one tenant at the other.

use super::rows::{IDS, LISTS, NODES};
use super::{Side, outcome};
use crate::harness::run;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bulkhead::clock::Clock;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use uuid::Uuid;

#[test]
fn every_door_answers_each_caller_as_its_row_says() {
    run(async {
        let (a, b) = Side::two().await;
        // Known at home, so that what another host says does not come from having forgotten them.
        for side in [&a, &b] {
            assert_eq!(
                side.tenant
                    .gql(Some(&side.owner), "{ tenant { id } }")
                    .await
                    .payload()["id"],
                side.names["Tenant"].as_str()
            );
        }
        // That somebody could not sign in, or was denied, is in the trail; it changes nothing.
        let changes = "SELECT count(*) FROM history WHERE action IN ('create', 'update', 'delete')";
        let before = (a.tenant.count(changes).await, b.tenant.count(changes).await);
        a.check(&b, true).await;
        b.check(&a, true).await;
        let after = (a.tenant.count(changes).await, b.tenant.count(changes).await);
        assert_eq!(before, after, "a refused call wrote something");
        a.check(&b, false).await;
        b.check(&a, false).await;
    });
}

#[test]
fn the_other_tenants_id_is_no_id() {
    run(async {
        let (a, b) = Side::two().await;
        let before = (a.tenant.changes().await, b.tenant.changes().await);
        for (own, other) in [(&a, &b), (&b, &a)] {
            for kind in NODES {
                let node = r#"{ node(id: "$id") { __typename id } }"#;
                let nodes = r#"{ nodes(ids: ["$id"]) { __typename id } }"#;
                let known = node.replace("$id", &own.names[kind]);
                let here = own.tenant.gql(Some(&own.owner), &known).await;
                assert_eq!(here.payload()["__typename"], kind);
                assert_alike(own, other, kind, node).await;
                assert_alike(own, other, kind, nodes).await;
            }
            for (_, kind, document) in IDS {
                assert_alike(own, other, kind, document).await;
            }
        }
        let after = (a.tenant.changes().await, b.tenant.changes().await);
        assert_eq!(before, after, "a refused call wrote something");
    });
}

/// The same answer, to the letter, for the other tenant's id, an absent one and what is none, to an owner.
async fn assert_alike(own: &Side, other: &Side, kind: &str, document: &str) {
    let absent = global_id(kind, Clock::default().new_id());
    let other_kind = if kind == "Role" { "Member" } else { "Role" };
    let mut answers = Vec::new();
    for id in [
        &absent,
        &other.names[kind],
        "%%%",
        "",
        &global_id(kind, Uuid::nil()),
        &global_id(other_kind, Clock::default().new_id()),
    ] {
        let document = document.replace("$id", id);
        let answer = own.tenant.gql(Some(&own.owner), &document).await;
        answers.push((id.to_owned(), answer.status, answer.body));
    }
    let (_, status, body) = &answers[0];
    assert_eq!(*status, StatusCode::OK);
    assert!(body["errors"].is_null(), "{body:#}");
    for answer in &answers {
        assert_eq!(
            (&answer.1, &answer.2),
            (status, body),
            "{document} with {}",
            answer.0
        );
    }
}

fn global_id(kind: &str, row: Uuid) -> String {
    URL_SAFE_NO_PAD.encode([kind.as_bytes(), row.as_bytes()].concat())
}

#[test]
fn lists_hold_their_own_and_nothing_else() {
    run(async {
        let (a, b) = Side::two().await;
        let all = "{ tenant { changes(first: 100) { nodes { id subjectId } } devices { nodes { id } } jobs { nodes { id } }
            media { nodes { id } } members { nodes { id roles { id } } } } }";
        for (own, other) in [(&a, &b), (&b, &a)] {
            let text = own
                .tenant
                .gql(Some(&own.owner), all)
                .await
                .data()
                .to_string();
            for kind in NODES.iter().filter(|kind| **kind != "Tenant") {
                assert!(text.contains(&own.names[kind]), "{kind} is not in {text}");
                assert!(!text.contains(&other.names[kind]), "{kind} is in {text}");
            }
        }
    });
}

/// A place in the other tenant's list is none in this one's: the row that it was made of is told apart from none nowhere.
#[test]
fn the_other_tenants_cursor_tells_no_more_than_one_of_no_row() {
    run(async {
        let (a, b) = Side::two().await;
        for (own, other) in [(&a, &b), (&b, &a)] {
            for (list, document) in LISTS {
                let page = async |side: &Side, arguments: &str| {
                    let document = side.fill(other, document).replace("$page", arguments);
                    side.tenant.gql(Some(&side.owner), &document).await
                };
                let theirs = page(other, "first: 1").await;
                let theirs = end_cursor(theirs.data());
                let theirs =
                    theirs.unwrap_or_else(|| panic!("{list} has no rows at {}", other.tenant.slug));
                let absent = of_no_row(theirs.clone());
                for arguments in ["first: 100, after", "last: 100, before"] {
                    let with = |cursor: &str| format!(r#"{arguments}: "{cursor}""#);
                    let (told, untold) = (
                        page(own, &with(&theirs)).await,
                        page(own, &with(&absent)).await,
                    );
                    assert_eq!(told.data(), untold.data(), "{list} {arguments}");
                    let text = told.body.to_string();
                    assert!(text.contains("nodes"), "{list} {arguments}: {text}");
                    for kind in NODES {
                        let name = &other.names[kind];
                        assert!(
                            !text.contains(name),
                            "{kind} is in {list} {arguments}: {text}"
                        );
                    }
                }
            }
        }
    });
}

/// The first `endCursor` in an answer.
fn end_cursor(answer: &Value) -> Option<String> {
    let fields = answer.as_object()?;
    match fields.get("endCursor") {
        Some(cursor) => cursor.as_str().map(str::to_owned),
        None => fields.values().find_map(end_cursor),
    }
}

/// The cursor of the same place but for the row's id, which no row has.
fn of_no_row(cursor: String) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(cursor).unwrap();
    let direction = bytes.iter().position(|byte| b"+-".contains(byte)).unwrap();
    bytes[direction + 16] ^= 1;
    URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn a_token_is_worth_nothing_at_another_host() {
    run(async {
        let (a, b) = Side::two().await;
        for (own, other) in [(&a, &b), (&b, &a)] {
            let before = (own.tenant.changes().await, other.tenant.changes().await);
            for token in [&other.owner, &other.viewer, &other.device] {
                let answer = own
                    .tenant
                    .gql(Some(token), "{ viewer { expiresAt } }")
                    .await;
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
                assert_eq!(answer.code(), "UNAUTHENTICATED");
                assert_eq!(answer.header("WWW-Authenticate"), "Bearer");
                for (method, path) in [
                    (Method::GET, "/device/me"),
                    (Method::POST, "/device/token/rotate"),
                ] {
                    let answer = own
                        .tenant
                        .send(own.tenant.request(method, path).bearer_auth(token))
                        .await;
                    assert_eq!(outcome(&answer), "401 token_revoked", "{path}");
                }
            }
            let after = (own.tenant.changes().await, other.tenant.changes().await);
            assert_eq!(before, after, "a refused call wrote something");
            // And at home it works on: nobody ends it from another host.
            let me = other
                .tenant
                .request(Method::GET, "/device/me")
                .bearer_auth(&other.device);
            assert_eq!(outcome(&other.tenant.send(me).await), "200");
        }
    });
}
