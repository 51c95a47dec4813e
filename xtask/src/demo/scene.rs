//! What the demo sets up and takes down: a cgroup, a directory, the proxy.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::demo::admin::Admin;
use crate::demo::guard::Guard;
use crate::workspace::{self, Failure};

const PATIENCE: Duration = Duration::from_secs(20);

/// A running proxy and what belongs to it; taken down when dropped, too.
pub struct Scene {
    proxy: Child,
    guard: Guard,
    admin: Admin,
    upstreams: String,
    cgroup: PathBuf,
    directory: PathBuf,
}

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
        let upstreams = upstreams(destination, upstream);
        let config = format!("admin: {{ listen: \"{admin}\" }}\ndrain_timeout: 2s\n{upstreams}");
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
            admin: Admin::at(admin),
            upstreams,
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

    /// The `upstreams` section of the proxy's configuration.
    pub fn upstreams(&self) -> &str {
        &self.upstreams
    }

    /// The proxy's admin API.
    pub fn admin(&self) -> Admin {
        self.admin
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
            if self.admin.is_ready() {
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

/// What it takes to have calls of `destination` retried, and broken off while
/// the upstream is down.
///
/// Unlike the default the breaker counts failures in a row: one that counts all
/// of ten seconds opens for an upstream as flaky as the demo's, as it should.
/// For the same reason the budget is more than the default of 20 %.
fn upstreams(destination: &str, upstream: SocketAddr) -> String {
    format!(
        "upstreams:\n\
         \x20 demo:\n\
         \x20   hosts: [{destination}]\n\
         \x20   endpoints: [\"{upstream}\"]\n\
         \x20   timeouts: {{ per_try: 300ms }}\n\
         \x20   retry: {{ attempts: 3, base: 10ms, budget: {{ ratio: 100% }} }}\n\
         \x20   circuit_breaker: {{ consecutive: 5, sleep: 2s }}\n"
    )
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
