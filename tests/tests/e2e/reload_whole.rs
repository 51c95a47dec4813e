//! A reload says what it did, and leaves sockets alone.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use ambassador_tests::proxy::one_upstream;
use ambassador_tests::{
    Answer, Backend, Call, Client, Column, Proxy, Server, eventually, matrix, on_both_backends,
    ports,
};

matrix!(
    a_listener_that_means_something_else_keeps_its_socket,
    a_signal_that_changes_nothing_says_so_and_counts,
    names_that_left_are_forgotten,
    a_name_stays_as_long_as_its_last_request,
);

on_both_backends!(listeners_may_swap_their_names, what_is_wrong_is_told_once,);

const SOON: Duration = Duration::from_secs(10);
const RELOADS: &str = "ambassador_config_reloads_total";
const FAILURES: &str = "ambassador_config_reload_failures_total";
const SUCCESSFUL: &str = "ambassador_config_last_reload_successful";

fn free() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

#[track_caller]
fn until_more(proxy: &Proxy, metric: &str, act: impl FnOnce()) {
    let count = || proxy.metric(metric, &[]);
    let before = count();
    act();
    eventually(metric, SOON, || count() > before);
}

/// The sockets that listen at a port.
fn sockets(address: SocketAddr) -> HashSet<String> {
    const LISTEN: &str = "0A";
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc is mounted");
    let rows = table.lines().map(|line| line.split_whitespace().collect());
    rows.filter(|row: &Vec<&str>| row[1].ends_with(&port) && row[3] == LISTEN)
        .map(|row| row[9].to_owned())
        .collect()
}

fn a_listener_that_means_something_else_keeps_its_socket(column: Column) {
    let one = column.server(|_| Answer::ok("one"));
    // What goes to these is relayed.
    let [two, three] = ["two", "three"].map(|name| column.client.server(move |_| Answer::ok(name)));
    let listen = free();
    let config = |listener: &str| {
        format!(
            "listeners: [{{ bind: \"{listen}\", {listener} }}]\n\
             upstreams:\n  one: {{ hosts: [a], endpoints: [\"{}\"] }}\n  \
             two: {{ protocol: tcp, endpoints: [\"{}\"] }}\n  \
             three: {{ protocol: tcp, endpoints: [\"{}\"] }}\n",
            one.address(),
            two.address(),
            three.address()
        )
    };
    let call = Call::get("/").to("a");
    let said = || column.connect(listen).call(&call).text();
    let proxy = Proxy::start(column, &config("name: egress, protocol: http"));
    let before = sockets(listen);
    assert!(!before.is_empty());
    assert_eq!(said(), "one");
    let mut kept = column.connect(listen);
    for (listener, says) in [
        ("name: other, protocol: http", "one"),
        ("name: other, protocol: tcp, upstream: two", "two"),
        ("name: other, protocol: tcp, upstream: three", "three"),
        ("name: egress, protocol: http", "one"),
    ] {
        until_more(&proxy, RELOADS, || proxy.rewrite_config(&config(listener)));
        eventually("it means that now", SOON, || said() == says);
        assert_eq!(sockets(listen), before, "{listener}");
    }
    assert_eq!(kept.call(&call).text(), "one");
}

fn listeners_may_swap_their_names(backend: Backend) {
    let server = Server::ok();
    let (first, second) = (free(), free());
    let config = |one: &str, two: &str| {
        format!(
            "listeners:\n  - {{ name: {one}, bind: \"{first}\" }}\n  \
             - {{ name: {two}, bind: \"{second}\" }}\n\
             upstreams: {{ web: {{ hosts: [web.test], endpoints: [\"{}\"] }} }}\n",
            server.address()
        )
    };
    let proxy = Proxy::start(backend, &config("left", "right"));
    let before = (sockets(first), sockets(second));
    until_more(&proxy, RELOADS, || {
        proxy.rewrite_config(&config("right", "left"));
    });
    let _client = Client::connect(first);
    proxy.expect_metric("ambassador_connections", &[("listener", "right")], 1.0);
    proxy.expect_metric("ambassador_connections", &[("listener", "left")], 0.0);
    assert_eq!((sockets(first), sockets(second)), before);
}

fn a_signal_that_changes_nothing_says_so_and_counts(column: Column) {
    let server = column.ok();
    let (proxy, listen) = Proxy::in_front_of(column, server.address());
    let since = proxy.metric(
        "ambassador_config_last_reload_success_timestamp_seconds",
        &[],
    );
    assert!(since > 1e9, "{since}");
    assert_eq!(proxy.metric(SUCCESSFUL, &[]), 1.0);
    until_more(&proxy, RELOADS, || proxy.signal(libc::SIGHUP));
    assert!(
        proxy.log().contains("nothing has changed"),
        "{}",
        proxy.log()
    );
    assert_eq!(column.connect(listen).get("/").status, 200);
}

fn what_is_wrong_is_told_once(backend: Backend) {
    let server = Server::ok();
    let listen = free();
    let good = one_upstream(listen, server.address(), "");
    let proxy = Proxy::start(backend, &good);
    let bad = "upstreams: { web: { endpointz: [] } }\n";
    until_more(&proxy, FAILURES, || proxy.rewrite_config(bad));
    let still = "the file has the same mistakes as before";
    for times in 1..=2 {
        proxy.signal(libc::SIGHUP);
        eventually("it is read again", SOON, || {
            proxy.log().matches(still).count() == times
        });
    }
    assert_eq!(proxy.metric(FAILURES, &[]), 1.0);
    assert_eq!(proxy.metric(SUCCESSFUL, &[]), 0.0);
    assert_eq!(proxy.log().matches("endpointz").count(), 1);
    until_more(&proxy, RELOADS, || proxy.rewrite_config(&good));
    assert_eq!(proxy.metric(SUCCESSFUL, &[]), 1.0);
    until_more(&proxy, FAILURES, || proxy.rewrite_config(bad));
    assert_eq!(proxy.log().matches("endpointz").count(), 2, "it was good");
}

/// A configuration as a program writes it: other names each time.
fn generated(listen: SocketAddr, endpoint: SocketAddr, round: usize) -> String {
    let mut text = format!(
        "workers: 2\nlisteners: [{{ name: egress-{round}, bind: \"{listen}\" }}]\nupstreams:\n"
    );
    for number in 0..10 {
        text.push_str(&format!(
            "  gen-{round}-{number}: {{ hosts: [host{number}.test], endpoints: [\"{endpoint}\"] }}\n"
        ));
    }
    text
}

fn names_that_left_are_forgotten(column: Column) {
    let server = column.ok();
    let listen = free();
    let config = |round| generated(listen, server.address(), round);
    let proxy = Proxy::start(column, &config(0));
    let names = || {
        let metrics = proxy.admin_get("/metrics");
        let named = metrics.split("upstream=\"gen-").skip(1);
        let names: HashSet<String> = named
            .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
            .collect();
        names
    };
    let mut early = 0;
    for round in 1..=60 {
        until_more(&proxy, RELOADS, || proxy.rewrite_config(&config(round)));
        let mut client = column.connect(listen);
        for number in 0..10 {
            let call = Call::get("/").to(&format!("host{number}.test"));
            assert_eq!(client.call(&call).status, 200);
        }
        if round == 20 {
            early = proxy.anonymous_bytes();
        }
    }
    eventually("ten are left", SOON, || names().len() == 10);
    assert!(names().iter().all(|name| name.starts_with("60-")));
    let metrics = proxy.admin_get("/metrics");
    let listeners = metrics.matches("ambassador_connections{").count();
    assert_eq!(listeners, 2, "capture, and the one there is");
    let upstreams = proxy.admin_get("/upstreams");
    assert_eq!(upstreams.matches("\"gen-").count(), 10, "{upstreams}");
    let grown = proxy.anonymous_bytes().saturating_sub(early);
    assert!(grown < 2 << 20, "{grown} bytes more than after 20 rounds");
}

fn a_name_stays_as_long_as_its_last_request(column: Column) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = column.server(move |_| {
        let wait = wait.lock().expect("one user");
        let _ = wait.recv_timeout(Duration::from_secs(20));
        Answer::ok("slow")
    });
    let listen = free();
    let config = |name: &str| {
        format!(
            "listeners: [{{ name: egress, bind: \"{listen}\" }}]\n\
             upstreams: {{ {name}: {{ hosts: [web.test], endpoints: [\"{}\"] }} }}\n",
            slow.address()
        )
    };
    let proxy = Proxy::start(column, &config("before"));
    let mut client = column.connect(listen);
    client.send(&Call::get("/"));
    eventually("it is in flight", SOON, || slow.requests().len() == 1);
    until_more(&proxy, RELOADS, || proxy.rewrite_config(&config("after")));
    go.send(()).expect("the server waits");
    assert_eq!(client.answer().text(), "slow");
    eventually("it is forgotten", SOON, || {
        !proxy.admin_get("/metrics").contains("upstream=\"before\"")
    });
    go.send(()).expect("the server waits");
    assert_eq!(client.call(&Call::get("/")).text(), "slow");
    let labels = [("upstream", "after"), ("status", "200")];
    proxy.expect_metric("ambassador_requests_total", &labels, 1.0);
}
