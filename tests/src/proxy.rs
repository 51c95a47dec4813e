//! The proxy as a process, and what its admin API says.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Client, Response};
use crate::column::Column;
use crate::exposition::Exposition;
use crate::wait::eventually;
use crate::{os, ports, program};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A system call that the proxy is not to make ends it, where it would fail.
const STRICT: [(&str, &str); 1] = [("AMBASSADOR_SECCOMP", "kill")];

/// Which executor backend the proxy uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// io_uring, without falling back.
    Ring,
    /// epoll.
    Epoll,
}

impl Backend {
    /// The value of `AMBASSADOR_BACKEND`.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Ring => "ring",
            Backend::Epoll => "epoll",
        }
    }
}

/// The binary under test.
pub fn binary() -> PathBuf {
    let path = match std::env::var_os("AMBASSADOR_BIN") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/ambassador"),
    };
    path.canonicalize().unwrap_or_else(|error| {
        panic!(
            "no proxy at {} ({error}): run `cargo xtask test`, or set AMBASSADOR_BIN",
            path.display()
        )
    })
}

/// The proxy's command line on a backend, not started.
pub fn ambassador(column: impl Into<Column>) -> Command {
    let mut command = Command::new(binary());
    command
        .env("AMBASSADOR_BACKEND", column.into().backend.name())
        .envs(STRICT);
    command
}

/// A directory of a test's own.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new, empty directory.
    pub fn new() -> Scratch {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("amb-T-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("the temporary directory is writable");
        Scratch(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file in it and gives its path.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("the directory is writable");
        path
    }
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running proxy; ended by SIGTERM, then SIGKILL, when dropped.
pub struct Proxy {
    child: Child,
    column: Column,
    admin: SocketAddr,
    scratch: Scratch,
}

/// How a proxy is started when the plain way does not fit.
#[derive(Default)]
pub struct Launch {
    /// More arguments, after `run --config FILE`.
    pub arguments: Vec<String>,
    /// What is put before the command, for instance `nsenter`.
    pub wrapper: Vec<String>,
    /// More environment.
    pub environment: Vec<(String, String)>,
}

impl Proxy {
    /// Runs `ambassador run` with `config`, to which the admin address is
    /// added, and waits until it is ready.
    #[track_caller]
    pub fn start(column: impl Into<Column>, config: &str) -> Proxy {
        Proxy::launch(column, config, Launch::default())
    }

    /// The same, attached to a cgroup.
    #[track_caller]
    pub fn capturing(column: impl Into<Column>, cgroup: &crate::Cgroup, config: &str) -> Proxy {
        let arguments = vec!["--cgroup".into(), cgroup.path().display().to_string()];
        Proxy::launch(
            column,
            config,
            Launch {
                arguments,
                ..Launch::default()
            },
        )
    }

    /// The same, in full.
    #[track_caller]
    pub fn launch(column: impl Into<Column>, config: &str, launch: Launch) -> Proxy {
        let proxy = Proxy::spawn(column, config, launch);
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut proxy = proxy;
        loop {
            if let Some(status) = proxy.child.try_wait().expect("the child is ours") {
                panic!("the proxy ended with {status}:\n{config}\n{}", proxy.log());
            }
            if proxy.admin_status("/readyz") == Some(200) {
                return proxy;
            }
            assert!(
                Instant::now() < deadline,
                "not ready:\n{config}\n{}",
                proxy.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The same without waiting.
    pub fn spawn(column: impl Into<Column>, config: &str, launch: Launch) -> Proxy {
        let column = column.into();
        let scratch = Scratch::new();
        let admin = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let config = configured(column, admin, config);
        let file = scratch.file("ambassador.yaml", &config);
        let log = fs::File::create(scratch.path().join("log")).expect("the directory is writable");
        let mut words = launch
            .wrapper
            .into_iter()
            .chain([binary().display().to_string()]);
        let mut command = Command::new(words.next().expect("there is at least the binary"));
        command
            .args(words)
            .arg("run")
            .arg("--config")
            .arg(&file)
            .args(launch.arguments)
            .env("AMBASSADOR_BACKEND", column.backend.name())
            .envs(STRICT)
            .envs(launch.environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("descriptors are left"))
            .stderr(log);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Proxy {
            child,
            column,
            admin,
            scratch,
        }
    }

    /// A proxy with one listener in front of one endpoint, by the upstream
    /// name `web`, and the listener's address.
    #[track_caller]
    pub fn in_front_of(column: impl Into<Column>, endpoint: SocketAddr) -> (Proxy, SocketAddr) {
        Proxy::in_front_of_with(column, endpoint, "")
    }

    /// The same; `more` is further YAML of the upstream, `pool: { ... }`, one
    /// key per line without indentation.
    #[track_caller]
    pub fn in_front_of_with(
        column: impl Into<Column>,
        endpoint: SocketAddr,
        more: &str,
    ) -> (Proxy, SocketAddr) {
        let listen = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let config = one_upstream(listen, endpoint, more);
        (Proxy::start(column, &config), listen)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address of the admin API.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.scratch.path().join("ambassador.yaml")
    }

    /// Replaces the configuration, the admin address kept, as a careful
    /// editor does: by a rename.
    pub fn rewrite_config(&self, config: &str) {
        let text = configured(self.column, self.admin, config);
        let new = self.scratch.file("new.yaml", &text);
        fs::rename(new, self.config_file()).expect("the directory is writable");
    }

    /// What it wrote so far, access log included.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        os::kill(self.child.id(), signal).expect("the proxy runs");
    }

    /// Has it stand still, each of its threads, until SIGCONT.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        let stands = |task: std::io::Result<fs::DirEntry>| {
            let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
            let (_, state) = stat.rsplit_once(") ")?;
            Some(state.starts_with('T'))
        };
        eventually("it stands still", Duration::from_secs(5), || {
            let mut tasks = fs::read_dir(&tasks).expect("it runs");
            tasks.all(|task| stands(task) == Some(true))
        });
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        program::wait(&mut self.child, limit)
    }

    /// Ends it at once, without a chance to tidy up.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The status of a GET on the admin API, `None` when there is no answer.
    pub fn admin_status(&self, path: &str) -> Option<u16> {
        Some(self.admin_try_get(path)?.status)
    }

    /// The answer to a GET on the admin API, `None` when there is none.
    pub fn admin_try_get(&self, path: &str) -> Option<Response> {
        let mut client = Client::try_connect(self.admin)?;
        client.try_send(admin_request("GET", path)).ok()?;
        client.try_response("GET")
    }

    /// The body of a GET on the admin API, which has to be a 200.
    #[track_caller]
    pub fn admin_get(&self, path: &str) -> String {
        let mut client = Client::connect(self.admin);
        client.send(admin_request("GET", path));
        let response = client.response("GET");
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.text()
    }

    /// What `/upstreams` says of one of them; `Value::Null` where it is not there.
    #[track_caller]
    pub fn upstream(&self, name: &str) -> Value {
        let document = self.admin_get("/upstreams");
        let document: Value = serde_json::from_str(&document).expect("it is JSON");
        let mut list = document["upstreams"].as_array().into_iter().flatten();
        let entry = list.find(|entry| entry["name"] == name);
        entry.cloned().unwrap_or_default()
    }

    /// What it has counted.
    #[track_caller]
    pub fn metrics(&self) -> Exposition {
        Exposition::parse(&self.admin_get("/metrics"))
    }

    /// The sum of all samples of a metric that have all these labels.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().sum(name, labels)
    }

    /// Waits until a metric has this value: what a request leaves is counted
    /// when its last byte is out, which its client may see a moment earlier.
    #[track_caller]
    pub fn expect_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let found = self.metric(name, labels);
            if found == value {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{name}{labels:?} is {found}, not {value}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Resident memory that is this process's own, in bytes.
    pub fn anonymous_bytes(&self) -> u64 {
        self.status_bytes("RssAnon:")
    }

    /// Resident memory at its peak since the start, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("the proxy runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib = kib.and_then(|kib| kib.trim().parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("Linux says {name}")) * 1024
    }

    /// How many descriptors it has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .expect("the proxy runs")
            .count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the proxy said:\n{}\n---", tail(&self.log()));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = os::kill(self.child.id(), libc::SIGCONT);
            let _ = os::kill(self.child.id(), libc::SIGTERM);
            let deadline = Instant::now() + Duration::from_secs(5);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.kill();
    }
}

/// A configuration with one HTTP listener and one upstream, `web`.
pub fn one_upstream(listen: SocketAddr, endpoint: SocketAddr, more: &str) -> String {
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "drain_timeout: 2s\n\
         listeners:\n  - {{ name: egress, bind: \"{listen}\", protocol: http }}\n\
         upstreams:\n  web:\n    hosts: [web.test]\n    endpoints: [\"{endpoint}\"]\n{more}"
    )
}

/// The file of a test, with what its admin address and its column need.
fn configured(column: Column, admin: SocketAddr, config: &str) -> String {
    let config = column.upstream.configure(config);
    format!("admin: {{ listen: \"{admin}\" }}\n{config}")
}

fn admin_request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
