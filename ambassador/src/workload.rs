//! What is captured together: a cgroup, the network namespace of its
//! programs, and the privileges that serving it takes.
//!
//! The proxy itself keeps no capability and is a user who owns nothing. Before it
//! starts its threads it starts a [`Helper`], a small process of the same binary
//! that answers a handful of requests (listeners and sockets in a namespace, a
//! loader of capture, iptables rules, files that only root may open) and undoes
//! what was set up when the proxy ends, however it ends.
//! Nothing here knows what is listened for or dialled.

pub mod capabilities;
pub mod cgroup;
pub(crate) mod confinement;
pub(crate) mod descriptors;
pub mod file_access;
pub mod helper;
pub mod identity;
pub mod local_addresses;
pub mod memory;
mod memory_limit;
pub mod named;
pub mod netns;
pub mod seccomp;
pub mod signals;
pub mod small_file;
pub mod socket_owner;
pub mod sockets;
pub mod supply;
pub mod temporary;
pub mod unix_socket;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use capabilities::drop_all_capabilities;
pub use cgroup::{Cgroup, find_cgroup2};
pub use confinement::{confine, is_confined};
pub use helper::Helper;
pub use identity::{Identity, User};
pub use local_addresses::LocalAddresses;
pub use memory_limit::MemoryLimits;
pub use netns::Netns;
pub use socket_owner::Owner;
pub use sockets::{BindSpec, Family, Kind, Reach, SocketSpec, SocketStock};
pub use supply::Supply;

/// Which workload a listener, a token or a pool belongs to: dense, for the
/// life of the process. `exec` and `run` number their targets from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadId(pub u32);

/// One captured cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its directory in cgroup2.
    pub cgroup: PathBuf,
    /// The network namespace of its programs; none: the proxy's own.
    pub netns: Option<PathBuf>,
}
