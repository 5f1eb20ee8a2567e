//! The layers of the architecture: a module uses its own row and the rows before it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Lowest first. A file `<module>/graphql.rs`, `http.rs` or `jobs.rs` of a resource is in the resources' row, whatever row
/// its module is in.
const LAYERS: [&[&str]; 8] = [
    &[
        "error",
        "code",
        "clock",
        "config",
        "telemetry",
        "secret",
        "actor",
        "permission",
        "caller",
        "body",
    ],
    &["database"],
    &[
        "tenancy",
        "history",
        "feed",
        "rates",
        "mail",
        "media::store",
    ],
    &["services"],
    &["jobs", "graphql"],
    &["identity", "devices", "media"],
    &["resources", "app"],
    &["http", "console", "cli", "main", "lib"],
];
const RESOURCES: usize = 5;

#[test]
fn modules_use_only_their_own_and_lower_layers() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = BTreeSet::new();
    let mut seen = 0;
    for file in files(&src) {
        let name = module(&src, &file);
        let Some(own) = layer_of(&name) else {
            panic!("{name} is in no layer: add it to the table");
        };
        let text = fs::read_to_string(&file).unwrap();
        for used in uses(&text) {
            seen += 1;
            let theirs = layer_of(&used).unwrap_or_else(|| panic!("{used} is in no layer"));
            if theirs > own {
                broken.insert(format!("{name} (layer {own}) uses {used} (layer {theirs})"));
            }
        }
    }
    assert!(
        seen > 50,
        "only {seen} uses were found: the test does not read the sources"
    );
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn only_jobs_names_fang_and_only_the_database_binds() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in files(&src) {
        let name = module(&src, &file);
        let text = fs::read_to_string(&file).unwrap();
        let code: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect();
        assert!(
            !code.contains("fang::") || name.starts_with("jobs"),
            "{name} names fang"
        );
        // It would be done again when it is sent again with its Idempotency-Key.
        let dense: String = code.split_whitespace().collect();
        assert!(
            !(name.ends_with("::graphql") && dense.contains("database.write(")),
            "{name} writes past the request: use ctx.write or request().writing"
        );
        for binding in ["SET LOCAL", "SET ROLE", "sqlx::raw_sql"] {
            assert!(
                !code.contains(binding) || name.starts_with("database"),
                "{name} has {binding}"
            );
        }
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
    found
}

/// `src/media/store.rs` is `media::store`.
fn module(src: &Path, file: &Path) -> String {
    let relative = file.strip_prefix(src).unwrap().with_extension("");
    let parts: Vec<_> = relative
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    parts.join("::").trim_end_matches("::mod").to_owned()
}

fn layer_of(module: &str) -> Option<usize> {
    let (root, rest) = module.split_once("::").unwrap_or((module, ""));
    let surface = matches!(rest.split("::").next(), Some("graphql" | "http" | "jobs"));
    if surface && root != "http" {
        return Some(RESOURCES);
    }
    LAYERS
        .iter()
        .position(|layer| layer.contains(&module))
        .or_else(|| {
            LAYERS.iter().position(|layer| {
                layer.contains(&"media::store") && module.starts_with("media::store")
            })
        })
        .or_else(|| LAYERS.iter().position(|layer| layer.contains(&root)))
}

/// The modules that the file's `use crate::` lines name, a level deep where that decides the layer.
fn uses(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let code: Vec<_> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let code = code.join(" ");
    for part in code.split("crate::").skip(1) {
        let path: String = part
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':')
            .collect();
        let mut names = path.split("::").filter(|name| !name.is_empty());
        let Some(root) = names.next() else { continue };
        let next = names
            .next()
            .filter(|name| matches!(*name, "graphql" | "http" | "jobs" | "store"));
        found.push(next.map_or(root.to_owned(), |next| format!("{root}::{next}")));
    }
    found
}
