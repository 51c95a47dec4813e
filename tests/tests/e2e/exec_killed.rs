//! `ambassador exec` killed while its command runs: what it set up in the
//! kernel is gone soon after.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use ambassador_tests::os::{self, BpfKind};
use ambassador_tests::program::{self, Running};
use ambassador_tests::proxy::{Scratch, binary};
use ambassador_tests::{Backend, Netns, Server, cgroup, eventually, on_both_backends};

use crate::capture_scope::{witness, world};

on_both_backends!(no_program_and_no_route_is_left, no_iptables_rule_is_left,);

const SOON: Duration = Duration::from_secs(10);

/// `exec` in a namespace, with a command that has called and goes on running.
pub(crate) struct World {
    namespace: Netns,
    _server: Server,
    _scratch: Scratch,
    before: String,
    pub(crate) exec: Running,
}

impl World {
    pub(crate) fn start(backend: Backend, capture: &str) -> World {
        // REDIRECT needs a route to the original destination.
        let namespace = world(&["10.1.0.0/16"]);
        let server = witness(&namespace);
        let scratch = Scratch::new();
        let upstream = "{ hosts: [10.1.0.0/16], endpoints: [\"127.0.0.1:80\"] }";
        let config = format!("capture: {capture}\nupstreams: {{ web: {upstream} }}\n");
        let file = scratch.file("exec.yaml", &config);
        let before = network(&namespace);
        let [nsenter, entered, binary] = namespace.wrap(&binary().display().to_string());
        let script = "curl -sS -m20 http://10.1.2.3/; echo; exec sleep 30";
        // The exec of nsenter keeps its process id.
        let mut exec = Running::start(
            Command::new(nsenter)
                .args([entered, binary, "exec".into(), "--config".into()])
                .arg(file)
                .args(["--", "sh", "-c", script])
                .env("AMBASSADOR_BACKEND", backend.name())
                .env("XDG_RUNTIME_DIR", scratch.path())
                .stdout(Stdio::piped()),
        );
        let mut lines = BufReader::new(exec.stdout()).lines();
        assert_eq!(lines.next().expect("a line").expect("text"), "proxied");
        World {
            namespace,
            _server: server,
            _scratch: scratch,
            before,
            exec,
        }
    }

    /// Kills it, and expects that its processes end, and that the namespace
    /// becomes what it was.
    pub(crate) fn kill(&mut self) {
        assert_ne!(network(&self.namespace), self.before, "it set something up");
        let pid = self.exec.id();
        let children = children(pid);
        assert_eq!(children.len(), 2, "the helper and the command");
        os::kill(pid, libc::SIGKILL).expect("it runs");
        self.exec.wait(SOON);
        for child in children {
            eventually("its processes have ended", SOON, || !runs(&child));
        }
        assert_eq!(network(&self.namespace), self.before);
    }
}

/// Routing and iptables rules of a namespace.
pub(crate) fn network(namespace: &Netns) -> String {
    let inside = |words: &[&str]| {
        let [nsenter, entered, program] = namespace.wrap(words[0]);
        let mut command = Command::new(nsenter);
        program::succeed(command.args([entered, program]).args(&words[1..]))
    };
    let mut all = inside(&["ip", "-6", "rule"]) + &inside(&["ip", "rule"]);
    all += &inside(&["ip", "-6", "route", "show", "table", "all"]);
    for save in ["iptables-save", "ip6tables-save"] {
        // Rules, and chains that are not built in: those have no policy.
        let saved = inside(&[save]);
        let ours = |line: &&str| line.starts_with("-A") || line.contains(" - [");
        all.extend(saved.lines().filter(ours).map(|line| format!("{line}\n")));
    }
    all
}

/// A process: its number and when it started, as numbers are used again.
#[derive(Debug)]
struct Process {
    pid: u32,
    started: String,
}

/// Fields of /proc/PID/stat from the state on; `None`: there is no such process.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

const STATE: usize = 0;
const PARENT: usize = 1;
const STARTED: usize = 19;

fn children(of: u32) -> Vec<Process> {
    let all = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found = pids.filter_map(|pid| {
        let mut fields = stat(pid)?;
        (fields[PARENT] == of.to_string()).then(|| Process {
            pid,
            started: fields.swap_remove(STARTED),
        })
    });
    found.collect()
}

/// Whether it has not ended; whether it was also waited for is init's affair.
fn runs(process: &Process) -> bool {
    stat(process.pid)
        .is_some_and(|fields| fields[STARTED] == process.started && fields[STATE] != "Z")
}

/// The BPF objects that a process holds, and those that its links name.
fn bpf_objects(pid: u32) -> BTreeSet<(BpfKind, u32)> {
    let directory = format!("/proc/{pid}/fdinfo");
    let files = fs::read_dir(directory).expect("the process runs").flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.path()).ok());
    let lines: Vec<String> = texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let id = |line: &String| {
        let (key, value) = line.split_once(':')?;
        let kind = match key {
            "prog_id" => BpfKind::Program,
            "map_id" => BpfKind::Map,
            "link_id" => BpfKind::Link,
            _ => return None,
        };
        Some((kind, value.trim().parse().ok()?))
    };
    lines.iter().filter_map(id).collect()
}

fn no_program_and_no_route_is_left(backend: Backend) {
    // What makes `run` pin its links.
    let mut world = World::start(backend, "{ on_failure: refuse }");
    let pid = world.exec.id();
    let objects = bpf_objects(pid);
    for kind in [BpfKind::Program, BpfKind::Map, BpfKind::Link] {
        assert!(
            objects.iter().any(|(of, _)| *of == kind),
            "it has a {kind:?}"
        );
    }
    let exists = |&(kind, id): &(BpfKind, u32)| os::has_bpf_object(kind, id).expect("root may ask");
    assert!(objects.iter().all(exists));
    let name = format!("ambassador-exec-{pid}");
    let group = cgroup::find(&name).expect("its cgroup");
    let id = group.metadata().expect("it is there").ino();
    world.kill();
    eventually("its BPF objects are gone", SOON, || {
        !objects.iter().any(exists)
    });
    let pins = fs::read_dir("/sys/fs/bpf/ambassador").into_iter().flatten();
    let pinned: Vec<_> = pins
        .flatten()
        .filter(|pin| {
            pin.file_name()
                .to_string_lossy()
                .starts_with(&format!("{id:x}_"))
        })
        .collect();
    assert!(pinned.is_empty(), "{pinned:?}");
}

fn no_iptables_rule_is_left(backend: Backend) {
    let mut world = World::start(backend, "{ mode: iptables }");
    assert!(network(&world.namespace).contains("REDIRECT"));
    world.kill();
}
