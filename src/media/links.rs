//! Links: where the bytes of a media go, and where they are read. The store signs them if it can, else we do.

use super::sign::{self, Method};
use super::store::{EXPORTS, Key, MAX_LINK};
use crate::error::{Error, Result};
use crate::graphql::{ContextExt as _, DateTime, Url};
use crate::history::Note;
use crate::permission::Permission;
use async_graphql::{Context, SimpleObject};
use axum::http;
use chrono::Duration;
use entity::tenant::media::Model;
use uuid::Uuid;

/// Where to send the bytes. PUT the body to `url` with exactly these headers.
#[derive(Debug, SimpleObject)]
pub(super) struct UploadTarget {
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
pub(super) struct HttpHeader {
    /// Its name.
    name: String,
    /// Its value.
    value: String,
}

/// Where the bytes of an upload go, for an hour.
pub(super) async fn upload_target(ctx: &Context<'_>, media: &Model) -> Result<UploadTarget> {
    let request = ctx.request();
    request.note(Note::Upload(media.id));
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
        ),
    };
    Ok(UploadTarget {
        url,
        method: "PUT".to_owned(),
        headers,
        expires_at: (request.services.database.clock().now() + Duration::seconds(MAX_LINK.into()))
            .into(),
    })
}

/// Where an object of the tenant can be read, for so many seconds.
pub(super) async fn read_link(
    ctx: &Context<'_>,
    (resource_type, id, ext): (&str, Uuid, &str),
    seconds: i32,
) -> Result<Url> {
    ctx.require(Permission::MediaRead)?;
    if resource_type == EXPORTS {
        ctx.require(Permission::AuditRead)?;
    }
    if !(1..=MAX_LINK).contains(&seconds) {
        return Err(Error::BadRequest(format!(
            "expiresIn must be from 1 to {MAX_LINK} seconds."
        )));
    }
    let request = ctx.request();
    request.note(Note::Download(id));
    let key = Key::new(&request.tenant, resource_type, id, ext);
    match request.services.store.signer() {
        Some(signer) => signed(signer, http::Method::GET, &key, seconds).await,
        None => Ok(own_link(
            ctx,
            Method::Get,
            &key,
            &format!("/media/{resource_type}/{id}.{ext}"),
            seconds,
        )),
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

fn own_link(ctx: &Context<'_>, method: Method, key: &Key, path: &str, seconds: i32) -> Url {
    let request = ctx.request();
    let services = &request.services;
    let expires = services.database.clock().now() + Duration::seconds(seconds.into());
    let host = request.authority.host();
    let query = sign::sign(&services.key, method, host, key, expires);
    let scheme = services.config.scheme.as_str();
    Url(format!("{scheme}://{}{path}?{query}", request.authority))
}
