//! Interception by iptables REDIRECT, as a comparison with the eBPF programs
//! and for kernels that lack the hooks.
//!
//! Rules live in the `nat` table of one namespace, in two chains named after
//! the process that owns them: the first says what is in scope, the second
//! what of that is claimed. A jump from OUTPUT takes the connections of one
//! cgroup there (xt_cgroup, Linux 4.5), so the proxy, in another cgroup, is
//! left alone. Every change is one transaction of `iptables-restore`: the
//! rules are there as a whole or not at all.
//!
//! What differs from eBPF: the destination must have a route; a proxy that
//! hangs refuses connections whatever `on_failure` says; and one that is
//! killed lets them pass as soon as the helper has removed the rules.

mod original;
mod restore;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::workload::cgroup::CgroupError;
use crate::workload::{Netns, find_cgroup2};

pub use original::original_dst;
pub use restore::Backend;
use restore::{Protocol, Table};

/// Ports in one `multiport` match at most (xt_multiport).
const PORTS_PER_RULE: usize = 15;
/// What the names of our chains begin with; the owner's number follows. A name
/// has 28 bytes at most.
const CHAIN_PREFIX: &str = "AMBASSADOR-";

/// Ports and networks; an empty list is no condition.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scope<'a> {
    /// Destination ports.
    pub ports: &'a [u16],
    /// Destination networks.
    pub cidrs: &'a [IpNet],
}

/// The rules of one workload.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Tells our chains from those of another proxy: our pid.
    pub owner: u32,
    /// Whose connections are taken: a directory under the cgroup2 mount.
    pub cgroup: &'a Path,
    /// Where they are taken to, on the loopback addresses of the namespace.
    pub proxy_port: u16,
    /// In scope when both conditions hold. Without networks: all but loopback.
    pub include: Scope<'a>,
    /// Out of scope when either condition holds.
    pub exclude: Scope<'a>,
    /// `unmatched: passthrough`: only these are taken.
    pub claims: Option<&'a [(IpNet, Option<u16>)]>,
    /// `quic: refuse`: UDP to port 443 is rejected.
    pub refuse_quic: bool,
    /// The mark of the proxy's own sockets, for a cgroup that contains it.
    pub exempt_mark: Option<u32>,
}

/// Why rules could not be set up.
#[derive(Debug)]
pub enum IptablesError {
    /// There is no iptables, or none that works here; what each said.
    NoBackend(Vec<(Backend, io::Error)>),
    /// The cgroup is not under the mounted hierarchy.
    Cgroup(PathBuf),
    /// There is no hierarchy.
    NoCgroup(CgroupError),
    /// The namespace could not be entered.
    Netns(io::Error),
}

impl std::fmt::Display for IptablesError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoBackend(tried) => {
                f.write_str("cannot set up iptables rules (needs root and the iptables package)")?;
                tried
                    .iter()
                    .try_for_each(|(backend, error)| write!(f, "; {backend}: {error}"))
            }
            Self::Cgroup(path) => {
                write!(
                    f,
                    "{} is not a cgroup of the mounted hierarchy",
                    path.display()
                )
            }
            Self::NoCgroup(_) => f.write_str("iptables mode needs cgroup2"),
            Self::Netns(_) => f.write_str("cannot enter the network namespace"),
        }
    }
}

impl std::error::Error for IptablesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoCgroup(error) => Some(error),
            Self::Netns(error) => Some(error),
            Self::NoBackend(_) | Self::Cgroup(_) => None,
        }
    }
}

/// Sets up rules in a namespace, replacing those that this owner has there.
/// The first backend that works is used, nft before legacy unless `backend`
/// names one, and returned. Needs CAP_NET_ADMIN and CAP_NET_RAW.
pub fn install(
    rules: &Rules<'_>,
    netns: &Netns,
    backend: Option<Backend>,
) -> Result<Backend, IptablesError> {
    let mount = find_cgroup2().map_err(IptablesError::NoCgroup)?;
    // The match wants the path from the root of the hierarchy, no slash first.
    let cgroup = rules
        .cgroup
        .strip_prefix(&mount)
        .ok()
        .and_then(Path::to_str)
        .ok_or_else(|| IptablesError::Cgroup(rules.cgroup.to_owned()))?;
    remove(netns, rules.owner).map_err(IptablesError::Netns)?;
    let install = || {
        let mut failures = Vec::new();
        let candidates = Backend::ALL
            .into_iter()
            .filter(|b| backend.is_none_or(|wanted| wanted == *b));
        for candidate in candidates {
            match apply(rules, cgroup, candidate) {
                Ok(()) => return Ok(candidate),
                Err(error) => failures.push((candidate, error)),
            }
            // What one protocol took before the other failed.
            restore::remove_owner(candidate, rules.owner);
        }
        Err(IptablesError::NoBackend(failures))
    };
    netns.run(install).map_err(IptablesError::Netns)?
}

/// Removes what an owner has in a namespace, from every backend. Nothing being
/// there is no error.
pub fn remove(netns: &Netns, owner: u32) -> io::Result<()> {
    netns.run(|| {
        for backend in Backend::ALL {
            restore::remove_owner(backend, owner);
        }
    })
}

/// The owners of rules in a namespace, in any backend.
pub fn owners(netns: &Netns) -> io::Result<Vec<u32>> {
    netns.run(|| {
        let mut owners: Vec<u32> = Backend::ALL.into_iter().flat_map(restore::owners).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    })
}

fn apply(rules: &Rules<'_>, cgroup: &str, backend: Backend) -> io::Result<()> {
    for protocol in Protocol::ALL {
        if protocol == Protocol::V6 && !Path::new("/proc/net/if_inet6").exists() {
            continue;
        }
        restore::feed(backend, protocol, &text(rules, cgroup, protocol))?;
    }
    Ok(())
}

/// The input of iptables-restore for one protocol.
fn text(rules: &Rules<'_>, cgroup: &str, protocol: Protocol) -> String {
    let (scope, claims) = chains(rules.owner);
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line("*nat");
    line(&format!(":{scope} - [0:0]"));
    line(&format!(":{claims} - [0:0]"));
    line(&jump(Table::Nat, cgroup, &scope));
    if let Some(mark) = rules.exempt_mark {
        line(&format!("-A {scope} -m mark --mark {mark:#x} -j RETURN"));
    }
    for cidr in of(protocol, rules.exclude.cidrs) {
        line(&format!("-A {scope} -d {cidr} -j RETURN"));
    }
    for ports in port_matches(rules.exclude.ports).into_iter().flatten() {
        line(&format!("-A {scope} -p tcp{ports} -j RETURN"));
    }
    if rules.include.cidrs.is_empty() {
        line(&format!("-A {scope} -d {} -j RETURN", protocol.loopback()));
    }
    let everywhere = [protocol.everywhere()];
    let included: Vec<IpNet> = match rules.include.cidrs {
        [] => everywhere.to_vec(),
        cidrs => of(protocol, cidrs).collect(),
    };
    for cidr in included {
        match port_matches(rules.include.ports) {
            None => line(&format!("-A {scope} -p tcp -d {cidr} -g {claims}")),
            Some(matches) => {
                for ports in matches {
                    line(&format!("-A {scope} -p tcp -d {cidr}{ports} -g {claims}"));
                }
            }
        }
    }
    let redirect = format!("-j REDIRECT --to-ports {}", rules.proxy_port);
    match rules.claims {
        None => line(&format!("-A {claims} -p tcp {redirect}")),
        Some(nets) => {
            for (net, port) in nets.iter().filter(|(net, _)| protocol.has(net)) {
                let port = port.map_or(String::new(), |port| format!(" --dport {port}"));
                line(&format!("-A {claims} -p tcp -d {net}{port} {redirect}"));
            }
        }
    }
    line("COMMIT");
    if rules.refuse_quic {
        line("*filter");
        line(&format!(":{scope} - [0:0]"));
        line(&jump(Table::Filter, cgroup, &scope));
        line(&format!("-A {scope} -p udp --dport 443 -j REJECT"));
        line("COMMIT");
    }
    text
}

fn jump(table: Table, cgroup: &str, chain: &str) -> String {
    let protocol = match table {
        Table::Nat => "tcp",
        Table::Filter => "udp",
    };
    // The root of the hierarchy: no match is needed, nor accepted.
    let from = match cgroup {
        "" => String::new(),
        path => format!(
            " -m cgroup --path \"{}\"",
            path.replace('\\', "\\\\").replace('"', "\\\"")
        ),
    };
    format!("-I OUTPUT 1 -p {protocol}{from} -j {chain}")
}

fn chains(owner: u32) -> (String, String) {
    let scope = format!("{CHAIN_PREFIX}{owner}");
    let claims = format!("{scope}-C");
    (scope, claims)
}

fn of(protocol: Protocol, cidrs: &[IpNet]) -> impl Iterator<Item = IpNet> {
    cidrs.iter().copied().filter(move |net| protocol.has(net))
}

/// The matches that cover all ports; None when there is no condition.
fn port_matches(ports: &[u16]) -> Option<Vec<String>> {
    if ports.is_empty() {
        return None;
    }
    let matches = ports.chunks(PORTS_PER_RULE).map(|ports| {
        let mut text = String::from(" -m multiport --dports ");
        for (index, port) in ports.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a String cannot fail.
            let _ = write!(text, "{comma}{port}");
        }
        text
    });
    Some(matches.collect())
}

#[cfg(test)]
mod tests;
