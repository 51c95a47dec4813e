//! Which endpoint of an upstream gets a request or connection.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ambassador_tests::{
    Answer, Backend, Call, Caller, Client, Column, Proxy, Server, eventually, matrix,
    on_both_backends, ports,
};

matrix!(
    requests_go_by_weight,
    endpoints_of_the_zone_come_first,
    requests_with_the_same_header_go_to_one_endpoint,
    an_endpoint_that_fails_is_ejected_and_comes_back_by_one_probe,
    the_busy_endpoint_gets_less,
    a_retry_goes_to_another_endpoint,
    all_are_served_while_one_of_three_is_well,
    few_see_an_endpoint_that_answers_500,
    a_tunnel_keeps_its_endpoint_busy,
);

on_both_backends!(
    clients_of_one_address_go_to_one_endpoint,
    a_dead_endpoint_is_ejected_and_shown,
);

const SOON: Duration = Duration::from_secs(10);

/// A listener before an upstream `web` that says this.
fn start(column: impl Into<Column>, protocol: &str, upstream: &str) -> (Proxy, SocketAddr) {
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let to = match protocol {
        "tcp" => ", upstream: web",
        _ => "",
    };
    let config = format!(
        "listeners: [{{ name: egress, bind: \"{listen}\", protocol: {protocol}{to} }}]\n\
         upstreams: {{ web: {{ {upstream} }} }}\n"
    );
    (Proxy::start(column, &config), listen)
}

fn requests_go_by_weight(column: Column) {
    let servers = [column.ok(), column.ok()];
    let [light, heavy] = servers.each_ref().map(Server::address);
    let (_proxy, listen) = start(
        column,
        "http",
        &format!("endpoints: [\"{light}\", {{ address: \"{heavy}\", weight: 3 }}]"),
    );
    let mut client = column.connect(listen);
    for _ in 0..400 {
        assert_eq!(client.get("/").status, 200);
    }
    // 300, within seven standard deviations.
    let count = servers[1].requests().len();
    assert!((240..=360).contains(&count), "{count} of 400");
}

fn endpoints_of_the_zone_come_first(column: Column) {
    let servers = [column.ok(), column.ok()];
    let [here, there] = servers.each_ref().map(Server::address);
    let (_proxy, listen) = start(
        column,
        "http",
        &format!(
            "zone: a, endpoints: [{{ address: \"{here}\", zone: a }}, \
             {{ address: \"{there}\", zone: b }}]"
        ),
    );
    let mut client = column.connect(listen);
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
    for _ in 0..40 {
        let mut client = Client::connect(listen);
        client.send("ping");
        client.finish();
        assert_eq!(client.rest().expect("it moves on"), b"ping");
    }
    assert_eq!(server.connections(), 40);
    let cause = [("cause", "connect-failure")];
    proxy.expect_metric("ambassador_retries_total", &cause, 4.0);
    let shown: serde_json::Value =
        serde_json::from_str(&proxy.admin_get("/upstreams")).expect("it is JSON");
    let endpoints = &shown["upstreams"][0]["endpoints"];
    assert_eq!(endpoints[0]["address"], dead.to_string());
    assert_eq!(endpoints[0]["ejected"], true);
    let left = endpoints[0]["ejected_for_seconds"].as_f64();
    assert!(left.is_some_and(|left| left > 3_500.0), "{left:?}");
    assert_eq!(endpoints[1]["ejected"], false);
}

fn requests_with_the_same_header_go_to_one_endpoint(column: Column) {
    let servers = [column.ok(), column.ok(), column.ok()];
    let list = servers.each_ref().map(|it| format!("\"{}\"", it.address()));
    let (_proxy, listen) = start(
        column,
        "http",
        &format!(
            "load_balancing: {{ ring_hash: {{ header: x-user }} }}, endpoints: [{}]",
            list.join(", ")
        ),
    );
    let mut client = column.connect(listen);
    for round in 1..=3 {
        for user in 0..60 {
            let call = Call::get("/").field("X-Upstream-Host", "web");
            let call = call.field("X-User", &format!("user-{user}"));
            assert_eq!(client.call(&call).status, 200);
        }
        let mut users = 0;
        for server in &servers {
            let requests = server.requests();
            let seen: HashSet<_> = requests.iter().map(|it| it.field("x-user")).collect();
            assert!(!seen.is_empty(), "each has users");
            assert_eq!(requests.len(), round * seen.len(), "they stay");
            users += seen.len();
        }
        assert_eq!(users, 60, "each is at one endpoint");
    }
}

fn an_endpoint_that_fails_is_ejected_and_comes_back_by_one_probe(column: Column) {
    let healthy = Arc::new(AtomicBool::new(false));
    let answers = Arc::clone(&healthy);
    let flaky = column.server(move |_| match answers.load(Ordering::SeqCst) {
        true => Answer::ok("well"),
        false => Answer::status(500),
    });
    let steady = column.ok();
    let (_proxy, listen) = start(
        column,
        "http",
        &format!(
            "load_balancing: round_robin, circuit_breaker: {{ failures: off }}, retry: {{ on: [], elsewhere: off }}, \
             outlier: {{ consecutive: 3, base_ejection: 300ms }}, endpoints: [\"{}\", \"{}\"]",
            flaky.address(),
            steady.address()
        ),
    );
    let mut client = column.connect(listen);
    let failed = (0..20).filter(|_| client.get("/").status == 500).count();
    assert!(
        (3..=4).contains(&failed),
        "{failed}: 3, and a probe where that took long"
    );
    healthy.store(true, Ordering::SeqCst);
    let before = flaky.requests().len();
    eventually("it has its share again", Duration::from_secs(10), || {
        assert_eq!(client.get("/").status, 200);
        flaky.requests().len() > before + 10
    });
}

fn a_tunnel_keeps_its_endpoint_busy(column: Column) {
    let counts = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let servers = counts.each_ref().map(|count| {
        let count = Arc::clone(count);
        column.script(move |exchange| {
            count.fetch_add(1, Ordering::SeqCst);
            exchange.switch("")?;
            exchange.until_left()
        })
    });
    let [one, two] = servers.each_ref().map(Server::address);
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "workers: 1\nlisteners: [{{ name: egress, bind: \"{listen}\" }}]\n\
         upstreams: {{ web: {{ hosts: [web.test], endpoints: [\"{one}\", \"{two}\"] }} }}\n"
    );
    let _proxy = Proxy::start(column, &config);
    let clients: Vec<Caller> = (0..40)
        .map(|_| {
            let mut client = column.connect(listen);
            client.open(&Call::upgrade("/", "x"));
            client
        })
        .collect();
    // Of two the one with fewer tunnels, each time.
    let counts = counts.map(|count| count.load(Ordering::SeqCst));
    assert_eq!(counts, [20, 20]);
    drop(clients);
}

fn the_busy_endpoint_gets_less(column: Column) {
    // One holds on to its requests until the test is over.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let busy = column.server(move |_| {
        let _ = held.lock().expect("no panic").recv();
        Answer::ok("late")
    });
    let free = column.ok();
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "workers: 1\nlisteners: [{{ name: egress, bind: \"{listen}\" }}]\n\
         upstreams: {{ web: {{ endpoints: [\"{}\", \"{}\"] }} }}\n",
        busy.address(),
        free.address()
    );
    let _proxy = Proxy::start(column, &config);
    let mut clients: Vec<Caller> = (0..40).map(|_| column.connect(listen)).collect();
    let mut answered = 0;
    for client in &mut clients {
        client.send(&Call::get("/").field("X-Upstream-Host", "web"));
        // Two choices with replacement may both fall on the busy one; what goes
        // to the free one is answered, and so is it free again.
        eventually("it is sent on", SOON, || {
            free.requests().len() + busy.requests().len() > answered
        });
        answered = free.requests().len() + busy.requests().len();
    }
    let stuck = busy.requests().len();
    assert!(stuck < 10, "{stuck} of 40 wait for the busy one");
    drop(release);
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
}

fn a_retry_goes_to_another_endpoint(column: Column) {
    let servers = [
        column.server(|_| Answer::status(503)),
        column.server(|_| Answer::status(503)),
        column.server(|_| Answer::status(503)),
    ];
    let list = servers.each_ref().map(|it| format!("\"{}\"", it.address()));
    let (_proxy, listen) = start(
        column,
        "http",
        &format!(
            "retry: {{ base: 1ms, budget: {{ ratio: 100%, min_per_second: 100 }} }}, \
             circuit_breaker: {{ failures: off }}, outlier: {{ consecutive: off }}, \
             load_balancing: random, endpoints: [{}]",
            list.join(", ")
        ),
    );
    let mut client = column.connect(listen);
    for asked in 1..=20 {
        assert_eq!(client.get("/").status, 503);
        let counts = servers.each_ref().map(|server| server.requests().len());
        assert_eq!(counts, [asked; 3], "each is tried once");
    }
}

/// What `/upstreams` shows of the circuit of the first upstream, and how many of
/// its endpoints are ejected, and avoided.
fn health(proxy: &Proxy) -> (String, usize, usize) {
    let shown: serde_json::Value =
        serde_json::from_str(&proxy.admin_get("/upstreams")).expect("it is JSON");
    let web = &shown["upstreams"][0];
    let endpoints = web["endpoints"].as_array().expect("it is a list");
    let out = |key: &str| endpoints.iter().filter(|one| one[key].is_number()).count();
    (
        web["circuit_breaker"]["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        out("ejected_for_seconds"),
        out("avoided_for_seconds"),
    )
}

fn all_are_served_while_one_of_three_is_well(column: Column) {
    let well = column.ok();
    let [refuses, also] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], ports::free())));
    let (proxy, listen) = start(
        column,
        "http",
        &format!(
            "endpoints: [\"{refuses}\", \"{also}\", \"{}\"]",
            well.address()
        ),
    );
    let mut clients: Vec<Caller> = (0..8).map(|_| column.connect(listen)).collect();
    for turn in 0..240 {
        assert_eq!(clients[turn % 8].get("/").status, 200, "{turn}");
    }
    assert_eq!(health(&proxy), ("closed".to_owned(), 1, 1));
}

fn few_see_an_endpoint_that_answers_500(column: Column) {
    let broken = column.server(|_| Answer::status(500));
    let well = [column.ok(), column.ok()];
    let list = [&broken, &well[0], &well[1]].map(|it| format!("\"{}\"", it.address()));
    let (proxy, listen) = start(
        column,
        "http",
        &format!(
            "retry: {{ elsewhere: off }}, endpoints: [{}]",
            list.join(", ")
        ),
    );
    let mut clients: Vec<Caller> = (0..8).map(|_| column.connect(listen)).collect();
    let answers = (0..240).map(|turn| clients[turn % 8].get("/"));
    let failed = answers.filter(|answer| answer.status == 500).count();
    assert_eq!(failed, 5, "it is ejected then");
    assert_eq!(health(&proxy), ("closed".to_owned(), 1, 0));
}
