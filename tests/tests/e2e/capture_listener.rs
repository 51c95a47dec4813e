//! The listener of captured connections does not exist for other machines.

use std::process::Command;

use ambassador_tests::{Backend, Cgroup, Netns, Proxy, Server, on_both_backends, program};

use crate::capture_scope::{curl, witness};

on_both_backends!(
    a_scan_gets_no_answer_and_costs_nothing,
    behind_redirect_rules_too,
);

/// Says what becomes of a connect: a second is long on a veth pair.
const SCAN: &str = "import socket,sys\n\
    try:\n\
    \x20s=socket.create_connection((sys.argv[1],int(sys.argv[2])),1)\n\
    \x20print('connected')\n\
    except TimeoutError: print('no answer')\n\
    except OSError as error: print(error)\n";

fn scan(from: &Netns, address: &str, port: u16) -> String {
    let [nsenter, entered, python] = from.wrap(program::PYTHON);
    let mut command = Command::new(nsenter);
    let port = port.to_string();
    let said =
        program::succeed(command.args([entered.as_str(), &python, "-c", SCAN, address, &port]));
    said.trim().to_owned()
}

/// Ports on which something listens at every address.
fn wildcard_ports(namespace: &Netns) -> Vec<u16> {
    let [nsenter, entered, ss] = namespace.wrap("ss");
    let list = program::succeed(Command::new(nsenter).args([entered, ss]).arg("-Hltn"));
    let local = list
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3));
    let ports = local.filter_map(|local| local.strip_prefix("*:"));
    ports.map(|port| port.parse().expect("a number")).collect()
}

fn a_scan_gets_no_answer_and_costs_nothing(backend: Backend) {
    is_hidden(backend, "ebpf");
}

fn behind_redirect_rules_too(backend: Backend) {
    is_hidden(backend, "iptables");
}

#[track_caller]
fn is_hidden(backend: Backend, mode: &str) {
    let (home, neighbour) = (Netns::new(), Netns::new());
    home.connect("10.99.0.1/24", &neighbour, "10.99.0.2/24");
    home.connect("fd99::1/64", &neighbour, "fd99::2/64");
    home.ip(&["route", "add", "local", "10.1.0.0/16", "dev", "lo"]);
    home.ip(&["route", "add", "local", "fd01::/64", "dev", "lo"]);
    let _server: Server = witness(&home);
    let _control = home.listen("[::]:8080");
    let cgroup = Cgroup::new();
    let config = format!(
        "capture:\n  mode: {mode}\n  cgroups: [{{ path: {}, netns: {} }}]\n\
         upstreams: {{ web: {{ hosts: [10.1.0.0/16, \"fd01::/64\"], endpoints: [\"127.0.0.1:80\"] }} }}\n",
        cgroup.path().display(),
        home.path().display()
    );
    let proxy = Proxy::start(backend, &config);
    let ports = wildcard_ports(&home);
    let port = ports.iter().find(|port| **port != 8080);
    let port = *port.expect("the proxy listens");
    for address in ["10.99.0.1", "fd99::1"] {
        assert_eq!(scan(&neighbour, address, 8080), "connected", "{address}");
        assert_eq!(scan(&neighbour, address, port), "no answer", "{address}");
        // Reset at once, perhaps before connect() has returned.
        assert_ne!(
            scan(&home, address, port),
            "no answer",
            "{address}, from inside"
        );
    }
    for url in ["http://10.1.0.1/", "http://[fd01::1]/"] {
        let output = curl(&home, &cgroup, url);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "proxied", "{url}");
    }
    // Those from inside, and nobody else.
    proxy.expect_metric("ambassador_dropped_accepts_total", &[], 2.0);
}
