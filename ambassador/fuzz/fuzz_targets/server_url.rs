//! The URL of a server that gives credentials: no input panics, plain text goes to this
//! machine alone, and what is accepted is written as one that reads the same.

#![no_main]

use std::net::IpAddr;

use ambassador::testing::credential::server_url::{Scheme, ServerUrl};
use libfuzzer_sys::fuzz_target;

/// Where programs of AWS get credentials.
const AGENTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(url) = ServerUrl::parse(text) else {
        return;
    };
    let again = ServerUrl::parse(&url.to_string());
    assert_eq!(again.as_ref(), Ok(&url));
    // The request line ends where it should.
    let target = url.target();
    assert!(target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic()));
    if url.scheme() == Scheme::Http {
        let host = url.host();
        let is_local = host.parse().is_ok_and(|ip: IpAddr| {
            let agents = AGENTS.map(|agent| agent.parse().ok());
            ip.to_canonical().is_loopback() || agents.contains(&Some(ip.to_canonical()))
        });
        assert!(is_local || host == "localhost", "{host}");
    }
});
