//! Every code that a client can be given: the one table behind both APIs and `docs/errors.md`.

use std::fmt::Write as _;

/// A kind of failure, as clients know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `extensions.code` of a GraphQL error, or `code` of a mutation's expected failure.
    pub code: &'static str,
    /// `code` of a problem of the REST routes (RFC 9457); none where they cannot fail so.
    pub problem: Option<&'static str>,
    /// Status of an answer that is nothing but this.
    pub status: u16,
    /// What happened.
    pub meaning: &'static str,
    /// What the client does about it.
    pub remedy: &'static str,
}

/// Each row is a constant, and one of [`KINDS`].
macro_rules! kinds {
    ($($name:ident = ($code:literal, $problem:expr, $status:literal, $meaning:literal, $remedy:literal);)+) => {
        $(
            #[doc = $meaning]
            pub const $name: Kind = Kind {
                code: $code,
                problem: $problem,
                status: $status,
                meaning: $meaning,
                remedy: $remedy,
            };
        )+

        /// All kinds, in the order of the reference.
        pub const KINDS: &[Kind] = &[$($name),+];
    };
}

#[rustfmt::skip]
kinds! {
    INVALID = ("INVALID", Some("invalid_request"), 400,
        "The input breaks a rule; `field` says where.", "Show the message, let the input be mended.");
    NOT_FOUND = ("NOT_FOUND", Some("not_found"), 404,
        "There is no such object: absent, of another type and of another tenant are one.", "Read the list again.");
    ALREADY_EXISTS = ("ALREADY_EXISTS", Some("conflict"), 409,
        "Something of this name is there already.", "Choose another name.");
    VERSION_CONFLICT = ("VERSION_CONFLICT", Some("conflict"), 409,
        "It was changed since the version that `ifVersion` names, or since the change that is to be taken back; \
         `currentVersion` is there now.",
        "Read it again and repeat the change.");
    EXPIRED = ("EXPIRED", Some("expired"), 410,
        "The link, upload or token had its time.", "Ask for a new one.");
    QUOTA_EXCEEDED = ("QUOTA_EXCEEDED", Some("quota_exceeded"), 403,
        "It would go over a limit of the tenant's; `quota` says which.", "Remove something, or ask for a larger plan.");
    TOO_LARGE = ("TOO_LARGE", Some("too_large"), 413,
        "Larger than is allowed; the message has the limit in bytes.", "Send less.");
    UNSUPPORTED_MEDIA_TYPE = ("UNSUPPORTED_MEDIA_TYPE", Some("unsupported_media_type"), 415,
        "Of a type, or in a coding, that is not taken.", "Send what the message names, without Content-Encoding.");
    FORBIDDEN = ("FORBIDDEN", Some("forbidden"), 403,
        "The caller lacks the permission that the message names.", "Hide the action, or ask for the permission.");
    FOREIGN_ORIGIN = ("FOREIGN_ORIGIN", Some("forbidden"), 403,
        "A page of an origin that is not listed opens a WebSocket.", "List the origin in `allowed_origins`.");
    NO_CREDENTIAL = ("UNAUTHENTICATED", Some("no_credential"), 401,
        "It needs a credential, and none was sent.", "Sign in, and send `Authorization: Bearer <token>`.");
    INVALID_CREDENTIALS = ("UNAUTHENTICATED", Some("invalid_credentials"), 401,
        "Unknown name or wrong secret: one answer for both.", "Ask for the credentials again.");
    TOKEN_EXPIRED = ("UNAUTHENTICATED", Some("token_expired"), 401,
        "The token had its time.", "Sign in again.");
    TOKEN_REVOKED = ("UNAUTHENTICATED", Some("token_revoked"), 401,
        "The token is unknown here or was revoked.", "Sign in again.");
    DEVICE_DISABLED = ("UNAUTHENTICATED", Some("device_disabled"), 403,
        "The PIN is right, but the device is switched off.", "Wait until a member enables it.");
    TENANT_NOT_FOUND = ("TENANT_NOT_FOUND", Some("tenant_not_found"), 404,
        "No tenant is served at this host.", "Check the host name.");
    TENANT_SUSPENDED = ("TENANT_SUSPENDED", Some("tenant_suspended"), 403,
        "The tenant is suspended, its data are kept. Only its own people are told.", "Ask its operator.");
    TENANT_UPGRADING = ("TENANT_UPGRADING", Some("tenant_upgrading"), 503,
        "The tenant's schema is being brought up to date.", "Try again after `Retry-After`, `retryAfter` in GraphQL.");
    BAD_USER_INPUT = ("BAD_USER_INPUT", Some("invalid_request"), 400,
        "The request, a variable or an argument is not what is asked for, or cannot be stored.",
        "Mend the request: the message says what is wrong.");
    NOT_ACCEPTABLE = ("NOT_ACCEPTABLE", None, 406,
        "`Accept` names no type that is answered in.",
        "Accept `application/graphql-response+json` or `application/json`.");
    METHOD_NOT_ALLOWED = ("METHOD_NOT_ALLOWED", Some("method_not_allowed"), 405,
        "This method is not for this: a mutation by GET, say.", "Use a method that `Allow` names.");
    REQUEST_TIMEOUT = ("REQUEST_TIMEOUT", Some("request_timeout"), 408,
        "The body of the request did not come in time.", "Send it again.");
    GRAPHQL_PARSE_FAILED = ("GRAPHQL_PARSE_FAILED", None, 400,
        "The document is no GraphQL.", "Mend the document.");
    GRAPHQL_VALIDATION_FAILED = ("GRAPHQL_VALIDATION_FAILED", None, 400,
        "The document does not fit the schema, or does not have the operation that is asked for.",
        "Check the document against the schema.");
    QUERY_LIMIT_EXCEEDED = ("QUERY_LIMIT_EXCEEDED", None, 400,
        "The document is larger than is allowed: `limit`, `max` and `actual` say how.", "Ask for less at once.");
    PERSISTED_QUERY_NOT_FOUND = ("PERSISTED_QUERY_NOT_FOUND", None, 400,
        "No document is known by this id or hash.",
        "Automatic persisted queries: send text and hash once more. Trusted documents: publish the manifest.");
    PERSISTED_QUERY_NOT_SUPPORTED = ("PERSISTED_QUERY_NOT_SUPPORTED", None, 400,
        "An id or hash alone was sent, and this server keeps no documents.", "Send the document's text.");
    DOCUMENT_NOT_TRUSTED = ("DOCUMENT_NOT_TRUSTED", None, 400,
        "Only the documents of the server's manifest are executed, and by their ids.", "Send `documentId`.");
    KEY_IN_USE = ("CONFLICT", None, 409,
        "A mutation with this `Idempotency-Key` is under way.", "Send it again after `Retry-After`, `retryAfter` in GraphQL, for its answer.");
    KEY_REUSED = ("CONFLICT", None, 422,
        "Something else was sent with this `Idempotency-Key`.", "Use a new key for each mutation.");
    RATE_LIMITED = ("RATE_LIMITED", Some("rate_limited"), 429,
        "Too many requests or attempts.", "Try again after `Retry-After`, `retryAfter` in GraphQL.");
    OPERATION_TIMEOUT = ("OPERATION_TIMEOUT", Some("unavailable"), 503,
        "It took too long and was stopped. What a mutation was to change may be changed all the same.",
        "Ask for less at once. A mutation: look whether it was done, or send it again with its `Idempotency-Key`.");
    UNAVAILABLE = ("UNAVAILABLE", Some("unavailable"), 503,
        "PostgreSQL or a connection to it cannot be had just now.", "Try again after `Retry-After`, `retryAfter` in GraphQL.");
    TOO_SLOW = ("TOO_SLOW", Some("unavailable"), 503,
        "What is followed came faster than it was read; the subscription is over.", "Subscribe again, read faster.");
    INTERNAL = ("INTERNAL", Some("internal"), 500,
        "Something went wrong on our side. The log has it under the request's id.",
        "Report `requestId`, `X-Request-Id` of the answer.");
}

/// The reference in Markdown; `as_data` says which codes mutations give as data.
pub fn reference(as_data: impl Fn(&str) -> bool) -> String {
    let mut page = String::from(INTRODUCTION);
    for kind in KINDS {
        let data = if as_data(kind.code) { "yes" } else { "" };
        let problem = kind
            .problem
            .map(|code| format!("`{code}`"))
            .unwrap_or_default();
        // Writing into a String cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | {data} | {problem} | {} | {} | {} |",
            kind.code, kind.status, kind.meaning, kind.remedy
        );
    }
    page
}

const INTRODUCTION: &str = "\
<!-- Made by `bulkhead errors`; do not edit. -->
# Errors

Codes are stable; messages are for people and may change.

- **GraphQL.** A failure that a mutation expects is data, in `errors` of its payload, with `code`, `message` and `field` (the
  column *as data*). Everything else is in the top-level `errors`, with the code in `extensions.code` and, for a field that
  failed, its `path`. A request that was not executed has no `data`.
- **REST.** `application/problem+json` (RFC 9457) with `code`.
- **Status** is that of an answer that is nothing but this error. A field that fails leaves the status 200. Documents and
  variables that are refused are 200 too where `application/json` is accepted, 400 for `application/graphql-response+json`.
- 401 comes with `WWW-Authenticate: Bearer`, 429 and 503 with `Retry-After`, 405 with `Allow`. Every answer has `X-Request-Id`.

| GraphQL code | as data | REST code | status | meaning | what to do |
|---|---|---|---|---|---|
";
