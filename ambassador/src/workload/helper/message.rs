//! What goes between the proxy and its helper. Both are the same binary, so
//! there is no version to agree on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::workload::named::Access;
use crate::workload::{BindSpec, SocketSpec};

/// Everything that the helper does; the descriptors of each are named.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Until [`Request::Seal`]: a file that may be opened later. Its directory
    /// is named without links.
    RememberFile(PathBuf, Access),
    /// Answered with the file that was remembered at this place.
    OpenFile(usize),
    /// Nothing more is remembered: the proxy is about to hear from others.
    Seal,
    /// Answered with the network namespace that the path names, and with
    /// nothing else that a path may name.
    OpenNetns(PathBuf),
    /// Answered with the root directory of the process by which the path names
    /// a namespace (`/proc/PID/ns/net`).
    OpenRoot(PathBuf),
    /// [namespace]: answered with the listening sockets.
    Listener(BindSpec),
    /// [namespace]: answered with the sockets.
    Sockets(SocketSpec),
    /// [standard error]: starts the loader of capture; answered with the
    /// socket to it.
    StartLoader,
    /// Waits for the loader that was started last of those not waited for.
    EndLoader,
    /// [namespace]: sets up iptables rules, or replaces them.
    InstallIptables(serde_json::Value),
    /// Sends a signal to a process of a cgroup that `exec` made.
    Signal {
        /// The cgroup.
        cgroup: PathBuf,
        /// A process in it or below it.
        pid: i32,
        /// The signal.
        number: i32,
    },
    /// At the end: end what runs in it and remove it.
    RemoveCgroup(PathBuf),
    /// At the end: remove this directory of an admin socket that `exec` made.
    RemoveAdminDirectory(PathBuf),
    /// [namespace]. At the end: remove the rules.
    RemoveIptables {
        /// The number in the names of the chains.
        owner: u32,
    },
    /// [namespace]. At the end: remove the route of the IPv6 tokens.
    RemoveTokenPrefix {
        /// The port of the proxy, which the prefix contains.
        proxy_port: u16,
    },
}

/// One datagram of an answer, with descriptors for those that have any.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// Part of the descriptors; another datagram follows.
    More,
    /// The rest of them.
    Done,
    /// What went wrong.
    Failed {
        /// The errno, where it was one.
        code: Option<i32>,
        /// In words.
        text: String,
    },
}
