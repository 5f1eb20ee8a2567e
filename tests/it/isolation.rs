//! Every root field, list, type behind `node(id:)` and route, and how it answers those who must not have it. What has no row
//! here is red.

use crate::harness::{Answer, PASSWORD, Tenant, run};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bulkhead::clock::Clock;
use bulkhead::identity::BuiltIn;
use bulkhead::media::sign;
use bulkhead::media::store::Key;
use chrono::Duration;
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use uuid::Uuid;

/// One thing that is exposed, how it is asked for, and its answers as [`outcome`] puts them.
struct Row {
    /// `Type.field`, `Node.Type`, or a route's path.
    name: &'static str,
    ask: Ask,
    anonymous: &'static str,
    /// A device of the tenant.
    device: &'static str,
    /// A member of the tenant with the role viewer.
    viewer: &'static str,
    /// An owner of another tenant, with their token at this tenant's host.
    stranger: &'static str,
}

/// What is sent. `$Type` is the id of the tenant's object, `$Their…` something of the other tenant.
#[derive(Clone, Copy)]
enum Ask {
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
const ROWS: &[Row] = &[
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
const IDS: &[(&str, &str, &str)] = &[
    ("DeviceUpdateInput", "Device", r#"mutation { deviceUpdate(input: { deviceId: "$id", name: "taken over" }) { device { id } errors { __typename code message field } } }"#),
    ("MediaCompleteUploadInput", "Media", r#"mutation { mediaCompleteUpload(input: { mediaId: "$id" }) { media { id } job { id } errors { __typename code message field } } }"#),
];

/// The types behind `node(id:)`.
const NODES: [&str; 7] = [
    "Change", "Device", "Job", "Media", "Member", "Role", "Tenant",
];

/// A tenant with one of everything, and a caller of every kind.
struct Side {
    tenant: Tenant,
    owner: String,
    viewer: String,
    device: String,
    /// What the documents of the tables name, the other tenant's things aside.
    names: BTreeMap<&'static str, String>,
    link: String,
    upload: String,
}

impl Side {
    async fn new() -> Self {
        let tenant = Tenant::new().await;
        let owner = tenant.token(BuiltIn::Owner).await;
        let viewer = tenant.token(BuiltIn::Viewer).await;
        let (device, client_id, pin) = tenant.device(&owner).await;
        let auth = tenant.device_auth(&client_id, &pin).await;
        let photo = tenant.photo(&owner).await;
        let pending = tenant.upload(&owner).await;
        let ids = "{ tenant { id changes(first: 1) { nodes { id } } members(first: 1) { nodes { id roles { id } } } } }";
        let ids = tenant.gql(Some(&owner), ids).await.data()["tenant"].clone();
        let member = &ids["members"]["nodes"][0];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let names = BTreeMap::from([
            ("Change", text(&ids["changes"]["nodes"][0]["id"])),
            ("Client", client_id),
            ("Device", device),
            ("File", Clock.new_id().to_string()),
            ("Job", text(&photo["job"])),
            ("Media", text(&photo["id"])),
            ("Member", text(&member["id"])),
            ("Owner", format!("owner@{}.test", tenant.slug)),
            ("Password", PASSWORD.to_owned()),
            ("Pending", text(&pending["media"]["id"])),
            ("Pin", pin),
            ("Role", text(&member["roles"][0]["id"])),
            ("Tenant", text(&ids["id"])),
        ]);
        Self {
            device: text(&auth.body["access_token"]),
            link: text(&photo["url"]),
            upload: text(&pending["upload"]["url"]),
            tenant,
            owner,
            viewer,
            names,
        }
    }

    /// Two of them, made side by side.
    async fn two() -> (Self, Self) {
        futures::join!(Self::new(), Self::new())
    }

    /// The text with the names in it, longest first so that none is taken for the beginning of another.
    fn fill(&self, other: &Self, text: &str) -> String {
        let theirs = other.names.iter().map(|(k, v)| (format!("$Their{k}"), v));
        let mut names: Vec<_> = theirs
            .chain(self.names.iter().map(|(k, v)| (format!("${k}"), v)))
            .collect();
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        names
            .into_iter()
            .fold(text.to_owned(), |text, (name, value)| {
                text.replace(&name, value)
            })
    }

    async fn ask(&self, other: &Self, ask: Ask, token: Option<&str>) -> Answer {
        let (method, path, body) = match ask {
            Ask::Gql(query) => return self.tenant.gql(token, &self.fill(other, query)).await,
            Ask::Get(path) => (Method::GET, path, ""),
            Ask::Post(path, body) => (Method::POST, path, body),
            Ask::Put(path) => (Method::PUT, path, "bytes"),
        };
        let mut request = self
            .tenant
            .request(method, &self.fill(other, path))
            .header("Content-Type", "application/json")
            .body(self.fill(other, body));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        self.tenant.send(request).await
    }

    /// Asks for each row as each caller where the answer is, or is not, to be a refusal.
    async fn check(&self, other: &Self, refusals: bool) {
        let names: Vec<_> = NODES.iter().map(|kind| &other.names[kind]).collect();
        for row in ROWS {
            let callers = [
                ("anonymous", None, row.anonymous),
                ("device", Some(&self.device), row.device),
                ("viewer", Some(&self.viewer), row.viewer),
                ("stranger", Some(&other.owner), row.stranger),
            ];
            for (caller, token, wanted) in callers {
                if matches!(wanted, "ok" | "200") == refusals {
                    continue;
                }
                let answer = self.ask(other, row.ask, token.map(String::as_str)).await;
                assert_eq!(
                    outcome(&answer),
                    wanted,
                    "{} as {caller}: {:#}",
                    row.name,
                    answer.body
                );
                let text = answer.body.to_string();
                let told = |name: &str| text.contains(name);
                assert!(
                    !told(&other.tenant.slug) && !names.iter().any(|name| told(name)),
                    "{} tells {caller} of the other tenant: {text}",
                    row.name
                );
            }
        }
    }
}

/// An answer in a word: `ok`, `null`, a top-level code, `errors CODE` for an expected failure, and the status unless it is
/// GraphQL's 200.
fn outcome(answer: &Answer) -> String {
    let (status, body) = (answer.status.as_u16(), &answer.body);
    let top = body["errors"][0]["extensions"]["code"].as_str();
    match (top, body["code"].as_str(), body["data"].as_object()) {
        (Some(code), ..) if status == 200 => code.to_owned(),
        (Some(code), ..) | (None, Some(code), _) => format!("{status} {code}"),
        (None, None, Some(data)) => {
            let value = data.values().next().unwrap();
            match value["errors"][0]["code"].as_str() {
                Some(code) => format!("errors {code}"),
                None if value.is_null() => "null".to_owned(),
                None => "ok".to_owned(),
            }
        }
        (None, None, None) => status.to_string(),
    }
}

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
        let before = (a.tenant.changes().await, b.tenant.changes().await);
        a.check(&b, true).await;
        b.check(&a, true).await;
        let after = (a.tenant.changes().await, b.tenant.changes().await);
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
    let absent = global_id(kind, Clock.new_id());
    let other_kind = if kind == "Role" { "Member" } else { "Role" };
    let mut answers = Vec::new();
    for id in [
        &absent,
        &other.names[kind],
        "%%%",
        "",
        &global_id(kind, Uuid::nil()),
        &global_id(other_kind, Clock.new_id()),
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
            // A place in the other tenant's list is none in this one's: no row after it is told apart from none.
            let page = |after: &str| {
                format!(r#"{{ tenant {{ changes(after: "{after}") {{ nodes {{ id }} }} }} }}"#)
            };
            let cursor = |id: &Uuid| URL_SAFE_NO_PAD.encode(id);
            let theirs = cursor(&row_of(&other.names["Change"]));
            let absent = cursor(&Clock.new_id());
            assert_eq!(
                own.tenant.gql(Some(&own.owner), &page(&theirs)).await.body,
                own.tenant.gql(Some(&own.owner), &page(&absent)).await.body,
            );
        }
    });
}

/// The row of a global id: its last 16 bytes.
fn row_of(id: &str) -> Uuid {
    let bytes = URL_SAFE_NO_PAD.decode(id).unwrap();
    Uuid::from_slice(&bytes[bytes.len() - 16..]).unwrap()
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

#[test]
fn a_link_is_good_for_one_host_one_object_and_as_it_was_signed() {
    run(async {
        let (a, b) = Side::two().await;
        let (read, write) = (path_of(&a.link), path_of(&a.upload));
        let good = a.tenant.send(a.tenant.request(Method::GET, &read)).await;
        assert_eq!(good.status, StatusCode::OK);
        let query = read.split_once('?').unwrap().1;
        let second = path_of(a.tenant.photo(&a.owner).await["url"].as_str().unwrap());
        let theirs = path_of(&b.link);
        let at = |link: &str| link.split_once('?').unwrap().0.to_owned();
        let mut tampered = read.clone();
        let last = tampered.pop().unwrap();
        tampered.push(if last == '0' { '1' } else { '0' });
        let moved = |link: &str| format!("{}?{query}", at(link));
        let (get, put) = (Method::GET, Method::PUT);
        let (here, there) = (&a.tenant, &b.tenant);
        let unsigned = "401 invalid_credentials";
        #[rustfmt::skip]
        let cases = [
            (there, &get, read.clone(), unsigned),
            (there, &put, write.clone(), unsigned),
            (here, &get, moved(&second), unsigned),
            (here, &get, moved(&theirs), unsigned),
            (here, &put, moved(&write), unsigned),
            (here, &get, read.replace("expires=1", "expires=2"), unsigned),
            (here, &get, tampered, unsigned),
            (here, &get, read[..read.len() - 2].to_owned(), unsigned),
            (here, &get, read.replace("kid=1", "kid=2"), unsigned),
            (here, &get, format!("{read}&more=1"), "401 invalid_credentials"),
            (here, &get, at(&read), "401 invalid_credentials"),
            (here, &put, read.clone(), "405"),
            (here, &get, write.clone(), "405"),
            // Not as it was signed: refused, not repaired.
            (here, &get, read.replace("/photo/", "/ph%6fto/"), "404 not_found"),
            (here, &get, read.replace("/photo/", "/photo%2f"), "404 not_found"),
            (here, &put, write.replace(".bin", "%2ebin"), "404 not_found"),
            (here, &get, read.replace(".png", "%ff.png"), "404 not_found"),
            (here, &get, read.replace(".png", ".PNG"), "404 not_found"),
        ];
        for (tenant, method, link, wanted) in cases {
            let request = tenant.request(method.clone(), &link).body("x");
            let answer = tenant.send(request).await;
            let shown = format!("{method} {link} at {}", tenant.slug);
            assert_eq!(outcome(&answer), wanted, "{shown}: {:#}", answer.body);
        }
        let complete = format!(
            r#"mutation {{ mediaCompleteUpload(input: {{ mediaId: "{}" }}) {{ errors {{ message }} }} }}"#,
            a.names["Pending"]
        );
        let answer = a.tenant.gql(Some(&a.owner), &complete).await;
        let message = answer.failure()["message"].as_str().unwrap();
        assert!(message.starts_with("Nothing was uploaded yet"), "{message}");
    });
}

#[test]
fn a_link_allows_one_method_until_it_expires() {
    run(async {
        let a = Side::new().await;
        let services = &a.tenant.world.app.services;
        let now = Clock.now();
        let host = format!("{}.localhost", a.tenant.slug);
        let (media, pending) = (row_of(&a.names["Media"]), row_of(&a.names["Pending"]));
        let object = Key::new(&a.tenant.row, "photo", media, "png");
        let staging = Key::staging(&a.tenant.row, pending);
        let sign = |method, key: &Key, minutes| {
            sign::sign(
                &services.key,
                method,
                &host,
                key,
                now + Duration::minutes(minutes),
            )
        };
        let (get, put) = (sign::Method::Get, sign::Method::Put);
        for (method, query, wanted) in [
            (Method::GET, sign(get, &object, 5), "200"),
            (
                Method::GET,
                sign(put, &object, 5),
                "401 invalid_credentials",
            ),
            (Method::GET, sign(get, &object, -1), "410 expired"),
            (
                Method::PUT,
                sign(get, &staging, 5),
                "401 invalid_credentials",
            ),
            (Method::PUT, sign(put, &staging, -1), "410 expired"),
            // In time and for this method: it is the body that is refused.
            (Method::PUT, sign(put, &staging, 5), "400 invalid_request"),
        ] {
            let path = match method {
                Method::GET => format!("/media/photo/{media}.png"),
                _ => format!("/uploads/{pending}.bin"),
            };
            let request = a.tenant.request(method.clone(), &format!("{path}?{query}"));
            let answer = a.tenant.send(request.body("x")).await;
            assert_eq!(
                outcome(&answer),
                wanted,
                "{method} {query}: {:#}",
                answer.body
            );
        }
    });
}

/// A link's path and query.
fn path_of(link: &str) -> String {
    let url = Url::parse(link).unwrap();
    format!("{}?{}", url.path(), url.query().unwrap())
}

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

const SCHEMA: &str = include_str!("../../schema.graphql");

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
