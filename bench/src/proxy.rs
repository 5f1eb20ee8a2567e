//! A proxy between Bulkhead and PostgreSQL that reads the client's messages, counts them, and can change them: what a
//! server would send whose binding is wrong, without a wrong server.

use crate::Result;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What a client asks before it starts: for TLS, and for GSSAPI. Here there is neither.
const ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];
/// The statements that bind a transaction to a tenant, as far as they are alike for all.
const BINDINGS: [&str; 2] = ["SET LOCAL ROLE", "SET LOCAL search_path"];
/// Bytes that a message may have.
const MAX_MESSAGE: usize = 1 << 24;

/// What is done to the messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// The binding lasts for the session, as in systems that set it once and forget it: `SET` for `SET LOCAL`.
    pub(crate) session: bool,
    /// Of this many begins one does not bind at all; 0: all do.
    pub(crate) forgotten: u32,
    /// Of the choice which.
    pub(crate) seed: u64,
}

/// What came by.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Statements: the simple protocol's queries, and executions of prepared ones.
    pub(crate) statements: AtomicU64,
    /// Bindings made to last, and bindings left out.
    pub(crate) faults: AtomicU64,
}

/// A running proxy: it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Where it listens.
    pub(crate) port: u16,
    /// What came by.
    pub(crate) seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts one in front of a port of this machine.
    pub(crate) async fn start(upstream: u16, faults: Faults) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Seen::default());
        let editor = Arc::new(Editor {
            faults,
            random: Mutex::new(StdRng::seed_from_u64(faults.seed)),
            seen: Arc::clone(&seen),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let editor = Arc::clone(&editor);
                connections.spawn(async move {
                    // A connection that breaks is broken on both sides: that is all there is to say.
                    let _ = relay(client, upstream, &editor).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            port,
            seen,
            _tasks: tasks,
        })
    }
}

/// Passes on both ways, until either side ends.
async fn relay(client: TcpStream, upstream: u16, editor: &Editor) -> Result<()> {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    start(&mut from_client, &mut to_client, &mut to_server).await?;
    tokio::select! {
        ended = messages(&mut from_client, &mut to_server, editor) => ended,
        ended = async { copy(&mut from_server, &mut to_client).await } => Ok(ended.map(drop)?),
    }
}

/// The messages before the first that has a type.
async fn start(
    from_client: &mut OwnedReadHalf,
    to_client: &mut OwnedWriteHalf,
    to_server: &mut OwnedWriteHalf,
) -> Result<()> {
    loop {
        let length = from_client.read_u32().await?;
        let mut body = vec![0; body_of(length)?];
        from_client.read_exact(&mut body).await?;
        let code = body.first_chunk().map(|code| u32::from_be_bytes(*code));
        if code.is_some_and(|code| ENCRYPTION.contains(&code)) {
            to_client.write_all(b"N").await?;
            continue;
        }
        to_server
            .write_all(&[&length.to_be_bytes(), &body[..]].concat())
            .await?;
        return Ok(());
    }
}

/// All others: a type, a length, a body.
async fn messages(
    from_client: &mut OwnedReadHalf,
    to_server: &mut OwnedWriteHalf,
    editor: &Editor,
) -> Result<()> {
    let mut from_client = tokio::io::BufReader::new(from_client);
    let mut message = Vec::new();
    loop {
        let kind = from_client.read_u8().await?;
        let length = from_client.read_u32().await?;
        let head = message.len() + 5;
        message.push(kind);
        message.extend(length.to_be_bytes());
        message.resize(head + body_of(length)?, 0);
        from_client.read_exact(&mut message[head..]).await?;
        editor.edit(kind, &mut message[head..]);
        // What came together goes on together.
        if from_client.buffer().is_empty() {
            to_server.write_all(&message).await?;
            message.clear();
        }
    }
}

fn body_of(length: u32) -> Result<usize> {
    let body = usize::try_from(length)?.checked_sub(4);
    body.filter(|&body| body <= MAX_MESSAGE)
        .ok_or_else(|| "not a message of PostgreSQL's protocol".into())
}

#[derive(Debug)]
struct Editor {
    faults: Faults,
    random: Mutex<StdRng>,
    seen: Arc<Seen>,
}

impl Editor {
    /// Counts a message and changes it, its length kept.
    fn edit(&self, kind: u8, body: &mut [u8]) {
        if matches!(kind, b'Q' | b'E') {
            self.seen.statements.fetch_add(1, Ordering::Relaxed);
        }
        if !matches!(kind, b'Q' | b'P') {
            return;
        }
        let forgotten = self.faults.forgotten > 0 && {
            let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
            random.random_range(0..self.faults.forgotten) == 0
        };
        for binding in BINDINGS {
            let mut from = 0;
            while let Some(at) = find(&body[from..], binding.as_bytes()).map(|at| from + at) {
                from = at + binding.len();
                if forgotten {
                    let end = find(&body[at..], b";").or_else(|| find(&body[at..], b"\0"));
                    body[at..at + end.unwrap_or(0)].fill(b' ');
                } else if self.faults.session {
                    body[at + 4..at + 9].fill(b' ');
                } else {
                    continue;
                }
                self.seen.faults.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Where the needle begins.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(faults: Faults, text: &str) -> String {
        let editor = Editor {
            faults,
            random: Mutex::new(StdRng::seed_from_u64(0)),
            seen: Arc::default(),
        };
        let mut body = text.as_bytes().to_vec();
        editor.edit(b'Q', &mut body);
        String::from_utf8(body).unwrap()
    }

    #[test]
    fn bindings_last_or_are_left_out() {
        let begin =
            "BEGIN; SET LOCAL ROLE \"r\"; SET LOCAL search_path TO \"t_1\", pg_temp; SELECT 1\0";
        let session = Faults {
            session: true,
            ..Faults::default()
        };
        assert_eq!(
            edited(session, begin),
            "BEGIN; SET       ROLE \"r\"; SET       search_path TO \"t_1\", pg_temp; SELECT 1\0"
        );
        let forgotten = Faults {
            forgotten: 1,
            ..Faults::default()
        };
        let left: String = edited(forgotten, begin)
            .chars()
            .filter(|c| *c != ' ')
            .collect();
        assert_eq!(left, "BEGIN;;;SELECT1\0");
        assert_eq!(edited(forgotten, begin).len(), begin.len());
        assert_eq!(edited(Faults::default(), begin), begin);
    }
}
