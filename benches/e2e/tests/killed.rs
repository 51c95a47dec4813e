//! A benchmark that is killed leaves nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ambassador_tests::program::Running;
use ambassador_tests::proxy::{self, Scratch};
use ambassador_tests::{cgroup, eventually, os};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn nothing_is_left_after_sigkill() {
    nothing_is_left_after(|bench| os::kill(bench, libc::SIGKILL));
}

#[test]
fn nothing_is_left_after_sigterm() {
    nothing_is_left_after(|bench| os::kill(bench, libc::SIGTERM));
}

/// As a terminal does it.
#[test]
fn nothing_is_left_after_ctrl_c() {
    let group = |leader: u32| leader.cast_signed().wrapping_neg().cast_unsigned();
    nothing_is_left_after(|bench| os::kill(group(bench), libc::SIGINT));
}

/// Ends a run while a proxy, an upstream and a client of it work.
fn nothing_is_left_after(end: impl Fn(u32) -> std::io::Result<()>) {
    let binaries = Scratch::new();
    let bench = Path::new(env!("CARGO_BIN_EXE_ambassador-bench"));
    let load = bench.with_file_name("ambassador-load");
    assert!(load.exists(), "run `cargo build -p ambassador-load` before");
    for (name, program) in [("ambassador", proxy::binary()), ("ambassador-load", load)] {
        symlink(program, binaries.path().join(name)).expect("the directory is empty");
    }
    let said = Said(binaries.path().join("said"));
    let log = fs::File::create(&said.0).expect("the directory is writable");
    let mut bench = Running::start(
        Command::new(bench)
            .arg("--binaries")
            .arg(binaries.path())
            .arg("--out")
            .arg(binaries.path())
            .args(["--variant", "ambassador eBPF"])
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(log),
    );
    let pid = bench.id();
    eventually("proxy, upstream and client run", SOON, || {
        let found = of(pid);
        [
            "ambassador run",
            "ambassador-load serve",
            "ambassador-load run",
        ]
        .iter()
        .all(|program| found.contains(*program))
    });
    end(pid).expect("it runs");
    bench.wait(SOON);
    eventually("nothing is left", SOON, || of(pid).is_empty());
}

/// The file that a benchmark writes its messages to; shown where a test fails.
struct Said(PathBuf);

impl Drop for Said {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = fs::read_to_string(&self.0).unwrap_or_default();
            eprintln!("--- the benchmark said:\n{said}\n---");
        }
    }
}

/// What there is of a benchmark: cgroups, namespaces and directories by their
/// paths, and what runs in the cgroups.
fn of(pid: u32) -> BTreeSet<String> {
    let prefix = format!("amb-T-{pid}-");
    let mut found = BTreeSet::new();
    let places = [
        cgroup::mount_point(),
        "/run/netns".into(),
        std::env::temp_dir(),
    ];
    for entry in places.iter().flat_map(fs::read_dir).flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let processes = fs::read_to_string(entry.path().join("cgroup.procs"));
            found.extend(processes.unwrap_or_default().lines().map(what_runs));
            found.insert(entry.path().display().to_string());
        }
    }
    found
}

/// A process by its program and its first argument.
fn what_runs(pid: &str) -> String {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split('\0');
    let program = words.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    format!("{name} {}", words.next().unwrap_or_default())
}
