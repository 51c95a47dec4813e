//! What the cases share: cgroups, namespaces and a stand-in for the proxy.

use std::env;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::process;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ambassador::testing::capture;
use ambassador::testing::capture::Accepted;
use ambassador::testing::capture::AttachReport;
use ambassador::testing::capture::Capture;
use ambassador::testing::capture::CaptureError;
use ambassador::testing::capture::Options;
use ambassador::testing::capture::Pinned;
use ambassador::testing::capture::Workload;
use ambassador::testing::capture::settings::Claims;
use ambassador::testing::capture::settings::Settings;
use ambassador::testing::capture::settings::Target;
use ambassador::testing::workload::Helper;
use ambassador::testing::workload::helper::Errand;
use ambassador::testing::workload::helper::Registration;
use ambassador_ebpf::Verdict;

use crate::CLIENT;

/// A cgroup of the test's own, removed at its end.
pub struct Cgroup(pub PathBuf);

impl Cgroup {
    pub fn new(name: &str) -> Self {
        let root = cgroup2();
        let path = root.join(format!("amb-A-{}-{name}", process::id()));
        fs::create_dir(&path).expect("capture tests need root and a writable cgroup2");
        Self(path)
    }

    /// Runs a program inside.
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program, args).output().expect("sh runs")
    }

    /// The same without waiting; its standard input is a pipe.
    pub fn spawn(&self, program: &str, args: &[&str]) -> Child {
        let mut command = self.command(program, args);
        command.stdin(Stdio::piped()).spawn().expect("sh runs")
    }

    /// The same with its standard output in a pipe, too.
    pub fn spawn_speaking(&self, program: &str, args: &[&str]) -> Child {
        let mut command = self.command(program, args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().expect("sh runs")
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(&self.0)
            .arg(program)
            .args(args);
        command
    }

    /// What a connect from inside ends with: the peer it sees, or the error.
    pub fn connect(&self, destination: &str) -> String {
        self.connect_as(destination, "")
    }

    pub fn connect_as(&self, destination: &str, how: &str) -> String {
        let output = self.run(&own_path(), &[CLIENT, destination, how]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .expect("UTF-8")
            .trim()
            .to_owned()
    }
}

/// A cgroup that takes no process, as one below a threaded one does.
pub struct Barred {
    /// Removed first.
    pub inner: Cgroup,
    _outer: Cgroup,
}

impl Barred {
    pub fn new(name: &str) -> Self {
        let outer = Cgroup::new(name);
        fs::write(outer.0.join("cgroup.type"), "threaded").expect("a cgroup of ours");
        let inner = Cgroup(outer.0.join("inner"));
        fs::create_dir(&inner.0).expect("a cgroup of ours");
        Self {
            inner,
            _outer: outer,
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Some(pinned) = pinned(self) {
            let _ = pinned.remove();
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// A network namespace with loopback up, for as long as its one process lives.
pub struct Netns(Child);

impl Netns {
    pub fn new() -> Self {
        let mut child = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "ip link set lo up && echo up && exec cat",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        assert_eq!(line, "up\n");
        Self(child)
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.0.id()))
    }

    /// A listener inside: a socket keeps the namespace it was made in.
    pub fn listen(&self) -> TcpListener {
        let netns = fs::File::open(self.path()).expect("a namespace");
        let inside = move || {
            use std::os::fd::AsRawFd;
            // SAFETY: no pointers; affects this thread alone, which ends.
            #[expect(unsafe_code, reason = "setns() is not in std")]
            let entered = unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0);
            TcpListener::bind("[::]:0").expect("a port")
        };
        thread::spawn(inside).join().expect("listening")
    }

    pub fn run(&self, command: &[&str]) -> Output {
        Command::new("nsenter")
            .arg(format!("--net={}", self.path().display()))
            .args(command)
            .output()
            .expect("nsenter runs")
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A stand-in for the proxy: one listener, one heart.
pub struct Proxy {
    pub listener: TcpListener,
    pub helper: Arc<Helper>,
    pub capture: Capture,
    pub found: Vec<AttachReport>,
}

impl Proxy {
    pub fn start(settings: &Settings, claims: &Claims, may_pin: bool) -> Self {
        let listener = TcpListener::bind("[::]:0").expect("a port");
        Self::on(listener, settings, claims, may_pin)
    }

    pub fn on(listener: TcpListener, settings: &Settings, claims: &Claims, may_pin: bool) -> Self {
        let options = Options {
            proxy_port: listener.local_addr().expect("bound").port(),
            shards: 1,
            may_pin,
            kernel_log: false,
        };
        let helper = Arc::new(Helper::start(Errand::Capture).expect("a helper"));
        let (capture, found) = start_with(&helper, settings, claims, options)
            .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
        Self {
            listener,
            helper,
            capture,
            found,
        }
    }

    pub fn beating(settings: &Settings) -> Self {
        let proxy = Self::start(settings, &Claims::default(), false);
        proxy.beat();
        proxy
    }

    pub fn beat(&self) {
        self.capture.table().heartbeat(0).beat();
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("bound").port()
    }

    /// What is captured, and how, from now on.
    pub fn update(&self, settings: &Settings, claims: &Claims) -> Vec<AttachReport> {
        register(&self.helper, settings);
        let updated = self.try_to_update(settings, claims, workloads(settings));
        updated.expect("updated")
    }

    /// The same in these workloads, where it can be.
    pub fn try_to_update(
        &self,
        settings: &Settings,
        claims: &Claims,
        workloads: Vec<Workload>,
    ) -> Result<Vec<AttachReport>, CaptureError> {
        let staged = self.capture.stage(settings, claims, workloads)?;
        Ok(staged.commit())
    }

    /// Accepts what is queued and says which destination it was for.
    pub fn accepted(&self) -> (TcpStream, Accepted) {
        let (stream, _) = self.listener.accept().expect("a connection");
        let local = stream.local_addr().expect("an address");
        let accepted = self.capture.table().lookup(local).expect("a readable map");
        (stream, accepted)
    }

    pub fn destination(&self, workload: u32) -> String {
        match self.accepted().1 {
            Accepted::Token(token) => {
                assert_eq!(token.workload, workload);
                token.destination.to_string()
            }
            other => format!("{other:?}"),
        }
    }

    pub fn count(&self, verdict: Verdict) -> u64 {
        let counts = self.capture.verdicts().expect("readable counters");
        counts
            .iter()
            .find(|(of, _)| *of == verdict)
            .expect("every verdict")
            .1
    }

    pub fn clean(self) {
        let port = self.port();
        let nothing = (Settings::default(), Claims::default());
        self.update(&nothing.0, &nothing.1);
        drop(self.capture);
        capture::unroute(None, port).expect("the token prefix is removed");
    }
}

pub fn own_path() -> String {
    let own = env::current_exe().expect("own path");
    own.into_os_string().into_string().expect("a UTF-8 path")
}

pub fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc");
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    PathBuf::from(
        line.expect("capture tests need cgroup2")
            .split(' ')
            .nth(1)
            .expect("a mount point"),
    )
}

pub fn settings(cgroups: &[&Cgroup]) -> Settings {
    Settings {
        targets: cgroups
            .iter()
            .map(|cgroup| Target {
                cgroup: cgroup.0.clone(),
                netns: None,
            })
            .collect(),
        ..Settings::default()
    }
}

/// The pins of a cgroup.
pub fn pinned(cgroup: &Cgroup) -> Option<Pinned> {
    let id = cgroup.0.metadata().ok()?.ino();
    let mut all = capture::all_pinned()
        .expect("a readable directory")
        .into_iter();
    all.find(|pinned| pinned.cgroup_id == id)
}

/// How many names in bpffs are for a cgroup.
pub fn pins_of(cgroup: &Cgroup) -> usize {
    let Some(pinned) = pinned(cgroup) else {
        return 0;
    };
    let prefix = format!("{:x}_", pinned.cgroup_id);
    fs::read_dir("/sys/fs/bpf/ambassador")
        .expect("a readable directory")
        .filter(|entry| {
            let name = entry.as_ref().expect("an entry").file_name();
            name.to_string_lossy().starts_with(&prefix)
        })
        .count()
}

/// The targets of `settings`, numbered from 0.
pub fn workloads(settings: &Settings) -> Vec<Workload> {
    (0..)
        .zip(settings.targets.clone())
        .map(|(number, target)| Workload { number, target })
        .collect()
}

/// Starts capture with a helper of its own.
pub fn start(
    settings: &Settings,
    claims: &Claims,
    options: Options,
) -> Result<(Capture, Vec<AttachReport>), CaptureError> {
    let helper = Arc::new(Helper::start(Errand::Capture).expect("a helper"));
    start_with(&helper, settings, claims, options)
}

fn start_with(
    helper: &Arc<Helper>,
    settings: &Settings,
    claims: &Claims,
    options: Options,
) -> Result<(Capture, Vec<AttachReport>), CaptureError> {
    register(helper, settings);
    Capture::start(settings, claims, &workloads(settings), options, helper)
}

/// Tells the helper what may be captured.
pub fn register(helper: &Helper, settings: &Settings) {
    let registration = Registration {
        targets: settings.targets.clone(),
        config: None,
    };
    helper.register(&registration).expect("not sealed yet");
}

pub fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status().expect("ip runs");
    assert!(status.success(), "ip {args:?}");
}

/// Waits until nothing is attached any more: the kernel lets go of a link that was
/// pinned only once nobody can be looking at the pin.
#[track_caller]
pub fn no_program_is_left(cgroup: &Cgroup) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while programs_named(&cgroup.0, "connect4") > 0 {
        assert!(Instant::now() < deadline, "still attached");
        thread::sleep(Duration::from_millis(1));
    }
}

pub fn programs_named(cgroup: &Path, name: &str) -> usize {
    let programs = capture::programs_at(cgroup).expect("a list");
    programs
        .iter()
        .filter(|program| program.name == name)
        .count()
}
