//! The playground's page and its files: built, named by what is in them and compressed before they came here.

use crate::console::Playground;
use crate::error::Error;
use crate::secret::hex;
use axum::extract::Path;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};

/// The strictest policy under which the editor works: nothing from elsewhere, no inline script. The editor sets styles of
/// its own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");

const PAGE: &str = "index.html";
/// The one other file whose name does not change with what is in it.
const LICENSES: &str = "licenses.md";

/// What a file is kept as besides itself, the smallest first, and what its name ends in then.
const ENCODINGS: [(&str, &str); 2] = [("br", ".br"), ("gzip", ".gz")];

/// Whether a page is what the client takes: browsers do.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    list(headers, &ACCEPT).any(|media| media.starts_with("text/html"))
}

/// The page.
pub(super) fn page(headers: &HeaderMap) -> Response {
    let mut response = file(PAGE, headers);
    response.headers_mut().append(VARY, ACCEPT.into());
    response
}

/// One of its files.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let is_internal = name == PAGE || ENCODINGS.iter().any(|(_, ending)| name.ends_with(ending));
    if is_internal {
        return Error::NotFound("file").into_response();
    }
    file(&name, &headers)
}

/// A file in the smallest form that the client takes, unless it has that already (RFC 9110 §13.1.2).
fn file(name: &str, headers: &HeaderMap) -> Response {
    let packed = ENCODINGS
        .iter()
        .filter(|(encoding, _)| accepts(headers, encoding))
        .find_map(|(encoding, ending)| {
            Some((
                Playground::get(&format!("{name}{ending}"))?,
                Some(*encoding),
            ))
        });
    let Some((file, encoding)) = packed.or_else(|| Some((Playground::get(name)?, None))) else {
        return Error::NotFound("file").into_response();
    };
    let tag = format!("\"{}\"", &hex(&file.metadata.sha256_hash())[..32]);
    let known = list(headers, &IF_NONE_MATCH).any(|known| known == tag || known == "*");
    let caching = [
        (CACHE_CONTROL, cache(name).to_owned()),
        (ETAG, tag),
        (VARY, ACCEPT_ENCODING.to_string()),
    ];
    if known {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    let content = [
        (CONTENT_TYPE, media_type(name)),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CROSS_ORIGIN_OPENER_POLICY, "same-origin"),
    ];
    let encoding = encoding.map(|encoding| [(CONTENT_ENCODING, encoding)]);
    (caching, content, encoding, file.data).into_response()
}

/// How long it may be used without asking: for ever, where the name holds a hash of it.
fn cache(name: &str) -> &'static str {
    match name {
        PAGE | LICENSES => "no-cache",
        _ => "public, max-age=31536000, immutable",
    }
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ext)| ext) {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("html") => "text/html; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("ttf") => "font/ttf",
        Some("md") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Whether the client takes an encoding (RFC 9110 §12.5.3): it is named, or meant by `*`, and does not weigh nothing.
fn accepts(headers: &HeaderMap, encoding: &str) -> bool {
    let weight = |wanted: &str| {
        list(headers, &ACCEPT_ENCODING).find_map(|item| {
            let (name, weight) = item.split_once(';').unwrap_or((item, "q=1"));
            let weight = weight.trim().strip_prefix("q=").unwrap_or("");
            name.trim()
                .eq_ignore_ascii_case(wanted)
                .then(|| weight.parse().unwrap_or(0.0))
        })
    };
    let weight: Option<f32> = weight(encoding).or_else(|| weight("*"));
    weight.is_some_and(|weight| weight > 0.0)
}

/// The items of a header that is a list.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}
