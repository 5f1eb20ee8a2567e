//! The rows: everything that is exposed, and how it answers each caller; and that none is missing.

use std::collections::BTreeSet;
use std::path::Path;

/// One thing that is exposed, how it is asked for, and its answers as [`super::outcome`] puts them.
pub(super) struct Row {
    /// `Type.field`, `Node.Type`, or a route's path.
    pub(super) name: &'static str,
    pub(super) ask: Ask,
    pub(super) anonymous: &'static str,
    /// A device of the tenant.
    pub(super) device: &'static str,
    /// A member of the tenant with the role viewer.
    pub(super) viewer: &'static str,
    /// An owner of another tenant, with their token at this tenant's host.
    pub(super) stranger: &'static str,
}

/// What is sent. `$Type` is the id of the tenant's object, `$Their…` something of the other tenant.
#[derive(Clone, Copy)]
pub(super) enum Ask {
    Gql(&'static str),
    Get(&'static str),
    Post(&'static str, &'static str),
    Put(&'static str),
}

const fn row(name: &'static str, ask: Ask, answers: [&'static str; 4]) -> Row {
    let [anonymous, device, viewer, stranger] = answers;
    Row {
        name,
        ask,
        anonymous,
        device,
        viewer,
        stranger,
    }
}

const NOBODY: &str = "UNAUTHENTICATED";
const REFUSED: &str = "401 UNAUTHENTICATED";
const DENIED: &str = "FORBIDDEN";
const DENIED_AS_DATA: &str = "errors FORBIDDEN";

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    row("Query.node", Ask::Gql(r#"{ node(id: "$Device") { id } }"#), [NOBODY, DENIED, "ok", REFUSED]),
    row("Query.nodes", Ask::Gql(r#"{ nodes(ids: ["$Device"]) { id } }"#), [NOBODY, DENIED, "ok", REFUSED]),
    row("Query.tenant", Ask::Gql("{ tenant { slug } }"), [NOBODY, "ok", "ok", REFUSED]),
    row("Query.viewer", Ask::Gql("{ viewer { expiresAt } }"), ["null", "ok", "ok", REFUSED]),
    row("Mutation.deviceCreate", Ask::Gql(r#"mutation { deviceCreate(input: { name: "n" }) { device { id } errors { code } } }"#),
        [NOBODY, DENIED_AS_DATA, DENIED_AS_DATA, REFUSED]),
    row("Mutation.deviceUpdate", Ask::Gql(r#"mutation { deviceUpdate(input: { deviceId: "$Device", name: "n" }) { device { id } errors { code } } }"#),
        [NOBODY, DENIED_AS_DATA, DENIED_AS_DATA, REFUSED]),
    row("Mutation.mediaCompleteUpload", Ask::Gql(r#"mutation { mediaCompleteUpload(input: { mediaId: "$Pending" }) { media { id } errors { code } } }"#),
        [NOBODY, "errors INVALID", DENIED_AS_DATA, REFUSED]),
    row("Mutation.mediaCreateUpload", Ask::Gql(r#"mutation { mediaCreateUpload(input: { resourceType: "photo", filename: "f.png", contentType: "image/png", size: 9 }) { media { id } errors { code } } }"#),
        [NOBODY, "ok", DENIED_AS_DATA, REFUSED]),
    row("Mutation.sessionCreate", Ask::Gql(r#"mutation { sessionCreate(input: { email: "$TheirOwner", password: "$Password" }) { token errors { code } } }"#),
        [NOBODY, NOBODY, NOBODY, REFUSED]),
    row("Tenant.changes", Ask::Gql("{ tenant { changes { nodes { id } } } }"), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Tenant.devices", Ask::Gql("{ tenant { devices { nodes { id } } } }"), [NOBODY, DENIED, "ok", REFUSED]),
    row("Tenant.jobs", Ask::Gql("{ tenant { jobs { nodes { id } } } }"), [NOBODY, "ok", "ok", REFUSED]),
    row("Tenant.media", Ask::Gql("{ tenant { media { nodes { id } } } }"), [NOBODY, "ok", "ok", REFUSED]),
    row("Tenant.members", Ask::Gql("{ tenant { members { nodes { id } } } }"), [NOBODY, DENIED, "ok", REFUSED]),
    row("Node.Change", Ask::Gql(r#"{ node(id: "$Change") { id } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Node.Device", Ask::Gql(r#"{ node(id: "$Device") { id } }"#), [NOBODY, DENIED, "ok", REFUSED]),
    row("Node.Job", Ask::Gql(r#"{ node(id: "$Job") { id } }"#), [NOBODY, "ok", "ok", REFUSED]),
    row("Node.Media", Ask::Gql(r#"{ node(id: "$Media") { id } }"#), [NOBODY, "ok", "ok", REFUSED]),
    row("Node.Member", Ask::Gql(r#"{ node(id: "$Member") { id } }"#), [NOBODY, DENIED, "ok", REFUSED]),
    row("Node.Role", Ask::Gql(r#"{ node(id: "$Role") { id } }"#), [NOBODY, DENIED, "ok", REFUSED]),
    row("Node.Tenant", Ask::Gql(r#"{ node(id: "$Tenant") { id } }"#), [NOBODY, "ok", "ok", REFUSED]),
    // A tenant's host and nobody's credential: the playground's page, its files, the process's health.
    row("/graphql", Ask::Get("/graphql"), ["400 invalid_request"; 4]),
    row("/graphql/assets/{file}", Ask::Get("/graphql/assets/none.js"), ["404 not_found"; 4]),
    row("/healthz/live", Ask::Get("/healthz/live"), ["200"; 4]),
    row("/healthz/ready", Ask::Get("/healthz/ready"), ["200"; 4]),
    // The body is the credential: that of the other tenant's device.
    row("/device/auth", Ask::Post("/device/auth", r#"{"client_id":"$TheirClient","pin":"$TheirPin"}"#), ["401 invalid_credentials"; 4]),
    row("/device/me", Ask::Get("/device/me"), ["401 no_credential", "200", "401 token_revoked", "401 token_revoked"]),
    // The link is the credential; a token is none.
    row("/media/{resource_type}/{file}", Ask::Get("/media/photo/$File.png"), ["401 invalid_credentials"; 4]),
    row("/uploads/{file}", Ask::Put("/uploads/$File.bin"), ["401 invalid_credentials"; 4]),
    // Last, for they end the credentials that they succeed with.
    row("/device/token/rotate", Ask::Post("/device/token/rotate", ""), ["401 no_credential", "200", "401 token_revoked", "401 token_revoked"]),
    row("Mutation.sessionRevoke", Ask::Gql("mutation { sessionRevoke(input: {}) { revokedCount errors { code } } }"),
        [NOBODY, "BAD_USER_INPUT", "ok", REFUSED]),
];

/// Every argument that is an object's id: the type of the object, and a document that uses `$id`.
#[rustfmt::skip]
pub(super) const IDS: &[(&str, &str, &str)] = &[
    ("DeviceUpdateInput", "Device", r#"mutation { deviceUpdate(input: { deviceId: "$id", name: "taken over" }) { device { id } errors { __typename code message field } } }"#),
    ("MediaCompleteUploadInput", "Media", r#"mutation { mediaCompleteUpload(input: { mediaId: "$id" }) { media { id } job { id } errors { __typename code message field } } }"#),
];

/// The types behind `node(id:)`.
pub(super) const NODES: [&str; 7] = [
    "Change", "Device", "Job", "Media", "Member", "Role", "Tenant",
];

#[test]
fn everything_exposed_has_a_row() {
    let fields = |block: &str| -> BTreeSet<String> {
        let listed = fields_of(block).into_iter();
        listed.map(|(name, _)| format!("{block}.{name}")).collect()
    };
    let lists = fields_of("Tenant").into_iter();
    let lists = lists
        .filter(|(_, kind)| kind.ends_with("Connection!") || kind.starts_with('['))
        .map(|(name, _)| format!("Tenant.{name}"));
    let nodes = types("implements Node").map(|name| format!("Node.{name}"));
    let exposed: BTreeSet<String> = fields("Query")
        .into_iter()
        .chain(fields("Mutation"))
        .chain(lists)
        .chain(nodes)
        .chain(routes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")))
        .collect();
    let rows: BTreeSet<String> = ROWS.iter().map(|row| row.name.to_owned()).collect();
    assert_eq!(exposed, rows, "left: exposed; right: the rows of this file");
    assert!(exposed.contains("Mutation.deviceCreate") && exposed.contains("/device/auth"));

    let nodes: BTreeSet<_> = types("implements Node").collect();
    assert_eq!(nodes, BTreeSet::from(NODES.map(str::to_owned)));
    let inputs = inputs().filter(|name| {
        fields_of(name)
            .iter()
            .any(|(_, kind)| kind.starts_with("ID"))
    });
    let listed = IDS.iter().map(|(input, ..)| (*input).to_owned());
    assert_eq!(
        inputs.collect::<BTreeSet<_>>(),
        listed.collect(),
        "inputs with an id"
    );
}

const SCHEMA: &str = include_str!("../../../schema.graphql");

/// Names and types of what a type or input of the schema has.
fn fields_of(name: &str) -> Vec<(String, String)> {
    let begins = |line: &&str| {
        let mut words = line.split(' ');
        matches!(words.next(), Some("type" | "input")) && words.next() == Some(name)
    };
    let mut lines = SCHEMA.lines().skip_while(|line| !begins(line)).skip(1);
    let mut fields = Vec::new();
    let mut described = false;
    for line in lines.by_ref().take_while(|line| *line != "}") {
        let line = line.trim();
        if line.contains("\"\"\"") {
            described ^= line.matches("\"\"\"").count() == 1;
        } else if !described {
            let name = line.split(['(', ':']).next().unwrap();
            let kind = line.rsplit_once(") : ").or_else(|| line.rsplit_once("): "));
            let kind = kind.or_else(|| line.split_once(": ")).unwrap().1;
            fields.push((name.to_owned(), kind.to_owned()));
        }
    }
    assert!(!fields.is_empty(), "{name} is not in the schema");
    fields
}

/// Types of the schema with this in their first line.
fn types(having: &'static str) -> impl Iterator<Item = String> {
    let lines = SCHEMA.lines().filter(move |line| line.contains(having));
    lines.filter_map(|line| Some(line.strip_prefix("type ")?.split(' ').next()?.to_owned()))
}

fn inputs() -> impl Iterator<Item = String> {
    let lines = SCHEMA.lines();
    lines.filter_map(|line| Some(line.strip_prefix("input ")?.split(' ').next()?.to_owned()))
}

/// The paths of all `.route("…"` in the sources.
fn routes(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut routes(&path));
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            let named = text.split(".route(").skip(1);
            found.extend(named.map(|rest| rest.split('"').nth(1).unwrap().to_owned()));
        }
    }
    found
}
