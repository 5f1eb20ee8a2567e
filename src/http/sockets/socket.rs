//! The life of one socket: greeted, in conversation, closed.

use super::super::standing::Standing;
use super::message::{self, Close, Said};
use super::operation::{Answer, Operation, Say};
use super::{Seat, Who};
use crate::body;
use crate::database::Tenant;
use crate::error::{Error, Result};
use crate::graphql::{Calling, refusal};
use crate::http::State as HttpState;
use crate::rates::Client;
use crate::tenancy::host::Authority;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{interval, timeout, timeout_at};

/// How long a client may take to say `connection_init`.
const INIT: Duration = Duration::from_secs(10);
/// How often it is asked whether it is there.
const BEAT: Duration = Duration::from_secs(12);
/// How long nothing may be heard from it.
const SILENCE: Duration = Duration::from_secs(40);
/// Operations that a socket may have at a time.
const OPERATIONS: usize = 20;
/// Answers that wait for a client to read; each operation waits with one more.
const QUEUE: usize = 8;
/// How long it may take to read why the socket is closed. Nothing else is kept for it by then.
const GOODBYE: Duration = Duration::from_mins(1);

/// A socket that was opened at a tenant's host.
pub(super) struct Opened {
    pub(super) state: HttpState,
    pub(super) tenant: Arc<Tenant>,
    pub(super) authority: Authority,
    pub(super) client: Arc<Client>,
    /// Of the request that opened it, for clients that can send headers.
    pub(super) token: Option<String>,
    pub(super) seat: Seat,
}

impl Opened {
    /// How long the client may take to read one message.
    fn slow(&self) -> Duration {
        self.state.services.config.http_limits.slow_time()
    }
}

/// Serves a socket to its end.
pub(super) async fn serve(mut socket: WebSocket, mut opened: Opened) {
    let ended = match greet(&mut socket, &mut opened).await {
        Ok(Some(standing)) => converse(&mut socket, &opened, standing).await,
        Ok(None) => Ok(()),
        Err(close) => Err(close),
    };
    // Whoever says goodbye is answered, unless they are gone.
    let goodbye = async {
        if let Err(close) = ended {
            tracing::debug!(?close, "a socket is closed");
            if socket.send(close.frame()).await.is_err() {
                return;
            }
        }
        while let Some(Ok(_)) = socket.recv().await {}
    };
    let _ = timeout(GOODBYE, goodbye).await;
}

/// Waits until the client has said who it is. None: it is gone.
async fn greet(socket: &mut WebSocket, opened: &mut Opened) -> Result<Option<Standing>, Close> {
    if socket.protocol().is_none() {
        return Err(Close::SUBPROTOCOL);
    }
    let deadline = Instant::now() + INIT;
    let sockets = Arc::clone(&opened.state.sockets);
    let slow = opened.slow();
    loop {
        let received = tokio::select! {
            () = sockets.stopping() => return Err(Close::AWAY),
            received = timeout_at(deadline.into(), socket.recv()) => received,
        };
        let received = received.map_err(|_| Close::NO_INIT)?;
        let said = match read(received)? {
            Received::Text(text) => Said::read(&text)?,
            Received::Other => continue,
            Received::Goodbye => return Ok(None),
        };
        let answer = match said {
            Said::ConnectionInit { payload } => {
                let standing = admit(opened, payload).await;
                let standing = standing.map_err(|error| Close::refused(&error))?;
                let is_there = say(socket, message::ack(), slow).await?;
                return Ok(is_there.then_some(standing));
            }
            Said::Subscribe { .. } => return Err(Close::UNAUTHORIZED),
            Said::Ping { payload } => message::pong(payload),
            Said::Pong { .. } | Said::Complete { .. } => continue,
        };
        if !say(socket, answer, slow).await? {
            return Ok(None);
        }
    }
}

/// Says it to a client that reads in time. False: it is gone.
async fn say(socket: &mut WebSocket, message: Message, slow: Duration) -> Result<bool, Close> {
    let said = timeout(slow, socket.send(message)).await;
    said.map(|sent| sent.is_ok()).map_err(|_| Close::TOO_SLOW)
}

async fn admit(opened: &mut Opened, payload: Option<Map<String, Value>>) -> Result<Standing> {
    let token = message::token(payload.as_ref())?.or_else(|| opened.token.take());
    let services = Arc::clone(&opened.state.services);
    let standing = Standing::begin(services, Arc::clone(&opened.tenant), token).await;
    let rates = &opened.state.services.rates;
    let standing = rates.credential(&opened.tenant, &opened.client, standing)?;
    let caller = standing.caller();
    if let Some(caller) = &caller {
        tracing::Span::current().record("actor", tracing::field::display(&caller.actor));
    }
    opened.seat.settle(Who::of(caller.as_deref()))?;
    Ok(standing)
}

/// Runs what the client asks for, until one of the two ends it.
async fn converse(
    socket: &mut WebSocket,
    opened: &Opened,
    standing: Standing,
) -> Result<(), Close> {
    let (out, mut answers) = mpsc::channel(QUEUE);
    let mut operations = Operations::new(opened, Calling::clone(standing.calling()), out);
    let mut ended = pin!(standing.ended());
    let mut beat = interval(BEAT);
    let mut heard = Instant::now();
    loop {
        let next = tokio::select! {
            // What waits to be sent is not for who may not be here any more; the rest in such an order that a client which
            // says much waits for its own answers alone.
            biased;
            () = opened.state.sockets.stopping() => return Err(Close::AWAY),
            ended = &mut ended => return Err(ended.into()),
            _ = beat.tick() => {
                if heard.elapsed() > SILENCE {
                    return Err(Close::SILENT);
                }
                Some(Message::Ping(axum::body::Bytes::new()))
            }
            Some(_) = operations.tasks.join_next() => None,
            received = socket.recv() => {
                heard = Instant::now();
                match read(received)? {
                    Received::Text(text) => operations.hear(&text)?,
                    Received::Other => None,
                    Received::Goodbye => return Ok(()),
                }
            }
            Some(answer) = answers.recv() => operations.pass_on(answer)?,
        };
        let Some(next) = next else { continue };
        tokio::select! {
            ended = &mut ended => return Err(ended.into()),
            is_there = say(socket, next, opened.slow()) => if !is_there? {
                return Ok(());
            },
        }
    }
}

/// What came from the client.
enum Received {
    Text(Utf8Bytes),
    /// A frame that is no message of the protocol's.
    Other,
    Goodbye,
}

fn read(received: Option<Result<Message, axum::Error>>) -> Result<Received, Close> {
    match received {
        Some(Ok(Message::Text(text))) if text.len() > body::MAX => Err(Close::TOO_LARGE),
        Some(Ok(Message::Text(text))) => Ok(Received::Text(text)),
        Some(Ok(Message::Binary(_))) => Err(Close::INVALID),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(Received::Other),
        Some(Ok(Message::Close(_))) | None => Ok(Received::Goodbye),
        Some(Err(_)) => Err(Close::BROKEN),
    }
}

/// The operations of a socket.
struct Operations<'a> {
    opened: &'a Opened,
    calling: Calling,
    out: mpsc::Sender<Answer>,
    active: HashMap<String, (u64, AbortHandle)>,
    begun: u64,
    tasks: JoinSet<()>,
}

impl<'a> Operations<'a> {
    fn new(opened: &'a Opened, calling: Calling, out: mpsc::Sender<Answer>) -> Self {
        Self {
            opened,
            calling,
            out,
            active: HashMap::new(),
            begun: 0,
            tasks: JoinSet::new(),
        }
    }

    /// Does what the client says; what is to be answered at once.
    fn hear(&mut self, text: &str) -> Result<Option<Message>, Close> {
        match Said::read(text)? {
            Said::ConnectionInit { .. } => Err(Close::TOO_MANY_INITS),
            Said::Ping { payload } => Ok(Some(message::pong(payload))),
            Said::Pong { .. } => Ok(None),
            Said::Subscribe { id, payload } => self.begin(id, payload),
            Said::Complete { id } => {
                if let Some((_, task)) = self.active.remove(&id) {
                    task.abort();
                }
                Ok(None)
            }
        }
    }

    fn begin(&mut self, id: String, payload: Map<String, Value>) -> Result<Option<Message>, Close> {
        let asked = message::asked(payload)?;
        if self.active.contains_key(&id) {
            return Err(Close::exists(&id));
        }
        if self.active.len() >= OPERATIONS {
            let error = Error::QueryLimit {
                limit: "socketOperations",
                max: OPERATIONS as u64,
                actual: OPERATIONS as u64 + 1,
            };
            return Ok(Some(message::error(&id, &refusal(&error, ""))));
        }
        self.begun += 1;
        let operation = Operation {
            state: self.opened.state.clone(),
            tenant: self.opened.tenant.id,
            authority: self.opened.authority.clone(),
            address: self.opened.client.address,
            calling: Calling::clone(&self.calling),
            id: id.clone(),
            number: self.begun,
            out: self.out.clone(),
        };
        let task = self.tasks.spawn(operation.run(asked));
        self.active.insert(id, (self.begun, task));
        Ok(None)
    }

    /// What the client is to be told, unless it has ended the operation meanwhile.
    fn pass_on(&mut self, answer: Answer) -> Result<Option<Message>, Close> {
        let is_active = self
            .active
            .get(&answer.id)
            .is_some_and(|(number, _)| *number == answer.number);
        match answer.say {
            _ if !is_active => Ok(None),
            Say::Next(message) => Ok(Some(message)),
            Say::Last(message) => {
                self.active.remove(&answer.id);
                Ok(Some(message))
            }
            Say::TooSlow => Err(Close::TOO_SLOW),
        }
    }
}
