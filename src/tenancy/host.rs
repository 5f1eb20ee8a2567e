//! The authority of a request, read strictly: what is not plainly a host name is refused, never repaired.

use crate::error::{Error, Result};
use std::fmt;

/// Bytes that a name may have (RFC 1035 §2.3.4, without the length bytes and the root).
pub(super) const MAX_NAME: usize = 253;
/// Bytes that a label may have.
const MAX_LABEL: usize = 63;

/// A host name and the port that the client used: `acme.localhost:8080`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    host: String,
    port: Option<u16>,
}

impl Authority {
    /// Reads `Acme.localhost:8080`.
    ///
    /// Labels are letters, digits and hyphens only (RFC 1123 §2.1), so other scripts come as punycode, which must be what IDNA
    /// would make of them (UTS 46). No part of a URL goes with it; addresses, IPv4's included, are refused.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port_of(port).ok_or_else(refused)?)),
            None => (text, None),
        };
        let host = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if host.len() > MAX_NAME || !host.split('.').all(is_label) || ends_in_number(&host) {
            return Err(refused());
        }
        Ok(Self { host, port })
    }

    /// The host: lower case, without port and trailing dot.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, if one was named.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

/// As it stands in a link: reads back as itself.
impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// The slug, if the host is a subdomain of a base domain, by one label.
pub fn slug<'a>(host: &'a str, base_domains: &[String]) -> Option<&'a str> {
    base_domains
        .iter()
        .filter_map(|base| host.strip_suffix(base.as_str())?.strip_suffix('.'))
        .find(|slug| !slug.contains('.'))
}

/// Whether the host is a base domain or anywhere below one.
pub fn is_ours(host: &str, base_domains: &[String]) -> bool {
    base_domains
        .iter()
        .filter_map(|base| host.strip_suffix(base.as_str()))
        .any(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn port_of(digits: &str) -> Option<u16> {
    let shaped = digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| shaped)
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= MAX_LABEL
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && (!label.starts_with("xn--")
            || idna::domain_to_ascii_strict(label).is_ok_and(|again| again == label))
}

/// Whether it is an IPv4 address, in any of the spellings that a resolver or a browser takes for one (WHATWG URL §3.5, "ends
/// in a number"): `127.0.0.1`, `127.1`, `2130706433`, `0x7f.1`. No top-level domain is a number.
fn ends_in_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").unwrap_or("-");
    last.bytes().all(|b| b.is_ascii_digit()) || hex.bytes().all(|b| b.is_ascii_hexdigit())
}

fn refused() -> Error {
    Error::BadRequest(
        "The Host is not a host name: letters, digits, hyphens and dots, and a port.".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_host_names() {
        let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(61));
        for (text, host, port) in [
            ("acme.localhost", "acme.localhost", None),
            ("acme.localhost.", "acme.localhost", None),
            ("ACME.LocalHost", "acme.localhost", None),
            ("ACME.Localhost:8080", "acme.localhost", Some(8080)),
            ("acme.localhost.:80", "acme.localhost", Some(80)),
            ("acme.localhost:0", "acme.localhost", Some(0)),
            ("acme.localhost:65535", "acme.localhost", Some(65535)),
            ("acme.localhost:00080", "acme.localhost", Some(80)),
            ("localhost", "localhost", None),
            ("a", "a", None),
            ("9lives.example", "9lives.example", None),
            ("1.2.3.example", "1.2.3.example", None),
            ("0x7f.example", "0x7f.example", None),
            ("example.0xg", "example.0xg", None),
            ("r3---sn-x.example", "r3---sn-x.example", None),
            ("xn--bcher-kva.example", "xn--bcher-kva.example", None),
            ("XN--BCHER-KVA.Example", "xn--bcher-kva.example", None),
            ("xn--fiqs8s", "xn--fiqs8s", None),
            (&long, long.as_str(), None),
            (&format!("{long}."), long.as_str(), None),
        ] {
            let read = Authority::parse(text).unwrap_or_else(|_| panic!("{text:?}"));
            assert_eq!((read.host(), read.port()), (host, port), "{text:?}");
            assert_eq!(Authority::parse(&read.to_string()).unwrap(), read);
        }
    }

    const REFUSED: &[&str] = &[
        // Nothing, dots
        "",
        ".",
        "..",
        ":80",
        ".:80",
        ".localhost",
        "a..b",
        "acme.localhost..",
        // Ports
        "acme.localhost:",
        "acme.localhost:x",
        "acme.localhost:+80",
        "acme.localhost:-1",
        "acme.localhost: 80",
        "acme.localhost:80 ",
        "acme.localhost:65536",
        "acme.localhost:123456",
        "acme.localhost:000080",
        "acme.localhost:80:80",
        "acme.localhost:８０",
        // Parts of URLs, lists
        "http://acme.localhost",
        "//acme.localhost",
        "acme.localhost/",
        "acme.localhost\\",
        "acme.localhost?x",
        "acme.localhost#x",
        "user@acme.localhost",
        "user:secret@acme.localhost",
        "acme.localhost,evil.localhost",
        "acme.localhost, acme.localhost",
        "acme.localhost;evil",
        "*.localhost",
        // Addresses
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0X7F.1",
        "127.0.0.0x1",
        "1.2.3.0x",
        "0177.0.0.01",
        "256.256.256.256",
        "acme.1",
        "::1",
        "[::1]",
        "[::1]:80",
        "[::ffff:127.0.0.1]",
        "[fe80::1%25eth0]",
        "[acme.localhost]",
        // Characters
        " acme.localhost",
        "acme.localhost ",
        "a b.localhost",
        "acme\t.localhost",
        "acme.localhost\r\n",
        "acme.localhost\0",
        "acme.localhost\0.example",
        "acme\u{7f}.localhost",
        "a_b.localhost",
        "_bulkhead.localhost",
        "acme%2elocalhost",
        "%61cme.localhost",
        "acme'.localhost",
        "acme\".localhost",
        "{acme}.localhost",
        "-acme.localhost",
        "acme-.localhost",
        "acme.localhost.-",
        // Other scripts, and what lower-casing or IDNA would turn into ASCII
        "bücher.example",
        "acme。localhost",
        "ａｃｍｅ.localhost",
        "ac\u{ad}me.localhost",
        "\u{212a}acme.localhost",
        "acme.localhost\u{202e}",
        // Punycode: nothing, cut short, of ASCII, of upper case, of what IDNA forbids, out of range
        "xn--.example",
        "xn--a.example",
        "xn--acme-.example",
        "xn--bcher-.example",
        "xn--a-ecp.ru",
        "xn--0ca24w-.example",
        "xn--55qx5d8y0buji4b-.example",
        "xn--99999999.example",
        "xn--xn--bcher-kva-.example",
    ];

    #[test]
    fn refuses_everything_else() {
        let long = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(62));
        let too_long = [
            format!("{}.localhost", "a".repeat(64)),
            format!("{long}."),
            long,
            "a.".repeat(200),
        ];
        let refused = REFUSED.iter().copied();
        for text in refused.chain(too_long.iter().map(String::as_str)) {
            assert!(Authority::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_one_label_below_a_base_is_a_slug() {
        let bases = ["localhost".to_owned(), "app.example.com".to_owned()];
        assert_eq!(slug("acme.localhost", &bases), Some("acme"));
        assert_eq!(slug("acme.app.example.com", &bases), Some("acme"));
        for host in [
            "localhost",
            "a.acme.localhost",
            "acmelocalhost",
            "evil.example.com",
        ] {
            assert_eq!(slug(host, &bases), None, "{host}");
        }
        for host in ["localhost", "acme.localhost", "a.acme.app.example.com"] {
            assert!(is_ours(host, &bases), "{host}");
        }
        for host in ["acmelocalhost", "example.com", "localhost.example"] {
            assert!(!is_ours(host, &bases), "{host}");
        }
    }
}
