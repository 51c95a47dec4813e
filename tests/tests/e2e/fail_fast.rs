//! `kernel_fail_fast`: connects of a captured program while its upstream's
//! circuit breaker is open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ambassador_tests::program::Running;
use ambassador_tests::proxy::{Scratch, ambassador};
use ambassador_tests::server::{response, text};
use ambassador_tests::{
    Backend, Cgroup, Client, Netns, Proxy, Server, eventually, on_both_backends, ports, program,
};

use crate::capture_dns::{ResolvConf, name_server};
use crate::capture_scope::{inside, world};

on_both_backends!(
    connects_are_refused_until_the_upstream_is_well,
    an_operator_sets_it,
    names_have_the_addresses_that_are_theirs_alone,
    a_reload_switches_it,
    it_is_about_what_the_name_means_to_the_kernel,
);

const SOON: Duration = Duration::from_secs(10);

/// How curl says ECONNREFUSED.
const REFUSED: &str = "curl: 7";

/// A captured program, and a server for every address of its namespace.
struct World {
    namespace: Netns,
    cgroup: Cgroup,
    server: Server,
    /// Whether the server fails.
    ill: Arc<AtomicBool>,
}

impl World {
    fn new() -> World {
        let namespace = world(&["10.1.0.0/16"]);
        let ill = Arc::new(AtomicBool::new(false));
        let is_ill = Arc::clone(&ill);
        let server = Server::over(namespace.listen("0.0.0.0:80"), move |connection| {
            connection.serve_http(|request| {
                let proxied = request.field("x-request-id").is_some();
                match is_ill.load(Ordering::SeqCst) {
                    true => response("500 Ill", "", "ill"),
                    false => text(if proxied { "proxied" } else { "direct" }),
                }
            })
        });
        World {
            namespace,
            cgroup: Cgroup::new(),
            server,
            ill,
        }
    }

    fn set_ill(&self, ill: bool) {
        self.ill.store(ill, Ordering::SeqCst);
    }

    /// What a program gets: a body, or curl's exit status.
    fn ask(&self, host: &str, address: &str) -> String {
        let [nsenter, entered, curl] = self.namespace.wrap("curl");
        let mut command = self.cgroup.command(nsenter);
        let url = format!("http://{host}/");
        let resolve = format!("{host}:80:{address}");
        let command = command.args([entered, curl]);
        let output = program::output(command.args(["-sS", "-m10", "--resolve", &resolve, &url]));
        match output.status.code() {
            Some(0) => String::from_utf8_lossy(&output.stdout).into_owned(),
            code => format!("curl: {}", code.unwrap_or(-1)),
        }
    }

    fn ask_address(&self, address: &str) -> String {
        self.ask(address, address)
    }
}

/// The upstream `web`, with a circuit breaker that says this.
fn web(breaker: &str) -> String {
    format!(
        "upstreams:\n  web:\n    hosts: [10.1.2.0/24]\n    endpoints: [\"127.0.0.1:80\"]\n    \
         retry: {{ attempts: 1 }}\n    circuit_breaker: {{ {breaker} }}\n"
    )
}

fn refused(proxy: &Proxy) -> f64 {
    let labels = [("verdict", "circuit_open")];
    proxy.metric("ambassador_captured_connects_total", &labels)
}

fn connects_are_refused_until_the_upstream_is_well(backend: Backend) {
    let world = World::new();
    let config = web("failures: 3, sleep: 2s, kernel_fail_fast: on");
    let proxy = inside(backend, &world.namespace, &world.cgroup, &config);
    let ask = || world.ask_address("10.1.2.3");
    assert_eq!((ask().as_str(), refused(&proxy)), ("proxied", 0.0));

    world.set_ill(true);
    for _ in 0..3 {
        assert_eq!(ask(), "ill");
    }
    assert_eq!((ask().as_str(), refused(&proxy)), (REFUSED, 1.0));
    assert_eq!(world.server.requests().len(), 4, "nothing reaches it");
    // Other addresses of the namespace are nobody's, and relayed.
    assert_eq!(world.ask_address("10.1.3.3"), "ill");

    // Without a connect no request would ever probe.
    eventually("one connect goes through", SOON, || ask() == "ill");
    assert_eq!(world.server.requests().len(), 6);
    assert_eq!(ask(), REFUSED);

    world.set_ill(false);
    eventually("the next probe finds it well", SOON, || ask() == "proxied");
    let before = refused(&proxy);
    for _ in 0..5 {
        assert_eq!(ask(), "proxied");
    }
    assert_eq!(refused(&proxy), before);
}

fn an_operator_sets_it(backend: Backend) {
    let (world, scratch) = (World::new(), Scratch::new());
    let token = scratch.file("token", "s3cret");
    let admin = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = format!(
        "admin: {{ listen: \"{admin}\", token_file: {} }}\n\
         capture: {{ cgroups: [{{ path: {}, netns: {} }}] }}\n{}",
        token.display(),
        world.cgroup.path().display(),
        world.namespace.path().display(),
        web("kernel_fail_fast: on")
    );
    let file = scratch.file("ambassador.yaml", &config);
    let mut command = ambassador(backend);
    let _proxy = Running::start(command.args(["run", "--config"]).arg(file));
    let ask = || world.ask_address("10.1.2.3");
    eventually("it is captured", SOON, || ask() == "proxied");
    let post = |word: &str| {
        let mut client = Client::connect(admin);
        client.send(format!(
            "POST /upstreams/web/breaker/{word} HTTP/1.1\r\nHost: localhost\r\n\
             Authorization: Bearer s3cret\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(client.response("POST").status, 200, "{word}");
    };
    for word in ["close", "auto", "close"] {
        post("open");
        assert_eq!(ask(), REFUSED);
        post(word);
        assert_eq!(ask(), "proxied", "{word}");
    }
}

fn names_have_the_addresses_that_are_theirs_alone(backend: Backend) {
    let world = World::new();
    let files = ResolvConf::of(&world.namespace);
    files.hosts("10.1.2.3 one.test\n10.1.2.4 also-one.test two.test\n");
    // For what is not in that file: there is no IPv6 address.
    let _names = name_server(&world.namespace);
    let config = "upstreams:
  one:
    hosts: [one.test, also-one.test]
    endpoints: [\"127.0.0.1:80\"]
    retry: { attempts: 1 }
    circuit_breaker: { failures: 1, sleep: 1h, kernel_fail_fast: on }
  two: { hosts: [two.test], endpoints: [\"127.0.0.1:80\"] }
";
    let proxy = inside(backend, &world.namespace, &world.cgroup, config);
    world.set_ill(true);
    assert_eq!(world.ask("one.test", "10.1.2.3"), "ill");
    world.set_ill(false);
    eventually("its own address is known", SOON, || {
        world.ask("one.test", "10.1.2.3") == REFUSED
    });
    eventually("the other one turns out to be shared", SOON, || {
        proxy.log().contains("10.1.2.4/32")
    });
    let answered = world.ask("also-one.test", "10.1.2.4");
    assert!(answered.contains("circuit open"), "{answered}");
    assert_eq!(world.ask("two.test", "10.1.2.4"), "proxied");
}

fn a_reload_switches_it(backend: Backend) {
    let world = World::new();
    let capture = format!(
        "capture:\n  cgroups: [{{ path: {}, netns: {} }}]\n",
        world.cgroup.path().display(),
        world.namespace.path().display()
    );
    let config = |switch: &str| {
        let breaker = format!("failures: 1, sleep: 1h, kernel_fail_fast: {switch}");
        format!("{capture}{}", web(&breaker))
    };
    let proxy = Proxy::start(backend, &config("off"));
    let ask = || world.ask_address("10.1.2.3");
    world.set_ill(true);
    assert_eq!(ask(), "ill");
    world.set_ill(false);
    let answered = ask();
    assert!(answered.contains("circuit open"), "{answered}");
    for _ in 0..2 {
        proxy.rewrite_config(&config("on"));
        eventually("it is on, and the breaker still open", SOON, || {
            ask() == REFUSED
        });
        proxy.rewrite_config(&config("off"));
        eventually("it is off again", SOON, || ask() == answered);
    }
}

/// The circuit of an upstream that is a name follows the only namespace whose
/// connects it is about; with two, none of them has a say for the other.
fn it_is_about_what_the_name_means_to_the_kernel(backend: Backend) {
    let world = World::new();
    let files = ResolvConf::of(&world.namespace);
    files.hosts("127.0.0.1 localhost\n");
    let (neighbour, second) = (Netns::new(), Cgroup::new());
    let config = |more: &str| {
        format!(
            "capture: {{ cgroups: [{{ path: {}, netns: {} }}{more}] }}\n\
             upstreams: {{ web: {{ hosts: [10.1.2.0/24], dns: \"localhost:80\",\n  \
             retry: {{ attempts: 1 }},\n  \
             circuit_breaker: {{ failures: 1, sleep: 1h, kernel_fail_fast: on }} }} }}\n",
            world.cgroup.path().display(),
            world.namespace.path().display(),
        )
    };
    let proxy = Proxy::start(backend, &config(""));
    let ask = || world.ask_address("10.1.2.3");
    eventually("the name is known", SOON, || ask() == "proxied");
    world.set_ill(true);
    assert_eq!(ask(), "ill");
    assert_eq!(ask(), REFUSED);
    let both = format!(
        ", {{ path: {}, netns: {} }}",
        second.path().display(),
        neighbour.path().display()
    );
    proxy.rewrite_config(&config(&both));
    eventually("the proxy refuses it, and not the kernel", SOON, || {
        ask().contains("circuit open")
    });
    proxy.rewrite_config(&config(""));
    eventually("the kernel does again", SOON, || ask() == REFUSED);
}
