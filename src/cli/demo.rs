//! The demo tenants of `bulkhead dev`: the same data each time.

use crate::actor::{Actor, Attribution};
use crate::app::create_tenant;
use crate::database::TenantTx;
use crate::devices::{self, NewDevice};
use crate::error::{Error, Result};
use crate::identity::{self, BuiltIn, NewMember};
use crate::media::store::Key;
use crate::media::{self, NewUpload};
use crate::services::Services;
use crate::tenancy::{self, Act, NewTenant};
use image::{ImageFormat, Rgb, RgbImage};
use object_store::ObjectStoreExt as _;
use std::io::Cursor;
use std::sync::Arc;

/// Slugs and names.
pub(super) const TENANTS: [(&str, &str); 2] = [("acme", "Acme"), ("globex", "Globex")];
/// Every member's.
pub(super) const PASSWORD: &str = "bulkhead-demo";
/// The device's.
pub(super) const CLIENT_ID: &str = "DEMO-1";
/// The device's.
pub(super) const PIN: &str = "49381706";

/// Names and hues of the pictures.
const PICTURES: [(&str, [u8; 3]); 3] = [
    ("harbour.png", [38, 92, 140]),
    ("meadow.png", [72, 140, 60]),
    ("dunes.png", [204, 164, 96]),
];

/// Makes the demo tenants that are not there yet.
pub(super) async fn seed(services: &Services) -> Result<()> {
    for (slug, name) in TENANTS {
        let tx = services.database.platform().await?;
        let there = tenancy::by_slug(&tx, slug).await?;
        tx.commit().await?;
        if there.is_none() {
            make(services, slug, name).await?;
        }
    }
    Ok(())
}

async fn make(services: &Services, slug: &str, name: &str) -> Result<()> {
    let new = NewTenant {
        slug: slug.to_owned(),
        name: name.to_owned(),
        act: Act::by("dev"),
    };
    let tenant = create_tenant(services, new, &email(BuiltIn::Owner, slug), PASSWORD).await?;
    let password_hash = services.hasher.slot().await?.hash(PASSWORD).await?;
    let pin_hash = services.hasher.slot().await?.hash(PIN).await?;
    let attribution = Attribution::from(Actor::Operator("dev".to_owned()));
    let tx = services
        .database
        .write(&Arc::new(tenant), &attribution)
        .await?;
    let filled = fill(services, &tx, slug, (password_hash, pin_hash)).await;
    tx.settle(filled).await
}

async fn fill(
    services: &Services,
    tx: &TenantTx,
    slug: &str,
    (password_hash, pin_hash): (String, String),
) -> Result<()> {
    for role in [BuiltIn::Admin, BuiltIn::Member, BuiltIn::Viewer] {
        let password_hash = password_hash.clone();
        identity::create_member(
            tx,
            NewMember {
                email: email(role, slug),
                name: None,
                password_hash,
                role,
            },
        )
        .await?;
    }
    let device = NewDevice {
        name: "Demo device".to_owned(),
        client_id: Some(CLIENT_ID.to_owned()),
        pin_hash,
    };
    devices::create(tx, device).await?;
    for (filename, hue) in PICTURES {
        upload(services, tx, filename, hue).await?;
    }
    Ok(())
}

/// An upload like any other; the worker makes it READY.
async fn upload(services: &Services, tx: &TenantTx, filename: &str, hue: [u8; 3]) -> Result<()> {
    let bytes = picture(hue)?;
    let new = NewUpload {
        resource_type: "photo".to_owned(),
        filename: filename.to_owned(),
        content_type: "image/png".to_owned(),
        size: i64::try_from(bytes.len()).map_err(Error::internal)?,
        sha256: None,
    };
    let by = Actor::System("demo data".to_owned());
    let media = media::create_upload(tx, new, &by, services.config.media_max_bytes).await?;
    let key = Key::staging(tx.tenant(), media.id);
    let size = bytes.len() as u64;
    services
        .store
        .objects()
        .put(key.path(), bytes.into())
        .await?;
    media::complete_upload(tx, media.id, size).await?;
    Ok(())
}

/// A gradient from the hue to dark.
fn picture(hue: [u8; 3]) -> Result<Vec<u8>> {
    let image = RgbImage::from_fn(640, 400, |_, y| {
        Rgb(hue.map(|c| c - u8::try_from(u32::from(c) * y / 500).unwrap_or(0)))
    });
    let mut bytes = Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, ImageFormat::Png)
        .map_err(Error::internal)?;
    Ok(bytes.into_inner())
}

fn email(role: BuiltIn, slug: &str) -> String {
    format!("{}@{slug}.test", role.name())
}
