//! A proxy before PostgreSQL that cuts its connections at a message of the test's choice: what a killed process leaves.

use super::RUNTIME;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The code of a client's question for TLS (PostgreSQL, 55.7).
const SSL_REQUEST: [u8; 4] = 80_877_103_i32.to_be_bytes();

/// A proxy; as many connections as come.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// Messages to go; below nought, all pass.
    left: AtomicI64,
    /// How often it has cut: every connection of that time ends.
    cuts: watch::Sender<u64>,
}

impl Proxy {
    /// A proxy before a port of this machine.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            left: AtomicI64::new(-1),
            cuts: watch::Sender::new(0),
        });
        let shared = Arc::clone(&state);
        RUNTIME.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                // Else every message waits for the acknowledgement of the one before it.
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                RUNTIME.spawn(pass(client, server, Arc::clone(&shared)));
            }
        });
        Self { port: own, state }
    }

    /// Runs the work until it is done, or until it sends its message of this number, which PostgreSQL does not get: then it
    /// and its connections are gone.
    pub async fn run<T>(&self, number: i64, work: impl Future<Output = T>) -> Option<T> {
        let mut cuts = self.state.cuts.subscribe();
        cuts.mark_unchanged();
        self.state.left.store(number, Ordering::SeqCst);
        let done = tokio::select! {
            biased;
            _ = cuts.changed() => None,
            done = work => Some(done),
        };
        self.state.left.store(-1, Ordering::SeqCst);
        done
    }
}

impl State {
    /// Whether this message is where it is to be cut.
    fn is_cut(&self) -> bool {
        let count = |left| (left >= 0).then_some(left - 1);
        let left = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, count);
        left == Ok(0)
    }
}

async fn pass(client: TcpStream, server: TcpStream, state: Arc<State>) {
    let mut cuts = state.cuts.subscribe();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = cuts.changed() => {}
        _ = questions(from_client, to_server, &state) => {}
        _ = answers(from_server, to_client) => {}
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<u64> {
    tokio::io::copy(&mut from, &mut to).await
}

async fn questions(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: &State,
) -> io::Result<()> {
    loop {
        let begun = untyped(&mut from).await?;
        to.write_all(&begun).await?;
        if begun[4..8] != SSL_REQUEST {
            break;
        }
    }
    loop {
        let kind = from.read_u8().await?;
        let body = untyped(&mut from).await?;
        // What a client waits for the answer of: a simple query, or the end of an extended one.
        if matches!(kind, b'Q' | b'S') && state.is_cut() {
            state.cuts.send_modify(|cuts| *cuts += 1);
            return Ok(());
        }
        let message = [&[kind], body.as_slice()].concat();
        to.write_all(&message).await?;
    }
}

async fn untyped(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let mut message = length.to_be_bytes().to_vec();
    message.resize(length as usize, 0);
    from.read_exact(&mut message[4..]).await?;
    Ok(message)
}
