//! The loader: a process of the same binary that loads and attaches the
//! programs, hands every descriptor to the proxy and goes away, and with it the
//! 5.5 MB that parsing the kernel's types costs. The only user of aya.
//!
//! The privileged helper starts it, and tells it what it may touch. It answers
//! one request after the other until its socket is closed.

mod attach;
mod licence;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::programs::Program;
use super::{Workload, handoff, pins};
use crate::workload::capabilities::Capability;
use crate::workload::confinement::confine_helper;
use crate::workload::helper::take_licence;

/// The hidden subcommand that `main` answers with [`loader_main`].
pub const LOADER_COMMAND: &str = "capture-loader";

/// The object that `build.rs` put here; empty in a binary built without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/capture.o"));

/// Maps that the workloads of one proxy share.
pub(super) const MAPS: [&str; 10] = [
    "SLOT_TABLE",
    "RULES",
    "SHARED",
    "VERDICTS",
    "CIRCUITS",
    "INTERNED",
    "RETURNED",
    "SHARES",
    "GRANTED",
    "AYA_LOGS",
];

/// Whether this binary can capture at all.
pub(super) fn built_with_capture() -> bool {
    !OBJECT.is_empty()
}

/// What the proxy asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Loads and attaches programs, with the [`MAPS`] that it carries or, at
    /// the start, with new ones.
    Attach(Attach),
    /// Gives names to the objects it carries, by which they outlive the proxy.
    Pin {
        /// The cgroup they are for.
        cgroup_id: u64,
        /// What each is called.
        names: Vec<String>,
    },
    /// Removes such names; all of the cgroup where none is given.
    Unpin {
        /// The cgroup they were for.
        cgroup_id: u64,
        /// Which.
        names: Vec<String>,
    },
}

/// Whether a datagram is a request, whatever it asks for; for fuzzing.
pub fn is_loader_request(datagram: &[u8]) -> bool {
    serde_json::from_slice::<Request>(datagram).is_ok()
}

/// Programs for some workloads; all of them or none.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Attach {
    pub jobs: Vec<Job>,
    pub proxy_port: u16,
    pub shards: u16,
    /// Links outlive the proxy.
    pub pinned: bool,
    pub kernel_log: bool,
}

/// What one workload gets.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub workload: Workload,
    /// Where its slots are counted.
    pub share: u32,
    /// The programs at connect() and getpeername(), and a canary.
    pub connects: bool,
    /// Those at sendmsg(), which refuse QUIC.
    pub datagrams: bool,
}

/// What the proxy says when the rules are in place.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Proceed {}

/// What the loader answers, in this order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// At the start: carries new [`MAPS`], and waits for [`Proceed`].
    Maps,
    /// Carries the links of a job, behind its canary where it has one.
    Attached {
        /// What the links are called.
        links: Vec<String>,
        /// Programs of others at the same hooks.
        others: Vec<Program>,
        /// Why IPv6 destinations get v4-mapped tokens, where they do.
        no_v6: Option<String>,
    },
    /// At the start: carries the guard's links, or says why there are none.
    Guard { error: Option<String> },
    /// The end of the answer.
    Done,
    /// The end of an answer that failed.
    Failed { what: String, detail: String },
}

/// A step that failed.
struct Failure {
    what: String,
    detail: String,
}

trait During<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: std::error::Error> During<T> for Result<T, E> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| {
            let mut detail = error.to_string();
            let mut source = error.source();
            while let Some(inner) = source {
                detail.push_str(": ");
                detail.push_str(&inner.to_string());
                source = inner.source();
            }
            Failure {
                what: what(),
                detail,
            }
        })
    }
}

/// What loading, attaching and entering namespaces take.
const KEPT: [Capability; 5] = [
    Capability::DacOverride,
    Capability::NetAdmin,
    Capability::SysPtrace,
    Capability::SysAdmin,
    Capability::Bpf,
];

/// Runs the loader; its standard input is the socket to the proxy.
pub fn loader_main() -> ExitCode {
    let socket = io::stdin().as_fd().try_clone_to_owned();
    let Ok(socket) = socket else {
        return ExitCode::FAILURE;
    };
    match confine_helper(&KEPT)
        .during(|| "giving up privileges".into())
        .and_then(|()| answer_all(socket.as_fd()))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { what, detail }) => {
            let failed = Reply::Failed { what, detail };
            // When the proxy is gone there is nobody left to tell.
            let _ = handoff::send(socket.as_fd(), &failed, &[]);
            ExitCode::FAILURE
        }
    }
}

fn answer_all(socket: BorrowedFd<'_>) -> Result<(), Failure> {
    let licence = take_licence(socket).during(|| "reading the licence".into())?;
    while let Some((request, fds)) =
        handoff::receive::<Request>(socket).during(|| "reading a request".into())?
    {
        match request {
            Request::Attach(request) => {
                licence::check_attach(&licence, &request, &fds)?;
                attach::answer(socket, &request, fds)?;
            }
            Request::Pin { cgroup_id, names } => {
                licence::check_pins(&licence, cgroup_id, &names, &fds)?;
                pin(cgroup_id, &names, &fds)?;
            }
            Request::Unpin { cgroup_id, names } => {
                licence::check_unpin(&licence, cgroup_id, &names)?;
                pins::remove(cgroup_id, &names)
                    .during(|| "removing the names of links from bpffs".into())?;
            }
        }
        reply(socket, &Reply::Done, &[])?;
    }
    Ok(())
}

fn pin(cgroup_id: u64, names: &[String], objects: &[OwnedFd]) -> Result<(), Failure> {
    let pins = pins::Directory::open().during(|| "opening bpffs for pinned links".into())?;
    for (name, object) in names.iter().zip(objects) {
        pins.pin(cgroup_id, name, object.as_fd())
            .during(|| format!("pinning {name}"))?;
    }
    Ok(())
}

fn reply(socket: BorrowedFd<'_>, reply: &Reply, fds: &[OwnedFd]) -> Result<(), Failure> {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    handoff::send(socket, reply, &fds).during(|| "answering the proxy".into())
}
