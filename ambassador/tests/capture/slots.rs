//! Slots of the token table: how many a workload gets, and how they come back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, ChildStdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ambassador::testing::capture::Accepted;
use ambassador::testing::capture::settings::{Claim, Claims, OnFailure};
use ambassador::testing::clock;
use ambassador_ebpf::{SLOTS, SLOTS_CLAIMED_ONLY, TICK_SHIFT, Verdict};

use crate::CLIENT;
use crate::fixture::{Cgroup, Proxy, own_path, settings, workloads};

/// Long enough for a slot to be withdrawn, or one that was to be freed.
const LONG: Duration = Duration::from_secs(120);

/// Ticks after which an unused slot is withdrawn.
const REST: u64 = 16;

/// Connects to so many addresses from `start` on, while the proxy does not beat:
/// each is interned, then refused.
fn scan(proxy: &Proxy, cgroup: &Cgroup, start: &str, count: u32) {
    proxy.capture.table().heartbeat(0).stop();
    let flooded = cgroup.run(&own_path(), &[CLIENT, &format!("{start}+{count}"), "flood"]);
    assert!(flooded.status.success(), "{flooded:?}");
}

/// Has the proxy look at its slots as if so much time had passed.
fn look_after(proxy: &Proxy, time: Duration) {
    proxy.beat();
    let later = clock::now() + time;
    proxy.capture.take_back(later).expect("writable maps");
}

fn claimed(net: &str) -> Claims {
    Claims {
        nets: vec![Claim::new(net.parse().expect("a net"), None)],
        any_names: false,
    }
}

/// A quarter is only for what is claimed; of the rest one workload gets half.
const HALF: u32 = (SLOTS - SLOTS_CLAIMED_ONLY) / 2;

pub fn one_workload_leaves_half_of_the_slots() {
    let (scanner, other) = (Cgroup::new("scans"), Cgroup::new("other"));
    let mut settings = settings(&[&scanner, &other]);
    settings.on_failure = OnFailure::Refuse;
    let claims = claimed("10.9.0.0/16");
    let proxy = Proxy::start(&settings, &claims, false);
    let used = || proxy.capture.table().slots_used();
    scan(&proxy, &scanner, "10.8.0.0", HALF + 100);
    assert_eq!(used(), HALF + 1, "and the canary's");
    assert_eq!(proxy.count(Verdict::OverQuota), 100);
    assert_eq!(proxy.capture.holds_most(), Some((0, HALF)));

    // What it knows it may go on using, and what is claimed has room of its own.
    proxy.beat();
    assert_eq!(scanner.connect("10.8.0.7:80"), "10.8.0.7:80");
    assert_eq!(proxy.destination(0), "10.8.0.7:80");
    assert_eq!(scanner.connect("10.9.0.7:80"), "10.9.0.7:80");
    assert_eq!(proxy.destination(0), "10.9.0.7:80");
    assert_eq!(scanner.connect("10.1.2.3:80"), "ConnectionRefused");
    assert_eq!(proxy.count(Verdict::OverQuota), 101);

    // A scan of what is claimed, too, leaves others what they ask for.
    scan(&proxy, &scanner, "10.9.0.0", SLOTS);
    proxy.beat();
    for destination in ["10.1.2.3:80", "10.8.0.7:80", "10.9.200.200:80"] {
        assert_eq!(other.connect(destination), destination);
        assert_eq!(proxy.destination(1), destination);
    }
    assert_eq!(proxy.count(Verdict::TableFull), 0);
    proxy.clean();
}

pub fn many_that_ask_for_all_leave_something() {
    let cgroups: Vec<Cgroup> = (0..12)
        .map(|number| Cgroup::new(&format!("greedy{number}")))
        .collect();
    let mut settings = settings(&cgroups.iter().collect::<Vec<_>>());
    settings.on_failure = OnFailure::Refuse;
    let proxy = Proxy::start(&settings, &Claims::default(), false);
    let (last, greedy) = cgroups.split_last().expect("twelve");
    for cgroup in greedy {
        scan(&proxy, cgroup, "10.8.0.0", HALF + 1);
    }
    let before = proxy.capture.table().slots_used();
    scan(&proxy, last, "10.8.0.0", HALF);
    let got = proxy.capture.table().slots_used() - before;
    assert!(got >= 32, "the twelfth gets {got}");
    assert_eq!(proxy.count(Verdict::TableFull), 0);
    proxy.clean();
}

pub fn slots_come_back_when_nobody_uses_them() {
    let (scanner, other) = (Cgroup::new("once"), Cgroup::new("again"));
    let mut settings = settings(&[&scanner, &other]);
    settings.on_failure = OnFailure::Refuse;
    let proxy = Proxy::start(&settings, &claimed("10.9.0.0/16"), false);
    let used = || proxy.capture.table().slots_used();
    scan(&proxy, &scanner, "10.8.0.0", HALF);
    scan(&proxy, &scanner, "10.9.0.0", 1_000);
    assert_eq!(used(), HALF + 1_001);

    look_after(&proxy, Duration::ZERO);
    assert_eq!(used(), HALF + 1_001, "they were used just now");
    look_after(&proxy, LONG);
    assert_eq!(used(), HALF + 1_001, "some may be on their way");
    look_after(&proxy, LONG * 2);
    assert_eq!(used(), 1);
    assert_eq!(proxy.capture.holds_most(), Some((1, 0)));
    assert_eq!(proxy.capture.slots_taken_back(), u64::from(HALF) + 1_000);

    // All of them once more, until every number behind has been given out, and
    // the same for those that come after.
    for round in 0..3 {
        scan(&proxy, &scanner, "10.8.64.0", HALF);
        assert_eq!(used(), HALF + 1, "round {round}");
        proxy.beat();
        assert_eq!(other.connect("10.1.2.3:80"), "10.1.2.3:80");
        assert_eq!(proxy.destination(1), "10.1.2.3:80");
        look_after(&proxy, LONG);
        look_after(&proxy, LONG * 2);
        assert_eq!(used(), 1, "round {round}");
    }
    proxy.clean();
}

pub fn a_token_leads_to_nothing_but_its_destination() {
    let cgroup = Cgroup::new("stale");
    let mut settings = settings(&[&cgroup]);
    settings.on_failure = OnFailure::Refuse;
    let proxy = Proxy::beating(&settings);
    let mut early = Held::connect(&cgroup, "10.1.2.3:80", "hold");
    let (stream, accepted) = proxy.accepted();
    let local = stream.local_addr().expect("an address");
    assert!(matches!(accepted, Accepted::Token(_)), "{accepted:?}");
    let lookup = |local| proxy.capture.table().lookup(local).expect("readable");

    // Withdrawn: what is under way is served, a new connect gets another token.
    look_after(&proxy, LONG);
    assert_eq!(lookup(local), accepted);
    assert_eq!(cgroup.connect("10.1.2.3:80"), "10.1.2.3:80");
    let (again, _) = proxy.accepted();
    assert_ne!(again.local_addr().expect("an address").ip(), local.ip());
    assert_eq!(early.peer(), "10.1.2.3:80");

    // Freed: whoever comes with its token is told from everybody else.
    look_after(&proxy, LONG * 2);
    assert_eq!(lookup(local), Accepted::Foreign);
    scan_until_reused(&proxy, &cgroup);
    assert_eq!(lookup(local), Accepted::Foreign);
    // The socket remembers where it went, whoever has the slot now.
    assert_eq!(early.peer(), "10.1.2.3:80");
    // Its token is given to nobody, neither under its old nor its new number.
    let IpAddr::V4(token) = local.ip().to_canonical() else {
        panic!("{local}")
    };
    let next = Ipv4Addr::from_bits(token.to_bits() + SLOTS);
    let reused = lookup(SocketAddr::new(next.into(), local.port()));
    let Accepted::Token(reused) = reused else {
        panic!("the slot was not given out again: {reused:?}")
    };
    assert_ne!(reused.destination.to_string(), "10.1.2.3:80");
    proxy.clean();
}

/// What a socket was given is worth something for as long as it is for the same
/// destination, whoever captures its cgroup by then.
pub fn a_socket_cannot_use_a_token_that_is_not_its_own_any_more() {
    let (left, kept) = (Cgroup::new("left"), Cgroup::new("keeps"));
    let proxy = Proxy::beating(&settings(&[&left, &kept]));
    let mut socket = Held::connect(&left, "10.1.2.3:80", "again");
    let (stream, first) = proxy.accepted();
    let token = stream.local_addr().expect("an address");
    let token = SocketAddr::new(token.ip().to_canonical(), token.port()).to_string();
    // Its programs are gone, the guard is not.
    let mut rest = workloads(&settings(&[&left, &kept]));
    rest.remove(0);
    let update = proxy.try_to_update(&settings(&[&kept]), &Claims::default(), rest);
    update.expect("updated");
    assert_eq!(socket.ask(&token), "connected");
    assert_eq!(proxy.accepted().1, first);
    look_after(&proxy, LONG);
    look_after(&proxy, LONG * 2);
    assert_eq!(socket.ask(&token), "ConnectionRefused");
    assert_eq!(proxy.count(Verdict::ForgedToken), 1);
    proxy.clean();
}

/// Has every slot given out, those that were freed at last.
fn scan_until_reused(proxy: &Proxy, cgroup: &Cgroup) {
    for net in ["10.16.0.0", "10.17.0.0"] {
        scan(proxy, cgroup, net, HALF);
        look_after(proxy, LONG);
        look_after(proxy, LONG * 2);
    }
    scan(proxy, cgroup, "10.18.0.0", HALF);
    proxy.beat();
}

pub fn what_is_used_keeps_its_slot() {
    let cgroup = Cgroup::new("kept");
    let proxy = Proxy::beating(&settings(&[&cgroup]));
    let token = |destination| {
        proxy.beat();
        assert_eq!(cgroup.connect(destination), destination);
        let (stream, accepted) = proxy.accepted();
        assert!(matches!(accepted, Accepted::Token(_)), "{accepted:?}");
        stream.local_addr().expect("an address").ip()
    };
    let (used, unused) = ("10.1.2.3:80", "10.1.2.4:80");
    let (first, other) = (token(used), token(unused));
    let before = tick();
    while tick() == before {
        thread::sleep(Duration::from_millis(10));
    }
    let again_at = tick();
    assert_eq!(token(used), first);
    // The one was used less than a rest before this, the other was not.
    let then = Duration::from_nanos((again_at + REST - 1) << TICK_SHIFT);
    let ahead = then.saturating_sub(Duration::from_nanos(clock::now().kernel_ns()));
    proxy
        .capture
        .take_back(clock::now() + ahead)
        .expect("writable maps");
    assert_eq!(token(used), first);
    assert_ne!(token(unused), other);
    proxy.clean();
}

fn tick() -> u64 {
    clock::now().kernel_ns() >> TICK_SHIFT
}

pub fn nothing_comes_back_while_a_shard_hangs() {
    let cgroup = Cgroup::new("hangs");
    let mut settings = settings(&[&cgroup]);
    settings.on_failure = OnFailure::Refuse;
    let proxy = Proxy::start(&settings, &Claims::default(), false);
    scan(&proxy, &cgroup, "10.8.0.0", 100);
    for factor in [1, 2, 3] {
        let later = clock::now() + LONG * factor;
        proxy.capture.take_back(later).expect("writable maps");
    }
    assert_eq!(proxy.capture.table().slots_used(), 101);
    // From now on time counts, and what was before it does not.
    for (factor, left) in [(3, 101), (4, 101), (5, 1)] {
        look_after(&proxy, LONG * factor);
        assert_eq!(proxy.capture.table().slots_used(), left, "{factor}");
    }
    proxy.clean();
}

pub fn connects_that_race_with_the_sweep_find_their_destination() {
    let cgroup = Cgroup::new("sweep");
    let proxy = Proxy::beating(&settings(&[&cgroup]));
    let ended = AtomicBool::new(false);
    let (mut right, mut late) = (0, 0);
    thread::scope(|scope| {
        // As if minutes passed between any two looks: what is withdrawn by one is
        // freed by the next.
        scope.spawn(|| {
            for looks in 0.. {
                look_after(&proxy, LONG * looks);
                if ended.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        scope.spawn(|| {
            let said = cgroup.run(&own_path(), &[CLIENT, "10.1.2.0:80", "say"]);
            ended.store(true, Ordering::Relaxed);
            TcpStream::connect(("127.0.0.1", proxy.port())).expect("it listens");
            assert!(said.status.success(), "{said:?}");
        });
        while !ended.load(Ordering::Relaxed) {
            let (mut stream, accepted) = proxy.accepted();
            let mut meant = String::new();
            stream.read_to_string(&mut meant).expect("it says it");
            match accepted {
                Accepted::Token(token) => {
                    assert_eq!(token.destination.to_string(), meant);
                    right += 1;
                }
                // Freed before it was accepted.
                Accepted::Foreign => late += 1,
                Accepted::Canary => panic!("a canary"),
            }
        }
    });
    let freed = proxy.capture.slots_taken_back();
    println!("{right} at their destination, {late} too late; {freed} slots taken back");
    assert!(right > 0 && freed > 0);
    proxy.clean();
}

/// A client inside that holds its connection.
struct Held {
    child: Child,
    says: BufReader<ChildStdout>,
}

impl Held {
    fn connect(cgroup: &Cgroup, destination: &str, how: &str) -> Self {
        let mut child = cgroup.spawn_speaking(&own_path(), &[CLIENT, destination, how]);
        let says = child.stdout.take().expect("piped");
        Self {
            child,
            says: BufReader::new(says),
        }
    }

    /// What getpeername() says now.
    fn peer(&mut self) -> String {
        self.ask("")
    }

    fn ask(&mut self, line: &str) -> String {
        let input = self.child.stdin.as_mut().expect("piped");
        writeln!(input, "{line}").expect("it listens");
        let mut line = String::new();
        self.says.read_line(&mut line).expect("it answers");
        line.trim().to_owned()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
