//! Whoever took the proxy over has its user and its descriptors, and what that
//! does not get them.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use ambassador_tests::proxy::{Scratch, one_upstream};
use ambassador_tests::{Backend, Cgroup, Client, Proxy, Server, on_both_backends, ports, program};

use crate::identity::children;

on_both_backends!(its_place_is_worth_little);

fn its_place_is_worth_little(backend: Backend) {
    let server = Server::ok();
    let cgroup = Cgroup::new();
    let scratch = Scratch::new();
    let secret = scratch.file("secret", "of root\n");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(&secret, mode).expect("it is ours");
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let upstream = one_upstream(listen, server.address(), "");
    let proxy = Proxy::capturing(backend, &cgroup, &format!("workers: 2\n{upstream}"));
    assert_eq!(Client::connect(listen).get("/").status, 200);

    let mut taker = Command::new(program::PYTHON);
    taker.args(["-c", include_str!("taken_over.py")]);
    for number in [proxy.pid(), children(proxy.pid())[0], listen.port().into()] {
        taker.arg(number.to_string());
    }
    let said = program::succeed(taker.arg(&secret));
    let mut lines: Vec<&str> = said.lines().collect();
    lines.retain(|line| !line.ends_with(" kept"));
    // Two sockets of the listener, and of the one that takes what is captured.
    let wanted = ["user other", "shared-listeners 4", "channel there"];
    assert_eq!(lines, wanted, "{said}");
    assert!(said.lines().count() > 30, "{said}");
    assert_eq!(
        std::fs::read_to_string(&secret).expect("it is ours"),
        "of root\n"
    );
    // It was nothing that hurt.
    assert_eq!(Client::connect(listen).get("/").status, 200);
    assert_eq!(proxy.admin_status("/readyz"), Some(200));
}
