//! Where captured connects say they were going, in every family and workload.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::Ipv6Addr;
use std::thread;

use ambassador::testing::capture;
use ambassador::testing::capture::Accepted;
use ambassador::testing::capture::settings::{Claims, OnFailure};
use ambassador_ebpf::Verdict;

use crate::CLIENT;
use crate::fixture::Cgroup;
use crate::fixture::Netns;
use crate::fixture::Proxy;
use crate::fixture::own_path;
use crate::fixture::settings;

pub fn an_unmodified_curl_is_captured() {
    let cgroup = Cgroup::new("curl");
    let proxy = Proxy::beating(&settings(&[&cgroup]));
    thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let (mut stream, accepted) = proxy.accepted();
            let mut request = [0; 1024];
            let n = stream.read(&mut request).expect("a request");
            stream
                .write_all(
                    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
                )
                .expect("an answer");
            (
                String::from_utf8_lossy(&request[..n]).into_owned(),
                accepted,
            )
        });
        let output = cgroup.run("curl", &["-sS", "-m", "5", "http://10.1.2.3/path"]);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "hello",
            "{output:?}"
        );
        let (request, accepted) = answer.join().expect("served");
        assert!(request.starts_with("GET /path HTTP/1.1\r\n"), "{request}");
        let Accepted::Token(token) = accepted else {
            panic!("{accepted:?}")
        };
        assert_eq!(token.destination.to_string(), "10.1.2.3:80");
    });
    assert_eq!(proxy.count(Verdict::Captured), 1);
    assert_eq!(
        proxy.capture.table().slots_used(),
        2,
        "the canary's and curl's"
    );
    assert!(proxy.capture.guarded().is_ok());
    proxy.clean();
}

pub fn peers_are_shown_as_the_application_named_them() {
    let cgroup = Cgroup::new("peer");
    let proxy = Proxy::beating(&settings(&[&cgroup]));
    for (destination, original) in [
        ("10.1.2.3:80", "10.1.2.3:80"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ("[::ffff:10.1.2.3]:80", "10.1.2.3:80"),
        ("10.1.2.3:81", "10.1.2.3:81"),
    ] {
        assert_eq!(cgroup.connect(destination), destination);
        assert_eq!(proxy.destination(0), original);
    }
    assert_eq!(cgroup.connect_as("10.1.2.3:80", "mptcp"), "10.1.2.3:80");
    assert_eq!(proxy.destination(0), "10.1.2.3:80");
    assert_eq!(
        proxy.capture.table().slots_used(),
        4,
        "a mapped one is the same"
    );
    assert!(proxy.found.iter().all(|found| found.no_v6.is_none()));
    proxy.clean();
}

pub fn workloads_share_a_table_and_nothing_else() {
    let (one, two) = (Cgroup::new("one"), Cgroup::new("two"));
    let proxy = Proxy::beating(&settings(&[&one, &two]));
    assert_eq!(one.connect("10.1.2.3:80"), "10.1.2.3:80");
    assert_eq!(proxy.destination(0), "10.1.2.3:80");
    assert_eq!(two.connect("10.1.2.3:80"), "10.1.2.3:80");
    assert_eq!(proxy.destination(1), "10.1.2.3:80");
    assert_eq!(proxy.capture.table().slots_used(), 3);
    proxy.clean();
}

pub fn a_workload_may_live_in_another_namespace() {
    let cgroup = Cgroup::new("netns");
    let netns = Netns::new();
    let mut settings = settings(&[&cgroup]);
    settings.targets[0].netns = Some(netns.path());
    let proxy = Proxy::on(netns.listen(), &settings, &Claims::default(), false);
    proxy.beat();
    let enter = format!("--net={}", netns.path().display());
    for destination in ["10.1.2.3:80", "[2001:db8::1]:80"] {
        let output = cgroup.run("nsenter", &[&enter, &own_path(), CLIENT, destination, ""]);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            destination,
            "{output:?}"
        );
        assert_eq!(proxy.destination(0), destination);
    }
    proxy.capture.canary().expect("captured");

    // The prefix is local for what is made here and for nobody else.
    let run = |line: &str| netns.run(&line.split(' ').collect::<Vec<_>>());
    assert!(
        run("ip link add va type veth peer name vb")
            .status
            .success()
    );
    assert!(run("ip link set va up").status.success());
    assert!(
        run("ip -6 addr add fd00::1/64 dev va nodad")
            .status
            .success()
    );
    let token = Ipv6Addr::from(u128::from(capture::token_prefix(proxy.port())) + 1);
    let local = run(&format!("ip -6 route get {token}"));
    assert!(
        String::from_utf8_lossy(&local.stdout).contains("local"),
        "{local:?}"
    );
    let foreign = run(&format!("ip -6 route get {token} from fd00::2 iif va"));
    assert!(
        !String::from_utf8_lossy(&foreign.stdout).contains("local"),
        "{foreign:?}"
    );

    let port = proxy.port();
    drop(proxy.capture);
    let inside = fs::File::open(netns.path()).expect("a namespace");
    capture::unroute(Some(&inside), port).expect("the token prefix is removed");
    let rules = run("ip -6 rule").stdout;
    assert!(!String::from_utf8_lossy(&rules).contains("fd7f:656d:6261"));
}

pub fn racing_clients_agree_on_every_slot() {
    let cgroup = Cgroup::new("race");
    let mut settings = settings(&[&cgroup]);
    settings.on_failure = OnFailure::Refuse;
    // Without a heartbeat each connect is interned, then refused: fast.
    let proxy = Proxy::start(&settings, &Claims::default(), false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let flooded = cgroup.run(&own_path(), &[CLIENT, "2000", "flood"]);
                assert!(flooded.status.success(), "{flooded:?}");
            });
        }
    });
    let used = proxy.capture.table().slots_used();
    assert_eq!(used, 2_001, "who comes second gives its slot back");
    proxy.beat();
    for last in (0..=250).step_by(25) {
        let destination = format!("10.8.7.{last}:80");
        assert_eq!(cgroup.connect(&destination), destination);
        assert_eq!(proxy.destination(0), destination);
    }
    assert_eq!(
        proxy.capture.table().slots_used(),
        used + 2,
        "0 to 207 had theirs"
    );
    proxy.clean();
}
