//! Media: rows here, bytes in the object store. An upload waits under a key of its own until a job has looked at it; only
//! then it gets the key that links are made for, so no old link can change what was checked.

pub mod exports;
pub mod graphql;
pub mod http;
pub mod jobs;
mod kinds;
mod links;
mod list;
pub mod sign;
pub mod store;

pub use entity::tenant::media::Model as Row;
pub use list::MediaFilter;

use crate::actor::Actor;
use crate::database::{Tenant, TenantTx};
use crate::error::{Error, Result};
use crate::tenancy::quota::{self, Coming};
use entity::tenant::media::{ActiveModel, Column, Entity, Model, State};
use kinds::{ALLOWED, Kind};
use object_store::path::Path;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, EntityTrait as _, QueryFilter as _, QuerySelect as _,
    Set,
};
use std::collections::BTreeSet;
use store::{Key, Store, THUMBNAIL};
use uuid::Uuid;

/// What an uploader says of the bytes to come.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// First folder under the tenant's prefix.
    pub resource_type: String,
    /// As the uploader calls it.
    pub filename: String,
    /// MIME type.
    pub content_type: String,
    /// Bytes.
    pub size: i64,
    /// Hexadecimal, if known.
    pub sha256: Option<String>,
}

/// Makes the row that an upload is for, if the tenant may have as many bytes more.
pub async fn create_upload(
    tx: &TenantTx,
    new: NewUpload,
    by: &Actor,
    max_bytes: u64,
) -> Result<Model> {
    let kind = check(&new, max_bytes)?;
    let id = tx.new_id();
    let bytes = u64::try_from(new.size).unwrap_or_default();
    quota::admit(tx, Coming::Media { id, bytes }).await?;
    let now = tx.now();
    let media = ActiveModel {
        id: Set(id),
        filename: Set(new.filename),
        content_type: Set(kind.mime.to_owned()),
        size: Set(new.size),
        sha256: Set(new.sha256.map(|sum| sum.to_ascii_lowercase())),
        state: Set(State::AwaitingUpload),
        resource_type: Set(new.resource_type),
        ext: Set(None),
        thumbnail_ext: Set(None),
        failure: Set(None),
        uploaded_by: Set(by.to_string()),
        created_at: Set(now),
        updated_at: Set(now),
        version: Set(1),
    };
    Ok(media.insert(tx).await?)
}

/// The media, if it is the tenant's.
pub async fn find(tx: &TenantTx, id: Uuid) -> Result<Model> {
    Entity::find_by_id(id)
        .one(tx)
        .await?
        .ok_or(Error::NotFound("media"))
}

/// Ends what a copy of a tenant cannot go on with: uploads are the source's own, and so are exports of its trail.
pub async fn settle_clone(tx: &TenantTx) -> Result<()> {
    exports::remove_all(tx).await?;
    Entity::update_many()
        .col_expr(Column::State, Expr::value(State::Failed))
        .col_expr(
            Column::Failure,
            Expr::value("The upload was not finished when the tenant was cloned."),
        )
        .filter(Column::State.is_in([State::AwaitingUpload, State::Processing]))
        .exec(tx)
        .await?;
    Ok(())
}

/// Ends those of a copy of a tenant whose file is not among these: it was deleted from the source while it was copied.
pub async fn end_lost(tx: &TenantTx, there: &BTreeSet<Path>) -> Result<()> {
    let ready = Entity::find().filter(Column::State.eq(State::Ready));
    let ready = ready.all(tx).await?;
    let lost = ready.iter().filter(|media| {
        let ext = media.ext.as_deref().unwrap_or_default();
        let key = Key::new(tx.tenant(), &media.resource_type, media.id, ext);
        !there.contains(key.path())
    });
    let lost: Vec<Uuid> = lost.map(|media| media.id).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let failure = "The file was deleted while the tenant was cloned.";
    Entity::update_many()
        .col_expr(Column::State, Expr::value(State::Failed))
        .col_expr(Column::Failure, Expr::value(failure))
        .filter(Column::Id.is_in(lost))
        .exec(tx)
        .await?;
    Ok(())
}

/// The ids of all media.
pub async fn ids(tx: &TenantTx) -> Result<BTreeSet<Uuid>> {
    let ids = Entity::find()
        .select_only()
        .column(Column::Id)
        .into_tuple::<Uuid>();
    Ok(ids.all(tx).await?.into_iter().collect())
}

/// Those of these media that are there.
pub async fn with_ids(tx: &TenantTx, ids: &[Uuid]) -> Result<Vec<Model>> {
    let found = Entity::find().filter(Column::Id.is_in(ids.iter().copied()));
    Ok(found.all(tx).await?)
}

/// Removes the rows of these media; how many there were. Their objects are to be removed before.
pub async fn remove(tx: &TenantTx, ids: &[Uuid]) -> Result<u64> {
    let removed = Entity::delete_many().filter(Column::Id.is_in(ids.iter().copied()));
    Ok(removed.exec(tx).await?.rows_affected)
}

/// Removes what the store has of these media: the file, its thumbnails, an upload that was not looked at.
pub async fn remove_objects(store: &Store, tenant: &Tenant, media: &[Model]) -> Result<()> {
    for media in media {
        let mut keys = vec![Key::staging(tenant, media.id)];
        let file = media.ext.iter();
        keys.extend(file.map(|ext| Key::new(tenant, &media.resource_type, media.id, ext)));
        if let Some(ext) = &media.thumbnail_ext {
            let sizes = jobs::SIZES.iter();
            let thumbnail = |name| Key::new(tenant, &format!("{THUMBNAIL}{name}"), media.id, ext);
            keys.extend(sizes.map(|(name, _)| thumbnail(name)));
        }
        for key in keys {
            store.remove(key.path()).await?;
        }
    }
    Ok(())
}

/// Closes an upload of this many bytes and adds the job that checks them. Of two that complete it at once, one does.
pub async fn complete_upload(tx: &TenantTx, id: Uuid, bytes: u64) -> Result<(Model, Uuid)> {
    let closed = Entity::update_many()
        .col_expr(Column::State, Expr::value(State::Processing))
        .filter(Column::Id.eq(id))
        .filter(Column::State.eq(State::AwaitingUpload))
        .exec_with_returning(tx)
        .await?;
    let Some(media) = closed.into_iter().next() else {
        find(tx, id).await?;
        return Err(Error::invalid(
            "mediaId",
            "This upload was completed already.",
        ));
    };
    quota::admit(tx, Coming::Media { id, bytes }).await?;
    let job = crate::jobs::enqueue(tx, &jobs::Process { media: id }).await?;
    Ok((media, job))
}

fn check(new: &NewUpload, max_bytes: u64) -> Result<&'static Kind> {
    if !is_resource_type(&new.resource_type) {
        return Err(Error::invalid(
            "resourceType",
            "A resource type is a lower-case slug such as avatar, photo or document, and neither upload nor thumbnail-….",
        ));
    }
    let filename = &new.filename;
    if filename.is_empty()
        || filename.len() > 255
        || filename.contains(|c: char| c.is_control() || c == '/' || c == '\\')
    {
        return Err(Error::invalid(
            "filename",
            "A file name has 1 to 255 bytes, without slashes and control characters.",
        ));
    }
    let size = u64::try_from(new.size).unwrap_or_default();
    if size == 0 {
        return Err(Error::invalid("size", "An upload has at least one byte."));
    }
    if size > max_bytes {
        return Err(Error::TooLarge(max_bytes));
    }
    let is_sum = |sum: &String| sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit());
    if !new.sha256.as_ref().is_none_or(is_sum) {
        return Err(Error::invalid(
            "sha256",
            "A SHA-256 has 64 hexadecimal digits.",
        ));
    }
    kinds::by_mime(&new.content_type).ok_or(Error::UnsupportedMediaType(ALLOWED))
}

/// Whether it can be the first folder under a tenant's prefix.
fn is_resource_type(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && text != store::STAGING
        && !text.starts_with(store::THUMBNAIL)
}
