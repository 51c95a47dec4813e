//! Who callers belong to.

use std::net::IpAddr;

/// Who a client belongs to: what has a share of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// A captured cgroup.
    Workload(u32),
    /// An address that has connected to a listener.
    Address(IpAddr),
    /// Whoever may use a unix socket.
    Local,
}
