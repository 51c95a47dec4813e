//! The admin API, `status`.

use std::time::Duration;

use ambassador_tests::program::Running;
use ambassador_tests::proxy::{ambassador, one_upstream};
use ambassador_tests::{
    Backend, Client, Proxy, Server, eventually, on_both_backends, ports, program,
};

on_both_backends!(health_metrics_and_state_are_shown);

fn health_metrics_and_state_are_shown(backend: Backend) {
    let server = Server::ok();
    let (proxy, listen) = Proxy::in_front_of(backend, server.address());
    assert_eq!(Client::connect(listen).get("/").status, 200);
    assert_eq!(proxy.admin_status("/livez"), Some(200));
    assert_eq!(proxy.admin_status("/readyz"), Some(200));
    assert_eq!(proxy.admin_status("/nonsense"), Some(404));
    let metrics = proxy.metrics();
    for name in [
        "ambassador_requests_total",
        "ambassador_request_duration_seconds_bucket",
        "ambassador_request_duration_seconds_count",
        "ambassador_overhead_seconds_bucket",
        "ambassador_upstream_attempts_total",
        "ambassador_pool_connections",
        "ambassador_connections",
        "ambassador_bytes_total",
        "ambassador_shard_staleness_seconds",
        "ambassador_build_info",
        "process_resident_memory_bytes",
    ] {
        assert!(
            metrics.samples(name).next().is_some(),
            "{name} is not there"
        );
    }
    proxy.expect_metric(
        "ambassador_request_duration_seconds_count",
        &[("upstream", "web")],
        1.0,
    );
    let web = proxy.upstream("web");
    assert_eq!(web["endpoints"][0]["address"], server.address().to_string());
    assert_eq!(web["policies"]["retry"]["attempts"], 3, "{web}");
    assert_eq!(web["circuit_breaker"]["state"], "closed");
    assert_eq!(web["retry_budget"]["retries"], 0);
    assert_eq!(web["endpoints"][0]["ejected"], false);
    let config: serde_json::Value =
        serde_json::from_str(&proxy.admin_get("/config")).expect("it is JSON");
    assert!(config.to_string().contains("web"), "{config}");
    let status = program::succeed(ambassador(backend).args([
        "status",
        "--admin",
        &proxy.admin().to_string(),
    ]));
    assert!(status.contains("web"), "{status}");
}

#[test]
fn draining_needs_more_than_loopback() {
    let server = Server::ok();
    let (proxy, listen) = Proxy::in_front_of(Backend::Ring, server.address());
    let mut client = Client::connect(proxy.admin());
    client.send("POST /drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    let answer = client.response("POST");
    assert!(matches!(answer.status, 401 | 403), "{}", answer.head);
    assert_eq!(Client::connect(listen).get("/").status, 200);
}

#[test]
fn no_capability_is_kept() {
    let server = Server::ok();
    let cgroup = ambassador_tests::Cgroup::new();
    let config = crate::capture::claim("10.1.2.3", &server);
    let proxy = Proxy::capturing(Backend::Ring, &cgroup, &config);
    let tasks = format!("/proc/{}/task", proxy.pid());
    for task in std::fs::read_dir(tasks).expect("it runs") {
        let status = task.expect("a task").path().join("status");
        let status = std::fs::read_to_string(status).expect("it runs");
        for set in ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
            let line = status
                .lines()
                .find(|line| line.starts_with(set))
                .expect("Linux says so");
            assert!(line.ends_with("0000000000000000"), "{line}");
        }
    }
}

#[test]
fn a_unix_socket_may_drain_and_the_metrics_port_shows_little() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::ok();
    let loopback = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let (listen, metrics) = (loopback(ports::free()), loopback(ports::free()));
    let scratch = ambassador_tests::proxy::Scratch::new();
    let socket = scratch.path().join("admin.sock");
    let admin = format!("unix:{}", socket.display());
    let config = format!(
        "admin: {{ listen: \"{admin}\", metrics_listen: \"{metrics}\" }}\n{}",
        one_upstream(listen, server.address(), "")
    );
    let file = scratch.file("unix.yaml", &config);
    let mut child = Running::start(
        ambassador(Backend::Ring)
            .args(["run", "--config"])
            .arg(file),
    );
    let ask = |path: &str| {
        let mut client = Client::try_connect(metrics)?;
        client
            .try_send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
            .ok()?;
        client.try_response("GET").map(|answer| answer.status)
    };
    let limit = Duration::from_secs(10);
    eventually("it is ready", limit, || ask("/readyz") == Some(200));
    for path in ["/metrics", "/livez", "/jwks.json"] {
        assert_eq!(ask(path), Some(200), "{path}");
    }
    assert_eq!((ask("/upstreams"), ask("/config")), (Some(404), Some(404)));
    let mode = std::fs::metadata(&socket)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let status = program::succeed(ambassador(Backend::Ring).args(["status", "--admin", &admin]));
    assert!(status.contains("web"), "{status}");
    program::succeed(ambassador(Backend::Ring).args(["drain", "--admin", &admin]));
    assert_eq!(child.wait(limit).code(), Some(0));
}
