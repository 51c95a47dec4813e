//! Capture, as the program runs it: by eBPF or by iptables rules, with the
//! listeners that take the connections.

mod circuits;
mod original;
mod slots;
mod spaces;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use self::circuits::Circuits;
use self::spaces::{Space, Spaces};
use super::names::{Listeners, Places};
use super::opened;
use super::{Failure, unavailable};
use crate::addr::EndpointAddr;
use crate::capture::settings::{Claim, Claims, Mode, Quic, Settings};
use crate::capture::{Capture, Found, Heartbeat, Options, Workload, iptables};
use crate::control::Watched;
use crate::proxy::generation::Generation;
use crate::proxy::listening::Entry;
use crate::proxy::room::Room;
use crate::route::settings::Unmatched;
use crate::route::{self, Claimed};
use crate::shard::accept::Intake;
use crate::telemetry::ListenerIndex;
use crate::upstream::dial::Namespace;
use crate::workload::capabilities::{self, Capability};
use crate::workload::helper::{Life, Reliance};
use crate::workload::{Helper, SocketStock, Supply};

/// How many ports are tried at the start until one is free in every namespace.
const PORTS_TRIED: usize = 8;

/// Capture in force.
pub(super) struct Captured {
    helper: Arc<Helper>,
    supply: Arc<Supply>,
    reliance: Arc<Reliance>,
    shards: u16,
    method: Method,
    /// The port of the listeners.
    pub port: u16,
    now: Mutex<Now>,
}

enum Method {
    Programs(Box<Capture>),
    /// By rules of this owner.
    Rules(u32),
}

/// What a reload, or a name that resolves anew, changes.
struct Now {
    settings: Settings,
    spaces: Spaces,
    /// Current addresses of exact names that upstreams claim.
    resolved: Vec<Resolved>,
    /// None in iptables mode.
    circuits: Circuits,
}

/// The current addresses of one claimed name.
struct Resolved {
    name: String,
    port: Option<u16>,
    /// Where they are those of the name.
    namespace: Namespace,
    addresses: Arc<[EndpointAddr]>,
}

/// What shards have to do after a change.
#[derive(Default)]
pub(super) struct Change {
    /// Per shard: namespaces that it did not know, in order.
    pub stocks: Vec<Vec<SocketStock>>,
    /// Per shard: what it accepts on from now on.
    pub intakes: Vec<Vec<Intake>>,
    /// Where nothing is captured any more.
    pub stopped: Vec<Namespace>,
}

/// Sets capture up: listeners, then programs or rules.
pub(super) fn start(
    settings: Settings,
    generation: &Generation,
    shards: u16,
    helper: &Arc<Helper>,
    may_pin: bool,
) -> Result<(Captured, Change), Failure> {
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
    let supply = Supply::new(helper).map_err(unavailable("cannot supply sockets"))?;
    let before = Spaces::new()?;
    let spaces = before.with_targets(&settings, helper)?;
    let (port, sockets) = listen_anywhere(&spaces, shards, helper)?;
    for space in spaces.iter().filter(|space| space.is_in_use()) {
        undo_at_end(settings.mode, space, port, helper)?;
    }
    let claims = generation.table.claims();
    let mut circuits = Circuits::default();
    let method = match settings.mode {
        Mode::Ebpf => {
            let workloads: Vec<Workload> = spaces.workloads().cloned().collect();
            let options = Options {
                proxy_port: port,
                shards,
                may_pin,
                kernel_log: std::env::var_os("AMBASSADOR_KERNEL_LOG").is_some(),
            };
            circuits = Circuits::of(generation, spaces.view_of_kernel(), &circuits);
            let claims = kernel_claims(&claims, &[], &circuits);
            let (programs, found) =
                Capture::start(&settings, &claims, &workloads, options, helper).map_err(failed)?;
            found.iter().for_each(say);
            circuits.follow(&Circuits::default(), &programs);
            circuits.warn_of_contested(&claims);
            if let Err(why) = programs.guarded() {
                tracing::warn!(why, "tokens are not guarded at the root of the hierarchy");
            }
            Method::Programs(Box::new(programs))
        }
        Mode::Iptables => {
            let owner = std::process::id();
            let claims = kernel_claims(&claims, &[], &circuits);
            for space in spaces.iter().filter(|space| space.is_in_use()) {
                install(
                    &rules(owner, space, port, &settings, &claims),
                    space,
                    helper,
                )?;
            }
            Method::Rules(owner)
        }
    };
    let captured = Captured {
        helper: Arc::clone(helper),
        supply: Arc::new(supply),
        reliance: Arc::new(Reliance::on(helper)),
        shards,
        method,
        port,
        now: Mutex::new(Now {
            settings,
            spaces,
            resolved: Vec::new(),
            circuits,
        }),
    };
    let change = captured.change(&before, &captured.lock().spaces, sockets)?;
    Ok((captured, change))
}

/// A listener, one socket per shard, and the namespace it is in.
type Opened = (Namespace, Vec<OwnedFd>);

/// Opens a listener in every namespace, all at the same port.
fn listen_anywhere(
    spaces: &Spaces,
    shards: u16,
    helper: &Helper,
) -> Result<(u16, Vec<Opened>), Failure> {
    let mut tried = 0;
    loop {
        tried += 1;
        let mut port = 0;
        let listen = |space: &Space| {
            let sockets = match port {
                0 => space.listen(0, shards, helper)?,
                port => space.try_to_listen(port, shards, helper)?,
            };
            if let Some(address) = opened::local_address(&sockets) {
                port = address.port();
            }
            Ok((space.namespace, sockets))
        };
        let in_use = spaces.iter().filter(|space| space.is_in_use());
        let result: io::Result<Vec<Opened>> = in_use.map(listen).collect();
        match result {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tried < PORTS_TRIED => {}
            result => {
                let failed = unavailable("cannot listen for captured connections");
                return result.map(|opened| (port, opened)).map_err(failed);
            }
        }
    }
}

/// Has the helper remove from a namespace what capture puts there.
fn undo_at_end(mode: Mode, space: &Space, port: u16, helper: &Helper) -> Result<(), Failure> {
    match mode {
        Mode::Ebpf => helper.remove_token_prefix_at_end(&space.netns, port),
        Mode::Iptables => helper.remove_iptables_at_end(&space.netns),
    }
    .map_err(unavailable("the privileged helper does not answer"))
}

fn say(found: &Found) {
    let cgroup = found.cgroup.display();
    if !found.others.is_empty() {
        let others: Vec<String> = found.others.iter().map(ToString::to_string).collect();
        tracing::warn!(%cgroup, ?others, "other programs are attached to the same hooks");
    }
    if let Some(why) = &found.no_v6 {
        tracing::warn!(%cgroup, why, "IPv6 destinations are not captured");
    }
}

fn failed(error: crate::capture::CaptureError) -> Failure {
    Failure::Unavailable(super::with_causes(&error))
}

fn install(rules: &iptables::Rules, space: &Space, helper: &Helper) -> Result<(), Failure> {
    let rules = serde_json::to_value(rules).map_err(unavailable("cannot write rules down"))?;
    helper
        .install_iptables(&space.netns, rules)
        .map_err(unavailable("cannot install iptables rules"))
}

/// The rules of one namespace.
fn rules(
    owner: u32,
    space: &Space,
    port: u16,
    settings: &Settings,
    claims: &Claims,
) -> iptables::Rules {
    let claimed = settings.unmatched == Unmatched::Passthrough;
    let nets = claims.nets.iter().map(|claim| (claim.net, claim.port));
    iptables::Rules {
        owner,
        cgroups: space.cgroups(),
        proxy_port: port,
        include: settings.include.clone(),
        exclude: settings.exclude.clone(),
        claims: claimed.then(|| nets.collect()),
        refuse_quic: settings.quic == Quic::Refuse,
        exempt_mark: space.mark,
    }
}

impl Captured {
    /// Puts new settings and the claims of a generation in force. On an error the
    /// old ones hold.
    pub(super) fn update(
        &self,
        settings: &Settings,
        generation: &Generation,
    ) -> Result<Change, Failure> {
        let mut now = self.lock();
        let spaces = now.spaces.with_targets(settings, &self.helper)?;
        let mut opened = Vec::new();
        for space in spaces.not_in(&now.spaces) {
            let sockets = space
                .listen(self.port, self.shards, &self.helper)
                .map_err(unavailable("cannot listen for captured connections"))?;
            opened.push((space.namespace, sockets));
            undo_at_end(settings.mode, space, self.port, &self.helper)?;
        }
        let change = self.change(&now.spaces, &spaces, opened)?;
        let claims = generation.table.claims();
        match &self.method {
            Method::Programs(programs) => {
                let workloads: Vec<Workload> = spaces.workloads().cloned().collect();
                let view = spaces.view_of_kernel();
                let mut circuits = Circuits::of(generation, view, &now.circuits);
                let known = now.known_in(view);
                let claims = kernel_claims(&claims, &known, &circuits);
                // Open where they have to be before a rule names them, and
                // closed after the last one does.
                circuits.follow(&now.circuits, programs);
                let found = programs.update(settings, &claims, &workloads);
                let found = found.map_err(|error| {
                    now.circuits.follow(&circuits, programs);
                    circuits.let_go(&now.circuits, programs);
                    failed(error)
                })?;
                now.circuits.let_go(&circuits, programs);
                circuits.warn_of_contested(&claims);
                now.circuits = circuits;
                found.iter().for_each(say);
            }
            Method::Rules(owner) => {
                let known = now.known_in(spaces.view_of_kernel());
                let claims = kernel_claims(&claims, &known, &now.circuits);
                self.replace_rules(*owner, &now, (settings, &spaces), &claims)?;
            }
        }
        let claimed = generation.table.claims().names;
        now.resolved.retain(|known| {
            let own = known.namespace == Namespace::default();
            let has_callers = own || spaces.get(known.namespace).is_in_use();
            let mut claimed = claimed.iter().filter(|_| has_callers);
            claimed.any(|claimed| (&claimed.what, claimed.port) == (&known.name, known.port))
        });
        now.settings = settings.clone();
        now.spaces = spaces;
        Ok(change)
    }

    /// Captures cgroups that were removed and made anew since, as a service
    /// manager does when it starts a service again. None is no change.
    pub(super) fn follow_cgroups(
        &self,
        generation: &Generation,
    ) -> Option<Result<Change, Failure>> {
        let settings = {
            let now = self.lock();
            now.spaces.is_outdated().then(|| now.settings.clone())
        };
        settings.map(|settings| self.update(&settings, generation))
    }

    /// A name that an upstream claims has other addresses now.
    pub(super) fn resolved(
        &self,
        watched: &Watched,
        addresses: Arc<[EndpointAddr]>,
        claims: &route::Claims,
    ) -> Result<(), Failure> {
        let mut now = self.lock();
        let resolved = Resolved {
            name: watched.name.clone(),
            port: Some(watched.port).filter(|port| *port != 0),
            namespace: watched.namespace,
            addresses,
        };
        let of = |known: &Resolved| (known.name.clone(), known.port, known.namespace);
        now.resolved.retain(|known| of(known) != of(&resolved));
        now.resolved.push(resolved);
        let view = now.spaces.view_of_kernel();
        if view != watched.namespace {
            return Ok(());
        }
        let claims = kernel_claims(claims, &now.known_in(view), &now.circuits);
        match &self.method {
            Method::Programs(programs) => {
                now.circuits.warn_of_contested(&claims);
                let updated = programs.update_claims(&now.settings, &claims);
                updated.map_err(failed)
            }
            Method::Rules(owner) => {
                self.replace_rules(*owner, &now, (&now.settings, &now.spaces), &claims)
            }
        }
    }

    /// Replaces the rules of every namespace. Where that fails in one, those
    /// of the others are put back.
    fn replace_rules(
        &self,
        owner: u32,
        now: &Now,
        (settings, spaces): (&Settings, &Spaces),
        claims: &Claims,
    ) -> Result<(), Failure> {
        let with_rules = |space: &&Space| space.was_in_use();
        let rules = |space: &Space, settings| rules(owner, space, self.port, settings, claims);
        for space in spaces.iter().filter(with_rules) {
            let Err(failure) = install(&rules(space, settings), space, &self.helper) else {
                continue;
            };
            for space in now.spaces.iter().filter(with_rules) {
                if let Err(failure) = install(&rules(space, &now.settings), space, &self.helper) {
                    tracing::error!(%failure, "the old rules could not be put back");
                }
            }
            return Err(failure);
        }
        Ok(())
    }

    /// What shards have to do when `before` becomes `after`.
    fn change(
        &self,
        before: &Spaces,
        after: &Spaces,
        opened: Vec<Opened>,
    ) -> Result<Change, Failure> {
        let mut change = Change {
            stopped: before.not_in(after).map(|space| space.namespace).collect(),
            ..Change::default()
        };
        for shard in 0..usize::from(self.shards) {
            let added = after.added_to(before);
            let stocks: io::Result<Vec<SocketStock>> =
                added.map(|space| space.stock(&self.supply)).collect();
            let no_sockets = "cannot make sockets in a network namespace";
            change.stocks.push(stocks.map_err(unavailable(no_sockets))?);
            let mut intakes = Vec::new();
            for (namespace, sockets) in &opened {
                let space = after.get(*namespace);
                let socket = sockets[shard].try_clone();
                let socket = socket.map_err(unavailable("cannot share a listener"))?;
                let here = space.addresses(&self.helper);
                let here = here.map_err(unavailable(no_sockets))?;
                intakes.push(Intake {
                    socket,
                    index: ListenerIndex::CAPTURE,
                    entry: Entry::Captured,
                    room: Room::new(None),
                    original: Some(match &self.method {
                        Method::Programs(programs) => {
                            original::by_token(programs.table(), *namespace, here)
                        }
                        Method::Rules(_) => original::by_redirect(*namespace, here),
                    }),
                    namespace: *namespace,
                });
            }
            change.intakes.push(intakes);
        }
        let needs_helper =
            |space: &Space| space.is_in_use() && space.namespace != Namespace::default();
        self.reliance.set_needed(after.iter().any(needs_helper));
        Ok(change)
    }

    /// Where names are looked up for `listeners` and for what is captured.
    pub(super) fn name_places(&self, listeners: Listeners) -> Places {
        self.lock().spaces.name_places(listeners)
    }

    /// Starts what asks the helper for sockets, and notices its end. To be called
    /// once this process may have threads.
    pub(super) fn start_supply(&self) -> io::Result<()> {
        self.supply.start()
    }

    /// Whether what is captured can be served.
    pub(super) fn reliance(&self) -> Arc<Reliance> {
        Arc::clone(&self.reliance)
    }

    /// The sign of life of a shard.
    pub(super) fn heartbeat(&self, shard: u16) -> Option<Heartbeat> {
        Some(self.programs()?.table().heartbeat(shard))
    }

    /// Connects like a captured program and says why that was not captured.
    pub(super) fn canary(&self) -> Result<(), String> {
        match self.helper.life() {
            Life::Answers => {}
            Life::Silent => return Err("the privileged helper does not answer".into()),
            Life::Ended => return Err("the privileged helper has ended".into()),
        }
        self.programs().map_or(Ok(()), Capture::canary)
    }

    /// Whether connects are refused once the proxy has ended.
    pub(super) fn is_pinned(&self) -> bool {
        self.programs().is_some_and(Capture::is_pinned)
    }

    /// Connects by verdict.
    pub(super) fn verdicts(&self) -> Vec<(&'static str, u64)> {
        match self.programs().map(Capture::verdicts) {
            Some(Ok(verdicts)) => verdicts
                .into_iter()
                .map(|(verdict, count)| (verdict.as_str(), count))
                .collect(),
            _ => Vec::new(),
        }
    }

    fn programs(&self) -> Option<&Capture> {
        match &self.method {
            Method::Programs(programs) => Some(programs),
            Method::Rules(_) => None,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    /// What names mean in a namespace.
    fn known_in(&self, namespace: Namespace) -> Vec<&Resolved> {
        let known = self.resolved.iter();
        known.filter(|known| known.namespace == namespace).collect()
    }
}

fn kernel_claims(claims: &route::Claims, resolved: &[&Resolved], circuits: &Circuits) -> Claims {
    let mut nets = Vec::new();
    let mut add = |net, port, upstream: &str| {
        nets.push(Claim {
            circuit: circuits.number_of(upstream),
            ..Claim::new(net, port)
        });
    };
    for claimed in &claims.nets {
        add(claimed.what, claimed.port, &claimed.upstream);
    }
    for known in resolved {
        let means = |claimed: &&Claimed<String>| {
            (claimed.what.as_str(), claimed.port) == (known.name.as_str(), known.port)
        };
        for claimed in claims.names.iter().filter(means) {
            for address in known.addresses.iter() {
                add(address.0.ip().into(), claimed.port, &claimed.upstream);
            }
        }
    }
    Claims {
        nets,
        any_names: claims.any_names,
    }
}
