//! Streams between clients and servers of Node, in every pair of protocols: answers that
//! come bit by bit or late, both directions at once, uploads in flat memory, and slow
//! streams beside others.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ambassador_tests::program::Running;
use ambassador_tests::{Backend, Proxy, on_both_backends, ports};

on_both_backends!(
    both_directions_flow_at_once,
    events_come_as_they_happen,
    answers_may_be_long_in_coming,
    an_upload_of_a_gibibyte_is_not_collected,
    slow_streams_hold_no_other,
);

const MIB: u64 = 1 << 20;

/// A talk takes seconds, and longer where others share the processors.
const LIMIT: Duration = Duration::from_secs(300);

fn script(arguments: [&str; 3]) -> Command {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e");
    let mut node = Command::new("node");
    node.arg(directory.join("streams.mjs")).args(arguments);
    node
}

/// A client of each protocol talks with a server of each, and the proxy, whose private
/// memory grows by so much at most, is between them.
fn talk(backend: Backend, what: &str, most: u64) {
    for upstream in ["http1", "http2"] {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let mut server = script(["serve", upstream, &address.port().to_string()]);
        let mut running = Running::start(server.stdout(Stdio::piped()));
        let mut lines = BufReader::new(running.stdout()).lines();
        let line = lines.next().expect("a line").expect("readable");
        assert_eq!(line, "ready");
        for caller in ["http1", "http2"] {
            let protocol = format!("protocol: {upstream}");
            let (proxy, listen) = Proxy::in_front_of_with(backend, address, &protocol);
            let before = proxy.anonymous_bytes();
            let mut client = script(["talk", caller, &listen.port().to_string()]);
            let mut client = Running::start(client.arg(what));
            let mut highest = before;
            let deadline = Instant::now() + LIMIT;
            while client.is_running() {
                assert!(
                    Instant::now() < deadline,
                    "{caller} to {upstream}: it stands"
                );
                highest = highest.max(proxy.anonymous_bytes());
                std::thread::sleep(Duration::from_millis(10));
            }
            let status = client.wait(Duration::ZERO);
            assert!(status.success(), "{caller} to {upstream}: {status}");
            let grown = highest - before;
            println!("{what}, {caller} to {upstream}: {} KiB more", grown / 1024);
            assert!(grown < most, "{caller} to {upstream}: {grown} bytes");
        }
    }
}

fn both_directions_flow_at_once(backend: Backend) {
    talk(backend, "duplex", 8 * MIB);
}

fn events_come_as_they_happen(backend: Backend) {
    talk(backend, "events", 8 * MIB);
}

fn answers_may_be_long_in_coming(backend: Backend) {
    talk(backend, "poll", 8 * MIB);
}

fn an_upload_of_a_gibibyte_is_not_collected(backend: Backend) {
    talk(backend, "upload", 8 * MIB);
}

fn slow_streams_hold_no_other(backend: Backend) {
    talk(backend, "slow", 16 * MIB);
}
