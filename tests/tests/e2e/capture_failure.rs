//! What connects do when the proxy is dead or hung.

use std::time::Duration;

use ambassador_tests::server::text;
use ambassador_tests::{
    Backend, Cgroup, Netns, Proxy, Server, eventually, on_both_backends, program,
};

use crate::capture_scope::{inside, world};

on_both_backends!(
    bypass_after_kill,
    refuse_after_kill,
    bypass_while_stopped,
    refuse_while_stopped,
    refuse_ends_when_the_proxy_is_back,
);

const SOON: Duration = Duration::from_secs(5);

struct World {
    namespace: Netns,
    cgroup: Cgroup,
    _server: Server,
    config: String,
}

fn start(backend: Backend, on_failure: &str) -> (World, Proxy) {
    let namespace = world(&["10.1.0.0/16"]);
    let server = Server::over(namespace.listen("0.0.0.0:80"), |connection| {
        connection.serve_http(|request| {
            text(
                request
                    .field("x-request-id")
                    .map_or("direct", |_| "proxied"),
            )
        })
    });
    let cgroup = Cgroup::new();
    let config = format!(
        "  on_failure: {on_failure}\nupstreams: {{ web: {{ hosts: [10.1.0.0/16], endpoints: [\"127.0.0.1:80\"] }} }}\n"
    );
    let proxy = inside(backend, &namespace, &cgroup, &config);
    let world = World {
        namespace,
        cgroup,
        _server: server,
        config,
    };
    assert_eq!(world.ask(), "proxied");
    (world, proxy)
}

impl World {
    /// `proxied`, `direct`, or curl's exit status.
    fn ask(&self) -> String {
        let [nsenter, entered, curl] = self.namespace.wrap("curl");
        let mut command = self.cgroup.command(nsenter);
        let output =
            program::output(
                command
                    .args([entered, curl])
                    .args(["-sS", "-m2", "http://10.1.2.3/"]),
            );
        match output.status.code() {
            Some(0) => String::from_utf8_lossy(&output.stdout).into_owned(),
            code => format!("curl: {}", code.unwrap_or(-1)),
        }
    }
}

/// How curl says ECONNREFUSED.
const REFUSED: &str = "curl: 7";

fn bypass_after_kill(backend: Backend) {
    let (world, mut proxy) = start(backend, "bypass");
    proxy.kill();
    eventually("connects go direct", SOON, || world.ask() == "direct");
}

fn refuse_after_kill(backend: Backend) {
    let (world, mut proxy) = start(backend, "refuse");
    proxy.kill();
    eventually("connects are refused", SOON, || world.ask() == REFUSED);
    assert_eq!(world.ask(), REFUSED, "and stay so");
    // A next proxy takes the pinned links over, so that nothing is left of the first.
    drop(inside(
        backend,
        &world.namespace,
        &world.cgroup,
        &world.config,
    ));
}

fn bypass_while_stopped(backend: Backend) {
    let (world, proxy) = start(backend, "bypass");
    proxy.signal(libc::SIGSTOP);
    eventually("the heartbeat is stale", SOON, || world.ask() == "direct");
    proxy.signal(libc::SIGCONT);
    eventually("it is back", SOON, || world.ask() == "proxied");
}

fn refuse_while_stopped(backend: Backend) {
    let (world, proxy) = start(backend, "refuse");
    proxy.signal(libc::SIGSTOP);
    eventually("the heartbeat is stale", SOON, || world.ask() == REFUSED);
    proxy.signal(libc::SIGCONT);
    eventually("it is back", SOON, || world.ask() == "proxied");
}

fn refuse_ends_when_the_proxy_is_back(backend: Backend) {
    let (world, mut proxy) = start(backend, "refuse");
    proxy.kill();
    eventually("connects are refused", SOON, || world.ask() == REFUSED);
    let again = inside(backend, &world.namespace, &world.cgroup, &world.config);
    assert_eq!(world.ask(), "proxied");
    drop(again);
}
