//! What an `exec` left behind that was killed together with its helper.
//!
//! A cgroup or a chain carries the pid of its owner in its name. It is left
//! over when there is no such process, and, for a cgroup, nothing runs in it:
//! programs that go on without a proxy are not ours to end.
//! The route of the IPv6 tokens carries the port of the proxy: it is left over
//! when nothing listens there.

mod token_route;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::capture::iptables;
use crate::workload::Netns;
use crate::workload::cgroup::{self, EXEC_PREFIX, find_cgroup2};

pub use token_route::TokenRoute;

/// How deep in the hierarchy groups are looked for.
const DEPTH_MAX: u32 = 16;

/// Something whose owner is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    /// An empty cgroup.
    Cgroup(PathBuf),
    /// iptables rules in our namespace, of the process with this pid.
    Iptables(u32),
    /// The route of the IPv6 tokens of a proxy in our namespace.
    TokenRoute(TokenRoute),
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Self::Iptables(owner) => write!(f, "iptables rules of process {owner}"),
            Self::TokenRoute(route) => write!(f, "route of {}", route.prefix()),
        }
    }
}

/// Finds what is left over in the hierarchy and in our network namespace.
pub fn leftovers() -> Vec<Leftover> {
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
    found.extend(token_route::unused().into_iter().map(Leftover::TokenRoute));
    found
}

/// Removes everything that is left over; says for each whether it worked.
pub fn clean() -> Vec<(Leftover, io::Result<()>)> {
    let remove = |leftover: Leftover| {
        let removed = match &leftover {
            Leftover::Cgroup(path) => cgroup::remove(path),
            Leftover::Iptables(owner) => {
                Netns::own().and_then(|own| iptables::remove(&own, *owner))
            }
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

fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
