//! The privileged helper hangs, or is gone: what does not need it is served as
//! before, the rest does what `on_failure` says, and `/readyz` tells.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ambassador_tests::{
    Backend, Cgroup, Client, Netns, Proxy, Server, eventually, on_both_backends, os, ports, program,
};

use crate::capture_scope::{curl, inside, witness, world};
use crate::identity::children;

on_both_backends!(
    one_that_hangs_keeps_no_listener,
    one_that_is_gone_is_bypassed_and_told,
    one_that_is_gone_refuses_where_it_should,
    who_does_not_need_it_is_served_without,
);

const SOON: Duration = Duration::from_secs(10);

/// Longer than any answer takes, and shorter than what waits for a helper.
const AT_ONCE: Duration = Duration::from_secs(1);

pub(crate) struct World {
    namespace: Netns,
    cgroup: Cgroup,
    _inside: Server,
    _outside: Server,
    listen: SocketAddr,
    pub(crate) proxy: Proxy,
}

impl World {
    /// One worker, so that everything is on the shard that needs the helper.
    pub(crate) fn start(backend: Backend, on_failure: &str) -> World {
        let namespace = world(&["10.1.0.0/16"]);
        namespace.ip(&["addr", "add", "10.200.9.1/32", "dev", "lo"]);
        let (cgroup, outside) = (Cgroup::new(), Server::ok());
        let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let config = format!(
            "  on_failure: {on_failure}\nworkers: 1\n\
             listeners: [{{ name: egress, bind: \"{listen}\" }}]\n\
             upstreams:\n  inside: {{ hosts: [10.1.0.0/16], pool: {{ max_idle: 0 }} }}\n  \
             web: {{ hosts: [web.test], endpoints: [\"{}\"] }}\n",
            outside.address()
        );
        let server = witness(&namespace);
        let proxy = inside(backend, &namespace, &cgroup, &config);
        let world = World {
            namespace,
            cgroup,
            _inside: server,
            _outside: outside,
            listen,
            proxy,
        };
        assert_eq!(world.ask(), "proxied");
        world
    }

    /// `proxied`, `direct`, or curl's exit status.
    pub(crate) fn ask(&self) -> String {
        let output = curl(&self.namespace, &self.cgroup, "http://10.1.2.3/");
        match output.status.code() {
            Some(0) => String::from_utf8_lossy(&output.stdout).into_owned(),
            code => format!("curl: {}", code.unwrap_or(-1)),
        }
    }

    /// Connections from an address that is not loopback, many at once.
    pub(crate) fn crowd(&self) -> program::Running {
        let script = "import socket\n\
            for n in range(40):\n\
            \x20s=socket.socket(); s.bind(('10.200.9.1',0)); s.setblocking(False)\n\
            \x20try: s.connect(('10.1.2.3',80))\n\
            \x20except OSError: pass\n\
            \x20globals()['s%d'%n]=s\n\
            import time\n\
            for n in range(40):\n\
            \x20try: globals()['s%d'%n].send(b'GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')\n\
            \x20except OSError: pass\n\
            time.sleep(60)\n";
        let [nsenter, entered, python] = self.namespace.wrap(program::PYTHON);
        let mut command = self.cgroup.command(nsenter);
        program::Running::start(command.args([entered, python, "-c".into(), script.into()]))
    }

    pub(crate) fn readiness(&self) -> (Option<u16>, String) {
        let Some(mut client) = Client::try_connect(self.proxy.admin()) else {
            return (None, String::new());
        };
        client.send("GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let response = client.response("GET");
        (Some(response.status), response.text())
    }

    pub(crate) fn says(&self, what: &str) -> bool {
        let (status, text) = self.readiness();
        status == Some(503) && text.contains(what)
    }

    #[track_caller]
    pub(crate) fn the_listener_answers_at_once(&self) {
        let started = Instant::now();
        let mut client = Client::connect(self.listen);
        client.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n");
        assert_eq!(client.response("GET").status, 200);
        let took = started.elapsed();
        assert!(took < AT_ONCE, "{took:?}");
    }

    /// Ends both processes of the helper at once.
    pub(crate) fn kill_helper(&self) {
        kill_helper_of(self.proxy.pid());
    }
}

/// The two processes of the helper of a proxy.
pub(crate) struct Pair {
    /// Waits for the end of the other.
    pub(crate) keeper: u32,
    /// Answers the proxy.
    pub(crate) worker: u32,
}

impl Pair {
    /// As they are after the start.
    pub(crate) fn of(proxy: u32) -> Pair {
        let keeper = children(proxy)[0];
        let worker = children(keeper)[0];
        Pair { keeper, worker }
    }
}

fn kill_helper_of(proxy: u32) {
    os::kill_group(children(proxy)[0], libc::SIGKILL).expect("it runs");
}

fn one_that_hangs_keeps_no_listener(backend: Backend) {
    let world = World::start(backend, "bypass");
    let helper = Pair::of(world.proxy.pid()).worker;
    os::kill(helper, libc::SIGSTOP).expect("it runs");
    let crowd = world.crowd();
    for _ in 0..20 {
        world.the_listener_answers_at_once();
    }
    eventually("readyz tells", SOON, || world.says("does not answer"));
    eventually("connects go direct", SOON, || world.ask() == "direct");
    for _ in 0..20 {
        world.the_listener_answers_at_once();
    }
    os::kill(helper, libc::SIGCONT).expect("it is there");
    drop(crowd);
    eventually("it is ready again", SOON, || {
        world.readiness().0 == Some(200)
    });
    eventually("all is as before", SOON, || world.ask() == "proxied");
}

fn one_that_is_gone_is_bypassed_and_told(backend: Backend) {
    let world = World::start(backend, "bypass");
    world.kill_helper();
    eventually("readyz tells", SOON, || world.says("helper has ended"));
    eventually("connects go direct", SOON, || world.ask() == "direct");
    world.the_listener_answers_at_once();
    assert!(world.proxy.log().contains("helper has ended"));
}

fn one_that_is_gone_refuses_where_it_should(backend: Backend) {
    let mut world = World::start(backend, "refuse");
    world.kill_helper();
    eventually("connects are refused", SOON, || world.ask() == "curl: 7");
    assert_eq!(world.ask(), "curl: 7", "and stay so");
    world.the_listener_answers_at_once();
    // A next proxy takes the pinned links over, so that nothing is left of the first.
    world.proxy.kill();
    let config = "  on_failure: bypass\n";
    drop(inside(backend, &world.namespace, &world.cgroup, config));
}

/// Sockets of its own namespace a proxy makes itself.
fn who_does_not_need_it_is_served_without(backend: Backend) {
    let server = Server::ok();
    let cgroup = Cgroup::new();
    let claim = crate::capture::claim("10.1.2.3", &server);
    let proxy = Proxy::capturing(backend, &cgroup, &claim);
    kill_helper_of(proxy.pid());
    eventually("readyz tells", SOON, || {
        proxy.admin_status("/readyz") == Some(503)
    });
    // Longer than a heartbeat lasts.
    let until = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < until {
        let mut curl = cgroup.command("curl");
        program::succeed(curl.args(["-sS", "-m10", "http://10.1.2.3/"]));
    }
    assert_eq!(
        proxy.metric(
            "ambassador_captured_connects_total",
            &[("verdict", "proxy_down")]
        ),
        0.0
    );
}
