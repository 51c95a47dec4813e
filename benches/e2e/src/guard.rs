//! Removes what a killed benchmark would leave: processes, cgroups, network
//! namespaces, files.
//!
//! A second process of this binary waits for the end of the first, however that
//! comes, and removes what bears the number of the first. Everything that the
//! benchmark starts is in a cgroup with that number: its own, which is made
//! here, or one of [`ambassador_tests::Cgroup`]. Out of a cgroup no process gets
//! by forking or by changing its user, as nginx does, and as ends the signal
//! that a process can ask for at the death of its parent.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use ambassador_tests::cgroup;

/// The first argument of the process that waits; the second is whose end.
const ARGUMENT: &str = "--remove-what-is-left-of";

/// How long processes may take to end once they are killed.
const END_WITHIN: Duration = Duration::from_secs(10);

/// The process that waits, and the cgroup of this one.
pub struct Guard {
    /// Holds the end of a pipe that closes when this process ends.
    waiting: Child,
    /// Where this process came from.
    home: PathBuf,
    place: PathBuf,
}

impl Guard {
    /// Starts it, and moves this process into a cgroup of its own.
    pub fn start() -> io::Result<Self> {
        let own = std::process::id();
        let program = std::env::current_exe()?;
        let waiting = Command::new(program)
            .args([ARGUMENT, &own.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Ctrl-C must not end both.
            .process_group(0)
            .spawn()?;
        let top = cgroup::mount_point();
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let home = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let place = top.join(format!("{}bench", prefix(own)));
        fs::create_dir(&place)?;
        move_to(&place)?;
        Ok(Self {
            waiting,
            home: top.join(home.unwrap_or_default()),
            place,
        })
    }
}

impl Drop for Guard {
    /// After all else: the cgroup has to be empty but for this process.
    fn drop(&mut self) {
        // Else the guard does it, after the end of this process.
        if move_to(&self.home).is_ok() && fs::remove_dir(&self.place).is_ok() {
            drop(self.waiting.stdin.take());
            let _ = self.waiting.wait();
        }
    }
}

/// Where this process is the one that waits: does its work.
pub fn serve() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let pid = arguments.next()?.parse().ok()?;
    // Nothing is written: this ends when the other process does.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    Some(match remove_all_of(pid) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: something is left of process {pid}: {error}");
            ExitCode::FAILURE
        }
    })
}

/// What the names of all cgroups, namespaces and directories of a process
/// begin with.
fn prefix(pid: u32) -> String {
    format!("amb-T-{pid}-")
}

fn move_to(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
}

/// Programs first: they hold the rest.
fn remove_all_of(pid: u32) -> io::Result<()> {
    let until = Instant::now() + END_WITHIN;
    // Again while a process was on its way from one into another.
    while let Err(error) = remove_cgroups(pid) {
        if Instant::now() > until {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for namespace in named(Path::new("/run/netns"), pid) {
        let name = namespace.file_name().unwrap_or_default();
        let deleted = Command::new("ip").args(["netns", "del"]).arg(name).status();
        if !deleted?.success() {
            return Err(io::Error::other(namespace.display().to_string()));
        }
    }
    for directory in named(&std::env::temp_dir(), pid) {
        fs::remove_dir_all(directory)?;
    }
    Ok(())
}

fn remove_cgroups(pid: u32) -> io::Result<()> {
    let groups = named(&cgroup::mount_point(), pid);
    for group in &groups {
        fs::write(group.join("cgroup.kill"), "1")?;
    }
    groups.iter().try_for_each(|group| remove_cgroup(group))
}

/// With those inside it, which `ambassador exec` makes.
fn remove_cgroup(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// What is of this process in a directory.
fn named(directory: &Path, pid: u32) -> Vec<PathBuf> {
    let prefix = prefix(pid);
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let of_it = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    of_it.map(|entry| entry.path()).collect()
}
