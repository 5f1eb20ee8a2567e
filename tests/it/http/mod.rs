//! HTTP below GraphQL and the REST routes: connections and their deadlines, what browsers are told, compression, and what
//! fails on our side.

mod answers;
mod browsers;
mod connections;

use crate::harness::Tenant;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// A connection on which these bytes were sent.
fn send(tenant: &Tenant, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&tenant.world.address).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    stream
}

/// Everything that comes until the other side closes.
fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end too: of a connection that was closed with something unread.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
