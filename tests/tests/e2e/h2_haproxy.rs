//! The cases that play a client of HTTP/2 are right: what people run has the same to say
//! to them, but for what is listed.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use ambassador_tests::program::Running;
use ambassador_tests::proxy::Scratch;
use ambassador_tests::{Client, eventually, ports};

use crate::{h2_conformance, h2_server};

/// HAProxy, which ends with this.
struct Haproxy {
    address: SocketAddr,
    _running: Running,
    _scratch: Scratch,
}

impl Haproxy {
    #[track_caller]
    fn in_front_of(upstream: SocketAddr) -> Haproxy {
        let scratch = Scratch::new();
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let text = format!(
            "defaults\n  mode http\n  timeout client 10s\n  timeout server 10s\n  timeout connect 5s\n\
             frontend f\n  bind {address} proto h2\n  default_backend b\n\
             backend b\n  server s {upstream}\n"
        );
        let mut command = Command::new("haproxy");
        command
            .args(["-db", "-f"])
            .arg(scratch.file("haproxy.cfg", &text));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let running = Running::start(&mut command);
        eventually("HAProxy listens", Duration::from_secs(10), || {
            Client::try_connect(address).is_some()
        });
        Haproxy {
            address,
            _running: running,
            _scratch: scratch,
        }
    }
}

#[test]
fn agrees_with_h2_server() {
    let server = h2_server::upstream();
    let haproxy = Haproxy::in_front_of(server.address());
    let mut cases = h2_server::all();
    let all = cases.len();
    cases.retain(|case| !DISPUTES.contains(&case.what));
    assert_eq!(all - cases.len(), DISPUTES.len(), "each is a case");
    expect_none(&h2_server::play(haproxy.address, &cases));
}

#[test]
fn agrees_with_h2_conformance() {
    let server = h2_conformance::stage::upstream();
    let haproxy = Haproxy::in_front_of(server.address());
    let mut cases = h2_conformance::all();
    let all = cases.len();
    cases.retain(|case| !DISPUTES_OF_H2SPEC.contains(&(case.section, case.says)));
    assert_eq!(
        all - cases.len(),
        DISPUTES_OF_H2SPEC.len(),
        "each is a case"
    );
    expect_none(&h2_conformance::stage::against(haproxy.address, &cases));
}

#[track_caller]
fn expect_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Cases of `h2_server` that HAProxy 2.6 sees differently.
const DISPUTES: [&str; 20] = [
    // It ends the connection.
    "DATA of nothing but padding",
    "half-closed: trailers",
    "PRIORITY that depends on itself",
    // It names another error.
    "a name without a character",
    "a pseudo field in trailers",
    "a pseudo field in trailers behind what was told, later",
    "an upper-case name in trailers",
    "LF in trailers",
    "a field of connections in trailers",
    // It answers 400.
    "a :method with a space",
    "an authority with a space",
    // It does not look.
    "SETTINGS that open a window above 2^31 - 1",
    "a value that begins with a space",
    "a value that ends with a tab",
    "a host that is not the authority",
    "user information",
    "content shorter than was told, before trailers",
    "no content in place of what was told",
    // It has answered before the end of the request, and then resets its stream.
    "content where none was told, later",
    "an end that comes after a head without content",
];

/// Cases of `h2_conformance` that it sees differently.
const DISPUTES_OF_H2SPEC: [(&str, &str); 12] = [
    // It leaves when its client says GOAWAY.
    ("generic/3.8", "GOAWAY"),
    ("http2/7", "GOAWAY with an unknown code"),
    // It ends the connection.
    ("generic/3.1", "DATA with padding"),
    ("http2/5.1", "half-closed: HEADERS"),
    ("http2/5.3.1", "HEADERS that depend on themselves"),
    ("http2/6.3", "PRIORITY of 4 octets"),
    ("http2/8.1", "HEADERS a second time, without an end"),
    ("http2/8.1.2.1", "a pseudo field in trailers"),
    // It names STREAM_CLOSED.
    ("http2/5.1", "reset: CONTINUATION"),
    ("http2/5.1", "closed: CONTINUATION"),
    ("http2/5.1.1", "HEADERS on a stream below another"),
    // This too, if it has answered by then.
    ("http2/6.10", "CONTINUATION behind the last one"),
];
