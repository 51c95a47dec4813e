//! A variant set up: a network namespace, a cgroup for the client, an upstream
//! for each protocol, and the proxy between them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ambassador_tests::program::Running;
use ambassador_tests::proxy::Scratch;
use ambassador_tests::{Authority, Cgroup, Netns};

use crate::protocol::Protocol;
use crate::variant::Variant;
use crate::{memory, peers, process};

/// Where the ambassador's admin API is.
const ADMIN: &str = "127.0.0.1:15000";

/// How long anything may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How what must not delay others on its CPU is started: by nice(1).
pub const BACKGROUND: [&str; 2] = ["-n", "10"];

/// A variant, running.
pub struct Standing {
    /// Which.
    pub variant: Variant,
    // Ended in this order: programs before their places.
    proxies: Vec<Running>,
    upstreams: Vec<Running>,
    proxy_cgroup: Cgroup,
    client_cgroup: Cgroup,
    netns: Netns,
    /// Who has signed its certificates, where it has any.
    authority: Option<Authority>,
    scratch: Scratch,
}

impl Standing {
    /// Starts it and waits until it has answered.
    pub fn start(variant: Variant, binaries: &Path, load: &Path) -> Result<Self, String> {
        let netns = Netns::new();
        // REDIRECT needs a route; so does calling the upstream directly.
        netns.ip(&["route", "add", "local", "10.0.0.0/8", "dev", "lo"]);
        let mut standing = Self {
            variant,
            proxies: Vec::new(),
            upstreams: Vec::new(),
            proxy_cgroup: Cgroup::new(),
            client_cgroup: Cgroup::new(),
            netns,
            authority: None,
            scratch: Scratch::new(),
        };
        for (protocol, port) in variant.upstreams() {
            let address = format!("0.0.0.0:{port}");
            let mut serve = standing.inside(load);
            serve.args(["serve", "--listen", &address]);
            serve.args(protocol.of_upstream());
            standing.upstreams.push(ready(serve)?);
        }
        if variant.speaks_tls() {
            standing.authority = Some(peers::tls::certificates(&standing.scratch));
            for protocol in Protocol::TO_TLS {
                let started = standing.tls_server(protocol)?;
                standing.upstreams.push(started);
            }
        }
        let log = standing.file("proxy.log", "")?;
        for mut command in standing.commands(binaries)? {
            let log = fs::File::options().append(true).open(&log);
            let log = log.map_err(|error| error.to_string())?;
            let errors = log.try_clone().map_err(|error| error.to_string())?;
            command.stdin(Stdio::null()).stdout(log).stderr(errors);
            standing.proxies.push(Running::start(&mut command));
        }
        standing.wait(load)?;
        Ok(standing)
    }

    /// Starts the server of a protocol whose upstream speaks TLS. What makes a
    /// handshake for each request gives way to others on its CPU.
    fn tls_server(&self, protocol: Protocol) -> Result<Running, String> {
        let directory = self.scratch.path();
        let name = format!("{}.conf", protocol.name());
        let file = self.file(&name, &peers::tls::server(directory, protocol))?;
        let mut command = self.inside(Path::new("nice"));
        match protocol {
            Protocol::Anew => command.args(BACKGROUND),
            _ => command.args(["-n", "0"]),
        };
        let early = directory.join("early.log");
        command.arg(installed("nginx")?);
        command.arg("-c").arg(file).arg("-e").arg(early);
        Ok(Running::start(command.stdin(Stdio::null())))
    }

    /// What starts the proxy in its own cgroup, on its CPUs.
    fn commands(&self, binaries: &Path) -> Result<Vec<Command>, String> {
        let variant = self.variant;
        let directory = self.scratch.path();
        if variant == Variant::Direct {
            return Ok(Vec::new());
        }
        if let Some(more) = variant.ours() {
            let file = self.file("ambassador.yaml", &peers::ambassador(directory, &more))?;
            let mut command = self.in_place(&binaries.join("ambassador"));
            command.args(["run", "--config"]).arg(file);
            if variant.captures() {
                command.arg("--cgroup").arg(self.client_cgroup.path());
            }
            if matches!(variant, Variant::ListenerEpoll | Variant::EbpfEpoll) {
                command.env("AMBASSADOR_BACKEND", "epoll");
            }
            if variant == Variant::IptablesLegacy {
                command.env("AMBASSADOR_IPTABLES", "legacy");
            }
            return Ok(vec![command]);
        }
        let baseline = |name: &str, listen: &str, to: &str| {
            let mut command = self.in_place(&binaries.join(name));
            command.args(["--listen", listen, "--to", to]);
            command
        };
        let (http, web) = ("127.0.0.1:8081", "127.0.0.1:9000");
        Ok(vec![match variant {
            Variant::Nginx | Variant::NginxTls => {
                let text = match variant.speaks_tls() {
                    true => peers::tls::nginx(directory),
                    false => peers::nginx(directory),
                };
                let file = self.file("nginx.conf", &text)?;
                let mut command = self.in_place(&installed("nginx")?);
                command
                    .arg("-c")
                    .arg(file)
                    .arg("-e")
                    .arg(directory.join("early.log"));
                command
            }
            Variant::Haproxy | Variant::HaproxyTls => {
                let text = match variant.speaks_tls() {
                    true => peers::tls::haproxy(directory),
                    false => peers::haproxy(directory),
                };
                let file = self.file("haproxy.cfg", &text)?;
                let mut command = self.in_place(&installed("haproxy")?);
                command.arg("-f").arg(file);
                command
            }
            Variant::Envoy | Variant::EnvoyTls => {
                let text = match variant.speaks_tls() {
                    true => peers::tls::envoy(directory),
                    false => peers::envoy(directory),
                };
                let file = self.file("envoy.yaml", &text)?;
                let mut command = self.in_place(&installed("envoy")?);
                command
                    .args([
                        "--concurrency",
                        "1",
                        "--disable-hot-restart",
                        "-l",
                        "error",
                        "-c",
                    ])
                    .arg(file);
                command
            }
            Variant::Relay => {
                let tcp = baseline("relay", "127.0.0.1:8082", "127.0.0.1:9001");
                return Ok(vec![baseline("relay", http, web), tcp]);
            }
            Variant::TokioHyper => baseline("tokio-hyper", http, web),
            _ => baseline("tokio-uring", http, web),
        }])
    }

    /// `program` in the namespace.
    fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.netns.path().display()));
        command.arg(program);
        command
    }

    /// `program` in the namespace and the proxy's cgroup, on its CPUs.
    fn in_place(&self, program: &Path) -> Command {
        let mut command = self.proxy_cgroup.command("nsenter");
        command.arg(format!("--net={}", self.netns.path().display()));
        let cpus = self
            .variant
            .cpus(process::cpus())
            .map(|cpu| cpu.to_string());
        let list = cpus.collect::<Vec<_>>().join(",");
        command.args(["taskset", "-c", &list]).arg(program);
        command
    }

    /// The load generator in the client's place, for requests of a protocol.
    pub fn client(&self, load: &Path, protocol: Protocol) -> Command {
        self.client_by(&[load], protocol)
    }

    /// The same, which gives way to others on its CPU.
    pub fn background(&self, load: &Path, protocol: Protocol) -> Command {
        let [option, by] = BACKGROUND;
        let by = ["nice", option, by].map(Path::new);
        self.client_by(&[&by[..], &[load]].concat(), protocol)
    }

    fn client_by(&self, program: &[&Path], protocol: Protocol) -> Command {
        let mut command = self.client_cgroup.command("nsenter");
        command.arg(format!("--net={}", self.netns.path().display()));
        command.args(program).arg("run");
        command
            .args(["--to", &self.address(protocol).to_string()])
            .args(protocol.of_client());
        if protocol == Protocol::Tls {
            let authority = self.scratch.path().join(peers::tls::AUTHORITY);
            command.arg("--tls").arg(authority);
        }
        command
    }

    /// The same, for this many connections that ask again and again.
    pub fn http_client(&self, load: &Path, connections: u32) -> Command {
        let mut command = self.client(load, Protocol::Http1);
        command
            .args(["--size", "1024", "--closed"])
            .args(["--connections", &connections.to_string()]);
        command
    }

    /// Where clients connect to.
    pub fn address(&self, protocol: Protocol) -> SocketAddr {
        match self.variant.is_transparent() {
            true => SocketAddr::from(([10, 1, 2, 3], protocol.upstream_port())),
            false => SocketAddr::from(([127, 0, 0, 1], protocol.listener_port())),
        }
    }

    /// The processes of the proxy.
    pub fn proxy_processes(&self) -> Vec<u32> {
        self.proxy_cgroup.processes()
    }

    /// The processes of the upstreams.
    pub fn upstream_processes(&self) -> Vec<u32> {
        self.upstreams.iter().map(Running::id).collect()
    }

    /// Who has signed its certificates, where it has any.
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.scratch.path().join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// Whether capture is in force: until then clients reach the upstream
    /// without it.
    fn is_ready(&self) -> bool {
        let ask = || {
            let mut stream = TcpStream::connect(ADMIN)?;
            stream.write_all(
                b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1:15000\r\nconnection: close\r\n\r\n",
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer.starts_with("HTTP/1.1 200"))
        };
        let asked = || memory::within(&self.netns, || ask().map_err(|error| error.to_string()));
        !self.variant.is_ours() || asked() == Ok(true)
    }

    /// Waits until requests are answered.
    fn wait(&mut self, load: &Path) -> Result<(), String> {
        let until = Instant::now() + READY_WITHIN;
        loop {
            let mut client = self.client(load, self.variant.first_protocol());
            client.args(["--size", "64"]);
            client.args(["--connections", "1", "--closed", "--seconds", "0.02"]);
            let output = client.output().map_err(|error| error.to_string())?;
            let report: serde_json::Value =
                serde_json::from_slice(&output.stdout).unwrap_or_default();
            let answered = report["requests"].as_u64() > Some(0) && report["errors_total"] == 0;
            if answered && self.is_ready() {
                return Ok(());
            }
            if Instant::now() > until {
                let log = self.scratch.path().join("proxy.log");
                let said = fs::read_to_string(log).unwrap_or_default();
                let client = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(format!("does not answer: {report} {client}{said}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Starts a program and waits for its first line, which begins with `ready`.
fn ready(mut command: Command) -> Result<Running, String> {
    let mut running = Running::start(command.stdout(Stdio::piped()).stdin(Stdio::null()));
    let mut line = String::new();
    let read = BufReader::new(running.stdout()).read_line(&mut line);
    match read {
        Ok(_) if line.starts_with("ready") => Ok(running),
        _ => Err(format!("{command:?} is not ready: {line}")),
    }
}

/// Where a program is, if it is installed.
fn installed(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let directories = path.split(':').chain(["/usr/sbin", "/usr/local/bin"]);
    directories
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists())
        .ok_or_else(|| format!("{name} is not installed"))
}
