//! What is captured, as the configuration says it, checked.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::circuits::CircuitNumber;
use crate::route::settings::Unmatched;

pub use crate::route::settings::OnFailure;
pub use crate::workload::Target;

/// `capture` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The cgroups whose connects are captured, each a workload of its own.
    pub targets: Vec<Target>,
    /// How.
    pub mode: Mode,
    /// The scope. Without CIDRs: everything but loopback. A CIDR reaches into
    /// loopback only where it lies inside it.
    pub include: Scope,
    /// Taken out of the scope; empty takes nothing out.
    pub exclude: Scope,
    /// What happens in scope to a destination that no upstream claims.
    pub unmatched: Unmatched,
    /// What connects do when the proxy is dead or hung or the table is full.
    pub on_failure: OnFailure,
    /// What happens to QUIC.
    pub quic: Quic,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            mode: Mode::Ebpf,
            include: Scope::default(),
            exclude: Scope::default(),
            unmatched: Unmatched::Proxy,
            on_failure: OnFailure::Bypass,
            quic: Quic::Leave,
        }
    }
}

/// How connects reach the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Programs at connect(): this module.
    #[default]
    Ebpf,
    /// REDIRECT rules.
    Iptables,
}

/// Ports and networks; both must match, an empty list matches all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Scope {
    /// Destination ports.
    pub ports: Vec<u16>,
    /// Destination networks.
    pub cidrs: Vec<IpNet>,
}

/// What happens to UDP port 443 in scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quic {
    /// Nothing.
    #[default]
    Leave,
    /// ECONNREFUSED, so that clients fall back to TCP.
    Refuse,
}

/// What the upstreams claim, as far as the kernel can know it: networks and
/// the current resolutions of exact names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    /// Claimed networks; what two upstreams claim is there twice.
    pub nets: Vec<Claim>,
    /// Some upstream claims names: `unmatched: refuse` must then wait for what
    /// the connection says.
    pub any_names: bool,
}

/// A network that an upstream claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The network; an address is one of full length.
    pub net: IpNet,
    /// Only at this port.
    pub port: Option<u16>,
    /// The upstream's own failure policy.
    pub on_failure: Option<OnFailure>,
    /// Refuses connects while it is open. It has no say where another upstream
    /// claims the destination, too.
    pub circuit: Option<CircuitNumber>,
}

impl Claim {
    /// One without a policy of its own and without a circuit.
    pub fn new(net: IpNet, port: Option<u16>) -> Self {
        Self {
            net,
            port,
            on_failure: None,
            circuit: None,
        }
    }

    /// Whether it is for everything that is in a network, at a port; `None`: at
    /// every port that nobody names.
    pub(super) fn covers(&self, net: &IpNet, port: Option<u16>) -> bool {
        self.net.contains(net) && (self.port.is_none() || self.port == port)
    }

    /// Whether there is a destination that both are for.
    pub fn overlaps(&self, other: &Self) -> bool {
        let ports = self.port.is_none() || other.port.is_none() || self.port == other.port;
        ports && (self.net.contains(&other.net) || other.net.contains(&self.net))
    }
}
