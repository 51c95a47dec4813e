//! The limit of open files: used in full, and what happens when it is reached.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use ambassador_tests::proxy::{Launch, ambassador, one_upstream};
use ambassador_tests::{Backend, Client, Proxy, Server, eventually, on_both_backends, ports};

on_both_backends!(
    the_hard_limit_is_used,
    callers_beyond_the_limit_are_reset_and_the_others_served,
    a_command_keeps_its_own_limit,
);

/// How long counts may take to settle.
const LIMIT: Duration = Duration::from_secs(10);

/// A proxy that starts with these limits, as `SOFT:HARD`.
fn limited(backend: Backend, limits: &str, config: &str) -> Proxy {
    let wrapper = vec!["prlimit".to_owned(), format!("--nofile={limits}")];
    let launch = Launch {
        wrapper,
        ..Launch::default()
    };
    Proxy::launch(backend, config, launch)
}

fn listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

fn the_hard_limit_is_used(backend: Backend) {
    let server = Server::ok();
    let proxy = limited(
        backend,
        "256:2048",
        &one_upstream(listen(), server.address(), ""),
    );
    assert_eq!(proxy.metric("process_max_fds", &[]), 2_048.0);
}

fn callers_beyond_the_limit_are_reset_and_the_others_served(backend: Backend) {
    const CROWD: usize = 300;
    let server = Server::ok();
    let listen = listen();
    // Every request needs a connection of its own.
    let config = one_upstream(listen, server.address(), "pool: { max_idle: 0 }");
    let proxy = limited(backend, "200:200", &format!("workers: 1\n{config}"));
    let mut early: Vec<Client> = (0..4).map(|_| Client::connect(listen)).collect();
    for client in &mut early {
        assert_eq!(client.get("/").status, 200);
    }
    let crowd: Vec<TcpStream> = (0..CROWD)
        .map(|_| TcpStream::connect(listen).expect("the kernel queues it"))
        .collect();
    let dropped = || {
        proxy.metric(
            "ambassador_dropped_accepts_total",
            &[("cause", "descriptors")],
        )
    };
    let open = || proxy.metric("ambassador_connections", &[("listener", "egress")]);
    let all = (CROWD + early.len()) as f64;
    eventually("everyone is accepted or reset", LIMIT, || {
        open() + dropped() == all
    });
    let is_reset = |mut stream: &TcpStream| {
        stream.set_nonblocking(true).expect("it is a socket");
        matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::ConnectionReset)
    };
    // An end is seen once.
    let mut reset = 0;
    let mut there: Vec<&TcpStream> = crowd.iter().collect();
    eventually("they are reset", LIMIT, || {
        let before = there.len();
        there.retain(|stream| !is_reset(stream));
        reset += before - there.len();
        reset as f64 == dropped()
    });
    assert!((100..CROWD).contains(&reset), "{reset}");

    // Those who are here are served.
    for client in &mut early {
        assert_eq!(client.get("/").status, 200);
    }
    let log = proxy.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("connections are reset"));
    assert!((1..=3).contains(&lines.count()), "{log}");

    // And everybody, once the crowd has left.
    drop(crowd);
    eventually("they are gone", LIMIT, || open() == early.len() as f64);
    assert_eq!(Client::connect(listen).get("/").status, 200);
    assert_eq!(
        proxy.metric("ambassador_breaker_state", &[("upstream", "web")]),
        0.0
    );
}

fn a_command_keeps_its_own_limit(backend: Backend) {
    let program = ambassador(backend).get_program().to_owned();
    let mut limited = std::process::Command::new("prlimit");
    limited.arg("--nofile=256:2048").arg(program);
    limited.args(["exec", "--", "sh", "-c", "ulimit -Sn"]);
    limited.env("AMBASSADOR_BACKEND", backend.name());
    let output = limited
        .stdin(Stdio::null())
        .output()
        .expect("prlimit is there");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        said.trim(),
        "256",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
