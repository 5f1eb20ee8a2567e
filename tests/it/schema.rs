//! The committed schema is the one that is served: its diff is the review of the API. All of it is described, it goes by the
//! rules of `web/schema-lint`, and what breaks clients since the last release is in the CHANGELOG. The same holds of the
//! reference of error codes.

use crate::harness::{Package, Tenant, finish, program, repository, run, succeed};
use bulkhead::cli::{errors_text, schema_text};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn schema_graphql_is_current() {
    let committed = include_str!("../../schema.graphql");
    let served = format!("{}\n", schema_text().trim_end());
    assert!(
        committed == served,
        "schema.graphql is not what is served; run: cargo run -- schema > schema.graphql"
    );
}

#[test]
fn everything_is_described() {
    run(async {
        let query = "{ __schema { types { name description
            fields(includeDeprecated: true) { name description args(includeDeprecated: true) { name description } }
            inputFields(includeDeprecated: true) { name description }
            enumValues(includeDeprecated: true) { name description } } } }";
        let tenant = Tenant::new().await;
        let schema = tenant.gql(None, query).await.data()["__schema"].clone();
        let mut missing = Vec::new();
        for each in schema["types"].as_array().unwrap() {
            if !each["name"].as_str().unwrap().starts_with("__") {
                undescribed(each, "", &mut missing);
            }
        }
        assert!(missing.is_empty(), "not described: {missing:#?}");
    });
}

/// Adds the path of a thing, and of what is in it, where it has no description.
fn undescribed(thing: &Value, within: &str, missing: &mut Vec<String>) {
    let path = format!("{within}{}", thing["name"].as_str().unwrap());
    if thing["description"].as_str().unwrap_or("").is_empty() {
        missing.push(path.clone());
    }
    for kind in ["fields", "args", "inputFields", "enumValues"] {
        for part in thing[kind].as_array().into_iter().flatten() {
            undescribed(part, &format!("{path}."), missing);
        }
    }
}

#[test]
fn it_goes_by_the_rules() {
    let Some(package) = Package::new("web/schema-lint") else {
        return;
    };
    package.with("schema.graphql").run("lint");
}

#[test]
fn relays_compiler_takes_it() {
    let Some(package) = Package::new("tests/relay") else {
        return;
    };
    let package = package.with("schema.graphql");
    let said = succeed(&mut package.command("relay-compiler"));
    assert!(!said.contains("WARN"), "{said}");
    let made = package.directory().join("src/__generated__");
    for query in [
        "DevicesPageQuery",
        "TrailMembersQuery",
        "TrailPageQuery",
        "UploadsPageQuery",
    ] {
        let file = made.join(format!("{query}.graphql.js"));
        assert!(file.exists(), "{} of {said}", file.display());
    }
}

#[test]
fn what_breaks_clients_is_in_the_changelog() {
    let Some(package) = Package::new("web/schema-lint") else {
        return;
    };
    let Some(git) = program("git") else {
        println!("breaking changes are not looked for: there is no git");
        return;
    };
    let (code, said, missing) = breaking(&package, repository());
    println!("{said}");
    assert_eq!(code, Some(0), "{missing}");

    let home = tempfile::tempdir().unwrap();
    let (home, schema, changelog) = (
        home.path(),
        home.path().join("schema.graphql"),
        home.path().join("CHANGELOG.md"),
    );
    let git = |arguments: &[&str]| {
        let mut command = Command::new(&git);
        command.arg("-C").arg(home);
        command.args(["-c", "user.name=tests", "-c", "user.email=tests@localhost"]);
        let (code, _, said) = finish(command.args(arguments), "");
        assert_eq!(code, Some(0), "{said}");
    };
    let old = "# Changelog\n\n## [0.1.0]\n- `Query.b` was there\n";
    git(&["init", "--quiet"]);
    fs::write(&schema, "type Query { a: Int b: Int }").unwrap();
    fs::write(&changelog, old).unwrap();
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "release"]);
    assert!(breaking(&package, home).1.contains("no tag v*"));

    git(&["tag", "v0.1.0"]);
    fs::write(&schema, "type Query { a: Int c: Int }").unwrap();
    let (code, _, missing) = breaking(&package, home);
    assert_eq!(code, Some(1));
    assert!(
        missing.contains("Query.b: ") && !missing.contains("Query.c"),
        "{missing}"
    );
    let new = old.replace(
        "## [0.1.0]",
        "## [Unreleased]\n- `Query.b` is gone\n\n## [0.1.0]",
    );
    fs::write(&changelog, new).unwrap();
    assert_eq!(breaking(&package, home).0, Some(0));
}

fn breaking(package: &Package, repository: &Path) -> (Option<i32>, String, String) {
    finish(package.node("breaking.js").arg(repository), "")
}

#[test]
fn the_reference_of_errors_is_current_and_whole() {
    let committed = include_str!("../../docs/errors.md");
    assert!(
        committed == errors_text(),
        "docs/errors.md is not what the code says; run: cargo run -- errors > docs/errors.md"
    );
    let schema = schema_text();
    let codes = schema.split_once("enum ErrorCode {").unwrap().1;
    let codes = codes.split_once("\n}").unwrap().0.lines();
    let codes = codes.map(str::trim).filter(|line| {
        !line.is_empty() && line.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
    });
    let mut seen = 0;
    for code in codes {
        assert!(
            committed.contains(&format!("| `{code}` | yes |")),
            "{code} is in ErrorCode and not in the reference"
        );
        seen += 1;
    }
    assert!(seen > 5, "{seen}");
}
