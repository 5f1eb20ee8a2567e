//! The tenants that the fuzzer works with. Every text of theirs carries the tenant's marker, `mk-<slug>-`.

use crate::Result;
use crate::http::{Connection, message};
use crate::place::{Place, explain};
use crate::server::Server;
use crate::site::Site;
use bulkhead::actor::{Actor, Attribution};
use bulkhead::app::{App, create_tenant};
use bulkhead::config::Config;
use bulkhead::identity::{self, BuiltIn, NewMember};
use bulkhead::tenancy::{Act, NewTenant};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// The tenants; none is the beginning of another.
pub(super) const SLUGS: [&str; 8] = [
    "aster", "birch", "cedar", "dahlia", "elder", "fern", "gorse", "hazel",
];
const PASSWORD: &str = "correct horse";
/// Devices of each.
const DEVICES: usize = 6;
/// Media of each.
const MEDIA: usize = 4;
/// How long the worker may take for all media.
const PATIENCE: Duration = Duration::from_mins(1);

/// A picture of four pixels by four.
pub(super) const PICTURE: &[u8] = b"\x89PNG\x0d\x0a\x1a\x0a\x00\x00\x00\x0dIHDR\x00\x00\x00\x04\x00\x00\x00\x04\x08\x02\x00\x00\x00&\x93\x09)\x00\x00\x00\x10IDATx\xdacP\x8b\xe9\x81#\x06\xe28\x00\xb0\xa3\x10\xe1\xe6\x0f.\xd8\x00\x00\x00\x00IEND\xaeB`\x82";

/// A tenant as its clients know it.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) slug: &'static str,
    /// Tokens of an owner and of one who may only read.
    pub(super) owner: String,
    pub(super) viewer: String,
    pub(super) devices: Vec<Device>,
    /// Global ids of its media, and of its members.
    pub(super) media: Vec<String>,
    pub(super) members: Vec<String>,
    /// Paths of signed links to its media.
    pub(super) links: Vec<String>,
}

/// A device that can sign in.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) id: String,
    pub(super) client_id: String,
    pub(super) pin: String,
}

/// A text that only this tenant has.
pub(super) fn mark(slug: &str, rest: impl std::fmt::Display) -> String {
    format!("mk-{slug}-{rest}")
}

/// The host that the tenant is served at.
pub(super) fn host(slug: &str) -> String {
    format!("{slug}.localhost")
}

/// Makes the tenants with their members: by the library, for there is no other door to these.
pub(super) async fn found(place: &Place, cells: u16) -> Result<()> {
    let config = Config {
        cells,
        ..Config::default()
    };
    let app = place.app_with(config).await?;
    let founded = make(&app).await.map_err(explain);
    app.stop().await.map_err(explain)?;
    founded
}

async fn make(app: &App) -> Result<(), bulkhead::error::Error> {
    let services = &app.services;
    let password_hash = services.hasher.slot().await?.hash(PASSWORD).await?;
    for slug in SLUGS {
        let new = NewTenant {
            slug: slug.to_owned(),
            name: mark(slug, "tenant"),
            act: Act::by("bench"),
        };
        let tenant = create_tenant(services, new, &email(slug, "first"), PASSWORD).await?;
        let attribution = Attribution {
            reason: Some(mark(slug, "founded")),
            ..Actor::Operator("bench".to_owned()).into()
        };
        let tx = services
            .database
            .write(&Arc::new(tenant), &attribution)
            .await?;
        for role in [BuiltIn::Owner, BuiltIn::Viewer] {
            let member = NewMember {
                email: email(slug, role.name()),
                name: Some(mark(slug, role.name())),
                password_hash: password_hash.clone(),
                role,
            };
            identity::create_member(&tx, member).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

fn email(slug: &str, who: &str) -> String {
    format!("{}@bench.test", mark(slug, who))
}

/// Signs the members in and gives every tenant its devices and media, through the API.
pub(super) async fn fill(server: &Server) -> Result<Vec<Tenant>> {
    let mut tenants = Vec::new();
    for slug in SLUGS {
        tenants.push(tenant(server, slug).await?);
    }
    let deadline = Instant::now() + PATIENCE;
    for tenant in &mut tenants {
        let site = site(server, tenant.slug, Some(tenant.owner.clone()));
        tenant.links = loop {
            let links = links(&site).await?;
            if links.len() == MEDIA {
                break links;
            }
            if Instant::now() > deadline {
                return Err("the worker does not process the media".into());
            }
            sleep(Duration::from_millis(50)).await;
        };
    }
    Ok(tenants)
}

fn site(server: &Server, slug: &str, token: Option<String>) -> Site {
    Site {
        address: server.address(),
        path: "/graphql".to_owned(),
        host: host(slug),
        token,
    }
}

async fn tenant(server: &Server, slug: &'static str) -> Result<Tenant> {
    let anonymous = site(server, slug, None);
    let token = async |role: BuiltIn| {
        let address = email(slug, role.name());
        let document = format!(
            r#"mutation {{ sessionCreate(input: {{email: "{address}", password: "{PASSWORD}"}}) {{ token }} }}"#
        );
        anonymous.ask(&document, "/data/sessionCreate/token").await
    };
    let owner = token(BuiltIn::Owner).await?;
    let site = site(server, slug, Some(owner.clone()));
    let mut devices = Vec::new();
    for number in 0..DEVICES {
        devices.push(device(&site, slug, number).await?);
    }
    let mut media = Vec::new();
    for number in 0..MEDIA {
        media.push(upload(&site, slug, number).await?);
    }
    let members = answer(&site, "{ tenant { members { nodes { id } } } }").await?;
    let members = ids(&members["tenant"]["members"]["nodes"], "id");
    Ok(Tenant {
        slug,
        owner,
        viewer: token(BuiltIn::Viewer).await?,
        devices,
        media,
        members,
        links: Vec::new(),
    })
}

async fn device(site: &Site, slug: &str, number: usize) -> Result<Device> {
    let client_id = mark(slug, number);
    let name = mark(slug, format_args!("device-{number}"));
    let document = format!(
        r#"mutation {{ deviceCreate(input: {{name: "{name}", clientId: "{client_id}"}}) {{ pin device {{ id }} }} }}"#
    );
    let made = &answer(site, &document).await?["deviceCreate"];
    Ok(Device {
        id: text(&made["device"]["id"])?,
        client_id,
        pin: text(&made["pin"])?,
    })
}

async fn upload(site: &Site, slug: &str, number: usize) -> Result<String> {
    let input = format!(
        r#"{{resourceType: "{}", filename: "{}", contentType: "image/png", size: {}}}"#,
        mark(slug, "photo"),
        mark(slug, format_args!("{number}.png")),
        PICTURE.len()
    );
    let document = format!(
        "mutation {{ mediaCreateUpload(input: {input}) {{ media {{ id }} upload {{ url }} }} }}"
    );
    let made = &answer(site, &document).await?["mediaCreateUpload"];
    let (id, url) = (text(&made["media"]["id"])?, text(&made["upload"]["url"])?);
    let headers = [("Host", site.host.as_str()), ("Content-Type", "image/png")];
    let put = message(("PUT", &path_of(&url)?), &headers, Some(PICTURE));
    let status = Connection::new(&site.address).exchange(&put).await?.status;
    if status != 201 {
        return Err(format!("an upload was answered {status}").into());
    }
    let document = format!(
        r#"mutation {{ mediaCompleteUpload(input: {{mediaId: "{id}"}}) {{ media {{ state }} errors {{ code }} }} }}"#
    );
    answer(site, &document).await?;
    Ok(id)
}

/// The paths of the links to what is READY.
async fn links(site: &Site) -> Result<Vec<String>> {
    let media = answer(site, "{ tenant { media { nodes { url } } } }").await?;
    let urls = ids(&media["tenant"]["media"]["nodes"], "url");
    urls.iter().map(|url| path_of(url)).collect()
}

async fn answer(site: &Site, document: &str) -> Result<Value> {
    let target = site.document(document).await?;
    let mut answer: Value = serde_json::from_slice(&target.expected)?;
    Ok(answer.get_mut("data").map_or(json!(null), Value::take))
}

fn ids(nodes: &Value, key: &str) -> Vec<String> {
    let nodes = nodes.as_array().into_iter().flatten();
    nodes
        .filter_map(|node| Some(node[key].as_str()?.to_owned()))
        .collect()
}

fn text(value: &Value) -> Result<String> {
    let text = value.as_str().map(ToOwned::to_owned);
    text.ok_or_else(|| "an answer lacks something".into())
}

/// What follows the host in a link.
pub(super) fn path_of(url: &str) -> Result<String> {
    let path = url
        .split_once("://")
        .and_then(|(_, rest)| Some(&rest[rest.find('/')?..]));
    path.map(ToOwned::to_owned)
        .ok_or_else(|| format!("{url} is no link").into())
}
