//! The `Host` of a request, read strictly: what is not plainly a host name is refused, never repaired.

use crate::error::{Error, Result};

/// The host name in an authority such as `Acme.localhost:8080`: lower case, without port and trailing dot.
///
/// Letters, digits and hyphens only (RFC 1123 §2.1), so other scripts come as punycode; addresses of IPv6 are refused.
pub fn parse(authority: &str) -> Result<String> {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return Err(refused()),
        None => authority,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > 253 || !name.split('.').all(is_label) {
        return Err(refused());
    }
    Ok(name.to_ascii_lowercase())
}

/// The slug, if the host is a subdomain of a base domain, by one label.
pub fn slug<'a>(host: &'a str, base_domains: &[String]) -> Option<&'a str> {
    base_domains
        .iter()
        .filter_map(|base| host.strip_suffix(base.as_str())?.strip_suffix('.'))
        .find(|slug| !slug.contains('.'))
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit())
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn refused() -> Error {
    Error::BadRequest("The Host header is not a host name.".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_host_names_and_nothing_else() {
        for (authority, host) in [
            ("acme.localhost", "acme.localhost"),
            ("ACME.Localhost:8080", "acme.localhost"),
            ("acme.localhost.:80", "acme.localhost"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(parse(authority).unwrap(), host);
        }
        for authority in [
            "",
            ".",
            "..",
            "a..b",
            "acme.localhost..",
            "acme.localhost:",
            "acme.localhost:x",
            "acme.localhost:123456",
            "a b.localhost",
            "acme.localhost/",
            "user@acme.localhost",
            "acme.localhost,evil",
            "[::1]:80",
            "bücher.example",
            "-acme.localhost",
            "acme-.localhost",
            "a_b.localhost",
            "acme%2e.localhost",
            "acme.localhost\0",
        ] {
            assert!(parse(authority).is_err(), "{authority:?}");
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
    }
}
