//! Takes the demo down where it cannot do so itself: Ctrl-C, or a kill.
//!
//! A shell waits at the end of a pipe. It is told which process is the proxy,
//! then reads a line where the demo has cleaned up, and the end of the pipe where
//! the demo is gone.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::workspace::{self, Failure};

/// $1 is the cgroup, $2 the directory. Both waits are bounded.
const SCRIPT: &str = r#"
read -r proxy
read -r _ && exit
kill -TERM "$proxy"
left=50
while kill -0 "$proxy" && [ $left -gt 0 ]; do left=$((left - 1)); sleep 0.1; done
[ $left -gt 0 ] || kill -KILL "$proxy"
left=50
while [ -d "$1" ] && [ $left -gt 0 ]; do
    echo 1 > "$1/cgroup.kill"
    rmdir "$1" || sleep 0.1
    left=$((left - 1))
done
rm -rf "$2"
"#;

/// The shell that waits. Dropped without [`Guard::dismiss`], it does its work.
pub struct Guard {
    shell: Child,
}

impl Guard {
    /// Has it wait for the end of this process, to remove the cgroup, with what
    /// runs in it, and the directory. Neither needs to be there yet.
    pub fn start(cgroup: &Path, directory: &Path) -> Result<Guard, Failure> {
        let shell = workspace::command("sh")
            .args(["-c", SCRIPT, "guard"])
            .args([cgroup, directory])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C must not end both.
            .process_group(0)
            .spawn()
            .map_err(|error| Failure::File("sh".into(), error))?;
        Ok(Guard { shell })
    }

    /// Has it end this process before.
    pub fn watch(&mut self, proxy: &Child) {
        self.say(&format!("{}\n", proxy.id()));
    }

    /// All is cleaned up, after [`Guard::watch`].
    pub fn dismiss(&mut self) {
        self.say("\n");
    }

    /// A shell that was killed hears nothing, which is no reason to stop.
    fn say(&mut self, line: &str) {
        if let Some(pipe) = &mut self.shell.stdin {
            let _ = pipe.write_all(line.as_bytes());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::scene;
    use std::path::PathBuf;

    /// A process in the stead of the proxy, a cgroup with another one, and a
    /// directory.
    struct Things {
        proxy: Child,
        captured: Child,
        cgroup: PathBuf,
        directory: PathBuf,
    }

    fn things(name: &str) -> Things {
        let name = format!("ambassador-guard-{}-{name}", std::process::id());
        let cgroup = scene::cgroup2().unwrap().join(&name);
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&cgroup).unwrap();
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("log"), "text").unwrap();
        let sleep = || workspace::command("sleep").arg("60").spawn().unwrap();
        let (proxy, captured) = (sleep(), sleep());
        std::fs::write(cgroup.join("cgroup.procs"), captured.id().to_string()).unwrap();
        Things {
            proxy,
            captured,
            cgroup,
            directory,
        }
    }

    #[test]
    fn where_the_pipe_ends_it_takes_everything_down() {
        let mut things = things("gone");
        let mut guard = Guard::start(&things.cgroup, &things.directory).unwrap();
        guard.watch(&things.proxy);
        drop(guard.shell.stdin.take());
        assert!(!things.proxy.wait().unwrap().success());
        assert!(!things.captured.wait().unwrap().success());
        drop(guard);
        assert!(!things.cgroup.exists() && !things.directory.exists());
    }

    #[test]
    fn without_a_proxy_it_removes_the_rest() {
        let mut things = things("early");
        drop(Guard::start(&things.cgroup, &things.directory).unwrap());
        assert!(!things.captured.wait().unwrap().success());
        assert!(!things.cgroup.exists() && !things.directory.exists());
        things.proxy.kill().unwrap();
        things.proxy.wait().unwrap();
    }

    #[test]
    fn dismissed_it_leaves_everything_alone() {
        let mut things = things("dismissed");
        let mut guard = Guard::start(&things.cgroup, &things.directory).unwrap();
        guard.watch(&things.proxy);
        guard.dismiss();
        drop(guard);
        assert!(things.proxy.try_wait().unwrap().is_none());
        assert!(things.captured.try_wait().unwrap().is_none());
        assert!(things.directory.join("log").exists());
        for child in [&mut things.proxy, &mut things.captured] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        std::fs::remove_dir(things.cgroup).unwrap();
        std::fs::remove_dir_all(things.directory).unwrap();
    }
}
