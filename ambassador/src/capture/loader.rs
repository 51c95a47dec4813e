//! The loader: a process of the same binary that loads and attaches the
//! programs, hands every descriptor to the proxy and goes away, and with it the
//! 5.5 MB that parsing the kernel's types costs. The only user of aya.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use ambassador_ebpf::SLOT_CANARY;
use aya::programs::CgroupSockAddr;
use aya::{Ebpf, EbpfLoader};
use serde::{Deserialize, Serialize};

use super::bpf::{self, Hook};
use super::{canary, handoff, netns, pins};
use crate::capture::settings::Target;

/// The hidden subcommand that `main` answers with [`loader_main`].
pub const LOADER_COMMAND: &str = "capture-loader";

/// The object that `build.rs` put here; empty in a binary built without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/capture.o"));

/// Maps that the workloads of one proxy share.
pub(super) const MAPS: [&str; 7] = [
    "SLOT_TABLE",
    "RULES",
    "SHARED",
    "VERDICTS",
    "INTERNED",
    "GRANTED",
    "AYA_LOGS",
];
/// Those of [`MAPS`], from the front, that the proxy itself uses.
pub(super) const MAPS_HANDED: usize = 4;

/// Whether this binary can capture at all.
pub(super) fn built_with_capture() -> bool {
    !OBJECT.is_empty()
}

/// What the proxy asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub targets: Vec<Target>,
    pub proxy_port: u16,
    pub shards: u16,
    pub refuse_quic: bool,
    /// Links outlive the proxy.
    pub pinned: bool,
    pub kernel_log: bool,
}

/// What the proxy says when the rules are in place.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Go {}

/// What the loader answers, in this order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// Carries the first [`MAPS_HANDED`] of [`MAPS`].
    Maps,
    /// Carries the target's canary socket, then its links.
    Attached {
        /// Programs of others at the same hooks.
        others: Vec<String>,
        /// Why IPv6 destinations get v4-mapped tokens, where they do.
        no_v6: Option<String>,
    },
    /// Carries the guard's links, or says why there are none.
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

/// Runs the loader; its standard input is the socket to the proxy.
pub fn loader_main() -> ExitCode {
    let socket = io::stdin().as_fd().try_clone_to_owned();
    let Ok(socket) = socket else {
        return ExitCode::FAILURE;
    };
    match answer(socket.as_fd()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { what, detail }) => {
            let failed = Reply::Failed { what, detail };
            // When the proxy is gone there is nobody left to tell.
            let _ = handoff::send(socket.as_fd(), &failed, &[]);
            ExitCode::FAILURE
        }
    }
}

/// One target with its descriptors opened, before the mounts change.
struct Opened {
    cgroup: File,
    netns: Option<File>,
    target: Target,
}

/// The constants of one target's programs, of the types these declare.
struct Globals {
    workload: u32,
    proxy_port: u32,
    shards: u32,
    v6_prefix: u32,
}

impl Globals {
    fn new(request: &Request, workload: usize, v6_prefix: bool) -> Self {
        Self {
            workload: workload as u32,
            proxy_port: request.proxy_port.into(),
            shards: request.shards.into(),
            v6_prefix: v6_prefix.into(),
        }
    }
}

fn answer(socket: BorrowedFd<'_>) -> Result<(), Failure> {
    let Some((request, _)) =
        handoff::receive::<Request>(socket).during(|| "reading the request".into())?
    else {
        return Ok(());
    };
    let targets = open(&request)?;
    let pins = match request.pinned {
        true => Some(pins::Directory::open().during(|| "opening bpffs for pinned links".into())?),
        false => None,
    };
    let shared = pins::private_bpffs().during(|| "mounting a private bpffs".into())?;
    let result = serve(socket, &request, &targets, &shared, pins.as_ref());
    if result.is_err() {
        // Best effort: what is reported is why the start failed.
        for opened in &targets {
            let _ = netns::unroute(opened.netns.as_ref(), request.proxy_port);
        }
        if let Some(pins) = pins {
            pins.remove_new();
        }
    }
    result
}

fn open(request: &Request) -> Result<Vec<Opened>, Failure> {
    let file = |path: &Path| File::open(path).during(|| format!("opening {}", path.display()));
    if request.targets.is_empty() {
        return Err(Failure {
            what: "starting capture".into(),
            detail: "no cgroup was named".into(),
        });
    }
    request
        .targets
        .iter()
        .map(|target| {
            Ok(Opened {
                cgroup: file(&target.cgroup)?,
                netns: target.netns.as_deref().map(file).transpose()?,
                target: target.clone(),
            })
        })
        .collect()
}

/// One target's programs, and why it has no IPv6 tokens.
struct Loaded {
    programs: Ebpf,
    no_v6: Option<String>,
}

fn serve(
    socket: BorrowedFd<'_>,
    request: &Request,
    targets: &[Opened],
    shared: &Path,
    pins: Option<&pins::Directory>,
) -> Result<(), Failure> {
    let mut loaded = load_all(request, targets, shared)?;
    let map = |name: &&str| bpf::open_pin(&shared.join(name)).during(|| format!("opening {name}"));
    let maps: Vec<OwnedFd> = MAPS[..MAPS_HANDED]
        .iter()
        .map(map)
        .collect::<Result<_, _>>()?;
    reply(socket, &Reply::Maps, &maps)?;
    let go = handoff::receive::<Go>(socket).during(|| "waiting for the rules".into())?;
    if go.is_none() {
        return Err(Failure {
            what: "waiting for the rules".into(),
            detail: "the proxy is gone".into(),
        });
    }

    let granted = map(&"GRANTED")?;
    for (opened, loaded) in targets.iter().zip(&loaded) {
        attach(socket, request, opened, loaded, granted.as_fd(), pins)?;
    }
    match guard(&targets[0].target.cgroup, &loaded[0].programs) {
        Ok(links) => reply(socket, &Reply::Guard { error: None }, &links)?,
        Err(error) => {
            let error = Some(error.to_string());
            reply(socket, &Reply::Guard { error }, &[])?;
        }
    }
    reply(socket, &Reply::Done, &[])?;
    if request.kernel_log {
        super::kernel_log::follow(&mut loaded[0].programs, socket)
            .during(|| "following the kernel log".into())?;
    }
    Ok(())
}

/// Loads the programs once per target; the maps are shared by their names.
fn load_all(request: &Request, targets: &[Opened], shared: &Path) -> Result<Vec<Loaded>, Failure> {
    let mut constants = Vec::new();
    for (workload, opened) in targets.iter().enumerate() {
        let no_v6 = netns::within(opened.netns.as_ref(), || netns::route(request.proxy_port))
            .err()
            .map(|error| error.to_string());
        constants.push((Globals::new(request, workload, no_v6.is_none()), no_v6));
    }
    let mut loader = loader(request, shared);
    let mut loaded = Vec::new();
    for (globals, no_v6) in &constants {
        let mut programs = loader
            .override_global("WORKLOAD", &globals.workload, true)
            .override_global("PROXY_PORT", &globals.proxy_port, true)
            .override_global("SHARDS", &globals.shards, true)
            .override_global("V6_PREFIX", &globals.v6_prefix, true)
            .load(OBJECT)
            .during(|| "loading the BPF object".into())?;
        for (name, _) in hooks(request).into_iter().chain(GUARD) {
            load(&mut programs, name)?;
        }
        let no_v6 = no_v6.clone();
        loaded.push(Loaded { programs, no_v6 });
    }
    Ok(loaded)
}

fn attach(
    socket: BorrowedFd<'_>,
    request: &Request,
    opened: &Opened,
    loaded: &Loaded,
    granted: BorrowedFd<'_>,
    pins: Option<&pins::Directory>,
) -> Result<(), Failure> {
    let path = opened.target.cgroup.display();
    // A kernel that cannot say is no reason not to start.
    let others = others(opened.cgroup.as_fd()).unwrap_or_default();
    let canary = canary::socket(&opened.target.cgroup, opened.netns.as_ref())
        .during(|| format!("making a socket in {path}"))?;
    bpf::write(granted, &canary.as_raw_fd(), &SLOT_CANARY)
        .during(|| "tagging the canary".into())?;
    let mut fds = vec![canary];
    for (name, hook) in hooks(request) {
        let link = link(&loaded.programs, name, hook, opened.cgroup.as_fd(), pins)
            .during(|| format!("attaching {name} to {path}"))?;
        fds.push(link);
    }
    let no_v6 = loaded.no_v6.clone();
    reply(socket, &Reply::Attached { others, no_v6 }, &fds)
}

/// Attaches the guard to the root of the cgroup2 mount that holds `cgroup`.
fn guard(cgroup: &Path, programs: &Ebpf) -> io::Result<Vec<OwnedFd>> {
    let root = File::open(canary::root_of(cgroup)?)?;
    GUARD
        .iter()
        .map(|(name, hook)| link(programs, name, *hook, root.as_fd(), None))
        .collect()
}

fn reply(socket: BorrowedFd<'_>, reply: &Reply, fds: &[OwnedFd]) -> Result<(), Failure> {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    handoff::send(socket, reply, &fds).during(|| "answering the proxy".into())
}

/// The programs of a target. getpeername comes first, so that no application
/// ever sees a token as its peer.
fn hooks(request: &Request) -> Vec<(&'static str, Hook)> {
    let mut hooks = vec![
        ("getpeername4", Hook::Getpeername4),
        ("getpeername6", Hook::Getpeername6),
        ("connect4", Hook::Connect4),
        ("connect6", Hook::Connect6),
    ];
    if request.refuse_quic {
        hooks.push(("sendmsg4", Hook::Sendmsg4));
        hooks.push(("sendmsg6", Hook::Sendmsg6));
    }
    hooks
}

const GUARD: [(&str, Hook); 2] = [("guard4", Hook::Connect4), ("guard6", Hook::Connect6)];

fn loader<'a>(request: &'a Request, shared: &Path) -> EbpfLoader<'a> {
    let mut loader = EbpfLoader::new();
    for name in MAPS {
        loader.map_pin_path(name, shared.join(name));
    }
    static OFF: u8 = 0;
    static DEBUG: u8 = 0xff;
    let level = if request.kernel_log { &DEBUG } else { &OFF };
    if !request.kernel_log {
        // The log's ring exists even when nothing is written: one page of it.
        loader.map_max_entries("AYA_LOGS", 4096);
    }
    loader.override_global("AYA_LOG_LEVEL", level, true);
    loader
}

fn load(programs: &mut Ebpf, name: &str) -> Result<(), Failure> {
    let missing = || Failure {
        what: format!("finding the program {name}"),
        detail: "the BPF object does not have it".into(),
    };
    let program: &mut CgroupSockAddr = programs
        .program_mut(name)
        .ok_or_else(missing)?
        .try_into()
        .during(|| format!("loading the program {name}"))?;
    program
        .load()
        .during(|| format!("loading the program {name}"))
}

/// Puts a program at its hook: behind the pinned link where one is left from
/// an earlier proxy, in one step, else by a new link.
fn link(
    programs: &Ebpf,
    name: &str,
    hook: Hook,
    cgroup: BorrowedFd<'_>,
    pins: Option<&pins::Directory>,
) -> io::Result<OwnedFd> {
    let program = programs
        .program(name)
        .ok_or(io::ErrorKind::NotFound)?
        .fd()
        .map_err(io::Error::other)?
        .as_fd();
    let Some(pins) = pins else {
        return bpf::attach(program, cgroup, hook);
    };
    let path = pins.path_of(cgroup, name)?;
    if let Ok(link) = bpf::open_pin(&path) {
        match bpf::relink(link.as_fd(), program) {
            Ok(()) => return Ok(link),
            // The cgroup it was for is gone; its directory's number was reused.
            Err(_) => std::fs::remove_file(&path)?,
        }
    }
    let link = bpf::attach(program, cgroup, hook)?;
    pins.pin(link.as_fd(), path)?;
    Ok(link)
}

/// The programs that run at our hooks for this cgroup already, as
/// `name (id)`; ours of an earlier proxy under their own names.
pub(super) fn others(cgroup: BorrowedFd<'_>) -> io::Result<Vec<String>> {
    let mut others = Vec::new();
    for hook in [Hook::Connect4, Hook::Connect6] {
        for id in bpf::effective(cgroup, hook)? {
            // The program may be gone by now, or its name be kept from us.
            let name = bpf::program_name(id).unwrap_or_else(|_| "?".into());
            others.push(format!("{hook:?}: {name} (id {id})"));
        }
    }
    Ok(others)
}
