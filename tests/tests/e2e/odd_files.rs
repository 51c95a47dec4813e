//! What stands where a file is expected: others may put it there, and it stops
//! nothing.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ambassador_tests::program::Running;
use ambassador_tests::proxy::{Scratch, ambassador, binary, one_upstream};
use ambassador_tests::server::text;
use ambassador_tests::{
    Backend, Cgroup, Client, Netns, Proxy, Server, eventually, on_both_backends, ports, program,
};

use crate::capture_dns::{ask, server};

on_both_backends!(
    a_configuration_that_is_no_file_changes_nothing,
    a_token_that_is_no_file_opens_nothing,
    a_configuration_costs_no_more_than_it_may,
    an_access_log_that_nobody_reads_is_refused,
    files_of_a_workload_stop_nothing,
    files_of_a_workload_lead_to_no_others,
);

const SOON: Duration = Duration::from_secs(10);
const FAILURES: &str = "ambassador_config_reload_failures_total";
const RELOADS: &str = "ambassador_config_reloads_total";

fn free() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

fn fifo(path: &Path) {
    program::succeed(Command::new("mkfifo").arg(path));
}

/// Puts what `make` makes in the place of the configuration.
fn put_in_place(proxy: &Proxy, make: impl FnOnce(&Path)) {
    let file = proxy.config_file();
    let new = file.with_extension("odd");
    make(&new);
    std::fs::rename(new, file).expect("the directory is writable");
}

fn a_configuration_that_is_no_file_changes_nothing(backend: Backend) {
    let [one, two] = ["one", "two"].map(|name| Server::http(move |_| text(name)));
    let listen = free();
    let mut proxy = Proxy::start(backend, &one_upstream(listen, one.address(), ""));
    let until_more = |proxy: &Proxy, metric| {
        let before = proxy.metric(metric, &[]);
        move |proxy: &Proxy| {
            eventually(metric, SOON, || proxy.metric(metric, &[]) > before);
            assert_eq!(proxy.admin_status("/livez"), Some(200));
        }
    };
    let refused = until_more(&proxy, FAILURES);
    put_in_place(&proxy, fifo);
    refused(&proxy);
    let refused = until_more(&proxy, FAILURES);
    put_in_place(&proxy, |new| {
        symlink("/", new).expect("the directory is writable");
    });
    refused(&proxy);
    assert!(proxy.log().contains("is no regular file"));
    assert_eq!(Client::connect(listen).get("/").text(), "one");
    let reloaded = until_more(&proxy, RELOADS);
    proxy.rewrite_config(&one_upstream(listen, two.address(), ""));
    reloaded(&proxy);
    assert_eq!(Client::connect(listen).get("/").text(), "two");
    put_in_place(&proxy, fifo);
    proxy.signal(libc::SIGTERM);
    assert!(proxy.wait(SOON).success());
}

fn a_token_that_is_no_file_opens_nothing(backend: Backend) {
    let (server, admin, scratch) = (Server::ok(), free(), Scratch::new());
    let token = scratch.path().join("token");
    fifo(&token);
    let config = format!(
        "admin: {{ listen: \"{admin}\", token_file: {} }}\n{}",
        token.display(),
        one_upstream(free(), server.address(), "")
    );
    let file = scratch.file("odd.yaml", &config);
    let mut command = ambassador(backend);
    let _running = Running::start(command.args(["run", "--config"]).arg(file));
    eventually("it serves", SOON, || Client::try_connect(admin).is_some());
    let ask = |method: &str, path: &str| {
        let mut client = Client::connect(admin);
        client.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer s3cret\r\nContent-Length: 0\r\n\r\n"
        ));
        client.response(method).status
    };
    assert_eq!(ask("POST", "/upstreams/web/breaker/open"), 403);
    assert_eq!(ask("GET", "/livez"), 200);
    std::fs::remove_file(&token).expect("it is there");
    std::fs::write(&token, "s3cret\n").expect("writable");
    assert_eq!(ask("POST", "/upstreams/web/breaker/open"), 200);
}

/// A whole file of one part after the other.
fn full(begin: &str, part: impl Fn(usize) -> String) -> String {
    const FILE_BYTES_MAX: usize = 4 << 20;
    let mut text = begin.to_owned();
    for number in 0.. {
        let part = part(number);
        if text.len() + part.len() > FILE_BYTES_MAX {
            break;
        }
        text.push_str(&part);
    }
    text
}

/// With no more memory than that, it would end.
fn a_configuration_costs_no_more_than_it_may(backend: Backend) {
    const DATA_BYTES_MAX: u64 = 64 << 20;
    let scratch = Scratch::new();
    let word = "x".repeat(60_000);
    let key = "k".repeat(100_000);
    let upstream = |n| {
        format!(
            " u{n}: {{ hosts: [h{n}], retry: {{ attempts: 2 }}, pool: {{ max_idle: 3 }}, \
             timeouts: {{ connect: 1s }}, circuit_breaker: {{ failures: 4 }}, \
             rate_limit: {{ requests_per_second: 5 }} }}\n"
        )
    };
    let upstreams: String = (0..4_000).map(upstream).collect();
    let headers: String = (0..3_900).map(|n| format!("    h{n}: v\n")).collect();
    let headers: String = (0..15)
        .map(|n| format!(" u{n}:\n  hosts: [h{n}]\n  headers:\n   set:\n{headers}"))
        .collect();
    let files = [
        full(&format!("a: &a {word}\nb: ["), |_| "*a, ".into()),
        full(&format!("upstreams: {{ {key}: {{ hosts: ["), |_| {
            "a,".into()
        }),
        full("{", |_| "a,".into()),
        full("[", |_| "&a a,".into()),
        full("upstreams:\n", |n| format!(" u{n}:\n")),
        full("upstreams: { u: {} }\nroutes:\n", |_| " - {}\n".into()),
        full("a: ", |_| "[".into()),
        format!("upstreams:\n{upstreams}"),
        format!("upstreams:\n{headers}"),
    ];
    for text in &files {
        let file = scratch.file("costly.yaml", text);
        let mut command = Command::new("prlimit");
        command.arg(format!("--data={DATA_BYTES_MAX}"));
        let checked = program::output(command.arg(binary()).arg("check").arg(file));
        let end = checked.status.code();
        let begin = &text[..60];
        let expected = match text.starts_with("upstreams:\n u0: {") || text.contains("headers:") {
            true => 0,
            false => 78,
        };
        assert_eq!(end, Some(expected), "{begin}: {}", checked.status);
    }
    let (server, listen) = (Server::ok(), free());
    let proxy = Proxy::start(backend, &one_upstream(listen, server.address(), ""));
    let failures = || proxy.metric(FAILURES, &[]);
    for text in &files[..4] {
        let before = failures();
        proxy.rewrite_config(text);
        eventually("it is refused", SOON, || failures() > before);
        assert_eq!(Client::connect(listen).get("/").status, 200);
    }
}

fn an_access_log_that_nobody_reads_is_refused(backend: Backend) {
    let (server, listen, scratch) = (Server::ok(), free(), Scratch::new());
    let pipe = scratch.path().join("log");
    fifo(&pipe);
    let plain = one_upstream(listen, server.address(), "");
    let mut proxy = Proxy::start(backend, &plain);
    let failures = proxy.metric(FAILURES, &[]);
    let log = format!(
        "telemetry: {{ access_log: {{ path: {} }} }}\n",
        pipe.display()
    );
    proxy.rewrite_config(&format!("{log}{plain}"));
    eventually("it is refused", SOON, || {
        proxy.metric(FAILURES, &[]) > failures
    });
    assert_eq!(Client::connect(listen).get("/").status, 200);
    proxy.signal(libc::SIGTERM);
    assert!(proxy.wait(SOON).success());
}

/// A program with a root directory of its own, in a namespace with a server on
/// port 9000 that says `found`.
struct Container {
    root: Scratch,
    namespace: Netns,
    cgroup: Cgroup,
    program: Running,
    _server: Server,
}

impl Container {
    fn new() -> Container {
        const PROGRAM: &str = r#"
import os, sys, time
os.chroot(sys.argv[1])
print("ready", flush=True)
time.sleep(600)
"#;
        let (root, namespace) = (Scratch::new(), Netns::new());
        std::fs::create_dir(root.path().join("etc")).expect("writable");
        let [nsenter, entered, python] = namespace.wrap(program::PYTHON);
        let mut command = Command::new(nsenter);
        command.args([&entered, &python, "-c", PROGRAM]);
        let mut program = Running::start(command.arg(root.path()).stdout(Stdio::piped()));
        let mut line = String::new();
        let mut said = BufReader::new(program.stdout());
        said.read_line(&mut line).expect("readable");
        assert_eq!(line, "ready\n");
        Container {
            root,
            cgroup: Cgroup::new(),
            program,
            _server: server(&namespace),
            namespace,
        }
    }

    /// Puts what `make` makes in the place of a file in its /etc.
    fn etc(&self, name: &str, make: impl FnOnce(&Path)) {
        let etc = self.root.path().join("etc");
        make(&etc.join("new"));
        std::fs::rename(etc.join("new"), etc.join(name)).expect("writable");
    }

    /// What it captures, and an upstream that is looked up by `name`.
    fn config(&self, name: &str) -> String {
        format!(
            "capture: {{ cgroups: [{{ path: {}, netns: /proc/{}/ns/net }}] }}\n\
             upstreams: {{ web: {{ hosts: [10.1.2.3], dns: \"{name}:9000\" }} }}\n",
            self.cgroup.path().display(),
            self.program.id()
        )
    }

    fn until_found(&self) {
        eventually("the name is known", SOON, || {
            ask(&self.namespace, &self.cgroup) == "found"
        });
    }
}

fn write(text: &str) -> impl FnOnce(&Path) {
    move |path| std::fs::write(path, text).expect("writable")
}

fn link(target: impl AsRef<Path>) -> impl FnOnce(&Path) {
    move |path| symlink(target, path).expect("writable")
}

fn until_a_failure(proxy: &Proxy) {
    let failures = || proxy.metric("ambassador_dns_failures_total", &[("upstream", "web")]);
    let before = failures();
    eventually("it cannot be looked up", SOON, || failures() > before);
}

fn files_of_a_workload_stop_nothing(backend: Backend) {
    let container = Container::new();
    container.etc("hosts", write("127.0.0.1 name0.test\n"));
    let mut proxy = Proxy::start(backend, &container.config("name0.test"));
    container.until_found();
    let long = "127.0.0.1 long.test\n".repeat(4000);
    type Make<'a> = Box<dyn FnOnce(&Path) + 'a>;
    let odd: [(&str, Make<'_>); 5] = [
        ("hosts", Box::new(fifo)),
        ("hosts", Box::new(write(&long))),
        ("resolv.conf", Box::new(fifo)),
        ("resolv.conf", Box::new(link("/dev/zero"))),
        ("resolv.conf", Box::new(write("nameserver nonsense\n"))),
    ];
    for (number, (file, make)) in (1..).zip(odd) {
        let name = format!("name{number}.test");
        container.etc(file, make);
        proxy.rewrite_config(&container.config(&name));
        until_a_failure(&proxy);
        assert_eq!(proxy.admin_status("/livez"), Some(200));
        // The last good answer holds.
        assert_eq!(ask(&container.namespace, &container.cgroup), "found");
        container.etc("hosts", write(&format!("127.0.0.1 {name}\n")));
        container.until_found();
    }
    container.etc("hosts", fifo);
    proxy.rewrite_config(&container.config("last.test"));
    until_a_failure(&proxy);
    proxy.signal(libc::SIGTERM);
    assert!(proxy.wait(SOON).success());
}

fn files_of_a_workload_lead_to_no_others(backend: Backend) {
    let (container, outside) = (Container::new(), Scratch::new());
    let secret = outside.file(
        "secret",
        "127.0.0.1 away.test\nnameserver S3CRET\noptions S3CRET ndots:S3CRET\nsearch S3CRET!\n",
    );
    container.etc("hosts", link(&secret));
    container.etc("resolv.conf", link(&secret));
    let proxy = Proxy::start(backend, &container.config("away.test"));
    until_a_failure(&proxy);
    let up: String = "../".repeat(20);
    container.etc("hosts", link(format!("{up}{}", secret.display())));
    until_a_failure(&proxy);
    // What the program may read is nobody else's either.
    let copy = container.root.path().join("copy");
    std::fs::copy(&secret, copy).expect("writable");
    container.etc("resolv.conf", link("/copy"));
    until_a_failure(&proxy);
    assert!(!proxy.log().contains("S3CRET"), "{}", proxy.log());
    // A link is followed as the program follows it.
    container.etc("hosts", link("../../copy"));
    container.until_found();
    assert!(!proxy.log().contains("S3CRET"), "{}", proxy.log());
}
