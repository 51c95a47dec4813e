//! What becomes of a connect: scope, claims, devices, QUIC, a full table.

use std::net::TcpListener;
use std::process;

use ambassador::testing::capture::settings::Claim;
use ambassador::testing::capture::settings::Claims;
use ambassador::testing::capture::settings::OnFailure;
use ambassador::testing::capture::settings::Quic;
use ambassador::testing::capture::settings::Scope;
use ambassador::testing::route::settings::Unmatched;
use ambassador_ebpf::Verdict;

use crate::fixture::Cgroup;
use crate::fixture::Proxy;
use crate::fixture::ip;
use crate::fixture::settings;

pub fn rules_decide_and_are_replaced_at_once() {
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
        nets: vec![Claim::new(
            "10.1.0.0/16".parse().expect("a net"),
            Some(8443),
        )],
        any_names: false,
    };
    proxy.update(&settings, &claims);
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
    proxy.update(&settings, &Claims::default());
    assert_eq!(cgroup.connect(&direct), direct);
    assert_eq!(proxy.count(Verdict::Passthrough), 1);

    settings.unmatched = Unmatched::Proxy;
    proxy.update(&settings, &Claims::default());
    assert_eq!(cgroup.connect(&direct), direct);
    assert_eq!(proxy.destination(0), direct);
    proxy.clean();
}

pub fn sockets_bound_to_a_device_do_what_on_failure_says() {
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
    proxy.update(&settings, &Claims::default());
    assert_eq!(
        cgroup.connect_as("10.1.2.3:80", &device),
        "ConnectionRefused"
    );
    assert_eq!(proxy.count(Verdict::DeviceBound), 2);
    proxy.clean();
    ip(&["link", "del", &device]);
}

pub fn quic_is_refused_on_request() {
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
