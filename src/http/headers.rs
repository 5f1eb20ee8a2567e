//! How answers are sent, and what they tell browsers: security headers, CORS, compression.

use crate::config::{Config, Scheme};
use crate::graphql::IDEMPOTENCY_REPLAYED;
use crate::rates::{RATELIMIT, RATELIMIT_POLICY};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use std::time::Duration;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// For what is no page: nothing may be loaded, run or framed.
const POLICY: &str =
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// How long a browser may remember what an origin may do.
const PREFLIGHT: Duration = Duration::from_hours(1);
/// Bytes from which an answer is compressed: below, it is one packet either way.
const WORTH_COMPRESSING: u16 = 1400;
/// Types that get much smaller. What is stored in a format of its own is left alone.
const COMPRESSED: [&str; 5] = [
    "application/json",
    "application/graphql-response",
    "application/problem",
    "text/",
    "image/svg",
];

/// What browsers are told about every answer, unless its handler knows better: it is no page, and nobody's but our own.
pub(super) fn secure(headers: &mut HeaderMap, scheme: Scheme) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let defaults = [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
    ];
    for (name, value) in defaults {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if scheme == Scheme::Https {
        // Not for the subdomains: those of a tenant's own domain are not ours.
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(STRICT_TRANSPORT_SECURITY, year);
    }
}

/// Lets the pages of the configured origins use the API; without any there is no such layer.
pub(super) fn cors(config: &Config) -> Option<CorsLayer> {
    let origins = &config.allowed_origins;
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse().ok()))
    };
    let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods(methods)
        .allow_headers(AllowHeaders::mirror_request())
        .allow_credentials(config.cors_credentials)
        .expose_headers([
            X_REQUEST_ID,
            RETRY_AFTER,
            RATELIMIT,
            RATELIMIT_POLICY,
            IDEMPOTENCY_REPLAYED,
        ])
        .max_age(PREFLIGHT);
    Some(layer)
}

/// Compresses texts that are worth it.
pub(super) fn compression() -> CompressionLayer<impl Predicate> {
    let worth_it = |_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions| {
        let kind = headers
            .get(CONTENT_TYPE)
            .map_or(&b""[..], HeaderValue::as_bytes);
        // An event must not wait for the next one.
        !kind.starts_with(b"text/event-stream")
            && COMPRESSED
                .iter()
                .any(|text| kind.starts_with(text.as_bytes()))
    };
    CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(WORTH_COMPRESSING).and(worth_it))
}
