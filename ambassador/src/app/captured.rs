//! Capture, as the program runs it: by eBPF or by iptables rules, with the
//! listeners that take the connections.

mod circuits;
mod namespaces;
mod original;
mod prepared;
mod rules;
mod slots;
mod start;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use self::circuits::Circuits;
use self::namespaces::CapturedNamespaces;
use self::rules::{Owner, Source};
use super::Failure;
use super::names::{Listeners, Places};
use crate::addr::EndpointAddr;
use crate::capture::settings::{Claim, Claims, Settings};
use crate::capture::{AttachReport, Capture, Heartbeat, Verdict};
use crate::control::WatchedName;
use crate::proxy::context::Tokens;
use crate::proxy::generation::Generation;
use crate::route::{self, Claimed};
use crate::shard::Update;
use crate::shard::accept::ListenSocket;
use crate::upstream::dial::Namespace;
use crate::workload::helper::{Life, Reliance};
use crate::workload::{Helper, SocketStock, Supply};

pub(super) use self::prepared::Prepared;
pub(super) use self::start::Start;

/// Capture in force.
pub(super) struct Captured {
    helper: Arc<Helper>,
    supply: Arc<Supply>,
    reliance: Arc<Reliance>,
    shards: u16,
    method: Method,
    /// The port of the listeners.
    pub port: u16,
    now: Mutex<Current>,
}

enum Method {
    Programs(Box<Capture>),
    Rules(Owner),
}

/// What a reload, or a name that resolves anew, changes.
struct Current {
    settings: Settings,
    namespaces: CapturedNamespaces,
    /// What the kernel knows of what upstreams claim.
    claims: Claims,
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
    pub listen_sockets: Vec<Vec<ListenSocket>>,
    /// Where nothing is captured any more.
    pub stopped: Vec<Namespace>,
}

impl Change {
    /// What each of so many shards has to do.
    pub(super) fn updates(self, shards: u16) -> impl Iterator<Item = Update> {
        let Self {
            stocks,
            listen_sockets,
            stopped,
        } = self;
        let (mut stocks, mut listen_sockets) = (stocks.into_iter(), listen_sockets.into_iter());
        (0..shards).map(move |_| Update {
            stocks: stocks.next().unwrap_or_default(),
            listen_sockets: listen_sockets.next().unwrap_or_default(),
            stopped: stopped.clone(),
            ..Update::default()
        })
    }

    /// Has upstreams forget what they know of namespaces where nothing is captured
    /// any more.
    pub(super) fn forget_in(&self, generation: &Generation) {
        for (_, shared) in generation.targets() {
            for namespace in &self.stopped {
                shared.other_namespaces.forget(*namespace);
            }
        }
    }
}

/// A listener, one socket per shard, and the namespace it is in.
type OpenSockets = (Namespace, Vec<OwnedFd>);

fn say(found: &AttachReport) {
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

impl Captured {
    /// What to capture anew: cgroups were removed and made again since, as a service
    /// manager does when it starts a service again.
    pub(super) fn outdated(&self) -> Option<Settings> {
        let now = self.lock();
        now.namespaces.is_outdated().then(|| now.settings.clone())
    }

    /// A name that an upstream claims has other addresses now.
    pub(super) fn resolved(
        &self,
        watched: &WatchedName,
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
        let view = now.namespaces.view_of_kernel();
        if view != watched.namespace {
            return Ok(());
        }
        let claims = kernel_claims(claims, &now.known_in(view), &now.circuits);
        match &self.method {
            Method::Programs(programs) => {
                now.circuits.warn_of_contested(&claims);
                let updated = programs.update_claims(&now.settings, &claims);
                updated.map_err(failed)?;
            }
            Method::Rules(owner) => {
                let after = Source {
                    claims: &claims,
                    ..now.source()
                };
                owner.replace(now.source(), after, &self.helper)?.keep();
            }
        }
        now.claims = claims;
        Ok(())
    }

    /// Where names are looked up for `listeners` and for what is captured.
    pub(super) fn name_places(&self, listeners: Listeners) -> Places {
        self.lock().namespaces.name_places(listeners)
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

    /// Whose a captured connection may be.
    pub(super) fn tokens(&self) -> Tokens {
        match self.programs().map(Capture::guarded) {
            Some(Err(_)) => Tokens::Borrowable,
            Some(Ok(())) | None => Tokens::Guarded,
        }
    }

    /// Whether connects are refused once the proxy has ended.
    pub(super) fn is_pinned(&self) -> bool {
        self.programs().is_some_and(Capture::is_pinned)
    }

    /// Connects by verdict.
    pub(super) fn verdicts(&self) -> Vec<(Verdict, u64)> {
        let verdicts = self.programs().map(Capture::verdicts);
        verdicts.and_then(Result::ok).unwrap_or_default()
    }

    fn programs(&self) -> Option<&Capture> {
        match &self.method {
            Method::Programs(programs) => Some(programs),
            Method::Rules(_) => None,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Current {
    /// What the rules of iptables are made of.
    fn source(&self) -> Source<'_> {
        Source {
            settings: &self.settings,
            namespaces: &self.namespaces,
            claims: &self.claims,
        }
    }

    /// What names mean in a namespace.
    fn known_in(&self, namespace: Namespace) -> Vec<&Resolved> {
        let known = self.resolved.iter();
        known.filter(|known| known.namespace == namespace).collect()
    }
}

fn kernel_claims(claims: &route::Claims, resolved: &[&Resolved], circuits: &Circuits) -> Claims {
    let mut nets = Vec::new();
    let of_upstream = |upstream: &str, claim: Claim| Claim {
        circuit: circuits.number_of(upstream),
        ..claim
    };
    for claimed in &claims.nets {
        let claim = Claim {
            on_failure: claimed.on_failure,
            ..Claim::new(claimed.what, claimed.port)
        };
        nets.push(of_upstream(&claimed.upstream, claim));
    }
    for known in resolved {
        let means = |claimed: &&Claimed<String>| {
            (claimed.what.as_str(), claimed.port) == (known.name.as_str(), known.port)
        };
        for claimed in claims.names.iter().filter(means) {
            for address in known.addresses.iter() {
                let claim = Claim {
                    on_failure: claimed.on_failure,
                    ..Claim::new(address.0.ip().into(), claimed.port)
                };
                nets.push(of_upstream(&claimed.upstream, claim));
            }
        }
    }
    Claims {
        nets,
        any_names: claims.any_names,
    }
}
