//! The type `Media`, its links, and the two halves of an upload.

use super::NewUpload;
use super::jobs::SIZES;
use super::sign::{self, Method};
use super::store::{Key, THUMBNAIL};
use crate::error::{Error, Result};
use crate::graphql::{
    ByteSize, ContextExt as _, Cursor, DateTime, Id, Kind, PageInput, Total, Url, UserError,
    expected, global_id, page_by_id, with_fields,
};
use crate::history::graphql::Change;
use crate::identity::ActorObject;
use crate::jobs::graphql::Job;
use crate::permission::Permission;
use crate::tenancy::host;
use async_graphql::connection::Connection;
use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use axum::http;
use chrono::Duration;
use entity::tenant::media::{Column, Entity, Model, State};
use object_store::ObjectStoreExt as _;
use sea_orm::EntityTrait as _;
use uuid::Uuid;

/// Seconds that a link lives at most.
const MAX_LINK: i32 = 3600;

/// Where a media is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum MediaState {
    /// The bytes are not there yet.
    AwaitingUpload,
    /// The bytes were refused.
    Failed,
    /// A job looks at the bytes.
    Processing,
    /// Links are given out.
    Ready,
}

/// How large a thumbnail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
pub enum ThumbnailSize {
    /// At most 1280 pixels a side.
    Large,
    /// At most 512 pixels a side.
    Medium,
    /// At most 128 pixels a side.
    Small,
}

/// A file of the tenant.
#[derive(Clone, Debug)]
pub struct Media(Model);

impl Kind for Media {
    const NAME: &'static str = "Media";
}

/// A file of the tenant.
#[Object]
impl Media {
    /// Opaque, globally unique.
    pub async fn id(&self) -> ID {
        global_id::<Self>(self.0.id)
    }

    /// As the uploader called it.
    async fn filename(&self) -> &str {
        &self.0.filename
    }

    /// Sniffed from the bytes, not believed from the client.
    async fn content_type(&self) -> &str {
        &self.0.content_type
    }

    /// Bytes.
    async fn size(&self) -> ByteSize {
        ByteSize(self.0.size)
    }

    /// Hexadecimal.
    async fn sha256(&self) -> Option<&str> {
        self.0.sha256.as_deref()
    }

    /// Where it is in its life.
    async fn state(&self) -> MediaState {
        match self.0.state {
            State::AwaitingUpload => MediaState::AwaitingUpload,
            State::Processing => MediaState::Processing,
            State::Ready => MediaState::Ready,
            State::Failed => MediaState::Failed,
        }
    }

    /// Why it is FAILED.
    async fn failure(&self) -> Option<&str> {
        self.0.failure.as_deref()
    }

    /// First folder under the tenant's prefix: {tenant-slug}/{resourceType}/{uuid}.{ext}.
    async fn resource_type(&self) -> &str {
        &self.0.resource_type
    }

    /// Who uploaded it.
    async fn uploaded_by(&self, ctx: &Context<'_>) -> Result<ActorObject> {
        ActorObject::parse(ctx, &self.0.uploaded_by).await
    }

    /// Short-lived signed link, one hour at most. Null until READY.
    async fn url(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 3600)] expires_in: i32,
    ) -> Result<Option<Url>> {
        let Some(ext) = self
            .0
            .ext
            .as_deref()
            .filter(|_| self.0.state == State::Ready)
        else {
            return Ok(None);
        };
        read_link(ctx, (&self.0.resource_type, self.0.id, ext), expires_in)
            .await
            .map(Some)
    }

    /// The same for a thumbnail. Null until READY, and for what is no image.
    async fn thumbnail(
        &self,
        ctx: &Context<'_>,
        #[graphql(default_with = "ThumbnailSize::Medium")] size: ThumbnailSize,
    ) -> Result<Option<Url>> {
        let Some(ext) = self
            .0
            .thumbnail_ext
            .as_deref()
            .filter(|_| self.0.state == State::Ready)
        else {
            return Ok(None);
        };
        let name = match size {
            ThumbnailSize::Small => SIZES[0].0,
            ThumbnailSize::Medium => SIZES[1].0,
            ThumbnailSize::Large => SIZES[2].0,
        };
        read_link(
            ctx,
            (&format!("{THUMBNAIL}{name}"), self.0.id, ext),
            MAX_LINK,
        )
        .await
        .map(Some)
    }

    /// When it was made.
    async fn created_at(&self) -> DateTime {
        self.0.created_at.into()
    }

    /// When it was last changed.
    async fn updated_at(&self) -> DateTime {
        self.0.updated_at.into()
    }

    /// Bumped by every write.
    async fn version(&self) -> i32 {
        self.0.version
    }

    /// Every recorded change of this object, newest first.
    async fn history(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 20)] first: i32,
        after: Option<String>,
    ) -> Result<Connection<Cursor, Change>> {
        Change::page(
            ctx,
            PageInput::new(first, after.as_deref())?,
            Some(self.0.id),
        )
        .await
    }
}

impl Media {
    /// The media with this id, if it is the tenant's.
    pub async fn find(ctx: &Context<'_>, id: Uuid) -> Result<Option<Self>> {
        let tx = ctx.read(Permission::MediaRead).await?;
        Ok(Entity::find_by_id(id).one(&*tx).await?.map(Self))
    }

    /// A page of the tenant's media, newest first.
    pub async fn page(
        ctx: &Context<'_>,
        page: PageInput,
    ) -> Result<Connection<Cursor, Self, Total>> {
        let tx = ctx.read(Permission::MediaRead).await?;
        let total = Total::of(ctx, &tx, Entity::find()).await?;
        let rows = page_by_id(&tx, Entity::find(), Column::Id, page).await?;
        Ok(with_fields(rows, total, |row| row.id, Self))
    }
}

/// What is going to be uploaded.
#[derive(Debug, InputObject)]
pub struct MediaCreateUploadInput {
    /// A lower-case slug such as avatar, photo or document.
    resource_type: String,
    /// As the uploader calls it.
    filename: String,
    /// MIME type.
    content_type: String,
    /// Bytes, exactly.
    size: ByteSize,
    /// Hexadecimal; checked when given.
    sha256: Option<String>,
}

/// Where to send the bytes. PUT the body to `url` with exactly these headers.
#[derive(Debug, SimpleObject)]
pub struct UploadTarget {
    /// Signed; good for this upload only.
    url: Url,
    /// Always PUT.
    method: String,
    /// To be sent as they are.
    headers: Vec<HttpHeader>,
    /// When the link stops working.
    expires_at: DateTime,
}

/// A header.
#[derive(Debug, SimpleObject)]
pub struct HttpHeader {
    /// Its name.
    name: String,
    /// Its value.
    value: String,
}

/// The new media and where its bytes go.
#[derive(Debug, SimpleObject)]
pub struct MediaCreateUploadPayload {
    /// The new media.
    media: Option<Media>,
    /// Where to send the bytes.
    upload: Option<UploadTarget>,
    /// Expected failures.
    errors: Vec<UserError>,
}

/// Which upload is complete.
#[derive(Debug, InputObject)]
pub struct MediaCompleteUploadInput {
    /// The media whose bytes were sent.
    media_id: Id<Media>,
}

/// The media, and the job that looks at its bytes.
#[derive(Debug, SimpleObject)]
pub struct MediaCompleteUploadPayload {
    /// The media.
    media: Option<Media>,
    /// Checks the bytes, makes thumbnails, then the media is READY.
    job: Option<Job>,
    /// Expected failures.
    errors: Vec<UserError>,
}

/// Root fields for writing.
#[derive(Debug, Default)]
pub struct Mutation;

/// Root fields for writing.
#[Object(name = "MediaMutation")]
impl Mutation {
    /// Makes a media and says where to send its bytes.
    async fn media_create_upload(
        &self,
        ctx: &Context<'_>,
        input: MediaCreateUploadInput,
    ) -> Result<MediaCreateUploadPayload> {
        let (media, errors) = expected(create(ctx, input).await)?;
        let upload = match &media {
            Some(media) => Some(upload_target(ctx, media).await?),
            None => None,
        };
        Ok(MediaCreateUploadPayload {
            media: media.map(Media),
            upload,
            errors,
        })
    }

    /// Says that the bytes were sent; a job checks them.
    async fn media_complete_upload(
        &self,
        ctx: &Context<'_>,
        input: MediaCompleteUploadInput,
    ) -> Result<MediaCompleteUploadPayload> {
        let (completed, errors) = expected(complete(ctx, input.media_id.uuid()).await)?;
        let Some((media, job)) = completed else {
            return Ok(MediaCompleteUploadPayload {
                media: None,
                job: None,
                errors,
            });
        };
        Ok(MediaCompleteUploadPayload {
            media: Some(Media(media)),
            job: Job::find(ctx, job).await?,
            errors,
        })
    }
}

async fn create(ctx: &Context<'_>, input: MediaCreateUploadInput) -> Result<Model> {
    let request = ctx.request();
    let new = NewUpload {
        resource_type: input.resource_type,
        filename: input.filename,
        content_type: input.content_type,
        size: input.size.0,
        sha256: input.sha256,
    };
    let tx = ctx.write(Permission::MediaWrite).await?;
    let by = &request.caller()?.actor;
    let created = super::create_upload(&tx, new, by, request.services.config.media_max_bytes).await;
    tx.settle(created).await
}

/// Looks for the bytes first, and holds no connection while the store is asked.
async fn complete(ctx: &Context<'_>, id: Uuid) -> Result<(Model, Uuid)> {
    let request = ctx.request();
    let tx = ctx.read(Permission::MediaWrite).await?;
    super::find(&tx, id).await?;
    drop(tx);
    request.end_reading().await?;
    let staging = Key::staging(&request.tenant, id);
    match request
        .services
        .store
        .objects()
        .head(staging.path())
        .await
        .map_err(Error::from)
    {
        Ok(_) => {}
        // An upload that was completed before is told so by the operation.
        Err(Error::NotFound(_)) => return Err(not_there(ctx, id).await),
        Err(error) => return Err(error),
    }
    let tx = ctx.write(Permission::MediaWrite).await?;
    let completed = super::complete_upload(&tx, id).await;
    tx.settle(completed).await
}

async fn not_there(ctx: &Context<'_>, id: Uuid) -> Error {
    let state = async {
        let tx = ctx.read(Permission::MediaWrite).await?;
        super::find(&tx, id).await
    };
    match state.await {
        Ok(media) if media.state == State::AwaitingUpload => Error::invalid(
            "mediaId",
            "Nothing was uploaded yet: PUT the bytes to the upload's url first.",
        ),
        Ok(_) => Error::invalid("mediaId", "This upload was completed already."),
        Err(error) => error,
    }
}

async fn upload_target(ctx: &Context<'_>, media: &Model) -> Result<UploadTarget> {
    let request = ctx.request();
    let key = Key::staging(&request.tenant, media.id);
    let mut headers = vec![HttpHeader {
        name: "Content-Type".to_owned(),
        value: media.content_type.clone(),
    }];
    let url = match request.services.store.signer() {
        Some(signer) => {
            headers.push(HttpHeader {
                name: "x-ms-blob-type".to_owned(),
                value: "BlockBlob".to_owned(),
            });
            signed(signer, http::Method::PUT, &key, MAX_LINK).await?
        }
        None => own_link(
            ctx,
            Method::Put,
            &key,
            &format!("/uploads/{}.bin", media.id),
            MAX_LINK,
        )?,
    };
    Ok(UploadTarget {
        url,
        method: "PUT".to_owned(),
        headers,
        expires_at: (request.services.database.clock().now() + Duration::seconds(MAX_LINK.into()))
            .into(),
    })
}

async fn read_link(
    ctx: &Context<'_>,
    (resource_type, id, ext): (&str, Uuid, &str),
    seconds: i32,
) -> Result<Url> {
    ctx.require(Permission::MediaRead)?;
    if !(1..=MAX_LINK).contains(&seconds) {
        return Err(Error::BadRequest(format!(
            "expiresIn must be from 1 to {MAX_LINK} seconds."
        )));
    }
    let request = ctx.request();
    let key = Key::new(&request.tenant, resource_type, id, ext);
    match request.services.store.signer() {
        Some(signer) => signed(signer, http::Method::GET, &key, seconds).await,
        None => own_link(
            ctx,
            Method::Get,
            &key,
            &format!("/media/{resource_type}/{id}.{ext}"),
            seconds,
        ),
    }
}

async fn signed(
    signer: &dyn object_store::signer::Signer,
    method: http::Method,
    key: &Key,
    seconds: i32,
) -> Result<Url> {
    let lifetime = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let url = signer.signed_url(method, key.path(), lifetime).await?;
    Ok(Url(url.to_string()))
}

fn own_link(ctx: &Context<'_>, method: Method, key: &Key, path: &str, seconds: i32) -> Result<Url> {
    let request = ctx.request();
    let services = &request.services;
    let expires = services.database.clock().now() + Duration::seconds(seconds.into());
    let host = host::parse(&request.authority)?;
    let query = sign::sign(&services.key, method, &host, key, expires);
    let scheme = services.config.scheme.as_str();
    Ok(Url(format!(
        "{scheme}://{}{path}?{query}",
        request.authority
    )))
}
