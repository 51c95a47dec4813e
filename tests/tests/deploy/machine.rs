//! This machine once more, in namespaces: its files under a layer that is gone
//! with the test, the package installed, and where asked for systemd as its
//! first process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use ambassador_tests::program::{self, Running};
use ambassador_tests::proxy::Scratch;
use ambassador_tests::{Cgroup, Netns, eventually};

use crate::only;

/// Lays the files out at `$PLACE/root` and installs the package.
const PREPARE: &str = r#"
set -e
mount -t tmpfs none "$PLACE"
cd "$PLACE"
mkdir up work root
cp "$PACKAGE" up/ambassador.deb
mount -t overlay none -o lowerdir=/,upperdir=up,workdir=work root
mount -t proc none root/proc
mount --rbind /dev root/dev
mount -t tmpfs none root/run
chroot root dpkg --no-triggers --install ambassador.deb >&2
"#;

/// systemd starts this unit and what it needs by name, none of what a machine
/// usually starts.
const BOOT: &str = r#"
mount -t sysfs none root/sys
mount -t cgroup2 none root/sys/fs/cgroup
mount -t bpf none root/sys/fs/bpf
mkdir root/sys/fs/cgroup/app.slice
rm -rf root/lib/systemd/system-generators root/lib/systemd/system/*.wants root/etc/systemd/system/*.wants
mkdir -p root/etc/systemd/system/ambassador.service.d
printf '[Service]\nStandardOutput=file:/run/log\nStandardError=file:/run/log\n' \
    > root/etc/systemd/system/ambassador.service.d/log.conf
printf '%s' "$CONFIG" > root/etc/ambassador/ambassador.yaml
export container=test
exec chroot root /lib/systemd/systemd --system --unit=ambassador.service --log-target=console
"#;

/// Runs `script` in a root directory where the package is installed.
pub fn installed(script: &str) -> Output {
    let scratch = Scratch::new();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg(format!("{PREPARE}\nexec chroot root sh -c \"$0\""))
        .arg(script);
    program::output(surroundings(&mut command, &scratch))
}

/// A machine on which systemd has been told to start the service.
pub struct Machine {
    first: u32,
    cgroup: Cgroup,
    _unshare: Running,
    _scratch: Scratch,
}

impl Machine {
    /// Boots it in a network namespace.
    pub fn boot(network: &Netns, config: &str) -> Machine {
        let (scratch, cgroup) = (Scratch::new(), Cgroup::new());
        let mut command = cgroup.command("nsenter");
        command
            .arg(format!("--net={}", network.path().display()))
            .args(["unshare", "--mount", "--pid", "--cgroup", "--ipc", "--uts"])
            .args(["--fork", "--kill-child", "sh", "-c"])
            .arg(format!("{PREPARE}{BOOT}"))
            .env("CONFIG", config);
        let unshare = Running::start(surroundings(&mut command, &scratch));
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let mut first = None;
        eventually("it has a first process", Duration::from_secs(20), || {
            let list = fs::read_to_string(&children).unwrap_or_default();
            first = list
                .split_whitespace()
                .next()
                .and_then(|pid| pid.parse().ok());
            first.is_some()
        });
        Machine {
            first: first.expect("just seen"),
            cgroup,
            _unshare: unshare,
            _scratch: scratch,
        }
    }

    /// A group of its hierarchy, as it is called from outside.
    pub fn group(&self, name: &str) -> PathBuf {
        self.cgroup.path().join(name)
    }

    /// The processes of the service whose command line has this word.
    pub fn processes(&self, word: &str) -> Vec<u32> {
        let list = self.group("system.slice/ambassador.service/cgroup.procs");
        let list = fs::read_to_string(list).unwrap_or_default();
        let all = list.lines().filter_map(|line| line.parse().ok());
        let said = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0)
                .any(|one| one == word.as_bytes())
        };
        all.filter(said).collect()
    }

    /// `systemctl`, on it.
    #[track_caller]
    pub fn systemctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first.to_string()]).args([
            "--mount",
            "--pid",
            "--cgroup",
            "--root",
            "--wd=/",
            "systemctl",
        ]);
        program::succeed(command.args(arguments))
    }

    /// What the service wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(format!("/proc/{}/root/run/log", self.first)).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the service said:\n{}\n---", self.log());
        }
        let _ = fs::write(self.cgroup.path().join("cgroup.kill"), "1");
        let _ = ambassador_tests::os::kill(self.first, 9);
        for entry in fs::read_dir(self.cgroup.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            if entry.path().is_dir() {
                eventually("its groups are empty", Duration::from_secs(5), || {
                    remove(&entry.path())
                });
            }
        }
    }
}

/// Removes a group and those below it, unless something still runs in one.
fn remove(group: &Path) -> bool {
    let below = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.path().is_dir()) {
        remove(&entry.path());
    }
    fs::remove_dir(group).is_ok()
}

fn surroundings<'a>(command: &'a mut Command, scratch: &Scratch) -> &'a mut Command {
    command
        .env("PLACE", scratch.path())
        .env("PACKAGE", only(".deb"))
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
}
