//! Complexity: what a document can cost, by the rows that its lists can have.

use super::limits::refusal;
use crate::harness::{Answer, Tenant, run};
use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{FieldDefinition, TypeKind, TypeSystemDefinition};
use bulkhead::identity::BuiltIn;
use reqwest::StatusCode;
use serde_json::{Value, json};

/// Lists that do not page, because they are short: about ten rows are reckoned with.
const SHORT: [&str; 11] = [
    "Change.fields",
    "ChangeRevertPayload.fields",
    "ChangeRevertPayload.reverted",
    "Member.roles",
    "Query.diff",
    "Query.nodes",
    "Reverted.fields",
    "Tenant.quotas",
    "Tenant.scheduleKinds",
    "UploadTarget.headers",
    "….errors",
];

/// All fields of the schema's objects and interfaces, by the name of their type.
fn fields() -> Vec<(String, FieldDefinition)> {
    let text = include_str!("../../../schema.graphql");
    let definitions = parse_schema(text).unwrap().definitions.into_iter();
    let types = definitions.filter_map(|definition| match definition {
        TypeSystemDefinition::Type(definition) => Some(definition.node),
        _ => None,
    });
    let fields = types.flat_map(|definition| {
        let fields = match definition.kind {
            TypeKind::Object(object) => object.fields,
            TypeKind::Interface(interface) => interface.fields,
            _ => Vec::new(),
        };
        let of = definition.name.node.to_string();
        fields
            .into_iter()
            .map(move |field| (of.clone(), field.node))
    });
    fields.collect()
}

/// Every list pages, with at most 100 rows a page, or is named above.
#[test]
fn every_list_of_the_schema_has_a_rule() {
    let fields = fields();
    let composite = |name: &str| fields.iter().any(|(of, _)| of == name);
    let mut short = Vec::new();
    for (of, field) in &fields {
        let kind = field.ty.node.to_string();
        let named = kind.trim_matches(['[', ']', '!']);
        let pages = field.arguments.iter().any(|a| a.node.name.node == "first");
        assert_eq!(named.ends_with("Connection"), pages, "{of}.{}", field.name);
        let is_page = of.ends_with("Connection");
        if kind.starts_with('[') && composite(named) && !is_page {
            short.push(match field.name.node.as_str() {
                "errors" => "….errors".to_owned(),
                name => format!("{of}.{name}"),
            });
        }
    }
    short.sort();
    short.dedup();
    assert_eq!(short, SHORT);
}

#[test]
fn every_list_of_a_tenant_pages_and_costs_what_its_page_can_have() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let mut lists = 0;
        for (_, field) in fields().iter().filter(|(of, _)| of == "Tenant") {
            if !field.ty.node.to_string().ends_with("Connection!") {
                continue;
            }
            lists += 1;
            let ask = async |first: u32, ids: usize| {
                let ids = "id ".repeat(ids);
                let query = format!(
                    "{{ tenant {{ {}(first: {first}) {{ nodes {{ {ids} }} }} }} }}",
                    field.name.node
                );
                tenant.gql(Some(&owner), &query).await
            };
            ask(100, 49).await.data();
            let wanted = ("complexity".to_owned(), 5000, 5003);
            assert_eq!(refusal(&ask(100, 50).await), wanted, "{}", field.name);
            for first in [101, 2_000_000_000] {
                let answer = ask(first, 1).await;
                assert_eq!(answer.code(), "BAD_USER_INPUT", "{:#}", answer.body);
            }
        }
        assert!(lists >= 5);
    });
}

/// What the document costs, if it costs too much.
async fn price(tenant: &Tenant, owner: &str, query: &str, variables: Value) -> Option<u64> {
    let answer = tenant.gql_with(Some(owner), query, variables).await;
    let text = answer.body.to_string();
    if !text.contains("QUERY_LIMIT_EXCEEDED") {
        return None;
    }
    let (limit, max, actual) = refusal(&answer);
    assert_eq!((limit.as_str(), max), ("complexity", 5000), "{query}");
    Some(actual)
}

#[test]
fn the_price_is_that_of_the_rows_that_can_come() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let names = "name ".repeat(60);
        let devices = |arguments: &str| {
            format!("{{ tenant {{ devices{arguments} {{ nodes {{ {names} }} }} }} }}")
        };
        let with = |definition: &str, argument: &str| {
            format!(
                "query({definition}) {}",
                devices(&format!("(first: {argument})"))
            )
        };
        let fragment = format!(
            "{{ tenant {{ devices(first: 100) {{ ...Page }} }} }}
             fragment Page on DeviceConnection {{ ... {{ edges {{ ...Row }} }} }}
             fragment Row on DeviceEdge {{ node {{ {names} }} }}"
        );
        let roles = "{ tenant { members(first: 100) { nodes { roles { id name builtIn permissions id } } } } }";
        let within = "{ tenant { members(first: 10) { nodes { history(first: 10) { nodes { id fields { name before after name after } } } } } } }";
        let pins = |count| {
            let one = r#"deviceCreate(input: { name: "" }) { pin } "#;
            format!("mutation {{ {} }}", one.repeat(count))
        };
        let nodes = "query($ids: [ID!]!) { nodes(ids: $ids) { id id id id id } }";
        let ids = |count| json!({ "ids": vec!["x"; count] });
        let none = Value::Null;
        for (query, variables, price_of) in [
            // Twenty rows unless more are asked for.
            (devices(""), none.clone(), None),
            (devices("(first: 83)"), none.clone(), None),
            (devices("(first: 84)"), none.clone(), Some(5043)),
            (with("$n: Int!", "$n"), json!({ "n": 83 }), None),
            (with("$n: Int!", "$n"), json!({ "n": 84 }), Some(5043)),
            (with("$n: Int!", "$n"), json!({ "n": 83 }), None),
            (with("$n: Int! = 84", "$n"), none.clone(), Some(5043)),
            (with("$n: Int! = 84", "$n"), json!({ "n": 1 }), None),
            (fragment, none.clone(), Some(6103)),
            (roles.to_owned(), none.clone(), Some(5103)),
            (within.to_owned(), none.clone(), Some(5223)),
            (nodes.to_owned(), ids(999), None),
            (nodes.to_owned(), ids(1000), Some(5001)),
            (pins(4), none.clone(), None),
            (pins(5), none.clone(), Some(5010)),
        ] {
            let found = price(&tenant, &owner, &query, variables).await;
            assert_eq!(found, price_of, "{query}");
        }
        assert_eq!(tenant.count("SELECT count(*) FROM device").await, 0);
    });
}

/// Of several operations only the one that runs has to be paid for by its variables.
#[test]
fn what_does_not_run_costs_nothing() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let names = "name ".repeat(60);
        let query = format!(
            "query Small($n: Int!) {{ tenant {{ jobs(first: $n) {{ nodes {{ id }} }} }} }}
             query Large($n: Int!) {{ tenant {{ devices(first: $n) {{ nodes {{ {names} }} }} }} }}"
        );
        let ask = async |operation: &str| -> Answer {
            let body =
                json!({ "query": query, "operationName": operation, "variables": { "n": 100 } });
            let request = tenant.request(reqwest::Method::POST, "/graphql");
            tenant.send(request.bearer_auth(&owner).json(&body)).await
        };
        for _ in 0..2 {
            ask("Small").await.data();
            assert_eq!(refusal(&ask("Large").await).0, "complexity");
            assert_eq!(ask("Absent").await.code(), "GRAPHQL_VALIDATION_FAILED");
        }
    });
}

/// The query that GraphiQL and its like begin with.
fn introspection() -> String {
    let types = "ofType { name kind ".repeat(9) + &"} ".repeat(9);
    format!(
        "query {{ __schema {{
            description queryType {{ name kind }} mutationType {{ name kind }} subscriptionType {{ name kind }}
            types {{ ...FullType }}
            directives {{ name description isRepeatable locations args(includeDeprecated: true) {{ ...InputValue }} }}
        }} }}
        fragment FullType on __Type {{
            kind name description specifiedByURL isOneOf
            fields(includeDeprecated: true) {{
                name description args(includeDeprecated: true) {{ ...InputValue }} type {{ ...TypeRef }} isDeprecated deprecationReason
            }}
            inputFields(includeDeprecated: true) {{ ...InputValue }}
            interfaces {{ ...TypeRef }}
            enumValues(includeDeprecated: true) {{ name description isDeprecated deprecationReason }}
            possibleTypes {{ ...TypeRef }}
        }}
        fragment InputValue on __InputValue {{
            name description type {{ ...TypeRef }} defaultValue isDeprecated deprecationReason
        }}
        fragment TypeRef on __Type {{ kind name {types} }}"
    )
}

#[test]
fn the_schema_may_be_asked_for_once_but_not_over_and_over() {
    run(async {
        let tenant = Tenant::new().await;
        let answer = tenant.gql(None, &introspection()).await;
        let types = answer.data()["__schema"]["types"].as_array().unwrap();
        assert!(types.iter().any(|kind| kind["name"] == "Device"));

        let deep = |times: usize| {
            let (open, close) = ("fields { type { ".repeat(times), "} } ".repeat(times));
            format!("{{ __schema {{ types {{ {open} name {close} }} }} }}")
        };
        tenant.gql(None, &deep(2)).await.data();
        for query in [
            deep(6),
            format!(
                "{{ {} }}",
                "__schema { types { fields { name } } } "
                    .repeat(30)
                    .replace("name", &"name ".repeat(10))
            ),
            deep(2).replace("name", &"name ".repeat(200)),
        ] {
            let answer = tenant.gql(None, &query).await;
            assert_eq!(answer.status, StatusCode::OK);
            assert_eq!(refusal(&answer).0, "introspection", "{query}");
        }
    });
}
