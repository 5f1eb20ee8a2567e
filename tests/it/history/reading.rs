//! Reading the trail: its pages, an object's own part, and who may.

use super::{adding, history, read, row, update, write};
use crate::harness::{Tenant, execute, run};
use bulkhead::identity::BuiltIn;
use serde_json::{Value, json};
use std::collections::HashSet;
use uuid::Uuid;

/// The ids of all pages of a list of changes.
async fn walk(tenant: &Tenant, token: &str, first: u32) -> Vec<String> {
    let query =
        "query($first: Int!, $after: String) { tenant { changes(first: $first, after: $after) {
        nodes { id } pageInfo { hasNextPage endCursor } } } }";
    let (mut ids, mut after) = (Vec::new(), Value::Null);
    loop {
        let variables = json!({ "first": first, "after": after });
        let answer = tenant.gql_with(Some(token), query, variables).await;
        let page = &answer.data()["tenant"]["changes"];
        let nodes = page["nodes"].as_array().unwrap();
        assert!(nodes.len() <= first as usize);
        ids.extend(nodes.iter().map(|n| n["id"].as_str().unwrap().to_owned()));
        if page["pageInfo"]["hasNextPage"] == false {
            return ids;
        }
        assert_eq!(nodes.len(), first as usize, "a page with others after it");
        after = page["pageInfo"]["endCursor"].clone();
    }
}

#[test]
fn pages_have_no_gaps_and_no_doubles() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let tx = tenant.write().await;
        for _ in 0..3 {
            execute(&tx, &adding(11)).await.unwrap();
        }
        let rename = "UPDATE device SET name = 'New'";
        assert_eq!(execute(&tx, rename).await.unwrap(), 33);
        tx.commit().await.unwrap();
        write(&tenant, "DELETE FROM device WHERE client_id < '8'").await;
        let order =
            "SELECT string_agg(id::text, ' ' ORDER BY recorded_at DESC, id DESC) FROM history";
        let order = read(&tenant, order).await;
        let expected: Vec<Uuid> = order.split(' ').map(|id| id.parse().unwrap()).collect();
        assert!(expected.len() > 66);
        for first in [1, 7, 100] {
            let ids = walk(&tenant, &owner, first).await;
            let distinct: HashSet<_> = ids.iter().collect();
            assert_eq!(distinct.len(), ids.len(), "doubles in pages of {first}");
            let rows: Vec<_> = ids.iter().map(|id| row(id)).collect();
            assert_eq!(rows, expected, "in pages of {first}");
        }
    });
}

#[test]
fn an_objects_history_is_its_own_and_for_those_who_may() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let (one, client_id, pin) = tenant.device(&owner).await;
        let (two, ..) = tenant.device(&owner).await;
        tenant.device_auth(&client_id, &pin).await;
        update(&tenant, &owner, json!({ "deviceId": two, "name": "Two" })).await;
        let actions = |changes: Vec<Value>, id: &str| -> Vec<Value> {
            for change in &changes {
                assert_eq!(change["subjectId"], id);
            }
            changes.into_iter().map(|c| c["action"].clone()).collect()
        };
        let of_one = history(&tenant, &owner, &one).await;
        assert_eq!(of_one[0]["actor"]["__typename"], "Device");
        assert_eq!(actions(of_one, &one), ["SIGN_IN", "UPDATE", "CREATE"]);
        let of_two = history(&tenant, &owner, &two).await;
        assert_eq!(actions(of_two, &two), ["UPDATE", "CREATE"]);

        let viewer = tenant.token(BuiltIn::Viewer).await;
        for query in [
            "query($id: ID!) { node(id: $id) { ... on Device { name history { nodes { id } } } } }",
            "query($id: ID!) { tenant { changes { nodes { id } } } node(id: $id) { id } }",
        ] {
            let answer = tenant
                .gql_with(Some(&viewer), query, json!({ "id": one }))
                .await;
            assert_eq!(answer.code(), "FORBIDDEN", "{:#}", answer.body);
        }
    });
}
