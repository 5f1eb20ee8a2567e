//! Our own signed routes, for stores that cannot sign: bytes in by PUT, out by GET.

use super::exports::is_export;
use super::sign::{self, Method, Signature};
use super::store::{EXPORTS, Key, STAGING, THUMBNAIL};
use super::{find, is_resource_type, kinds};
use crate::database::Tenant;
use crate::error::{Denial, Error, Result};
use crate::services::Services;
use crate::tenancy::host::Authority;
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, FromRequestParts, Path, Query, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, put};
use entity::platform::tenant::State as TenantState;
use entity::tenant::media;
use futures::StreamExt as _;
use object_store::{ObjectStoreExt as _, WriteMultipart};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
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
    Extension(authority): Extension<Authority>,
    signature: Signed,
) -> Result<impl IntoResponse> {
    let Path((resource_type, file)) = path.map_err(|_| Error::NotFound("file"))?;
    let (id, ext) = name(&file)?;
    let signature = signature.at(&format!("/media/{resource_type}/{file}"))?;
    let size = resource_type.strip_prefix(THUMBNAIL);
    if size.is_none() && resource_type != EXPORTS && !is_resource_type(&resource_type) {
        return Err(Error::NotFound("file"));
    }
    let key = Key::new(&tenant, &resource_type, id, ext);
    let link = (&signature, services.database.clock().now());
    sign::verify(&services.key, Method::Get, authority.host(), &key, link)?;
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
    let patience = services.config.http_limits.body_time();
    let object = services.store.objects().get(key.path());
    let object = in_time(patience, object).await?;
    let kind = kinds::by_ext(ext).ok_or(Error::NotFound("file"))?;
    let keep = if is_export(&media) {
        "no-store"
    } else {
        "private, max-age=3600, immutable"
    };
    let headers = [
        (CONTENT_TYPE, kind.mime.to_owned()),
        (CONTENT_LENGTH, object.meta.size.to_string()),
        (
            CONTENT_DISPOSITION,
            kinds::disposition(kind, &media.filename),
        ),
        (CACHE_CONTROL, keep.to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; sandbox".to_owned(),
        ),
        // The link is what allows it: pages of other origins show it too.
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "cross-origin".to_owned(),
        ),
    ];
    Ok((headers, Body::from_stream(object.into_stream())))
}

/// The bytes of an upload that waits for them. They count only when the upload is completed.
async fn upload(
    State(services): State<Arc<Services>>,
    (Extension(tenant), Extension(authority)): (Extension<Arc<Tenant>>, Extension<Authority>),
    (path, signature): (FilePath<String>, Signed),
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode> {
    let Path(file) = path.map_err(|_| Error::NotFound("file"))?;
    let (id, ext) = name(&file)?;
    let signature = signature.at(&format!("/uploads/{file}"))?;
    let key = Key::new(&tenant, STAGING, id, ext);
    let link = (&signature, services.database.clock().now());
    sign::verify(&services.key, Method::Put, authority.host(), &key, link)?;
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
    let patience = services.config.http_limits.body_time();
    let parts = services.store.objects().put_multipart(key.path());
    let parts = in_time(patience, parts).await?;
    let parts = receive(WriteMultipart::new(parts), body, (size, patience)).await?;
    // Bytes may take long: a tenant that was deleted meanwhile gets none.
    let now = services.registry.get(tenant.id).await;
    if !now.is_ok_and(|now| now.state == TenantState::Active) {
        in_time(patience, parts.abort()).await?;
        return Err(Error::TenantNotFound);
    }
    in_time(patience, parts.finish()).await?;
    Ok(StatusCode::CREATED)
}

/// Takes exactly `size` bytes, or nothing; they are there once the parts are finished. Many take long: it is between two of
/// them that patience ends.
async fn receive(
    mut parts: WriteMultipart,
    body: Body,
    (size, patience): (u64, Duration),
) -> Result<WriteMultipart> {
    let mut stream = body.into_data_stream();
    let mut received = 0_u64;
    loop {
        let Ok(chunk) = timeout(patience, stream.next()).await else {
            in_time(patience, parts.abort()).await?;
            return Err(Error::SlowBody);
        };
        let Some(chunk) = chunk else { break };
        let Ok(chunk) = chunk else {
            in_time(patience, parts.abort()).await?;
            return Err(Error::BadRequest(
                "The upload was cut short; send it again.".to_owned(),
            ));
        };
        received += chunk.len() as u64;
        if received > size {
            in_time(patience, parts.abort()).await?;
            return Err(Error::TooLarge(size));
        }
        in_time(patience, parts.wait_for_capacity(4)).await?;
        parts.put(chunk);
    }
    if received < size {
        in_time(patience, parts.abort()).await?;
        return Err(Error::BadRequest(format!(
            "The upload has {received} bytes of {size}; send it again."
        )));
    }
    Ok(parts)
}

/// What the store says, if it does so within the time that a client has for the next part of a body.
async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = object_store::Result<T>>,
) -> Result<T> {
    let Ok(said) = timeout(patience, work).await else {
        tracing::error!("the media store does not answer");
        return Err(Error::Unavailable);
    };
    Ok(said?)
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
