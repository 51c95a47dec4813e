mod bounds;
mod effective;
mod fail_fast;
mod fault;
mod policies;
mod secrets;
mod settings;
mod tracing;

use std::net::SocketAddr;

use serde_json::Value;

use super::reference::reference;
use super::*;
use crate::addr::BindAddr;
use crate::config::checked::{ListenerProtocol, Workers};
use crate::proxy::memory::Limit;
use crate::route::settings::Endpoints;

fn mistakes(text: &str) -> Vec<String> {
    match load_str("f", text) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.to_string().lines().map(str::to_owned).collect(),
    }
}

fn warnings(text: &str) -> Vec<String> {
    let checked = load_str("f", text).unwrap();
    checked.warnings.iter().map(ToString::to_string).collect()
}

fn environment(set: &[(&str, &str)]) -> Option<Result<Checked, Mistakes>> {
    let value = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    from_env(|name| value(name).map(str::to_owned))
}

fn repository() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn example(name: &str) -> Checked {
    load(&repository().join("examples").join(name)).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

#[test]
fn every_mistake_is_reported_at_once_with_line_path_and_value() {
    let text = "\
wrokers: 2
workers: none
admin: { listen: 0.0.0.0:15000 }
drain_timeout: 30
capture:
  cgroups: [relative, { netns: /proc/1/ns/net }]
  mode: epbf
  include: { ports: [0, 80], cidrs: [10.1.2.3/8] }
listeners:
  - { name: a, bind: localhost:80 }
  - { name: b, bind: 127.0.0.1:81, protocol: tcp }
  - { name: b, bind: 127.0.0.1:81, upstream: nobody }
upstreams:
  pay/ments:
    endpoints: [10.1.2.3:0, api:80]
  two:
    hosts: [a.example, 10.0.0.0/8, \"a.*\"]
    pool: { max_idle: 1, min_idle: 2, max_conections: 5 }
  three:
    hosts: [A.example., 10.0.0.0/8]
    tls: { verify: full }
routes:
  - match: { path_prefix: v1, methods: [get] }
    upstream: tow
telemetry: { access_log: { sample: 101% } }
";
    let expected = "\
f:1: wrokers: unknown key, did you mean workers?
f:2: workers: must be auto or a number from 1 to 1024, got none
f:3: admin.listen: must be on loopback or a unix socket; off loopback it needs token_file (for health and metrics alone use metrics_listen), got 0.0.0.0:15000
f:4: drain_timeout: must be a whole number and a unit (ms, s, m, h, d), as 250ms or 10s, got 30
f:6: capture.cgroups[0]: must be a path from the root, got relative
f:6: capture.cgroups[1]: must have a path
f:7: capture.mode: must be one of ebpf, iptables; did you mean ebpf?, got epbf
f:8: capture.include.ports[0]: must be a port from 1 to 65535, got 0
f:8: capture.include.cidrs[0]: has bits set beyond its prefix, did you mean 10.0.0.0/8?, got 10.1.2.3/8
f:10: listeners[0].bind: must be an IP address and port, as 127.0.0.1:8081, or unix:/path, got localhost:80
f:10: listeners[0]: must have a bind address
f:11: listeners[1]: a tcp listener must have an upstream
f:12: listeners[2].upstream: an http listener routes each request; this is for protocol tcp, got nobody
f:12: listeners[2].name: is the name of another listener, got b
f:12: listeners[2].bind: is bound twice, listener b has 127.0.0.1:81, got 127.0.0.1:81
f:14: upstreams.pay/ments: a name has 1 to 63 letters, digits, '.', '_' or '-', got pay/ments
f:15: upstreams.pay/ments.endpoints[0]: must have a port from 1 to 65535, got 10.1.2.3:0
f:15: upstreams.pay/ments.endpoints[1]: must be an IP address and port, as 10.1.2.3:8443 (for a name use dns), got api:80
f:17: upstreams.two.hosts[2]: a wildcard stands for the first labels, as *.pay.svc, got a.*
f:18: upstreams.two.pool.max_conections: unknown key, did you mean max_connections?
f:18: upstreams.two.pool.min_idle: min_idle 2 is over max_idle 1, got 2
f:18: upstreams.two.pool.min_idle: needs endpoints or dns: there is nothing to dial ahead of a request, got 2
f:20: upstreams.three.hosts[0]: is claimed twice, by two as well, got A.example.
f:20: upstreams.three.hosts[1]: is claimed twice, by two as well, got 10.0.0.0/8
f:21: upstreams.three.tls: unknown key; known here: hosts, endpoints, dns, protocol, pool, timeouts, tcp_keepalive, retry, circuit_breaker, rate_limit, load_balancing, zone, outlier, hedge, concurrency, headers, max_hops, fault, propagate
f:23: routes[0].match.path_prefix: must start with a slash, got v1
f:23: routes[0].match.methods[0]: methods have case, did you mean GET?, got get
f:24: routes[0].upstream: no such upstream, did you mean two?, got tow
f:25: telemetry.access_log.sample: must be a percentage from 0% to 100%, got 101%";
    let found = mistakes(text);
    let expected: Vec<&str> = expected.lines().collect();
    assert_eq!(found, expected);
}

#[test]
fn one_mistake_each() {
    let upstream = |body: &str| format!("upstreams:\n  a: {{ {body} }}\n");
    let listener = |body: &str| {
        let upstreams = upstream("endpoints: [10.1.1.1:80]");
        format!("{upstreams}listeners:\n  - {{ name: l, {body} }}\n")
    };
    let long = "x".repeat(110);
    for (text, wanted) in [
        ("a: [".to_owned(), "is not YAML"),
        ("--- {}\n--- {}".to_owned(), "second YAML document"),
        ("[1]".to_owned(), "must be a mapping, got a list"),
        (
            "workers: 1\nworkers: 2".to_owned(),
            "f:2: workers: stands there twice, first on line 1",
        ),
        (
            "workers:".to_owned(),
            "f:1: workers: must be one value, got nothing",
        ),
        ("workers: 0".to_owned(), "got 0"),
        (
            "max_connections: 0".to_owned(),
            "must be at least 1, or none",
        ),
        (
            "memory_limit: 4MiB".to_owned(),
            "is too little to start with: the proxy needs 12544KiB, got 4MiB",
        ),
        (
            "workers: 64\nmemory_limit: 24MiB".to_owned(),
            "the proxy needs 28MiB, got 24MiB",
        ),
        (
            "memory_limit: lots".to_owned(),
            "must be a whole number and a unit (B, KiB, MiB, GiB), as 64KiB, or auto or none",
        ),
        ("user: 998".to_owned(), "uid:gid as 998:998, got 998"),
        ("user: \"998:\"".to_owned(), "must be auto, the name"),
        ("user: 4294967295:1".to_owned(), "must be auto, the name"),
        ("user: ../root".to_owned(), "must be auto, the name"),
        ("drain_timeout: 400d".to_owned(), "must be at most 365d"),
        ("drain_timeout: -1s".to_owned(), "must be a whole number"),
        ("listeners: {}".to_owned(), "must be a list, got a mapping"),
        (
            "admin: { listen: 127.0.0.1:1, metrics_listen: 0.0.0.0:1 }".to_owned(),
            "bound twice",
        ),
        (
            "admin: { listen: unix:admin.sock }".to_owned(),
            "path from the root",
        ),
        (
            format!("admin: {{ listen: unix:/{long} }}"),
            "at most 107 bytes",
        ),
        (
            listener("bind: 127.0.0.1:15000"),
            "admin.listen has 127.0.0.1:15000",
        ),
        (
            listener("bind: 127.0.0.1:1, protocol: tcp, upstream: b"),
            "no such upstream, got b",
        ),
        (
            upstream("hosts: [10.1.1.1]")
                + "listeners:\n  - { name: l, bind: 127.0.0.1:1, protocol: tcp, upstream: a }",
            "no original destination",
        ),
        (
            upstream("endpoints: [10.1.1.1:1], protocol: http1")
                + "listeners:\n  - { name: l, bind: 127.0.0.1:1, protocol: tcp, upstream: a }",
            "speaks http1",
        ),
        (upstream("endpoints: []"), "at least one endpoint"),
        (
            upstream("endpoints: [10.1.1.1:1, 10.1.1.1:1]"),
            "endpoints[1]: stands there twice",
        ),
        (
            upstream("endpoints: [0.0.0.0:1]"),
            "must be the address of one host",
        ),
        (upstream("endpoints: [10.1.1.1:1], dns: a.b:1"), "not both"),
        (
            upstream("endpoints: [{ address: 10.1.1.1:1, wieght: 2 }]"),
            "endpoints[0].wieght: unknown key, did you mean weight?",
        ),
        (
            upstream("endpoints: [{ address: 10.1.1.1:1, weight: 0 }]"),
            "endpoints[0].weight: must be from 1 to 65535, got 0",
        ),
        (
            upstream("endpoints: [{ address: 10.1.1.1:1, weight: 65536 }]"),
            "endpoints[0].weight: must be from 1 to 65535",
        ),
        (
            upstream("endpoints: [{ address: 10.1.1.1:1, zone: '' }]"),
            "endpoints[0].zone: must be the name of a zone",
        ),
        (
            upstream("endpoints: [10.1.1.1:1, { address: 10.1.1.1:1, weight: 2 }]"),
            "stands there twice",
        ),
        (upstream("endpoints: [{ }]"), "must have an address"),
        (upstream("dns: a.example"), "host name and port"),
        (
            upstream("dns: 10.1.1.1:80"),
            "addresses stand under endpoints",
        ),
        (upstream("hosts: [10.1.2]"), "whole IP address"),
        (upstream("hosts: ['*.10.1.1.1']"), "CIDR"),
        (upstream("hosts: ['a.example:0']"), "port"),
        (
            upstream("hosts: ['10.0.0.0/33']"),
            "must be an IP address or CIDR",
        ),
        (
            upstream("hosts: [a.example, A.EXAMPLE]"),
            "hosts[1]: stands there twice",
        ),
        (upstream("hosts: ['10.0.0.0/8:0']"), "port"),
        (
            upstream("protocol: http2"),
            "must be one of auto, http1, tcp; did you mean http1?",
        ),
        (
            upstream("protocol: tcp, headers: { remove: [x] }"),
            "protocol tcp has no headers",
        ),
        (upstream("pool: { max_connections: 0 }"), "at least 1"),
        (
            upstream("pool: { idle_timeout: 0s }"),
            "longer than nothing",
        ),
        (
            upstream("dns: 'b:1', pool: { min_idle: 30, max_connections: 20 }"),
            "over max_connections 20",
        ),
        (
            upstream("headers: { set: { Host: x } }"),
            "proxy itself answers for",
        ),
        (
            upstream("headers: { remove: [Transfer-Encoding] }"),
            "proxy itself answers for",
        ),
        (
            upstream("headers: { set: { 'a b': x } }"),
            "is no header name",
        ),
        (
            upstream("headers: { set: { a: \"x\\r\\ny\" } }"),
            "control characters, got ***",
        ),
        (upstream("headers: { set: { a: ' x' } }"), "starts nor ends"),
        (upstream("headers: { set: { a: x, A: y } }"), "set twice"),
        (
            upstream("headers: { set: { a: x }, remove: [A] }"),
            "set and removed",
        ),
        (
            "upstreams: { adopted: {} }".to_owned(),
            "taken by the metrics",
        ),
        ("upstreams: { '..': {} }".to_owned(), "dots alone"),
        (
            upstream("protocol: tcp, endpoints: [10.1.1.1:1]") + "routes: [{ upstream: a }]",
            "this upstream is protocol tcp",
        ),
        ("routes: [{}]".to_owned(), "must have an upstream"),
        (
            "capture: { cgroups: [/a, { path: /a }] }".to_owned(),
            "captured twice",
        ),
        (
            "capture: { include: { cidrs: [10.1.0.0/16] }, exclude: { cidrs: [10.0.0.0/8] } }"
                .to_owned(),
            "excluded as a whole",
        ),
        (
            "capture: { include: { ports: [80] }, exclude: { ports: [80] } }".to_owned(),
            "included and excluded",
        ),
        (
            "telemetry: { access_log: { path: log.json } }".to_owned(),
            "path from the root",
        ),
    ] {
        let found = mistakes(&text);
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(found[0].contains(wanted), "{text}\n{}", found[0]);
    }
}

#[test]
fn what_is_perhaps_not_meant_is_warned_about() {
    for (text, wanted) in [
        (
            "capture: { unmatched: passthrough }\nupstreams: { a: { hosts: ['*.b.example'] } }",
            "2: upstreams.a.hosts[0]: under unmatched: passthrough",
        ),
        (
            "capture: { exclude: { cidrs: [10.0.0.0/8] } }\nupstreams: { a: { hosts: [10.1.1.1] } }",
            "never captured",
        ),
        (
            "capture: { include: { ports: [80] } }\nupstreams: { a: { hosts: ['b:81'] } }",
            "include.ports does not have its port",
        ),
        (
            "capture: { include: { cidrs: [11.0.0.0/8] } }\nupstreams: { a: { hosts: [10.1.1.1] } }",
            "include.cidrs does not have it",
        ),
        (
            "capture: {}\nupstreams: { a: { hosts: [127.0.0.1] } }",
            "loopback is out of scope",
        ),
        (
            "upstreams: { a: { endpoints: [10.1.1.1:1] } }",
            "nothing leads here",
        ),
        (
            "upstreams: { a: { hosts: [b], load_balancing: random } }",
            "upstreams.a.load_balancing: does nothing without endpoints or dns",
        ),
        (
            "upstreams: { a: { hosts: [b], zone: c } }",
            "upstreams.a.zone: does nothing without",
        ),
        (
            "upstreams: { a: { hosts: [b], outlier: { interval: 1s } } }",
            "upstreams.a.outlier: does nothing without",
        ),
        (
            "listeners: [{ name: a, bind: 0.0.0.0:80 }]",
            "open to other machines",
        ),
        (
            "listeners: [{ name: a, bind: 127.0.0.1:80 }]\nupstreams: { a: { endpoints: [127.0.0.1:80] } }",
            "which is a loop",
        ),
        (
            "upstreams: { a: { hosts: [b] } }\nroutes: [{ upstream: a }, { match: { host: b }, upstream: a }]",
            "routes[1]: is never reached",
        ),
        (
            "upstreams: { a: { hosts: [b], protocol: tcp } }",
            "never reads",
        ),
    ] {
        let found = warnings(text);
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(found[0].contains(wanted), "{text}\n{}", found[0]);
    }
}

#[test]
fn aliases_work_and_do_not_explode() {
    let text = "upstreams:\n  a: { pool: &p { max_idle: 7 } }\n  b: { hosts: [b], pool: *p }\n";
    let checked = load_str("f", text).unwrap();
    assert_eq!(checked.routes.upstreams[1].policies.pool.max_idle, 7);

    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let alias = format!("*a{}", n - 1);
        let list = [alias.as_str(); 10].join(", ");
        bomb.push_str(&format!("a{n}: &a{n} [{list}]\n"));
    }
    assert!(mistakes(&bomb).concat().contains("too many values"));
    let deep = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
    assert!(mistakes(&deep).concat().contains("nested too deep"));
}

#[test]
fn line_ends_and_byte_order_marks_of_other_systems_are_read() {
    let checked = load_str("f", "\u{feff}workers: 3\r\ndrain_timeout: 1s\r\n").unwrap();
    assert_eq!(checked.workers, Workers::Count(3));
    let found = mistakes("workers: 3\r\n\r\ndrain_timeout: 1\r\n");
    assert!(found[0].starts_with("f:3: drain_timeout"), "{found:?}");
}

#[test]
fn files_that_cannot_be_read_say_so() {
    let missing = load(Path::new("/nonexistent/ambassador.yaml"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.starts_with("/nonexistent/ambassador.yaml: there is no such file"),
        "{missing}"
    );
    let directory = load(Path::new("/")).unwrap_err().to_string();
    assert!(directory.starts_with("/: is a directory"), "{directory}");
}

#[test]
fn an_empty_file_is_all_defaults() {
    let checked = load_str("f", "# nothing\n").unwrap();
    assert_eq!(checked.workers, Workers::Auto);
    assert_eq!(checked.admin.listen.to_string(), "127.0.0.1:15000");
    assert!(checked.capture.is_none() && checked.listeners.is_empty());
    assert_eq!(checked.routes.adopted.pool.max_connections, None);
}

#[test]
fn memory_is_limited_by_the_cgroup_unless_the_file_says_otherwise() {
    let limit = |text: &str| {
        let checked = load_str("f", text).unwrap();
        let shown = checked.effective()["memory_limit"].clone();
        (checked.memory_limit, shown)
    };
    assert_eq!(limit("{}"), (Limit::Auto, "auto".into()));
    assert_eq!(limit("memory_limit: auto"), (Limit::Auto, "auto".into()));
    assert_eq!(limit("memory_limit: none"), (Limit::None, "none".into()));
    let bytes = Limit::Bytes(24 << 20);
    assert_eq!(limit("memory_limit: 24MiB"), (bytes, "24MiB".into()));
    assert_eq!(limit("memory_limit: 25165824"), (bytes, "24MiB".into()));
}

/// The defaults that the schema and the reference name are those in effect.
#[test]
fn documented_defaults_are_true() {
    let minimal = "\
capture: {}
listeners: [{ name: a, bind: 127.0.0.1:1 }]
upstreams: { a: { hosts: [b] } }
telemetry: { access_log: {} }
";
    let effective = load_str("f", minimal).unwrap().effective();
    let mut compared = 0;
    let mut pairs = vec![(schema(), effective.clone())];
    let upstream = effective["upstreams"]["a"].clone();
    pairs.push((schema()["properties"]["defaults"].clone(), upstream));
    while let Some((schema, value)) = pairs.pop() {
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(default) = schema.get("default") {
                let seen = value
                    .get(key)
                    .unwrap_or_else(|| panic!("{key} is not in effect"));
                let canonical = |v: &Value| match v {
                    Value::String(text) if text == "60s" => "1m".to_owned(),
                    Value::String(text) => text.clone(),
                    // The lists are sets.
                    Value::Array(list) => {
                        let mut list: Vec<String> = list.iter().map(Value::to_string).collect();
                        list.sort();
                        list.concat()
                    }
                    other => other.to_string(),
                };
                assert_eq!(canonical(seen), canonical(default), "{key}");
                compared += 1;
            }
            if key == "defaults" || key == "upstreams" {
                continue;
            }
            match value.get(key) {
                Some(Value::Array(list)) => pairs.extend(
                    list.iter()
                        .map(|item| (schema["items"].clone(), item.clone())),
                ),
                Some(below) => pairs.push((schema.clone(), below.clone())),
                None => {}
            }
        }
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn the_examples_are_sound_and_what_is_in_effect_loads_again() {
    for name in [
        "listeners.yaml",
        "capture.yaml",
        "resilience.yaml",
        "full.yaml",
    ] {
        let checked = example(name);
        assert!(checked.warnings.is_empty(), "{}", checked.warnings);
        let effective = checked.effective();
        let again = load_str("f", &effective.to_string()).unwrap_or_else(|m| panic!("{name}: {m}"));
        assert_eq!(again.effective(), effective, "{name}");
    }
}

#[test]
fn secrets_are_masked() {
    let shown = example("full.yaml").effective().to_string();
    let policies = format!("{:?}", example("full.yaml").policies);
    for shown in [shown, policies] {
        assert!(
            shown.contains("x-api-key") && shown.contains("***"),
            "{shown}"
        );
        // What a harmless name has may be one as well.
        assert!(
            !shown.contains("not-shown") && !shown.contains("shop\""),
            "{shown}"
        );
    }
}

#[test]
fn an_upstream_inherits_key_by_key() {
    let checked = load_str(
        "f",
        "defaults:\n  pool: { max_idle: 7, max_pending: 8 }\n  headers: { set: { a: 1, b: 1 }, remove: [c] }\nupstreams:\n  x:\n    hosts: [x]\n    pool: { max_idle: 9 }\n    headers: { set: { B: 2, C: 2 } }\n",
    )
    .unwrap();
    let upstream = &checked.routes.upstreams[0];
    assert_eq!(
        (
            upstream.policies.pool.max_idle,
            upstream.policies.pool.max_pending
        ),
        (9, 8)
    );
    assert_eq!(upstream.policies.pool.max_connections, Some(100));
    let set: Vec<String> = upstream
        .policies
        .headers
        .set
        .iter()
        .map(|(n, v)| format!("{n}={v}"))
        .collect();
    assert_eq!(set, ["B=2", "C=2", "a=1"]);
    assert!(upstream.policies.headers.remove.is_empty());
    let origin = |key: &str| {
        let policy = checked.policies[0].iter().find(|policy| policy.key == key);
        policy.map(|policy| policy.origin.to_string()).unwrap()
    };
    assert_eq!(origin("pool.max_idle"), "upstream, line 7");
    assert_eq!(origin("pool.max_pending"), "defaults, line 2");
    assert_eq!(origin("pool.max_connections"), "built in");
    assert_eq!(origin("headers.set.a"), "defaults, line 3");
    assert_eq!(origin("headers.set.C"), "upstream, line 8");
}

#[test]
fn only_some_things_need_a_restart() {
    let old = load_str("f", "workers: 1\ncapture: {}").unwrap();
    let new = load_str(
        "f",
        "workers: 1\ncapture: { unmatched: refuse }\ndrain_timeout: 1s",
    )
    .unwrap();
    assert_eq!(old.check_reload(&new, "f"), Ok(()));
    let new = "workers: 2\nspin: adaptive\nuser: nobody\nadmin: { listen: 127.0.0.1:1 }\n\
               capture: { mode: iptables }";
    let refused = old
        .check_reload(&load_str("f", new).unwrap(), "f")
        .unwrap_err();
    let wanted = "f: workers: needs a restart\nf: spin: needs a restart\n\
                  f: user: needs a restart\n\
                  f: admin.listen: needs a restart\nf: capture.mode: needs a restart";
    assert_eq!(refused.to_string(), wanted);

    let nothing = load_str("f", "{}").unwrap();
    let all = "capture: { cgroups: [/a], include: { ports: [1] } }\nmemory_limit: none\n\
               listeners: [{ name: a, bind: 127.0.0.1:1 }]\ntelemetry: { access_log: {} }";
    let all = load_str("f", all).unwrap();
    assert_eq!(nothing.check_reload(&all, "f"), Ok(()));
    assert_eq!(all.check_reload(&nothing, "f"), Ok(()));
    let guarded = load_str("f", "admin: { token_file: /t }").unwrap();
    for (old, new) in [(&nothing, &guarded), (&guarded, &nothing)] {
        let refused = old.check_reload(new, "f").unwrap_err().to_string();
        assert_eq!(refused, "f: admin.token_file: needs a restart");
    }
}

#[test]
fn the_environment_makes_one_upstream() {
    assert!(environment(&[("LISTEN_ADDR", "127.0.0.1:1")]).is_none());
    let both = [
        ("LISTEN_ADDR", "127.0.0.1:8080"),
        ("UPSTREAM_HOST", "api.example"),
        ("UPSTREAM_PORT", "80"),
    ];
    let checked = environment(&both).unwrap().unwrap();
    let bind: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    assert_eq!(checked.listeners[0].bind, BindAddr::Tcp(bind));
    assert_eq!(checked.listeners[0].protocol, ListenerProtocol::Http);
    assert_eq!(checked.routes.routes[0].upstream, 0);
    let dns = Endpoints::Dns {
        name: "api.example".to_owned(),
        port: 80,
    };
    assert_eq!(checked.routes.upstreams[0].endpoints, dns);

    let tcp = environment(&[
        ("LISTEN_ADDR", "unix:/run/a.sock"),
        ("METRICS_LISTEN_ADDR", "0.0.0.0:15020"),
        ("UPSTREAM_HOST", "::1"),
        ("UPSTREAM_PORT", "80"),
        ("PROTOCOL", "tcp"),
    ]);
    let checked = tcp.unwrap().unwrap();
    assert_eq!(checked.listeners[0].upstream, Some(0));
    let endpoint: SocketAddr = "[::1]:80".parse().unwrap();
    assert_eq!(
        checked.routes.upstreams[0].endpoints,
        Endpoints::Static(vec![endpoint.into()])
    );
    let probes: SocketAddr = "0.0.0.0:15020".parse().unwrap();
    assert_eq!(checked.admin.metrics_listen, Some(BindAddr::Tcp(probes)));

    let wrong = environment(&[
        ("UPSTREAM_HOST", "a b"),
        ("UPSTREAM_PORT", "x"),
        ("TLS_ENABLED", "true"),
        ("METRICS_LISTEN_ADDR", "15020"),
        ("PROTOCOL", "h3"),
    ]);
    let wanted = "\
environment: TLS_ENABLED: is not supported yet, got true
environment: LISTEN_ADDR: is needed beside UPSTREAM_HOST
environment: UPSTREAM_PORT: must be a port from 1 to 65535, got x
environment: METRICS_LISTEN_ADDR: must be an IP address and port, as 127.0.0.1:8081, or unix:/path, got 15020
environment: PROTOCOL: must be one of auto, http1, tcp, got h3
environment: UPSTREAM_HOST: must be a host name or address, got a b";
    assert_eq!(wrong.unwrap().unwrap_err().to_string(), wanted);
}

#[test]
fn a_destination_is_explained_with_the_lines_that_decide() {
    let checked = example("full.yaml");
    let explain = |destination: &str| explain::explain(&checked, destination).unwrap().to_json();
    let shown = explain("http://api.payments.example/v1");
    assert_eq!(shown["upstream"], "payments");
    assert_eq!(shown["route"], "the name asked for");
    assert_eq!(
        shown["endpoints"],
        "10.1.2.3:8443, 10.1.2.4:8443 (weight 2, zone b)"
    );
    assert_eq!(shown["policies"]["timeouts.connect"]["value"], "250ms");
    assert!(
        shown["policies"]["timeouts.connect"]["from"]
            .as_str()
            .unwrap()
            .starts_with("upstream")
    );
    assert_eq!(
        explain("http://api.payments.example/search?q")["route"],
        "routes[0]"
    );
    assert_eq!(
        explain("10.2.7.7:8443")["captured"],
        "yes: payments claims it"
    );
    assert_eq!(
        explain("10.2.7.7:80")["upstream"],
        "unmatched: relayed to where it was going"
    );
    assert_eq!(
        explain("127.0.0.1:80")["captured"],
        "no: capture.exclude.cidrs has 127.0.0.0/8"
    );
    assert_eq!(
        explain("10.2.7.7:9")["captured"],
        "no: capture.include.ports does not have 9"
    );
    assert_eq!(explain("https://[2001:db8::1]/")["upstream"], "payments");

    let listeners = example("listeners.yaml");
    let explain = |destination: &str| explain::explain(&listeners, destination).unwrap().to_json();
    assert_eq!(
        explain("http://api.payments.example/")["upstream"],
        "payments"
    );
    assert_eq!(
        explain("http://127.0.0.1:8081/payments/v1")["route"],
        "the path"
    );
    assert_eq!(explain("http://other/")["upstream"], "none: no-route");
    assert_eq!(
        explain("10.1.2.20:5432")["captured"],
        "only by `run --cgroup`: the file has no capture"
    );
    assert_eq!(
        explain("10.1.2.20:5432")["upstream"],
        "unmatched: relayed to where it was going"
    );
    for bad in ["nonsense", "ftp://a", "http://", "http://a:0/"] {
        assert!(explain::explain(&checked, bad).is_err(), "{bad}");
    }
}

#[test]
fn the_schema_accepts_no_key_that_the_reader_refuses() {
    let schema = schema();
    assert_eq!(schema["additionalProperties"], false);
    assert!(schema["properties"]["routes"]["items"]["properties"]["match"].is_object());
    assert!(!schema.to_string().contains("null"));
    assert!(schema.get("required").is_none());
    let listener = &schema["properties"]["listeners"]["items"];
    assert_eq!(listener["required"], serde_json::json!(["name", "bind"]));
}

/// Run with AMBASSADOR_WRITE_REFERENCE=1 to bring the file up to date.
#[test]
fn the_reference_is_current() {
    let path = repository().join("docs/configuration.md");
    if std::env::var_os("AMBASSADOR_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, reference()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(
        written == reference(),
        "docs/configuration.md is out of date"
    );
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[a-z:{}\\[\\],*&!'\" \n#|>~-]{0,200}") {
        let _ = load_str("f", &text);
    }

    #[test]
    fn no_value_panics(value in "\\PC{0,40}") {
        let quoted = serde_json::to_string(&value).unwrap();
        let text = format!(
            "workers: {quoted}\ndrain_timeout: {quoted}\nadmin: {{ listen: {quoted} }}\n\
             upstreams: {{ a: {{ hosts: [{quoted}], endpoints: [{quoted}], dns: {quoted} }} }}\n\
             routes: [{{ match: {{ host: {quoted} }}, upstream: {quoted} }}]\n\
             defaults:\n  timeouts: {{ request: {quoted} }}\n  \
             retry: {{ on: [{quoted}], budget: {{ ratio: {quoted} }}, body_limit: {quoted} }}\n  \
             circuit_breaker: {{ failures: {quoted}, failure_statuses: [{quoted}] }}\n  \
             rate_limit: {{ requests_per_second: {quoted} }}\n"
        );
        proptest::prop_assert!(load_str("f", &text).is_err());
        let checked = load_str("f", "").unwrap();
        let _ = explain::explain(&checked, &value);
    }
}
