//! Requests whose answers come one by one, over whatever carries them: the front door of sockets and event streams.

use super::door::{Door, Method};
use super::{Asked, ContextExt as _, RequestContext, refusal};
use crate::error::Result;
use crate::permission::Permission;
use async_graphql::parser::types::{OperationDefinition, OperationType, Selection};
use async_graphql::{Context, ObjectType, Response, ServerError, SubscriptionType};
use entity::tenant::history;
use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use std::sync::Arc;

/// The answers to one request: one, or those of a subscription, until it is over.
pub struct Answers {
    /// In order. Nothing is executed before the first is asked for.
    pub stream: BoxStream<'static, Response>,
    /// What is executed, if anything is.
    pub operation: Option<OperationType>,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers")
            .field("operation", &self.operation)
            .finish_non_exhaustive()
    }
}

impl<Q, M, S> Door<Q, M, S>
where
    Q: ObjectType + 'static,
    M: ObjectType + 'static,
    S: SubscriptionType + 'static,
{
    /// Executes a request of any kind. Between two answers nothing is held. What the transport refuses is an error.
    pub async fn answers(
        self: &Arc<Self>,
        context: RequestContext,
        asked: Asked,
        method: Method,
    ) -> Result<Answers> {
        let at_once = |response| {
            Ok(Answers {
                stream: stream::iter([response]).boxed(),
                operation: None,
            })
        };
        let ready = match self.prepare(&context, asked, method).await? {
            Ok(ready) => ready,
            Err(refusal) => return at_once(*refusal),
        };
        if let Err(error) = context.count(&ready.demand) {
            return at_once(refusal(&error, &context.request_id));
        }
        let (door, kind) = (Arc::clone(self), ready.kind);
        let name = ready.name.as_deref();
        let followed = ready.document.operation(name);
        let followed = followed.filter(|_| kind == Some(OperationType::Subscription));
        let Some(followed) = followed else {
            let request_id = context.request_id.clone();
            let answer = async move {
                let answer = door.run(context, ready).await;
                answer.unwrap_or_else(|error| refusal(&error, &request_id))
            };
            return Ok(Answers {
                stream: stream::once(answer).boxed(),
                operation: kind,
            });
        };
        let context = Arc::new(context);
        if let Some(error) = unlike_one_root(followed) {
            let refused = Response::from_errors(vec![error]);
            return at_once(self.finish(refused, &context, &ready).await);
        }
        let (request, driver, _) = ready.request(&context);
        let mut answers = self.schema.execute_stream(request).boxed();
        let answers = stream::poll_fn(move |cx| driver.poll(cx, |cx| answers.poll_next_unpin(cx)));
        let given = Arc::new((door, context, ready));
        let stream = answers.then(move |answer| {
            let given = Arc::clone(&given);
            async move {
                let (door, context, ready) = &*given;
                let answer = door.finish(answer, context, ready).await;
                context.write_notes().await;
                answer
            }
        });
        Ok(Answers {
            stream: stream.boxed(),
            operation: kind,
        })
    }
}

/// A subscription has one root field (GraphQL, 5.2.4.1). async-graphql would take several, and none of a fragment.
fn unlike_one_root(operation: &OperationDefinition) -> Option<ServerError> {
    let set = &operation.selection_set;
    match set.node.items.as_slice() {
        [one] if matches!(&one.node, Selection::Field(field) if field.node.name.node != "__typename") => {
            None
        }
        _ => Some(ServerError::new(
            "A subscription has one root field, written out and not in a fragment.",
            Some(set.pos),
        )),
    }
}

/// The changes of the tenant from now on, for who may see them: that is looked at again for each. Afterwards the request has
/// nothing open.
pub async fn follow(
    ctx: &Context<'_>,
    permission: Permission,
) -> Result<impl Stream<Item = Result<Arc<history::Model>>> + Send + use<>> {
    ctx.require(permission)?;
    let request = Arc::clone(ctx.data_unchecked::<Arc<RequestContext>>());
    let changes = request.services.feeds.changes(&request.tenant).await?;
    Ok(changes.map(move |change| {
        let change = change?;
        request.caller()?.require(permission)?;
        Ok(change)
    }))
}

/// What a subscription's field returns: the items up to the first error, which is the last of them.
pub fn until_error<T: Send>(
    items: impl Stream<Item = Result<T>> + Send,
) -> impl Stream<Item = async_graphql::Result<T>> + Send {
    items.scan(false, |over, item| {
        let next = (!*over).then_some(item);
        *over |= matches!(next, Some(Err(_)));
        std::future::ready(next.map(|item| item.map_err(Into::into)))
    })
}
