//! The job behind a completed upload: looks at the bytes, gives them their key, makes thumbnails.

use super::kinds::{self, Kind};
use super::store::{Key, Store, THUMBNAIL};
use crate::database::Tenant;
use crate::error::{Error, Result};
use crate::jobs::{Job, JobContext};
use crate::secret::hex;
use bytes::Bytes;
use entity::tenant::media::{ActiveModel, Entity, Model, State};
use futures::TryStreamExt as _;
use image::{DynamicImage, ImageFormat, ImageReader, Limits};
use object_store::ObjectStoreExt as _;
use sea_orm::{ActiveModelTrait as _, EntityTrait as _, Set};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::io::Cursor;
use std::time::Duration;
use uuid::Uuid;

/// Names and longest edges, in pixels.
pub(super) const SIZES: [(&str, u32); 3] = [("small", 128), ("medium", 512), ("large", 1280)];
/// Larger images get no thumbnails: decoding takes several times their size in memory.
const MAX_IMAGE: i64 = 32 * 1024 * 1024;

/// Checks an upload's bytes and makes thumbnails; then the media is READY, or FAILED with the reason.
#[derive(Debug, Serialize, Deserialize)]
pub struct Process {
    /// Which.
    pub media: Uuid,
}

impl Job for Process {
    const NAME: &'static str = "media.process";
    const TIMEOUT: Duration = Duration::from_mins(5);

    async fn run(self, ctx: &JobContext) -> Result<()> {
        let tx = ctx.begin().await?;
        let media = Entity::find_by_id(self.media).one(&tx).await?;
        tx.commit().await?;
        let Some(media) = media.filter(|media| media.state == State::Processing) else {
            return Ok(());
        };
        let store = &ctx.services.store;
        let change = match inspect(store, &ctx.tenant, &media).await {
            Ok(ready) => ready,
            Err(error) if error.is_transient() && !ctx.is_last_attempt() => return Err(error),
            Err(error) => ActiveModel {
                state: Set(State::Failed),
                failure: Set(Some(error.to_string())),
                ..Default::default()
            },
        };
        let tx = ctx.begin().await?;
        let update = ActiveModel {
            id: Set(media.id),
            ..change
        };
        let updated = update.update(&tx).await;
        tx.settle(updated.map_err(Error::from)).await?;
        // What is left when this fails is taken by the next sweep.
        let _ = store
            .objects()
            .delete(Key::staging(&ctx.tenant, media.id).path())
            .await;
        Ok(())
    }
}

/// What the bytes are. They are copied away from the uploader's link first and looked at then, so that nobody can change
/// them between the look and the copy.
async fn inspect(store: &Store, tenant: &Tenant, media: &Model) -> Result<ActiveModel> {
    let objects = store.objects();
    let staging = Key::staging(tenant, media.id);
    let head = objects.head(staging.path()).await?;
    let size = i64::try_from(head.size).map_err(Error::internal)?;
    if size != media.size {
        let told = format!(
            "The upload has {size} bytes, not the {} that were announced.",
            media.size
        );
        return Err(Error::invalid("size", told));
    }
    let kind = sniffed(store, &staging, media).await?;
    let key = Key::new(tenant, &media.resource_type, media.id, kind.ext);
    objects.copy(staging.path(), key.path()).await?;
    let checked = check(store, tenant, (media, kind, &key)).await;
    if checked.is_err() {
        // A second run copies anew; without one, the next sweep takes it.
        let _ = objects.delete(key.path()).await;
    }
    checked
}

async fn check(
    store: &Store,
    tenant: &Tenant,
    (media, kind, key): (&Model, &'static Kind, &Key),
) -> Result<ActiveModel> {
    if sniffed(store, key, media).await? != kind {
        return Err(Error::invalid(
            "contentType",
            "The upload changed while it was checked.",
        ));
    }
    let sum = checksum(store, key).await?;
    if media
        .sha256
        .as_ref()
        .is_some_and(|announced| *announced != sum)
    {
        return Err(Error::invalid(
            "sha256",
            "The upload has another SHA-256 than was announced.",
        ));
    }
    let thumbnail_ext = if kind.mime.starts_with("image/") && media.size <= MAX_IMAGE {
        Some(thumbnails(store, tenant, (media.id, key)).await?)
    } else {
        None
    };
    Ok(ActiveModel {
        state: Set(State::Ready),
        content_type: Set(kind.mime.to_owned()),
        sha256: Set(Some(sum)),
        ext: Set(Some(kind.ext.to_owned())),
        thumbnail_ext: Set(thumbnail_ext),
        ..Default::default()
    })
}

async fn sniffed(store: &Store, key: &Key, media: &Model) -> Result<&'static Kind> {
    let length = u64::try_from(media.size)
        .unwrap_or_default()
        .min(kinds::HEAD);
    let head = store.objects().get_range(key.path(), 0..length).await?;
    kinds::sniff(&head, &media.content_type).ok_or(Error::UnsupportedMediaType(kinds::ALLOWED))
}

async fn checksum(store: &Store, key: &Key) -> Result<String> {
    let mut stream = store.objects().get(key.path()).await?.into_stream();
    let mut sum = Sha256::new();
    while let Some(chunk) = stream.try_next().await? {
        sum.update(&chunk);
    }
    Ok(hex(&sum.finalize()))
}

/// Makes all sizes and returns their extension: PNG where there is transparency, else JPEG.
async fn thumbnails(store: &Store, tenant: &Tenant, (media, key): (Uuid, &Key)) -> Result<String> {
    let bytes = store.objects().get(key.path()).await?.bytes().await?;
    let (ext, scaled) = tokio::task::spawn_blocking(move || scale(bytes))
        .await
        .map_err(Error::internal)??;
    for (name, image) in scaled {
        let key = Key::new(tenant, &format!("{THUMBNAIL}{name}"), media, ext);
        store.objects().put(key.path(), image.into()).await?;
    }
    Ok(ext.to_owned())
}

type Scaled = (&'static str, Vec<(&'static str, Bytes)>);

fn scale(bytes: Bytes) -> Result<Scaled> {
    let broken = |_| {
        Error::invalid(
            "file",
            "The image cannot be read: it is damaged or too large.",
        )
    };
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(Error::internal)?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(16_384);
    limits.max_image_height = Some(16_384);
    limits.max_alloc = Some(256 * 1024 * 1024);
    reader.limits(limits);
    let image = reader.decode().map_err(broken)?;
    let (ext, format) = if image.color().has_alpha() {
        ("png", ImageFormat::Png)
    } else {
        ("jpg", ImageFormat::Jpeg)
    };
    let mut scaled = Vec::new();
    for (name, edge) in SIZES {
        let small = if image.width().max(image.height()) > edge {
            image.thumbnail(edge, edge)
        } else {
            image.clone()
        };
        let small = match format {
            ImageFormat::Jpeg => DynamicImage::ImageRgb8(small.into_rgb8()),
            _ => small,
        };
        let mut out = Cursor::new(Vec::new());
        small.write_to(&mut out, format).map_err(Error::internal)?;
        scaled.push((name, Bytes::from(out.into_inner())));
    }
    Ok((ext, scaled))
}
