//! Documents that are made to cost: each is refused by the first that sees it, or answered, and the server goes on.

use super::limits::{many, refusal};
use crate::harness::{Tenant, run};
use bulkhead::identity::BuiltIn;
use serde_json::{Value, json};

/// Fragments of which each spreads the next one twice.
fn doubling(count: usize, last: &str) -> String {
    let double = |n| format!("fragment F{n} on Tenant {{ ...F{0} ...F{0} }} ", n + 1);
    format!("{{ tenant {{ ...F0 }} }} {} {last}", many(count, double))
}

/// Fragments of which each spreads all.
fn clique(count: usize) -> String {
    let all = many(count, |n| format!("...F{n} "));
    let one = |n| format!("fragment F{n} on Tenant {{ {all} }} ");
    format!("{{ tenant {{ ...F0 }} }} {}", many(count, one))
}

const INVALID: &str = "GRAPHQL_VALIDATION_FAILED";
const UNREADABLE: &str = "GRAPHQL_PARSE_FAILED";

/// What they are refused with: a limit's name, or a code.
#[rustfmt::skip]
fn documents() -> Vec<(&'static str, String)> {
    let nested = |open: &str, times: usize, close: &str| open.repeat(times) + &close.repeat(times);
    vec![
        ("selections", doubling(40, "fragment F40 on Tenant { slug }")),
        // Nothing but spreads: no field is ever counted.
        ("selections", doubling(40, "")),
        ("selections", doubling(30, "fragment F30 on Tenant { ...Nowhere }")),
        ("selections", format!("{{ {} }}", "... { ".repeat(20) + &"...F ".repeat(200) + &"} ".repeat(20) + "} fragment F on Query { a b c d e f g h i j")),
        (INVALID, "{ tenant { ...F } } fragment F on Tenant { ...F ...F }".to_owned()),
        (INVALID, "{ tenant { ...F } } fragment F on Tenant { ...G ...G } fragment G on Tenant { ...F ...F }".to_owned()),
        ("selections", clique(25)),
        ("nesting", many(40, |n| format!("fragment F{n} on Tenant {{ ...F{} }} ", n + 1)) + "{ tenant { ...F0 } }"),
        ("nesting", format!("{{ tenant {} }}", nested("{ a", 600, "}"))),
        ("nesting", format!("{{ node(id: {}) {{ id }} }}", nested("[", 900, "]"))),
        ("nesting", format!("{{ node(id: {}1{}) {{ id }} }}", "{a:".repeat(400), "}".repeat(400))),
        ("nesting", format!("query($v: {}) {{ viewer {{ expiresAt }} }}", "[".repeat(900) + "Int" + &"]".repeat(900))),
        ("nesting", "{a".repeat(900)),
        ("tokens", "{a".repeat(5000)),
        ("documentBytes", "{a".repeat(100_000)),
        (UNREADABLE, ",".repeat(16_384)),
        (UNREADABLE, "#".repeat(16_384)),
        (UNREADABLE, "\"".repeat(1900)),
        (UNREADABLE, format!("{{ node(id: \"{}", "\\u0041".repeat(2000))),
        (UNREADABLE, format!("{{ node(id: {}) {{ id }} }}", "-".repeat(10_000))),
        ("tokens", "{ ".to_owned() + &"! ".repeat(3000)),
        ("aliases", format!("{{ {} }}", many(200, |n| format!("a{n}: viewer {{ expiresAt }} ")))),
        ("aliases", format!("{{ {} }} fragment F on Query {{ {} }}", "...F ".repeat(20), many(20, |n| format!("a{n}: viewer {{ expiresAt }} ")))),
        ("rootFields", format!("{{ {} }} fragment F on Query {{ {} }}", "...F ".repeat(10), "viewer { expiresAt } ".repeat(10))),
        ("directives", format!("{{ viewer {{ expiresAt {} }} }}", "@a ".repeat(800))),
        ("directives", format!("query {} {{ viewer {{ expiresAt }} }}", "@a ".repeat(800))),
        ("directives", format!("query($v: Int {}) {{ viewer {{ expiresAt }} }}", "@a ".repeat(800))),
        // Names that overlap, and such as are not there: what says so must not be larger than what asked.
        (INVALID, format!("{{ tenant {{ {} }} }}", many(150, |n| format!("devices(first: {}) {{ nodes {{ id }} }} ", n % 5)))),
        (INVALID, format!("{{ tenant {{ {} }} }}", many(1900, |n| format!("x{} ", n % 10)))),
        (INVALID, format!("{{ {}(a: 1) @{} {{ id }} }}", "n".repeat(8000), "d".repeat(8000))),
        ("arguments", format!("{{ viewer {{ expiresAt({}) }} }}", many(600, |n| format!("a{n}: 1 ")))),
        ("arguments", format!("{{ viewer {{ expiresAt @skip({}) }} }}", many(600, |n| format!("a{n}: 1 ")))),
        ("arguments", within(30, &format!("x({}) {}", "a: 1 ".repeat(316), "x ".repeat(950)))),
        // The same field in each of many sets.
        (INVALID, within(30, &format!("x({0}) ", many(20, |n| format!("a{n}: 1 "))).repeat(29))),
        (INVALID, format!("{{ viewer {{ {} }} }}", many(600, |n| format!("...F{n} ")))),
        (INVALID, format!("{{ viewer {{ {} }} }}", "... on Nothing { a } ".repeat(250))),
        (INVALID, format!("query({}) {{ node(id: 1) {{ id }} }}", many(100, |n| format!("$v{n}: Nothing{n} = 1 ")))),
        (UNREADABLE, format!("{{ node(id: {}) {{ id }} }}", "9".repeat(16_000))),
    ]
}

#[test]
fn documents_that_are_made_to_cost_are_refused() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        for (wanted, query) in documents() {
            let answer = tenant.gql(Some(&owner), &query).await;
            let start: String = query.chars().take(80).collect();
            assert!(answer.body["data"].is_null(), "{start}: {:#}", answer.body);
            let errors = answer.body["errors"].as_array().unwrap().len();
            assert!(errors <= 20, "{start}: {errors} errors");
            if [INVALID, UNREADABLE].contains(&wanted) {
                assert_eq!(answer.code(), wanted, "{start}");
            } else {
                assert_eq!(refusal(&answer).0, wanted, "{start}");
            }
        }
        let alive = "{ viewer { expiresAt } }";
        tenant.gql(Some(&owner), alive).await.data();
    });
}

/// Documents of which validation finds the same fault again and again, and the first of it.
#[rustfmt::skip]
fn repeating() -> Vec<(&'static str, String)> {
    let few = many(20, |n| format!("a{n}: 1 "));
    let spread = |of: &str| format!("fragment X on Tenant {{ {of} }} fragment Y on Tenant {{ {} }}", "... { ...X } ".repeat(200));
    vec![
        ("Fields \"x\" conflict because they have differing arguments.", within(30, &format!("x({few}) {}", "x ".repeat(1800)))),
        ("Fields \"x\" conflict because they have differing arguments.", within(30, &many(190, |n| format!("x(a: {n}, b: 1) ")))),
        ("Fields \"x\" conflict because \"a\" and \"b\" are different fields.", within(30, &format!("x: a {}", "x: b ".repeat(29)))),
        ("Fields \"x\" conflict because they have differing arguments.", format!("{{ tenant {{ ...Y }} }} {}", spread("x(a: 1) x x x x x"))),
        ("Fragment \"X\" is never used", format!("{{ tenant {{ slug }} }} {}", spread(&format!("x(a: 1) {}", "x ".repeat(600))))),
        ("Fields \"x\" conflict because they have differing arguments.", format!("{{ tenant {{ {} }} }}", "x(a: 1, a: 2) ".repeat(150))),
        ("There can only be one argument named \"if\"", format!("{{ tenant {{ {} }} }}", "slug @skip(if: true, if: true) ".repeat(150))),
    ]
}

/// In so many selection sets in each other.
fn within(sets: usize, text: &str) -> String {
    let (open, close) = ("...{ ".repeat(sets), "} ".repeat(sets));
    format!("{{ tenant {{ {open} {text} {close} }} }}")
}

#[test]
fn a_fault_that_is_there_a_thousand_times_is_told_once() {
    run(async {
        let tenant = Tenant::new().await;
        for (message, query) in repeating() {
            let answer = tenant.gql(None, &query).await;
            let start: String = query.chars().take(200).collect();
            assert_eq!(answer.code(), INVALID, "{start}: {:#}", answer.body);
            let errors = answer.body["errors"].as_array().unwrap();
            assert_eq!(errors.len(), 1, "{start}");
            let told = errors[0]["message"].as_str().unwrap();
            assert!(told.starts_with(message), "{start}: {told}");
            let places = if told.starts_with("Fields") { 2 } else { 1 };
            assert_eq!(errors[0]["locations"].as_array().unwrap().len(), places);
        }
        let same = "{ tenant { slug slug ...F ... on Tenant { slug } a: members(first: 1) { totalCount: edges { cursor } }
            ... { a: members(first: 1) { totalCount: edges { cursor } } } } } fragment F on Tenant { slug }";
        let owner = tenant.token(BuiltIn::Owner).await;
        let answer = tenant.gql(Some(&owner), same).await;
        assert_eq!(answer.payload()["slug"], tenant.slug.as_str());
        assert!(answer.payload()["a"]["totalCount"].is_array());
    });
}

/// Arrays in each other.
fn deep(times: usize) -> Value {
    (0..times).fold(json!("x"), |inner, _| json!([inner]))
}

#[test]
fn variables_that_are_made_to_cost_are_refused() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let nodes = "query($v: [ID!]!) { nodes(ids: $v) { id } }";
        let node = "query($v: ID!) { node(id: $v) { id } }";
        let list = json!(vec!["x"; 200_000]);
        let long = json!("x".repeat(1_000_000));
        // Of 30 names, or all that a filter takes.
        let names = |count: usize| json!(vec!["Device"; count]);
        let changes = |times: usize| {
            let one = "changes(first: 1, filter: { subjectTypes: $v }) { edges { cursor } } ";
            format!(
                "query($v: [String!]) {{ tenant {{ {} }} }}",
                one.repeat(times)
            )
        };
        let copies = format!("nodes(ids: [{}]) {{ id }}", "$v ".repeat(900));
        let spread = "nodes(ids: [$v $v $v $v $v $v $v $v $v $v]) { id } ";
        let spread = format!(
            "query($v: ID!) {{ {} }} fragment F on Query {{ {spread} }}",
            "...F ".repeat(20)
        );
        let unlike =
            format!("query A {{ viewer {{ expiresAt }} }} query B($v: ID!) {{ {copies} }}");
        let default = format!(
            "query($w: ID = \"{}\") {{ {} }}",
            "x".repeat(8192),
            copies.replace("$v", "$w")
        );
        for (query, value) in [
            (nodes, list.clone()),
            (node, list.clone()),
            (&changes(1), list),
            (&changes(70), names(30)),
            (&format!("query($v: ID!) {{ {copies} }}"), long.clone()),
            (&spread, long.clone()),
            // Which of them is to run is not said.
            (&unlike, long.clone()),
            (&default, Value::Null),
        ] {
            let answer = tenant
                .gql_with(Some(&owner), query, json!({ "v": value }))
                .await;
            assert_eq!(refusal(&answer).0, "variableValues", "{query}");
        }
        // Deep, and deeper than what is read of any JSON.
        for value in [deep(100), deep(1000)] {
            let variables = json!({ "v": value });
            let answer = tenant.gql_with(Some(&owner), nodes, variables).await;
            assert!(answer.body["data"].is_null(), "{:#}", answer.body);
            assert_eq!(answer.code(), "BAD_USER_INPUT");
        }
        let variables = json!({ "v": names(100) });
        let answer = tenant.gql_with(Some(&owner), &changes(15), variables).await;
        answer.data();
        let answer = tenant
            .gql_with(Some(&owner), node, json!({ "v": long }))
            .await;
        assert!(answer.data()["node"].is_null());
        let alive = "{ viewer { expiresAt } }";
        tenant.gql(Some(&owner), alive).await.data();
    });
}
