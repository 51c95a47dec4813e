//! What the demo sets up and takes down: a cgroup, a directory, the proxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::demo::guard::Guard;
use crate::workspace::{self, Failure};

const PATIENCE: Duration = Duration::from_secs(20);

/// A running proxy and what belongs to it; taken down when dropped, too.
pub struct Scene {
    proxy: Child,
    guard: Guard,
    admin: SocketAddr,
    cgroup: PathBuf,
    directory: PathBuf,
}

/// What `/metrics` said.
pub struct Metrics(String);

impl Scene {
    /// Makes everything and waits until the proxy is ready.
    pub fn set(binary: &Path, destination: &str, upstream: SocketAddr) -> Result<Scene, Failure> {
        let name = format!("ambassador-demo-{}", std::process::id());
        let cgroup = cgroup2()?.join(&name);
        let directory = std::env::temp_dir().join(&name);
        let mut guard = Guard::start(&cgroup, &directory)?;
        for path in [&cgroup, &directory] {
            std::fs::create_dir(path).map_err(|error| Failure::File(path.clone(), error))?;
        }
        let admin = free_address()?;
        let file = directory.join("demo.yaml");
        let config = format!(
            "admin: {{ listen: \"{admin}\" }}\ndrain_timeout: 2s\n\
             upstreams:\n  demo: {{ hosts: [{destination}], endpoints: [\"{upstream}\"] }}\n"
        );
        std::fs::write(&file, config).map_err(|error| Failure::File(file.clone(), error))?;
        let log_path = directory.join("log");
        let log = std::fs::File::create(&log_path)
            .map_err(|error| Failure::File(log_path.clone(), error))?;
        let proxy = Command::new(binary)
            .args(["run", "--config"])
            .arg(&file)
            .arg("--cgroup")
            .arg(&cgroup)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| Failure::File(binary.to_path_buf(), error))?;
        guard.watch(&proxy);
        let mut scene = Scene {
            proxy,
            guard,
            admin,
            cgroup,
            directory,
        };
        scene.wait_until_ready(&log_path)?;
        Ok(scene)
    }

    /// The cgroup whose programs are captured.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// How the proxy does its I/O, as its descriptors show.
    pub fn backend(&self) -> &'static str {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.proxy.id()));
        let has_ring = descriptors.into_iter().flatten().flatten().any(|entry| {
            std::fs::read_link(entry.path())
                .is_ok_and(|link| link.to_string_lossy().contains("io_uring"))
        });
        if has_ring { "io_uring" } else { "epoll" }
    }

    /// `program`, run inside the cgroup.
    pub fn command(&self, program: &str) -> Command {
        let mut command = workspace::command("sh");
        command
            .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(&self.cgroup)
            .arg(program);
        command
    }

    /// What the proxy counted.
    pub fn metrics(&self) -> Result<Metrics, Failure> {
        match ask(self.admin, "/metrics") {
            Some(text) if text.starts_with("HTTP/1.1 200") => Ok(Metrics(text)),
            other => Err(Failure::Check(vec![format!("/metrics: {other:?}")])),
        }
    }

    /// Takes everything down; says what could not be removed.
    pub fn strike(mut self) -> Result<Vec<String>, Failure> {
        let status = self.end();
        let mut left = Vec::new();
        if status != Some(0) {
            left.push(format!("the proxy ended with {status:?}"));
        }
        for path in [&self.cgroup, &self.directory] {
            if path.exists() {
                left.push(format!("{} is still there", path.display()));
            }
        }
        Ok(left)
    }

    fn end(&mut self) -> Option<i32> {
        let pid = self.proxy.id().to_string();
        let mut status = self.proxy.try_wait().ok().flatten();
        if status.is_none() {
            let _ = workspace::command("kill").args(["-TERM", &pid]).status();
            let deadline = Instant::now() + PATIENCE;
            while status.is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
                status = self.proxy.try_wait().ok().flatten();
            }
            if status.is_none() {
                let _ = self.proxy.kill();
                let _ = self.proxy.wait();
            }
        }
        let _ = std::fs::write(self.cgroup.join("cgroup.kill"), "1");
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.cgroup.exists()
            && std::fs::remove_dir(&self.cgroup).is_err()
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = std::fs::remove_dir_all(&self.directory);
        self.guard.dismiss();
        status.and_then(|status| status.code())
    }

    fn wait_until_ready(&mut self, log: &Path) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if ask(self.admin, "/readyz").is_some_and(|text| text.starts_with("HTTP/1.1 200")) {
                return Ok(());
            }
            let ended = self.proxy.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > deadline {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                let how = ended.map_or("is not ready".to_owned(), |status| {
                    format!("ended: {status}")
                });
                return Err(Failure::Check(vec![format!("the proxy {how}\n{said}")]));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.end();
    }
}

impl Metrics {
    /// The sum of the samples of `name` that have `label`.
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        self.0
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label))
            .filter_map(|line| line.rsplit(' ').next()?.trim().parse::<f64>().ok())
            .sum()
    }
}

/// A GET on the admin API: status line, fields and body as one text.
fn ask(admin: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A loopback port that was free a moment ago.
fn free_address() -> Result<SocketAddr, Failure> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| Failure::File(PathBuf::from("127.0.0.1:0"), error))
}

/// Where cgroup2 is mounted.
pub fn cgroup2() -> Result<PathBuf, Failure> {
    let mounts = PathBuf::from("/proc/self/mountinfo");
    let text = std::fs::read_to_string(&mounts).map_err(|error| Failure::File(mounts, error))?;
    let line = text.lines().find(|line| line.contains(" - cgroup2 "));
    line.and_then(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .ok_or_else(|| {
            Failure::Missing(
                "cgroup2 is not mounted; `mount -t cgroup2 none /sys/fs/cgroup`".into(),
            )
        })
}
