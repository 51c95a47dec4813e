//! Interception by iptables REDIRECT, as a comparison with the eBPF programs
//! and for kernels that lack the hooks.
//!
//! Rules live in the `nat` table of one namespace, in three chains named after
//! the process that owns them: the first, jumped to from OUTPUT, matches
//! the captured cgroups (xt_cgroup, Linux 4.5), so the proxy in another cgroup is
//! not captured; the second matches the scope, the third the claims. Every change
//! is one transaction of `iptables-restore` for each table: the rules change as a
//! whole, and at no moment are there none.
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
use serde::{Deserialize, Serialize};

use super::settings::Scope;
use crate::workload::cgroup::CgroupError;
use crate::workload::{Netns, find_cgroup2};

pub(crate) use original::original_dst;
pub(crate) use restore::Backend;
use restore::{Protocol, Table};

/// Ports in one `multiport` match at most (xt_multiport).
const PORTS_PER_RULE: usize = 15;
/// What the names of our chains begin with; the owner's number follows. A name
/// has 28 bytes at most.
const CHAIN_PREFIX: &str = "AMBASSADOR-";

/// The rules of one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rules {
    /// Tells our chains from those of another proxy: our pid.
    pub owner: u32,
    /// Whose connections are taken: directories under the cgroup2 mount.
    pub cgroups: Vec<PathBuf>,
    /// Where they are taken to, on the loopback addresses of the namespace.
    pub proxy_port: u16,
    /// In scope when both conditions hold. Without networks: all but loopback.
    pub include: Scope,
    /// Out of scope when either condition holds.
    pub exclude: Scope,
    /// `unmatched: passthrough`: only these are taken.
    pub claims: Option<Vec<(IpNet, Option<u16>)>>,
    /// `quic: refuse`: UDP to port 443 is rejected.
    pub refuse_quic: bool,
    /// The mark of the proxy's own sockets, for a cgroup that contains it.
    pub exempt_mark: Option<u32>,
}

/// Why rules could not be set up.
#[derive(Debug)]
pub(crate) enum IptablesError {
    /// There is no iptables, or none that works here; what each said.
    NoBackend(Vec<(Backend, io::Error)>),
    /// The environment names none that exists.
    UnknownBackend(String),
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
            Self::UnknownBackend(name) => write!(
                f,
                "{} must be nft or legacy, got {name}",
                Backend::ENVIRONMENT
            ),
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
            Self::NoBackend(_) | Self::UnknownBackend(_) | Self::Cgroup(_) => None,
        }
    }
}

/// Sets up rules in a namespace, in place of those that this owner has there.
/// The backend that has those is used; else the first that works, nft before
/// legacy unless `backend` or the environment ([`Backend::ENVIRONMENT`]) names
/// one. Needs CAP_NET_ADMIN and CAP_NET_RAW. On
/// an error there may be rules for one protocol: the caller installs what it
/// had, or removes them.
pub(crate) fn install(
    rules: &Rules,
    netns: &Netns,
    backend: Option<Backend>,
) -> Result<Backend, IptablesError> {
    let mount = find_cgroup2().map_err(IptablesError::NoCgroup)?;
    // The match wants the path from the root of the hierarchy, no slash first.
    let within = |cgroup: &PathBuf| {
        let path = cgroup.strip_prefix(&mount).ok().and_then(Path::to_str);
        path.map(str::to_owned)
            .ok_or_else(|| IptablesError::Cgroup(cgroup.clone()))
    };
    let cgroups: Vec<String> = rules.cgroups.iter().map(within).collect::<Result<_, _>>()?;
    let named = Backend::from_environment().map_err(IptablesError::UnknownBackend)?;
    let backend = backend.or(named);
    let install = || {
        let wanted = |candidate: &Backend| backend.is_none_or(|wanted| wanted == *candidate);
        let candidates = Backend::ALL.into_iter().filter(wanted);
        let installed = candidates
            .clone()
            .find(|candidate| restore::owners(*candidate).contains(&rules.owner));
        if let Some(installed) = installed {
            return match apply(rules, &cgroups, installed) {
                Ok(()) => Ok(installed),
                Err(error) => Err(IptablesError::NoBackend(vec![(installed, error)])),
            };
        }
        let mut failures = Vec::new();
        for candidate in candidates {
            match apply(rules, &cgroups, candidate) {
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
pub(crate) fn remove(netns: &Netns, owner: u32) -> io::Result<()> {
    netns.run(|| {
        for backend in Backend::ALL {
            restore::remove_owner(backend, owner);
        }
    })
}

/// The owners of rules in a namespace, in any backend.
pub(crate) fn owners(netns: &Netns) -> io::Result<Vec<u32>> {
    netns.run(|| {
        let mut owners: Vec<u32> = Backend::ALL.into_iter().flat_map(restore::owners).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    })
}

fn apply(rules: &Rules, cgroups: &[String], backend: Backend) -> io::Result<()> {
    for protocol in Protocol::ALL {
        if protocol == Protocol::V6 && !Path::new("/proc/net/if_inet6").exists() {
            continue;
        }
        // A table that cannot be read has nothing of ours.
        let [nat, filter] = [Table::Nat, Table::Filter]
            .map(|table| restore::save(backend, protocol, table).unwrap_or_default());
        let mut text = nat_text(rules, cgroups, protocol, restore::has(&nat, rules.owner));
        if rules.refuse_quic {
            let known = restore::has(&filter, rules.owner);
            text.push_str(&filter_text(rules, cgroups, known));
        } else if let Some(removal) = restore::removal(&filter, Table::Filter, rules.owner) {
            text.push_str(&removal);
        }
        restore::feed(backend, protocol, &text)?;
    }
    Ok(())
}

/// What iptables-restore reads, line by line. A chain that is declared is made,
/// or emptied where it exists.
#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// The chain that says which cgroups are captured, and the jump to it.
    fn cgroups(
        &mut self,
        chain: &str,
        protocol: &str,
        to: &str,
        (cgroups, known): (&[String], bool),
    ) {
        if !known {
            self.line(&format!("-I OUTPUT 1 -p {protocol} -j {chain}"));
        }
        for cgroup in cgroups {
            // The root of the hierarchy: no match is needed, nor accepted.
            let from = match cgroup.as_str() {
                "" => String::new(),
                path => {
                    let path = path.replace('\\', "\\\\").replace('"', "\\\"");
                    format!(" -m cgroup --path \"{path}\"")
                }
            };
            self.line(&format!("-A {chain}{from} {to}"));
        }
    }
}

/// The input of iptables-restore for the connections of one protocol. `known`:
/// the chains exist.
fn nat_text(rules: &Rules, cgroups: &[String], protocol: Protocol, known: bool) -> String {
    let [captured, scope, claims] = chains(rules.owner);
    let mut text = Text::default();
    text.line("*nat");
    for chain in [&captured, &scope, &claims] {
        text.line(&format!(":{chain} - [0:0]"));
    }
    text.cgroups(&captured, "tcp", &format!("-j {scope}"), (cgroups, known));
    if let Some(mark) = rules.exempt_mark {
        text.line(&format!("-A {scope} -m mark --mark {mark:#x} -j RETURN"));
    }
    for cidr in of(protocol, &rules.exclude.cidrs) {
        text.line(&format!("-A {scope} -d {cidr} -j RETURN"));
    }
    for ports in port_matches(&rules.exclude.ports).into_iter().flatten() {
        text.line(&format!("-A {scope} -p tcp{ports} -j RETURN"));
    }
    // A network reaches into loopback only where it lies inside it.
    let loopback = protocol.loopback();
    let (near, mut far): (Vec<IpNet>, Vec<IpNet>) =
        of(protocol, &rules.include.cidrs).partition(|cidr| loopback.contains(cidr));
    if rules.include.cidrs.is_empty() {
        far.push(protocol.everywhere());
    }
    let ports = port_matches(&rules.include.ports).unwrap_or_else(|| vec![String::new()]);
    let include = |text: &mut Text, cidrs: &[IpNet]| {
        for (cidr, ports) in cidrs
            .iter()
            .flat_map(|cidr| ports.iter().map(move |p| (cidr, p)))
        {
            text.line(&format!("-A {scope} -p tcp -d {cidr}{ports} -g {claims}"));
        }
    };
    include(&mut text, &near);
    text.line(&format!("-A {scope} -d {loopback} -j RETURN"));
    include(&mut text, &far);
    let redirect = format!("-j REDIRECT --to-ports {}", rules.proxy_port);
    match &rules.claims {
        None => text.line(&format!("-A {claims} -p tcp {redirect}")),
        Some(nets) => {
            for (net, port) in nets.iter().filter(|(net, _)| protocol.has(net)) {
                let port = port.map_or(String::new(), |port| format!(" --dport {port}"));
                text.line(&format!("-A {claims} -p tcp -d {net}{port} {redirect}"));
            }
        }
    }
    text.line("COMMIT");
    text.0
}

/// The same for datagrams.
fn filter_text(rules: &Rules, cgroups: &[String], known: bool) -> String {
    let [captured, ..] = chains(rules.owner);
    let mut text = Text::default();
    text.line("*filter");
    text.line(&format!(":{captured} - [0:0]"));
    let reject = "-p udp --dport 443 -j REJECT";
    text.cgroups(&captured, "udp", reject, (cgroups, known));
    text.line("COMMIT");
    text.0
}

/// What is captured, what of it is in scope, what of that is claimed.
fn chains(owner: u32) -> [String; 3] {
    let captured = format!("{CHAIN_PREFIX}{owner}");
    let (scope, claims) = (format!("{captured}-S"), format!("{captured}-C"));
    [captured, scope, claims]
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
