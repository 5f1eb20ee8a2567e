//! The job behind a completed upload: looks at the bytes, gives them their key, makes thumbnails. [`Sweep`] is the other.

mod sweep;

pub use sweep::Sweep;

use super::kinds;
use super::store::{Key, Store, THUMBNAIL};
use crate::database::{Tenant, TenantTx};
use crate::error::{Error, Result};
use crate::jobs::{Job, JobContext};
use crate::secret::hex;
use bytes::{Bytes, BytesMut};
use entity::tenant::media::{ActiveModel, Column, Entity, Model, State};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use image::{DynamicImage, ImageFormat, ImageReader, Limits};
use object_store::{ObjectStoreExt as _, WriteMultipart};
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, Set};
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
    const UNIQUE: bool = true;

    async fn run(self, ctx: &JobContext) -> Result<()> {
        let tx = ctx.begin().await?;
        let media = Entity::find_by_id(self.media).one(&tx).await?;
        tx.commit().await?;
        let Some(media) = media.filter(|media| media.state == State::Processing) else {
            return Ok(());
        };
        let store = &ctx.services.store;
        match inspect(store, &ctx.tenant, &media).await {
            Ok(ready) => {
                end(ctx, media.id, ready).await?;
                ctx.made(media.id);
            }
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => end(ctx, media.id, refused(&error)).await?,
        }
        // What is left when this fails is taken by the next sweep.
        let staging = Key::staging(&ctx.tenant, media.id);
        let _ = store.objects().delete(staging.path()).await;
        Ok(())
    }

    async fn bury(self, tx: &TenantTx, error: &Error) -> Result<()> {
        change(tx, self.media, refused(error)).await
    }
}

async fn end(ctx: &JobContext, media: Uuid, ended: ActiveModel) -> Result<()> {
    let tx = ctx.begin().await?;
    let ended = change(&tx, media, ended).await;
    tx.settle(ended).await
}

/// Ends the processing, unless another run of the job did. A run that lost its claim changes nothing here.
async fn change(tx: &TenantTx, media: Uuid, ended: ActiveModel) -> Result<()> {
    Entity::update_many()
        .set(ended)
        .filter(Column::Id.eq(media))
        .filter(Column::State.eq(State::Processing))
        .exec(tx)
        .await?;
    Ok(())
}

fn refused(error: &Error) -> ActiveModel {
    ActiveModel {
        state: Set(State::Failed),
        failure: Set(Some(error.to_string())),
        ..Default::default()
    }
}

/// Looks at the bytes while it copies them to where the uploader's link does not reach: one reading of them decides type,
/// size and sum, so nobody can change them between the look and the copy. What is refused is never written to its end.
async fn inspect(store: &Store, tenant: &Tenant, media: &Model) -> Result<ActiveModel> {
    let staging = Key::staging(tenant, media.id);
    let source = store.objects().get(staging.path()).await?;
    if Some(source.meta.size) != u64::try_from(media.size).ok() {
        return Err(other_size(source.meta.size, media));
    }
    let mut source = source.into_stream();
    let mut head = BytesMut::new();
    while head.len() < kinds::HEAD {
        match source.try_next().await? {
            Some(chunk) => head.extend_from_slice(&chunk),
            None => break,
        }
    }
    let sniffed = kinds::sniff(&head[..head.len().min(kinds::HEAD)], &media.content_type);
    let kind = sniffed.ok_or(Error::UnsupportedMediaType(kinds::ALLOWED))?;
    let key = Key::new(tenant, &media.resource_type, media.id, kind.ext);
    let disposition = kinds::disposition(kind, &media.filename);
    let mut copy = store.write(&key, kind.mime, disposition).await?;
    let rest = futures::stream::once(async { Ok(head.freeze()) }).chain(source);
    let sum = match checked_copy(rest.boxed(), &mut copy, media).await {
        Ok(sum) => sum,
        Err(error) => {
            copy.abort().await?;
            return Err(error);
        }
    };
    copy.finish().await?;
    let thumbnail_ext = if kind.mime.starts_with("image/") && media.size <= MAX_IMAGE {
        Some(thumbnails(store, tenant, (media.id, &key)).await?)
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

fn other_size(size: u64, media: &Model) -> Error {
    let announced = media.size;
    let told = format!("The upload has {size} bytes, not the {announced} that were announced.");
    Error::invalid("size", told)
}

/// Copies to the end and returns the SHA-256, if size and sum are as announced.
async fn checked_copy(
    mut source: BoxStream<'_, object_store::Result<Bytes>>,
    copy: &mut WriteMultipart,
    media: &Model,
) -> Result<String> {
    let announced = u64::try_from(media.size).unwrap_or_default();
    let mut size = 0;
    let mut sum = Sha256::new();
    while let Some(chunk) = source.try_next().await? {
        size += chunk.len() as u64;
        if size > announced {
            break;
        }
        sum.update(&chunk);
        copy.wait_for_capacity(4).await?;
        copy.put(chunk);
    }
    if size != announced {
        return Err(other_size(size, media));
    }
    let sum = hex(&sum.finalize());
    if media
        .sha256
        .as_ref()
        .is_some_and(|announced| *announced != sum)
    {
        let told = "The upload has another SHA-256 than was announced.";
        return Err(Error::invalid("sha256", told));
    }
    Ok(sum)
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
