//! gRPC with Envoy on either side of the proxy, and connections that one of the two ends
//! while calls are made over them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ambassador_tests::proxy::{Scratch, one_upstream};
use ambassador_tests::{
    Backend, GrpcCall, GrpcServer, Proxy, Script, envoy, eventually, on_both_backends,
};
use serde_json::json;

use crate::h2_grpc::{Library, Peer, World, all_pass, assert_ok};
use crate::tls_upstream::free;

on_both_backends!(
    the_proxy_passes_calls_on_to_envoy,
    envoy_passes_calls_on_to_the_proxy,
    envoy_ends_its_connections_and_no_call,
    the_proxy_drains_behind_envoy_and_no_call_fails,
);

const SOON: Duration = Duration::from_secs(10);

fn the_proxy_passes_calls_on_to_envoy(backend: Backend) {
    let (peer, scratch) = (Peer::start(), Scratch::new());
    let (address, listen) = (free(), free());
    let _envoy = envoy::start(&scratch, address, &[peer.address], "");
    let _proxy = Proxy::start(backend, &one_upstream(listen, address, "protocol: grpc"));
    passes(Library::Python, listen, &peer);
}

fn envoy_passes_calls_on_to_the_proxy(backend: Backend) {
    let (world, scratch) = (World::start(backend), Scratch::new());
    let address = free();
    let _envoy = envoy::start(&scratch, address, &[world.listen], "");
    passes(Library::Node, address, &world.peer);
}

/// Each kind of call, trailers, a large message, and calls that end before their time.
#[track_caller]
fn passes(client: Library, address: SocketAddr, peer: &Peer) {
    all_pass(client, address);
    let call = |words: &[&str]| client.call(address, words);
    let said = call(&["echo", "hello"]);
    let trailing = said["trailing"].as_array().expect("a list of pairs");
    let binary = json!(["x-trailing-bin", "0001"]);
    assert!(trailing.contains(&binary), "{said}");
    assert_ok(&call(&["big", "4194304"]), "length", json!(4 << 20));
    let late = call(&["late"]);
    let (code, got) = (&late["code"], &late["got"]);
    assert_eq!((code, got), (&json!("DATA_LOSS"), &json!(["first"])));
    assert_eq!(call(&["deadline", "2"])["code"], "DEADLINE_EXCEEDED");
    peer.expect_end("silent");
    assert_eq!(call(&["cancel"])["code"], "CANCELLED");
    peer.expect_end("endless");
}

fn envoy_ends_its_connections_and_no_call(backend: Backend) {
    let server = GrpcServer::always(Script::Echo);
    let (scratch, address) = (Scratch::new(), free());
    let few = "common_http_protocol_options: { max_requests_per_connection: 5 }\n          \
               drain_timeout: 0.1s";
    let _envoy = envoy::start(&scratch, address, &[server.address()], few);
    let more = "protocol: grpc\nretry: { attempts: 1 }";
    let (proxy, listen) = Proxy::in_front_of_with(backend, address, more);
    let made = AtomicUsize::new(0);
    call_until(listen, &made, || made.load(Ordering::SeqCst) >= 200);
    let count = made.load(Ordering::SeqCst);
    assert_eq!(server.calls().len(), count);
    let labels = [("upstream", "web"), ("grpc_status", "ok")];
    proxy.expect_metric("ambassador_requests_total", &labels, count as f64);
}

fn the_proxy_drains_behind_envoy_and_no_call_fails(backend: Backend) {
    let server = GrpcServer::always(Script::Echo);
    let more = "protocol: grpc\nretry: { attempts: 1 }";
    let (mut first, one) = Proxy::in_front_of_with(backend, server.address(), more);
    let (_second, other) = Proxy::in_front_of_with(backend, server.address(), more);
    let (scratch, address) = (Scratch::new(), free());
    let _envoy = envoy::start(&scratch, address, &[one, other], "");
    let (made, ended) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
    thread::scope(|scope| {
        scope.spawn(|| {
            // Some more come when it has gone.
            let is_done = || made.load(Ordering::SeqCst) > ended.load(Ordering::SeqCst);
            call_until(address, &made, is_done);
        });
        let after = |count: usize| {
            eventually("calls are made", SOON, || {
                made.load(Ordering::SeqCst) >= count
            });
        };
        after(50);
        first.signal(libc::SIGTERM);
        assert_eq!(first.wait(SOON).code(), Some(0));
        ended.store(made.load(Ordering::SeqCst) + 20, Ordering::SeqCst);
    });
    assert_eq!(server.calls().len(), made.load(Ordering::SeqCst));
}

/// Four callers make one call after another, which all end well.
#[track_caller]
fn call_until(address: SocketAddr, made: &AtomicUsize, is_done: impl Fn() -> bool + Sync) {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_done() {
                    let outcome = GrpcCall::new(address, "/test.Peer/Echo").make();
                    assert_eq!(outcome.code(), Some(0), "{outcome:?}");
                    made.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
}
