//! What killed proxies left behind: cgroups, iptables chains, pinned links,
//! routes.
//!
//! A cgroup or a chain carries the pid of its owner in its name. It is left
//! over when there is no such process, and, for a cgroup, nothing runs in it:
//! programs that go on without a proxy are not ours to end.
//! Pinned links are left over when their cgroup is gone, or when no shard of the
//! proxy has stamped its heartbeat for long: `on_failure: refuse` keeps a
//! cgroup cut off until a proxy comes back or its links are removed.
//! The route of the IPv6 tokens carries the port of the proxy: it is left over
//! when nothing listens there.

mod token_route;

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::capture::{self, Pinned, iptables};
use crate::workload::Netns;
use crate::workload::cgroup::{self, EXEC_PREFIX, find_cgroup2};

pub(super) use token_route::TokenRoute;

/// How deep in the hierarchy groups are looked for.
const DEPTH_MAX: u32 = 16;

/// How long a proxy whose links are pinned may be silent: it stamps its
/// heartbeat every 250 ms.
const SILENCE: Duration = Duration::from_secs(10);

/// Something whose owner is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// An empty cgroup.
    Cgroup(PathBuf),
    /// iptables rules in our namespace, of the process with this pid.
    Iptables(u32),
    /// Links pinned for a cgroup, which is named unless it is gone.
    Pinned(Pinned, Option<PathBuf>),
    /// The route of the IPv6 tokens of a proxy in our namespace.
    TokenRoute(TokenRoute),
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Self::Iptables(owner) => write!(f, "iptables rules of process {owner}"),
            Self::Pinned(_, Some(cgroup)) => write!(
                f,
                "pinned programs of a dead proxy at cgroup {}",
                cgroup.display()
            ),
            Self::Pinned(pinned, None) => {
                write!(f, "pinned programs of removed cgroup {}", pinned.cgroup_id)
            }
            Self::TokenRoute(route) => write!(f, "route of {}", route.prefix()),
        }
    }
}

/// Finds what is left over in the hierarchy and in our network namespace.
pub(crate) fn leftovers() -> Vec<Leftover> {
    let mut found = Vec::new();
    if let Ok(root) = find_cgroup2() {
        cgroups(&root, DEPTH_MAX, &mut found);
    }
    let owners = Netns::own()
        .and_then(|own| iptables::owners(&own))
        .unwrap_or_default();
    found.extend(
        owners
            .into_iter()
            .filter(|pid| !alive(*pid))
            .map(Leftover::Iptables),
    );
    let pinned = capture::all_pinned().unwrap_or_default();
    let dead = pinned
        .into_iter()
        .filter(|pinned| pinned.is_gone() || pinned.is_abandoned(SILENCE));
    found.extend(dead.map(|pinned| {
        let root = find_cgroup2().ok();
        let cgroup = root.and_then(|root| with_id(&root, pinned.cgroup_id, DEPTH_MAX));
        Leftover::Pinned(pinned, cgroup)
    }));
    found.extend(token_route::unused().into_iter().map(Leftover::TokenRoute));
    found
}

/// Removes everything that is left over; says for each whether it worked.
pub(crate) fn clean() -> Vec<(Leftover, io::Result<()>)> {
    let remove = |leftover: Leftover| {
        let removed = match &leftover {
            Leftover::Cgroup(path) => cgroup::remove(path),
            Leftover::Iptables(owner) => {
                Netns::own().and_then(|own| iptables::remove(&own, *owner))
            }
            Leftover::Pinned(pinned, _) => pinned.remove(),
            Leftover::TokenRoute(route) => route.remove(),
        };
        (leftover, removed)
    };
    leftovers().into_iter().map(remove).collect()
}

fn cgroups(group: &Path, depth: u32, found: &mut Vec<Leftover>) {
    // One that is removed while we look is not left over.
    let Ok(children) = cgroup::children(group) else {
        return;
    };
    for child in children {
        let owner = child.file_name().and_then(|name| {
            name.to_str()?
                .strip_prefix(EXEC_PREFIX)?
                .parse::<u32>()
                .ok()
        });
        let empty = matches!(cgroup::populated(&child), Ok(false));
        if owner.is_some_and(|pid| !alive(pid)) && empty {
            found.push(Leftover::Cgroup(child));
        } else if depth > 0 {
            cgroups(&child, depth - 1, found);
        }
    }
}

/// The cgroup with an id, at or below `group`.
fn with_id(group: &Path, id: u64, depth: u32) -> Option<PathBuf> {
    if group.metadata().ok()?.ino() == id {
        return Some(group.to_owned());
    }
    let below = depth.checked_sub(1)?;
    let mut children = cgroup::children(group).ok()?.into_iter();
    children.find_map(|child| with_id(&child, id, below))
}

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
