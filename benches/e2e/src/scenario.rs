//! What is measured: a line for each.

use serde::Serialize;

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

/// Who runs where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// Client, proxy and upstream on one CPU.
    One,
    /// The proxy alone on a CPU, client and upstream on another.
    Apart,
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
    /// Connections at once.
    pub connections: u32,
    /// How requests come.
    pub load: Load,
    /// A connection for each request.
    pub new_connections: bool,
    /// Who runs where.
    pub placement: Placement,
}

impl Scenario {
    /// Whether a variant can do it.
    pub fn suits(&self, variant: Variant) -> bool {
        match variant {
            // Where it tells of connect() and of nothing else.
            Variant::EbpfExcluded => self.new_connections && self.connections == 1,
            _ => self.protocol.suits(variant),
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
    }
}

/// Everything.
pub fn all() -> Vec<Scenario> {
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
    vec![
        http("http1 64B 1 conn, one core", SMALL, 1),
        http("http1 64B 32 conn, one core", SMALL, 32),
        http("http1 64B 1000 conn, one core", SMALL, 1000),
        http("http1 1KB 64 conn, one core", KILOBYTE, 64),
        http("http1 64KB 32 conn, one core", LARGE, 32),
        http("http1 1MB 4 conn, one core", HUGE, 4),
        apart(http("http1 64B 1 conn, apart", SMALL, 1)),
        apart(http("http1 64B 64 conn, apart", SMALL, 64)),
        rate(15_000, apart(http("http1 1KB 15k/s, apart", KILOBYTE, 64))),
        rate(15_000, http("http1 1KB 15k/s, one core", KILOBYTE, 64)),
        new(http("http1 64B new conn, one core", SMALL, 1)),
        new(http("http1 64B 32 new conn, one core", SMALL, 32)),
        tcp("tcp 64B 32 conn, one core", SMALL, 32),
        tcp("tcp 64KB 32 conn, one core", LARGE, 32),
        new(tcp("tcp 64B new conn, one core", SMALL, 1)),
        http("http1 64B 10 conn, one core", SMALL, 10),
        http("http1 64B 5000 conn, one core", SMALL, 5000),
    ]
}

/// What is seen in two minutes.
pub fn quick() -> Vec<Scenario> {
    let quick = [
        "http1 64B 1 conn, one core",
        "http1 64B 32 conn, one core",
        "http1 64B new conn, one core",
        "tcp 64B 32 conn, one core",
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
        assert_eq!(quick().len(), 4);
    }
}
