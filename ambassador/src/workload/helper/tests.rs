//! The helper's loop on a thread of the test, in namespaces and cgroups of
//! its own.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::serve::serve_on;
use super::undo::end_cgroup;
use super::*;
use crate::workload::sockets::PROXY_MARK;
use crate::workload::{BindSpec, Family, Reach, SocketStock, Supply, cgroup};

mod slow;
mod taken_over;

/// A network namespace with a name, removed at the end.
struct Named(String);

impl Named {
    fn new(what: &str) -> Self {
        let name = format!("amb-B-{what}-{}", std::process::id());
        let made = Command::new("ip")
            .args(["netns", "add", &name])
            .status()
            .unwrap();
        assert!(made.success(), "ip netns add needs root");
        let this = Self(name);
        this.open()
            .run(|| {
                let up = Command::new("ip")
                    .args(["link", "set", "lo", "up"])
                    .status()
                    .unwrap();
                assert!(up.success());
            })
            .unwrap();
        this
    }

    fn open(&self) -> Netns {
        Netns::open(Path::new("/run/netns").join(&self.0).as_path()).unwrap()
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// What the undoing of the tests was asked to remove.
static UNDONE: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn note(what: &str, netns: &Netns, number: u32) -> io::Result<()> {
    let place = if netns.is_own() { "here" } else { "there" };
    UNDONE
        .lock()
        .unwrap()
        .push(format!("{what} {number} {place}"));
    Ok(())
}

/// The name of the cgroup that a helper makes holds our pid, so tests that have
/// one made take turns.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A helper that is a thread of the test.
pub(crate) fn on_a_thread() -> (Helper, std::thread::JoinHandle<io::Result<()>>) {
    let (ours, theirs) = descriptors::pair().unwrap();
    let duties = Duties {
        loader: "--help",
        targets_in: |text| {
            let lines = text.lines().filter(|line| !line.is_empty());
            Ok(lines.map(target).collect())
        },
        named_by_iptables: |rules| {
            let cgroups = serde_json::from_value(rules["cgroups"].clone())?;
            Ok(NamedByRules {
                cgroups,
                proxy_port: 4_001,
                mark: rules["mark"].as_u64().map(|mark| mark as u32),
            })
        },
        install_iptables: |_, owner, rules| Err(io::Error::other(format!("no {rules} of {owner}"))),
        remove_iptables: |netns, owner| note("iptables", netns, owner),
        remove_token_prefix: |netns, port| note("token prefix", netns, port.into()),
    };
    let owner = std::process::id();
    let served = std::thread::spawn(move || serve_on(theirs.as_fd(), None, duties, owner));
    (Helper::over(ours, None), served)
}

/// A cgroup in the namespace of the helper.
fn target(cgroup: &str) -> Target {
    Target {
        cgroup: cgroup.into(),
        netns: None,
    }
}

fn register(helper: &Helper, targets: Vec<Target>) {
    let registration = Registration {
        targets,
        config: None,
    };
    helper.register(&registration).unwrap();
}

fn spec(count: u16) -> BindSpec {
    BindSpec {
        addr: "127.0.0.1:0".parse().unwrap(),
        count,
        v6_only: false,
        transparent: false,
        reach: Reach::Loopback,
    }
}

#[test]
fn listeners_and_sockets_are_made_in_the_namespace() {
    let netns = Named::new("sockets");
    let (helper, served) = on_a_thread();
    let path = Path::new("/run/netns").join(&netns.0);
    register(
        &helper,
        vec![Target {
            netns: Some(path.clone()),
            ..target("/sys/fs/cgroup/a")
        }],
    );
    assert_eq!(helper.netns(&path).unwrap(), netns.open());
    // More than one datagram of descriptors.
    let listeners: Vec<TcpListener> = helper
        .listener(&netns.open(), &spec(descriptors::FDS_MAX as u16 + 1))
        .unwrap()
        .into_iter()
        .map(TcpListener::from)
        .collect();
    assert_eq!(listeners.len(), descriptors::FDS_MAX + 1);
    let addr: SocketAddr = listeners[0].local_addr().unwrap();
    assert!(listeners.iter().all(|l| l.local_addr().unwrap() == addr));

    assert!(
        TcpStream::connect(addr).is_err(),
        "nothing listens in our own namespace"
    );
    netns
        .open()
        .run(|| TcpStream::connect(addr).unwrap())
        .unwrap();

    let supply = std::sync::Arc::new(Supply::new(&helper.into()).unwrap());
    supply.start().unwrap();
    let stock = SocketStock::remote(&supply, &netns.open(), Some(PROXY_MARK)).unwrap();
    for _ in 0..100 {
        let socket = slow::take_in_the_end(&stock).unwrap();
        let inode = fs::read_link(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&socket)
        ))
        .unwrap();
        assert!(inode.to_str().unwrap().starts_with("socket:"));
    }
    drop(supply);
    drop(stock);
    served.join().unwrap().unwrap();
}

#[test]
fn a_busy_port_is_an_error_with_its_errno() {
    let (helper, served) = on_a_thread();
    let own = Netns::own().unwrap();
    let first = TcpListener::from(helper.listener(&own, &spec(2)).unwrap().remove(0));
    let busy = BindSpec {
        addr: first.local_addr().unwrap(),
        ..spec(2)
    };
    let error = helper.listener(&own, &busy).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    // One that is no errno comes back in words.
    let rules = serde_json::json!({ "cgroups": [] });
    let error = helper.install_iptables(&own, rules).unwrap_err();
    let expected = format!("no {{\"cgroups\":[]}} of {}", std::process::id());
    assert_eq!(error.to_string(), expected);
    // The conversation goes on after a failure.
    assert_eq!(helper.listener(&own, &spec(1)).unwrap().len(), 1);
    drop(helper);
    served.join().unwrap().unwrap();
}

#[test]
fn what_runs_in_a_cgroup_is_ended_with_it() {
    let parent = cgroup::own_cgroup().unwrap();
    let group = Cgroup::create(&parent, &format!("amb-B-end-{}", std::process::id())).unwrap();
    let mut deaf = Command::new("sh")
        .args([
            "-c",
            "trap '' TERM; echo ready; while :; do sleep 0.1; done",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 5];
    Read::read_exact(deaf.stdout.as_mut().unwrap(), &mut ready).unwrap();
    fs::write(group.path().join("cgroup.procs"), deaf.id().to_string()).unwrap();
    end_cgroup(&group, Duration::from_millis(50)).unwrap();
    assert!(!group.path().exists());
    let status = deaf.wait().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(libc::SIGKILL)
    );
}

#[test]
fn what_was_set_up_is_undone_in_reverse_order_when_the_proxy_is_gone() {
    let netns = Named::new("undo");
    let (helper, served) = on_a_thread();
    let path = Path::new("/run/netns").join(&netns.0);
    register(
        &helper,
        vec![Target {
            netns: Some(path.clone()),
            ..target("/sys/fs/cgroup/a")
        }],
    );
    helper.netns(&path).unwrap();
    helper.remove_iptables_at_end(&netns.open()).unwrap();
    // Twice said is once done.
    helper.remove_iptables_at_end(&netns.open()).unwrap();
    helper
        .remove_token_prefix_at_end(&Netns::own().unwrap(), 4_001)
        .unwrap();
    assert!(UNDONE.lock().unwrap().is_empty());
    helper.finish().unwrap();
    served.join().unwrap().unwrap();
    let late = helper.remove_iptables_at_end(&netns.open()).unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::BrokenPipe);
    let rules = format!("iptables {} there", std::process::id());
    assert_eq!(*UNDONE.lock().unwrap(), ["token prefix 4001 here", &rules]);
}
