//! The type `Media`, and the two halves of an upload.

use super::NewUpload;
use super::exports::is_export;
use super::jobs::SIZES;
use super::links::{UploadTarget, read_link, upload_target};
use super::list::{self, MediaFilter, place};
use super::store::{EXPORTS, Key, MAX_LINK, THUMBNAIL};
use crate::actor::Actor;
use crate::clock::Timestamp;
use crate::database::TenantTx;
use crate::error::{Error, Result};
use crate::graphql::{
    ByteSize, ContextExt as _, Cursor, DateTime, Id, Kind, PageArgs, Total, Url, UserError,
    expected, follow, global_id, load_row_at, rows, rows_of, until_error,
};
use crate::history::{self, as_of, graphql::Change};
use crate::identity::ActorObject;
use crate::jobs::graphql::Job;
use crate::permission::Permission;
use async_graphql::connection::Connection;
use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject, Subscription};
use entity::tenant::media::{Column, Entity, Model, State};
use futures::{FutureExt as _, Stream, TryStreamExt as _};
use object_store::ObjectStoreExt as _;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};
use uuid::Uuid;

/// Where a media is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "State")]
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

/// A file of the tenant: uploaded, or written by a job. Exports of the trail are there for a week, for those alone who have
/// AUDIT_READ.
#[derive(Clone, Debug)]
pub struct Media {
    row: Model,
    /// The moment that it is shown as of; none is now.
    at: Option<Timestamp>,
}

impl From<Model> for Media {
    fn from(row: Model) -> Self {
        Self { row, at: None }
    }
}

impl Kind for Media {
    const NAME: &'static str = "Media";
}

/// A file of the tenant: uploaded, or written by a job. Exports of the trail are there for a week, for those alone who have
/// AUDIT_READ.
#[Object]
impl Media {
    /// Opaque, globally unique.
    pub async fn id(&self) -> ID {
        global_id::<Self>(self.row.id)
    }

    /// As the uploader called it.
    async fn filename(&self) -> &str {
        &self.row.filename
    }

    /// Sniffed from the bytes, not believed from the client.
    async fn content_type(&self) -> &str {
        &self.row.content_type
    }

    /// Bytes.
    async fn size(&self) -> ByteSize {
        ByteSize(self.row.size)
    }

    /// Hexadecimal.
    async fn sha256(&self) -> Option<&str> {
        self.row.sha256.as_deref()
    }

    /// Where it is in its life.
    async fn state(&self) -> MediaState {
        self.row.state.into()
    }

    /// Why it is FAILED.
    async fn failure(&self) -> Option<&str> {
        self.row.failure.as_deref()
    }

    /// First folder under the tenant's prefix: {tenant-slug}/{resourceType}/{uuid}.{ext}.
    async fn resource_type(&self) -> &str {
        &self.row.resource_type
    }

    /// Who uploaded it.
    async fn uploaded_by(&self, ctx: &Context<'_>) -> Result<ActorObject> {
        ActorObject::parse_at(ctx, &self.row.uploaded_by, self.at).await
    }

    /// Short-lived signed link, one hour at most. Null until READY.
    async fn url(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 3600, desc = "Seconds that it works for, 1 to 3600.")] expires_in: i32,
    ) -> Result<Option<Url>> {
        let Some(ext) = self
            .row
            .ext
            .as_deref()
            .filter(|_| self.row.state == State::Ready)
        else {
            return Ok(None);
        };
        read_link(ctx, (&self.row.resource_type, self.row.id, ext), expires_in)
            .await
            .map(Some)
    }

    /// The same for a thumbnail. Null until READY, and for what is no image.
    async fn thumbnail(
        &self,
        ctx: &Context<'_>,
        #[graphql(default_with = "ThumbnailSize::Medium", desc = "How large.")] size: ThumbnailSize,
    ) -> Result<Option<Url>> {
        let Some(ext) = self
            .row
            .thumbnail_ext
            .as_deref()
            .filter(|_| self.row.state == State::Ready)
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
            (&format!("{THUMBNAIL}{name}"), self.row.id, ext),
            MAX_LINK,
        )
        .await
        .map(Some)
    }

    /// When it was made.
    async fn created_at(&self) -> DateTime {
        self.row.created_at.into()
    }

    /// When it was last changed.
    async fn updated_at(&self) -> DateTime {
        self.row.updated_at.into()
    }

    /// Bumped by every write.
    async fn version(&self) -> i32 {
        self.row.version
    }

    /// Every recorded change of this object, newest first.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the arguments of the field"
    )]
    async fn history(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Rows from the beginning, at most 100; 20 if last is not given either.")]
        first: Option<i32>,
        #[graphql(desc = "After the row of this cursor.")] after: Option<String>,
        #[graphql(desc = "Rows from the end, at most 100.")] last: Option<i32>,
        #[graphql(desc = "Before the row of this cursor.")] before: Option<String>,
    ) -> Result<Connection<Cursor, Change>> {
        let page = PageArgs {
            first,
            after,
            last,
            before,
        };
        Change::of(ctx, (self.row.id, self.at), page).await
    }
}

impl Media {
    /// The media with this id, if it is the tenant's.
    pub async fn find(ctx: &Context<'_>, id: Uuid) -> Result<Option<Self>> {
        ctx.require(Permission::MediaRead)?;
        Self::find_at(ctx, id, None).await
    }

    /// The same as it was at a moment, if there is one.
    pub async fn find_at(
        ctx: &Context<'_>,
        id: Uuid,
        at: Option<Timestamp>,
    ) -> Result<Option<Self>> {
        let row = load_row_at::<Entity>(ctx, id, at).await?;
        let row = row.filter(|row| is_shown(ctx, row));
        Ok(row.map(|row| Self { row, at }))
    }

    /// A page of the tenant's media, now or as of a moment, newest first.
    pub async fn page(
        ctx: &Context<'_>,
        page: PageArgs,
        filter: Option<MediaFilter>,
        at: Option<Timestamp>,
    ) -> Result<Connection<Cursor, Self, Total>> {
        ctx.require_past(at)?;
        let tx = ctx.read(Permission::MediaRead).await?;
        let page = page.of(list::NEWEST)?;
        let mut select = filter.unwrap_or_default().select()?;
        if !shows_exports(ctx) {
            select = select.filter(Column::ResourceType.ne(EXPORTS));
        }
        let select = as_of(select, at);
        let fetch = |slice| rows(&tx, select.clone(), slice).boxed();
        let found = page.fetch(ctx, place, fetch).await?;
        Ok(found.with_fields(Total::of(select), |row| Self { row, at }))
    }

    /// A page of what somebody uploaded, now or as of a moment, newest first.
    pub async fn of_uploader(
        ctx: &Context<'_>,
        (actor, at): (&Actor, Option<Timestamp>),
        page: PageArgs,
    ) -> Result<Connection<Cursor, Self, Total>> {
        ctx.require(Permission::MediaRead)?;
        let page = page.of(list::UPLOADED)?;
        let by = actor.to_string();
        let fetch = |slice| rows_of::<Entity>(ctx, (by.clone(), at), slice).boxed();
        let found = page.fetch(ctx, place, fetch).await?;
        let all = as_of(Entity::find().filter(Column::UploadedBy.eq(by)), at);
        Ok(found.with_fields(Total::of(all), |row| Self { row, at }))
    }
}

/// Whether the caller sees exports of the trail: who may read that.
fn shows_exports(ctx: &Context<'_>) -> bool {
    let caller = ctx.request().caller();
    caller.is_ok_and(|caller| caller.require(Permission::AuditRead).is_ok())
}

/// Whether the caller sees this media. One that they do not is as one that is not there.
fn is_shown(ctx: &Context<'_>, media: &Model) -> bool {
    !is_export(media) || shows_exports(ctx)
}

async fn find_shown(ctx: &Context<'_>, tx: &TenantTx, id: Uuid) -> Result<Model> {
    let media = super::find(tx, id).await?;
    if is_shown(ctx, &media) {
        Ok(media)
    } else {
        Err(Error::NotFound("media"))
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
        #[graphql(desc = "What is going to be uploaded.")] input: MediaCreateUploadInput,
    ) -> Result<MediaCreateUploadPayload> {
        let (created, errors) = expected(create(ctx, input).await)?;
        let (media, upload) = created.unzip();
        Ok(MediaCreateUploadPayload {
            media: media.map(Media::from),
            upload,
            errors,
        })
    }

    /// Says that the bytes were sent; a job checks them.
    async fn media_complete_upload(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which upload.")] input: MediaCompleteUploadInput,
    ) -> Result<MediaCompleteUploadPayload> {
        let (completed, errors) = expected(complete(ctx, input.media_id.uuid()).await)?;
        let (media, job) = completed.unzip();
        Ok(MediaCompleteUploadPayload {
            media: media.map(Media::from),
            job: job.flatten(),
            errors,
        })
    }
}

/// Root fields for following.
#[derive(Debug, Default)]
pub struct Subscription;

/// Root fields for following.
#[Subscription(name = "MediaSubscription")]
impl Subscription {
    /// The media as it is after each change of it, in order.
    async fn media_updated(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which.")] media_id: Id<Media>,
    ) -> Result<impl Stream<Item = async_graphql::Result<Media>>> {
        let changes = follow(ctx, Permission::MediaRead).await?;
        let id = media_id.uuid();
        let tx = ctx.read(Permission::MediaRead).await?;
        find_shown(ctx, &tx, id).await?;
        drop(tx);
        ctx.request().end_reading().await?;
        Ok(until_error(
            history::rows::<Model>(changes, "media", Some(id)).map_ok(Media::from),
        ))
    }
}

/// Whatever its answer needs is there before it is committed.
async fn create(ctx: &Context<'_>, input: MediaCreateUploadInput) -> Result<(Model, UploadTarget)> {
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
    let max = request.services.config.media_max_bytes;
    let created = async {
        let media = super::create_upload(&tx, new, by, max).await?;
        let target = upload_target(ctx, &media).await?;
        Ok((media, target))
    };
    let created = created.await;
    tx.settle(created).await
}

/// Looks for the bytes first, and holds no connection while the store is asked. Whatever its answer needs is there before it
/// is committed.
async fn complete(ctx: &Context<'_>, id: Uuid) -> Result<(Model, Option<Job>)> {
    let request = ctx.request();
    let tx = ctx.read(Permission::MediaWrite).await?;
    find_shown(ctx, &tx, id).await?;
    drop(tx);
    request.end_reading().await?;
    let staging = Key::staging(&request.tenant, id);
    let head = request.services.store.objects().head(staging.path());
    let head = request.in_time(head).await?;
    let bytes = match head.map_err(Error::from) {
        Ok(there) => there.size,
        // An upload that was completed before is told so by the operation.
        Err(Error::NotFound(_)) => return Err(not_there(ctx, id).await),
        Err(error) => return Err(error),
    };
    let tx = ctx.write(Permission::MediaWrite).await?;
    let completed = async {
        let (media, job) = super::complete_upload(&tx, id, bytes).await?;
        Ok((media, Job::within(&tx, job).await?))
    };
    let completed = completed.await;
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
