//! Running other programs to their end, with a bound.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::os;

/// No program of a test needs longer.
const LIMIT: Duration = Duration::from_secs(60);

/// Packages come over a network, some of them with 100 MB.
const FETCH_LIMIT: Duration = Duration::from_secs(300);

/// Runs `command` to its end; it is killed when that takes more than a minute.
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    output_within(command, LIMIT)
}

#[track_caller]
fn output_within(command: &mut Command, limit: Duration) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = child.id();
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if waiting.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = os::kill(pid, libc::SIGKILL);
        }
    });
    let output = child.wait_with_output().expect("the child is ours");
    drop(done);
    watchdog.join().expect("the watchdog does not panic");
    output
}

/// Runs `command`, which has to succeed, and gives its standard output.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    let output = output(command);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stdout}\n{stderr}",
        output.status
    );
    stdout
}

/// Waits for `child` to end; panics after `limit`.
#[track_caller]
pub fn wait(child: &mut Child, limit: Duration) -> ExitStatus {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("still running after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The Python that `cargo xtask setup` makes sure of.
pub const PYTHON: &str = "python3";

/// Python with packages of the Python Package Index at hand, as `pyjwt==2.10.1`, with
/// blanks between them.
#[track_caller]
pub fn python_with(packages: &str) -> Command {
    let mut python = Command::new(PYTHON);
    python.env("PYTHONPATH", package_directory(packages));
    python
}

/// A script that stands beside the tests, with [packages](python_with) at hand.
#[track_caller]
pub fn script(packages: &str, name: &str) -> Command {
    let mut python = python_with(packages);
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e");
    python
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(scripts.join(name));
    python
}

/// The directory of these packages: they are fetched once, into `target/tools`.
#[track_caller]
pub fn package_directory(packages: &str) -> PathBuf {
    fetched(packages, |place| {
        let mut pip = Command::new(PYTHON);
        pip.args(["-m", "pip", "install", "--quiet", "--no-input"])
            .args(["--disable-pip-version-check", "--root-user-action=ignore"])
            .args(["--upgrade", "--target"])
            .arg(place);
        fetch(pip.args(packages.split(' ')));
    })
}

/// A script of Node that stands beside the tests, with packages of npm at hand that it
/// asks for by `require`: each as `@grpc/grpc-js@1.14.7`, with blanks between them, and
/// what they need among them.
#[track_caller]
pub fn node_script(packages: &str, name: &str) -> Command {
    let place = fetched(packages, |place| {
        for package in packages.split(' ') {
            let (name, _) = package.rsplit_once('@').expect("a name and a version");
            let mut npm = Command::new("npm");
            npm.args(["pack", "--silent", "--pack-destination"]);
            let archive = fetch(npm.arg(place).arg(package));
            let directory = place.join(name);
            std::fs::create_dir_all(&directory).expect("writable");
            let mut tar = Command::new("tar");
            tar.args(["--extract", "--strip-components=1", "--file"]);
            tar.arg(place.join(archive.trim())).arg("--directory");
            fetch(tar.arg(&directory));
        }
    });
    let mut node = Command::new("node");
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e");
    node.env("NODE_PATH", place).arg(scripts.join(name));
    node
}

/// The directory below `target/tools` of these packages, into which they are got once.
#[track_caller]
fn fetched(packages: &str, get: impl FnOnce(&Path)) -> PathBuf {
    // One at a time, and the others wait for it.
    static FETCHING: Mutex<()> = Mutex::new(());
    let _fetching = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let place = tools.join(packages.replace(' ', "+").replace('/', "-"));
    if !place.join("done").is_file() {
        std::fs::create_dir_all(&place).expect("writable");
        get(&place);
        std::fs::write(place.join("done"), "").expect("writable");
    }
    place
}

/// Runs what gets packages, and gives what it says.
#[track_caller]
fn fetch(command: &mut Command) -> String {
    let output = output_within(command, FETCH_LIMIT);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the test needs packages that are not to be had: {command:?}: {said}"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A running program; killed when dropped, so that a failed test leaves none.
pub struct Running(Child);

impl Running {
    /// Starts `command`. Ctrl-C is for it whatever whoever runs the tests has
    /// ignored: a shell does that to what it runs in the background.
    #[track_caller]
    pub fn start(command: &mut Command) -> Running {
        Running(
            os::heed_interrupts(command)
                .spawn()
                .unwrap_or_else(|error| panic!("{command:?}: {error}")),
        )
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its standard input, once, where it is piped.
    pub fn stdin(&mut self) -> std::process::ChildStdin {
        self.0.stdin.take().expect("piped, and not taken before")
    }

    /// Its standard output, once, where it is piped.
    pub fn stdout(&mut self) -> std::process::ChildStdout {
        self.0.stdout.take().expect("piped, and not taken before")
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("the child is ours").is_none()
    }

    /// Waits for its end; panics after `limit`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait(&mut self.0, limit)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
