//! gRPC between clients and servers of @grpc/grpc-js, of grpcio, and one of each, with
//! the proxy between them.

use std::time::{Duration, Instant};

use ambassador_tests::{Backend, on_both_backends};
use serde_json::json;

use crate::h2_grpc::{Library, Peer, World, all_pass, assert_ok};

on_both_backends!(
    calls_of_all_four_kinds_pass,
    metadata_and_trailers_pass,
    a_message_of_four_mebibytes_passes,
    a_deadline_ends_the_call_on_both_sides,
    a_call_given_up_ends_at_the_server,
    a_server_puts_another_try_off_or_refuses_it,
    a_failure_after_a_message_passes,
);

/// The proxy before a server of Node.
#[track_caller]
fn world(backend: Backend, more: &str) -> World {
    World::before(Peer::start_with(Library::Node), backend, more)
}

fn calls_of_all_four_kinds_pass(backend: Backend) {
    let node = world(backend, "");
    all_pass(Library::Node, node.listen);
    all_pass(Library::Python, node.listen);
    all_pass(Library::Node, World::start(backend).listen);
}

fn metadata_and_trailers_pass(backend: Backend) {
    let world = world(backend, "");
    let said = Library::Node.call(world.listen, &["echo", "hello"]);
    let initial = said["initial"].as_array().expect("a list of pairs");
    assert!(initial.contains(&json!(["x-initial", "yes"])), "{said}");
    let trailing = json!([["x-trailing", "yes"], ["x-trailing-bin", "0001"]]);
    assert_ok(&said, "trailing", trailing);
    let calls = world.peer.calls("echo");
    let agent = calls[0]["fields"]["user-agent"].as_str();
    assert!(
        agent.is_some_and(|it| it.contains("grpc-node-js")),
        "{agent:?}"
    );
}

fn a_message_of_four_mebibytes_passes(backend: Backend) {
    let world = world(backend, "");
    let said = Library::Node.call(world.listen, &["big", "4194304"]);
    assert_ok(&said, "length", json!(4 << 20));
}

fn a_deadline_ends_the_call_on_both_sides(backend: Backend) {
    let world = world(backend, "");
    let said = Library::Node.call(world.listen, &["deadline", "0.5"]);
    assert_eq!(said["code"], "DEADLINE_EXCEEDED", "{said}");
    world.peer.expect_end("silent");
    let left = world.peer.calls("silent")[0]["left"].as_f64();
    let is_told = left.is_some_and(|left| left > 0.0 && left <= 0.5);
    assert!(is_told, "{left:?}");
}

fn a_call_given_up_ends_at_the_server(backend: Backend) {
    let world = world(backend, "");
    let said = Library::Node.call(world.listen, &["cancel"]);
    assert_eq!(said["code"], "CANCELLED", "{said}");
    world.peer.expect_end("endless");
}

fn a_server_puts_another_try_off_or_refuses_it(backend: Backend) {
    let world = world(backend, "retry: { attempts: 3, base: 1ms }");
    let asked = Instant::now();
    let said = Library::Node.call(world.listen, &["flaky", "later", "1", "700"]);
    assert_ok(&said, "text", json!("2"));
    assert!(asked.elapsed() >= Duration::from_millis(700));
    assert_eq!(world.peer.count("flaky"), 2);
    let said = Library::Node.call(world.listen, &["flaky", "never", "1", "-1"]);
    assert_eq!(said["code"], "UNAVAILABLE", "{said}");
    assert_eq!(world.peer.count("flaky"), 3);
}

fn a_failure_after_a_message_passes(backend: Backend) {
    let world = world(backend, "");
    let late = Library::Node.call(world.listen, &["late"]);
    let (code, got) = (&late["code"], &late["got"]);
    assert_eq!((code, got), (&json!("DATA_LOSS"), &json!(["first"])));
}
