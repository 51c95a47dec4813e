//! Sets up, builds, and runs every test.

use std::path::Path;

use crate::build::{self, OBJECT_VARIABLE};
use crate::setup;
use crate::workspace::{self, Failure};

/// What says how many tests of a program run at once.
const THREADS_VARIABLE: &str = "RUST_TEST_THREADS";

/// Runs `cargo test`, of the whole workspace unless `arguments` say otherwise.
pub fn all(arguments: &[String]) -> Result<(), Failure> {
    setup::everything()?;
    require_root()?;
    let built = build::release()?;
    let mut command = workspace::command("cargo");
    command.arg("test");
    if arguments.is_empty() {
        // What fails late should be known too.
        command.args(["--workspace", "--no-fail-fast"]);
    }
    if std::env::var_os(THREADS_VARIABLE).is_none() {
        command.env(THREADS_VARIABLE, threads().to_string());
    }
    command
        .args(arguments)
        .env("AMBASSADOR_BIN", &built.binary)
        .env(OBJECT_VARIABLE, &built.object);
    workspace::run(&mut command)
}

/// How many tests run at once: one more for every two CPUs, as most of them wait.
fn threads() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    cpus + cpus.div_ceil(2)
}

/// Capture, cgroups and namespaces need root; the tests do not pretend otherwise.
pub fn require_root() -> Result<(), Failure> {
    let status = Path::new("/proc/self/status");
    let text = std::fs::read_to_string(status)
        .map_err(|error| Failure::File(status.to_path_buf(), error))?;
    let effective = text
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|ids| ids.split_whitespace().nth(1));
    if effective == Some("0") {
        return Ok(());
    }
    Err(Failure::Missing(
        "this needs root (cgroups, BPF, network namespaces): run it as root or with sudo".into(),
    ))
}
