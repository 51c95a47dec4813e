//! Loading the programs of some workloads and attaching them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ambassador_ebpf::{CANARY, Granted};
use aya::programs::CgroupSockAddr;
use aya::{Ebpf, EbpfLoader};

use super::{Attach, During, Failure, Job, MAPS, OBJECT, Proceed, Reply, reply};
use crate::capture::bpf::{self, Hook};
use crate::capture::programs::{self, Owner, Program};
use crate::capture::{canary, handoff, kernel_log, netns, pins};
use crate::workload::{Cgroup, Netns};

/// A program and its hook.
pub(super) type Hooked = (&'static str, Hook);

/// getpeername comes first, so that no application ever sees a token as its
/// peer.
pub(super) const CONNECTS: [Hooked; 4] = [
    ("getpeername4", Hook::Getpeername4),
    ("getpeername6", Hook::Getpeername6),
    ("connect4", Hook::Connect4),
    ("connect6", Hook::Connect6),
];
pub(super) const DATAGRAMS: [Hooked; 2] =
    [("sendmsg4", Hook::Sendmsg4), ("sendmsg6", Hook::Sendmsg6)];
const GUARD: [Hooked; 2] = [("guard4", Hook::Connect4), ("guard6", Hook::Connect6)];

/// One job with its descriptors opened, before the mounts change.
struct OpenJob<'a> {
    job: &'a Job,
    cgroup: Cgroup,
    netns: Option<File>,
}

/// One job's programs.
struct LoadedJob {
    programs: Ebpf,
    /// Why it has no IPv6 tokens.
    no_v6: Option<String>,
}

/// Carries one request out; where it fails, it leaves nothing.
pub(super) fn answer(
    socket: BorrowedFd<'_>,
    request: &Attach,
    maps: Vec<OwnedFd>,
) -> Result<(), Failure> {
    let jobs = open(request)?;
    let pins = match request.pinned {
        true => pins::Directory::open().map(Some),
        false => pins::Directory::existing(),
    };
    let pins = pins.during(|| "opening bpffs for pinned links".into())?;
    let shared = pins::private_bpffs().during(|| "mounting a private bpffs".into())?;
    for (name, map) in MAPS.iter().zip(&maps) {
        bpf::pin(map.as_fd(), &shared.join(name)).during(|| format!("sharing the map {name}"))?;
    }
    let is_start = maps.is_empty();
    let mut routed = Vec::new();
    let result = prepare(&jobs, request.proxy_port, &mut routed)
        .and_then(|constants| load_all(request, &jobs, constants, &shared))
        .and_then(|loaded| {
            serve(
                socket,
                request,
                &jobs,
                loaded,
                (&shared, is_start),
                pins.as_ref(),
            )
        });
    if result.is_err() {
        // Best effort: what is reported is why the request failed.
        for netns in routed {
            let _ = netns::unroute(netns, request.proxy_port);
        }
        if let Some(pins) = pins {
            pins.remove_new();
        }
    }
    result
}

fn open(request: &Attach) -> Result<Vec<OpenJob<'_>>, Failure> {
    let opening = |path: &Path| format!("opening {}", path.display());
    if request.jobs.is_empty() {
        return Err(Failure {
            what: "starting capture".into(),
            detail: "no cgroup was named".into(),
        });
    }
    request
        .jobs
        .iter()
        .map(|job| {
            let target = &job.workload.target;
            let cgroup = Cgroup::open(&target.cgroup).during(|| opening(&target.cgroup))?;
            let netns = target.netns.as_deref().map(|path| {
                let netns = Netns::open(path).and_then(|netns| netns.as_fd().try_clone_to_owned());
                netns.during(|| opening(path)).map(File::from)
            });
            Ok(OpenJob {
                job,
                cgroup,
                netns: netns.transpose()?,
            })
        })
        .collect()
}

/// Adds the token prefix to each namespace and says where there is none, and
/// why. `routed` gets those that had no prefix before.
fn prepare<'a>(
    jobs: &'a [OpenJob<'_>],
    proxy_port: u16,
    routed: &mut Vec<Option<&'a File>>,
) -> Result<Vec<Option<String>>, Failure> {
    let mut no_v6 = Vec::new();
    for opened in jobs {
        let netns = opened.netns.as_ref();
        match netns::within(netns, || netns::route(proxy_port)) {
            Ok(new) => {
                if new {
                    routed.push(netns);
                }
                no_v6.push(None);
            }
            Err(error) => no_v6.push(Some(error.to_string())),
        }
    }
    Ok(no_v6)
}

/// Loads the programs once per job; the maps are shared by their names.
fn load_all(
    request: &Attach,
    jobs: &[OpenJob<'_>],
    no_v6: Vec<Option<String>>,
    shared: &Path,
) -> Result<Vec<LoadedJob>, Failure> {
    let (proxy_port, shards) = (u32::from(request.proxy_port), u32::from(request.shards));
    jobs.iter()
        .zip(no_v6)
        .map(|(opened, no_v6)| {
            let v6_prefix = u32::from(no_v6.is_none());
            let mut programs = loader(request, shared)
                .override_global("WORKLOAD", &opened.job.workload.number, true)
                .override_global("SHARE", &opened.job.share, true)
                .override_global("PROXY_PORT", &proxy_port, true)
                .override_global("SHARDS", &shards, true)
                .override_global("V6_PREFIX", &v6_prefix, true)
                .load(OBJECT)
                .during(|| "loading the BPF object".into())?;
            for (name, _) in hooks(opened.job).chain(GUARD) {
                load(&mut programs, name)?;
            }
            Ok(LoadedJob { programs, no_v6 })
        })
        .collect()
}

fn serve(
    socket: BorrowedFd<'_>,
    request: &Attach,
    jobs: &[OpenJob<'_>],
    mut loaded: Vec<LoadedJob>,
    (shared, is_start): (&Path, bool),
    pins: Option<&pins::Directory>,
) -> Result<(), Failure> {
    let map = |name: &&str| bpf::open_pin(&shared.join(name)).during(|| format!("opening {name}"));
    let maps: Vec<OwnedFd> = MAPS.iter().map(map).collect::<Result<_, _>>()?;
    if is_start {
        reply(socket, &Reply::Maps, &maps)?;
        let go = handoff::receive::<Proceed>(socket).during(|| "waiting for the rules".into())?;
        if go.is_none() {
            return Err(Failure {
                what: "waiting for the rules".into(),
                detail: "the proxy is gone".into(),
            });
        }
    }
    let granted = map(&"GRANTED")?;
    let page = map(&pins::PAGE)?;
    for (opened, loaded) in jobs.iter().zip(&loaded) {
        let cgroup = opened.cgroup.as_fd();
        let id = pins::id_of(cgroup).during(|| "reading a cgroup".into())?;
        let place = Place { cgroup, id, pins };
        if let Some(pins) = pins {
            pins.pin(id, pins::PAGE, page.as_fd())
                .during(|| format!("pinning {}", pins::PAGE))?;
        }
        attach(socket, opened, loaded, &place, granted.as_fd())?;
    }
    if is_start {
        match guard(&jobs[0].job.workload.target.cgroup, &loaded[0].programs) {
            Ok(links) => reply(socket, &Reply::Guard { error: None }, &links)?,
            Err(error) => {
                let error = Some(error.to_string());
                reply(socket, &Reply::Guard { error }, &[])?;
            }
        }
    }
    if request.kernel_log && is_start {
        reply(socket, &Reply::Done, &[])?;
        return kernel_log::follow(&mut loaded[0].programs, socket)
            .during(|| "following the kernel log".into());
    }
    Ok(())
}

fn attach(
    socket: BorrowedFd<'_>,
    opened: &OpenJob<'_>,
    loaded: &LoadedJob,
    place: &Place<'_>,
    granted: BorrowedFd<'_>,
) -> Result<(), Failure> {
    let target = &opened.job.workload.target;
    let path = target.cgroup.display();
    // A kernel that cannot say is no reason not to start.
    let mut others = programs::at(opened.cgroup.as_fd()).unwrap_or_default();
    // Another proxy's guard lets pass what is not its own.
    let is_guard = |program: &Program| GUARD.iter().any(|(name, _)| program.name == *name);
    others.retain(|program| program.owner == Owner::Other || !is_guard(program));
    let mut fds = Vec::new();
    if opened.job.connects {
        let canary = canary::socket(&target.cgroup, opened.netns.as_ref())
            .during(|| format!("making a socket in {path}"))?;
        let tag = Granted {
            number: CANARY,
            workload: 0,
            addr: [0; 4],
            port: 0,
            pad: 0,
        };
        bpf::write(granted, &canary.as_raw_fd(), &tag).during(|| "tagging the canary".into())?;
        fds.push(canary);
    }
    let mut links = Vec::new();
    for (name, hook) in hooks(opened.job) {
        let link = link(&loaded.programs, name, hook, place)
            .during(|| format!("attaching {name} to {path}"))?;
        fds.push(link);
        links.push(name.to_owned());
    }
    if let Some(pins) = place.pins
        && opened.job.connects
    {
        pins.remove_others(place.id, &links)
            .during(|| format!("removing what an earlier proxy pinned for {path}"))?;
    }
    let attached = Reply::Attached {
        links,
        others,
        no_v6: loaded.no_v6.clone(),
    };
    reply(socket, &attached, &fds)
}

/// Attaches the guard to the root of the cgroup2 mount that holds `cgroup`.
fn guard(cgroup: &Path, programs: &Ebpf) -> io::Result<Vec<OwnedFd>> {
    let root = File::open(canary::root_of(cgroup)?)?;
    let place = Place {
        cgroup: root.as_fd(),
        id: pins::id_of(root.as_fd())?,
        pins: None,
    };
    GUARD
        .iter()
        .map(|(name, hook)| link(programs, name, *hook, &place))
        .collect()
}

fn hooks(job: &Job) -> impl Iterator<Item = Hooked> {
    let connects = CONNECTS.into_iter().filter(|_| job.connects);
    connects.chain(DATAGRAMS.into_iter().filter(|_| job.datagrams))
}

fn loader<'a>(request: &'a Attach, shared: &Path) -> EbpfLoader<'a> {
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

/// Where programs are attached.
struct Place<'a> {
    cgroup: BorrowedFd<'a>,
    id: u64,
    pins: Option<&'a pins::Directory>,
}

/// Puts a program at its hook: behind the pinned link where one is left from
/// an earlier proxy, in one step, else by a new link.
fn link(programs: &Ebpf, name: &str, hook: Hook, place: &Place<'_>) -> io::Result<OwnedFd> {
    let program = programs
        .program(name)
        .ok_or(io::ErrorKind::NotFound)?
        .fd()
        .map_err(io::Error::other)?
        .as_fd();
    let Some(pins) = place.pins else {
        return bpf::attach(program, place.cgroup, hook);
    };
    if let Some(link) = pins.take_over(place.id, name, program)? {
        return Ok(link);
    }
    let link = bpf::attach(program, place.cgroup, hook)?;
    pins.pin(place.id, name, link.as_fd())?;
    Ok(link)
}
