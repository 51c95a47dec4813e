//! What the start of the proxy meets: ports that others still hold.

use std::net::TcpListener;
use std::time::Duration;

use ambassador_tests::proxy::{Launch, one_upstream};
use ambassador_tests::{Backend, Client, Proxy, Server, eventually, on_both_backends, ports};

on_both_backends!(a_port_that_comes_free_is_taken);

const SOON: Duration = Duration::from_secs(10);

/// As after a kill, when the kernel takes its time to close what the former
/// proxy had open.
fn a_port_that_comes_free_is_taken(backend: Backend) {
    let server = Server::ok();
    // No client takes it for its own end of a connection once it is free.
    let busy = TcpListener::bind(("127.0.0.1", ports::free())).expect("nobody has it");
    let listen = busy.local_addr().expect("it listens");
    let config = one_upstream(listen, server.address(), "");
    let proxy = Proxy::spawn(backend, &config, Launch::default());
    let waits = format!("{listen} is in use, waiting for it");
    eventually("it waits", SOON, || proxy.log().contains(&waits));
    drop(busy);
    eventually("it serves", SOON, || {
        Client::try_connect(listen).is_some_and(|mut client| client.get("/").status == 200)
    });
    eventually("it is ready", SOON, || {
        proxy.admin_status("/readyz") == Some(200)
    });
}
