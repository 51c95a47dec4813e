//! What the figures should be: ratios of two variants in one run, and limits.
//! What is known of why one is missed stands beside it.

pub mod limits;
mod tls;

use std::fmt;

use serde::Serialize;

use crate::sample::Sample;
use crate::variant::Variant;

/// What of a sample is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Figure {
    /// Time of the proxy on a CPU, per request.
    Cpu,
    /// Median latency that was added to `direct`.
    AddedP50,
    /// Median latency.
    P50,
    /// Latency of the slowest hundredth.
    P99,
    /// The connect() call, median.
    Connect,
    /// Answers per second.
    Rate,
}

/// One target.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Target {
    /// In words.
    pub text: &'static str,
    /// The scenario.
    pub scenario: &'static str,
    /// What is compared.
    pub figure: Figure,
    /// This one,
    pub of: Variant,
    /// by that one,
    pub by: Variant,
    /// in this scenario,
    pub by_scenario: &'static str,
    /// is this.
    pub bound: Bound,
    /// Why it is missed, where that is known.
    pub why: Option<Why>,
}

/// What a figure has to keep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// No more.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
}

/// Why a target is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Why {
    /// A sentence.
    pub sentence: &'static str,
    /// What was recorded, of what, to know it.
    pub profile: &'static str,
}

impl Bound {
    /// Whether `value` keeps it.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "at most {most}"),
            Self::AtLeast(least) => write!(f, "at least {least}"),
        }
    }
}

impl Figure {
    /// Its value in one round; `direct` is the sample without a proxy.
    pub fn value(self, sample: &Sample, direct: Option<&Sample>) -> Option<f64> {
        match self {
            Self::Cpu => sample.cpu,
            Self::AddedP50 => Some(sample.p50 - direct?.p50),
            Self::P50 => Some(sample.p50),
            Self::P99 => Some(sample.p99),
            Self::Connect => sample.connect_p50,
            Self::Rate => Some(sample.per_second),
        }
    }
}

/// Everything on one core, as fast as it goes.
pub const SATURATED: &str = "http1 1KB 64 conn, one core";
const ALONE: &str = "http1 64B 1 conn, one core";
const SHARDS: &str = "http1 1KB 2x64 conn, shards";
/// What shows the cost of connect().
pub const NEW: &str = "http1 64B new conn, one core";

const HANDSHAKE: Why = Why {
    sentence: "The programs take a fraction of a microsecond, REDIRECT little more; the rest is \
               the handshake of both, which differs more from round to round.",
    profile: "spread of the rounds",
};

/// All of them.
pub fn all() -> Vec<Target> {
    [in_clear(), tls::all()].concat()
}

fn in_clear() -> Vec<Target> {
    use Variant::{
        Direct, Ebpf, Envoy, EveryPolicy, Haproxy, IptablesLegacy, IptablesNft, Listener,
        ListenerSpinning, ManyRoutes, ManyUpstreams, Nginx, NoPolicy, OneShard, Relay, TwoShards,
    };
    let target = |text, scenario, figure, of, by, at_most| Target {
        text,
        scenario,
        figure,
        of,
        by,
        by_scenario: scenario,
        bound: Bound::AtMost(at_most),
        why: None,
    };
    vec![
        Target {
            by_scenario: "http1 64B 10 conn, one core",
            why: Some(Why {
                sentence: "No function stands out: the state of ten thousand connections is not \
                           in the caches of the CPU, and nine of ten requests wait for one of \
                           1,024 upstream connections, their bytes copied meanwhile. On epoll \
                           the ratio is much the same.",
                profile: "perf record, 5,000 connections",
            }),
            ..target(
                "CPU per request, 10,000 connections of 10",
                "http1 64B 10000 conn, one core",
                Figure::Cpu,
                Listener,
                Listener,
                1.05,
            )
        },
        target(
            "CPU per request, of nginx",
            SATURATED,
            Figure::Cpu,
            Listener,
            Nginx,
            0.80,
        ),
        target(
            "CPU per request, of HAProxy",
            SATURATED,
            Figure::Cpu,
            Listener,
            Haproxy,
            0.75,
        ),
        target(
            "CPU per request, of Envoy",
            SATURATED,
            Figure::Cpu,
            Listener,
            Envoy,
            0.35,
        ),
        Target {
            why: Some(Why {
                sentence: "Of 16,000 instructions in user space a relay takes 5,200; parsing both \
                           heads takes 1,600, ids 650, the route 1,000, timers 1,000, the rest \
                           is spread thinly.",
                profile: "callgrind, 16 connections, 1 KB",
            }),
            ..target(
                "CPU per request, of a bare relay",
                SATURATED,
                Figure::Cpu,
                Listener,
                Relay,
                1.25,
            )
        },
        Target {
            why: Some(Why {
                sentence: "A request takes two system calls. Of what is added, most is a second \
                           passage through TCP and two changes of process, the same for all.",
                profile: "perf stat, system calls per request; perf record",
            }),
            ..target(
                "added p50, of nginx",
                ALONE,
                Figure::AddedP50,
                Listener,
                Nginx,
                0.80,
            )
        },
        target("p99, of nginx", ALONE, Figure::P99, Listener, Nginx, 1.0),
        target(
            "p99, of HAProxy",
            ALONE,
            Figure::P99,
            Listener,
            Haproxy,
            1.0,
        ),
        target(
            "CPU per request with 64 KB bodies, of HAProxy",
            "http1 64KB 32 conn, one core",
            Figure::Cpu,
            Listener,
            Haproxy,
            1.0,
        ),
        target(
            "CPU per TCP request, of nginx",
            "tcp 64B 32 conn, one core",
            Figure::Cpu,
            Listener,
            Nginx,
            0.95,
        ),
        Target {
            why: Some(HANDSHAKE),
            ..target(
                "connect(), of iptables-nft",
                NEW,
                Figure::Connect,
                Ebpf,
                IptablesNft,
                0.92,
            )
        },
        Target {
            why: Some(HANDSHAKE),
            ..target(
                "connect(), of iptables-legacy",
                NEW,
                Figure::Connect,
                Ebpf,
                IptablesLegacy,
                0.92,
            )
        },
        target(
            "new connection, p50, of iptables-nft",
            NEW,
            Figure::P50,
            Ebpf,
            IptablesNft,
            1.0,
        ),
        target(
            "new connection, p50, of iptables-legacy",
            NEW,
            Figure::P50,
            Ebpf,
            IptablesLegacy,
            1.0,
        ),
        target(
            "keep-alive p50, of the listener",
            ALONE,
            Figure::P50,
            Ebpf,
            Listener,
            1.0,
        ),
        Target {
            why: Some(Why {
                sentence: "What is left is the waking of the other CPU, by both hops, where client \
                           and upstream share it; without a proxy neither leaves it.",
                profile: "lateness of the generator's own timer, which is one such wake-up",
            }),
            ..target(
                "p50 at 15,000/s when spinning, of direct",
                "http1 1KB 15k/s, apart",
                Figure::P50,
                ListenerSpinning,
                Direct,
                1.1,
            )
        },
        target(
            "CPU per request, every policy of none",
            SATURATED,
            Figure::Cpu,
            EveryPolicy,
            NoPolicy,
            1.1,
        ),
        target(
            "CPU per request, 1000 upstreams of 2",
            "http1 64B 32 conn, one core",
            Figure::Cpu,
            ManyUpstreams,
            Listener,
            1.05,
        ),
        Target {
            text: "answers per second, two shards of one",
            scenario: SHARDS,
            figure: Figure::Rate,
            of: TwoShards,
            by: OneShard,
            by_scenario: SHARDS,
            bound: Bound::AtLeast(1.9),
            why: None,
        },
        target(
            "CPU per request, 1000 routes of none",
            "http1 64B 32 conn, one core",
            Figure::Cpu,
            ManyRoutes,
            Listener,
            1.05,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    #[test]
    fn every_target_is_of_a_scenario_that_there_is() {
        let scenarios = scenario::all();
        for target in all() {
            for (name, variant) in [
                (target.scenario, target.of),
                (target.by_scenario, target.by),
            ] {
                let scenario = scenarios.iter().find(|scenario| scenario.name == name);
                assert!(
                    scenario.is_some_and(|scenario| scenario.suits(variant)),
                    "{target:?}"
                );
            }
        }
    }

    #[test]
    fn a_bound_is_kept_on_its_side() {
        assert!(Bound::AtMost(1.0).holds(0.9) && !Bound::AtMost(1.0).holds(1.1));
        assert!(Bound::AtLeast(1.9).holds(2.0) && !Bound::AtLeast(1.9).holds(1.8));
    }
}
