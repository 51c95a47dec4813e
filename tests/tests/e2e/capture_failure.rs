//! What connects do when the proxy is dead or hung.

use std::time::Duration;

use ambassador_tests::proxy::ambassador;
use ambassador_tests::{
    Backend, Cgroup, Netns, Proxy, Server, eventually, on_both_backends, program,
};

use crate::capture_scope::{inside, witness, world};

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
    let server = witness(&namespace);
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

/// Longer than the proxy of pinned programs must be silent to count as dead.
const CLEANED_WITHIN: Duration = Duration::from_secs(30);

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

/// Once: it cleans up after every dead proxy of the machine.
#[test]
fn refuse_outlives_an_orderly_stop_until_it_is_cleaned() {
    let backend = Backend::Ring;
    let (world, mut proxy) = start(backend, "refuse");
    let doctor = |clean: &[&str]| {
        let mut command = ambassador(backend);
        let output = program::output(command.arg("doctor").args(clean));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let pinned = format!(
        "pinned programs of a dead proxy at cgroup {}",
        world.cgroup.path().display()
    );
    assert!(!doctor(&["--clean"]).contains(&pinned), "it lives");
    proxy.signal(libc::SIGTERM);
    assert_eq!(proxy.wait(SOON).code(), Some(0));
    assert!(proxy.log().contains("doctor --clean"), "{}", proxy.log());
    assert_eq!(world.ask(), REFUSED);
    eventually("it counts as dead", CLEANED_WITHIN, || {
        doctor(&[]).contains(&pinned)
    });
    assert_eq!(world.ask(), REFUSED, "doctor only looks");
    let said = doctor(&["--clean"]);
    assert!(said.contains(&format!("removed {pinned}")), "{said}");
    assert_eq!(world.ask(), "direct");
}
