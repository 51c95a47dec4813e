//! The form without a file.

use std::time::Duration;

use super::*;
use crate::policy::breaker::{Ratio, Trip};
use crate::route::settings::Policies;

fn environment(set: &[(&str, &str)]) -> Option<Result<Checked, Mistakes>> {
    let value = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
    from_env(|name| value(name).map(str::to_owned))
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
        ("TLS_ENABLED", "maybe"),
        ("METRICS_LISTEN_ADDR", "15020"),
        ("PROTOCOL", "h3"),
    ]);
    let wanted = "\
environment: TLS_ENABLED: must be true or false, got maybe
environment: LISTEN_ADDR: is needed beside UPSTREAM_HOST
environment: UPSTREAM_PORT: must be a port from 1 to 65535, got x
environment: METRICS_LISTEN_ADDR: must be an IP address and port, as 127.0.0.1:8081, or unix:/path, got 15020
environment: PROTOCOL: must be one of auto, http1, http2, grpc, tcp, got h3
environment: UPSTREAM_HOST: must be a host name or address, got a b";
    assert_eq!(wrong.unwrap().unwrap_err().to_string(), wanted);
}

#[test]
fn the_environment_has_tries_and_a_threshold() {
    let with = |more: &[(&str, &str)]| {
        let mut set = vec![
            ("LISTEN_ADDR", "127.0.0.1:8080"),
            ("UPSTREAM_HOST", "api.example"),
            ("UPSTREAM_PORT", "80"),
        ];
        set.extend(more);
        environment(&set)
            .unwrap()
            .map_err(|mistakes| mistakes.to_string())
    };
    let policies = |more: &[(&str, &str)]| {
        let checked = with(more).unwrap();
        checked.routes.upstreams[0].policies.clone()
    };
    assert_eq!(policies(&[]), Policies::default());
    for (value, attempts) in [("0", 1), ("1", 1), ("7", 7), ("100", 100)] {
        let read = policies(&[("RETRY_MAX", value)]);
        assert_eq!(read.retry.attempts, attempts, "{value}");
    }
    let window = Duration::from_secs(10);
    for (value, trip) in [
        ("0", Trip::Never),
        (
            "8",
            Trip::Rolling {
                failures: 8,
                window,
                ratio: Some(Ratio::HALF),
            },
        ),
    ] {
        for protocol in ["auto", "tcp"] {
            let set = [("CIRCUIT_BREAKER_THRESHOLD", value), ("PROTOCOL", protocol)];
            assert_eq!(
                policies(&set).circuit_breaker.trip,
                trip,
                "{value} {protocol}"
            );
        }
    }
    let tcp = ("PROTOCOL", "tcp");
    assert!(with(&[("RETRY_MAX", "2"), tcp]).is_ok());
    for (set, wanted) in [
        (
            &[("RETRY_MAX", "-1"), ("CIRCUIT_BREAKER_THRESHOLD", "x")][..],
            "environment: RETRY_MAX: must be a whole number from 0 to 100, got -1\n\
             environment: CIRCUIT_BREAKER_THRESHOLD: must be a whole number from 0 to 10000, got x",
        ),
        (
            &[("RETRY_MAX", "101"), ("CIRCUIT_BREAKER_THRESHOLD", "10001")],
            "environment: RETRY_MAX: must be a whole number from 0 to 100, got 101\n\
             environment: CIRCUIT_BREAKER_THRESHOLD: must be a whole number from 0 to 10000, got 10001",
        ),
    ] {
        assert_eq!(with(set).unwrap_err(), wanted);
    }
}
