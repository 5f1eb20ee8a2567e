//! The proof of a domain: a TXT record that only whoever holds its DNS can publish.

use super::domain::Domain;
use crate::error::{Error, Result};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// How long one question waits for its answer; it is asked twice.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Values of a wrong record that are shown, and characters of each: they are a stranger's.
const SHOWN: (usize, usize) = (3, 80);

/// The record that proves a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands, without the final dot.
    pub name: String,
    /// What it holds.
    pub value: String,
}

impl Record {
    /// The one for this claim.
    pub fn of(claim: &Domain) -> Self {
        Self {
            name: Self::name_of(&claim.host),
            value: format!("bulkhead-verify={}", claim.token),
        }
    }

    pub(super) fn name_of(host: &str) -> String {
        format!("_bulkhead.{host}")
    }
}

/// As a line of a zone file (RFC 1035 §5).
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}. IN TXT \"{}\"", self.name, self.value)
    }
}

/// Name servers to ask.
#[derive(Clone, Debug)]
pub struct Dns(TokioResolver);

/// A claim whose record was seen.
#[derive(Debug)]
pub struct Proof(Domain);

impl Proof {
    /// The claim.
    pub(super) fn of(&self) -> &Domain {
        &self.0
    }
}

impl Dns {
    /// These name servers; the system's, if there are none. By UDP, and by TCP where an answer is too long.
    pub fn new(servers: &[SocketAddr]) -> Result<Self> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|e| {
                Error::config(format!(
                    "the system's name servers are not known ({e}); set BULKHEAD_DNS_SERVERS, e.g. to 9.9.9.9:53"
                ))
            })?
        } else {
            let servers = servers.iter().copied().map(server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        options.timeout = TIMEOUT;
        options.attempts = 1;
        // Who publishes a record and asks again wants to know what is there now.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        builder.build().map(Self).map_err(Error::internal)
    }

    /// Looks for the claim's record. [`Error::Invalid`] says what there is instead.
    pub async fn prove(&self, claim: Domain) -> Result<Proof> {
        let record = Record::of(&claim);
        let failed = |why: String| Err(Error::invalid("host", why));
        // In full, with its dot: no search list is tried.
        let name = format!("{}.", record.name);
        let values = match self.0.lookup(name, RecordType::TXT).await {
            Ok(found) => found
                .answers()
                .iter()
                .filter_map(|a| text(&a.data))
                .collect(),
            Err(error) if error.is_no_records_found() => Vec::new(),
            Err(error) => {
                return failed(format!(
                    "The DNS did not answer for {}: {error}. Try again later.",
                    record.name
                ));
            }
        };
        if values.contains(&record.value) {
            return Ok(Proof(claim));
        }
        if values.is_empty() {
            return failed(format!(
                "The DNS has no TXT record for {}. Publish this one, and verify again when it has spread:\n\n{record}\n",
                record.name
            ));
        }
        failed(format!(
            "The TXT record of {} has another value, {}. It should be:\n\n{record}\n",
            record.name,
            shown(&values)
        ))
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

/// A TXT record's strings, joined (RFC 7208 §3.3).
fn text(data: &RData) -> Option<String> {
    match data {
        RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
        _ => None,
    }
}

/// Escaped, for it goes to a terminal.
fn shown(values: &[String]) -> String {
    let short = |value: &String| format!("{:?}", value.chars().take(SHOWN.1).collect::<String>());
    let values = values.iter().take(SHOWN.0).map(short);
    values.collect::<Vec<_>>().join(", ")
}
