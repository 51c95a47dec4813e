//! What goes between the proxy and its helper. Both are the same binary, so
//! there is no version to agree on.
//!
//! The helper believes none of it. What names something, a path or a
//! namespace, is looked for in what was registered (`registry`); numbers have
//! limits; what is left is a closed set.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::workload::named::Access;
use crate::workload::{BindSpec, SocketSpec, Target};

/// One datagram to the helper.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question<R = Request> {
    /// Which question this is; its answer says so.
    pub number: u64,
    /// What is asked.
    pub request: R,
}

/// Everything that the helper does; the descriptors of each are named.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Until [`Request::Seal`]: what later requests may be about.
    Register(Registration),
    /// Until the seal: a file that may be opened later. Its directory is named
    /// without links.
    RememberFile(PathBuf, Access),
    /// Answered with the file that was remembered at this place.
    OpenFile(usize),
    /// Until the seal: makes the cgroup of `exec` beside the proxy; answered
    /// with its directory. At the end what runs in it is ended, and it is
    /// removed.
    MakeCgroup,
    /// With a directory, until the seal. At the end: remove the directory of the
    /// admin socket of `exec` in this one.
    RemoveAdminDirectory,
    /// Nothing more is registered: the proxy is about to hear from others.
    Seal,
    /// Answered with the network namespace of a target, by its path.
    OpenNetns(PathBuf),
    /// Answered with the root directory of the process by which the path of a
    /// target names its namespace (`/proc/PID/ns/net`).
    OpenRoot(PathBuf),
    /// With a namespace: answered with the sockets of the capture listener.
    Listener(BindSpec),
    /// With a namespace: answered with the sockets.
    Sockets(SocketSpec),
    /// [standard error, until the seal]: starts a loader of capture for these
    /// targets and no others; answered with the socket to it.
    StartLoader(Vec<Target>),
    /// Waits for the loader that was started last of those not waited for.
    EndLoader,
    /// With a namespace: sets up iptables rules, or replaces them.
    InstallIptables(serde_json::Value),
    /// Sends a signal to a process of the cgroup that was made for `exec`.
    Signal {
        /// A process in it or below it.
        pid: i32,
        /// One of those that `exec` forwards.
        number: i32,
    },
    /// With a namespace. At the end: remove the rules.
    RemoveIptables,
    /// With a namespace. At the end: remove the route of the IPv6 tokens.
    RemoveTokenPrefix {
        /// The port of the proxy, which the prefix contains.
        proxy_port: u16,
    },
}

impl Request {
    /// Whether asking twice does the same as asking once.
    pub(super) fn may_be_asked_again(&self) -> bool {
        match self {
            Self::OpenFile(_)
            | Self::OpenNetns(_)
            | Self::OpenRoot(_)
            | Self::Listener(_)
            | Self::Sockets(_)
            | Self::EndLoader
            | Self::InstallIptables(_)
            | Self::RemoveIptables
            | Self::RemoveTokenPrefix { .. } => true,
            Self::Register(_)
            | Self::RememberFile(..)
            | Self::MakeCgroup
            | Self::RemoveAdminDirectory
            | Self::Seal
            | Self::StartLoader(_)
            | Self::Signal { .. } => false,
        }
    }
}

/// What is registered before the proxy gives up its privileges.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Registration {
    /// What is captured from the start.
    pub targets: Vec<Target>,
    /// The configuration: what it names later may be captured too. The
    /// helper reads it itself.
    pub config: Option<PathBuf>,
}

/// One datagram of an answer, with descriptors for those that have any.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Which question it is to; none where that could not be read.
    pub number: Option<u64>,
    /// What it says.
    pub reply: Reply,
}

/// What an answer says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// Part of the descriptors; another datagram follows.
    More,
    /// The rest of them.
    Done,
    /// Who was to answer has died, and another one has taken its place. What was
    /// asked may have been done.
    Restarted,
    /// What went wrong.
    Failed {
        /// The errno, where it was one.
        code: Option<i32>,
        /// In words.
        text: String,
    },
}
