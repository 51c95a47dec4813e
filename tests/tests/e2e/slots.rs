//! Slots of the token table: whom a scan leaves without, and how they come back.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use ambassador_tests::{Backend, Cgroup, Netns, Proxy, eventually, on_both_backends, program};

use crate::capture_scope::{inside, witness, world};

on_both_backends!(
    scans_leave_other_workloads_what_they_ask_for,
    a_workload_without_slots_is_told_of_in_the_log_and_by_readyz,
);

const SOON: Duration = Duration::from_secs(10);

/// What one workload gets of the 12,288 slots that are not kept for claims.
const HALF: u32 = 6_144;

/// Connects to as many addresses and ports as it is told, and does not wait.
const SCAN: &str = "\
import socket, sys
def connect(to):
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(to)
    client.close()
net, addresses, first, last = sys.argv[1], *map(int, sys.argv[2:])
for number in range(addresses):
    for port in range(first, last):
        connect((f'{net}.{number >> 8}.{number & 255}', port))
";

fn python(namespace: &Netns, cgroup: &Cgroup, script: &str) -> Command {
    let [nsenter, entered, python] = namespace.wrap(program::PYTHON);
    let mut command = cgroup.command(nsenter);
    command.args([entered, python, "-c".into(), script.into()]);
    command
}

/// Connects to so many addresses of 10.N.0.0/16, at each of these ports.
fn scan(namespace: &Netns, cgroup: &Cgroup, net: &str, addresses: u32, ports: (u16, u16)) {
    let mut command = python(namespace, cgroup, SCAN);
    let (first, last) = (ports.0.to_string(), ports.1.to_string());
    program::succeed(command.args([net, &addresses.to_string(), &first, &last]));
}

fn ask(namespace: &Netns, cgroup: &Cgroup, url: &str) -> String {
    let [nsenter, entered, curl] = namespace.wrap("curl");
    let mut command = cgroup.command(nsenter);
    // Short: a proxy that is stopped accepts in the kernel, and no further.
    let output = program::output(command.args([&entered, &curl, "-sS", "-m1", url]));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Scans while the proxy hangs: nobody asks it, and destinations get their slots
/// all the same, much faster.
fn while_it_hangs(
    proxy: &Proxy,
    (namespace, cgroup): (&Netns, &Cgroup),
    url: &str,
    scan: impl Fn(),
) {
    proxy.signal(libc::SIGSTOP);
    eventually("it is taken for hung", SOON, || {
        ask(namespace, cgroup, url) == "direct"
    });
    scan();
    proxy.signal(libc::SIGCONT);
    eventually("it is back", SOON, || {
        ask(namespace, cgroup, url) == "proxied"
    });
}

fn over_quota(proxy: &Proxy) -> f64 {
    let over_quota = [("verdict", "over_quota")];
    proxy.metric("ambassador_captured_connects_total", &over_quota)
}

fn scans_leave_other_workloads_what_they_ask_for(backend: Backend) {
    let namespace = world(&["10.1.0.0/16", "10.9.0.0/16"]);
    let _server = witness(&namespace);
    let (scanner, other) = (Cgroup::new(), Cgroup::new());
    let netns = namespace.path();
    let target = |cgroup: &Cgroup| {
        let (path, netns) = (cgroup.path().display(), netns.display());
        format!("{{ path: {path}, netns: {netns} }}")
    };
    let proxy = Proxy::start(
        backend,
        &format!(
            "capture: {{ cgroups: [{}, {}] }}\n\
             upstreams: {{ web: {{ hosts: [10.9.0.0/16], endpoints: [10.1.0.1:80] }} }}\n",
            target(&scanner),
            target(&other)
        ),
    );
    let early = "http://10.1.2.1/";
    while_it_hangs(&proxy, (&namespace, &other), early, || {
        // A /24 at 50 ports, and every port of one address; the same of what an
        // upstream claims.
        for net in ["10.1", "10.9"] {
            scan(&namespace, &scanner, net, 256, (1_000, 1_050));
            scan(&namespace, &scanner, net, 1, (1, u16::MAX));
        }
    });
    assert!(over_quota(&proxy) > 50_000.0, "{}", over_quota(&proxy));
    let slots = proxy.metric("ambassador_capture_slots", &[]);
    assert!(slots < 10_500.0, "{slots} of 16384");
    for url in [
        "http://10.1.2.2/",
        "http://10.1.77.3/",
        "http://10.9.200.1/",
        early,
    ] {
        assert_eq!(ask(&namespace, &other, url), "proxied", "{url}");
    }
    assert_eq!(
        ask(&namespace, &scanner, "http://10.1.2.3/"),
        "direct",
        "the scanner has had its share"
    );
    assert_eq!(
        ask(&namespace, &scanner, "http://10.9.0.0:1049/"),
        "proxied",
        "and uses it"
    );
    let full = [("verdict", "table_full")];
    let full = proxy.metric("ambassador_captured_connects_total", &full);
    assert_eq!(full, 0.0);
}

fn a_workload_without_slots_is_told_of_in_the_log_and_by_readyz(backend: Backend) {
    let namespace = world(&["10.1.0.0/16"]);
    let _server = witness(&namespace);
    let cgroup = Cgroup::new();
    let proxy = inside(backend, &namespace, &cgroup, "");
    let url = "http://10.1.2.3/";
    assert_eq!(ask(&namespace, &cgroup, url), "proxied");
    assert_eq!(proxy.admin_get("/readyz"), "ok\n");
    while_it_hangs(&proxy, (&namespace, &cgroup), url, || {
        scan(&namespace, &cgroup, "10.1", HALF, (81, 82));
    });
    let before = over_quota(&proxy);
    // One was asked before it hung.
    assert_eq!(before, 1.0);
    let said = "the token table has no slot";
    // A shard that was stopped may still have much to do.
    let ready = |text: &str| {
        proxy.admin_status("/readyz") == Some(200) && {
            let body = proxy.admin_get("/readyz");
            body.starts_with("ok\n") && body.contains(text)
        }
    };
    let holds = format!("{} holds {HALF} of 16384", cgroup.path().display());
    eventually("it is said", SOON, || {
        ready(said) && ready(&holds) && proxy.log().contains(said)
    });
    scan(&namespace, &cgroup, "10.1", 10, (90, 91));
    eventually("what came since is counted", SOON, || {
        ready(&format!("{} connects", over_quota(&proxy)))
    });
    assert_eq!(over_quota(&proxy), before + 10.0);
    assert_eq!(proxy.log().matches(said).count(), 1, "once a minute");
}

/// With real time, so on one backend: neither has anything to do with it.
#[test]
fn slots_come_back_after_a_scan() {
    let namespace = world(&["10.1.0.0/16"]);
    let _server = witness(&namespace);
    let cgroup = Cgroup::new();
    let proxy = inside(Backend::Ring, &namespace, &cgroup, "");
    // This connection outlives its slot.
    let mut long = python(&namespace, &cgroup, LONG);
    let mut long = Talk::start(&mut long);
    assert_eq!(long.ask("/"), "proxied 10.1.2.3");
    let url = "http://10.1.2.4/";
    while_it_hangs(&proxy, (&namespace, &cgroup), url, || {
        scan(&namespace, &cgroup, "10.1", HALF, (81, 82));
    });
    let slots = || proxy.metric("ambassador_capture_slots", &[]);
    assert!(slots() >= f64::from(HALF), "{}", slots());
    let scanned = Instant::now();
    let limit = Duration::from_secs(180);
    eventually("slots are taken back", limit, || slots() <= 2.0);
    assert!(
        scanned.elapsed() > Duration::from_secs(60),
        "long after whoever was on his way has come: {:?}",
        scanned.elapsed()
    );
    let reclaimed = proxy.metric("ambassador_capture_slots_reclaimed_total", &[]);
    assert!(reclaimed >= f64::from(HALF), "{reclaimed}");
    assert_eq!(ask(&namespace, &cgroup, "http://10.1.77.77/"), "proxied");
    assert_eq!(long.ask("/again"), "proxied 10.1.2.3");
}

/// For each line that it reads: asks over one connection, and prints the answer
/// and who it thinks its peer is.
const LONG: &str = "\
import http.client, sys
client = http.client.HTTPConnection('10.1.2.3')
for line in sys.stdin:
    client.request('GET', line.strip())
    answer = client.getresponse().read().decode()
    print(answer, client.sock.getpeername()[0], flush=True)
";

/// A program that answers a line with a line.
struct Talk {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Talk {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("it starts");
        let says = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, says }
    }

    fn ask(&mut self, line: &str) -> String {
        let input = self.child.stdin.as_mut().expect("piped");
        writeln!(input, "{line}").expect("it listens");
        let mut answer = String::new();
        self.says.read_line(&mut answer).expect("it answers");
        answer.trim().to_owned()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
