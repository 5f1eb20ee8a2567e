//! Event streams at `/graphql`: graphql-sse in distinct connections mode (github.com/enisdenjo/graphql-sse, PROTOCOL.md).

use super::State as HttpState;
use super::server::HangUp;
use super::sockets::{Seat, Sockets, Who};
use super::standing::{Ended, Standing};
use crate::error::{Error, Result};
use crate::graphql::door::{Body, Method};
use crate::graphql::{Asked, RequestContext, refusal};
use async_graphql::Response as Answer;
use async_graphql::parser::types::OperationType;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::stream::{self, BoxStream, StreamExt as _};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::Instrument as _;

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const EVENT_STREAM: &str = "text/event-stream";
/// Proxies and browsers give up on what is silent; graphql-sse's own server says something as often.
const KEEP_ALIVE: Duration = Duration::from_secs(12);
/// How long a client may take to read why its stream is over.
const GOODBYE: Duration = Duration::from_secs(3);

/// Marks a response that goes on without end: it has a seat, and is no request that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct GoesOn;

/// Whether the client would rather have an event stream than JSON: it names it first, or alone.
pub(super) fn are_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter();
    let accepted = accepted.filter_map(|value| value.to_str().ok());
    let mut types = accepted
        .flat_map(|value| value.split(','))
        .map(|item| item.split(';').next().unwrap_or_default().trim());
    let known = |kind: &&str| {
        kind.eq_ignore_ascii_case(EVENT_STREAM) || kind.ends_with("json") || kind.ends_with("/*")
    };
    types
        .find(known)
        .is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT_STREAM))
}

/// Executes a request of whoever the context says, and streams its answers for as long as their token works.
pub(super) async fn stream(
    state: &HttpState,
    context: RequestContext,
    token: Option<String>,
    hang_up: HangUp,
    (asked, method): (Asked, Method),
) -> Result<Response> {
    let services = Arc::clone(&state.services);
    let request_id = context.request_id.clone();
    let caller = context.viewer();
    let who = Who::of(caller.as_deref());
    let seat = (state.sockets).enter(context.tenant.id, &context.client, who)?;
    let standing = Standing::begin(services, Arc::clone(&context.tenant), token).await?;
    let context = context.by(Arc::clone(standing.calling()));
    let answers = state.door.answers(context, asked, method).await?;
    let goes_on = answers.operation == Some(OperationType::Subscription);
    let (watch, ended) = watch(standing, Arc::clone(&state.sockets), hang_up);
    let sending = Sending {
        answers: AssertUnwindSafe(answers.stream)
            .catch_unwind()
            .map(Result::ok)
            .boxed(),
        ended,
        _watch: watch,
        sockets: Arc::clone(&state.sockets),
        request_id,
        queue: VecDeque::new(),
        over: false,
        _seat: seat,
    };
    let events = stream::unfold(sending, Sending::next);
    // Browsers wait for the first byte before they say that the stream is open.
    let opened = stream::iter([Event::default().comment("")]);
    let events = opened.chain(events).map(Ok::<_, Infallible>);
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    // nginx would keep what it gets until it has more of it.
    let headers = response.headers_mut();
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    if goes_on {
        response.extensions_mut().insert(GoesOn);
    }
    Ok(response)
}

/// Looks out for the end in a task of its own, which ends when it is dropped: while a client does not read, nobody asks for
/// the stream's next event, and the stream could outlive its credential. The second is told why it is over; who has not read
/// that in time is hung up on.
fn watch(
    standing: Standing,
    sockets: Arc<Sockets>,
    HangUp(hang_up): HangUp,
) -> (JoinSet<()>, oneshot::Receiver<Ended>) {
    let (tell, ended) = oneshot::channel();
    let work = async move {
        tokio::select! {
            ended = standing.ended() => {
                // Nobody is told who is gone already.
                let _ = tell.send(ended);
            }
            () = sockets.stopping() => {}
        }
        sleep(GOODBYE).await;
        hang_up.cancel();
    };
    let mut watch = JoinSet::new();
    watch.spawn(work.in_current_span());
    (watch, ended)
}

/// A stream that is being sent. Dropped, the operation ends.
struct Sending {
    /// None in place of an answer: it panicked.
    answers: BoxStream<'static, Option<Answer>>,
    ended: oneshot::Receiver<Ended>,
    _watch: JoinSet<()>,
    sockets: Arc<Sockets>,
    request_id: String,
    queue: VecDeque<Event>,
    over: bool,
    _seat: Seat,
}

impl Sending {
    async fn next(mut self) -> Option<(Event, Self)> {
        if self.queue.is_empty() {
            if self.over {
                return None;
            }
            self.wait().await?;
        }
        let event = self.queue.pop_front()?;
        Some((event, self))
    }

    /// Waits for something to send. None: the stream breaks off, and the client may connect again.
    async fn wait(&mut self) -> Option<()> {
        let answer = tokio::select! {
            // What waits to be sent is not for who may not be here any more.
            biased;
            () = self.sockets.stopping() => return None,
            ended = &mut self.ended => match ended {
                Ok(Ended::Credential(error) | Ended::Tenant(error)) => {
                    self.end_with(&error);
                    return Some(());
                }
                Ok(Ended::Moved) | Err(_) => return None,
            },
            answer = self.answers.next() => answer,
        };
        match answer {
            Some(Some(answer)) => self.queue.push_back(event(&answer)),
            Some(None) => self.end_with(&Error::internal("an operation panicked")),
            None => self.complete(),
        }
        Some(())
    }

    fn end_with(&mut self, error: &Error) {
        let refused = refusal(error, &self.request_id);
        self.queue.push_back(event(&refused));
        self.complete();
    }

    fn complete(&mut self) {
        // Without a data field, browsers would not hand it on.
        self.queue
            .push_back(Event::default().event("complete").data(""));
        self.over = true;
    }
}

fn event(answer: &Answer) -> Event {
    // Values that came from JSON can be written as JSON.
    let data = serde_json::to_string(&Body::from(answer)).unwrap_or_default();
    Event::default().event("next").data(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_json_first_gets_json() {
        let wanted = |accept: &'static str| {
            let accept = HeaderValue::from_static(accept);
            are_wanted(&HeaderMap::from_iter([(ACCEPT, accept)]))
        };
        for accept in [
            "text/event-stream",
            "Text/Event-Stream; q=1",
            "text/event-stream, multipart/mixed",
            "text/event-stream, application/json",
            "text/html, text/event-stream",
        ] {
            assert!(wanted(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "application/json",
            "text/html",
            // urql, of everything but a subscription
            "application/graphql-response+json, application/graphql+json, application/json, text/event-stream, multipart/mixed",
        ] {
            assert!(!wanted(accept), "{accept}");
        }
        assert!(!are_wanted(&HeaderMap::new()));
    }
}
