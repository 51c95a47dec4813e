//! The checks, one function each.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::{Check, Facts};
use crate::capture::iptables::Backend;
use crate::capture::{self, Owner, PinDirectory, Program};
use crate::workload::capabilities::{Capability, has};
use crate::workload::cgroup::{find_cgroup2, own_cgroup};
use crate::workload::{Netns, file_access, seccomp};

/// The oldest kernel that everything is tried on.
const KERNEL: (u32, u32) = (6, 1);

pub(super) fn all(facts: &Facts) -> Vec<Check> {
    let cgroup = facts.cgroup.clone().or_else(|| own_cgroup().ok());
    vec![
        kernel(),
        privileges(),
        cgroup2(),
        programs(facts),
        bpf(cgroup.clone()),
        btf(),
        bpffs(),
        pins(capture::pin_directory()),
        io_uring(facts),
        netns(),
        seccomp(seccomp::is_available()),
        landlock(file_access::version()),
        ipv6(),
        iptables(),
        others(cgroup),
        left_behind(),
    ]
}

fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match version(release) {
        Some(version) if version >= KERNEL => Check::ok("kernel", release),
        Some(_) => Check::advice(
            "kernel",
            release,
            "use 6.1 or later, or capture.mode: iptables",
        ),
        None => Check::advice(
            "kernel",
            format!("unknown release {release:?}"),
            "use 6.1 or later",
        ),
    }
}

/// The first two numbers of a release such as `6.1.0-18-amd64`.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn privileges() -> Check {
    let needed = [
        (Capability::SysAdmin, "CAP_SYS_ADMIN"),
        (Capability::NetAdmin, "CAP_NET_ADMIN"),
        (Capability::Bpf, "CAP_BPF"),
    ];
    let lacking: Vec<&str> = needed
        .iter()
        .filter(|(capability, _)| !has(*capability))
        .map(|(_, name)| *name)
        .collect();
    if lacking.is_empty() {
        return Check::ok(
            "privileges",
            "enough to capture; they are given up after the start",
        );
    }
    Check::missing(
        "privileges",
        format!("no {}", lacking.join(", ")),
        "run as root to capture; explicit listeners need none",
    )
}

fn cgroup2() -> Check {
    let (mount, own) = match (find_cgroup2(), own_cgroup()) {
        (Ok(mount), Ok(own)) => (mount, own),
        (Err(error), _) | (_, Err(error)) => {
            return Check::missing("cgroup2", "not usable", error.to_string());
        }
    };
    let found = format!(
        "mounted at {}, we are in {}",
        mount.display(),
        own.display()
    );
    match writable(&own) {
        true => Check::ok("cgroup2", found),
        false => Check::advice(
            "cgroup2",
            found,
            "exec cannot make a group there: run it as root",
        ),
    }
}

fn writable(directory: &Path) -> bool {
    access(directory, Access::WRITE_OK).is_ok()
}

fn programs(facts: &Facts) -> Check {
    match facts.has_programs {
        true => Check::ok("programs", "the BPF programs are in this binary"),
        false => Check::missing(
            "programs",
            "this binary was built without capture",
            "build it with `cargo xtask build`",
        ),
    }
}

fn bpf(cgroup: Option<PathBuf>) -> Check {
    let Some(cgroup) = cgroup else {
        return Check::missing("bpf", "not tried", "needs cgroup2, see above");
    };
    match capture::programs_at(&cgroup) {
        Ok(_) => Check::ok("bpf", format!("cgroup hooks answer{}", unprivileged())),
        Err(error) => {
            let advice = match error.raw_os_error() {
                Some(libc::EPERM) => "run as root; in a container, with CAP_BPF and CAP_NET_ADMIN",
                Some(libc::ENOSYS) => {
                    "allow bpf(2): it is missing from the kernel or filtered by seccomp"
                }
                Some(libc::EINVAL) => {
                    "the kernel needs CONFIG_CGROUP_BPF, or use capture.mode: iptables"
                }
                _ => "check that the cgroup exists",
            };
            Check::missing("bpf", format!("{}: {error}", cgroup.display()), advice)
        }
    }
}

/// Not a condition: programs are loaded with privilege, and maps are used
/// through descriptors later.
fn unprivileged() -> String {
    match fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled") {
        Ok(value) => format!(", unprivileged_bpf_disabled={}", value.trim()),
        Err(_) => String::new(),
    }
}

fn btf() -> Check {
    match Path::new("/sys/kernel/btf/vmlinux").exists() {
        true => Check::ok("btf", "/sys/kernel/btf/vmlinux"),
        false => Check::missing(
            "btf",
            "the kernel does not describe its types",
            "use a kernel with CONFIG_DEBUG_INFO_BTF, and mount sysfs at /sys",
        ),
    }
}

fn bpffs() -> Check {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("bpf ").then(|| left.split(' ').nth(4))?
    });
    match mounted {
        Some(point) => Check::ok("bpffs", format!("mounted at {point}")),
        None => Check::advice(
            "bpffs",
            "not mounted",
            "only `on_failure: refuse` needs it: mount -t bpf bpf /sys/fs/bpf",
        ),
    }
}

pub(super) fn pins(found: io::Result<PinDirectory>) -> Check {
    match found {
        Ok(PinDirectory::None) => Check::ok("pins", "none yet"),
        Ok(PinDirectory::Ours) => Check::ok("pins", "nobody else can change their directory"),
        Ok(PinDirectory::NotOurs(flaw)) => Check::missing(
            "pins",
            flaw,
            "remove it and find out what made it; nothing is captured before",
        ),
        Err(error) => Check::advice(
            "pins",
            format!("cannot look at their directory: {error}"),
            "run doctor as root",
        ),
    }
}

pub(super) fn seccomp(available: io::Result<()>) -> Check {
    match available {
        Ok(()) => Check::ok(
            "seccomp",
            "the proxy keeps only the system calls that serving needs",
        ),
        Err(error) => Check::advice(
            "seccomp",
            format!("no filters: {error}"),
            "system calls are not limited: use a kernel with CONFIG_SECCOMP_FILTER",
        ),
    }
}

pub(super) fn landlock(version: io::Result<u32>) -> Check {
    let version = match version {
        Ok(version) if version >= file_access::WHOLE => {
            let found =
                format!("version {version}: the proxy writes only to what was named at the start");
            return Check::ok("landlock", found);
        }
        Ok(version) => {
            return Check::advice(
                "landlock",
                format!("version {version}: the proxy writes only to what was named at the start"),
                "from Linux 6.12 on it cannot signal other processes either",
            );
        }
        Err(error) => error,
    };
    let enable = match version.raw_os_error() {
        Some(libc::EOPNOTSUPP) => "enable it: `lsm=landlock,...` at boot",
        _ => "use a kernel with CONFIG_SECURITY_LANDLOCK",
    };
    let advice = format!("the proxy may write everything that its user may: {enable}");
    Check::advice("landlock", format!("not in use: {version}"), advice)
}

fn io_uring(facts: &Facts) -> Check {
    match &facts.why_not_ring {
        None => Check::ok("io_uring", format!("backend {}", facts.backend)),
        Some(why) => Check::advice(
            "io_uring",
            format!("backend {}, since {why}", facts.backend),
            "it works, with more CPU per request; allow io_uring (kernel.io_uring_disabled, seccomp)",
        ),
    }
}

fn netns() -> Check {
    match Netns::own().and_then(|own| own.enter()) {
        Ok(()) => Check::ok("netns", "namespaces can be entered"),
        Err(error) => Check::advice(
            "netns",
            format!("cannot enter a namespace: {error}"),
            "only cgroups with a `netns` of their own need it: run as root",
        ),
    }
}

fn ipv6() -> Check {
    match Path::new("/proc/self/net/if_inet6").exists() {
        true => Check::ok("ipv6", "available"),
        false => Check::advice(
            "ipv6",
            "not in this namespace",
            "IPv6 connections are not captured",
        ),
    }
}

fn iptables() -> Check {
    let versions = Backend::ALL.into_iter().filter_map(Backend::version);
    let versions: Vec<String> = versions.collect();
    match versions.is_empty() {
        false => Check::ok("iptables", versions.join(", ")),
        true => Check::advice(
            "iptables",
            "not installed",
            "only capture.mode: iptables needs it: install the package iptables",
        ),
    }
}

fn others(cgroup: Option<PathBuf>) -> Check {
    match cgroup.map(|cgroup| capture::programs_at(&cgroup)) {
        Some(Ok(attached)) => of_others(attached),
        Some(Err(_)) | None => Check::advice("others", "cannot tell", "see bpf above"),
    }
}

/// Programs of a running ambassador are no others: its guards are at the root
/// of the hierarchy, and so above every cgroup.
pub(super) fn of_others(attached: Vec<Program>) -> Check {
    let (ours, others): (Vec<_>, Vec<_>) = attached
        .into_iter()
        .partition(|program| program.owner == Owner::Ambassador);
    if !others.is_empty() {
        let list: Vec<String> = others.iter().map(ToString::to_string).collect();
        return Check::advice(
            "others",
            list.join(", "),
            "they run at the same connect(); if one rewrites destinations too, exclude them in one of the two",
        );
    }
    let mut names: Vec<&str> = ours.iter().map(|program| program.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    Check::ok(
        "others",
        match names.is_empty() {
            true => "no other program on our hooks".to_owned(),
            false => format!(
                "no other program on our hooks; a running ambassador has {}",
                names.join(", ")
            ),
        },
    )
}

fn left_behind() -> Check {
    let leftovers = super::leftovers();
    if leftovers.is_empty() {
        return Check::ok("leftovers", "none");
    }
    let list: Vec<String> = leftovers.iter().map(ToString::to_string).collect();
    Check::advice(
        "leftovers",
        list.join(", "),
        "remove them: ambassador doctor --clean",
    )
}
