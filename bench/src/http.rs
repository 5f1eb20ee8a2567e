//! HTTP/1.1 as far as the load needs it: requests made once, answers of a known length, connections kept.

use crate::Result;
use std::fmt::Write as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Free room that a read begins with.
const ROOM: usize = 4096;
/// Bytes that an answer may have.
const MAX_ANSWER: usize = 8 << 20;

/// The bytes of a request; with a body it is a POST of JSON.
pub(crate) fn request(path: &str, host: &str, token: Option<&str>, body: Option<&str>) -> Vec<u8> {
    let method = if body.is_some() { "POST" } else { "GET" };
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n");
    // Writing into a String cannot fail.
    if let Some(token) = token {
        let _ = write!(head, "Authorization: Bearer {token}\r\n");
    }
    if let Some(body) = body {
        let length = body.len();
        let _ = write!(
            head,
            "Content-Type: application/json\r\nContent-Length: {length}\r\n"
        );
    }
    format!("{head}\r\n{}", body.unwrap_or_default()).into_bytes()
}

/// An answer, in its connection's buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    /// Its status.
    pub(crate) status: u16,
    /// Its body.
    pub(crate) body: &'a [u8],
}

/// A connection that asks one thing after another.
#[derive(Debug)]
pub(crate) struct Connection {
    address: String,
    /// None after an answer that ended the connection.
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    /// A connection to `address`, host and port, opened when it is needed.
    pub(crate) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            stream: None,
            buffer: Vec::with_capacity(4 * ROOM),
        }
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(&self.address).await?,
        };
        stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            more(&mut stream, &mut self.buffer).await?;
            if let Some(end) = self
                .buffer
                .windows(4)
                .position(|bytes| bytes == b"\r\n\r\n")
            {
                break Head::parse(&self.buffer[..end])?;
            }
        };
        while self.buffer.len() < head.end() {
            more(&mut stream, &mut self.buffer).await?;
        }
        self.stream = (!head.last).then_some(stream);
        let body = &self.buffer[head.size..head.end()];
        Ok(Answer {
            status: head.status,
            body,
        })
    }
}

async fn connect(address: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|e| format!("nothing answers at {address}: {e}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<()> {
    if buffer.capacity() - buffer.len() < ROOM {
        buffer.reserve(buffer.capacity());
    }
    match stream.read_buf(buffer).await? {
        0 => Err("the connection was closed before its answer came".into()),
        _ if buffer.len() > MAX_ANSWER => Err("the answer is too long".into()),
        _ => Ok(()),
    }
}

/// What matters of an answer's head.
struct Head {
    status: u16,
    /// Bytes of the head, with the empty line.
    size: usize,
    /// Bytes of the body.
    length: usize,
    /// The server closes the connection.
    last: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes)?;
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .unwrap_or_default()
            .parse()?;
        let mut length = None;
        let mut last = false;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse()?);
            } else if name.eq_ignore_ascii_case("connection") {
                last = value.trim().eq_ignore_ascii_case("close");
            }
        }
        let length = length.ok_or("an answer without Content-Length cannot be measured")?;
        Ok(Self {
            status,
            size: bytes.len() + 4,
            length,
            last,
        })
    }

    fn end(&self) -> usize {
        self.size + self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let head =
            Head::parse(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nConnection: close").unwrap();
        assert_eq!((head.status, head.length, head.last), (200, 12, true));
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked").is_err());
    }
}
