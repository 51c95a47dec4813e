//! Start, death and privileges of the proxy.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use ambassador::testing::capture;
use ambassador::testing::capture::Accepted;
use ambassador::testing::capture::CaptureError;
use ambassador::testing::capture::Options;
use ambassador::testing::capture::settings::Claims;
use ambassador::testing::capture::settings::OnFailure;
use ambassador::testing::capture::settings::Quic;
use ambassador::testing::route::settings::Unmatched;
use ambassador_ebpf::Verdict;

use crate::LOGGED;
use crate::UNPRIVILEGED;
use crate::fixture::Barred;
use crate::fixture::Cgroup;
use crate::fixture::Proxy;
use crate::fixture::own_path;
use crate::fixture::pinned;
use crate::fixture::pins_of;
use crate::fixture::settings;
use crate::fixture::start;
use crate::fixture::{no_program_is_left, programs_named};

pub fn a_dead_proxy_does_what_on_failure_says() {
    let cgroup = Cgroup::new("dead");
    let direct = TcpListener::bind("127.0.0.1:0").expect("a port");
    let direct = direct.local_addr().expect("bound").to_string();
    let mut settings = settings(&[&cgroup]);
    settings.include.cidrs = vec!["127.0.0.0/8".parse().expect("a net")];
    let proxy = Proxy::start(&settings, &Claims::default(), false);

    assert_eq!(cgroup.connect(&direct), direct, "no heartbeat: straight");
    assert_eq!(proxy.count(Verdict::ProxyDown), 1);
    settings.on_failure = OnFailure::Refuse;
    proxy.update(&settings, &Claims::default());
    assert_eq!(
        cgroup.connect(&direct),
        "ConnectionRefused",
        "no heartbeat: refused"
    );

    proxy.beat();
    assert_eq!(cgroup.connect(&direct), direct);
    assert_eq!(proxy.destination(0), direct);

    let port = proxy.port();
    drop(proxy.listener);
    proxy.capture.table().heartbeat(0).beat();
    assert_eq!(
        cgroup.connect(&direct),
        "ConnectionRefused",
        "no listener: refused"
    );
    drop(proxy.capture);
    assert_eq!(
        cgroup.connect(&direct),
        direct,
        "unpinned: detached with the proxy"
    );
    capture::unroute(None, port).expect("the token prefix is removed");
}

pub fn pinned_links_outlive_the_proxy() {
    let cgroup = Cgroup::new("pinned");
    let direct = TcpListener::bind("127.0.0.1:0").expect("a port");
    let direct = direct.local_addr().expect("bound").to_string();
    let mut settings = settings(&[&cgroup]);
    settings.include.cidrs = vec!["127.0.0.0/8".parse().expect("a net")];
    settings.on_failure = OnFailure::Refuse;
    let first = Proxy::start(&settings, &Claims::default(), true);
    let port = first.port();
    first.beat();
    assert_eq!(cgroup.connect(&direct), direct);
    drop(first);
    capture::unroute(None, port).expect("the token prefix is removed");
    assert_eq!(
        cgroup.connect(&direct),
        "ConnectionRefused",
        "still attached"
    );

    let second = Proxy::start(&settings, &Claims::default(), true);
    second.beat();
    assert_eq!(
        programs_named(&cgroup.0, "connect4"),
        1,
        "replaced, not added"
    );
    assert_eq!(cgroup.connect(&direct), direct);
    assert_eq!(second.destination(0), direct);
    second.clean();
    no_program_is_left(&cgroup);
    assert_eq!(cgroup.connect(&direct), direct);
}

pub fn pins_are_taken_over_or_removed() {
    let (cgroup, gone) = (Cgroup::new("taken"), Cgroup::new("gone"));
    let mut settings = settings(&[&cgroup, &gone]);
    settings.on_failure = OnFailure::Refuse;
    let first = Proxy::start(&settings, &Claims::default(), true);
    first.beat();
    let (kept, of_gone) = (pinned(&cgroup).expect("pins"), pinned(&gone).expect("pins"));
    let brief = Duration::from_secs(5);
    assert!(!kept.is_abandoned(brief) && !kept.is_gone());
    let port = first.port();
    drop(first);
    capture::unroute(None, port).expect("the token prefix is removed");
    assert!(kept.is_abandoned(Duration::ZERO));
    drop(gone);
    // The kernel lets go of a removed cgroup's programs in its own time.
    while !of_gone.is_gone() {
        thread::yield_now();
    }
    assert!(!kept.is_gone());

    // Another policy, and the one who pinned is dead: its programs must not
    // go on refusing beside ours.
    settings.targets.pop();
    settings.on_failure = OnFailure::Bypass;
    let second = Proxy::start(&settings, &Claims::default(), true);
    second.beat();
    assert_eq!(programs_named(&cgroup.0, "connect4"), 1);
    assert_eq!(cgroup.connect("10.1.2.3:80"), "10.1.2.3:80");
    assert_eq!(second.destination(0), "10.1.2.3:80");
    assert_eq!(pins_of(&cgroup), 0);
    let all = capture::all_pinned().expect("a list");
    assert!(!all.contains(&of_gone), "pruned at the start");
    second.clean();
}

pub fn the_canary_sings_only_when_captured() {
    let cgroup = Cgroup::new("canary");
    let proxy = Proxy::start(&settings(&[&cgroup]), &Claims::default(), false);
    assert!(proxy.capture.canary().is_err(), "no heartbeat yet");
    proxy.beat();
    for _ in 0..3 {
        proxy.capture.canary().expect("captured");
        assert_eq!(proxy.accepted().1, Accepted::Canary);
    }
    assert_eq!(proxy.count(Verdict::Canary), 3);
    let procs = fs::read_to_string(cgroup.0.join("cgroup.procs")).expect("readable");
    assert_eq!(procs, "", "nobody stays in the cgroup");
    proxy.clean();
}

pub fn a_start_that_fails_leaves_nothing() {
    let (cgroup, barred) = (Cgroup::new("fails"), Barred::new("bars"));
    let mut settings = settings(&[&cgroup, &barred.inner]);
    settings.on_failure = OnFailure::Refuse;
    let listener = TcpListener::bind("[::]:0").expect("a port");
    let options = Options {
        proxy_port: listener.local_addr().expect("bound").port(),
        shards: 1,
        may_pin: true,
        kernel_log: false,
    };
    match start(&settings, &Claims::default(), options) {
        Err(CaptureError::Step { what, .. }) => assert!(what.contains("making a socket"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(programs_named(&cgroup.0, "connect4"), 0);
    let prefix = capture::token_prefix(options.proxy_port).to_string();
    let rules = Command::new("ip")
        .args(["-6", "rule"])
        .output()
        .expect("ip runs");
    assert!(!String::from_utf8_lossy(&rules.stdout).contains(&prefix));
}

pub fn no_privilege_is_needed_after_the_start() {
    let cgroup = Cgroup::new("unprivileged");
    let output = Command::new(own_path())
        .args([UNPRIVILEGED, cgroup.0.to_str().expect("UTF-8 path")])
        .output()
        .expect("runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
}

pub fn unprivileged(cgroup: &str) -> ExitCode {
    let cgroup = std::mem::ManuallyDrop::new(Cgroup(PathBuf::from(cgroup)));
    let mut settings = settings(&[&cgroup]);
    let proxy = Proxy::start(&settings, &Claims::default(), false);
    let port = proxy.port();
    // Whoever outlives the proxy removes the prefix; here it is done before.
    // linux/capability.h: version 3, this process; no capability at all.
    let header = [0x2008_0522_u32, 0];
    let none = [0_u32; 6];
    capture::unroute(None, port).expect("the token prefix is removed");
    // SAFETY: both are live and of the sizes that version 3 has.
    #[expect(unsafe_code, reason = "capset() is not in std")]
    let dropped = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(dropped, 0);
    assert_eq!(
        capture::programs_at(&cgroup.0).map_err(|error| error.kind()),
        Err(ErrorKind::PermissionDenied),
        "no privilege is left"
    );

    proxy.beat();
    proxy.capture.canary().expect("captured");
    assert_eq!(proxy.accepted().1, Accepted::Canary);
    assert_eq!(proxy.count(Verdict::Canary), 1);
    assert_eq!(cgroup.connect("10.1.2.3:80"), "10.1.2.3:80");
    assert_eq!(proxy.destination(0), "10.1.2.3:80");
    settings.unmatched = Unmatched::Refuse;
    // The helper attaches where the proxy may not any more.
    settings.quic = Quic::Refuse;
    proxy.update(&settings, &Claims::default());
    assert_eq!(cgroup.connect("10.1.2.3:80"), "ConnectionRefused");
    let datagram = cgroup.connect_as("10.1.2.3:443", "udp");
    assert_eq!(datagram, "ConnectionRefused");
    drop(proxy.capture);
    ExitCode::SUCCESS
}

pub fn the_kernel_side_logs_on_request() {
    let cgroup = Cgroup::new("log");
    let output = Command::new(own_path())
        .args([LOGGED, cgroup.0.to_str().expect("UTF-8 path")])
        .output()
        .expect("runs");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert!(
        log.contains("kernel: connect4: captured as 127.64.0.1"),
        "{log}"
    );
}

pub fn logged(cgroup: &str) -> ExitCode {
    // The directory is the caller's to remove.
    let cgroup = std::mem::ManuallyDrop::new(Cgroup(PathBuf::from(cgroup)));
    let listener = TcpListener::bind("[::]:0").expect("a port");
    let options = Options {
        proxy_port: listener.local_addr().expect("bound").port(),
        shards: 1,
        may_pin: false,
        kernel_log: true,
    };
    let (capture, _) =
        start(&settings(&[&cgroup]), &Claims::default(), options).expect("capture starts");
    capture.table().heartbeat(0).beat();
    assert_eq!(cgroup.connect("10.1.2.3:80"), "10.1.2.3:80");
    drop(capture);
    capture::unroute(None, options.proxy_port).expect("the token prefix is removed");
    ExitCode::SUCCESS
}
