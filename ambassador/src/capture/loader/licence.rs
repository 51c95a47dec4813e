//! What a loader may do. The helper tells it before the proxy can speak to it, so
//! the proxy cannot extend it.

use std::os::fd::{AsFd, OwnedFd};

use super::attach::{CONNECTS, DATAGRAMS};
use super::{Attach, During, Failure, MAPS};
use crate::capture::pins::Pinned;
use crate::capture::{bpf, pins};
use crate::workload::Cgroup;
use crate::workload::helper::Licence;

/// Names in one request at most: of every link, and of the page.
const NAMES_MAX: usize = CONNECTS.len() + DATAGRAMS.len() + 1;

/// Programs for targets of the licence only, with maps that are all there or
/// none.
pub(super) fn check_attach(
    licence: &Licence,
    request: &Attach,
    maps: &[OwnedFd],
) -> Result<(), Failure> {
    let targets = request.jobs.iter().map(|job| &job.workload.target);
    for target in targets {
        if !licence.targets.contains(target) {
            let cgroup = target.cgroup.display();
            return Err(refused(format!("{cgroup} is not registered")));
        }
    }
    if licence
        .proxy_port
        .is_some_and(|port| port != request.proxy_port)
    {
        return Err(refused("the port is not that of the proxy".into()));
    }
    match maps.len() {
        0 => Ok(()),
        all if all == MAPS.len() => Ok(()),
        _ => Err(refused("some maps are missing".into())),
    }
}

/// Names of ours for objects of ours: the page, and links of the cgroup itself.
pub(super) fn check_pins(
    licence: &Licence,
    cgroup_id: u64,
    names: &[String],
    objects: &[OwnedFd],
) -> Result<(), Failure> {
    check_names(names)?;
    if !is_target(licence, cgroup_id) || names.len() != objects.len() {
        return Err(refused("links of another cgroup".into()));
    }
    for (name, object) in names.iter().zip(objects) {
        if name == pins::PAGE {
            continue;
        }
        let linked = bpf::linked_cgroup(object.as_fd()).during(|| "looking at a link".into())?;
        if linked != cgroup_id {
            return Err(refused(format!("{name} is no link of the cgroup")));
        }
    }
    Ok(())
}

/// Names of ours, of a target's links or of those that hold on to nothing.
pub(super) fn check_unpin(
    licence: &Licence,
    cgroup_id: u64,
    names: &[String],
) -> Result<(), Failure> {
    check_names(names)?;
    match is_target(licence, cgroup_id) || (Pinned { cgroup_id }).is_gone() {
        true => Ok(()),
        false => Err(refused("names of another cgroup's links".into())),
    }
}

fn check_names(names: &[String]) -> Result<(), Failure> {
    let ours = |name: &String| {
        let mut links = CONNECTS.iter().chain(&DATAGRAMS);
        name == pins::PAGE || links.any(|(link, _)| name == link)
    };
    match names.len() <= NAMES_MAX && names.iter().all(ours) {
        true => Ok(()),
        false => Err(refused("names that no link has".into())),
    }
}

/// Whether a target's path names this cgroup now.
fn is_target(licence: &Licence, cgroup_id: u64) -> bool {
    let mut targets = licence.targets.iter();
    targets.any(|target| {
        let cgroup = Cgroup::open(&target.cgroup);
        cgroup.and_then(|cgroup| cgroup.id()).ok() == Some(cgroup_id)
    })
}

fn refused(detail: String) -> Failure {
    Failure {
        what: "refused".into(),
        detail,
    }
}
