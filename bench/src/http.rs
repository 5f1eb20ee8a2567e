//! HTTP/1.1 as far as the load needs it: requests made once, answers by length or in chunks, connections kept.

use crate::Result;
use std::fmt::Write as _;
use std::ops::Range;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Free room that a read begins with.
const ROOM: usize = 4096;
/// Bytes that an answer may have.
const MAX_ANSWER: usize = 8 << 20;

/// The bytes of a request; with a body it is a POST of JSON.
pub(crate) fn request(path: &str, host: &str, token: Option<&str>, body: Option<&str>) -> Vec<u8> {
    let method = if body.is_some() { "POST" } else { "GET" };
    let mut headers = vec![("Host", host), ("Accept", "application/json")];
    let bearer = token.map(|token| format!("Bearer {token}"));
    headers.extend(bearer.as_deref().map(|bearer| ("Authorization", bearer)));
    headers.extend(body.map(|_| ("Content-Type", "application/json")));
    message((method, path), &headers, body.map(str::as_bytes))
}

/// The bytes of any request.
pub(crate) fn message(
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    // Writing into a String cannot fail.
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if let Some(body) = body {
        let _ = write!(head, "Content-Length: {}\r\n", body.len());
    }
    let mut bytes = format!("{head}\r\n").into_bytes();
    bytes.extend(body.unwrap_or_default());
    bytes
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

    /// What was read since the last request began, head and all: also of an answer that was not waited for.
    pub(crate) fn received(&self) -> &[u8] {
        &self.buffer
    }

    /// Sends a request and reads its answer. Dropped before, it closes the connection.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.buffer.clear();
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(&self.address).await?,
        };
        stream.write_all(request).await?;
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
        let body = loop {
            if let Some(body) = head.body(&mut self.buffer) {
                break body;
            }
            more(&mut stream, &mut self.buffer).await?;
        };
        self.stream = (!head.last).then_some(stream);
        Ok(Answer {
            status: head.status,
            body: &self.buffer[body],
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
    /// Bytes of the body; none if it comes in chunks.
    length: Option<usize>,
    /// The server closes the connection.
    last: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let mut lines = std::str::from_utf8(bytes)?.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let mut head = Self {
            status: status.unwrap_or_default().parse()?,
            size: bytes.len() + 4,
            length: None,
            last: false,
        };
        let mut chunked = false;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.length = Some(value.parse()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.eq_ignore_ascii_case("chunked");
            } else if name.eq_ignore_ascii_case("connection") {
                head.last = value.eq_ignore_ascii_case("close");
            }
        }
        if chunked == head.length.is_some() {
            return Err("an answer has either Content-Length or chunks".into());
        }
        Ok(head)
    }

    /// Where the whole body is in what was read; none while more is to come. Chunks are joined behind their source.
    fn body(&self, read: &mut Vec<u8>) -> Option<Range<usize>> {
        let Some(length) = self.length else {
            let body = join(&read[self.size..])?;
            let begin = read.len();
            read.extend(body);
            return Some(begin..read.len());
        };
        let body = self.size..self.size + length;
        (read.len() >= body.end).then_some(body)
    }
}

/// The text of all chunks (RFC 9112 §7.1), if the last has come.
fn join(mut chunks: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = chunks.windows(2).position(|bytes| bytes == b"\r\n")?;
        let size = std::str::from_utf8(&chunks[..line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        chunks = &chunks[line + 2..];
        // What follows a chunk is an empty line; trailers are not expected.
        let (chunk, rest) = chunks.split_at_checked(size)?;
        chunks = rest.get(2..)?;
        if size == 0 {
            return Some(body);
        }
        body.extend(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let head =
            Head::parse(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nConnection: close").unwrap();
        assert_eq!((head.status, head.length, head.last), (200, Some(12), true));
        let head = Head::parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked").unwrap();
        assert_eq!((head.status, head.length, head.last), (200, None, false));
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\nServer: none").is_err());
    }

    #[test]
    fn chunks() {
        let whole = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(join(whole).unwrap(), b"abcde");
        for end in 0..whole.len() {
            assert!(join(&whole[..end]).is_none(), "{end}");
        }
    }
}
