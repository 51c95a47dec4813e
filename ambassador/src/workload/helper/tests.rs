//! The helper's loop on a thread of the test, in namespaces and cgroups of
//! its own.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::serve::serve_on;
use super::*;
use crate::workload::{BindSpec, Family, Reach, SocketStock, cgroup};

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

/// A helper that is a thread of the test.
pub(crate) fn on_a_thread() -> (Helper, std::thread::JoinHandle<io::Result<()>>) {
    let (ours, theirs) = descriptors::pair().unwrap();
    let duties = Duties {
        loader: "--help",
        install_iptables: |_, rules| Err(io::Error::other(format!("no {rules}"))),
        remove_iptables: |netns, owner| note("iptables", netns, owner),
        remove_token_prefix: |netns, port| note("token prefix", netns, port.into()),
    };
    let served = std::thread::spawn(move || serve_on(theirs.as_fd(), duties));
    let helper = Helper {
        channel: ours,
        turn: Mutex::default(),
        process: Mutex::new(None),
    };
    (helper, served)
}

fn spec(count: u16) -> BindSpec {
    BindSpec {
        addr: "127.0.0.1:0".parse().unwrap(),
        count,
        v6_only: false,
        transparent: false,
        reach: Reach::Anywhere,
    }
}

#[test]
fn listeners_and_sockets_are_made_in_the_namespace() {
    let netns = Named::new("sockets");
    let (helper, served) = on_a_thread();
    let path = Path::new("/run/netns").join(&netns.0);
    assert_eq!(helper.netns(&path).unwrap(), netns.open());
    assert!(helper.netns(Path::new("/etc/passwd")).is_err());
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

    let stock = SocketStock::remote(helper.into(), netns.open(), Some(7));
    for _ in 0..10 {
        let socket = TcpStream::from(stock.take(Family::V4).unwrap());
        let inode =
            fs::read_link(format!("/proc/self/fd/{}", AsRawFd::as_raw_fd(&socket))).unwrap();
        assert!(inode.to_str().unwrap().starts_with("socket:"));
    }
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
    let error = helper.install_iptables(&own, "rules".into()).unwrap_err();
    assert_eq!(error.to_string(), "no \"rules\"");
    // The conversation goes on after a failure.
    assert_eq!(helper.listener(&own, &spec(1)).unwrap().len(), 1);
    drop(helper);
    served.join().unwrap().unwrap();
}

#[test]
fn only_a_cgroup_of_exec_is_removed() {
    let parent = cgroup::own_cgroup().unwrap();
    let name = format!("{}amb-B-{}", cgroup::EXEC_PREFIX, std::process::id());
    let group = cgroup::Cgroup::create(&parent, &name).unwrap();
    let (helper, served) = on_a_thread();
    helper.remove_cgroup_at_end(group.path()).unwrap();
    assert!(helper.remove_cgroup_at_end(&parent).is_err());
    drop(helper);
    served.join().unwrap().unwrap();
    assert!(!group.path().exists());
}

#[test]
fn what_runs_in_a_cgroup_is_ended_with_it() {
    let parent = cgroup::own_cgroup().unwrap();
    let group =
        cgroup::Cgroup::create(&parent, &format!("amb-B-end-{}", std::process::id())).unwrap();
    let mut deaf = Command::new("sh")
        .args([
            "-c",
            "trap '' TERM; echo ready; while :; do sleep 0.1; done",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 5];
    io::Read::read_exact(deaf.stdout.as_mut().unwrap(), &mut ready).unwrap();
    fs::write(group.path().join("cgroup.procs"), deaf.id().to_string()).unwrap();
    end_cgroup(group.path(), Duration::from_millis(50)).unwrap();
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
    helper
        .remove_iptables_at_end(&netns.open(), 4_000_001)
        .unwrap();
    helper
        .remove_token_prefix_at_end(&Netns::own().unwrap(), 4_001)
        .unwrap();
    assert!(UNDONE.lock().unwrap().is_empty());
    helper.finish().unwrap();
    served.join().unwrap().unwrap();
    let late = helper.remove_iptables_at_end(&netns.open(), 1).unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::BrokenPipe);
    let expected = ["token prefix 4001 here", "iptables 4000001 there"];
    assert_eq!(*UNDONE.lock().unwrap(), expected);
}
