//! What is measured: a line for each.

use serde::Serialize;

use crate::placement::Placement;
use crate::protocol::Protocol;
use crate::variant::Variant;

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// Each connection asks again as soon as it has its answer.
    Closed,
    /// So many a second, whatever the answers do.
    Rate(u64),
}

/// Requests beside those that are measured, by a generator that gives way to
/// others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Beside {
    /// What is spoken.
    pub protocol: Protocol,
    /// So many a second.
    pub rate: u64,
    /// A connection for each request.
    pub new_connections: bool,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Scenario {
    /// Its name, unique.
    pub name: &'static str,
    /// What is spoken.
    pub protocol: Protocol,
    /// Bytes of each answer.
    pub size: u64,
    /// Connections at once, of each client.
    pub connections: u32,
    /// How requests come.
    pub load: Load,
    /// A connection for each request.
    pub new_connections: bool,
    /// Who runs where.
    pub placement: Placement,
    /// Whether a program that never waits is on the proxy's CPU.
    pub busy_neighbour: bool,
    /// What else the proxy has to do meanwhile.
    pub beside: Option<Beside>,
    /// The machine is too small for it: it runs, and no target is judged by it.
    pub is_only_tried: bool,
    /// Who takes part.
    #[serde(skip)]
    among: Among,
}

/// Which variants take part in a scenario.
#[derive(Debug, Clone, Copy)]
enum Among {
    /// All that are for every scenario.
    General,
    /// These besides.
    GeneralAnd(&'static [Variant]),
    /// These alone.
    Only(&'static [Variant]),
}

/// Files that a proxy has open besides those of its clients: 1024 connections
/// to the upstream, and its own.
const FILES_BESIDES: u64 = 2048;

impl Scenario {
    /// Whether a variant takes part.
    pub fn suits(&self, variant: Variant) -> bool {
        let general = variant.is_general() && self.protocol.suits(variant);
        match self.among {
            Among::General => general,
            Among::GeneralAnd(others) => general || others.contains(&variant),
            Among::Only(these) => these.contains(&variant),
        }
    }

    /// Why it tells nothing where there are so many CPUs; none: it does.
    pub fn lacks(&self, machine: usize) -> Option<String> {
        let needed = self.placement.cpus();
        let lacks = machine < needed;
        lacks.then(|| format!("it needs {needed} CPUs, here are {machine}"))
    }

    /// The same with as many connections as so many open files allow.
    pub fn within(self, open_files: u64) -> Self {
        let most = open_files.saturating_sub(FILES_BESIDES).max(1);
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        Self {
            connections: self.connections.min(most),
            ..self
        }
    }
}

const SMALL: u64 = 64;
const KILOBYTE: u64 = 1024;
const LARGE: u64 = 64 * 1024;
const HUGE: u64 = 1024 * 1024;

/// Over kept connections that ask again and again, everything on one CPU.
fn closed(protocol: Protocol, name: &'static str, size: u64, connections: u32) -> Scenario {
    Scenario {
        name,
        protocol,
        size,
        connections,
        load: Load::Closed,
        new_connections: false,
        placement: Placement::One,
        busy_neighbour: false,
        beside: None,
        is_only_tried: false,
        among: Among::General,
    }
}

/// Everything.
pub fn all() -> Vec<Scenario> {
    [in_clear(), with_tls()].concat()
}

/// A second's handshakes beside plain requests.
const HANDSHAKES: u64 = 2_000;

/// TLS, and what it does to others on the same shard.
fn with_tls() -> Vec<Scenario> {
    let among = Among::Only(&[
        Variant::ListenerTls,
        Variant::NginxTls,
        Variant::HaproxyTls,
        Variant::EnvoyTls,
    ]);
    let kilobyte = |protocol, name| Scenario {
        among,
        ..closed(protocol, name, KILOBYTE, 64)
    };
    let plain = |name, beside| Scenario {
        among,
        load: Load::Rate(1_000),
        placement: Placement::Apart,
        beside,
        ..closed(Protocol::Http1, name, SMALL, 4)
    };
    let handshakes = |protocol, new_connections| {
        Some(Beside {
            protocol,
            rate: HANDSHAKES,
            new_connections,
        })
    };
    vec![
        kilobyte(Protocol::Mtls, "http1 to mtls 1KB 64 conn, one core"),
        kilobyte(Protocol::Mtls12, "http1 to mtls 1.2 1KB 64 conn, one core"),
        Scenario {
            load: Load::Rate(4_000),
            ..kilobyte(Protocol::Mtls, "http1 to mtls 1KB 4k/s, one core")
        },
        Scenario {
            among,
            new_connections: true,
            ..closed(Protocol::Tls, "tls 64B 8 new conn, one core", SMALL, 8)
        },
        plain("http1 64B 1k/s, tls idle, apart", None),
        plain(
            "http1 64B 1k/s, 2k/s tls new conn, apart",
            handshakes(Protocol::Tls, true),
        ),
        plain(
            "http1 64B 1k/s, 2k/s to new tls, apart",
            handshakes(Protocol::Anew, false),
        ),
    ]
}

/// All without TLS.
fn in_clear() -> Vec<Scenario> {
    let http = |name, size, connections| closed(Protocol::Http1, name, size, connections);
    let tcp = |name, size, connections| closed(Protocol::Tcp, name, size, connections);
    let apart = |scenario| Scenario {
        placement: Placement::Apart,
        ..scenario
    };
    let new = |scenario| Scenario {
        new_connections: true,
        ..scenario
    };
    let rate = |rate, scenario| Scenario {
        load: Load::Rate(rate),
        ..scenario
    };
    let among = |among, scenario| Scenario { among, ..scenario };
    let scaling = |scenario| Scenario {
        placement: Placement::Scaling,
        ..scenario
    };
    let busy = |scenario| Scenario {
        busy_neighbour: true,
        ..scenario
    };
    // What a shard gains and loses by staying on its CPU, and by staying awake.
    let spinning_too = Among::GeneralAnd(&[Variant::ListenerSpinning]);
    let unpinned_and_spinning_too =
        Among::GeneralAnd(&[Variant::ListenerUnpinned, Variant::ListenerSpinning]);
    let pinned_or_not = Among::Only(&[
        Variant::Direct,
        Variant::Listener,
        Variant::ListenerUnpinned,
    ]);
    // What it costs to be ready for the worst.
    let with_and_without = Among::GeneralAnd(&[Variant::EveryPolicy, Variant::NoPolicy]);
    let shards = Among::Only(&[Variant::OneShard, Variant::TwoShards]);
    // Where connect() is all there is to tell.
    let uncaptured = Among::GeneralAnd(&[Variant::EbpfExcluded]);
    // Others use a connection to the upstream for each client, and run out of files.
    let pooled = Among::Only(&[
        Variant::Direct,
        Variant::Listener,
        Variant::ListenerEpoll,
        Variant::Ebpf,
    ]);
    vec![
        http("http1 64B 1 conn, one core", SMALL, 1),
        http("http1 64B 32 conn, one core", SMALL, 32),
        http("http1 64B 1000 conn, one core", SMALL, 1000),
        among(
            with_and_without,
            http("http1 1KB 64 conn, one core", KILOBYTE, 64),
        ),
        http("http1 64KB 32 conn, one core", LARGE, 32),
        http("http1 1MB 4 conn, one core", HUGE, 4),
        among(
            spinning_too,
            apart(http("http1 64B 1 conn, apart", SMALL, 1)),
        ),
        apart(http("http1 64B 64 conn, apart", SMALL, 64)),
        among(
            unpinned_and_spinning_too,
            rate(15_000, apart(http("http1 1KB 15k/s, apart", KILOBYTE, 64))),
        ),
        among(
            pinned_or_not,
            busy(rate(
                15_000,
                apart(http("http1 1KB 15k/s, apart, busy neighbour", KILOBYTE, 64)),
            )),
        ),
        rate(15_000, http("http1 1KB 15k/s, one core", KILOBYTE, 64)),
        among(
            uncaptured,
            new(http("http1 64B new conn, one core", SMALL, 1)),
        ),
        new(http("http1 64B 32 new conn, one core", SMALL, 32)),
        tcp("tcp 64B 32 conn, one core", SMALL, 32),
        tcp("tcp 64KB 32 conn, one core", LARGE, 32),
        among(uncaptured, new(tcp("tcp 64B new conn, one core", SMALL, 1))),
        http("http1 64B 10 conn, one core", SMALL, 10),
        http("http1 64B 5000 conn, one core", SMALL, 5000),
        among(
            pooled,
            http("http1 64B 10000 conn, one core", SMALL, 10_000),
        ),
        among(
            shards,
            scaling(http("http1 1KB 2x64 conn, shards", KILOBYTE, 64)),
        ),
    ]
}

/// What is seen in two minutes.
pub fn quick() -> Vec<Scenario> {
    let quick = [
        "http1 64B 1 conn, one core",
        "http1 64B 32 conn, one core",
        "http1 64B new conn, one core",
        "tcp 64B 32 conn, one core",
        "http1 to mtls 1KB 64 conn, one core",
    ];
    let is_quick = |scenario: &Scenario| quick.contains(&scenario.name);
    all().into_iter().filter(is_quick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_quick_ones_exist() {
        let mut names: Vec<_> = all().into_iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert_eq!(quick().len(), 5);
    }

    #[test]
    fn connections_are_as_many_as_files_allow() {
        let scenario = closed(Protocol::Http1, "", 1, 10_000);
        assert_eq!(scenario.clone().within(20_000).connections, 10_000);
        assert_eq!(scenario.clone().within(4096).connections, 2048);
        assert_eq!(scenario.within(0).connections, 1);
    }
}
