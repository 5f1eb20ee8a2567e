//! How long the head of a request may take from its first byte on, or from the beginning of its connection; and how long a
//! client may leave unread what it is sent.
//!
//! hyper's own deadline for heads counts from the end of the answer before. Ours would close connections that a proxy keeps
//! for later, just when it uses one again. For what is not read hyper has none.

use crate::config::HttpLimits;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

const HEAD: u8 = 0;
const BUSY: u8 = 1;
const IDLE: u8 = 2;

const ANSWER: u8 = 0;
const STREAM: u8 = 1;
const SOCKET: u8 = 2;

/// What a connection is doing, as far as who serves its requests can tell.
#[derive(Clone, Debug)]
pub(super) struct Phase(Arc<Doing>);

#[derive(Debug)]
struct Doing {
    reads: AtomicU8,
    writes: AtomicU8,
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sends {
    Answer,
    /// What goes on without end.
    Stream,
    /// What looks after itself.
    Socket,
}

impl Phase {
    /// A head has come, and its request is being served.
    pub(super) fn busy(&self) {
        self.0.reads.store(BUSY, Ordering::Relaxed);
    }

    /// The answer is there, and will be sent. The next byte that comes is the first of a head, unless a WebSocket's client
    /// sends it.
    pub(super) fn answered(&self, sends: Sends) {
        let writes = match sends {
            Sends::Answer => ANSWER,
            Sends::Stream => STREAM,
            Sends::Socket => SOCKET,
        };
        self.0.writes.store(writes, Ordering::Relaxed);
        if writes != SOCKET {
            self.0.reads.store(IDLE, Ordering::Relaxed);
        }
    }

    /// How long nothing of what is sent may be taken.
    fn unread_time(&self, limits: &HttpLimits) -> Option<Duration> {
        match self.0.writes.load(Ordering::Relaxed) {
            SOCKET => None,
            STREAM => Some(limits.slow_time()),
            _ => Some(limits.body_time()),
        }
    }
}

/// A connection that ends when a head does not come in time, or its client does not read.
#[derive(Debug)]
pub(super) struct Patient {
    stream: TcpStream,
    phase: Phase,
    limits: HttpLimits,
    /// There once a head is waited for.
    timer: Option<Pin<Box<Sleep>>>,
    /// There while the client has no room for what it is sent.
    unread: Option<Pin<Box<Sleep>>>,
    /// Among the connections that are served: free once this one is closed, be it as a WebSocket.
    _place: Option<OwnedSemaphorePermit>,
}

impl Patient {
    /// A new connection, whose first head is awaited.
    pub(super) fn new(
        stream: TcpStream,
        place: Option<OwnedSemaphorePermit>,
        limits: HttpLimits,
    ) -> (Self, Phase) {
        let phase = Phase(Arc::new(Doing {
            reads: AtomicU8::new(HEAD),
            writes: AtomicU8::new(ANSWER),
        }));
        let patient = Self {
            stream,
            phase: phase.clone(),
            limits,
            timer: None,
            unread: None,
            _place: place,
        };
        (patient, phase)
    }

    /// What became of an attempt to send, until it has waited for too long.
    fn in_time(
        &mut self,
        cx: &mut Context<'_>,
        sent: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if sent.is_ready() {
            self.unread = None;
            return sent;
        }
        let Some(limit) = self.phase.unread_time(&self.limits) else {
            return Poll::Pending;
        };
        let timer = self.unread.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let phase = self.phase.0.reads.load(Ordering::Relaxed);
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            if phase == IDLE {
                self.timer = None;
                self.phase.0.reads.store(HEAD, Ordering::Relaxed);
            }
            return Poll::Ready(read);
        }
        if phase == HEAD {
            let limit = self.limits.header_time();
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
            ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.in_time(cx, sent)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.in_time(cx, sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
