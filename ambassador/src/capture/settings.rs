//! What is captured, and what happens where it can't be.

use std::path::PathBuf;

use ipnet::IpNet;

use crate::route::settings::Unmatched;

/// Everything the kernel side is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The cgroups whose connects are captured.
    pub targets: Vec<Target>,
    /// By which means.
    pub mode: Mode,
    /// What is in scope.
    pub include: Scope,
    /// What is out of scope, whatever `include` says.
    pub exclude: Scope,
    /// What happens to a destination in scope that no upstream claims.
    pub unmatched: Unmatched,
    /// What connects do while the proxy is dead, hung or out of slots.
    pub on_failure: OnFailure,
    /// What happens to QUIC.
    pub quic: Quic,
}

/// One cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its directory in cgroup2.
    pub cgroup: PathBuf,
    /// The network namespace of its programs; `None`: the proxy's own.
    pub netns: Option<PathBuf>,
}

/// The means of capture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// BPF programs at connect().
    #[default]
    Ebpf,
    /// REDIRECT rules.
    Iptables,
}

/// A set of destinations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Ports; empty: all in `include`, none of its own in `exclude`.
    pub ports: Vec<u16>,
    /// Networks; empty: all but loopback in `include`, none in `exclude`.
    pub cidrs: Vec<IpNet>,
}

/// What connects do while the proxy can't serve them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The kernel connects straight.
    #[default]
    Bypass,
    /// The connect is refused.
    Refuse,
}

/// What happens to UDP port 443.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Quic {
    /// It is left alone.
    #[default]
    Leave,
    /// It is refused, so that clients fall back to TCP.
    Refuse,
}
