//! A reload that fails leaves the running proxy as it was, whatever it fails at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use ambassador_tests::client;
use ambassador_tests::proxy::Scratch;
use ambassador_tests::server::text;
use ambassador_tests::{
    Backend, Cgroup, Client, Proxy, Server, eventually, on_both_backends, ports,
};

use crate::capture::get;
use crate::capture_reload::is_captured;

on_both_backends!(whatever_a_reload_fails_at_changes_nothing);

const SOON: Duration = Duration::from_secs(10);
const FAILURES: &str = "ambassador_config_reload_failures_total";
const RELOADS: &str = "ambassador_config_reloads_total";

/// What changes by itself, and what a failed reload is to change.
const VOLATILE: [&str; 6] = [
    "process_",
    "ambassador_config_",
    "ambassador_memory_bytes",
    "ambassador_shard_staleness_seconds",
    "ambassador_capture_slots",
    "ambassador_captured_connects_total",
];

/// What a file says, part by part: a reload that fails at one of them has done
/// all of those before it.
#[derive(Clone)]
struct Parts {
    top: String,
    log: PathBuf,
    listeners: Vec<String>,
    capture: String,
    upstreams: String,
}

impl Parts {
    fn text(&self) -> String {
        format!(
            "drain_timeout: 2s\n{}\ntelemetry: {{ access_log: {{ path: {} }} }}\n\
             listeners: [{}]\ncapture: {{ {} }}\nupstreams: {{ {} }}\n",
            self.top,
            self.log.display(),
            self.listeners.join(", "),
            self.capture,
            self.upstreams,
        )
    }
}

/// A way to fail, and what is said of it.
struct Cause {
    says: &'static str,
    file: String,
}

/// What the tests' servers and files are.
struct World {
    listen: SocketAddr,
    more: SocketAddr,
    scratch: Scratch,
    one: Cgroup,
    two: Cgroup,
    before: Parts,
    after: Parts,
    old: Server,
    new: Server,
    go_on: Sender<()>,
}

fn free() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], ports::free()))
}

fn listener(name: &str, bind: &str) -> String {
    format!("{{ name: {name}, bind: \"{bind}\" }}")
}

fn upstream(name: &str, server: &Server, more: &str) -> String {
    let address = server.address();
    format!("{name}: {{ hosts: [10.1.2.3, web.test], endpoints: [\"{address}\"]{more} }}")
}

impl World {
    fn new() -> World {
        let (go_on, wait) = channel();
        let wait = Mutex::new(wait);
        let old = Server::http(move |request| {
            if request.target == "/slow" {
                let wait = wait.lock().expect("one user");
                wait.recv_timeout(SOON * 2).expect("it goes on");
            }
            text("old")
        });
        let new = Server::http(|_| text("new"));
        let (listen, more, scratch) = (free(), free(), Scratch::new());
        // The proxy is another user by the time of a reload.
        let all = fs::Permissions::from_mode(0o777);
        fs::set_permissions(scratch.path(), all).expect("it is ours");
        let (one, two) = (Cgroup::new(), Cgroup::new());
        let before = Parts {
            top: "max_connections: 1000".to_owned(),
            log: scratch.path().join("before.log"),
            listeners: vec![listener("egress", &listen.to_string())],
            capture: format!("cgroups: [{}]", one.path().display()),
            upstreams: upstream("web", &old, ""),
        };
        let after = Parts {
            top: "max_connections: 999\nmemory_limit: 1GiB".to_owned(),
            log: scratch.path().join("after.log"),
            listeners: vec![
                listener("renamed", &listen.to_string()),
                listener("more", &more.to_string()),
            ],
            capture: format!(
                "cgroups: [{}, {}], exclude: {{ ports: [99] }}",
                one.path().display(),
                two.path().display()
            ),
            upstreams: format!(
                "{}, another: {{ hosts: [another.test], endpoints: [\"{}\"] }}",
                upstream("web", &new, ", pool: { max_connections: 7 }"),
                new.address()
            ),
        };
        World {
            listen,
            more,
            scratch,
            one,
            two,
            before,
            after,
            old,
            new,
            go_on,
        }
    }

    /// The file of after, with one part as `change` makes it.
    fn with(&self, says: &'static str, change: impl FnOnce(&mut Parts)) -> Cause {
        let mut parts = self.after.clone();
        change(&mut parts);
        let file = parts.text();
        Cause { says, file }
    }

    /// `after` captures this, too, in this way.
    fn capturing(&self, says: &'static str, target: &str, more: &str) -> Cause {
        self.with(says, |parts| {
            let cgroups = [&self.one, &self.two].map(|cgroup| cgroup.path().display().to_string());
            parts.capture = format!("cgroups: [{}, {target}]{more}", cgroups.join(", "));
        })
    }

    /// In the order in which a reload comes to them.
    fn causes(&self, busy: &TcpListener, barred: &Path) -> Vec<Cause> {
        let busy = busy.local_addr().expect("bound").to_string();
        let missing = self.scratch.path().join("missing/file");
        let numbers = |count: u32, of: &dyn Fn(u32) -> String| {
            (0..count).map(of).collect::<Vec<_>>().join(", ")
        };
        let ports = numbers(200, &|n| (n + 1000).to_string());
        let nets = numbers(200, &|n| format!("10.7.{n}.0/24"));
        vec![
            self.with("config", |parts| parts.top.push_str("\n: [")),
            self.with("unknown", |parts| parts.top.push_str("\nworker: 1")),
            self.with("restart", |parts| parts.top.push_str("\nworkers: 7")),
            self.with("Address already in use", |parts| {
                parts.listeners.push(listener("busy", &busy));
            }),
            self.with("a new unix listener needs a restart", |parts| {
                let socket = self.scratch.path().join("socket");
                let bind = format!("unix:{}", socket.display());
                parts.listeners.push(listener("socket", &bind));
            }),
            self.with("cannot open the access log", |parts| {
                parts.log.clone_from(&missing);
            }),
            self.with("cannot open the access log", |parts| {
                parts.log = self.scratch.path().to_owned();
            }),
            self.capturing("cannot capture", "/sys/fs/cgroup/no-such-group", ""),
            self.capturing("no cgroup", "/tmp", ""),
            self.capturing(
                "cannot open the network namespace",
                &format!(
                    "{{ path: {}, netns: /run/netns/no-such }}",
                    barred.display()
                ),
                "",
            ),
            self.with("kernel rules", |parts| {
                let scope = format!(", include: {{ ports: [{ports}], cidrs: [{nets}] }}");
                parts.capture = parts
                    .capture
                    .replace(", exclude", &scope.replace("include", "exclude"));
                let end = parts
                    .capture
                    .rfind(": { ports: [99] }")
                    .expect("it was there");
                parts.capture.truncate(end);
            }),
            self.capturing(
                "making a socket",
                &barred.display().to_string(),
                ", on_failure: refuse, quic: refuse",
            ),
        ]
    }

    /// Asks the proxy through its listener, and from the captured cgroup.
    fn answers(&self) -> [String; 2] {
        let mut client = Client::connect(self.listen);
        client.send(client::get("/"));
        let captured = get(&self.one, "blocking", "10.1.2.3", 80, &[]).1;
        [client.response("GET").text(), captured]
    }

    fn lines(&self, parts: &Parts) -> usize {
        let log = fs::read_to_string(&parts.log).unwrap_or_default();
        log.lines().count()
    }

    /// Names in bpffs that links of the cgroups have.
    fn pins(&self) -> Vec<String> {
        let ids = [&self.one, &self.two].map(|cgroup| {
            let metadata = cgroup.path().metadata().expect("it is there");
            format!("{:x}_", metadata.ino())
        });
        let pins = fs::read_dir("/sys/fs/bpf/ambassador");
        let names = pins
            .into_iter()
            .flatten()
            .flatten()
            .map(|pin| pin.file_name());
        let names = names.map(|name| name.to_string_lossy().into_owned());
        names
            .filter(|name| ids.iter().any(|id| name.starts_with(id)))
            .collect()
    }
}

/// What is to be the same before and after, a line each.
type Standing = BTreeSet<String>;

fn standing(proxy: &Proxy) -> Standing {
    let metrics = proxy.admin_get("/metrics");
    let stays = |line: &&str| {
        let name = line.trim_start_matches("# HELP ");
        let name = name.trim_start_matches("# TYPE ");
        !VOLATILE.iter().any(|volatile| name.starts_with(volatile))
    };
    let mut lines: Standing = metrics.lines().filter(stays).map(str::to_owned).collect();
    let upstreams = proxy.admin_get("/upstreams");
    let upstreams: serde_json::Value = serde_json::from_str(&upstreams).expect("JSON");
    for upstream in upstreams["upstreams"].as_array().expect("a list") {
        for field in ["endpoints", "policies", "circuit_breaker", "in_flight"] {
            lines.insert(format!("{} {field} {}", upstream["name"], upstream[field]));
        }
    }
    let config = proxy.admin_get("/config");
    lines.extend(
        config
            .lines()
            .enumerate()
            .map(|(number, line)| format!("{number} {line}")),
    );
    let process = PathBuf::from(format!("/proc/{}", proxy.pid()));
    lines.extend(counted("thread", threads(&process)));
    let descriptors = descriptors(&process);
    lines.extend(listening(&process, &descriptors));
    let others = descriptors
        .into_iter()
        .filter(|link| !link.starts_with("socket:"));
    lines.extend(counted("descriptor", others));
    lines
}

/// Once what came before is counted and closed.
fn settled(proxy: &Proxy) -> Standing {
    let mut last = standing(proxy);
    eventually("nothing moves", SOON, || {
        let before = std::mem::replace(&mut last, standing(proxy));
        before == last
    });
    last
}

/// A thread or a socket may take a moment to be gone; the request in flight has
/// longer than that.
#[track_caller]
fn expect_same(proxy: &Proxy, before: &Standing, says: &str) {
    let deadline = Instant::now() + SOON / 2;
    loop {
        let differ: Vec<String> = before
            .symmetric_difference(&standing(proxy))
            .cloned()
            .collect();
        if differ.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{says}: {differ:#?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How often each is there.
fn counted(what: &str, all: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut counts = BTreeMap::<String, usize>::new();
    for one in all {
        *counts.entry(one).or_default() += 1;
    }
    let lines = counts.iter();
    lines
        .map(|(one, count)| format!("{what} {one} {count}"))
        .collect()
}

/// Their names, but for those that the control thread lends and takes back.
fn threads(process: &Path) -> Vec<String> {
    let tasks = fs::read_dir(process.join("task")).expect("it runs");
    let names = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names
        .filter(|name| !name.starts_with("tokio"))
        .map(|name| name.trim().to_owned())
        .collect()
}

fn descriptors(process: &Path) -> Vec<String> {
    let descriptors = fs::read_dir(process.join("fd")).expect("it runs");
    let links = descriptors
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

/// The sockets of the process that listen.
fn listening(process: &Path, descriptors: &[String]) -> Vec<String> {
    const STATE: usize = 3;
    const LISTEN: &str = "0A";
    const INODE: usize = 9;
    let mut found = Vec::new();
    for table in ["net/tcp", "net/tcp6"] {
        let table = fs::read_to_string(process.join(table)).expect("readable");
        for row in table.lines() {
            let fields: Vec<&str> = row.split_whitespace().collect();
            let link = format!("socket:[{}]", fields[INODE]);
            if fields[STATE] == LISTEN && descriptors.contains(&link) {
                found.push(format!("listens at {} {link}", fields[1]));
            }
        }
    }
    found
}

/// Below a threaded cgroup: no process can be put into it.
fn barred(outer: &Cgroup) -> PathBuf {
    fs::write(outer.path().join("cgroup.type"), "threaded").expect("it is ours");
    let inner = outer.path().join("inner");
    fs::create_dir(&inner).expect("it is ours");
    inner
}

fn whatever_a_reload_fails_at_changes_nothing(backend: Backend) {
    let world = World::new();
    let outer = Cgroup::new();
    let inner = barred(&outer);
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let proxy = Proxy::start(backend, &world.before.text());
    let count = |metric| proxy.metric(metric, &[]);
    assert_eq!(world.answers(), ["old", "old"]);
    let mut served = 2;
    for Cause { says, file } in world.causes(&busy, &inner) {
        let mut waiting = Client::connect(world.listen);
        let requests = world.old.requests().len();
        waiting.send(client::get("/slow"));
        eventually("it is in flight", SOON, || {
            world.old.requests().len() > requests
        });
        let before = settled(&proxy);
        let (failures, said) = (count(FAILURES), proxy.log().matches(says).count());
        proxy.rewrite_config(&file);
        eventually(says, SOON, || count(FAILURES) > failures);
        assert!(proxy.log().matches(says).count() > said, "{says}");
        expect_same(&proxy, &before, says);
        assert!(Client::try_connect(world.more).is_none(), "{says}");
        assert!(!is_captured(&world.two), "{says}");
        assert_eq!(world.pins(), [""; 0], "{says}");
        world.go_on.send(()).expect("the server waits");
        assert_eq!(waiting.response("GET").text(), "old", "{says}");
        assert_eq!(world.answers(), ["old", "old"], "{says}");
        served += 3;
        eventually("all is logged where it was", SOON, || {
            world.lines(&world.before) == served
        });
        assert_eq!(world.lines(&world.after), 0, "{says}");
    }
    let reloads = count(RELOADS);
    proxy.rewrite_config(&world.after.text());
    eventually("what is good is taken over", SOON, || {
        count(RELOADS) > reloads
    });
    eventually("all of it", SOON, || world.answers() == ["new", "new"]);
    assert!(is_captured(&world.two));
    assert!(Client::try_connect(world.more).is_some());
    eventually("the log is the new one", SOON, || {
        world.lines(&world.after) >= 2
    });
    assert!(!world.new.requests().is_empty());
    fs::remove_dir(inner).expect("it is empty");
}
