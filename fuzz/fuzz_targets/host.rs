//! Whatever the bytes, the parser answers, and what it accepts is canonical: `cargo +nightly fuzz run host fuzz/seeds/host`.

#![no_main]

use bulkhead::tenancy::host::Authority;
use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;

fuzz_target!(|bytes: &[u8]| {
    let Some((text, read)) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| Some((text, Authority::parse(text).ok()?)))
    else {
        return;
    };
    let host = read.host();
    let shaped = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b);
    assert!(
        (1..=253).contains(&host.len()) && host.bytes().all(shaped),
        "{host:?}"
    );
    assert!(
        host.split('.').all(|label| (1..=63).contains(&label.len())),
        "{host:?}"
    );
    assert!(host.parse::<IpAddr>().is_err(), "{host:?}");
    assert!(
        text.to_ascii_lowercase().starts_with(host),
        "{text:?} reads as {host:?}"
    );
    assert_eq!(Authority::parse(&read.to_string()).unwrap(), read);
    assert_eq!(Authority::parse(host).unwrap().host(), host);
});
