//! Clients of subscriptions: a WebSocket that speaks graphql-transport-ws, and an event stream. Both do what a test says, and
//! nothing of their own.

use super::{PATIENCE, Tenant};
use futures::{SinkExt as _, StreamExt as _};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// What a socket hears.
#[derive(Debug, PartialEq)]
pub enum Heard {
    Said(Value),
    /// The other side closed it, with this code and reason.
    Closed(u16, String),
    /// It is gone, and nobody said why.
    Gone,
}

/// A WebSocket to a tenant's host.
pub struct Socket(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// The request that opens one, for headers of a test's own.
    pub fn request(tenant: &Tenant, protocol: &str) -> Request {
        Self::request_at(&tenant.world.address, &tenant.host(), protocol)
    }

    /// The same to a server at this address.
    pub fn request_at(address: &str, host: &str, protocol: &str) -> Request {
        let url = format!("ws://{address}/graphql/ws");
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("Host", host.parse().unwrap());
        headers.insert("Sec-WebSocket-Protocol", protocol.parse().unwrap());
        request
    }

    /// Opens one; the answer's status if it is refused.
    pub async fn connect(request: Request) -> Result<Self, StatusCode> {
        match connect_async(request).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(answer)) => {
                Err(StatusCode::from_u16(answer.status().as_u16()).unwrap())
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// An open one that has said nothing yet.
    pub async fn open(tenant: &Tenant) -> Self {
        let request = Self::request(tenant, "graphql-transport-ws");
        Self::connect(request).await.unwrap()
    }

    /// One that has said who it is, and was let in.
    pub async fn init(tenant: &Tenant, token: Option<&str>) -> Self {
        Self::open(tenant).await.greeted(token).await
    }

    /// The same, once it has said who it is.
    pub async fn greeted(mut self, token: Option<&str>) -> Self {
        let payload = token.map(|token| json!({ "authorization": format!("Bearer {token}") }));
        let init = json!({ "type": "connection_init", "payload": payload });
        let ack = Heard::Said(json!({ "type": "connection_ack" }));
        assert_eq!(self.ask(init).await, ack);
        self
    }

    pub async fn say(&mut self, message: Value) {
        self.0
            .send(Message::text(message.to_string()))
            .await
            .unwrap();
    }

    /// The next that is said.
    pub async fn hear(&mut self) -> Heard {
        let heard = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => {
                        return Heard::Said(serde_json::from_str(&text).unwrap());
                    }
                    Some(Ok(Message::Close(Some(frame)))) => {
                        return Heard::Closed(frame.code.into(), frame.reason.to_string());
                    }
                    Some(Ok(Message::Close(None)) | Err(_)) | None => return Heard::Gone,
                    Some(Ok(_)) => {}
                }
            }
        };
        timeout(PATIENCE, heard).await.expect("something is heard")
    }

    pub async fn ask(&mut self, message: Value) -> Heard {
        self.say(message).await;
        self.hear().await
    }

    pub async fn subscribe(&mut self, id: &str, query: &str) {
        self.say(json!({ "id": id, "type": "subscribe", "payload": { "query": query } }))
            .await;
    }

    /// The payload of the `next` that comes next.
    pub async fn next(&mut self, id: &str) -> Value {
        match self.hear().await {
            Heard::Said(said) if said["type"] == "next" && said["id"] == id => {
                said["payload"].clone()
            }
            other => panic!("not the next of {id}: {other:?}"),
        }
    }

    /// How it is closed; whatever is said before is passed over.
    pub async fn closed(&mut self) -> Heard {
        loop {
            match self.hear().await {
                Heard::Said(_) => {}
                closed => return closed,
            }
        }
    }
}

/// An event stream.
pub struct Events {
    response: Response,
    bytes: Vec<u8>,
}

impl Events {
    /// Opens one by POST.
    pub async fn open(tenant: &Tenant, token: Option<&str>, query: &str) -> Self {
        Self::of(Self::asking(
            tenant.request(Method::POST, "/graphql"),
            token,
            query,
        ))
        .await
    }

    /// The request, asking for an event stream.
    pub fn asking(request: RequestBuilder, token: Option<&str>, query: &str) -> RequestBuilder {
        let request = request
            .header("Accept", "text/event-stream")
            .json(&json!({ "query": query }));
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            response,
            bytes: Vec::new(),
        }
    }

    /// The next event and its data; nothing if the stream is over. Comments are passed over.
    pub async fn hear(&mut self) -> Option<(String, String)> {
        loop {
            while let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = self.bytes.drain(..end + 2).collect();
                let event = String::from_utf8(event).unwrap();
                let field = |name: &str| {
                    let mut lines = event.lines().filter_map(|line| line.strip_prefix(name));
                    lines.next().map(|value| value.trim().to_owned())
                };
                let heard = field("event:").map(|kind| (kind, field("data:").unwrap_or_default()));
                if heard.is_some() {
                    return heard;
                }
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await;
            match chunk.expect("something is heard") {
                Ok(Some(chunk)) => self.bytes.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The data of the `next` that comes next.
    pub async fn next(&mut self) -> Value {
        let (kind, data) = self.hear().await.expect("an event");
        assert_eq!(kind, "next", "{data}");
        serde_json::from_str(&data).unwrap()
    }
}
