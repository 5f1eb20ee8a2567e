//! A name server of the tests' own: TXT records from memory, by UDP and TCP.

use super::RUNTIME;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{RData, Record};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// Bytes of an answer by UDP; what is longer has to be asked for by TCP.
const MAX_UDP: usize = 512;

/// What it knows, by names in lower case without the final dot.
#[derive(Debug, Default)]
struct State {
    /// The values of the TXT records.
    records: HashMap<String, Vec<String>>,
    asked: HashSet<String>,
}

type Shared = Arc<Mutex<State>>;

/// A name server. It runs as long as the tests do.
#[derive(Debug)]
pub struct NameServer {
    pub address: SocketAddr,
    state: Shared,
}

impl NameServer {
    /// Starts one that knows of nothing.
    pub async fn start() -> Self {
        // One port for both: the first that is free for TCP may be taken for UDP.
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (tcp, udp);
            }
        };
        let server = Self {
            address: tcp.local_addr().unwrap(),
            state: Shared::default(),
        };
        let state = Arc::clone(&server.state);
        RUNTIME.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((size, peer)) = udp.recv_from(&mut buffer).await {
                let mut answer = answer(&state, &buffer[..size]);
                if answer.to_vec().unwrap().len() > MAX_UDP {
                    answer = answer.truncate();
                }
                udp.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
            }
        });
        let state = Arc::clone(&server.state);
        RUNTIME.spawn(async move {
            while let Ok((stream, _)) = tcp.accept().await {
                let state = Arc::clone(&state);
                RUNTIME.spawn(async move { drop(serve(stream, &state).await) });
            }
        });
        server
    }

    /// Publishes these values under a name, in place of those that were there.
    pub fn publish(&self, name: &str, values: &[&str]) {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        self.state
            .lock()
            .unwrap()
            .records
            .insert(name.to_owned(), values);
    }

    /// Removes the name.
    pub fn withdraw(&self, name: &str) {
        self.state.lock().unwrap().records.remove(name);
    }

    /// Whether somebody asked for the name.
    pub fn asked(&self, name: &str) -> bool {
        self.state.lock().unwrap().asked.contains(name)
    }
}

async fn serve(mut stream: TcpStream, state: &Shared) -> std::io::Result<()> {
    loop {
        let size = stream.read_u16().await?;
        let mut query = vec![0; size.into()];
        stream.read_exact(&mut query).await?;
        let answer = answer(state, &query).to_vec().unwrap();
        stream.write_u16(answer.len().try_into().unwrap()).await?;
        stream.write_all(&answer).await?;
    }
}

/// Names that begin with `_bulkhead.broken-` are answered with SERVFAIL.
fn answer(state: &Shared, query: &[u8]) -> Message {
    let query = Message::from_vec(query).unwrap();
    let asked = query.queries[0].name().clone();
    let name = asked.to_ascii().to_lowercase();
    let name = name.trim_end_matches('.');
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.add_queries(query.queries);
    let mut state = state.lock().unwrap();
    state.asked.insert(name.to_owned());
    match state.records.get(name) {
        _ if name.starts_with("_bulkhead.broken-") => {
            answer.metadata.response_code = ResponseCode::ServFail;
        }
        Some(values) => {
            for value in values {
                // A string of a record has 255 bytes at most; what is longer is several.
                let strings = value.as_bytes().chunks(40).collect();
                let data = RData::TXT(TXT::from_bytes(strings));
                answer.add_answer(Record::from_rdata(asked.clone(), 3600, data));
            }
        }
        None => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer
}
