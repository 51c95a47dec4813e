//! Speaking to iptables-restore and iptables-save, in the namespace of the
//! calling thread.

use std::fmt;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Output, Stdio};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{CHAIN_PREFIX, chains};

/// The two implementations of iptables; a machine may have rules in both, and
/// both are then in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// On nf_tables.
    Nft,
    /// On the older x_tables interface.
    Legacy,
}

impl Backend {
    /// In the order in which they are tried.
    pub(crate) const ALL: [Self; 2] = [Self::Nft, Self::Legacy];

    /// The variable that names the only backend to try: `nft` or `legacy`.
    pub(crate) const ENVIRONMENT: &str = "AMBASSADOR_IPTABLES";

    /// The one that is named; the error is a name that is none.
    pub(super) fn from_environment() -> Result<Option<Self>, String> {
        let Ok(wanted) = std::env::var(Self::ENVIRONMENT) else {
            return Ok(None);
        };
        let mut all = Self::ALL.into_iter();
        let named = all.find(|backend| backend.to_string() == wanted);
        named.map(Some).ok_or(wanted)
    }

    /// What its tool calls itself; None where it is not installed.
    pub(crate) fn version(self) -> Option<String> {
        let mut tool = command(self, Protocol::V4, "restore");
        let output = tool.arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    V4,
    V6,
}

impl Protocol {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn has(self, net: &IpNet) -> bool {
        matches!(
            (self, net),
            (Self::V4, IpNet::V4(_)) | (Self::V6, IpNet::V6(_))
        )
    }

    pub(super) fn loopback(self) -> IpNet {
        match self {
            Self::V4 => Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
            Self::V6 => Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128).into(),
        }
    }

    pub(super) fn everywhere(self) -> IpNet {
        match self {
            Self::V4 => Ipv4Net::default().into(),
            Self::V6 => Ipv6Net::default().into(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Nat,
    Filter,
}

impl Table {
    const ALL: [Self; 2] = [Self::Nat, Self::Filter];

    fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }
}

/// Applies a text as one transaction per table, waiting for the lock of the
/// legacy tools for 5 seconds at most.
pub(super) fn feed(backend: Backend, protocol: Protocol, text: &str) -> io::Result<()> {
    let mut child = command(backend, protocol, "restore")
        .args(["--noflush", "--wait", "5"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        match input.write_all(text.as_bytes()) {
            // It has ended early; its own words say why.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    said(child.wait_with_output()?).map(drop)
}

/// Removes the chains of one owner, and the jumps to them, from every table of
/// both protocols. A tool that is missing has no rules.
pub(super) fn remove_owner(backend: Backend, owner: u32) {
    for protocol in Protocol::ALL {
        for table in Table::ALL {
            let Ok(saved) = save(backend, protocol, table) else {
                continue;
            };
            if let Some(text) = removal(&saved, table, owner) {
                // Somebody else may have removed them since they were read.
                let _ = feed(backend, protocol, &text);
            }
        }
    }
}

/// The owners that have a chain.
pub(super) fn owners(backend: Backend) -> Vec<u32> {
    let mut owners = Vec::new();
    for protocol in Protocol::ALL {
        for table in Table::ALL {
            let Ok(saved) = save(backend, protocol, table) else {
                continue;
            };
            owners.extend(saved.lines().filter_map(|line| {
                let chain = line.strip_prefix(':')?.strip_prefix(CHAIN_PREFIX)?;
                chain.split(' ').next()?.parse::<u32>().ok()
            }));
        }
    }
    owners
}

/// Whether a saved table has the chains of an owner.
pub(super) fn has(saved: &str, owner: u32) -> bool {
    let [captured, ..] = chains(owner);
    has_chain(saved, &captured)
}

fn has_chain(saved: &str, chain: &str) -> bool {
    let mut lines = saved.lines();
    lines.any(|line| line.starts_with(&format!(":{chain} ")))
}

/// The input of iptables-restore that removes an owner's part of a saved table.
pub(super) fn removal(saved: &str, table: Table, owner: u32) -> Option<String> {
    if !has(saved, owner) {
        return None;
    }
    let chains = chains(owner);
    let target = format!(" -j {}", chains[0]);
    let mut text = format!("*{}\n", table.name());
    let jumps = saved
        .lines()
        .filter(|line| line.starts_with("-A OUTPUT ") && line.ends_with(&target));
    for jump in jumps {
        text.push_str(&jump.replacen("-A", "-D", 1));
        text.push('\n');
    }
    // They refer to each other: all are emptied before one is deleted.
    for command in ["-F", "-X"] {
        for chain in chains.iter().filter(|chain| has_chain(saved, chain)) {
            text.push_str(&format!("{command} {chain}\n"));
        }
    }
    text.push_str("COMMIT\n");
    Some(text)
}

/// The rules of a table; an error also where it has none.
pub(super) fn save(backend: Backend, protocol: Protocol, table: Table) -> io::Result<String> {
    // Merely looking at a legacy table would make it, with its hooks.
    if backend == Backend::Legacy {
        let names = match protocol {
            Protocol::V4 => "/proc/thread-self/net/ip_tables_names",
            Protocol::V6 => "/proc/thread-self/net/ip6_tables_names",
        };
        if !std::fs::read_to_string(names)?
            .lines()
            .any(|name| name == table.name())
        {
            return Err(io::ErrorKind::NotFound.into());
        }
    }
    said(
        command(backend, protocol, "save")
            .args(["-t", table.name()])
            .output()?,
    )
}

fn command(backend: Backend, protocol: Protocol, verb: &str) -> Command {
    let family = match protocol {
        Protocol::V4 => "iptables",
        Protocol::V6 => "ip6tables",
    };
    let mut command = Command::new(format!("{family}-{backend}-{verb}"));
    // The PATH of a service often lacks the directories of these tools.
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .env("PATH", format!("{path}:/usr/sbin:/sbin:/usr/local/sbin"))
        .stdin(Stdio::null());
    command
}

fn said(output: Output) -> io::Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let line = words.lines().find(|line| !line.trim().is_empty());
    Err(io::Error::other(
        line.unwrap_or("failed without a message").trim().to_owned(),
    ))
}
