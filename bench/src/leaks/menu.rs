//! What the fuzzer's clients ask: reads, writes, sign-ins, uploads, and every kind of mistake.

use super::world::{PICTURE, SLUGS, Tenant, host, mark, path_of};
use crate::http::message;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use std::collections::VecDeque;

/// Things that a client remembers of each tenant.
const REMEMBERED: usize = 32;

/// One client's choices, and what it made or was given.
#[derive(Debug)]
pub(super) struct Chooser<'a> {
    tenants: &'a [Tenant],
    pub(super) random: StdRng,
    devices: [VecDeque<String>; SLUGS.len()],
    tokens: [Option<String>; SLUGS.len()],
    /// Requests that go on with an upload.
    uploads: VecDeque<Ask>,
}

/// A request, and what its answer is good for.
#[derive(Debug)]
pub(super) struct Ask {
    /// In the evidence.
    pub(super) name: &'static str,
    /// Whose host; none if nobody's.
    pub(super) tenant: Option<usize>,
    pub(super) bytes: Vec<u8>,
    next: Next,
}

/// What an answer brings.
#[derive(Debug)]
enum Next {
    Nothing,
    Device,
    Token,
    Upload,
    Complete(String),
}

/// What is asked, and how often: in a thousand.
const MENU: [(u32, &str); 24] = [
    (130, "devices"),
    (60, "media"),
    (60, "members"),
    (130, "node"),
    (60, "nodes"),
    (40, "nested"),
    (50, "changes"),
    (40, "jobs"),
    (50, "viewer"),
    (120, "deviceUpdate"),
    (30, "a stale version"),
    (40, "aliased mutations"),
    (6, "deviceCreate"),
    (8, "device/auth"),
    (40, "device/me"),
    (6, "device/token/rotate"),
    (10, "mediaCreateUpload"),
    (30, "a link"),
    (10, "another's link"),
    (30, "another's id"),
    (25, "another's token"),
    (10, "not permitted"),
    (12, "not GraphQL"),
    (3, "nobody's host"),
];

impl<'a> Chooser<'a> {
    pub(super) fn new(tenants: &'a [Tenant], seed: u64) -> Self {
        Self {
            tenants,
            random: StdRng::seed_from_u64(seed),
            devices: Default::default(),
            tokens: Default::default(),
            uploads: VecDeque::new(),
        }
    }

    /// What to ask next.
    pub(super) fn choose(&mut self) -> Ask {
        if !self.uploads.is_empty()
            && self.random.random_bool(0.5)
            && let Some(ask) = self.uploads.pop_front()
        {
            return ask;
        }
        let all = MENU.iter().map(|(weight, _)| weight).sum();
        let mut at = self.random.random_range(0..all);
        let mut name = MENU[0].1;
        for (weight, next) in MENU {
            if at < weight {
                name = next;
                break;
            }
            at -= weight;
        }
        let tenant = self.random.random_range(0..SLUGS.len());
        self.ask(name, tenant)
    }

    fn ask(&mut self, name: &'static str, tenant: usize) -> Ask {
        let (bytes, next) = match name {
            "device/auth" => (self.sign_in(tenant), Next::Token),
            "device/token/rotate" => (
                self.as_device(tenant, ("POST", "/device/token/rotate")),
                Next::Token,
            ),
            "device/me" => (self.as_device(tenant, ("GET", "/device/me")), Next::Nothing),
            "a link" => (self.follow(tenant, tenant), Next::Nothing),
            "another's link" => {
                let other = self.other(tenant);
                (self.follow(tenant, other), Next::Nothing)
            }
            "nobody's host" => {
                let document = gql(
                    "nobody.localhost",
                    &self.tenants[tenant].owner,
                    (DEVICES, json!({"first": 3})),
                    None,
                );
                return Ask {
                    name,
                    tenant: None,
                    bytes: document,
                    next: Next::Nothing,
                };
            }
            _ => {
                let next = match name {
                    "deviceCreate" => Next::Device,
                    "mediaCreateUpload" => Next::Upload,
                    _ => Next::Nothing,
                };
                (self.document(name, tenant), next)
            }
        };
        Ask {
            name,
            tenant: Some(tenant),
            bytes,
            next,
        }
    }

    fn document(&mut self, name: &'static str, tenant: usize) -> Vec<u8> {
        let mut token = self.caller(tenant, name);
        let mut reason = None;
        let (document, variables) = match name {
            "devices" => (DEVICES, json!({"first": self.random.random_range(1..15)})),
            "media" => (MEDIA, json!({})),
            "members" => (MEMBERS, json!({})),
            "node" => (NODE, json!({"id": self.thing(tenant)})),
            "nodes" => (NODES, json!({"ids": self.things(tenant)})),
            "nested" => (NESTED, json!({})),
            "changes" => (CHANGES, json!({"first": self.random.random_range(1..30)})),
            "jobs" => (JOBS, json!({})),
            "deviceUpdate" => {
                reason = Some(self.mark(tenant));
                (UPDATE, json!({"input": self.renaming(tenant)}))
            }
            "a stale version" => {
                let mut input = self.renaming(tenant);
                input["ifVersion"] = json!(1);
                (UPDATE, json!({ "input": input }))
            }
            "aliased mutations" => (ALIASED, self.three(tenant)),
            "deviceCreate" => (CREATE, json!({"name": self.mark(tenant)})),
            "mediaCreateUpload" => (UPLOAD, self.upload(tenant)),
            "another's id" => self.stranger(tenant),
            "another's token" => {
                token.clone_from(&self.tenants[self.other(tenant)].owner);
                (DEVICES, json!({"first": 3}))
            }
            "not permitted" => {
                token.clone_from(&self.tenants[tenant].viewer);
                (UPDATE, json!({"input": self.renaming(tenant)}))
            }
            "not GraphQL" => (self.one_of(&MISTAKES), json!({"id": "%%%"})),
            _ => (VIEWER, json!({})),
        };
        gql(
            &host(SLUGS[tenant]),
            &token,
            (document, variables),
            reason.as_deref(),
        )
    }

    /// Learns from the answer.
    pub(super) fn learn(&mut self, ask: Ask, status: u16, body: &[u8]) {
        let Some(tenant) = ask.tenant else {
            return;
        };
        if matches!(ask.next, Next::Nothing) {
            return;
        }
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
        match ask.next {
            Next::Device => {
                let devices = &mut self.devices[tenant];
                devices.extend(text("/data/deviceCreate/device/id").map(ToOwned::to_owned));
                if devices.len() > REMEMBERED {
                    devices.pop_front();
                }
            }
            Next::Token => {
                if let Some(token) = text("/access_token") {
                    self.tokens[tenant] = Some(token.to_owned());
                }
            }
            Next::Upload => {
                let id = text("/data/mediaCreateUpload/media/id");
                let url = text("/data/mediaCreateUpload/upload/url");
                let path = url.and_then(|url| path_of(url).ok());
                if let (Some(id), Some(path)) = (id, path) {
                    let host = host(SLUGS[tenant]);
                    let headers = [("Host", host.as_str()), ("Content-Type", "image/png")];
                    self.uploads.push_back(Ask {
                        name: "the bytes of an upload",
                        tenant: Some(tenant),
                        bytes: message(("PUT", &path), &headers, Some(PICTURE)),
                        next: Next::Complete(id.to_owned()),
                    });
                }
            }
            Next::Complete(id) if status == 201 => self.uploads.push_back(Ask {
                name: "mediaCompleteUpload",
                tenant: Some(tenant),
                bytes: gql(
                    &host(SLUGS[tenant]),
                    &self.tenants[tenant].owner,
                    (COMPLETE, json!({ "id": id })),
                    None,
                ),
                next: Next::Nothing,
            }),
            Next::Nothing | Next::Complete(_) => {}
        }
    }

    /// Mostly the owner; for reads also who may only read, and a device.
    fn caller(&mut self, tenant: usize, name: &str) -> String {
        let of = &self.tenants[tenant];
        let reads = matches!(name, "devices" | "media" | "members" | "node" | "viewer");
        let device = self.tokens[tenant].as_ref();
        match (reads, self.random.random_range(0..10)) {
            (true, 0) => device.unwrap_or(&of.owner).clone(),
            (true, 1..3) => of.viewer.clone(),
            _ => of.owner.clone(),
        }
    }

    fn other(&mut self, tenant: usize) -> usize {
        (tenant + self.random.random_range(1..SLUGS.len())) % SLUGS.len()
    }

    fn one_of<T: Clone>(&mut self, things: &[T]) -> T {
        things[self.random.random_range(0..things.len())].clone()
    }

    fn mark(&mut self, tenant: usize) -> String {
        mark(SLUGS[tenant], self.random.random_range(0..1_000_000))
    }

    fn device(&mut self, tenant: usize) -> String {
        let made = &self.devices[tenant];
        if !made.is_empty() && self.random.random_bool(0.3) {
            return made[self.random.random_range(0..made.len())].clone();
        }
        let devices = &self.tenants[tenant].devices;
        devices[self.random.random_range(0..devices.len())]
            .id
            .clone()
    }

    fn thing(&mut self, tenant: usize) -> String {
        let of = &self.tenants[tenant];
        match self.random.random_range(0..4) {
            0 => self.one_of(&of.media),
            1 => self.one_of(&of.members),
            _ => self.device(tenant),
        }
    }

    /// Ids of this tenant, of others, and what is none.
    fn things(&mut self, tenant: usize) -> Vec<String> {
        let count = self.random.random_range(1..12);
        let mut things: Vec<String> = (0..count).map(|_| self.thing(tenant)).collect();
        let other = self.other(tenant);
        things.push(self.thing(other));
        things.push("%%%".to_owned());
        things
    }

    fn renaming(&mut self, tenant: usize) -> Value {
        json!({"deviceId": self.device(tenant), "name": self.mark(tenant)})
    }

    /// Three in one document, the second of which fails.
    fn three(&mut self, tenant: usize) -> Value {
        let (a, c) = (self.renaming(tenant), self.renaming(tenant));
        let mut b = self.renaming(tenant);
        let other = self.other(tenant);
        b["deviceId"] = json!(self.device(other));
        json!({ "a": a, "b": b, "c": c })
    }

    fn upload(&mut self, tenant: usize) -> Value {
        json!({"input": {
            "resourceType": mark(SLUGS[tenant], "photo"),
            "filename": self.mark(tenant),
            "contentType": "image/png",
            "size": PICTURE.len(),
        }})
    }

    /// Another tenant's object, read or changed.
    fn stranger(&mut self, tenant: usize) -> (&'static str, Value) {
        let other = self.other(tenant);
        if self.random.random_bool(0.5) {
            return (NODE, json!({"id": self.thing(other)}));
        }
        let input = json!({"deviceId": self.device(other), "name": self.mark(tenant)});
        (UPDATE, json!({ "input": input }))
    }

    fn sign_in(&mut self, tenant: usize) -> Vec<u8> {
        let devices = &self.tenants[tenant].devices;
        let device = &devices[self.random.random_range(0..devices.len())];
        let body = json!({
            "client_id": device.client_id,
            "pin": device.pin,
            "firmware_version": self.mark(tenant),
        });
        let host = host(SLUGS[tenant]);
        let headers = [
            ("Host", host.as_str()),
            ("Content-Type", "application/json"),
        ];
        message(
            ("POST", "/device/auth"),
            &headers,
            Some(body.to_string().as_bytes()),
        )
    }

    fn as_device(&mut self, tenant: usize, door: (&str, &str)) -> Vec<u8> {
        let token = self.tokens[tenant].as_deref().unwrap_or("bhd_unknown");
        let bearer = format!("Bearer {token}");
        let host = host(SLUGS[tenant]);
        message(door, &[("Host", &host), ("Authorization", &bearer)], None)
    }

    fn follow(&mut self, tenant: usize, whose: usize) -> Vec<u8> {
        let link = self.one_of(&self.tenants[whose].links);
        message(("GET", &link), &[("Host", &host(SLUGS[tenant]))], None)
    }
}

fn gql(
    host: &str,
    token: &str,
    (document, variables): (&str, Value),
    reason: Option<&str>,
) -> Vec<u8> {
    let body = json!({ "query": document, "variables": variables }).to_string();
    let bearer = format!("Bearer {token}");
    let mut headers = vec![
        ("Host", host),
        ("Content-Type", "application/json"),
        ("Authorization", &bearer),
    ];
    headers.extend(reason.map(|reason| ("X-Change-Reason", reason)));
    message(("POST", "/graphql"), &headers, Some(body.as_bytes()))
}

const DEVICES: &str =
    "query($first: Int!) { tenant { name devices(first: $first) { totalCount nodes {
    id name clientId state firmwareVersion version } } } }";
const MEDIA: &str =
    "{ tenant { slug media(first: 10) { nodes { id filename resourceType state url thumbnail
    uploadedBy { ... on Member { id name email } } } } } }";
const MEMBERS: &str = "{ tenant { members { nodes { id name email roles { id name } } } } }";
const NODE: &str = "query($id: ID!) { node(id: $id) { __typename id ... on Device { name clientId } ... on Media { filename }
    ... on Member { name email } } }";
const NODES: &str =
    "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id ... on Device { name clientId }
    ... on Media { filename } ... on Member { name email } } }";
const NESTED: &str = "{ tenant { name devices(first: 5) { nodes { id name history(first: 4) { nodes {
    id reason snapshot fields { name before after } actor { ... on Member { id name email } ... on Device { id name } } } } } }
    media(first: 3) { nodes { filename history(first: 3) { nodes { snapshot actor { __typename } } } } }
    members { nodes { name email } } } }";
const CHANGES: &str = "query($first: Int!) { tenant { changes(first: $first) { nodes { id action reason subjectId snapshot
    fields { name before after } actor { ... on Member { id name } ... on Device { id name } }
    cause { ... on Member { id name } } } } } }";
const JOBS: &str = "{ tenant { jobs(first: 30) { nodes { id kind state attempts lastError } } media(first: 2) { nodes { filename } } } }";
const VIEWER: &str =
    "{ viewer { actor { ... on Member { id name email } ... on Device { id name } } permissions }
    tenant { id name slug } }";
const UPDATE: &str =
    "mutation($input: DeviceUpdateInput!) { deviceUpdate(input: $input) { device { id name version
    history(first: 2) { nodes { reason fields { after } } } } errors { code message } } }";
const ALIASED: &str =
    "mutation($a: DeviceUpdateInput!, $b: DeviceUpdateInput!, $c: DeviceUpdateInput!) {
    a: deviceUpdate(input: $a) { device { id name } errors { code } }
    b: deviceUpdate(input: $b) { device { id name } errors { code } }
    c: deviceUpdate(input: $c) { device { id name } errors { code } } }";
const CREATE: &str = "mutation($name: String!) { deviceCreate(input: { name: $name }) { pin device { id name } errors { code } } }";
const UPLOAD: &str = "mutation($input: MediaCreateUploadInput!) { mediaCreateUpload(input: $input) { media { id filename }
    upload { url } errors { code message } } }";
const COMPLETE: &str = "mutation($id: ID!) { mediaCompleteUpload(input: { mediaId: $id }) { media { id filename } job { id }
    errors { code message } } }";
/// Documents that fail: before they run, or in the middle.
const MISTAKES: [&str; 5] = [
    "{ tenant { name devices { nodes { name secret } } } }",
    "{ tenant { name ",
    "query($id: ID!) { tenant { name } node(id: $id) { id } nodes(ids: [$id]) { id } }",
    "{ tenant { name devices(first: 100000) { nodes { name } } members { nodes { name } } } }",
    r#"{ tenant { name media { nodes { filename url(expiresIn: 0) } } devices(after: "%") { nodes { name } } } }"#,
];
