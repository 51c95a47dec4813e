//! `exec --observe`: captured and counted, and nothing else.

use std::process::Command;

use ambassador_tests::proxy::{self, Scratch};
use ambassador_tests::server::response;
use ambassador_tests::{Backend, Netns, Server, on_both_backends, program};

use crate::capture_scope::world;

on_both_backends!(what_is_observed_is_left_as_it_is);

/// A request with fields that a policy would change.
const CURL: [&str; 7] = [
    "curl",
    "-sS",
    "-m20",
    "-H",
    "X-Own: 1",
    "-H",
    "x-envoy-expected-rq-timeout-ms: 5000",
];

/// How often each caller calls: more often than a breaker lets pass.
const CALLS: usize = 8;

fn what_is_observed_is_left_as_it_is(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let server = Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        connection.serve_http(|_| response("503 Service Unavailable", "", "busy"))
    });
    let binary = proxy::binary().display().to_string();
    let scratch = Scratch::new();
    let file = scratch.file(
        "policies.yaml",
        "capture: { unmatched: refuse }\n\
         defaults: { retry: { attempts: 5, base: 1ms }, rate_limit: { requests_per_second: 1, burst: 1 } }\n\
         upstreams: { web: { hosts: [10.1.2.3], headers: { set: { x-team: shop } } } }\n\
         routes: [{ match: { path_prefix: / }, upstream: web, timeouts: { request: 1ms } }]\n",
    );
    let file = file.display().to_string();

    let direct = calls(backend, &namespace, &[]);
    assert_eq!(direct, ["503 "; CALLS]);
    let heads = || -> Vec<String> {
        let requests = server.requests();
        requests.into_iter().map(|request| request.head).collect()
    };
    let sent = heads();
    assert_eq!(sent.len(), CALLS);
    for options in [&["--observe"][..], &["--observe", "--config", &file]] {
        let exec = [&[&binary, "exec"], options, &["--"]].concat();
        let observed = calls(backend, &namespace, &exec);
        assert_eq!(observed, ["503 "; CALLS], "{options:?}");
        // One try each, and each as it was sent.
        let seen = heads();
        assert_eq!(seen[seen.len() - CALLS..], sent, "{options:?}");
        assert_eq!(seen.len() % CALLS, 0, "{options:?}");
    }
    // Without the option there are retries, then the circuit opens.
    let adopted = calls(backend, &namespace, &[&binary, "exec", "--"]);
    assert_eq!(adopted.last().map(String::as_str), Some("503 circuit-open"));
    assert!(!sent.contains(&server.last_request().head));

    let curl = ["curl", "-sS", "-m20", "http://10.1.2.3/"];
    let exec = [
        &[&binary, "exec", "--observe", "--summary", "--"],
        &curl[..],
    ]
    .concat();
    let output = program::output(&mut inside(backend, &namespace, &exec));
    let summary = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(summary.contains("  10.1.2.3: 1 requests"), "{summary}");
}

fn inside(backend: Backend, namespace: &Netns, words: &[&str]) -> Command {
    let [nsenter, entered, first] = namespace.wrap(words[0]);
    let mut command = Command::new(nsenter);
    command.args([entered, first]).args(&words[1..]);
    command.env("AMBASSADOR_BACKEND", backend.name());
    command
}

/// Status and reason of each call, made one after the other behind `exec`.
fn calls(backend: Backend, namespace: &Netns, exec: &[&str]) -> Vec<String> {
    let format = "%{http_code} %header{x-ambassador-reason}\\n";
    let url = format!("http://10.1.2.3/[1-{CALLS}]");
    let rest = ["-o", "/dev/null", "-w", format, &url];
    let words = [exec, &CURL[..], &rest[..]].concat();
    let said = program::succeed(&mut inside(backend, namespace, &words));
    said.lines().map(str::to_owned).collect()
}
