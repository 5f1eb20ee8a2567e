//! One operation of a socket: a task of its own, so that what it holds does not depend on how fast the client reads.

use super::message;
use crate::actor::RequestId;
use crate::database::Tenant;
use crate::error::{Error, Result};
use crate::graphql::door::{Method, was_executed};
use crate::graphql::{Asked, Calling, RequestContext, refusal};
use crate::http::State as HttpState;
use crate::rates::{Client, Place};
use crate::tenancy::host::Authority;
use async_graphql::parser::types::OperationType;
use async_graphql::{Response, Value};
use axum::extract::ws::Message;
use entity::platform::tenant::State;
use futures::{FutureExt as _, StreamExt as _};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use tokio::sync::mpsc;
use tracing::Instrument as _;
use uuid::Uuid;

/// What an operation is run with.
pub(super) struct Operation {
    pub(super) state: HttpState,
    pub(super) tenant: Uuid,
    pub(super) authority: Authority,
    /// Of the socket's client.
    pub(super) address: IpAddr,
    pub(super) calling: Calling,
    pub(super) id: String,
    /// Ids are used again; this is not.
    pub(super) number: u64,
    pub(super) out: mpsc::Sender<Answer>,
}

/// What an operation has to say to the client.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) id: String,
    pub(super) number: u64,
    pub(super) say: Say,
}

#[derive(Debug)]
pub(super) enum Say {
    Next(Message),
    /// The last message.
    Last(Message),
    /// The client does not keep up, and the socket is to be closed.
    TooSlow,
}

impl Operation {
    /// Runs it to its end. Dropped, it ends where it is.
    pub(super) async fn run(self, asked: Asked) {
        let clock = self.state.services.database.clock();
        let request_id = RequestId(clock.new_id().to_string());
        let caller = self.calling.read();
        let caller = caller.unwrap_or_else(PoisonError::into_inner).clone();
        // At the level of errors, so that no filter takes tenant and actor from a line that is logged.
        let span = tracing::error_span!(
            "operation",
            request.id = %request_id.0,
            actor = caller.map(|caller| tracing::field::display(caller.actor.clone()))
        );
        let work = AssertUnwindSafe(self.work(asked, &request_id)).catch_unwind();
        if work.instrument(span).await.is_err() {
            let error = Error::internal("an operation panicked");
            self.end_with(&refusal(&error, &request_id.0)).await;
        }
    }

    async fn work(&self, asked: Asked, RequestId(request_id): &RequestId) {
        let (tenant, place) = match self.admit().await {
            Ok(admitted) => admitted,
            Err(error) => return self.end_with(&refusal(&error, request_id)).await,
        };
        let services = Arc::clone(&self.state.services);
        let mut context =
            RequestContext::new(services, tenant, request_id.clone(), self.authority.clone());
        context.client = Arc::new(Client::at(self.address));
        let context = context.by(Calling::clone(&self.calling));
        let answers = self.state.door.answers(context, asked, Method::Post).await;
        let mut answers = match answers {
            Ok(answers) => answers,
            Err(error) => return self.end_with(&refusal(&error, request_id)).await,
        };
        // One that goes on is a request as it begins, and then none that is under way.
        let place = place.filter(|_| answers.operation != Some(OperationType::Subscription));
        while let Some(response) = answers.stream.next().await {
            if is_too_slow(&response) {
                return self.say(Say::TooSlow).await;
            }
            if !was_executed(&response) {
                return self.end_with(&response).await;
            }
            self.say(Say::Next(message::next(&self.id, &response)))
                .await;
        }
        drop(place);
        self.say(Say::Last(message::complete(&self.id))).await;
    }
}

impl Operation {
    /// The tenant as it is now, and a place among its requests.
    async fn admit(&self) -> Result<(Arc<Tenant>, Option<Place>)> {
        let tenant = self.state.services.registry.get(self.tenant).await?;
        if tenant.state != State::Active {
            return Err(Error::TenantNotFound);
        }
        let place = self.state.services.rates.admit(&tenant)?;
        Ok((tenant, place))
    }

    async fn end_with(&self, response: &Response) {
        self.say(Say::Last(message::error(&self.id, response)))
            .await;
    }

    async fn say(&self, say: Say) {
        let (id, number) = (self.id.clone(), self.number);
        // The socket may be gone.
        let _ = self.out.send(Answer { id, number, say }).await;
    }
}

fn is_too_slow(response: &Response) -> bool {
    let code = Value::from(Error::TooSlow.code());
    response.errors.iter().any(|error| {
        let extensions = error.extensions.as_ref();
        extensions.and_then(|all| all.get("code")) == Some(&code)
    })
}
