//! Workloads: cgroups, network namespaces, and the privileges that serving them
//! takes.
//!
//! The proxy keeps no capability and becomes a user who owns nothing. Before it
//! starts its threads it starts a [`Helper`], a process of the same binary that
//! answers a short list of requests (listeners and sockets in a namespace, a
//! loader of capture, iptables rules, files that only root may open), and undoes
//! everything when the proxy ends, however it ends. Nothing here knows the
//! purpose of a socket.

pub(crate) mod capabilities;
pub(crate) mod cgroup;
pub(crate) mod commands;
pub(crate) mod confinement;
pub(crate) mod descriptors;
pub(crate) mod file_access;
pub(crate) mod helper;
pub(crate) mod local_addresses;
pub(crate) mod memory;
mod memory_limit;
pub(crate) mod named;
pub(crate) mod netns;
mod owned_file;
pub(crate) mod seccomp;
pub(crate) mod signals;
pub(crate) mod small_file;
pub(crate) mod socket_owner;
pub(crate) mod sockets;
pub(crate) mod supply;
pub(crate) mod temporary;
pub(crate) mod unix_socket;
pub(crate) mod user;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use cgroup::{Cgroup, find_cgroup2};
pub(crate) use commands::{Commands, RunnerNews};
pub(crate) use confinement::{confine, is_confined};
pub use helper::Helper;
pub(crate) use local_addresses::LocalAddresses;
pub(crate) use memory_limit::MemoryLimits;
pub(crate) use netns::Netns;
pub(crate) use socket_owner::Owner;
pub(crate) use sockets::{BindSpec, Family, Kind, Reach, SocketSpec, SocketStock};
pub(crate) use supply::Supply;
pub(crate) use user::{User, UserChange};

/// One captured cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its directory in cgroup2.
    pub cgroup: PathBuf,
    /// The network namespace of its programs; none: the proxy's own.
    pub netns: Option<PathBuf>,
}
