//! What the helper may act on for the proxy.
//!
//! The proxy registers it before it gives up its privileges, and so before it has
//! read a byte from anybody. Later the helper adds only what the configuration
//! names by then, which it reads itself. A proxy that was taken over can ask for
//! no other cgroup and no other namespace.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::message::Registration;
use crate::workload::owned_file::OwnedFile;
use crate::workload::{Netns, Target};

/// Targets at most, those of before included: as many as have numbers in one
/// network namespace.
const TARGETS_MAX: usize = 65_536;
/// Namespaces at most: as many as have numbers.
const NAMESPACES_MAX: usize = 65_536;
/// Bytes of a path at most (PATH_MAX of limits.h).
const PATH_BYTES_MAX: usize = 4_096;

/// Gives the targets that the text of a configuration names.
pub(crate) type TargetsIn = fn(&str) -> io::Result<Vec<Target>>;

#[derive(Debug)]
pub(super) struct Registry {
    phase: Phase,
    targets: Vec<Target>,
    config: Option<OwnedFile>,
    targets_in: TargetsIn,
    /// The port of the listeners that take captured connections.
    port: Option<u16>,
    /// That of the helper comes first.
    namespaces: Vec<Netns>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The proxy has heard from nobody yet.
    Open,
    /// What it says may be somebody else's words.
    Sealed,
}

impl Registry {
    pub(super) fn new(home: Netns, targets_in: TargetsIn) -> Self {
        Self {
            phase: Phase::Open,
            targets: Vec::new(),
            config: None,
            targets_in,
            port: None,
            namespaces: vec![home],
        }
    }

    pub(super) fn register(&mut self, registration: Registration) -> io::Result<()> {
        self.still_open()?;
        for target in registration.targets {
            self.add(target)?;
        }
        if let Some(path) = registration.config {
            check_path(&path)?;
            self.config = Some(OwnedFile::at(path)?);
        }
        Ok(())
    }

    pub(super) fn seal(&mut self) {
        self.phase = Phase::Sealed;
    }

    /// Fails once the proxy may have heard from others.
    pub(super) fn still_open(&self) -> io::Result<()> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Sealed => Err(refused("nothing is registered after the start")),
        }
    }

    /// Whether all of these are targets; those are, too, that the configuration
    /// names now.
    pub(super) fn admit(&mut self, wanted: &[Target]) -> io::Result<()> {
        self.look_up(|targets| wanted.iter().all(|wanted| targets.contains(wanted)))
    }

    /// Whether a target names its namespace by this path.
    pub(super) fn admit_netns(&mut self, path: &Path) -> io::Result<()> {
        let names = |target: &Target| target.netns.as_deref() == Some(path);
        self.look_up(|targets| targets.iter().any(names))
    }

    /// Whether all of these are cgroups of targets.
    pub(super) fn admit_cgroups(&mut self, wanted: &[PathBuf]) -> io::Result<()> {
        let is_one = |targets: &[Target], path: &PathBuf| {
            let mut targets = targets.iter();
            targets.any(|target| target.cgroup == *path)
        };
        self.look_up(|targets| wanted.iter().all(|path| is_one(targets, path)))
    }

    fn look_up(&mut self, found: impl Fn(&[Target]) -> bool) -> io::Result<()> {
        if !found(&self.targets) {
            for target in self.named_by_now()? {
                if !self.targets.contains(&target) {
                    self.add(target)?;
                }
            }
        }
        match found(&self.targets) {
            true => Ok(()),
            false => Err(refused("neither registered nor in the configuration")),
        }
    }

    /// What is known, in the order in which it came to be.
    pub(super) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The same of namespaces.
    pub(super) fn namespaces(&self) -> &[Netns] {
        &self.namespaces
    }

    /// Adds what another register has admitted.
    pub(super) fn learn(&mut self, target: Target) {
        self.targets.push(target);
    }

    fn add(&mut self, target: Target) -> io::Result<()> {
        check_path(&target.cgroup)?;
        target.netns.as_deref().map_or(Ok(()), check_path)?;
        if self.targets.len() >= TARGETS_MAX {
            return Err(refused("too many captured cgroups since the start"));
        }
        self.targets.push(target);
        Ok(())
    }

    /// What the configuration names, unless somebody else may have written it.
    fn named_by_now(&self) -> io::Result<Vec<Target>> {
        let Some(config) = &self.config else {
            return Ok(Vec::new());
        };
        (self.targets_in)(&config.read()?)
    }

    /// Takes the port of the proxy. After the start there is no other.
    pub(super) fn admit_port(&mut self, port: u16) -> io::Result<()> {
        match (self.phase, self.port) {
            (Phase::Open, _) => {
                self.port = Some(port);
                Ok(())
            }
            (Phase::Sealed, Some(known)) if known == port => Ok(()),
            (Phase::Sealed, _) => Err(refused("not the port of the proxy")),
        }
    }

    /// The port of the proxy, once it is known.
    pub(super) fn port(&self) -> Option<u16> {
        self.port
    }

    /// Takes note of the namespace of a target.
    pub(super) fn know(&mut self, netns: &Netns) -> io::Result<()> {
        if self.namespaces.contains(netns) {
            return Ok(());
        }
        if self.namespaces.len() >= NAMESPACES_MAX {
            return Err(refused("too many network namespaces since the start"));
        }
        self.namespaces.push(netns.clone());
        Ok(())
    }

    /// Whether a namespace is that of a target, or the proxy's own.
    pub(super) fn admit_namespace(&self, netns: &Netns) -> io::Result<()> {
        match self.namespaces.contains(netns) {
            true => Ok(()),
            false => Err(refused("not the network namespace of a captured cgroup")),
        }
    }
}

/// A path as a person would write it: absolute, without `..`, and without
/// bytes that would end a line or begin another in what is made of it.
pub(super) fn check_path(path: &Path) -> io::Result<()> {
    let bytes = path.as_os_str().as_bytes();
    let plain = path.is_absolute()
        && bytes.len() < PATH_BYTES_MAX
        && !path.to_string_lossy().contains(char::is_control)
        && path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    match plain {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not an absolute path without `..` and control characters",
        )),
    }
}

pub(super) fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}
