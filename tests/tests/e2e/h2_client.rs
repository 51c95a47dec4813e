//! HTTP/2 towards upstreams, beyond the cases of h2spec, which are those of
//! `h2_conformance`: what more RFC 9113 and RFC 7541 do not let a server do. Its caller
//! gets an answer of the proxy's own, and the others their answers.

mod frames;
mod messages;
mod script;

use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{Backend, Proxy, on_both_backends};

use script::{Case, Stage};

on_both_backends!(
    frames_that_end_the_connection,
    frames_that_end_the_stream_or_nothing,
    malformed_fields_end_the_stream,
    malformed_exchanges_end_the_stream,
);

/// Plays all of them through a proxy that tries once and never has enough.
#[track_caller]
fn hold(backend: Backend, cases: &[Case]) {
    let stage = Stage::new();
    let more = "protocol: http2\nretry: { attempts: 1 }\ncircuit_breaker: { failures: 10000 }";
    let config = one_upstream(stage.listen, stage.server.address(), more);
    // With one worker all requests are made over one connection.
    let mut proxy = Proxy::start(backend, &format!("workers: 1\n{config}"));
    let wrong = stage.play(cases);
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    assert!(proxy.is_running());
}

fn frames_that_end_the_connection(backend: Backend) {
    hold(backend, &frames::of_connections());
}

fn frames_that_end_the_stream_or_nothing(backend: Backend) {
    hold(backend, &frames::of_streams());
}

fn malformed_fields_end_the_stream(backend: Backend) {
    hold(backend, &messages::fields());
}

fn malformed_exchanges_end_the_stream(backend: Backend) {
    hold(backend, &messages::exchanges());
}
