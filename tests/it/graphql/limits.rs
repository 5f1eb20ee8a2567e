//! Limits on documents: each is as large as it says, and says which it is.

use crate::harness::{Answer, Tenant, run, world};
use bulkhead::config::DocumentLimits;
use bulkhead::identity::BuiltIn;
use serde_json::{Map, Value};

/// Which limit refused the document, what it allows, and what the document has.
#[track_caller]
pub(super) fn refusal(answer: &Answer) -> (String, u64, u64) {
    assert!(answer.body["data"].is_null(), "{:#}", answer.body);
    assert_eq!(answer.code(), "QUERY_LIMIT_EXCEEDED", "{:#}", answer.body);
    let extensions = &answer.body["errors"][0]["extensions"];
    let number = |name: &str| extensions[name].as_u64().unwrap();
    let limit = extensions["limit"].as_str().unwrap().to_owned();
    (limit, number("max"), number("actual"))
}

/// `count` of what `make` makes.
pub(super) fn many(count: usize, make: impl Fn(usize) -> String) -> String {
    (0..count).map(make).collect()
}

/// A document that asks for so much of a limit's kind.
#[rustfmt::skip]
fn document(limit: &str, count: usize) -> String {
    match limit {
        "documentBytes" => format!("{:#<count$}", "{ viewer { expiresAt } } "),
        "tokens" => format!("{{ nodes(ids: [{}]) {{ id }} }}", "1 ".repeat(count - 12)),
        "fragments" => format!("{{ viewer {{ expiresAt }} }} {}", many(count, |i| format!("fragment F{i} on Viewer {{ expiresAt }} "))),
        "operations" => many(count, |i| format!("query Q{i} {{ viewer {{ expiresAt }} }} ")),
        "variables" => format!("query({}) {{ viewer {{ expiresAt }} }}", many(count, |i| format!("$v{i}: Int "))),
        "variableValues" => format!("query($v: [ID!]! = [{}], $w: [ID!]! = [{}]) {{ viewer {{ expiresAt(a: [{}]) }} }}",
            "1 ".repeat(39), "1 ".repeat(count - 1601), "$v ".repeat(40)),
        "selections" => format!("{{ viewer {{ {} {} }} }} fragment F on Viewer {{ {} }}",
            "...F ".repeat(count / 100 - 1), "expiresAt ".repeat(count % 100 + 99), "expiresAt ".repeat(99)),
        "depth" => format!("{{ __type(name: \"None\") {{ {} name {} }} }}", "ofType { ".repeat(count - 2), "} ".repeat(count - 2)),
        "complexity" => format!("{{ tenant {{ {} devices(first: 99) {{ nodes {{ {} }} }} }} }}",
            "slug ".repeat(count - 4953), "name ".repeat(50)),
        "aliases" => format!("{{ viewer {{ {} }} }}", many(count, |i| format!("a{i}: expiresAt "))),
        "rootFields" => format!("{{ {} }}", "viewer { expiresAt } ".repeat(count)),
        "directives" => format!("{{ viewer {{ expiresAt {} }} }}", "@include(if: true) ".repeat(count)),
        "arguments" => format!("{{ viewer {{ expiresAt({}) }} }}", many(count, |i| format!("a{i}: 1 "))),
        _ => unreachable!("{limit}"),
    }
}

/// The limits that are configured.
const LIMITS: [(&str, usize); 13] = [
    ("documentBytes", 16_384),
    ("tokens", 2000),
    ("fragments", 50),
    ("operations", 10),
    ("variables", 100),
    ("variableValues", 2000),
    ("selections", 2000),
    ("depth", 15),
    ("complexity", 5000),
    ("aliases", 30),
    ("rootFields", 30),
    ("directives", 5),
    ("arguments", 20),
];

#[test]
fn each_limit_is_as_large_as_it_says_and_says_which_it_is() {
    run(async {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        for (limit, max) in LIMITS {
            let fits = document(limit, max);
            let answer = tenant.gql(Some(&owner), &fits).await;
            let text = answer.body.to_string();
            assert!(!text.contains("QUERY_LIMIT"), "{limit}: {fits}: {text}");
            let more = document(limit, max + 1);
            let answer = tenant.gql(Some(&owner), &more).await;
            let wanted = (limit.to_owned(), max as u64, max as u64 + 1);
            assert_eq!(refusal(&answer), wanted, "{more}");
        }
    });
}

#[test]
fn each_limit_is_configured() {
    run(async {
        let here = Tenant::new().await;
        let owner = here.token(BuiltIn::Owner).await;
        let max = |limit: &str| {
            let (_, max) = LIMITS.iter().find(|(name, _)| *name == limit).unwrap();
            *max as u64 - 1
        };
        let limits = DocumentLimits {
            bytes: max("documentBytes"),
            tokens: max("tokens"),
            fragments: max("fragments"),
            operations: max("operations"),
            variables: max("variables"),
            variable_values: max("variableValues"),
            selections: max("selections"),
            depth: max("depth"),
            complexity: max("complexity"),
            aliases: max("aliases"),
            root_fields: max("rootFields"),
            directives: max("directives"),
            arguments: max("arguments"),
        };
        let world = world().await;
        let world = world.beside(|config| config.document_limits = limits).await;
        let tenant = Tenant { world, ..here };
        for (limit, count) in LIMITS {
            let answer = tenant.gql(Some(&owner), &document(limit, count)).await;
            let wanted = (limit.to_owned(), max(limit), count as u64);
            assert_eq!(refusal(&answer), wanted);
        }
    });
}

#[test]
fn nesting_and_attempts_to_sign_in_are_limited_too() {
    run(async {
        let tenant = Tenant::new().await;
        let brackets = |count: usize| {
            let (open, close) = ("[".repeat(count - 2), "]".repeat(count - 2));
            format!("{{ nodes(ids: {open}{close}) {{ id }} }}")
        };
        let levels = |count: usize| {
            let (open, close) = ("... { ".repeat(count - 2), "} ".repeat(count - 2));
            format!("{{ {open} viewer {{ expiresAt }} {close} }}")
        };
        let attempts = |count: usize| {
            let one = "sessionCreate(input: { email: \"\", password: \"\" }) { token } ";
            format!("mutation {{ {} }}", one.repeat(count))
        };
        let hidden = "mutation { a: sessionCreate(input: { email: \"\", password: \"\" }) { token } ...F }
            fragment F on Mutation { ... { b: sessionCreate(input: { email: \"\", password: \"\" }) { token } } }";
        for (fits, more, wanted) in [
            (brackets(64), brackets(65), ("nesting", 64, 65)),
            (levels(32), levels(33), ("nesting", 32, 33)),
            (attempts(1), attempts(2), ("authentications", 1, 2)),
            (attempts(1), hidden.to_owned(), ("authentications", 1, 2)),
        ] {
            let text = tenant.gql(None, &fits).await.body.to_string();
            assert!(!text.contains("QUERY_LIMIT"), "{fits}: {text}");
            let (limit, max, actual) = wanted;
            let answer = tenant.gql(None, &more).await;
            assert_eq!(refusal(&answer), (limit.to_owned(), max, actual), "{more}");
        }
        let answer = tenant
            .gql_with(None, "{ viewer { expiresAt } }", Value::Object(given(101)))
            .await;
        assert_eq!(refusal(&answer), ("variables".to_owned(), 100, 101));
    });
}

/// So many variables, which no document knows.
fn given(count: usize) -> Map<String, Value> {
    let named = (0..count).map(|i| (format!("v{i}"), Value::Null));
    named.collect()
}
