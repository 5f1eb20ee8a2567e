//! Exports of the trail: media that a job writes. Only who may read the trail sees them, and they do not stay: they have what
//! the trail had of persons.

use super::kinds::{self, Kind};
use super::store::{EXPORTS, Key, Store};
use super::{Row, remove};
use crate::actor::Actor;
use crate::clock::Timestamp;
use crate::database::{Tenant, TenantTx};
use crate::error::{Error, Result};
use crate::secret::hex;
use crate::tenancy::quota::{self, Coming};
use chrono::TimeDelta;
use entity::tenant::media::{ActiveModel, Column, Entity, State};
use futures::TryStreamExt as _;
use object_store::WriteMultipart;
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, Set,
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// How long an export is there for whoever asked for it.
pub(super) const KEPT: TimeDelta = TimeDelta::days(7);
/// Parts of one that are on their way to the store at a time.
const PARTS: usize = 4;

/// Whether the media is one.
pub fn is_export(media: &Row) -> bool {
    media.resource_type == EXPORTS
}

/// An export on its way to the store. Dropped, it comes to nothing.
#[derive(Debug)]
pub struct Writing {
    written: Written,
    parts: WriteMultipart,
    sum: Sha256,
}

/// An export that the store has and no row names.
#[derive(Debug)]
pub struct Written {
    /// Identity of the media to be.
    pub id: Uuid,
    filename: String,
    kind: &'static Kind,
    size: i64,
    sha256: String,
}

impl Writing {
    /// Begins one of this name and type.
    pub async fn begin(
        store: &Store,
        tenant: &Tenant,
        id: Uuid,
        (filename, mime): (String, &str),
    ) -> Result<Self> {
        let kind = kinds::by_mime(mime)
            .ok_or_else(|| Error::internal(format!("{mime} is no type of media")))?;
        let key = Key::new(tenant, EXPORTS, id, kind.ext);
        let disposition = kinds::disposition(kind, &filename);
        Ok(Self {
            parts: store.write(&key, kind.mime, disposition).await?,
            sum: Sha256::new(),
            written: Written {
                id,
                filename,
                kind,
                size: 0,
                sha256: String::new(),
            },
        })
    }

    /// Goes on with these bytes, once there is room for them.
    pub async fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.parts.wait_for_capacity(PARTS).await?;
        self.sum.update(&bytes);
        self.written.size += i64::try_from(bytes.len()).map_err(Error::internal)?;
        self.parts.put(bytes.into());
        Ok(())
    }

    /// Returns once the store has all of it.
    pub async fn finish(self) -> Result<Written> {
        self.parts.finish().await?;
        Ok(Written {
            sha256: hex(&self.sum.finalize()),
            ..self.written
        })
    }
}

impl Written {
    /// Makes its row, if the tenant may have as many bytes more.
    pub async fn add(&self, tx: &TenantTx, by: &Actor) -> Result<()> {
        let bytes = u64::try_from(self.size).map_err(Error::internal)?;
        quota::admit(tx, Coming::Media { id: self.id, bytes }).await?;
        let now = tx.now();
        let media = ActiveModel {
            id: Set(self.id),
            filename: Set(self.filename.clone()),
            content_type: Set(self.kind.mime.to_owned()),
            size: Set(self.size),
            sha256: Set(Some(self.sha256.clone())),
            state: Set(State::Ready),
            resource_type: Set(EXPORTS.to_owned()),
            ext: Set(Some(self.kind.ext.to_owned())),
            thumbnail_ext: Set(None),
            failure: Set(None),
            uploaded_by: Set(by.to_string()),
            created_at: Set(now),
            updated_at: Set(now),
            version: Set(1),
        };
        media.insert(tx).await?;
        Ok(())
    }

    /// Where the store has it.
    pub fn key(&self, tenant: &Tenant) -> Key {
        Key::new(tenant, EXPORTS, self.id, self.kind.ext)
    }
}

/// The exports that there are; those made before a time, if one is given.
pub async fn made(tx: &TenantTx, before: Option<Timestamp>) -> Result<Vec<Row>> {
    let before = before.map(|before| Column::CreatedAt.lt(before));
    let found = Entity::find()
        .filter(Column::ResourceType.eq(EXPORTS))
        .filter(Condition::all().add_option(before));
    Ok(found.all(tx).await?)
}

/// Removes the objects of all exports, also of those that came to nothing. One that is just being written goes with its run.
pub async fn remove_objects(store: &Store, tenant: &Tenant) -> Result<()> {
    let mut there = store.exports(tenant);
    while let Some(object) = there.try_next().await? {
        store.remove(&object.location).await?;
    }
    Ok(())
}

/// Removes the rows of all exports, and returns what they were: their objects are to be removed.
pub async fn remove_all(tx: &TenantTx) -> Result<Vec<Row>> {
    let found = made(tx, None).await?;
    let ids: Vec<Uuid> = found.iter().map(|media| media.id).collect();
    remove(tx, &ids).await?;
    Ok(found)
}
