//! The rows and documents that `requests` works with.

use super::{Kind, Subject};
use crate::Result;
use crate::place::{Place, explain};
use crate::server::Server;
use crate::site::{Peer, Site};
use bulkhead::actor::{Actor, Attribution};
use bulkhead::app::App;
use bulkhead::devices::{self, NewDevice};
use bulkhead::tenancy;
use std::sync::Arc;

/// The demo tenant, and who signs in there.
const TENANT: &str = "acme";
const SIGN_IN: &str = r#"mutation { sessionCreate(input: {email: "owner@acme.test", password: "bulkhead-demo"}) { token } }"#;
/// Devices, so that a device is found by an index.
const DEVICES: usize = 1000;

/// Gives the tenant its devices.
pub(super) async fn fill(place: &Place) -> Result<()> {
    let app = place.app().await?;
    let filled = make_devices(&app).await.map_err(explain);
    app.stop().await.map_err(explain)?;
    filled
}

async fn make_devices(app: &App) -> Result<(), bulkhead::error::Error> {
    let services = &app.services;
    let tx = services.database.platform().await?;
    let tenant = tenancy::by_slug(&tx, TENANT).await?;
    tx.commit().await?;
    let tenant = tenant.ok_or(bulkhead::error::Error::TenantNotFound)?;
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
    tx.commit().await
}

/// The floor, the steps to the point query, and the peers.
pub(super) async fn subjects(server: &Server, peers: &[Peer]) -> Result<Vec<Subject>> {
    let mut site = Site {
        address: server.address(),
        path: "/graphql".to_owned(),
        host: format!("{TENANT}.localhost:{}", server.port),
        token: None,
    };
    let live = site.page("/healthz/live").await?;
    let anonymous = site.document("{ __typename }").await?;
    site.token = Some(site.ask(SIGN_IN, "/data/sessionCreate/token").await?);
    let viewer = site.document("{ viewer { expiresAt } }").await?;
    let devices = "{ tenant { devices(first: 1) { nodes { id } } } }";
    let id = site.ask(devices, "/data/tenant/devices/nodes/0/id").await?;
    let point = format!(r#"{{ node(id: "{id}") {{ ... on Device {{ id name state }} }} }}"#);
    let point = site.document(&point).await?;
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
    ];
    for peer in peers {
        let id = peer
            .site
            .ask("{ devices(first: 1) { id } }", "/data/devices/0/id")
            .await?;
        let document = format!(r#"{{ device(id: "{id}") {{ id name status }} }}"#);
        let target = peer.site.document(&document).await?;
        subjects.push(subject(&peer.name, Kind::Peer(target)));
    }
    Ok(subjects)
}
