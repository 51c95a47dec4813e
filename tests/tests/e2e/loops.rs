//! Requests that would come back to the proxy, by whatever way, end with 508.

use std::net::SocketAddr;
use std::time::Duration;

use ambassador_tests::proxy::{Launch, Scratch, binary, one_upstream};
use ambassador_tests::server::Request;
use ambassador_tests::{
    Backend, Call, Client, Column, Netns, Proxy, Response, Server, eventually, matrix,
    on_both_backends, on_http1, ports, program,
};

matrix!(
    no_address_of_its_own_is_dialled,
    no_name_of_its_own_is_dialled,
    a_listener_that_came_later_is_its_own,
    proxies_in_a_circle_stop,
    hops_are_counted_unless_that_is_off,
    nobody_speaks_against_an_upstream_by_hops,
);

on_http1!(connection_does_not_hide_them,);

on_both_backends!(an_address_that_came_later_is_its_own,);

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

#[track_caller]
fn is_loop(answer: &Response) {
    let reason = answer.field("x-ambassador-reason");
    assert_eq!(
        (answer.status, reason),
        (508, Some("loop")),
        "{}",
        answer.text()
    );
}

fn no_address_of_its_own_is_dialled(column: Column) {
    for (bind, endpoint) in [
        ("127.0.0.1", "[::ffff:127.0.0.1]"),
        ("0.0.0.0", "127.0.0.9"),
        ("[::]", "127.0.0.1"),
        ("[::]", "[::1]"),
    ] {
        let port = ports::free();
        let bind: SocketAddr = format!("{bind}:{port}").parse().expect("valid");
        let endpoint = format!("{endpoint}:{port}").parse().expect("valid");
        // Without hops, so that this alone ends it.
        let config = one_upstream(bind, endpoint, "max_hops: off");
        let proxy = Proxy::start(column, &config);
        let host = match bind.ip().is_loopback() {
            true => bind.ip(),
            false => [127, 0, 0, 1].into(),
        };
        is_loop(&column.connect(SocketAddr::new(host, port)).get("/"));
        let requests = [("upstream", "web")];
        proxy.expect_metric("ambassador_requests_total", &requests, 1.0);
    }
}

/// To the kernel, no address in particular is this host.
fn no_name_of_its_own_is_dialled(column: Column) {
    let scratch = Scratch::new();
    let names = "0.0.0.0 four.test\n:: six.test\n127.0.0.1 own.test\n";
    let hosts = scratch.file("hosts", names).display().to_string();
    for (bind, name) in [
        ("127.0.0.1", "own.test"),
        ("127.0.0.1", "four.test"),
        ("0.0.0.0", "four.test"),
        ("[::1]", "six.test"),
    ] {
        let port = ports::free();
        let config = format!(
            "listeners: [{{ name: e, bind: \"{bind}:{port}\" }}]\n\
             upstreams: {{ web: {{ dns: \"{name}:{port}\", max_hops: off }} }}\n"
        );
        let with_names = ["unshare", "-m", "sh", "-c"]
            .map(String::from)
            .into_iter()
            .chain([
                "mount --bind \"$0\" /etc/hosts && exec \"$@\"".to_owned(),
                hosts.clone(),
            ]);
        let launch = Launch {
            wrapper: with_names.collect(),
            ..Launch::default()
        };
        let _proxy = Proxy::launch(column, &config, launch);
        let bind: SocketAddr = format!("{bind}:{port}").parse().expect("valid");
        eventually("the name is resolved", Duration::from_secs(5), || {
            column.connect(bind).get("/").status != 503
        });
        is_loop(&column.connect(bind).get("/"));
    }
}

fn an_address_that_came_later_is_its_own(backend: Backend) {
    let namespace = Netns::new();
    let [nsenter, entered, _] = namespace.wrap("");
    let config = "admin: { listen: \"127.0.0.1:9000\" }\n\
        listeners: [{ name: e, bind: \"0.0.0.0:8081\" }]\n\
        upstreams: { web: { endpoints: [\"10.9.9.9:8081\"], max_hops: off } }\n";
    let file = Scratch::new();
    let file = (file.file("config.yaml", config), file);
    let mut proxy = std::process::Command::new(&nsenter)
        .args([&entered, &binary().display().to_string()])
        .args(["run", "--config", &file.0.display().to_string()])
        .env("AMBASSADOR_BACKEND", backend.name())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let ask = |url: &str| {
        let mut curl = std::process::Command::new(&nsenter);
        curl.args([
            &*entered,
            "curl",
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
        ]);
        let said = curl.args(["-H", "X-Upstream-Host: web", url]).output();
        String::from_utf8_lossy(&said.expect("curl runs").stdout).into_owned()
    };
    eventually("it is ready", Duration::from_secs(20), || {
        ask("http://127.0.0.1:9000/readyz") == "200"
    });
    namespace.ip(&["addr", "add", "10.9.9.9/32", "dev", "lo"]);
    let status = ask("http://127.0.0.1:8081/");
    proxy.kill().expect("it runs");
    program::wait(&mut proxy, Duration::from_secs(5));
    assert_eq!(status, "508");
}

fn a_listener_that_came_later_is_its_own(column: Column) {
    let (first, second) = (local(), local());
    let rest = format!("upstreams: {{ web: {{ endpoints: [\"{second}\"], max_hops: off }} }}\n");
    let proxy = Proxy::start(
        column,
        &format!("listeners: [{{ name: e, bind: \"{first}\" }}]\n{rest}"),
    );
    assert_eq!(
        column.connect(first).get("/").status,
        502,
        "nobody is there"
    );
    proxy.rewrite_config(&format!(
        "listeners: [{{ name: e, bind: \"{first}\" }}, {{ name: f, bind: \"{second}\" }}]\n{rest}"
    ));
    proxy.signal(libc::SIGHUP);
    // It listens before all of the reload is in force.
    let reloaded = || proxy.metric("ambassador_config_reloads_total", &[]) >= 1.0;
    eventually("it is reloaded", Duration::from_secs(20), reloaded);
    assert!(column.try_connect(second).is_some(), "it listens there");
    is_loop(&column.connect(first).get("/"));
}

fn proxies_in_a_circle_stop(column: Column) {
    let (one, other) = (local(), local());
    let more = "retry: { on: [500-599], base: 1ms }";
    let proxies = [(one, other), (other, one)]
        .map(|(listen, endpoint)| Proxy::start(column, &one_upstream(listen, endpoint, more)));
    for _ in 0..6 {
        // None of it opens a circuit.
        is_loop(&column.connect(one).get("/"));
    }
    let labels = [("upstream", "web"), ("status", "508")];
    for proxy in proxies {
        // Seventeen went on, and the eighteenth, which had come through all of
        // them, did not.
        proxy.expect_metric("ambassador_requests_total", &labels, 6.0 * 9.0);
    }
}

fn hops_are_counted_unless_that_is_off(column: Column) {
    let server = column.ok();
    let ask = |more: &str, own: &str| {
        let (_proxy, listen) = column.in_front_of(&server, more);
        let status = column
            .connect(listen)
            .call(&Call::get("/").lines(own))
            .status;
        (status, hops(&server.last_request()))
    };
    for (more, own, expected) in [
        ("", "", "1"),
        ("", "X-Ambassador-Hops: 16\r\n", "17"),
        ("", "x-ambassador-hops: many\r\n", "1"),
        ("max_hops: 2", "X-Ambassador-Hops: 2\r\n", "3"),
        ("max_hops: off", "", ""),
        ("max_hops: off", "X-Ambassador-Hops: 99\r\n", "99"),
        (
            "headers: { remove: [x-ambassador-hops] }",
            "X-Ambassador-Hops: 3\r\n",
            "",
        ),
    ] {
        let expected: Vec<&str> = [expected]
            .into_iter()
            .filter(|hops| !hops.is_empty())
            .collect();
        let (status, hops) = ask(more, own);
        assert_eq!(
            (status, hops),
            (200, expected.iter().map(ToString::to_string).collect()),
            "{more} {own}"
        );
    }
    let asked = server.requests().len();
    for (more, own) in [
        ("", "X-Ambassador-Hops: 17\r\n"),
        ("", "X-Ambassador-Hops: 99999999999\r\n"),
        (
            "max_hops: 1",
            "X-Ambassador-Hops: 1\r\nX-Ambassador-Hops: 2\r\n",
        ),
    ] {
        assert_eq!(ask(more, own).0, 508, "{more} {own}");
    }
    assert_eq!(server.requests().len(), asked);
}

/// A field of the connection alone would not count.
fn connection_does_not_hide_them(backend: Backend) {
    let server = Server::ok();
    let (_proxy, listen) = Proxy::in_front_of(backend, server.address());
    let mut client = Client::connect(listen);
    client.send(
        "GET / HTTP/1.1\r\nHost: web.test\r\nX-Ambassador-Hops: 16\r\n\
         Connection: x-ambassador-hops\r\n\r\n",
    );
    assert_eq!(client.response("GET").status, 200);
    assert_eq!(hops(&server.last_request()), ["17"]);
}

/// What a request says of the proxies that it came through.
fn hops(request: &Request) -> Vec<String> {
    let fields = request.fields.iter();
    let hops = fields.filter(|(name, _)| name.eq_ignore_ascii_case("x-ambassador-hops"));
    hops.map(|(_, value)| value.clone()).collect()
}

/// The next proxy refuses what has come through too many, as its caller says.
fn nobody_speaks_against_an_upstream_by_hops(column: Column) {
    let server = column.ok();
    let (_next, inner) = Proxy::in_front_of_with(column, server.address(), "max_hops: 3");
    let more = "circuit_breaker: { failures: 2 }\nretry: { on: [500-599], base: 1ms }";
    let (proxy, listen) = Proxy::in_front_of_with(column, inner, more);
    for _ in 0..4 {
        let mut client = column.connect(listen);
        is_loop(&client.call(&Call::get("/").field("X-Ambassador-Hops", "3")));
    }
    assert_eq!(
        proxy.metric("ambassador_retries_total", &[("upstream", "web")]),
        0.0
    );
    assert_eq!(
        proxy.metric("ambassador_breaker_state", &[("upstream", "web")]),
        0.0
    );
}
