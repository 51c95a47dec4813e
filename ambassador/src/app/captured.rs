//! Capture, as the program runs it: by eBPF or by iptables rules, with the
//! listeners that take the connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

use super::opened;
use super::{Failure, unavailable};
use crate::addr::EndpointAddr;
use crate::capture::settings::{Claims, Mode, Quic, Scope, Settings};
use crate::capture::{Accepted, Capture, Heartbeat, Options, TokenTable, iptables};
use crate::proxy::accepted::Entry;
use crate::route;
use crate::route::settings::Unmatched;
use crate::shard::accept::{FindOriginal, Intake, NotServed};
use crate::telemetry::{DroppedAccept, ListenerIndex};
use crate::upstream::dial::Namespace;
use crate::workload::capabilities::{self, Capability};
use crate::workload::{BindSpec, Helper, Netns, SocketStock, cgroup};

/// The mark of the proxy's sockets in iptables mode, where its own cgroup is
/// captured.
const PROXY_MARK: u32 = 0x616d;

/// Capture in force.
pub struct Captured {
    settings: Mutex<Settings>,
    programs: Option<Capture>,
    /// The port of the listeners.
    pub port: u16,
    netns: Vec<(Netns, Option<u32>)>,
    /// Per target, per shard.
    sockets: Vec<Vec<OwnedFd>>,
    namespaces: Vec<Namespace>,
    /// Current addresses of exact names that upstreams claim.
    resolved: Mutex<Vec<Resolved>>,
}

/// The current addresses of one claimed name.
struct Resolved {
    name: String,
    port: Option<u16>,
    addresses: Arc<[EndpointAddr]>,
}

/// Sets capture up: listeners, then programs or rules.
pub fn start(
    settings: Settings,
    claims: &route::Claims,
    shards: u16,
    helper: &Helper,
    may_pin: bool,
) -> Result<Captured, Failure> {
    let needed = match settings.mode {
        Mode::Ebpf => &[Capability::Bpf, Capability::NetAdmin, Capability::SysAdmin][..],
        Mode::Iptables => &[Capability::NetAdmin][..],
    };
    if let Some(missing) = needed.iter().find(|needed| !capabilities::has(**needed)) {
        return Err(Failure::Unavailable(format!(
            "capture needs {}: run as root, or with that capability",
            missing.name()
        )));
    }
    let mut netns = Vec::new();
    let mut namespaces = Vec::new();
    let own_cgroup = cgroup::own_cgroup().ok();
    for target in &settings.targets {
        let contains_us = own_cgroup
            .as_ref()
            .is_some_and(|own| own.starts_with(&target.cgroup));
        if contains_us {
            tracing::warn!(cgroup = %target.cgroup.display(), "the captured cgroup contains this proxy; its own connections are exempted");
        }
        let mark = (contains_us && settings.mode == Mode::Iptables).then_some(PROXY_MARK);
        let space = match &target.netns {
            None => Netns::own().map_err(unavailable("cannot open our network namespace"))?,
            Some(path) => Netns::open(path).map_err(unavailable(format!(
                "cannot open the network namespace {}",
                path.display()
            )))?,
        };
        if space.is_own() && mark.is_none() {
            namespaces.push(Namespace::default());
        } else {
            netns.push((space, mark));
            namespaces.push(Namespace(netns.len() as u16));
        }
    }
    let (port, sockets) = listen(&settings, &netns, &namespaces, shards, helper)?;
    let mut captured = Captured {
        programs: None,
        settings: Mutex::new(settings.clone()),
        port,
        netns,
        sockets,
        namespaces,
        resolved: Mutex::default(),
    };
    match settings.mode {
        Mode::Ebpf => captured.attach(&settings, claims, shards, helper, may_pin)?,
        Mode::Iptables => captured.redirect(&settings, claims, helper)?,
    }
    Ok(captured)
}

/// Opens the listeners of every target at one port.
fn listen(
    settings: &Settings,
    netns: &[(Netns, Option<u32>)],
    namespaces: &[Namespace],
    shards: u16,
    helper: &Helper,
) -> Result<(u16, Vec<Vec<OwnedFd>>), Failure> {
    let mut port = 0;
    let mut sockets: Vec<Vec<OwnedFd>> = Vec::new();
    for (target, namespace) in settings.targets.iter().zip(namespaces) {
        // One namespace, one listener: targets share it by duplicates.
        let listen_at = |ip: IpAddr| {
            let spec = BindSpec {
                addr: SocketAddr::new(ip, port),
                count: shards,
                v6_only: false,
                transparent: false,
            };
            match namespace.0.checked_sub(1) {
                None => crate::workload::sockets::listen(&spec),
                Some(other) => helper.listener(&netns[usize::from(other)].0, &spec),
            }
        };
        let opened = listen_at(Ipv6Addr::UNSPECIFIED.into())
            .or_else(|_| listen_at(Ipv4Addr::UNSPECIFIED.into()))
            .map_err(unavailable(format!(
                "cannot listen for the connections of {}",
                target.cgroup.display()
            )))?;
        opened::steer(&opened);
        if let Some(address) = opened::local_address(&opened) {
            port = address.port();
        }
        sockets.push(opened);
    }
    Ok((port, sockets))
}

impl Captured {
    fn attach(
        &mut self,
        settings: &Settings,
        claims: &route::Claims,
        shards: u16,
        helper: &Helper,
        may_pin: bool,
    ) -> Result<(), Failure> {
        let own = Netns::own().map_err(unavailable("cannot open our network namespace"))?;
        for namespace in &self.namespaces {
            let space = match namespace.0.checked_sub(1) {
                None => &own,
                Some(other) => &self.netns[usize::from(other)].0,
            };
            helper
                .remove_token_prefix_at_end(space, self.port)
                .map_err(unavailable("the privileged helper does not answer"))?;
        }
        let programs = Capture::start(
            settings,
            &kernel_claims(claims, &[]),
            &Options {
                proxy_port: self.port,
                shards,
                may_pin,
                kernel_log: std::env::var_os("AMBASSADOR_KERNEL_LOG").is_some(),
            },
        )
        .map_err(|error| Failure::Unavailable(super::with_causes(&error)))?;
        for (cgroup, others) in programs.others_attached() {
            tracing::warn!(cgroup = %cgroup.display(), ?others, "other programs are attached to the same hooks");
        }
        for (target, why) in programs.without_v6() {
            tracing::warn!(cgroup = %target.cgroup.display(), why, "IPv6 destinations are not captured");
        }
        if let Err(why) = programs.guarded() {
            tracing::warn!(why, "tokens are not guarded at the root of the hierarchy");
        }
        self.programs = Some(programs);
        Ok(())
    }

    fn redirect(
        &mut self,
        settings: &Settings,
        claims: &route::Claims,
        helper: &Helper,
    ) -> Result<(), Failure> {
        let own = Netns::own().map_err(unavailable("cannot open our network namespace"))?;
        let owner = std::process::id();
        let scope = |scope: &Scope| (scope.ports.clone(), scope.cidrs.clone());
        let (include, exclude) = (scope(&settings.include), scope(&settings.exclude));
        let claimed = settings.unmatched == Unmatched::Passthrough;
        for (target, namespace) in settings.targets.iter().zip(&self.namespaces) {
            let (space, mark) = match namespace.0.checked_sub(1) {
                None => (&own, None),
                Some(other) => {
                    let (space, mark) = &self.netns[usize::from(other)];
                    (space, *mark)
                }
            };
            helper
                .remove_iptables_at_end(space, owner)
                .map_err(unavailable("the privileged helper does not answer"))?;
            let rules = iptables::Rules {
                owner,
                cgroup: &target.cgroup,
                proxy_port: self.port,
                include: iptables::Scope {
                    ports: &include.0,
                    cidrs: &include.1,
                },
                exclude: iptables::Scope {
                    ports: &exclude.0,
                    cidrs: &exclude.1,
                },
                claims: claimed.then_some(&claims.nets[..]),
                refuse_quic: settings.quic == Quic::Refuse,
                exempt_mark: mark,
            };
            let backend = iptables::install(&rules, space, None)
                .map_err(|error| Failure::Unavailable(super::with_causes(&error)))?;
            tracing::info!(cgroup = %target.cgroup.display(), %backend, "captured by iptables");
        }
        Ok(())
    }

    /// What shard `shard` accepts captured connections on.
    pub fn take_intakes(&self, shard: usize, helper: &Arc<Helper>) -> Result<Vec<Intake>, Failure> {
        let mut intakes = Vec::new();
        for (workload, sockets) in self.sockets.iter().enumerate() {
            let socket = sockets[shard].try_clone();
            let socket = socket.map_err(unavailable("cannot share a listener"))?;
            let namespace = self.namespaces[workload];
            let here = match namespace.0.checked_sub(1) {
                None => SocketStock::own(),
                Some(other) => self.stock(usize::from(other), helper)?,
            };
            let original = match &self.programs {
                Some(programs) => by_token(programs.table(), workload as u32, here),
                None => by_redirect(here),
            };
            intakes.push(Intake {
                socket,
                index: ListenerIndex::CAPTURE,
                entry: Entry::Captured,
                original: Some(original),
                namespace,
            });
        }
        Ok(intakes)
    }

    /// Lets go of this process's own copies once every shard has its own.
    pub fn forget_sockets(&mut self) {
        self.sockets.clear();
    }

    /// The namespace of all targets and the path that named it, where it is
    /// one and not the proxy's own.
    pub fn common_netns(&self) -> Option<(&Netns, PathBuf)> {
        let (netns, _) = self.netns.first()?;
        let common = !self.namespaces.contains(&Namespace::default())
            && self.netns.iter().all(|(other, _)| other == netns)
            && !netns.is_own();
        let path = lock(&self.settings).targets.first()?.netns.clone()?;
        common.then_some((netns, path))
    }

    /// Where a shard's upstream sockets come from.
    pub fn stocks(&self, helper: &Arc<Helper>) -> Result<Vec<SocketStock>, Failure> {
        (0..self.netns.len())
            .map(|other| self.stock(other, helper))
            .collect()
    }

    fn stock(&self, other: usize, helper: &Arc<Helper>) -> Result<SocketStock, Failure> {
        let (space, mark) = &self.netns[other];
        let copy = space.as_fd().try_clone_to_owned();
        let space = copy
            .and_then(Netns::from_fd)
            .map_err(unavailable("cannot keep a network namespace open"))?;
        Ok(SocketStock::remote(Arc::clone(helper), space, *mark))
    }

    /// The sign of life of a shard.
    pub fn heartbeat(&self, shard: u16) -> Option<Heartbeat> {
        let programs = self.programs.as_ref()?;
        Some(programs.table().heartbeat(shard))
    }

    /// Puts a changed scope or changed claims in force.
    pub fn update(&self, settings: &Settings, claims: &route::Claims) -> Result<(), String> {
        *lock(&self.settings) = settings.clone();
        self.apply(claims)
    }

    /// A name that an upstream claims has other addresses now.
    pub fn resolved(
        &self,
        name: &str,
        port: Option<u16>,
        addresses: Arc<[EndpointAddr]>,
        claims: &route::Claims,
    ) -> Result<(), String> {
        {
            let mut resolved = lock(&self.resolved);
            resolved.retain(|known| (known.name.as_str(), known.port) != (name, port));
            resolved.push(Resolved {
                name: name.to_owned(),
                port,
                addresses,
            });
        }
        self.apply(claims)
    }

    fn apply(&self, claims: &route::Claims) -> Result<(), String> {
        let Some(programs) = &self.programs else {
            return Ok(());
        };
        let settings = lock(&self.settings).clone();
        let resolved = lock(&self.resolved);
        programs
            .update(&settings, &kernel_claims(claims, &resolved))
            .map_err(|error| super::with_causes(&error))
    }

    /// Connects like a captured program and says why that was not captured.
    pub fn canary(&self) -> Result<(), String> {
        self.programs.as_ref().map_or(Ok(()), Capture::canary)
    }

    /// Connects by verdict.
    pub fn verdicts(&self) -> Vec<(&'static str, u64)> {
        let counted = self.programs.as_ref().map(Capture::verdicts);
        match counted {
            Some(Ok(verdicts)) => verdicts
                .into_iter()
                .map(|(verdict, count)| (verdict.as_str(), count))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Slots of the token table in use.
    pub fn slots(&self) -> Option<u64> {
        let programs = self.programs.as_ref()?;
        Some(u64::from(programs.table().slots_used()))
    }
}

fn by_token(table: TokenTable, workload: u32, here: SocketStock) -> FindOriginal {
    Box::new(
        move |accepted| match table.lookup(accepted.local, workload) {
            Ok(Accepted::Canary) => Err(NotServed::Canary),
            Ok(Accepted::Token(token)) => {
                check_peer(accepted.peer, &here).map(|()| token.destination)
            }
            Ok(Accepted::Foreign) | Err(_) => Err(NotServed::Refused(DroppedAccept::UnknownToken)),
        },
    )
}

fn by_redirect(here: SocketStock) -> FindOriginal {
    Box::new(move |accepted| {
        check_peer(accepted.peer, &here)?;
        match iptables::original_dst(accepted.socket(), accepted.local) {
            Ok(Some(original)) => Ok(original),
            Ok(None) | Err(_) => Err(NotServed::Refused(DroppedAccept::NoOriginalDst)),
        }
    })
}

/// A captured connection comes from the namespace itself. A token is worth its
/// upstream's credentials and is not honoured for anyone else.
fn check_peer(peer: SocketAddr, here: &SocketStock) -> Result<(), NotServed> {
    let ip = peer.ip().to_canonical();
    match ip.is_loopback() || here.has_address(ip) {
        true => Ok(()),
        false => Err(NotServed::Refused(DroppedAccept::ForeignPeer)),
    }
}

fn kernel_claims(claims: &route::Claims, resolved: &[Resolved]) -> Claims {
    let fixed = claims.nets.iter().map(|(net, port)| (*net, *port, None));
    let named = resolved
        .iter()
        .filter(|known| claims.names.contains(&(known.name.clone(), known.port)))
        .flat_map(|known| {
            let claim = |address: &EndpointAddr| (IpNet::from(address.0.ip()), known.port, None);
            known.addresses.iter().map(claim)
        });
    Claims {
        nets: fixed.chain(named).collect(),
        any_names: claims.any_names,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
