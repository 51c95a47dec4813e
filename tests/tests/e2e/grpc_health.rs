//! Endpoints that are checked by `grpc.health.v1` get requests while they are healthy.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use ambassador_tests::program::{self, Running};
use ambassador_tests::proxy::Scratch;
use ambassador_tests::{
    Authority, Backend, GrpcCall, GrpcServer, Leaf, Proxy, Script, Server, eventually,
    on_both_backends,
};

use crate::tls_upstream::free;

on_both_backends!(
    no_call_fails_while_a_server_turns_and_returns,
    checks_go_over_the_tls_of_the_upstream,
    every_bad_answer_is_a_failed_check,
    silence_is_a_failed_check_of_the_server,
    where_none_is_healthy_all_get_calls,
    a_dead_endpoint_opens_no_circuit,
    a_reload_says_who_is_checked_and_how,
);

const PACKAGES: &str =
    "grpcio==1.85.3 grpcio-health-checking==1.85.1 protobuf==7.36.2 typing_extensions==4.16.0";
const PATH: &str = "/shop.Cart/Add";
const CHECK: &str = "/grpc.health.v1.Health/Check";
const CHECKS: &str = "ambassador_health_checks_total";
const SOON: Duration = Duration::from_secs(10);
const SERVING: Script = Script::Say(b"\x08\x01", 0);
const NOT_SERVING: Script = Script::Say(b"\x08\x02", 0);

/// A server of grpcio.
struct Peer {
    address: SocketAddr,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _running: Running,
}

impl Peer {
    /// One that speaks TLS where it gets the files for that.
    #[track_caller]
    fn start(tls: &[&str]) -> Peer {
        let mut script = program::script(PACKAGES, "grpc_health_server.py");
        let script = script.args(tls).stdin(Stdio::piped());
        let mut running = Running::start(script.stdout(Stdio::piped()).stderr(Stdio::null()));
        let mut output = BufReader::new(running.stdout()).lines();
        let port = output.next().expect("a port").expect("readable");
        let port: u16 = port.parse().expect("a number");
        Peer {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            input: running.stdin(),
            output,
            _running: running,
        }
    }

    #[track_caller]
    fn tell(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").expect("it reads its input");
        let answer = self.output.next().expect("it answers");
        answer.expect("readable")
    }

    #[track_caller]
    fn set(&mut self, status: &str) {
        assert_eq!(self.tell(&format!("set shop.Cart {status}")), "set");
    }

    #[track_caller]
    fn count(&mut self, what: &str) -> usize {
        let count = self.tell(&format!("count {what}"));
        count.parse().expect("a number")
    }
}

/// A server that does as scripted when it is checked, and echoes other calls.
fn scripted(check: Script) -> GrpcServer {
    GrpcServer::start(move |_, path| match path {
        CHECK => check.clone(),
        _ => Script::Echo,
    })
}

fn count(server: &GrpcServer, path: &str) -> usize {
    let calls = server.calls();
    calls.iter().filter(|call| call.path == path).count()
}

/// A proxy in front of some endpoints.
struct World {
    proxy: Proxy,
    listen: SocketAddr,
}

/// The endpoints are checked for this service; `more` is further YAML of the upstream.
fn config(listen: SocketAddr, endpoints: &[SocketAddr], service: &str, more: &str) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|one| format!("\"{one}\"")).collect();
    format!(
        "drain_timeout: 2s\n\
         listeners:\n  - {{ name: egress, bind: \"{listen}\", protocol: http }}\n\
         upstreams:\n  web:\n    hosts: [web.test]\n    protocol: grpc\n    \
         retry: {{ attempts: 1 }}\n    endpoints: [{}]\n    \
         health_check: {{ grpc: {service}, interval: 20ms, timeout: 5s, healthy: 2, unhealthy: 2 }}\n\
         {more}",
        endpoints.join(", ")
    )
}

impl World {
    fn start(backend: Backend, endpoints: &[SocketAddr], more: &str) -> World {
        let listen = free();
        let config = config(listen, endpoints, "shop.Cart", more);
        World {
            proxy: Proxy::start(backend, &config),
            listen,
        }
    }

    /// Waits until just these endpoints are unhealthy.
    #[track_caller]
    fn expect_unhealthy(&self, wanted: &[bool]) {
        eventually("checks have found it", SOON, || {
            let web = self.proxy.upstream("web");
            let endpoints = web["endpoints"].as_array().expect("a list");
            let found: Vec<_> = endpoints
                .iter()
                .map(|one| one["unhealthy"] == true)
                .collect();
            found == wanted
        });
        let labels = [("upstream", "web")];
        let unhealthy = wanted.iter().filter(|one| **one).count();
        self.proxy
            .expect_metric("ambassador_unhealthy_endpoints", &labels, unhealthy as f64);
    }

    /// Waits for so many more checks of a result.
    #[track_caller]
    fn expect_checks(&self, result: &str, more: f64) {
        let labels = [("upstream", "web"), ("result", result)];
        let before = self.proxy.metric(CHECKS, &labels);
        eventually("it is checked", SOON, || {
            self.proxy.metric(CHECKS, &labels) >= before + more
        });
    }

    #[track_caller]
    fn call_often(&self) {
        for _ in 0..20 {
            self.call();
        }
    }

    #[track_caller]
    fn call(&self) {
        assert_eq!(GrpcCall::new(self.listen, PATH).make().code(), Some(0));
    }

    fn logs(&self, words: &[&str]) -> bool {
        let log = self.proxy.log();
        log.lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    }
}

fn no_call_fails_while_a_server_turns_and_returns(backend: Backend) {
    let (mut one, mut other) = (Peer::start(&[]), Peer::start(&[]));
    one.set("SERVING");
    other.set("SERVING");
    let world = World::start(backend, &[one.address, other.address], "");
    let (stop, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                world.call();
                calls.fetch_add(1, Ordering::SeqCst);
            }
        });
        let some_calls = || {
            let before = calls.load(Ordering::SeqCst);
            eventually("calls flow", SOON, || {
                calls.load(Ordering::SeqCst) >= before + 20
            });
        };
        world.expect_checks("serving", 4.0);
        some_calls();
        for _ in 0..2 {
            other.set("NOT_SERVING");
            world.expect_unhealthy(&[false, true]);
            some_calls();
            let (calls, checks) = (other.count("calls"), other.count("checks"));
            some_calls();
            // It is asked on, and gets no calls.
            world.expect_checks("not-serving", 2.0);
            assert_eq!(other.count("calls"), calls);
            assert!(other.count("checks") > checks);
            other.set("SERVING");
            world.expect_unhealthy(&[false, false]);
            eventually("it gets calls again", SOON, || other.count("calls") > calls);
        }
        stop.store(true, Ordering::SeqCst);
    });
    let endpoint = other.address.to_string();
    assert!(world.logs(&["is unhealthy", &endpoint, "it says NOT_SERVING", "web"]));
    assert!(world.logs(&["healthy again", &endpoint, "web"]));
}

fn checks_go_over_the_tls_of_the_upstream(backend: Backend) {
    let scratch = Scratch::new();
    let (authority, stranger) = (Authority::new("root"), Authority::new("stranger"));
    let file = |name: &str, text: &str| scratch.file(name, text).display().to_string();
    let ca = file("ca.pem", &authority.pem);
    let files = |name: &str, leaf: Leaf| {
        [
            file(&format!("{name}.pem"), &leaf.pem),
            file(&format!("{name}.key"), &leaf.key),
        ]
    };
    let own = files("own", authority.issue(&["proxy.test"]));
    let peer = |name: &str, leaf: Leaf| {
        let [certificate, key] = files(name, leaf);
        let mut peer = Peer::start(&[&certificate, &key, &ca]);
        peer.set("SERVING");
        peer
    };
    let mut well = peer("well", authority.issue(&["web.test"]));
    let misnamed = peer("misnamed", authority.issue(&["other.test"]));
    let unknown = peer("unknown", stranger.issue(&["web.test"]));
    let endpoints = [well.address, misnamed.address, unknown.address];
    let [certificate, key] = &own;
    let tls = format!("    tls: {{ ca: {ca}, cert: {certificate}, key: {key} }}\n");
    let world = World::start(backend, &endpoints, &tls);
    world.expect_unhealthy(&[false, true, true]);
    world.expect_checks("serving", 2.0);
    let before = well.count("calls");
    world.call_often();
    assert_eq!(well.count("calls"), before + 20);
    let reason = "it gives no TLS session";
    assert!(world.logs(&["is unhealthy", &unknown.address.to_string(), reason]));

    // Without its certificate the proxy is let in nowhere.
    let tls = format!("    tls: {{ ca: {ca} }}\n");
    let bare = config(world.listen, &endpoints, "shop.Cart", &tls);
    world.proxy.rewrite_config(&bare);
    world.expect_unhealthy(&[true, true, true]);
}

fn every_bad_answer_is_a_failed_check(backend: Backend) {
    let gone = Server::ok().address();
    let well = scripted(SERVING);
    // What a client of gRPC takes for healthy: there is no health service.
    let without = scripted(Script::Refuse(12, Vec::new()));
    let bad = [
        NOT_SERVING,
        // UNKNOWN, which is not sent, and SERVICE_UNKNOWN.
        Script::Say(b"", 0),
        Script::Say(b"\x08\x03", 0),
        // The service is not found.
        Script::Refuse(5, Vec::new()),
        Script::Refuse(14, Vec::new()),
        // It serves, and then fails.
        Script::Say(b"\x08\x01", 13),
        // No message of this kind, too long a message, none at all, no gRPC.
        Script::Say(b"\xff", 0),
        Script::Answer(2_000, 0),
        Script::HeadThenRefuse(0),
        Script::Status(404),
        Script::Reset(h2::Reason::REFUSED_STREAM),
    ];
    let bad: Vec<GrpcServer> = bad.into_iter().map(scripted).collect();
    let mut endpoints = vec![well.address(), without.address(), gone];
    endpoints.extend(bad.iter().map(GrpcServer::address));
    let world = World::start(backend, &endpoints, "");
    let unhealthy: Vec<bool> = (0..endpoints.len()).map(|place| place > 1).collect();
    world.expect_unhealthy(&unhealthy);
    for result in ["serving", "unimplemented", "not-serving", "failed"] {
        world.expect_checks(result, 2.0);
    }
    world.call_often();
    assert!(bad.iter().all(|server| count(server, PATH) == 0));
    assert!(count(&well, PATH) + count(&without, PATH) >= 20);
    let endpoint = without.address().to_string();
    assert!(world.logs(&["UNIMPLEMENTED", &endpoint]));

    // The call is as gRPC has it: a field with the name of the service.
    let checks = well.calls();
    let checked = checks.iter().find(|call| call.path == CHECK);
    let checked = checked.expect("it was checked");
    assert_eq!(checked.bytes, Some(5 + 2 + "shop.Cart".len()));
    assert_eq!(checked.fields["content-type"], "application/grpc");
    assert_eq!(checked.fields["grpc-timeout"], "5000m");
}

fn silence_is_a_failed_check_of_the_server(backend: Backend) {
    let (silent, well) = (scripted(Script::Hang), scripted(SERVING));
    let endpoints = [silent.address(), well.address()];
    let listen = free();
    let config = config(listen, &endpoints, "\"\"", "");
    let config = config.replace("timeout: 5s", "timeout: 50ms");
    let world = World {
        proxy: Proxy::start(backend, &config),
        listen,
    };
    world.expect_unhealthy(&[true, false]);
    world.expect_checks("timeout", 2.0);
    let is_of_server = |server: &GrpcServer| {
        let checks = server.calls();
        let last = checks
            .iter()
            .rfind(|call| call.path == CHECK && call.is_whole());
        last.is_some_and(|call| call.bytes == Some(5))
    };
    assert!(is_of_server(&silent));
    eventually("the server as a whole is asked for", SOON, || {
        is_of_server(&well)
    });
}

fn where_none_is_healthy_all_get_calls(backend: Backend) {
    let (one, other) = (scripted(NOT_SERVING), scripted(NOT_SERVING));
    let world = World::start(backend, &[one.address(), other.address()], "");
    world.expect_unhealthy(&[true, true]);
    eventually("both get calls", SOON, || {
        world.call_often();
        count(&one, PATH) > 0 && count(&other, PATH) > 0
    });
}

fn a_dead_endpoint_opens_no_circuit(backend: Backend) {
    let is_dead = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&is_dead);
    let dying = GrpcServer::start(move |_, path| match path {
        _ if state.load(Ordering::SeqCst) => Script::Refuse(14, Vec::new()),
        CHECK => SERVING,
        _ => Script::Echo,
    });
    let well = scripted(SERVING);
    let more = "    circuit_breaker: { failures: 3 }\n    outlier: { consecutive: 2, base_ejection: 1h }\n";
    let world = World::start(backend, &[dying.address(), well.address()], more);
    let make = || GrpcCall::new(world.listen, PATH).make().code();
    // Calls find it out, or checks: whoever is first, the circuit stays closed.
    let mut calls = 0;
    eventually("checks have found it", SOON, || {
        calls += 1;
        assert!(matches!(make(), Some(0 | 14)));
        world.proxy.upstream("web")["endpoints"][0]["unhealthy"] == true
    });
    let failed = count(&dying, PATH);
    world.expect_checks("failed", 5.0);
    world.call_often();
    calls += 20;
    assert_eq!(count(&dying, PATH), failed);
    let labels = [("upstream", "web")];
    let proxy = &world.proxy;
    // Checks are no tries of requests.
    proxy.expect_metric(
        "ambassador_upstream_attempts_total",
        &labels,
        f64::from(calls),
    );
    proxy.expect_metric("ambassador_requests_total", &labels, f64::from(calls));
    let opened = [("upstream", "web"), ("to", "open")];
    proxy.expect_metric("ambassador_breaker_transitions_total", &opened, 0.0);

    // Back, it gets calls at once, however long it was ejected for.
    is_dead.store(false, Ordering::SeqCst);
    world.expect_unhealthy(&[false, false]);
    eventually("it gets calls again", SOON, || {
        world.call_often();
        count(&dying, PATH) > failed
    });
}

fn a_reload_says_who_is_checked_and_how(backend: Backend) {
    let (well, bad, new) = (
        scripted(SERVING),
        scripted(NOT_SERVING),
        scripted(NOT_SERVING),
    );
    let two = [well.address(), bad.address()];
    let world = World::start(backend, &two, "");
    world.expect_unhealthy(&[false, true]);

    // With other settings it stays unhealthy until checks find otherwise.
    let reload = |endpoints: &[SocketAddr], service: &str| {
        let config = config(world.listen, endpoints, service, "");
        world.proxy.rewrite_config(&config);
    };
    reload(&two, "shop.Basket");
    let before = count(&bad, PATH);
    eventually("the other service is asked for", SOON, || {
        world.call();
        let checks = bad.calls();
        let last = checks
            .iter()
            .rfind(|call| call.path == CHECK && call.is_whole());
        last.is_some_and(|call| call.bytes == Some(5 + 2 + "shop.Basket".len()))
    });
    assert_eq!(count(&bad, PATH), before);

    // One that is new is checked, one that is gone is not.
    reload(&[well.address(), new.address()], "shop.Cart");
    eventually("it is checked", SOON, || count(&new, CHECK) > 0);
    world.expect_unhealthy(&[false, true]);
    world.expect_checks("not-serving", 2.0);
    let checks = count(&bad, CHECK);
    world.expect_checks("not-serving", 4.0);
    assert_eq!(count(&bad, CHECK), checks);

    // Who is checked no more counts as healthy.
    reload(&[well.address(), new.address()], "off");
    eventually("it counts as healthy", SOON, || {
        world.proxy.upstream("web")["endpoints"][1]["unhealthy"] == false
    });
    eventually("it gets calls", SOON, || {
        world.call_often();
        count(&new, PATH) > 0
    });
    assert!(world.logs(&["no longer checked", &new.address().to_string()]));
}
