//! Names are looked up as the workload would: by its files, in its namespace.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ambassador_tests::program::Running;
use ambassador_tests::server::text;
use ambassador_tests::{
    Backend, Cgroup, Client, Netns, Proxy, Server, eventually, on_both_backends, ports, program,
};

use crate::capture_scope::{curl, inside, witness, world};

on_both_backends!(
    a_namespace_named_by_ip,
    a_namespace_named_by_a_process,
    a_name_means_in_each_namespace_what_its_files_say,
    a_name_of_one_namespace_captures_nothing_in_another,
    where_a_name_is_dead_no_other_namespace_is_refused,
);

const SOON: Duration = Duration::from_secs(10);

/// A name server for which every name is 127.0.0.1 and nothing else.
const NAME_SERVER: &str = r#"
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
print("ready", flush=True)
while True:
    query, client = server.recvfrom(512)
    question = query[12:query.index(b"\0", 12) + 5]
    found = question.endswith(b"\0\1\0\1")
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if found else b""
    head = query[:2] + b"\x81\x80\0\1" + bytes([0, found]) + b"\0\0\0\0"
    server.sendto(head + question + answer, client)
"#;

/// Programs that `ip netns exec` runs see this as /etc/resolv.conf.
pub struct ResolvConf(PathBuf);

impl ResolvConf {
    pub fn of(namespace: &Netns) -> ResolvConf {
        let directory = Path::new("/etc/netns").join(namespace.name());
        std::fs::create_dir_all(&directory).expect("the tests run as root");
        std::fs::write(directory.join("resolv.conf"), "nameserver 127.0.0.1\n").expect("writable");
        ResolvConf(directory)
    }

    /// What they see as /etc/hosts.
    pub fn hosts(&self, text: &str) {
        std::fs::write(self.0.join("hosts"), text).expect("writable");
    }
}

impl Drop for ResolvConf {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A program inside, as the namespace's own users start theirs.
fn start(namespace: &Netns, program: &[&str]) -> Running {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace.name()]);
    Running::start(command.args(program).stdout(Stdio::piped()))
}

/// The name server above, running.
pub fn name_server(namespace: &Netns) -> Running {
    let mut server = start(namespace, &[program::PYTHON, "-c", NAME_SERVER]);
    let mut line = String::new();
    let mut said = BufReader::new(server.stdout());
    said.read_line(&mut line).expect("readable");
    assert_eq!(line, "ready\n");
    server
}

pub fn server(namespace: &Netns) -> Server {
    Server::over(namespace.listen("127.0.0.1:9000"), |connection| {
        connection.serve_http(|_| text("found"))
    })
}

pub const UPSTREAMS: &str =
    "upstreams: { web: { hosts: [10.1.2.3], dns: \"backend.test:9000\" } }\n";

/// What a program in both gets at the upstream; without an endpoint its
/// connection may be reset.
pub fn ask(namespace: &Netns, cgroup: &Cgroup) -> String {
    let [nsenter, entered, curl] = namespace.wrap("curl");
    let mut command = cgroup.command(nsenter);
    let command = command.args([entered, curl]);
    let output = program::output(command.args(["-sS", "-m20", "http://10.1.2.3/"]));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A namespace with a name server of its own, for which every name is 127.0.0.1,
/// and a server there on port 9000.
pub struct NamesInside {
    pub namespace: Netns,
    _files: ResolvConf,
    _names: Running,
    _server: Server,
}

pub fn names_inside() -> NamesInside {
    let namespace = Netns::new();
    NamesInside {
        _files: ResolvConf::of(&namespace),
        _names: name_server(&namespace),
        _server: server(&namespace),
        namespace,
    }
}

fn a_namespace_named_by_ip(backend: Backend) {
    let (names, cgroup) = (names_inside(), Cgroup::new());
    let _proxy = inside(backend, &names.namespace, &cgroup, UPSTREAMS);
    eventually("the name is known", SOON, || {
        ask(&names.namespace, &cgroup) == "found"
    });
}

fn a_namespace_named_by_a_process(backend: Backend) {
    let (namespace, cgroup) = (Netns::new(), Cgroup::new());
    let resolv_conf = ResolvConf::of(&namespace);
    let (names, _server) = (name_server(&namespace), server(&namespace));
    // Its mount namespace has the file already; nobody else can find it now.
    drop(resolv_conf);
    let config = format!(
        "capture: {{ cgroups: [{{ path: {}, netns: /proc/{}/ns/net }}] }}\n{UPSTREAMS}",
        cgroup.path().display(),
        names.id()
    );
    let _proxy = Proxy::start(backend, &config);
    eventually("the name is known", SOON, || {
        ask(&namespace, &cgroup) == "found"
    });
}

/// A place on this machine that says who it is.
fn saying(listener: TcpListener, who: &'static str) -> Server {
    Server::over(listener, move |connection| {
        connection.serve_http(|_| text(who))
    })
}

fn a_name_means_in_each_namespace_what_its_files_say(backend: Backend) {
    let (one, other) = (Netns::new(), Netns::new());
    let (cgroup, second) = (Cgroup::new(), Cgroup::new());
    let (files, others) = (ResolvConf::of(&one), ResolvConf::of(&other));
    files.hosts("127.0.0.2 localhost\n");
    others.hosts("127.0.0.3 localhost\n");
    let own = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    let port = own.local_addr().expect("it is bound").port();
    let _servers = [
        saying(own, "own"),
        saying(one.listen(("127.0.0.2", port)), "one"),
        saying(other.listen(("127.0.0.3", port)), "other"),
    ];
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let config = |cgroups: &str| {
        format!(
            "capture: {{ cgroups: [{cgroups}] }}\n\
             listeners: [{{ name: egress, bind: \"{listen}\" }}]\n\
             upstreams: {{ web: {{ hosts: [10.1.2.3, web.test], dns: \"localhost:{port}\" }} }}\n"
        )
    };
    let target = |cgroup: &Cgroup, namespace: &Netns| {
        let (path, netns) = (cgroup.path().display(), namespace.path().display());
        format!("{{ path: {path}, netns: {netns} }}")
    };
    let listener = || {
        let mut client = Client::connect(listen);
        client.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n");
        client.response("GET").text()
    };
    let proxy = Proxy::start(backend, &config(&target(&cgroup, &one)));
    eventually("the one is known", SOON, || ask(&one, &cgroup) == "one");
    eventually("the own is known", SOON, || listener() == "own");
    let both = format!("{}, {}", target(&cgroup, &one), target(&second, &other));
    proxy.rewrite_config(&config(&both));
    eventually("the other is known", SOON, || {
        ask(&other, &second) == "other"
    });
    assert_eq!(ask(&one, &cgroup), "one");
    assert_eq!(listener(), "own");
    let shown = proxy.upstream("web")["endpoints"].to_string();
    for (namespace, address) in [(0, 1), (1, 2), (2, 3)] {
        let entry = format!("\"address\":\"127.0.0.{address}:{port}\",\"namespace\":{namespace}");
        assert!(shown.contains(&entry), "{shown}");
    }
}

/// What the kernel captures is one set for all: no namespace has a say in what
/// that is for another.
fn a_name_of_one_namespace_captures_nothing_in_another(backend: Backend) {
    let (one, other) = (world(&["10.9.8.7"]), world(&["10.9.8.7"]));
    let (cgroup, second) = (Cgroup::new(), Cgroup::new());
    let _servers = [witness(&one), witness(&other)];
    let files = ResolvConf::of(&one);
    files.hosts("10.9.8.7 claimed.test\n");
    let config = |more: &str| {
        format!(
            "capture: {{ unmatched: passthrough, cgroups: [{{ path: {}, netns: {} }}{more}] }}\n\
             upstreams: {{ web: {{ hosts: [claimed.test] }} }}\n",
            cgroup.path().display(),
            one.path().display(),
        )
    };
    let get = |namespace: &Netns, cgroup: &Cgroup| {
        let output = curl(namespace, cgroup, "http://10.9.8.7/");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let proxy = Proxy::start(backend, &config(""));
    eventually("it is captured", SOON, || get(&one, &cgroup) == "proxied");
    let reloads = || proxy.metric("ambassador_config_reloads_total", &[]);
    let before = reloads();
    proxy.rewrite_config(&config(&format!(
        ", {{ path: {}, netns: {} }}",
        second.path().display(),
        other.path().display()
    )));
    eventually("it is reloaded", SOON, || reloads() > before);
    assert_eq!(get(&other, &second), "direct");
}

/// Whoever steers a name to an address where nobody listens fails alone.
fn where_a_name_is_dead_no_other_namespace_is_refused(backend: Backend) {
    let (dead, other) = (Netns::new(), Netns::new());
    let (cgroup, second) = (Cgroup::new(), Cgroup::new());
    let (files, others) = (ResolvConf::of(&dead), ResolvConf::of(&other));
    files.hosts("127.0.0.2 localhost\n");
    others.hosts("127.0.0.3 localhost\n");
    let own = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    let port = own.local_addr().expect("it is bound").port();
    let _servers = [
        saying(own, "own"),
        saying(other.listen(("127.0.0.3", port)), "other"),
    ];
    let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let target = |cgroup: &Cgroup, namespace: &Netns| {
        let (path, netns) = (cgroup.path().display(), namespace.path().display());
        format!("{{ path: {path}, netns: {netns} }}")
    };
    let config = format!(
        "capture: {{ cgroups: [{}, {}] }}\n\
         listeners: [{{ name: egress, bind: \"{listen}\" }}]\n\
         upstreams: {{ web: {{ hosts: [10.1.2.3, web.test], dns: \"localhost:{port}\" }} }}\n",
        target(&cgroup, &dead),
        target(&second, &other),
    );
    let listener = || {
        let mut client = Client::connect(listen);
        client.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n");
        client.response("GET").text()
    };
    let all_serve = || listener() == "own" && ask(&other, &second) == "other";
    let proxy = Proxy::start(backend, &config);
    eventually("the names are known", SOON, all_serve);
    eventually("its circuit opens", SOON, || {
        ask(&dead, &cgroup).contains("circuit open")
    });
    for _ in 0..10 {
        assert_eq!(listener(), "own");
        assert_eq!(ask(&other, &second), "other");
    }
    // Metrics say how the worst is, the list says how each is.
    let state = || proxy.metric("ambassador_breaker_state", &[("upstream", "web")]);
    assert_eq!(state(), 2.0);
    let states = || -> Vec<String> {
        let shown = proxy.upstream("web")["circuit_breaker"].take();
        let namespaces = shown["namespaces"].as_array().cloned().unwrap_or_default();
        let state = |one: &serde_json::Value| one["state"].as_str().unwrap_or("").to_owned();
        std::iter::once(&shown)
            .chain(&namespaces)
            .map(state)
            .collect()
    };
    assert_eq!(states(), ["open", "closed", "open", "closed"]);
}
