//! Who may use a token, and whose connects are left alone.

use std::fs;
use std::io;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use ambassador::testing::capture;
use ambassador::testing::capture::AttachReport;
use ambassador::testing::capture::settings::OnFailure;
use ambassador_ebpf::Verdict;

use crate::SECOND;
use crate::fixture::Cgroup;
use crate::fixture::Proxy;
use crate::fixture::cgroup2;
use crate::fixture::own_path;
use crate::fixture::settings;

pub fn tokens_cannot_be_borrowed() {
    let cgroup = Cgroup::new("token");
    let stranger = Cgroup::new("stranger");
    let proxy = Proxy::beating(&settings(&[&cgroup]));
    assert_eq!(cgroup.connect("10.1.2.3:80"), "10.1.2.3:80");
    let local = proxy.accepted().0.local_addr().expect("an address");
    let token = SocketAddr::new(local.ip().to_canonical(), local.port());
    let v6 = Ipv6Addr::from(u128::from(capture::token_prefix(proxy.port())) + 1);
    for token in [token, SocketAddr::new(IpAddr::V6(v6), proxy.port())] {
        let token = token.to_string();
        assert_eq!(
            cgroup.connect(&token),
            "ConnectionRefused",
            "forged: {token}"
        );
        assert_eq!(
            stranger.connect(&token),
            "ConnectionRefused",
            "not captured: {token}"
        );
    }
    assert_eq!(proxy.count(Verdict::ForgedToken), 4);
    let other_port = format!("127.64.0.1:{}", proxy.port() ^ 1);
    stranger.connect(&other_port);
    assert_eq!(
        proxy.count(Verdict::ForgedToken),
        4,
        "only at the proxy's port"
    );
    proxy.clean();
}

pub fn the_proxy_itself_is_left_alone() {
    let cgroup = Cgroup::new("own");
    let (proxy, direct) = proxy_inside(&cgroup);
    proxy.beat();
    let peer = connect_from(&cgroup, direct);
    assert_eq!(peer.expect("connected").ip(), direct.ip());
    assert_eq!(proxy.count(Verdict::Own), 1);
    assert_eq!(proxy.count(Verdict::Captured), 0);
    // One that takes no more connections may still make some.
    proxy.capture.table().heartbeat(0).stop();
    connect_from(&cgroup, direct).expect("connected");
    assert_eq!(proxy.count(Verdict::Own), 2);
    proxy.clean();
}

/// Its process number is given out again: whoever gets it is captured.
pub fn the_exemption_of_the_proxy_ends_with_it() {
    let cgroup = Cgroup::new("late");
    let (proxy, direct) = proxy_inside(&cgroup);
    proxy.beat();
    connect_from(&cgroup, direct).expect("connected");
    assert_eq!(proxy.count(Verdict::Own), 1);
    let deadline = Instant::now() + Duration::from_secs(10);
    // Nobody beats any more. This process has the number of the proxy.
    while connect_from(&cgroup, direct).is_ok() {
        assert!(Instant::now() < deadline, "it is exempt for ever");
        thread::sleep(Duration::from_millis(50));
    }
    let own = proxy.count(Verdict::Own);
    let error = connect_from(&cgroup, direct).expect_err("on_failure: refuse");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(proxy.count(Verdict::Own), own);
    proxy.beat();
    connect_from(&cgroup, direct).expect("it is back");
    assert_eq!(proxy.count(Verdict::Own), own + 1);
    proxy.clean();
}

/// A proxy that beats, and a listener that it would capture connects to.
fn proxy_inside(cgroup: &Cgroup) -> (Proxy, SocketAddr) {
    let direct = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = direct.local_addr().expect("bound");
    // It listens for as long as the process lives.
    std::mem::forget(direct);
    let mut settings = settings(&[cgroup]);
    settings.include.cidrs = vec!["127.0.0.0/8".parse().expect("a net")];
    settings.on_failure = OnFailure::Refuse;
    (Proxy::beating(&settings), address)
}

/// Connects from inside, and says from which address.
fn connect_from(cgroup: &Cgroup, to: SocketAddr) -> io::Result<SocketAddr> {
    let own = fs::read_to_string("/proc/self/cgroup").expect("/proc");
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .expect("a cgroup");
    let home = cgroup2().join(own).join("cgroup.procs");
    fs::write(cgroup.0.join("cgroup.procs"), "0").expect("joined");
    let peer = TcpStream::connect(to).and_then(|stream| stream.local_addr());
    fs::write(home, "0").expect("left");
    peer
}

pub fn of_two_proxies_the_first_captures_and_the_second_knows() {
    let cgroup = Cgroup::new("two");
    let first = Proxy::beating(&settings(&[&cgroup]));
    assert!(first.found[0].others.is_empty());
    let second = Command::new(own_path())
        .args([SECOND, cgroup.0.to_str().expect("UTF-8 path")])
        .output()
        .expect("runs");
    assert!(
        second.status.success(),
        "{}",
        String::from_utf8_lossy(&second.stderr)
    );
    // Its canaries, of its start and its test, and its client all came here.
    assert_eq!(first.destination(0), "192.0.2.1:9");
    assert_eq!(first.destination(0), "192.0.2.1:9");
    assert_eq!(first.destination(0), "10.1.2.3:80");
    first.capture.canary().expect("captured");
    first.clean();
}

pub fn second(cgroup: &str) -> ExitCode {
    let cgroup = std::mem::ManuallyDrop::new(Cgroup(PathBuf::from(cgroup)));
    let second = Proxy::beating(&settings(&[&cgroup]));
    let AttachReport { others, .. } = &second.found[0];
    assert!(
        others.iter().any(|program| program.name == "connect4"),
        "{others:?}"
    );
    let error = second.capture.canary().expect_err("captured by the first");
    assert!(error.contains("another program"), "{error}");
    assert_eq!(cgroup.connect("10.1.2.3:80"), "10.1.2.3:80");
    assert_eq!(second.count(Verdict::Captured), 0);
    second.clean();
    ExitCode::SUCCESS
}
