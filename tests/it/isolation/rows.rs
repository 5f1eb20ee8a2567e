//! The rows: everything that is exposed, and how it answers each caller; and that none is missing.

use async_graphql::Positioned;
use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{
    FieldDefinition, InputValueDefinition, ObjectType, TypeDefinition, TypeKind,
    TypeSystemDefinition,
};
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
    /// A subscription, over a socket and as an event stream: they answer alike.
    Follow(&'static str),
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
    row("Query.asOf", Ask::Gql(r#"{ asOf(id: "$Device", at: "2100-01-01T00:00:00Z") { values } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Query.diff", Ask::Gql(r#"{ diff(id: "$Device", from: "2000-01-01T00:00:00Z") { name } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Query.node", Ask::Gql(r#"{ node(id: "$Device") { id } }"#), [NOBODY, DENIED, "ok", REFUSED]),
    row("Query.nodes", Ask::Gql(r#"{ nodes(ids: ["$Device"]) { id } }"#), [NOBODY, DENIED, "ok", REFUSED]),
    row("Query.tenant", Ask::Gql("{ tenant { slug } }"), [NOBODY, "ok", "ok", REFUSED]),
    row("Query.viewer", Ask::Gql("{ viewer { expiresAt } }"), ["null", "ok", "ok", REFUSED]),
    row("Mutation.changeRevert", Ask::Gql(r#"mutation { changeRevert(input: { changeId: "$Change" }) { change { id } errors { code } } }"#),
        [NOBODY, DENIED_AS_DATA, DENIED_AS_DATA, REFUSED]),
    row("Mutation.changesExport", Ask::Gql("mutation { changesExport(input: {}) { job { id } errors { code } } }"),
        [NOBODY, DENIED_AS_DATA, DENIED_AS_DATA, REFUSED]),
    row("Mutation.deviceCreate", Ask::Gql(r#"mutation { deviceCreate(input: { name: "n" }) { device { id } errors { code } } }"#),
        [NOBODY, DENIED_AS_DATA, DENIED_AS_DATA, REFUSED]),
    row("Mutation.deviceUpdate", Ask::Gql(r#"mutation { deviceUpdate(input: { deviceId: "$Device", name: "n" }) { device { id } errors { code } } }"#),
        [NOBODY, DENIED_AS_DATA, DENIED_AS_DATA, REFUSED]),
    row("Mutation.jobCancel", Ask::Gql(r#"mutation { jobCancel(input: { jobId: "$Job" }) { job { id } errors { code } } }"#),
        [NOBODY, DENIED_AS_DATA, DENIED_AS_DATA, REFUSED]),
    row("Mutation.jobRetry", Ask::Gql(r#"mutation { jobRetry(input: { jobId: "$Job" }) { job { id } errors { code } } }"#),
        [NOBODY, DENIED_AS_DATA, DENIED_AS_DATA, REFUSED]),
    row("Mutation.mediaCompleteUpload", Ask::Gql(r#"mutation { mediaCompleteUpload(input: { mediaId: "$Pending" }) { media { id } errors { code } } }"#),
        [NOBODY, "errors INVALID", DENIED_AS_DATA, REFUSED]),
    row("Mutation.mediaCompleteUpload", Ask::Gql(r#"mutation { mediaCompleteUpload(input: { mediaId: "$Export" }) { media { id } errors { code } } }"#),
        [NOBODY, "errors NOT_FOUND", DENIED_AS_DATA, REFUSED]),
    row("Mutation.mediaCreateUpload", Ask::Gql(r#"mutation { mediaCreateUpload(input: { resourceType: "photo", filename: "f.png", contentType: "image/png", size: 9 }) { media { id } errors { code } } }"#),
        [NOBODY, "ok", DENIED_AS_DATA, REFUSED]),
    row("Mutation.scheduleCreate", Ask::Gql(r#"mutation { scheduleCreate(input: { kind: "media.sweep", expression: "0 4 * * *" }) { schedule { id } errors { code } } }"#),
        [NOBODY, DENIED_AS_DATA, DENIED_AS_DATA, REFUSED]),
    row("Mutation.scheduleDelete", Ask::Gql(r#"mutation { scheduleDelete(input: { scheduleId: "$Schedule" }) { deletedScheduleId errors { code } } }"#),
        [NOBODY, DENIED_AS_DATA, DENIED_AS_DATA, REFUSED]),
    row("Mutation.scheduleUpdate", Ask::Gql(r#"mutation { scheduleUpdate(input: { scheduleId: "$Schedule", enabled: false }) { schedule { id } errors { code } } }"#),
        [NOBODY, DENIED_AS_DATA, DENIED_AS_DATA, REFUSED]),
    row("Mutation.sessionCreate", Ask::Gql(r#"mutation { sessionCreate(input: { email: "$TheirOwner", password: "$Password" }) { token errors { code } } }"#),
        [NOBODY, NOBODY, NOBODY, REFUSED]),
    row("Subscription.changeRecorded", Ask::Follow("subscription { changeRecorded { id } }"), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Subscription.deviceUpdated", Ask::Follow(r#"subscription { deviceUpdated(deviceId: "$Device") { id } }"#),
        [NOBODY, DENIED, "ok", REFUSED]),
    row("Subscription.jobUpdated", Ask::Follow(r#"subscription { jobUpdated(jobId: "$Job") { id } }"#), [NOBODY, "ok", "ok", REFUSED]),
    row("Subscription.mediaUpdated", Ask::Follow(r#"subscription { mediaUpdated(mediaId: "$Media") { id } }"#),
        [NOBODY, "ok", "ok", REFUSED]),
    // An export is there for none of these.
    row("Subscription.mediaUpdated", Ask::Follow(r#"subscription { mediaUpdated(mediaId: "$Export") { id } }"#),
        [NOBODY, "NOT_FOUND", "NOT_FOUND", REFUSED]),
    row("Tenant.changes", Ask::Gql("{ tenant { changes { nodes { id } } } }"), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Tenant.devices", Ask::Gql("{ tenant { devices { nodes { id } } } }"), [NOBODY, DENIED, "ok", REFUSED]),
    row("Tenant.jobs", Ask::Gql("{ tenant { jobs { nodes { id } } } }"), [NOBODY, "ok", "ok", REFUSED]),
    row("Tenant.media", Ask::Gql("{ tenant { media { nodes { id } } } }"), [NOBODY, "ok", "ok", REFUSED]),
    row("Tenant.members", Ask::Gql("{ tenant { members { nodes { id } } } }"), [NOBODY, DENIED, "ok", REFUSED]),
    row("Tenant.roles", Ask::Gql("{ tenant { roles { nodes { id } } } }"), [NOBODY, DENIED, "ok", REFUSED]),
    row("Tenant.schedules", Ask::Gql("{ tenant { schedules { nodes { id } } } }"), [NOBODY, DENIED, "ok", REFUSED]),
    row("Tenant.scheduleKinds", Ask::Gql("{ tenant { scheduleKinds { kind } } }"), [NOBODY, DENIED, "ok", REFUSED]),
    row("Tenant.quotas", Ask::Gql("{ tenant { quotas { name used limit } } }"), [NOBODY, DENIED, "ok", REFUSED]),
    row("Node.Change", Ask::Gql(r#"{ node(id: "$Change") { id } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Node.Device", Ask::Gql(r#"{ node(id: "$Device") { id } }"#), [NOBODY, DENIED, "ok", REFUSED]),
    row("Node.Job", Ask::Gql(r#"{ node(id: "$Job") { id } }"#), [NOBODY, "ok", "ok", REFUSED]),
    row("Node.Media", Ask::Gql(r#"{ node(id: "$Media") { id } }"#), [NOBODY, "ok", "ok", REFUSED]),
    row("Node.Media", Ask::Gql(r#"{ node(id: "$Export") { id } }"#), [NOBODY, "null", "null", REFUSED]),
    row("Node.Member", Ask::Gql(r#"{ node(id: "$Member") { id } }"#), [NOBODY, DENIED, "ok", REFUSED]),
    row("Node.Role", Ask::Gql(r#"{ node(id: "$Role") { id } }"#), [NOBODY, DENIED, "ok", REFUSED]),
    row("Node.Schedule", Ask::Gql(r#"{ node(id: "$Schedule") { id } }"#), [NOBODY, DENIED, "ok", REFUSED]),
    row("Node.Tenant", Ask::Gql(r#"{ node(id: "$Tenant") { id } }"#), [NOBODY, "ok", "ok", REFUSED]),
    row("Change.actor", Ask::Gql(r#"{ node(id: "$Change") { ... on Change { actor { __typename } } } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Change.cause", Ask::Gql(r#"{ node(id: "$Change") { ... on Change { cause { __typename } } } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Change.fields", Ask::Gql(r#"{ node(id: "$Change") { ... on Change { fields { after } } } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Change.onBehalfOf", Ask::Gql(r#"{ node(id: "$Change") { ... on Change { onBehalfOf { __typename } } } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Change.reverts", Ask::Gql(r#"{ node(id: "$Change") { ... on Change { reverts { id } } } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Change.subject", Ask::Gql(r#"{ node(id: "$Change") { ... on Change { subject { id } } } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Device.history", Ask::Gql(r#"{ node(id: "$Device") { ... on Device { history { nodes { id } } } } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    // What a device may read of itself.
    row("Device.history", Ask::Gql("{ viewer { actor { ... on Device { history { nodes { id } } } } } }"), ["null", DENIED, "ok", REFUSED]),
    row("Device.media", Ask::Gql(r#"{ node(id: "$Device") { ... on Device { media { nodes { id } } } } }"#), [NOBODY, DENIED, "ok", REFUSED]),
    row("Device.media", Ask::Gql("{ viewer { actor { ... on Device { media { nodes { id } } } } } }"), ["null", "ok", "ok", REFUSED]),
    row("Device.tokenExpiresAt", Ask::Gql(r#"{ node(id: "$Device") { ... on Device { tokenExpiresAt } } }"#), [NOBODY, DENIED, "ok", REFUSED]),
    row("Job.result", Ask::Gql(r#"{ node(id: "$Job") { ... on Job { result { id } } } }"#), [NOBODY, "ok", "ok", REFUSED]),
    row("Job.result", Ask::Gql(r#"{ node(id: "$ExportJob") { ... on Job { result { id } } } }"#), [NOBODY, "ok", "ok", REFUSED]),
    row("Media.history", Ask::Gql(r#"{ node(id: "$Media") { ... on Media { history { nodes { id } } } } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Media.thumbnail", Ask::Gql(r#"{ node(id: "$Media") { ... on Media { thumbnail } } }"#), [NOBODY, "ok", "ok", REFUSED]),
    row("Media.uploadedBy", Ask::Gql(r#"{ node(id: "$Media") { ... on Media { uploadedBy { __typename } } } }"#), [NOBODY, "ok", "ok", REFUSED]),
    row("Media.url", Ask::Gql(r#"{ node(id: "$Media") { ... on Media { url } } }"#), [NOBODY, "ok", "ok", REFUSED]),
    row("Media.url", Ask::Gql(r#"{ node(id: "$Export") { ... on Media { url } } }"#), [NOBODY, "null", "null", REFUSED]),
    row("Member.avatar", Ask::Gql(r#"{ node(id: "$Member") { ... on Member { avatar { id } } } }"#), [NOBODY, DENIED, "ok", REFUSED]),
    row("Member.history", Ask::Gql(r#"{ node(id: "$Member") { ... on Member { history { nodes { id } } } } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Member.roles", Ask::Gql(r#"{ node(id: "$Member") { ... on Member { roles { id } } } }"#), [NOBODY, DENIED, "ok", REFUSED]),
    row("Reverted.fields", Ask::Gql(r#"mutation { changeRevert(input: { changeId: "$Change", dryRun: true }) { reverted { fields { name } } errors { code } } }"#),
        [NOBODY, DENIED_AS_DATA, DENIED_AS_DATA, REFUSED]),
    row("Role.history", Ask::Gql(r#"{ node(id: "$Role") { ... on Role { history { nodes { id } } } } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Snapshot.change", Ask::Gql(r#"{ asOf(id: "$Device", at: "2100-01-01T00:00:00Z") { change { id } } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Snapshot.subject", Ask::Gql(r#"{ asOf(id: "$Device", at: "2100-01-01T00:00:00Z") { subject { id } } }"#), [NOBODY, DENIED, DENIED, REFUSED]),
    row("Viewer.actor", Ask::Gql("{ viewer { actor { __typename } } }"), ["null", "ok", "ok", REFUSED]),
    row("/graphql", Ask::Get("/graphql?query={tenant{slug}}"), [NOBODY, "ok", "ok", REFUSED]),
    // A tenant's host and nobody's credential: where sockets open, the playground's files, the process's health.
    row("/graphql/ws", Ask::Get("/graphql/ws"), ["400 invalid_request"; 4]),
    row("/graphql/assets/{file}", Ask::Get("/graphql/assets/none.js"), ["404 not_found"; 4]),
    // At an address of its own.
    row("/metrics", Ask::Get("/metrics"), ["404 not_found"; 4]),
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

/// Every argument that is an object's id: `Input.field` or `Type.field(argument)`, the type of the object, and a document that
/// uses `$id`.
#[rustfmt::skip]
pub(super) const IDS: &[(&str, &str, &str)] = &[
    ("ChangeFilter.actor", "Member", r#"{ tenant { changes(filter: { actor: "$id" }) { nodes { id } } } }"#),
    ("ChangeFilter.subject", "Device", r#"{ tenant { changes(filter: { subject: "$id" }) { nodes { id } } } }"#),
    ("ChangeRevertInput.changeId", "Change", r#"mutation { changeRevert(input: { changeId: "$id" }) { change { id } subject { id } reverted { subjectId } errors { __typename code message field } } }"#),
    ("DeviceUpdateInput.deviceId", "Device", r#"mutation { deviceUpdate(input: { deviceId: "$id", name: "taken over" }) { device { id } errors { __typename code message field } } }"#),
    ("JobCancelInput.jobId", "Job", r#"mutation { jobCancel(input: { jobId: "$id" }) { job { id } errors { __typename code message field } } }"#),
    ("JobRetryInput.jobId", "Job", r#"mutation { jobRetry(input: { jobId: "$id" }) { job { id } errors { __typename code message field } } }"#),
    ("MediaCompleteUploadInput.mediaId", "Media", r#"mutation { mediaCompleteUpload(input: { mediaId: "$id" }) { media { id } job { id } errors { __typename code message field } } }"#),
    ("Query.asOf(id)", "Device", r#"{ asOf(id: "$id", at: "2100-01-01T00:00:00Z") { values } }"#),
    ("Query.diff(id)", "Device", r#"{ diff(id: "$id", from: "2000-01-01T00:00:00Z") { name } }"#),
    ("ScheduleDeleteInput.scheduleId", "Schedule", r#"mutation { scheduleDelete(input: { scheduleId: "$id" }) { deletedScheduleId errors { __typename code message field } } }"#),
    ("ScheduleUpdateInput.scheduleId", "Schedule", r#"mutation { scheduleUpdate(input: { scheduleId: "$id", enabled: false }) { schedule { id } errors { __typename code message field } } }"#),
    ("Tenant.members(role)", "Role", r#"{ tenant { members(role: "$id") { totalCount nodes { id } } } }"#),
];
/// Those that the tests try with every type of [`NODES`].
const OF_ANY_TYPE: [&str; 2] = ["Query.node(id)", "Query.nodes(ids)"];
/// Who follows what there is not is told so, or nothing: `subscriptions::following` has it.
const FOLLOWED: [&str; 3] = [
    "Subscription.deviceUpdated(deviceId)",
    "Subscription.jobUpdated(jobId)",
    "Subscription.mediaUpdated(mediaId)",
];

/// Fields that a resolver looks up, and whose type does not say so.
const LOOKED_UP: [&str; 1] = ["Device.tokenExpiresAt"];

/// What an answer is made of: it holds what its mutation or list gives it, and looks up nothing.
fn is_wrapping(name: &str, object: &ObjectType) -> bool {
    let suffixes = ["Connection", "Edge", "Payload"];
    let is_error = object.implements.iter().any(|one| one.node == "UserError");
    is_error || name == "UploadTarget" || suffixes.iter().any(|suffix| name.ends_with(suffix))
}

/// Every list with pages: `Type.field`, and a document for `$page` of it as an owner asks. All orders of it are asked for.
#[rustfmt::skip]
pub(super) const LISTS: &[(&str, &str)] = &[
    ("Device.history", r#"{ node(id: "$Device") { ... on Device { history($page) { nodes { id } pageInfo { hasNextPage hasPreviousPage endCursor } } } } }"#),
    ("Device.media", r#"{ node(id: "$Device") { ... on Device { media($page) { nodes { id } totalCount pageInfo { hasNextPage hasPreviousPage endCursor } } } } }"#),
    ("Media.history", r#"{ node(id: "$Media") { ... on Media { history($page) { nodes { id } pageInfo { hasNextPage hasPreviousPage endCursor } } } } }"#),
    ("Member.history", r#"{ node(id: "$Member") { ... on Member { history($page) { nodes { id } pageInfo { hasNextPage hasPreviousPage endCursor } } } } }"#),
    ("Role.history", r#"{ node(id: "$Role") { ... on Role { history($page) { nodes { id } pageInfo { hasNextPage hasPreviousPage endCursor } } } } }"#),
    ("Tenant.changes", "{ tenant { changes($page) { nodes { id } pageInfo { hasNextPage hasPreviousPage endCursor } } } }"),
    ("Tenant.devices", "{ tenant { devices($page) { nodes { id } totalCount pageInfo { hasNextPage hasPreviousPage endCursor } } } }"),
    ("Tenant.devices", "{ tenant { devices(orderBy: { field: NAME }, $page) { nodes { id } pageInfo { hasNextPage hasPreviousPage endCursor } } } }"),
    ("Tenant.devices", "{ tenant { devices(orderBy: { field: LAST_SEEN_AT }, $page) { nodes { id } pageInfo { hasNextPage hasPreviousPage endCursor } } } }"),
    ("Tenant.jobs", "{ tenant { jobs($page) { nodes { id } pageInfo { hasNextPage hasPreviousPage endCursor } } } }"),
    ("Tenant.media", "{ tenant { media($page) { nodes { id } totalCount pageInfo { hasNextPage hasPreviousPage endCursor } } } }"),
    ("Tenant.members", "{ tenant { members($page) { nodes { id } totalCount pageInfo { hasNextPage hasPreviousPage endCursor } } } }"),
    ("Tenant.schedules", "{ tenant { schedules($page) { nodes { id } pageInfo { hasNextPage hasPreviousPage endCursor } } } }"),
    ("Tenant.roles", "{ tenant { roles($page) { nodes { id } pageInfo { hasNextPage hasPreviousPage endCursor } } } }"),
];

/// The types behind `node(id:)`.
pub(super) const NODES: [&str; 8] = [
    "Change", "Device", "Job", "Media", "Member", "Role", "Schedule", "Tenant",
];

#[test]
fn everything_exposed_has_a_row() {
    let fields = |block: &str| -> BTreeSet<String> {
        let listed = fields_of(block).into_iter();
        listed.map(|name| format!("{block}.{name}")).collect()
    };
    let nodes = implementing("Node").map(|name| format!("Node.{name}"));
    let exposed: BTreeSet<String> = fields("Query")
        .into_iter()
        .chain(fields("Mutation"))
        .chain(fields("Subscription"))
        .chain(looked_up())
        .chain(LOOKED_UP.map(str::to_owned))
        .chain(nodes)
        .chain(routes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")))
        .collect();
    let rows: BTreeSet<String> = ROWS.iter().map(|row| row.name.to_owned()).collect();
    assert_eq!(exposed, rows, "left: exposed; right: the rows of this file");
    assert!(exposed.contains("Mutation.deviceCreate") && exposed.contains("/device/auth"));

    let nodes: BTreeSet<_> = implementing("Node").collect();
    assert_eq!(nodes, BTreeSet::from(NODES.map(str::to_owned)));
    let listed = IDS.iter().map(|(argument, ..)| *argument);
    let listed = listed.chain(OF_ANY_TYPE).chain(FOLLOWED);
    let listed: BTreeSet<String> = listed.map(str::to_owned).collect();
    assert_eq!(
        ids(),
        listed,
        "left: arguments with an id; right: those of this file"
    );
}

/// Fields whose value is another object, or that take arguments: where one thing leads to another.
fn looked_up() -> BTreeSet<String> {
    let objects: BTreeSet<String> = types()
        .filter(|each| {
            matches!(
                each.kind,
                TypeKind::Object(_) | TypeKind::Interface(_) | TypeKind::Union(_)
            )
        })
        .map(|each| each.name.to_string())
        .collect();
    let leads_on = |field: &FieldDefinition| {
        !field.arguments.is_empty() || objects.contains(bare(&field.ty.node.to_string()))
    };
    let mut found = BTreeSet::new();
    for each in types() {
        let TypeKind::Object(object) = &each.kind else {
            continue;
        };
        if is_wrapping(&each.name.node, object) {
            continue;
        }
        let fields = object.fields.iter().map(|field| &field.node);
        let fields = fields.filter(|field| leads_on(field));
        found.extend(fields.map(|field| format!("{}.{}", each.name, field.name)));
    }
    found
}

/// Arguments and fields of inputs that are ids.
fn ids() -> BTreeSet<String> {
    let is_id = |value: &InputValueDefinition| bare(&value.ty.node.to_string()) == "ID";
    let mut found = BTreeSet::new();
    for each in types() {
        match &each.kind {
            TypeKind::Object(object) => {
                for Positioned { node: field, .. } in &object.fields {
                    let ids = field.arguments.iter().map(|argument| &argument.node);
                    let ids = ids.filter(|argument| is_id(argument));
                    found
                        .extend(ids.map(|id| format!("{}.{}({})", each.name, field.name, id.name)));
                }
            }
            TypeKind::InputObject(input) => {
                let ids = input.fields.iter().map(|field| &field.node);
                let ids = ids.filter(|field| is_id(field));
                found.extend(ids.map(|id| format!("{}.{}", each.name, id.name)));
            }
            _ => {}
        }
    }
    found
}

/// A type without what makes it a list or not null.
fn bare(ty: &str) -> &str {
    ty.trim_matches(['[', ']', '!'])
}

#[test]
fn every_list_has_its_cursors_tried() {
    let pages = types().flat_map(|each| {
        let name = each.name.to_string();
        let fields = match each.kind {
            TypeKind::Object(object) => object.fields,
            _ => Vec::new(),
        };
        let after = |field: &FieldDefinition| {
            let mut arguments = field.arguments.iter();
            arguments.any(|argument| argument.node.name.node == "after")
        };
        let fields = fields.into_iter().map(|field| field.node).filter(after);
        fields
            .map(|field| format!("{name}.{}", field.name))
            .collect::<Vec<_>>()
    });
    let listed = LISTS.iter().map(|(list, _)| (*list).to_owned());
    assert_eq!(
        pages.collect::<BTreeSet<_>>(),
        listed.collect(),
        "left: lists of the schema; right: those of this file"
    );
}

const SCHEMA: &str = include_str!("../../../schema.graphql");

/// Names of the fields of a type of the schema.
fn fields_of(name: &str) -> Vec<String> {
    let found = types().find(|each| each.name.node == name);
    let found = found.unwrap_or_else(|| panic!("{name} is not in the schema"));
    let TypeKind::Object(object) = found.kind else {
        panic!("{name} has no fields")
    };
    let fields = object.fields.into_iter();
    fields.map(|field| field.node.name.to_string()).collect()
}

fn types() -> impl Iterator<Item = TypeDefinition> {
    let document = parse_schema(SCHEMA).unwrap();
    document
        .definitions
        .into_iter()
        .filter_map(|each| match each {
            TypeSystemDefinition::Type(each) => Some(each.node),
            _ => None,
        })
}

/// Types of the schema that implement this interface.
fn implementing(interface: &'static str) -> impl Iterator<Item = String> {
    types().filter_map(move |each| match each.kind {
        TypeKind::Object(object) => object
            .implements
            .iter()
            .any(|name| name.node == interface)
            .then(|| each.name.to_string()),
        _ => None,
    })
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
