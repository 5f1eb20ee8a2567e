//! Our own signed routes, for stores that cannot sign: bytes in by PUT, out by GET.

use super::sign::{self, Method, Signature};
use super::store::{Key, STAGING, THUMBNAIL};
use super::{find, is_resource_type, kinds};
use crate::database::Tenant;
use crate::error::{Denial, Error, Result};
use crate::services::Services;
use crate::tenancy::host;
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, FromRequestParts, Path, Query, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    HOST, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, put};
use entity::tenant::media;
use futures::StreamExt as _;
use object_store::{ObjectStoreExt as _, WriteMultipart};
use std::convert::Infallible;
use std::sync::Arc;
use uuid::Uuid;

/// A path of a link; one that cannot be read is no file of ours.
type FilePath<T> = Result<Path<T>, PathRejection>;

/// The routes.
pub fn routes() -> Router<Arc<Services>> {
    Router::new()
        .route("/media/{resource_type}/{file}", get(download))
        .route("/uploads/{file}", put(upload))
}

/// An object of the tenant, if the link allows it.
async fn download(
    State(services): State<Arc<Services>>,
    Extension(tenant): Extension<Arc<Tenant>>,
    path: FilePath<(String, String)>,
    signature: Signed,
    headers: HeaderMap,
) -> Result<impl IntoResponse> {
    let Path((resource_type, file)) = path.map_err(|_| Error::NotFound("file"))?;
    let (id, ext) = name(&file)?;
    let signature = signature.at(&format!("/media/{resource_type}/{file}"))?;
    let size = resource_type.strip_prefix(THUMBNAIL);
    if size.is_none() && !is_resource_type(&resource_type) {
        return Err(Error::NotFound("file"));
    }
    let key = Key::new(&tenant, &resource_type, id, ext);
    let link = (&signature, services.database.clock().now());
    sign::verify(&services.key, Method::Get, &host_of(&headers)?, &key, link)?;
    let tx = services.database.read(&tenant).await?;
    let found = find(&tx, id).await;
    let media = tx.settle(found).await?;
    let wanted = if size.is_some() {
        &media.thumbnail_ext
    } else {
        &media.ext
    };
    if media.state != media::State::Ready || wanted.as_deref() != Some(ext) {
        return Err(Error::NotFound("file"));
    }
    let object = services.store.objects().get(key.path()).await?;
    let kind = kinds::by_ext(ext).ok_or(Error::NotFound("file"))?;
    let headers = [
        (CONTENT_TYPE, kind.mime.to_owned()),
        (CONTENT_LENGTH, object.meta.size.to_string()),
        (
            CONTENT_DISPOSITION,
            kinds::disposition(kind, &media.filename),
        ),
        (CACHE_CONTROL, "private, max-age=3600, immutable".to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; sandbox".to_owned(),
        ),
    ];
    Ok((headers, Body::from_stream(object.into_stream())))
}

/// The bytes of an upload that waits for them. They count only when the upload is completed.
async fn upload(
    State(services): State<Arc<Services>>,
    Extension(tenant): Extension<Arc<Tenant>>,
    (path, signature): (FilePath<String>, Signed),
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode> {
    let Path(file) = path.map_err(|_| Error::NotFound("file"))?;
    let (id, ext) = name(&file)?;
    let signature = signature.at(&format!("/uploads/{file}"))?;
    let key = Key::new(&tenant, STAGING, id, ext);
    let link = (&signature, services.database.clock().now());
    sign::verify(&services.key, Method::Put, &host_of(&headers)?, &key, link)?;
    let tx = services.database.read(&tenant).await?;
    let found = find(&tx, id).await;
    let media = tx.settle(found).await?;
    if media.state != media::State::AwaitingUpload {
        return Err(Error::Expired("upload link"));
    }
    let size = u64::try_from(media.size).unwrap_or_default();
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > size) {
        return Err(Error::TooLarge(size));
    }
    let parts = services.store.objects().put_multipart(key.path()).await?;
    receive(WriteMultipart::new(parts), body, size).await?;
    Ok(StatusCode::CREATED)
}

/// Takes exactly `size` bytes, or nothing.
async fn receive(mut parts: WriteMultipart, body: Body, size: u64) -> Result<()> {
    let mut stream = body.into_data_stream();
    let mut received = 0_u64;
    while let Some(chunk) = stream.next().await {
        let Ok(chunk) = chunk else {
            parts.abort().await?;
            return Err(Error::BadRequest(
                "The upload was cut short; send it again.".to_owned(),
            ));
        };
        received += chunk.len() as u64;
        if received > size {
            parts.abort().await?;
            return Err(Error::TooLarge(size));
        }
        parts.wait_for_capacity(4).await?;
        parts.put(chunk);
    }
    if received < size {
        parts.abort().await?;
        return Err(Error::BadRequest(format!(
            "The upload has {received} bytes of {size}; send it again."
        )));
    }
    parts.finish().await?;
    Ok(())
}

/// The signature of a request, and the path as it was sent.
struct Signed {
    path: String,
    signature: Option<Signature>,
}

impl<S: Send + Sync> FromRequestParts<S> for Signed {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let signature = Query::try_from_uri(&parts.uri);
        Ok(Self {
            path: parts.uri.path().to_owned(),
            signature: signature.ok().map(|Query(signature)| signature),
        })
    }
}

impl Signed {
    /// The signature, if the path is spelt as in the links that we make: nothing escaped that need not be.
    fn at(self, path: &str) -> Result<Signature> {
        if self.path != path {
            return Err(Error::NotFound("file"));
        }
        self.signature
            .ok_or(Error::Unauthenticated(Denial::InvalidCredentials))
    }
}

/// `<uuid>.<ext>` in its one spelling; anything else is no file of ours.
fn name(file: &str) -> Result<(Uuid, &str)> {
    let (stem, ext) = file.split_once('.').ok_or(Error::NotFound("file"))?;
    let id = Uuid::parse_str(stem).map_err(|_| Error::NotFound("file"))?;
    let canonical = id.to_string() == stem
        && ext
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if canonical {
        Ok((id, ext))
    } else {
        Err(Error::NotFound("file"))
    }
}

fn host_of(headers: &HeaderMap) -> Result<String> {
    let authority = headers
        .get(HOST)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    host::parse(authority)
}
