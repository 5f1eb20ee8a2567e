//! The rows and documents that `requests` works with.

use super::{Kind, Options, Query, Subject};
use crate::Result;
use crate::place::{Place, explain};
use crate::postgres::Postgres;
use crate::server::Server;
use crate::site::{Peer, Site, Target};
use bulkhead::actor::{Actor, Attribution};
use bulkhead::app::App;
use bulkhead::devices::{self, NewDevice};
use bulkhead::tenancy;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _};
use std::sync::Arc;

/// The demo tenant, and who signs in there.
const TENANT: &str = "acme";
const SIGN_IN: &str = r#"mutation { sessionCreate(input: {email: "owner@acme.test", password: "bulkhead-demo"}) { token } }"#;
/// Devices, so that a device is found by an index.
const DEVICES: usize = 1000;
/// Some of them.
const IDS: &str = "{ tenant { devices(first: 100) { nodes { id } } } }";

/// The lists and the mutation. A peer lists by time too, where its schema leaves the order to the client.
const LIST: &str = "{ tenant { devices(first: 20) { nodes { id name state } } } }";
const PEERS_LIST: [&str; 2] = [
    "{ devices(first: 20) { id name status } }",
    "{ devices(first: 20, orderBy: [CREATED_AT_DESC, ID_ASC]) { id name status } }",
];
const NESTED: &str = "{ tenant { media(first: 20) { nodes { id contentType url uploadedBy { ... on Member { id name email } } } } } }";
const PEERS_NESTED: [&str; 2] = [
    "{ media(first: 20) { id contentType url uploadedBy { id name email } } }",
    "{ media(first: 20, orderBy: [CREATED_AT_DESC, ID_ASC]) { id contentType url uploadedBy { id name email } } }",
];

/// READY media, uploaded by the tenant's members in turn.
const MEDIA: &str = "SET bulkhead.actor = 'operator:bench';
    INSERT INTO media (id, filename, content_type, size, state, resource_type, ext, uploaded_by, created_at, updated_at)
    SELECT gen_random_uuid(), n || '.jpg', 'image/jpeg', 1000, 'ready', 'photo', 'jpg',
        'member:' || (SELECT id FROM member ORDER BY id OFFSET n % (SELECT count(*) FROM member) LIMIT 1),
        now() - n * interval '1 second', now()
    FROM generate_series(1, 1000) n";

/// Gives the tenant its devices and media.
pub(super) async fn fill(place: &Place, postgres: &Postgres) -> Result<()> {
    let app = place.app().await?;
    let filled = make_devices(&app).await.map_err(explain);
    app.stop().await.map_err(explain)?;
    let schema = filled?;
    let mut superuser = postgres.connect().await?;
    let sql = format!("SET search_path TO {schema}; {MEDIA}; ANALYZE");
    superuser.execute(AssertSqlSafe(sql)).await?;
    Ok(())
}

async fn make_devices(app: &App) -> Result<String, bulkhead::error::Error> {
    let services = &app.services;
    let tx = services.database.platform().await?;
    let tenant = tenancy::by_slug(&tx, TENANT).await?;
    tx.commit().await?;
    let tenant = tenant.ok_or(bulkhead::error::Error::TenantNotFound)?;
    let schema = tenant.schema_name.clone();
    let attribution = Attribution::from(Actor::Operator("bench".to_owned()));
    let tx = services
        .database
        .write(&Arc::new(tenant), &attribution)
        .await?;
    for number in 0..DEVICES {
        let device = NewDevice {
            name: format!("Device {number}"),
            client_id: Some(format!("BENCH-{number}")),
            pin_hash: "none".to_owned(),
        };
        devices::create(&tx, device).await?;
    }
    tx.commit().await?;
    Ok(schema)
}

/// The point query.
pub(super) async fn row(server: &Server) -> Result<Target> {
    let mut site = site(server);
    site.token = Some(site.ask(SIGN_IN, "/data/sessionCreate/token").await?);
    let id = "/data/tenant/devices/nodes/0/id";
    let id = site.ask(IDS, id).await?;
    site.document(&point(&id)).await
}

fn point(id: &str) -> String {
    format!(r#"{{ node(id: "{id}") {{ ... on Device {{ id name state }} }} }}"#)
}

/// The floor, the steps to the point query, the other queries, and the peers.
pub(super) async fn subjects(server: &Server, options: &Options) -> Result<Vec<Subject>> {
    let mut site = site(server);
    let live = site.page("/healthz/live").await?;
    let anonymous = site.document("{ __typename }").await?;
    site.token = Some(site.ask(SIGN_IN, "/data/sessionCreate/token").await?);
    let viewer = site.document("{ viewer { expiresAt } }").await?;
    let ids = site.document(IDS).await?;
    let ids: Value = serde_json::from_slice(&ids.expected)?;
    let ids = ids.pointer("/data/tenant/devices/nodes");
    let ids = ids.and_then(Value::as_array).into_iter().flatten();
    let ids: Vec<&str> = ids.filter_map(|device| device["id"].as_str()).collect();
    let id = ids.first().ok_or("the tenant has no devices")?;
    let point = site.document(&point(id)).await?;
    let list = site.document(LIST).await?;
    let nested = linked(site.document(NESTED).await?);
    // Others than the lists have: their names stay what they were.
    let renamed = &ids[ids.len() / 2..];
    let mutation = renames(&site, renamed, options.connections.into()).await?;
    let subject = |name: &str, kind| Subject {
        name: name.to_owned(),
        kind,
    };
    let mut subjects = vec![
        subject("pgbench -S -M prepared", Kind::Floor),
        subject("HTTP: /healthz/live", Kind::Step(live)),
        subject("+ tenant, GraphQL: { __typename }", Kind::Step(anonymous)),
        subject("+ caller: { viewer { expiresAt } }", Kind::Step(viewer)),
        subject("+ the row: { node(id:) { … } }", Kind::Step(point)),
        subject("list of 20", Kind::Query(Query::List, list)),
        subject("20 media with links", Kind::Query(Query::Nested, nested)),
        subject(
            "mutation with history",
            Kind::Query(Query::Mutation, mutation),
        ),
    ];
    for peer in &options.peers {
        for (query, target) in of_peer(peer).await? {
            let name = format!("{}: {}", peer.name, query.name());
            subjects.push(Subject {
                name,
                kind: Kind::Peer(query, peer.name.clone(), target),
            });
        }
    }
    Ok(subjects)
}

fn site(server: &Server) -> Site {
    Site {
        address: server.address(),
        path: "/graphql".to_owned(),
        host: format!("{TENANT}.localhost:{}", server.port),
        token: None,
    }
}

/// Links are signed anew with each second.
fn linked(target: Target) -> Target {
    Target {
        changes: true,
        ..target
    }
}

/// For each connection a device of its own, that has one name and then another.
async fn renames(site: &Site, ids: &[&str], connections: usize) -> Result<Target> {
    let names = ["Gate", "Door"].iter().flat_map(|name| {
        let devices = ids.iter().cycle().take(connections);
        devices.map(move |id| {
            format!(
                r#"mutation {{ deviceUpdate(input: {{ deviceId: "{id}", name: "{name}" }}) {{ errors {{ code }} }} }}"#
            )
        })
    });
    let documents: Vec<String> = names.collect();
    site.documents(&documents).await
}

async fn of_peer(peer: &Peer) -> Result<Vec<(Query, Target)>> {
    let site = &peer.site;
    let id = site
        .ask("{ devices(first: 1) { id } }", "/data/devices/0/id")
        .await?;
    let point = format!(r#"{{ device(id: "{id}") {{ id name status }} }}"#);
    Ok(vec![
        (Query::Point, site.document(&point).await?),
        (Query::List, site.one_of(&PEERS_LIST).await?),
        (Query::Nested, linked(site.one_of(&PEERS_NESTED).await?)),
    ])
}
