//! The network namespaces of captured programs: their workloads, listeners and
//! sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::original::POSITION_BITS;
use crate::app::names::{self, Listeners, Places};
use crate::app::{Failure, open_listeners, unavailable};
use crate::capture::Workload;
use crate::capture::settings::{Mode, Settings, Target};
use crate::clock;
use crate::control::NameService;
use crate::upstream::dial::Namespace;
use crate::workload::sockets::PROXY_MARK;
use crate::workload::{
    BindSpec, Helper, LocalAddresses, Netns, Reach, SocketStock, Supply, cgroup, is_confined,
    sockets,
};

/// All namespaces that something was captured in since the start: numbers, once
/// given, are not given to another. The proxy's own comes first.
#[derive(Clone)]
pub(super) struct CapturedNamespaces {
    all: Vec<CapturedNamespace>,
}

/// One namespace.
#[derive(Clone)]
pub(super) struct CapturedNamespace {
    /// What shards call it.
    pub namespace: Namespace,
    /// The namespace itself.
    pub netns: Netns,
    /// The mark of the sockets that are made there.
    pub mark: Option<u32>,
    /// The path by which it was captured last; none for the proxy's own.
    path: Option<PathBuf>,
    /// How names are looked up there.
    names: Arc<NameService>,
    /// Every cgroup that was captured there; the position is a part of its
    /// workload's number.
    known: Vec<Target>,
    /// Those that are captured now, and the id of the cgroup that was meant.
    captured: Vec<(Workload, Option<u64>)>,
}

impl CapturedNamespaces {
    /// Nothing is captured yet.
    pub(super) fn new() -> Result<Self, Failure> {
        let own = Netns::own().map_err(unavailable("cannot open our network namespace"))?;
        let names = Arc::new(NameService::default());
        let own = CapturedNamespace::new(Namespace::default(), own, None, None, names);
        Ok(Self { all: vec![own] })
    }

    /// The same with the targets of `settings` captured, and no others.
    pub(super) fn with_targets(
        &self,
        settings: &Settings,
        helper: &Arc<Helper>,
    ) -> Result<Self, Failure> {
        let mut new = self.clone();
        for space in &mut new.all {
            space.captured.clear();
        }
        let own_cgroup = cgroup::own_cgroup().ok();
        let contains_us = |target: &&Target| {
            let own = own_cgroup.as_ref();
            own.is_some_and(|own| own.starts_with(&target.cgroup))
        };
        let (around, beside): (Vec<&Target>, Vec<&Target>) =
            settings.targets.iter().partition(contains_us);
        // The first of a namespace says whether its sockets have a mark.
        for target in around {
            if !self.workloads().any(|workload| workload.target == *target) {
                tracing::warn!(cgroup = %target.cgroup.display(), "the captured cgroup contains this proxy; its own connections are exempted");
            }
            let mark = (settings.mode == Mode::Iptables).then_some(PROXY_MARK);
            new.space_for(target, mark, helper)?.capture(target)?;
        }
        for target in beside {
            new.space_for(target, None, helper)?.capture(target)?;
        }
        Ok(new)
    }

    fn space_for(
        &mut self,
        target: &Target,
        mark: Option<u32>,
        helper: &Arc<Helper>,
    ) -> Result<&mut CapturedNamespace, Failure> {
        let netns = match &target.netns {
            None => self.all[0].netns.clone(),
            Some(path) => match (helper.netns(path), self.of(target)) {
                (Ok(netns), _) => netns,
                // The process that named it has ended; the namespace goes on.
                (Err(_), Some(space)) => space.netns.clone(),
                (Err(error), None) => {
                    let path = path.display();
                    let what = format!("cannot open the network namespace {path}");
                    return Err(unavailable(what)(error));
                }
            },
        };
        let known = |space: &CapturedNamespace| space.netns == netns && !space.known.is_empty();
        let number = match self.all.iter().position(known) {
            Some(at) if mark.is_none() || self.all[at].mark == mark => at,
            Some(_) => {
                return Err(Failure::Unavailable(format!(
                    "{} contains this proxy: in iptables mode that needs a restart",
                    target.cgroup.display()
                )));
            }
            None if mark.is_none() && netns == self.all[0].netns => 0,
            None => self.all.len(),
        };
        if number == self.all.len() {
            let namespace = u16::try_from(number)
                .map(Namespace)
                .map_err(unavailable("too many network namespaces since the start"))?;
            let path = target.netns.clone();
            let names = self.names_in(&netns, path.as_deref(), helper);
            let space = CapturedNamespace::new(namespace, netns, mark, path, names);
            self.all.push(space);
        } else if !self.all[number].is_in_use() && number != 0 {
            // The program that named it may be another now, with other files.
            let space = &self.all[number];
            if space.path != target.netns {
                let names = self.names_in(&netns, target.netns.as_deref(), helper);
                let space = &mut self.all[number];
                (space.path, space.names) = (target.netns.clone(), names);
            }
        }
        Ok(&mut self.all[number])
    }

    fn names_in(
        &self,
        netns: &Netns,
        path: Option<&Path>,
        helper: &Arc<Helper>,
    ) -> Arc<NameService> {
        match path {
            Some(path) => Arc::new(names::service(netns.clone(), path, helper)),
            None => Arc::clone(&self.all[0].names),
        }
    }

    /// Where names are looked up for `listeners` and for what is captured.
    pub(super) fn name_places(&self, listeners: Listeners) -> Places {
        let place = |space: &CapturedNamespace| (space.namespace, Arc::clone(&space.names));
        let with_callers = |space: &&CapturedNamespace| {
            let has_listeners = listeners == Listeners::Some && space.namespace == Namespace(0);
            has_listeners || space.is_in_use()
        };
        let of_kernel = usize::from(self.view_of_kernel().0);
        Places {
            callers: self.all.iter().filter(with_callers).map(place).collect(),
            kernel: place(&self.all[of_kernel]),
        }
    }

    /// Whose answers the kernel goes by: it has one set of rules for all that is
    /// captured. Where that is in several namespaces, none of them is to say what
    /// a name means in another, and it is the proxy's own view.
    pub(super) fn view_of_kernel(&self) -> Namespace {
        let mut in_use = self.all.iter().filter(|space| space.is_in_use());
        match (in_use.next(), in_use.next()) {
            (Some(only), None) => only.namespace,
            _ => Namespace::default(),
        }
    }

    /// Where a target was captured before.
    fn of(&self, target: &Target) -> Option<&CapturedNamespace> {
        self.all.iter().find(|space| space.known.contains(target))
    }

    /// All, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = &CapturedNamespace> {
        self.all.iter()
    }

    /// The one of this number.
    pub(super) fn get(&self, namespace: Namespace) -> &CapturedNamespace {
        &self.all[usize::from(namespace.0)]
    }

    /// The same; `None`: there is none yet.
    pub(super) fn find(&self, namespace: Namespace) -> Option<&CapturedNamespace> {
        self.all.get(usize::from(namespace.0))
    }

    /// What is captured.
    pub(super) fn workloads(&self) -> impl Iterator<Item = &Workload> {
        let captured = self.all.iter().flat_map(|space| &space.captured);
        captured.map(|(workload, _)| workload)
    }

    /// Whether a path names another cgroup than it did.
    pub(super) fn is_outdated(&self) -> bool {
        let mut captured = self.all.iter().flat_map(|space| &space.captured);
        captured.any(|(workload, known)| {
            let id = cgroup_id(&workload.target);
            id.is_some() && id != *known
        })
    }

    /// Those in which something is captured here, but not in `other`.
    pub(super) fn not_in<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = &'a CapturedNamespace> {
        let in_use = |namespaces: &Self, namespace: Namespace| {
            namespaces
                .find(namespace)
                .is_some_and(CapturedNamespace::is_in_use)
        };
        self.all
            .iter()
            .filter(move |space| space.is_in_use() && !in_use(other, space.namespace))
    }

    /// Those that `other` has not, in use or not.
    pub(super) fn added_to<'a>(
        &'a self,
        other: &Self,
    ) -> impl Iterator<Item = &'a CapturedNamespace> {
        self.all.iter().skip(other.all.len())
    }
}

impl CapturedNamespace {
    fn new(
        namespace: Namespace,
        netns: Netns,
        mark: Option<u32>,
        path: Option<PathBuf>,
        names: Arc<NameService>,
    ) -> Self {
        Self {
            namespace,
            netns,
            mark,
            path,
            names,
            known: Vec::new(),
            captured: Vec::new(),
        }
    }

    /// Whether something is captured in it.
    pub(super) fn is_in_use(&self) -> bool {
        !self.captured.is_empty()
    }

    /// Whether something ever was.
    pub(super) fn was_in_use(&self) -> bool {
        !self.known.is_empty()
    }

    /// The cgroups that are captured in it and exist.
    pub(super) fn cgroups(&self) -> Vec<PathBuf> {
        let captured = self.captured.iter();
        let existing = captured.filter(|(_, id)| id.is_some());
        existing
            .map(|(workload, _)| workload.target.cgroup.clone())
            .collect()
    }

    fn capture(&mut self, target: &Target) -> Result<(), Failure> {
        let position = self.known.iter().position(|known| known == target);
        let position = match position {
            Some(position) => position,
            None => {
                // One that was captured before may be away for a while.
                let cgroup = &target.cgroup;
                let failed = unavailable(format!("cannot capture {}", cgroup.display()));
                cgroup.metadata().map_err(failed)?;
                if !cgroup::is_cgroup(cgroup) {
                    return Err(Failure::Unavailable(format!(
                        "cannot capture {}: it is no cgroup of a cgroup2 hierarchy",
                        cgroup.display()
                    )));
                }
                self.known.push(target.clone());
                self.known.len() - 1
            }
        };
        let position = u16::try_from(position)
            .map_err(unavailable("too many captured cgroups since the start"))?;
        let workload = Workload {
            number: u32::from(self.namespace.0) << POSITION_BITS | u32::from(position),
            target: target.clone(),
        };
        self.captured.push((workload, cgroup_id(target)));
        Ok(())
    }

    /// Opens its listener, one socket per shard, at `port`, or at any where
    /// that is 0. A listener that was let go a moment ago may still be there.
    pub(super) fn listen(
        &self,
        port: u16,
        shards: u16,
        helper: &Helper,
    ) -> io::Result<Vec<OwnedFd>> {
        let until = clock::now() + sockets::FREE_WITHIN;
        let what = format_args!("port {port}, for captured connections,");
        sockets::once_free(what, until, || self.try_to_listen(port, shards, helper))
    }

    /// The same, at once.
    pub(super) fn try_to_listen(
        &self,
        port: u16,
        shards: u16,
        helper: &Helper,
    ) -> io::Result<Vec<OwnedFd>> {
        let listen_at = |ip: IpAddr| {
            let spec = BindSpec {
                addr: SocketAddr::new(ip, port),
                count: shards,
                v6_only: false,
                transparent: false,
                reach: Reach::Loopback,
            };
            // Its filter takes a privilege, and so does giving it to nobody.
            match self.is_own() && !is_confined() {
                true => sockets::listen(&spec),
                false => helper.listener(&self.netns, &spec),
            }
        };
        let sockets = listen_at(Ipv6Addr::UNSPECIFIED.into())
            .or_else(|_| listen_at(Ipv4Addr::UNSPECIFIED.into()))?;
        open_listeners::steer(&sockets);
        Ok(sockets)
    }

    /// Where a shard's upstream sockets for it come from.
    pub(super) fn stock(&self, supply: &Arc<Supply>) -> io::Result<SocketStock> {
        match self.namespace == Namespace::default() {
            true => Ok(SocketStock::own()),
            false => SocketStock::remote(supply, &self.netns, self.mark),
        }
    }

    /// Which addresses are its own.
    pub(super) fn addresses(&self, helper: &Helper) -> io::Result<LocalAddresses> {
        match self.is_own() {
            true => sockets::local_addresses(),
            false => sockets::local_addresses_in(helper, &self.netns),
        }
    }

    fn is_own(&self) -> bool {
        self.path.is_none()
    }
}

/// The id of a target's cgroup; none where there is no such directory.
fn cgroup_id(target: &Target) -> Option<u64> {
    let metadata = target.cgroup.metadata();
    metadata.map(|metadata| metadata.ino()).ok()
}
