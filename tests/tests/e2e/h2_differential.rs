//! Sequences of frames by chance, right and wrong, to the proxy and to the library h2 of
//! Python: both have to make the same of them, but for what is listed with its section in
//! `h2_known.py`. `AMBASSADOR_SEQUENCES` says how many, `AMBASSADOR_SEED` which.

use std::io::Read;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use ambassador_tests::program::{self, Running};
use ambassador_tests::{Backend, Proxy, on_both_backends, ports};

on_both_backends!(
    both_make_the_same_of_a_client,
    both_make_the_same_of_a_server,
);

/// The library.
const PACKAGES: &str = "h2==4.4.1 hpack==4.2.0 hyperframe==6.1.0";

fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| {
        let value = value.parse().ok();
        value.unwrap_or_else(|| panic!("{name} is no number"))
    })
}

/// Plays them with the proxy in this role; its upstream is the script.
#[track_caller]
fn play(backend: Backend, role: &str, protocol: &str) {
    let count: u64 = variable("AMBASSADOR_SEQUENCES", 300);
    let seed: u64 = variable("AMBASSADOR_SEED", 1);
    let upstream = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let more = format!(
        "protocol: {protocol}\nretry: {{ attempts: 1 }}\ncircuit_breaker: {{ failures: off }}\n\
         outlier: {{ consecutive: off }}"
    );
    let (mut proxy, listen) = Proxy::in_front_of_with(backend, upstream, &more);
    let mut script = program::script(PACKAGES, "h2_differential.py");
    script.args([role, &listen.to_string(), &upstream.port().to_string()]);
    script.args([seed.to_string(), count.to_string()]);
    let mut running = Running::start(script.stdin(Stdio::null()).stdout(Stdio::piped()));
    let mut said = String::new();
    let read = running.stdout().read_to_string(&mut said);
    read.expect("it writes text");
    println!("{said}");
    let status = running.wait(Duration::from_secs(5));
    assert!(status.success(), "{said}");
    assert!(proxy.is_running());
}

fn both_make_the_same_of_a_client(backend: Backend) {
    play(backend, "server", "http1");
}

fn both_make_the_same_of_a_server(backend: Backend) {
    play(backend, "client", "http2");
}
