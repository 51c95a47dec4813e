//! Which endpoint of an upstream gets a request or connection.

use std::net::SocketAddr;

use ambassador_tests::{Backend, Client, Proxy, Server, on_both_backends, ports};

on_both_backends!(
    requests_go_by_weight,
    endpoints_of_the_zone_come_first,
    clients_of_one_address_go_to_one_endpoint,
    a_dead_endpoint_is_ejected_and_shown,
);

/// A listener before an upstream `web` that says this.
fn start(backend: Backend, protocol: &str, upstream: &str) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let to = match protocol {
        "tcp" => ", upstream: web",
        _ => "",
    };
    let config = format!(
        "listeners: [{{ name: egress, bind: \"{listen}\", protocol: {protocol}{to} }}]\n\
         upstreams: {{ web: {{ {upstream} }} }}\n"
    );
    (Proxy::start(backend, &config), listen)
}

fn requests_go_by_weight(backend: Backend) {
    let servers = [Server::ok(), Server::ok()];
    let [light, heavy] = servers.each_ref().map(Server::address);
    let (_proxy, listen) = start(
        backend,
        "http",
        &format!("endpoints: [\"{light}\", {{ address: \"{heavy}\", weight: 3 }}]"),
    );
    let mut client = Client::connect(listen);
    for _ in 0..400 {
        assert_eq!(client.get("/").status, 200);
    }
    // 300, within seven standard deviations.
    let count = servers[1].requests().len();
    assert!((240..=360).contains(&count), "{count} of 400");
}

fn endpoints_of_the_zone_come_first(backend: Backend) {
    let servers = [Server::ok(), Server::ok()];
    let [here, there] = servers.each_ref().map(Server::address);
    let (_proxy, listen) = start(
        backend,
        "http",
        &format!(
            "zone: a, endpoints: [{{ address: \"{here}\", zone: a }}, \
             {{ address: \"{there}\", zone: b }}]"
        ),
    );
    let mut client = Client::connect(listen);
    for _ in 0..50 {
        assert_eq!(client.get("/").status, 200);
    }
    let counts = servers.each_ref().map(|server| server.requests().len());
    assert_eq!(counts, [50, 0]);
}

fn clients_of_one_address_go_to_one_endpoint(backend: Backend) {
    let servers = [Server::echo(), Server::echo(), Server::echo()];
    let list = servers.each_ref().map(|it| format!("\"{}\"", it.address()));
    let (_proxy, listen) = start(
        backend,
        "tcp",
        &format!(
            "protocol: tcp, load_balancing: {{ ring_hash: {{ source: ip }} }}, endpoints: [{}]",
            list.join(", ")
        ),
    );
    for _ in 0..20 {
        let mut client = Client::connect(listen);
        client.send("ping");
        assert_eq!(client.exactly(4), b"ping");
    }
    let mut counts = servers.each_ref().map(Server::connections);
    counts.sort();
    assert_eq!(counts, [0, 0, 20]);
}

fn a_dead_endpoint_is_ejected_and_shown(backend: Backend) {
    let server = Server::echo();
    let dead = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let (proxy, listen) = start(
        backend,
        "tcp",
        &format!(
            "protocol: tcp, load_balancing: round_robin, circuit_breaker: {{ failures: off }}, \
             outlier: {{ consecutive: 4, base_ejection: 1h }}, endpoints: [\"{dead}\", \"{}\"]",
            server.address()
        ),
    );
    let mut failed = 0;
    for _ in 0..40 {
        let mut client = Client::connect(listen);
        // What is given up is reset, perhaps before it is sent to.
        if client.try_send("ping").is_ok() {
            client.finish_quietly();
        }
        match client.rest() {
            Ok(echo) => assert_eq!(echo, b"ping"),
            Err(_) => failed += 1,
        }
    }
    assert_eq!(failed, 4);
    assert_eq!(server.connections(), 36);
    let shown: serde_json::Value =
        serde_json::from_str(&proxy.admin_get("/upstreams")).expect("it is JSON");
    let endpoints = &shown["upstreams"][0]["endpoints"];
    assert_eq!(endpoints[0]["address"], dead.to_string());
    assert_eq!(endpoints[0]["ejected"], true);
    let left = endpoints[0]["ejected_for_seconds"].as_f64();
    assert!(left.is_some_and(|left| left > 3_500.0), "{left:?}");
    assert_eq!(endpoints[1]["ejected"], false);
}
