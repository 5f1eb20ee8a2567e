//! The address of a request's client.

use axum::extract::{ConnectInfo, Request};
use axum::http::HeaderName;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The other end of the connection. A listener of both families sees IPv4's addresses as ::ffff:0:0/96.
pub(super) fn peer(request: &Request) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or(Ipv6Addr::UNSPECIFIED.into(), |ConnectInfo(peer)| {
        peer.ip().to_canonical()
    })
}

/// Whether it is a proxy that is believed.
pub(super) fn is_listed(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// The peer, unless it is a listed proxy: then the last address in `X-Forwarded-For` that is none. Each proxy appends who
/// asked it, so what stands before that address is only what somebody says.
pub(super) fn address(request: &Request, trusted: &[IpNet]) -> IpAddr {
    let mut address = peer(request);
    let forwarded = request.headers().get_all(&X_FORWARDED_FOR).iter();
    let texts: Vec<&str> = forwarded.map(|v| v.to_str().unwrap_or("")).collect();
    let hops = texts.iter().flat_map(|text| text.split(','));
    let hops: Vec<&str> = hops.collect();
    for hop in hops.into_iter().rev() {
        match parse(hop.trim()) {
            Some(hop) if is_listed(address, trusted) => address = hop,
            _ => break,
        }
    }
    address
}

/// An address, perhaps in brackets or with a port.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.trim_matches(['[', ']']).parse::<IpAddr>();
    let address = bare.or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn only_what_listed_proxies_append_is_believed() {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|net| net.parse().unwrap());
        for (peer, forwarded, wanted) in [
            ("192.0.2.1", &[][..], "192.0.2.1"),
            ("192.0.2.1", &["198.51.100.7"], "192.0.2.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
            (
                "10.0.0.1",
                &["1.1.1.1", "198.51.100.7,10.0.0.9 "],
                "198.51.100.7",
            ),
            ("10.0.0.1", &["198.51.100.7:5123"], "198.51.100.7"),
            ("fd00::1", &["[2001:db8::7]:5123"], "2001:db8::7"),
            ("fd00::1", &["[2001:db8::7]"], "2001:db8::7"),
            // Nothing but proxies, or nonsense: the last that is sure.
            ("10.0.0.1", &["10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["1.1.1.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
        ] {
            let mut request = Request::builder();
            for value in forwarded {
                request = request.header(X_FORWARDED_FOR, *value);
            }
            let mut request = request.body(Body::empty()).unwrap();
            let peer = SocketAddr::new(peer.parse().unwrap(), 1);
            request.extensions_mut().insert(ConnectInfo(peer));
            let found = address(&request, &trusted);
            assert_eq!(found, wanted.parse::<IpAddr>().unwrap(), "{forwarded:?}");
        }
    }
}
