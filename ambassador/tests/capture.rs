//! Capture on the running kernel: real programs at real hooks, in cgroups of
//! the test's own. Needs root, cgroup2 and a binary built with the BPF object
//! (`cargo xtask test`); says so and fails without.
//!
//! The test is its own main, because the process that loads the programs and
//! the clients in the cgroups are this binary too.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::Duration;
use std::{env, fs, process, thread};

use ambassador::capture::settings::{Claims, OnFailure, Quic, Scope, Settings, Target};
use ambassador::capture::{self, Accepted, Capture, CaptureError, Options};
use ambassador::route::settings::Unmatched;
use ambassador_ebpf::Verdict;

/// Runs as a client in a cgroup: connects, prints its peer or the error.
const CLIENT: &str = "client";
/// Runs as a second proxy on a cgroup that has one.
const SECOND: &str = "second";
/// Runs as a proxy that gives up its capabilities once it has started.
const UNPRIVILEGED: &str = "unprivileged";
/// Runs as a proxy that has one connect captured, with the kernel's log on.
const LOGGED: &str = "logged";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().collect();
    match args.get(1).map(String::as_str) {
        Some(capture::LOADER_COMMAND) => return capture::loader_main(),
        Some(CLIENT) => return client(&args[2], &args[3]),
        Some(SECOND) => return second(&args[2]),
        Some(UNPRIVILEGED) => return unprivileged(&args[2]),
        Some(LOGGED) => return logged(&args[2]),
        _ => {}
    }
    if !capture::built_with_capture() {
        eprintln!("capture tests need the BPF object: run `cargo xtask test`");
        return ExitCode::FAILURE;
    }
    let tests: &[(&str, fn())] = &[
        (
            "an_unmodified_curl_is_captured",
            an_unmodified_curl_is_captured,
        ),
        (
            "peers_are_shown_as_the_application_named_them",
            peers_are_shown_as_the_application_named_them,
        ),
        (
            "rules_decide_and_are_replaced_at_once",
            rules_decide_and_are_replaced_at_once,
        ),
        (
            "a_dead_proxy_does_what_on_failure_says",
            a_dead_proxy_does_what_on_failure_says,
        ),
        ("tokens_cannot_be_borrowed", tokens_cannot_be_borrowed),
        (
            "the_canary_sings_only_when_captured",
            the_canary_sings_only_when_captured,
        ),
        (
            "the_proxy_itself_is_left_alone",
            the_proxy_itself_is_left_alone,
        ),
        (
            "a_full_table_keeps_a_quarter_for_claims",
            a_full_table_keeps_a_quarter_for_claims,
        ),
        (
            "sockets_bound_to_a_device_do_what_on_failure_says",
            sockets_bound_to_a_device_do_what_on_failure_says,
        ),
        ("quic_is_refused_on_request", quic_is_refused_on_request),
        (
            "a_workload_may_live_in_another_namespace",
            a_workload_may_live_in_another_namespace,
        ),
        (
            "of_two_proxies_the_first_captures_and_the_second_knows",
            of_two_proxies_the_first_captures_and_the_second_knows,
        ),
        (
            "no_privilege_is_needed_after_the_start",
            no_privilege_is_needed_after_the_start,
        ),
        (
            "the_kernel_side_logs_on_request",
            the_kernel_side_logs_on_request,
        ),
        (
            "a_start_that_fails_leaves_nothing",
            a_start_that_fails_leaves_nothing,
        ),
        (
            "workloads_share_a_table_and_nothing_else",
            workloads_share_a_table_and_nothing_else,
        ),
        (
            "pinned_links_outlive_the_proxy",
            pinned_links_outlive_the_proxy,
        ),
    ];
    let only = args.iter().skip(1).find(|arg| !arg.starts_with('-'));
    let mut failed = 0;
    for (name, test) in tests {
        if only.is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    ExitCode::from(u8::from(failed > 0))
}

fn client(destination: &str, how: &str) -> ExitCode {
    if how == "flood" {
        // Every connect is refused at once; what counts is what it interned.
        let count: u32 = destination.parse().expect("a number");
        for i in 0..count {
            let ip = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 8, 0, 0)) + i);
            let error = TcpStream::connect((ip, 80))
                .expect_err("nobody there")
                .kind();
            assert_eq!(error, ErrorKind::ConnectionRefused);
        }
        return ExitCode::SUCCESS;
    }
    let shown = connect_as(destination, how).map_or_else(
        |error| format!("{:?}", error.kind()),
        |peer| peer.to_string(),
    );
    println!("{shown}");
    ExitCode::SUCCESS
}

fn connect_as(destination: &str, how: &str) -> std::io::Result<SocketAddr> {
    let destination: SocketAddr = destination.parse().expect("an address");
    match how {
        "udp" => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(destination)?;
            socket.peer_addr()
        }
        "udp-send" => {
            UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", destination)?;
            Ok(destination)
        }
        "" => TcpStream::connect_timeout(&destination, Duration::from_millis(300))?.peer_addr(),
        device => connect_through(device, destination),
    }
}

/// A connect bound to a device; never blocks.
fn connect_through(device: &str, destination: SocketAddr) -> std::io::Result<SocketAddr> {
    let SocketAddr::V4(to) = destination else {
        panic!("IPv4 only")
    };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: to.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: to.ip().to_bits().to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: plain socket calls on live values of the lengths given.
    #[expect(unsafe_code, reason = "SO_BINDTODEVICE before connect() is not in std")]
    let result = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
        assert!(fd >= 0);
        let name = device.as_ptr().cast();
        let length = device.len() as libc::socklen_t;
        assert_eq!(
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name, length),
            0
        );
        libc::connect(
            fd,
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(destination)
    }
}

/// A cgroup of the test's own, removed at its end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Self {
        let root = cgroup2();
        let path = root.join(format!("amb-A-{}-{name}", process::id()));
        fs::create_dir(&path).expect("capture tests need root and a writable cgroup2");
        Self(path)
    }

    /// Runs a program inside.
    fn run(&self, program: &str, args: &[&str]) -> Output {
        Command::new("sh")
            .args(["-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(&self.0)
            .arg(program)
            .args(args)
            .output()
            .expect("sh runs")
    }

    /// What a connect from inside ends with: the peer it sees, or the error.
    fn connect(&self, destination: &str) -> String {
        self.connect_as(destination, "")
    }

    fn connect_as(&self, destination: &str, how: &str) -> String {
        let output = self.run(&own_path(), &[CLIENT, destination, how]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .expect("UTF-8")
            .trim()
            .to_owned()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = capture::unpin(&self.0);
        let _ = fs::remove_dir(&self.0);
    }
}

fn own_path() -> String {
    let own = env::current_exe().expect("own path");
    own.into_os_string().into_string().expect("a UTF-8 path")
}

fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc");
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    PathBuf::from(
        line.expect("capture tests need cgroup2")
            .split(' ')
            .nth(1)
            .expect("a mount point"),
    )
}

/// A stand-in for the proxy: one listener, one heart.
struct Proxy {
    listener: TcpListener,
    capture: Capture,
}

impl Proxy {
    fn start(settings: &Settings, claims: &Claims, may_pin: bool) -> Self {
        let listener = TcpListener::bind("[::]:0").expect("a port");
        Self::on(listener, settings, claims, may_pin)
    }

    fn on(listener: TcpListener, settings: &Settings, claims: &Claims, may_pin: bool) -> Self {
        let options = Options {
            proxy_port: listener.local_addr().expect("bound").port(),
            shards: 1,
            may_pin,
            kernel_log: false,
        };
        let capture = Capture::start(settings, claims, &options)
            .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
        Self { listener, capture }
    }

    fn beating(settings: &Settings) -> Self {
        let proxy = Self::start(settings, &Claims::default(), false);
        proxy.beat();
        proxy
    }

    fn beat(&self) {
        self.capture.table().heartbeat(0).beat();
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().expect("bound").port()
    }

    /// Accepts what is queued and says which destination it was for.
    fn accepted(&self, workload: u32) -> (TcpStream, Accepted) {
        let (stream, _) = self.listener.accept().expect("a connection");
        let local = stream.local_addr().expect("an address");
        let accepted = self
            .capture
            .table()
            .lookup(local, workload)
            .expect("a readable map");
        (stream, accepted)
    }

    fn destination(&self, workload: u32) -> String {
        match self.accepted(workload).1 {
            Accepted::Token(token) => token.destination.to_string(),
            other => format!("{other:?}"),
        }
    }

    fn count(&self, verdict: Verdict) -> u64 {
        let counts = self.capture.verdicts().expect("readable counters");
        counts
            .iter()
            .find(|(of, _)| *of == verdict)
            .expect("every verdict")
            .1
    }

    fn clean(self) {
        let port = self.port();
        self.capture.detach().expect("detached");
        capture::unroute(None, port).expect("the token prefix is removed");
    }
}

fn settings(cgroups: &[&Cgroup]) -> Settings {
    Settings {
        targets: cgroups
            .iter()
            .map(|cgroup| Target {
                cgroup: cgroup.0.clone(),
                netns: None,
            })
            .collect(),
        ..Settings::default()
    }
}

fn an_unmodified_curl_is_captured() {
    let cgroup = Cgroup::new("curl");
    let proxy = Proxy::beating(&settings(&[&cgroup]));
    thread::scope(|scope| {
        let answer = scope.spawn(|| {
            let (mut stream, accepted) = proxy.accepted(0);
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

fn peers_are_shown_as_the_application_named_them() {
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
    assert_eq!(
        proxy.capture.table().slots_used(),
        4,
        "a mapped one is the same"
    );
    assert_eq!(proxy.capture.without_v6().count(), 0);
    proxy.clean();
}

fn rules_decide_and_are_replaced_at_once() {
    let cgroup = Cgroup::new("rules");
    let direct = TcpListener::bind("127.0.0.1:0").expect("a port");
    let direct = direct.local_addr().expect("bound").to_string();
    let mut settings = settings(&[&cgroup]);
    let proxy = Proxy::beating(&settings);

    assert_eq!(cgroup.connect(&direct), direct, "loopback is out of scope");
    assert_eq!(proxy.count(Verdict::Bypassed), 1);
    assert_eq!(cgroup.connect("10.1.2.3:80"), "10.1.2.3:80");
    assert_eq!(proxy.destination(0), "10.1.2.3:80");

    settings.unmatched = Unmatched::Refuse;
    let claims = Claims {
        nets: vec![("10.1.0.0/16".parse().expect("a net"), Some(8443), None)],
        any_names: false,
    };
    proxy.capture.update(&settings, &claims).expect("updated");
    assert_eq!(
        cgroup.connect("10.1.2.3:80"),
        "ConnectionRefused",
        "a known slot too"
    );
    assert_eq!(proxy.count(Verdict::Refused), 1);
    assert_eq!(cgroup.connect("10.1.2.3:8443"), "10.1.2.3:8443");
    assert_eq!(proxy.destination(0), "10.1.2.3:8443");

    settings.unmatched = Unmatched::Passthrough;
    settings.include = Scope {
        ports: vec![],
        cidrs: vec!["127.0.0.0/8".parse().expect("a net")],
    };
    proxy
        .capture
        .update(&settings, &Claims::default())
        .expect("updated");
    assert_eq!(cgroup.connect(&direct), direct);
    assert_eq!(proxy.count(Verdict::Passthrough), 1);

    settings.unmatched = Unmatched::Proxy;
    proxy
        .capture
        .update(&settings, &Claims::default())
        .expect("updated");
    assert_eq!(cgroup.connect(&direct), direct);
    assert_eq!(proxy.destination(0), direct);
    proxy.clean();
}

fn a_dead_proxy_does_what_on_failure_says() {
    let cgroup = Cgroup::new("dead");
    let direct = TcpListener::bind("127.0.0.1:0").expect("a port");
    let direct = direct.local_addr().expect("bound").to_string();
    let mut settings = settings(&[&cgroup]);
    settings.include.cidrs = vec!["127.0.0.0/8".parse().expect("a net")];
    let proxy = Proxy::start(&settings, &Claims::default(), false);

    assert_eq!(cgroup.connect(&direct), direct, "no heartbeat: straight");
    assert_eq!(proxy.count(Verdict::ProxyDown), 1);
    settings.on_failure = OnFailure::Refuse;
    proxy
        .capture
        .update(&settings, &Claims::default())
        .expect("updated");
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

fn tokens_cannot_be_borrowed() {
    let cgroup = Cgroup::new("token");
    let stranger = Cgroup::new("stranger");
    let proxy = Proxy::beating(&settings(&[&cgroup]));
    assert_eq!(cgroup.connect("10.1.2.3:80"), "10.1.2.3:80");
    let local = proxy.accepted(0).0.local_addr().expect("an address");
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

fn the_canary_sings_only_when_captured() {
    let cgroup = Cgroup::new("canary");
    let proxy = Proxy::start(&settings(&[&cgroup]), &Claims::default(), false);
    assert!(proxy.capture.canary().is_err(), "no heartbeat yet");
    proxy.beat();
    for _ in 0..3 {
        proxy.capture.canary().expect("captured");
        assert_eq!(proxy.accepted(0).1, Accepted::Canary);
    }
    assert_eq!(proxy.count(Verdict::Canary), 3);
    let procs = fs::read_to_string(cgroup.0.join("cgroup.procs")).expect("readable");
    assert_eq!(procs, "", "nobody stays in the cgroup");
    proxy.clean();
}

fn workloads_share_a_table_and_nothing_else() {
    let (one, two) = (Cgroup::new("one"), Cgroup::new("two"));
    let proxy = Proxy::beating(&settings(&[&one, &two]));
    assert_eq!(one.connect("10.1.2.3:80"), "10.1.2.3:80");
    assert_eq!(proxy.destination(0), "10.1.2.3:80");
    assert_eq!(two.connect("10.1.2.3:80"), "10.1.2.3:80");
    assert_eq!(
        proxy.destination(0),
        "Foreign",
        "the other workload's token"
    );
    assert_eq!(two.connect("10.1.2.3:80"), "10.1.2.3:80");
    assert_eq!(proxy.destination(1), "10.1.2.3:80");
    assert_eq!(proxy.capture.table().slots_used(), 3);
    proxy.clean();
}

fn pinned_links_outlive_the_proxy() {
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
    assert_eq!(programs_named(&cgroup.0, "connect4"), 0);
    assert_eq!(cgroup.connect(&direct), direct);
}

fn programs_named(cgroup: &Path, name: &str) -> usize {
    let programs = capture::programs_at(cgroup).expect("a list");
    programs
        .iter()
        .filter(|line| line.contains(&format!(" {name} ")))
        .count()
}

fn the_proxy_itself_is_left_alone() {
    let cgroup = Cgroup::new("own");
    let direct = TcpListener::bind("127.0.0.1:0").expect("a port");
    let direct = direct.local_addr().expect("bound");
    let mut settings = settings(&[&cgroup]);
    settings.include.cidrs = vec!["127.0.0.0/8".parse().expect("a net")];
    let proxy = Proxy::beating(&settings);
    let own = fs::read_to_string("/proc/self/cgroup").expect("/proc");
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .expect("a cgroup");
    let home = cgroup2().join(own).join("cgroup.procs");
    fs::write(cgroup.0.join("cgroup.procs"), "0").expect("joined");
    let peer = TcpStream::connect(direct).and_then(|stream| stream.local_addr());
    fs::write(home, "0").expect("left");
    assert_eq!(peer.expect("connected").ip(), direct.ip());
    assert_eq!(proxy.count(Verdict::Own), 1);
    assert_eq!(proxy.count(Verdict::Captured), 0);
    proxy.clean();
}

fn a_full_table_keeps_a_quarter_for_claims() {
    let cgroup = Cgroup::new("full");
    let mut settings = settings(&[&cgroup]);
    settings.on_failure = OnFailure::Refuse;
    let proxy = Proxy::start(&settings, &Claims::default(), false);
    let flooded = cgroup.run(&own_path(), &[CLIENT, "12300", "flood"]);
    assert!(flooded.status.success(), "{flooded:?}");
    assert_eq!(proxy.capture.table().slots_used(), 12_288, "three quarters");
    assert_eq!(proxy.count(Verdict::TableFull), 12_300 - 12_287);

    proxy.beat();
    assert_eq!(
        cgroup.connect("10.1.2.3:80"),
        "ConnectionRefused",
        "no slot left for it"
    );
    let claims = Claims {
        nets: vec![("10.1.0.0/16".parse().expect("a net"), None, None)],
        any_names: false,
    };
    proxy.capture.update(&settings, &claims).expect("updated");
    assert_eq!(
        cgroup.connect("10.1.2.3:80"),
        "10.1.2.3:80",
        "a claimed one has"
    );
    assert_eq!(proxy.destination(0), "10.1.2.3:80");
    assert_eq!(
        cgroup.connect("10.8.0.7:80"),
        "10.8.0.7:80",
        "a known one too"
    );
    assert_eq!(proxy.destination(0), "10.8.0.7:80");
    proxy.clean();
}

fn sockets_bound_to_a_device_do_what_on_failure_says() {
    let cgroup = Cgroup::new("device");
    let device = format!("ambA{}", process::id());
    let peer = format!("ambP{}", process::id());
    ip(&[
        "link", "add", &device, "type", "veth", "peer", "name", &peer,
    ]);
    let mut settings = settings(&[&cgroup]);
    let proxy = Proxy::beating(&settings);
    let straight = cgroup.connect_as("10.1.2.3:80", &device);
    assert_ne!(straight, "10.1.2.3:80", "let through, to nowhere");
    assert_eq!(proxy.count(Verdict::DeviceBound), 1);
    settings.on_failure = OnFailure::Refuse;
    proxy
        .capture
        .update(&settings, &Claims::default())
        .expect("updated");
    assert_eq!(
        cgroup.connect_as("10.1.2.3:80", &device),
        "ConnectionRefused"
    );
    assert_eq!(proxy.count(Verdict::DeviceBound), 2);
    proxy.clean();
    ip(&["link", "del", &device]);
}

fn quic_is_refused_on_request() {
    let cgroup = Cgroup::new("quic");
    let mut settings = settings(&[&cgroup]);
    settings.quic = Quic::Refuse;
    let proxy = Proxy::beating(&settings);
    assert_eq!(
        cgroup.connect_as("10.1.2.3:443", "udp"),
        "ConnectionRefused"
    );
    assert_eq!(
        cgroup.connect_as("10.1.2.3:443", "udp-send"),
        "ConnectionRefused"
    );
    assert_eq!(proxy.count(Verdict::QuicRefused), 2);
    assert_eq!(
        cgroup.connect_as("127.0.0.1:443", "udp"),
        "127.0.0.1:443",
        "out of scope"
    );
    assert_eq!(
        cgroup.connect_as("127.0.0.1:53", "udp"),
        "127.0.0.1:53",
        "UDP is untouched"
    );
    proxy.clean();
}

/// A network namespace with loopback up, for as long as its one process lives.
struct Netns(Child);

impl Netns {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args([
                "--net",
                "sh",
                "-c",
                "ip link set lo up && echo up && exec cat",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        assert_eq!(line, "up\n");
        Self(child)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.0.id()))
    }

    /// A listener inside: a socket keeps the namespace it was made in.
    fn listen(&self) -> TcpListener {
        let netns = fs::File::open(self.path()).expect("a namespace");
        let inside = move || {
            use std::os::fd::AsRawFd;
            // SAFETY: no pointers; affects this thread alone, which ends.
            #[expect(unsafe_code, reason = "setns() is not in std")]
            let entered = unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0);
            TcpListener::bind("[::]:0").expect("a port")
        };
        thread::spawn(inside).join().expect("listening")
    }

    fn run(&self, command: &[&str]) -> Output {
        Command::new("nsenter")
            .arg(format!("--net={}", self.path().display()))
            .args(command)
            .output()
            .expect("nsenter runs")
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_workload_may_live_in_another_namespace() {
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
    proxy.capture.detach().expect("detached");
    let inside = fs::File::open(netns.path()).expect("a namespace");
    capture::unroute(Some(&inside), port).expect("the token prefix is removed");
    let rules = run("ip -6 rule").stdout;
    assert!(!String::from_utf8_lossy(&rules).contains("fd7f:656d:6261"));
}

fn of_two_proxies_the_first_captures_and_the_second_knows() {
    let cgroup = Cgroup::new("two");
    let first = Proxy::beating(&settings(&[&cgroup]));
    assert_eq!(first.capture.others_attached(), []);
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

fn second(cgroup: &str) -> ExitCode {
    let cgroup = std::mem::ManuallyDrop::new(Cgroup(PathBuf::from(cgroup)));
    let second = Proxy::beating(&settings(&[&cgroup]));
    let others = second.capture.others_attached();
    assert_eq!(others[0].0, cgroup.0);
    assert!(
        others[0].1.iter().any(|line| line.contains("connect4")),
        "{others:?}"
    );
    let error = second.capture.canary().expect_err("captured by the first");
    assert!(error.contains("another program"), "{error}");
    assert_eq!(cgroup.connect("10.1.2.3:80"), "10.1.2.3:80");
    assert_eq!(second.count(Verdict::Captured), 0);
    second.clean();
    ExitCode::SUCCESS
}

fn no_privilege_is_needed_after_the_start() {
    let cgroup = Cgroup::new("unprivileged");
    let output = Command::new(own_path())
        .args([UNPRIVILEGED, cgroup.0.to_str().expect("UTF-8 path")])
        .output()
        .expect("runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
}

fn unprivileged(cgroup: &str) -> ExitCode {
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
    assert_eq!(proxy.accepted(0).1, Accepted::Canary);
    assert_eq!(proxy.count(Verdict::Canary), 1);
    assert_eq!(cgroup.connect("10.1.2.3:80"), "10.1.2.3:80");
    assert_eq!(proxy.destination(0), "10.1.2.3:80");
    settings.unmatched = Unmatched::Refuse;
    proxy
        .capture
        .update(&settings, &Claims::default())
        .expect("updated");
    assert_eq!(cgroup.connect("10.1.2.3:80"), "ConnectionRefused");
    proxy.capture.detach().expect("detached");
    ExitCode::SUCCESS
}

fn the_kernel_side_logs_on_request() {
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

fn logged(cgroup: &str) -> ExitCode {
    // The directory is the caller's to remove.
    let cgroup = std::mem::ManuallyDrop::new(Cgroup(PathBuf::from(cgroup)));
    let listener = TcpListener::bind("[::]:0").expect("a port");
    let options = Options {
        proxy_port: listener.local_addr().expect("bound").port(),
        shards: 1,
        may_pin: false,
        kernel_log: true,
    };
    let capture = Capture::start(&settings(&[&cgroup]), &Claims::default(), &options)
        .expect("capture starts");
    capture.table().heartbeat(0).beat();
    assert_eq!(cgroup.connect("10.1.2.3:80"), "10.1.2.3:80");
    drop(capture);
    capture::unroute(None, options.proxy_port).expect("the token prefix is removed");
    ExitCode::SUCCESS
}

fn a_start_that_fails_leaves_nothing() {
    let cgroup = Cgroup::new("fails");
    let mut settings = settings(&[&cgroup]);
    settings.on_failure = OnFailure::Refuse;
    // A directory, but no cgroup.
    settings.targets.push(Target {
        cgroup: env::temp_dir(),
        netns: None,
    });
    let listener = TcpListener::bind("[::]:0").expect("a port");
    let options = Options {
        proxy_port: listener.local_addr().expect("bound").port(),
        shards: 1,
        may_pin: true,
        kernel_log: false,
    };
    match Capture::start(&settings, &Claims::default(), &options) {
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

fn ip(args: &[&str]) {
    let status = Command::new("ip").args(args).status().expect("ip runs");
    assert!(status.success(), "ip {args:?}");
}
