//! Circuits: connects that the kernel refuses while the circuit of an upstream is open.

use std::time::Duration;

use ambassador::testing::capture::Circuit;
use ambassador::testing::capture::CircuitNumber;
use ambassador::testing::capture::settings::Claim;
use ambassador::testing::capture::settings::Claims;
use ambassador::testing::capture::settings::Settings;
use ambassador::testing::clock::Instant;
use ambassador::testing::policy::breaker::RefusalPeriod;
use ambassador_ebpf::Verdict;

use crate::CLIENT;
use crate::fixture::Cgroup;
use crate::fixture::Proxy;
use crate::fixture::own_path;
use crate::fixture::settings;

const HOUR: Duration = Duration::from_secs(3600);
const REFUSED: &str = "ConnectionRefused";

fn number(index: usize) -> CircuitNumber {
    CircuitNumber::all().nth(index).expect("there are as many")
}

/// Claims of networks, each with the circuit of this index.
fn claims(nets: &[(&str, Option<usize>)]) -> Claims {
    let claim = |(net, circuit): &(&str, Option<usize>)| Claim {
        circuit: circuit.map(number),
        ..Claim::new(net.parse().expect("a net"), None)
    };
    Claims {
        nets: nets.iter().map(claim).collect(),
        any_names: false,
    }
}

fn start(settings: &Settings, claims: &Claims) -> (Proxy, Circuit) {
    let proxy = Proxy::start(settings, claims, false);
    let circuit = proxy.capture.circuit(number(0));
    circuit.set_permit(HOUR);
    (proxy, circuit)
}

fn passed() -> RefusalPeriod {
    RefusalPeriod::Until(Instant::now())
}

pub fn an_open_circuit_refuses_connects_at_once() {
    let cgroup = Cgroup::new("open");
    let (proxy, circuit) = start(
        &settings(&[&cgroup]),
        &claims(&[
            ("10.1.0.0/16", Some(0)),
            ("2001:db8:1::/48", Some(0)),
            ("10.2.0.0/16", Some(1)),
        ]),
    );
    proxy.beat();
    let own = ["10.1.2.3:80", "[::ffff:10.1.2.3]:80", "[2001:db8:1::7]:80"];
    let others = ["10.2.0.1:80", "10.3.0.1:80", "[2001:db8:2::7]:80"];
    let each = |refused: Option<&str>| {
        proxy.beat();
        for destination in own {
            let wanted = refused.unwrap_or(destination);
            assert_eq!(cgroup.connect(destination), wanted);
        }
        for destination in others {
            assert_eq!(cgroup.connect(destination), destination);
        }
    };
    each(None);
    for (refuses, refused, count) in [
        (
            RefusalPeriod::Until(Instant::now() + HOUR),
            Some(REFUSED),
            3,
        ),
        (RefusalPeriod::Nothing, None, 3),
        (RefusalPeriod::Always, Some(REFUSED), 6),
        (RefusalPeriod::Nothing, None, 6),
    ] {
        circuit.set(refuses);
        each(refused);
        assert_eq!(proxy.count(Verdict::CircuitOpen), count);
    }
    assert_eq!(proxy.count(Verdict::Refused), 0);
    proxy.clean();
}

pub fn of_many_connects_one_takes_the_permit() {
    const ROUNDS: u64 = 10_000;
    let cgroup = Cgroup::new("permit");
    let (proxy, circuit) = start(&settings(&[&cgroup]), &claims(&[("10.1.0.0/16", Some(0))]));
    circuit.set(RefusalPeriod::Always);
    proxy.beat();
    let mut hammer = cgroup.spawn(&own_path(), &[CLIENT, "10.1.2.3:80", "hammer"]);
    for round in 1..=ROUNDS {
        proxy.beat();
        circuit.set(passed());
        proxy.accepted();
        assert_eq!(proxy.count(Verdict::Captured), round);
    }
    drop(hammer.stdin.take());
    assert!(hammer.wait().expect("it is a child").success());
    assert_eq!(proxy.count(Verdict::Captured), ROUNDS);
    assert!(proxy.count(Verdict::CircuitOpen) > ROUNDS);
    proxy.clean();
}

pub fn a_permit_holds_until_it_expires_or_the_proxy_decides() {
    const DESTINATION: &str = "10.1.2.3:80";
    let cgroup = Cgroup::new("expiry");
    let (proxy, circuit) = start(&settings(&[&cgroup]), &claims(&[("10.1.0.0/16", Some(0))]));
    let connect = || {
        proxy.beat();
        cgroup.connect(DESTINATION)
    };
    circuit.set(passed());
    assert_eq!(connect(), DESTINATION);
    assert_eq!(connect(), REFUSED, "the permit is out");
    circuit.set(passed());
    assert_eq!(connect(), DESTINATION, "the proxy has the last word");
    assert_eq!(connect(), REFUSED);
    circuit.set(RefusalPeriod::Nothing);
    assert_eq!(connect(), DESTINATION);
    assert_eq!(connect(), DESTINATION);
    circuit.set_permit(Duration::from_nanos(1));
    circuit.set(passed());
    for _ in 0..3 {
        assert_eq!(connect(), DESTINATION, "the last permit has expired");
    }
    proxy.clean();
}

pub fn circuits_go_where_claims_go() {
    let cgroup = Cgroup::new("claims");
    let settings = settings(&[&cgroup]);
    let (proxy, circuit) = start(&settings, &claims(&[("10.1.0.0/16", Some(0))]));
    circuit.set(RefusalPeriod::Until(Instant::now() + HOUR));
    proxy.beat();
    // Gets its slot while it is refused.
    assert_eq!(cgroup.connect("10.1.2.3:80"), REFUSED);
    for (nets, one, two) in [
        (&[("10.1.0.0/16", None)][..], "10.1.2.3:80", "10.2.2.3:80"),
        (&[("10.2.0.0/16", Some(0))], "10.1.2.3:80", REFUSED),
        (&[("10.0.0.0/8", Some(0))], REFUSED, REFUSED),
        (
            &[("10.0.0.0/8", Some(0)), ("10.2.2.0/24", None)],
            REFUSED,
            "10.2.2.3:80",
        ),
        (&[("10.0.0.0/8", Some(1))], "10.1.2.3:80", "10.2.2.3:80"),
    ] {
        proxy.update(&settings, &claims(nets));
        proxy.beat();
        assert_eq!(cgroup.connect("10.1.2.3:80"), one, "{nets:?}");
        assert_eq!(cgroup.connect("10.2.2.3:80"), two, "{nets:?}");
    }
    proxy.clean();
}

pub fn the_circuits_of_a_dead_proxy_refuse_nothing() {
    let cgroup = Cgroup::new("dead-open");
    let (proxy, circuit) = start(&settings(&[&cgroup]), &claims(&[("10.1.0.0/16", Some(0))]));
    circuit.set(RefusalPeriod::Always);
    let straight = cgroup.connect("10.1.2.3:80");
    assert_ne!(straight, REFUSED, "let through, to nowhere");
    assert_eq!(proxy.count(Verdict::ProxyDown), 1);
    assert_eq!(proxy.count(Verdict::CircuitOpen), 0);
    proxy.clean();
}
