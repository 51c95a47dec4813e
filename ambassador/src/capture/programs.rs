//! Finds programs of others on the hooks that capture uses.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::bpf::{self, Hook};

/// The hooks that a captured connect goes through.
const HOOKS: [Hook; 4] = [
    Hook::Connect4,
    Hook::Connect6,
    Hook::Getpeername4,
    Hook::Getpeername6,
];

/// A program that runs when a program of a cgroup connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its hook: `connect4`, `connect6`, `getpeername4` or `getpeername6`.
    pub hook: String,
    /// The kernel's number of it.
    pub id: u32,
    /// Its name, at most 15 bytes; empty when it cannot be read.
    pub name: String,
    /// Whose it is.
    pub owner: Owner,
}

/// Whose a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// An ambassador's: it uses one of [`OUR_MAPS`].
    Ambassador,
    /// Somebody else's, or it cannot be read.
    Other,
}

/// Of these maps each program of ours uses one, whatever its own name is.
const OUR_MAPS: [&str; 2] = ["GRANTED", "SLOT_TABLE"];

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has program {} {:?}", self.hook, self.id, self.name)
    }
}

/// Everything on our hooks in a cgroup and those above it, ours included. Needs
/// CAP_NET_ADMIN or CAP_BPF, and CAP_SYS_ADMIN for names.
pub fn programs_at(cgroup: &Path) -> io::Result<Vec<Program>> {
    at(File::open(cgroup)?.as_fd())
}

pub(super) fn at(cgroup: BorrowedFd<'_>) -> io::Result<Vec<Program>> {
    let mut programs = Vec::new();
    for hook in HOOKS {
        for id in bpf::effective(cgroup, hook)? {
            let (name, owner) = (bpf::program_name(id), owner(id));
            let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
            if name.as_ref().is_err_and(is_gone) || owner.as_ref().is_err_and(is_gone) {
                continue;
            }
            programs.push(Program {
                hook: format!("{hook:?}").to_lowercase(),
                id,
                // They may be kept from us.
                name: name.unwrap_or_default(),
                owner: owner.unwrap_or(Owner::Other),
            });
        }
    }
    Ok(programs)
}

fn owner(id: u32) -> io::Result<Owner> {
    let maps = bpf::program_maps(id)?;
    Ok(
        match maps.iter().any(|name| OUR_MAPS.contains(&name.as_str())) {
            true => Owner::Ambassador,
            false => Owner::Other,
        },
    )
}
