//! The front door: one GraphQL request over HTTP, from what is asked for to its answer.

use super::asked::{Asked, Wanted};
use super::documents::{Document, Documents, Key};
use super::idempotency::{self, Once, UnderWay};
use super::limits::{self, Costly, Demand, Limits};
use super::loader::Driver;
use super::media_type::MediaType;
use super::omit::omit;
use super::persisted::{Found, Taken};
use super::types::{Given, Types};
use super::{Loaders, RequestContext, error};
use crate::code;
use crate::config::{Config, Env};
use crate::error::{Error, Result};
use async_graphql::parser::parse_query;
use async_graphql::parser::types::OperationType;
use async_graphql::{
    ObjectType, Request, Response, Schema, ServerError, SubscriptionType, Value, Variables,
};
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::IntoResponse;
use serde::Serialize;
use std::future::poll_fn;
use std::sync::Arc;

/// A schema behind its door.
pub struct Door<Q, M, S> {
    pub(super) schema: Schema<Q, M, S>,
    /// The same without validation, for documents that passed it.
    unchecked: Schema<Q, M, S>,
    types: Types,
    documents: Documents,
    limits: Limits,
    /// Whether it tells about itself, if only by guessing what was meant.
    suggests: bool,
    taken: Taken,
    under_way: UnderWay,
}

/// How a request came: one that must only read is safe to repeat, to prefetch and to link to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// It may only read.
    Get,
    /// It may write.
    Post,
}

impl<Q, M, S> std::fmt::Debug for Door<Q, M, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

impl<Q, M, S> Door<Q, M, S>
where
    Q: ObjectType + 'static,
    M: ObjectType + 'static,
    S: SubscriptionType + 'static,
{
    /// A door that has seen no document yet, before a schema that checks documents and the same schema that does not.
    pub fn new(
        (schema, unchecked): (Schema<Q, M, S>, Schema<Q, M, S>),
        config: &Config,
        costly: Costly,
    ) -> Result<Self> {
        let limits = Limits::of::<Q, M, S>(config.document_limits.clone(), costly);
        Ok(Self {
            taken: Taken::by(config, &limits)?,
            limits,
            suggests: config.env == Env::Development,
            types: Types::of(&schema.sdl()).map_err(|e| Error::internal(e.message))?,
            schema,
            unchecked,
            documents: Documents::default(),
            under_way: UnderWay::default(),
        })
    }

    /// Executes what is asked for, unless it is to be followed. What the transport refuses is an error, what is wrong with
    /// the document a response.
    pub async fn execute(
        &self,
        context: RequestContext,
        asked: Asked,
        method: Method,
    ) -> Result<Response> {
        let ready = match self.prepare(&context, asked, method).await? {
            Ok(ready) => ready,
            Err(refusal) => return Ok(*refusal),
        };
        context.count(&ready.demand)?;
        self.run(context, ready).await
    }

    /// Finds the operation that is asked for, and holds it to everything that holds before validation.
    pub(super) async fn prepare(
        &self,
        context: &RequestContext,
        asked: Asked,
        method: Method,
    ) -> Result<std::result::Result<Ready, Box<Response>>> {
        let refused = |error| Ok(Err(Box::new(error::refusal(&error, &context.request_id))));
        let digest = idempotency::digest(context, &asked)?;
        let document = match self.document(context, asked.document).await {
            Ok(document) => document,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (name, mut variables) = (asked.operation_name, asked.variables);
        let operation = document.operation(name.as_deref());
        let kind = operation.map(|operation| operation.ty);
        if kind == Some(OperationType::Mutation) && method == Method::Get {
            return Err(Error::MethodNotAllowed("POST"));
        }
        let weighed = (&document.parsed, &document.verdict);
        let demand = match self.limits.admit(weighed, name.as_deref(), &variables) {
            Ok(demand) => demand,
            Err(error) => return refused(error),
        };
        let definitions = operation.map_or(&[][..], |one| &one.variable_definitions);
        let given = match self.types.check(definitions, &mut variables) {
            Ok(given) => given,
            Err(wrong) => {
                let wrong = error::coded(wrong, &code::BAD_USER_INPUT);
                return Ok(Err(Box::new(wrong)));
            }
        };
        Ok(Ok(Ready {
            document,
            kind,
            demand,
            name,
            variables,
            given,
            digest,
        }))
    }

    /// Executes an operation; with an `Idempotency-Key`, once.
    pub(super) async fn run(&self, mut context: RequestContext, ready: Ready) -> Result<Response> {
        context.begin();
        context.once = Once::of(&context, &ready)?;
        let context = Arc::new(context);
        let answer = self.resolve(Arc::clone(&context), ready);
        let answer = idempotency::answer(&context, &self.under_way, answer).await;
        context.write_notes().await;
        answer
    }

    async fn resolve(&self, context: Arc<RequestContext>, ready: Ready) -> Response {
        let known = ready.document.is_valid(ready.given.nulls);
        let schema = if known { &self.unchecked } else { &self.schema };
        let (request, driver, whole) = ready.request(&context);
        let mut executed = Box::pin(schema.execute(request));
        let response = poll_fn(|cx| driver.poll(cx, |cx| executed.as_mut().poll(cx))).await;
        if was_executed(&response) && whole && !known {
            ready.document.passed(ready.given.nulls);
        }
        self.finish(response, &context, &ready).await
    }

    /// Makes of the schema's answer what a client gets, and gives the connection of its reads back before it goes out; they
    /// need no commit.
    pub(super) async fn finish(
        &self,
        mut response: Response,
        context: &RequestContext,
        ready: &Ready,
    ) -> Response {
        if let Err(error) = context.end_reading().await {
            tracing::warn!(?error, "the reads of a request did not end cleanly");
        }
        if was_executed(&response) {
            let name = ready.name.as_deref();
            let shape = ready.document.shape(&self.types, root::<Q, M, S>, name);
            if let Some(shape) = shape {
                shape.complete(&mut response);
            }
        }
        error::render(&mut response, &context.request_id, self.suggests);
        response
    }

    /// The document that is wanted, within the limits that hold before anything else looks at it. What was brought is kept, if
    /// it is by somebody who is signed in, for what others bring must drive out nothing; and never a mutation: what one writes
    /// into its text may be a password.
    async fn document(
        &self,
        context: &RequestContext,
        wanted: Wanted,
    ) -> Result<Arc<Document>, Box<Response>> {
        let tenant = context.tenant.id;
        let found = self.taken.find(tenant, wanted).await;
        let found = found.map_err(|e| Box::new(error::refusal(&e, &context.request_id)));
        let (text, brought) = match found? {
            Found::Parsed(document) => return Ok(document),
            Found::Text(text, hash) => {
                let brought = hash.map(|hash| (hash, text.clone()));
                (text, brought)
            }
        };
        let document = self.parsed(context, text).await?;
        if let Some(brought) = brought
            && context.viewer().is_some()
            && !writes(&document)
        {
            self.taken.keep(tenant, brought).await;
        }
        Ok(document)
    }

    /// The document of a text: known, or parsed.
    async fn parsed(
        &self,
        context: &RequestContext,
        text: String,
    ) -> Result<Arc<Document>, Box<Response>> {
        let refused = |error| Box::new(error::refusal(&error, &context.request_id));
        let key = Key::new(context.tenant.id, text);
        if let Some(document) = self.documents.get(&key).await {
            return Ok(document);
        }
        self.limits.check_text(&key.text).map_err(refused)?;
        let parsed = parse_query(&key.text).map_err(|e| {
            let error = ServerError::from(e);
            Box::new(error::coded(error, &code::GRAPHQL_PARSE_FAILED))
        })?;
        let verdict = self.limits.check(&parsed).map_err(refused)?;
        limits::refuse(&parsed)
            .map_err(|e| Box::new(error::coded(e, &code::GRAPHQL_VALIDATION_FAILED)))?;
        let document = Arc::new(Document::new(parsed, verdict));
        self.documents.keep(key, &document).await;
        Ok(document)
    }
}

fn writes(document: &Document) -> bool {
    let mut operations = document.parsed.operations.iter();
    operations.any(|(_, operation)| operation.node.ty == OperationType::Mutation)
}

/// What is asked for, found and within the limits.
pub(super) struct Ready {
    pub(super) document: Arc<Document>,
    /// What the operation does; none if the document has none of that name, which is for validation to say.
    pub(super) kind: Option<OperationType>,
    pub(super) demand: Demand,
    pub(super) name: Option<String>,
    variables: Variables,
    given: Given,
    /// Of all that was sent, if it came with an `Idempotency-Key`.
    pub(super) digest: Option<[u8; 32]>,
}

impl Ready {
    /// The request as the schema takes it, with what its resolvers are given, what has to drive it, and whether its document is
    /// as it came.
    pub(super) fn request(&self, context: &Arc<RequestContext>) -> (Request, Driver, bool) {
        let loaders = Loaders::of(Arc::clone(context));
        let mut request = Request::new(String::new())
            .variables(self.variables.clone())
            .data(Arc::clone(context))
            .data(Arc::clone(&loaders));
        request.operation_name.clone_from(&self.name);
        let mut parsed = self.document.parsed.clone();
        let whole = self.given.absent.is_empty() || !omit(&mut parsed, &self.given.absent);
        request.set_parsed_query(parsed);
        (request, Driver::new(loaders), whole)
    }
}

/// The name of the type whose fields an operation asks for.
fn root<Q: ObjectType, M: ObjectType, S: SubscriptionType>(operation: OperationType) -> String {
    match operation {
        OperationType::Query => Q::type_name(),
        OperationType::Mutation => M::type_name(),
        OperationType::Subscription => S::type_name(),
    }
    .into_owned()
}

/// Whether any field ran: a request that failed before has nothing but errors of no field.
pub fn was_executed(response: &Response) -> bool {
    response.data != Value::Null
        || response.errors.is_empty()
        || response.errors.iter().any(|error| !error.path.is_empty())
}

/// The answer to a request that did not get as far as the schema: its status says why, whatever is accepted.
pub fn refuse(error: &Error, request_id: &str, media_type: MediaType) -> axum::response::Response {
    let kind = error.kind();
    let status = StatusCode::from_u16(kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let response = error::refusal(error, request_id);
    let mut answer = send(&response, status, media_type);
    let headers = answer.headers_mut();
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = error.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Error::MethodNotAllowed(allowed) = error {
        headers.insert(ALLOW, HeaderValue::from_static(allowed));
    }
    answer
}

/// The answer of the schema. GraphQL over HTTP §6.4: for `application/graphql-response+json` a request that was not executed
/// is a 4xx; for plain JSON it stays a 200.
pub fn answer(response: &Response, media_type: MediaType) -> axum::response::Response {
    let status = match media_type {
        MediaType::GraphqlResponse if !was_executed(response) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    };
    let mut answer = send(response, status, media_type);
    let headers = answer.headers_mut();
    headers.extend(response.http_headers.clone());
    if let Some(seconds) = error::retry_after(response) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// A response as it is sent, whatever carries it: without `data` unless it was executed (GraphQL §7.1).
#[derive(Debug, Serialize)]
pub struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [ServerError],
}

impl<'a> From<&'a Response> for Body<'a> {
    fn from(response: &'a Response) -> Self {
        Self {
            data: was_executed(response).then_some(&response.data),
            errors: &response.errors,
        }
    }
}

fn send(
    response: &Response,
    status: StatusCode,
    media_type: MediaType,
) -> axum::response::Response {
    let body = serde_json::to_vec(&Body::from(response)).unwrap_or_else(|_| b"{}".to_vec());
    let kind = HeaderValue::from_static(media_type.as_str());
    (status, [(CONTENT_TYPE, kind)], body).into_response()
}
