//! Policies between a client and a server of grpcio: what is asked again, what counts,
//! and what a caller is told whom the proxy answers itself.

use std::time::{Duration, Instant};

use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{Backend, Proxy, Server, on_both_backends};
use serde_json::json;

use crate::h2_grpc::{World, assert_ok, call};
use crate::tls_upstream::free;

on_both_backends!(
    calls_of_all_kinds_are_counted_by_code,
    what_is_unavailable_is_asked_again,
    a_server_puts_another_try_off_or_refuses_it,
    a_failure_after_a_message_is_not_asked_again,
    a_deadline_ends_the_call_on_both_sides,
    who_is_not_there_is_unavailable,
);

fn calls_of_all_kinds_are_counted_by_code(backend: Backend) {
    let world = World::start(backend);
    for words in [
        &["echo", "hello"][..],
        &["count", "4"],
        &["total", "3"],
        &["both"],
    ] {
        assert_eq!(world.call(words)["code"], "OK", "{words:?}");
    }
    world.expect_counted("ok", 4.0);
    assert_eq!(world.call(&["fail", "NOT_FOUND"])["code"], "NOT_FOUND");
    assert_eq!(world.call(&["late"])["code"], "DATA_LOSS");
    assert_eq!(world.call(&["unknown"])["code"], "UNIMPLEMENTED");
    for code in ["not-found", "data-loss", "unimplemented"] {
        world.expect_counted(code, 1.0);
    }
}

fn what_is_unavailable_is_asked_again(backend: Backend) {
    let closed = "circuit_breaker: { failures: off }";
    let more = format!("retry: {{ attempts: 3, base: 1ms }}\n{closed}");
    let world = World::start_with(backend, &more);
    assert_ok(&world.call(&["flaky", "twice", "2"]), "text", json!("3"));
    assert_eq!(world.peer.count("flaky"), 3);
    let said = world.call(&["flaky", "always", "9"]);
    let (code, details) = (&said["code"], &said["details"]);
    assert_eq!(
        (code, details),
        (&json!("UNAVAILABLE"), &json!("try again"))
    );
    assert_eq!(world.peer.count("flaky"), 6);
    // Nothing else is, unless the settings say so.
    let exhausted = &["fail", "RESOURCE_EXHAUSTED"];
    assert_eq!(world.call(exhausted)["code"], "RESOURCE_EXHAUSTED");
    assert_eq!(world.peer.count("fail"), 1);
    let more = "retry: { attempts: 3, base: 1ms, on: [{ grpc: [resource-exhausted] }] }";
    let world = World::start_with(backend, more);
    assert_eq!(world.call(exhausted)["code"], "RESOURCE_EXHAUSTED");
    assert_eq!(world.peer.count("fail"), 3);
}

fn a_server_puts_another_try_off_or_refuses_it(backend: Backend) {
    let world = World::start_with(backend, "retry: { attempts: 3, base: 1ms }");
    let asked = Instant::now();
    let said = world.call(&["flaky", "later", "1", "700"]);
    assert_ok(&said, "text", json!("2"));
    assert!(asked.elapsed() >= Duration::from_millis(700));
    assert_eq!(world.peer.count("flaky"), 2);
    let said = world.call(&["flaky", "never", "1", "-1"]);
    assert_eq!(said["code"], "UNAVAILABLE", "{said}");
    assert_eq!(world.peer.count("flaky"), 3);
}

fn a_failure_after_a_message_is_not_asked_again(backend: Backend) {
    let more = "retry: { attempts: 3, base: 1ms, on: [{ grpc: [data-loss] }] }";
    let world = World::start_with(backend, more);
    let late = world.call(&["late"]);
    let (code, got) = (&late["code"], &late["got"]);
    assert_eq!((code, got), (&json!("DATA_LOSS"), &json!(["first"])));
    let labels = [("upstream", "web"), ("outcome", "response")];
    let proxy = &world.proxy;
    proxy.expect_metric("ambassador_upstream_attempts_total", &labels, 1.0);
}

fn a_deadline_ends_the_call_on_both_sides(backend: Backend) {
    let world = World::start(backend);
    let said = world.call(&["deadline", "0.5"]);
    assert_eq!(said["code"], "DEADLINE_EXCEEDED", "{said}");
    world.peer.expect_end("silent");
    let left = world.peer.calls("silent")[0]["left"].as_f64();
    assert!(
        left.is_some_and(|left| left > 0.0 && left <= 0.5),
        "{left:?}"
    );

    // A limit of the proxy's own is told in the same words.
    let more = "timeouts: { request: 300ms }\nretry: { attempts: 1 }";
    let world = World::start_with(backend, more);
    let said = world.call(&["silent"]);
    assert_eq!(said["code"], "DEADLINE_EXCEEDED", "{said}");
    world.peer.expect_end("silent");
}

fn who_is_not_there_is_unavailable(backend: Backend) {
    let gone = Server::ok().address();
    let listen = free();
    let more = "protocol: grpc\nretry: { attempts: 1 }";
    let _proxy = Proxy::start(backend, &one_upstream(listen, gone, more));
    let said = call(listen, &["echo", "hello"]);
    assert_eq!(said["code"], "UNAVAILABLE", "{said}");
    assert_eq!(said["details"], "cannot connect to the upstream", "{said}");
    let trailing = said["trailing"].as_array().expect("a list of pairs");
    let reason = json!(["x-ambassador-reason", "connect-failed"]);
    assert!(trailing.contains(&reason), "{said}");
}
