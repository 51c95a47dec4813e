//! cgroups that last as long as a test.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::wait::eventually;

/// Where memory is limited on systems that are not all of version 2.
const MEMORY_V1: &str = "/sys/fs/cgroup/memory";

fn is_memory(controller: &str) -> bool {
    controller == "memory"
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Where cgroup2 is mounted; not /sys/fs/cgroup on hybrid systems.
pub fn mount_point() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    let path = mount.and_then(|line| line.split(' ').nth(4));
    PathBuf::from(path.expect("cgroup2 must be mounted: mount -t cgroup2 none /sys/fs/cgroup"))
}

/// The directories below the mount point, at any depth.
fn all_paths() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![mount_point()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                found.push(entry.path());
                left.push(entry.path());
            }
        }
    }
    found
}

/// The cgroup of this name, at any depth.
pub fn find(name: &str) -> Option<PathBuf> {
    all_paths().into_iter().find(|path| path.ends_with(name))
}

/// A cgroup, removed with what still runs in it when dropped.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// A new, empty cgroup at the top. Needs root.
    pub fn new() -> Cgroup {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("amb-T-{}-{number}", std::process::id());
        let path = mount_point().join(name);
        fs::create_dir(&path).unwrap_or_else(|error| {
            panic!(
                "cannot make {} (the tests need root): {error}",
                path.display()
            )
        });
        Cgroup { path }
    }

    /// One whose processes may have so many bytes of memory together, in the
    /// hierarchy that limits memory here.
    pub fn with_memory(bytes: u64) -> Cgroup {
        let unified = mount_point();
        let controllers = fs::read_to_string(unified.join("cgroup.controllers"));
        let is_unified = controllers.is_ok_and(|all| all.split_whitespace().any(is_memory));
        let (top, limit) = match is_unified {
            true => {
                let enabled = fs::write(unified.join("cgroup.subtree_control"), "+memory");
                enabled.expect("the tests run as root");
                (unified, "memory.max")
            }
            false => (PathBuf::from(MEMORY_V1), "memory.limit_in_bytes"),
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = top.join(format!("amb-T-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("the tests run as root");
        let cgroup = Cgroup { path };
        let limited = fs::write(cgroup.path.join(limit), bytes.to_string());
        limited.expect("the memory of a cgroup can be limited");
        cgroup
    }

    /// What is put before a command so that it runs inside.
    pub fn wrapper(&self) -> Vec<String> {
        let procs = self.path.join("cgroup.procs");
        let script = format!("echo $$ > {} && exec \"$0\" \"$@\"", procs.display());
        ["sh", "-c", &script].map(str::to_owned).to_vec()
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `program`, to be run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(&self.path)
            .arg(program);
        command
    }

    /// Moves the running process `pid` inside.
    pub fn adopt(&self, pid: u32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).expect("the process lives");
    }

    /// The processes inside.
    pub fn processes(&self) -> Vec<u32> {
        let list = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Default for Cgroup {
    fn default() -> Cgroup {
        Cgroup::new()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // cgroup.kill needs Linux 5.14; every supported kernel has it.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        if std::thread::panicking() {
            let _ = fs::remove_dir(&self.path);
            return;
        }
        eventually(
            "the cgroup of a test could be removed",
            Duration::from_secs(5),
            || fs::remove_dir(&self.path).is_ok() || !self.path.exists(),
        );
    }
}
