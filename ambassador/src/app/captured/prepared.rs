//! A prepared change of capture: everything that can fail has been done. Dropping
//! it undoes that.

use std::io;
use std::sync::MutexGuard;

use super::circuits::Circuits;
use super::namespaces::{CapturedNamespace, CapturedNamespaces};
use super::rules::{Replaced, Source};
use super::start::undo_at_end;
use super::{Captured, Change, Current, Method, OpenSockets, failed, kernel_claims, original, say};
use crate::app::{Failure, unavailable};
use crate::capture::settings::{Claims, Settings};
use crate::capture::{Capture, Staged};
use crate::proxy::generation::Generation;
use crate::proxy::listener::Entry;
use crate::proxy::room::Room;
use crate::route::Claimed;
use crate::shard::accept::ListenSocket;
use crate::telemetry::ListenerIndex;
use crate::upstream::dial::Namespace;
use crate::workload::SocketStock;

/// New settings and the claims of a generation, about to be in force. Nothing else
/// changes capture meanwhile.
#[must_use = "dropped, it changes nothing"]
pub(crate) struct Prepared<'a> {
    captured: &'a Captured,
    now: MutexGuard<'a, Current>,
    settings: Settings,
    namespaces: CapturedNamespaces,
    claims: Claims,
    /// The names that upstreams claim.
    claimed: Vec<Claimed<String>>,
    kernel: Kernel<'a>,
    change: Change,
}

/// What the kernel is to do.
enum Kernel<'a> {
    Programs {
        programs: &'a Capture,
        staged: Staged<'a>,
        circuits: Circuits,
    },
    Rules(Replaced<'a>),
}

impl Captured {
    /// Prepares new settings and the claims of a generation.
    pub(crate) fn prepare(
        &self,
        settings: &Settings,
        generation: &Generation,
    ) -> Result<Prepared<'_>, Failure> {
        let now = self.lock();
        let namespaces = now.namespaces.with_targets(settings, &self.helper)?;
        let mut opened = Vec::new();
        for space in namespaces.not_in(&now.namespaces) {
            let sockets = space
                .listen(self.port, self.shards, &self.helper)
                .map_err(unavailable("cannot listen for captured connections"))?;
            opened.push((space.namespace, sockets));
            undo_at_end(settings.mode, space, self.port, &self.helper)?;
        }
        let change = self.change(&now.namespaces, &namespaces, opened)?;
        let of_table = generation.table.claims();
        let view = namespaces.view_of_kernel();
        let circuits = match &self.method {
            Method::Programs(_) => Circuits::of(generation, view, &now.circuits),
            Method::Rules(_) => Circuits::default(),
        };
        let claims = kernel_claims(&of_table, &now.known_in(view), &circuits);
        // Last: it is what captured programs notice.
        let kernel = match &self.method {
            Method::Programs(programs) => {
                let workloads = namespaces.workloads().cloned().collect();
                let staged = programs.stage(settings, &claims, workloads);
                Kernel::Programs {
                    programs,
                    staged: staged.map_err(failed)?,
                    circuits,
                }
            }
            Method::Rules(owner) => {
                let after = Source {
                    settings,
                    namespaces: &namespaces,
                    claims: &claims,
                };
                Kernel::Rules(owner.replace(now.source(), after, &self.helper)?)
            }
        };
        Ok(Prepared {
            captured: self,
            now,
            settings: settings.clone(),
            namespaces,
            claims,
            claimed: of_table.names,
            kernel,
            change,
        })
    }

    /// What shards have to do when `before` becomes `after`.
    pub(super) fn change(
        &self,
        before: &CapturedNamespaces,
        after: &CapturedNamespaces,
        opened: Vec<OpenSockets>,
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
            let mut listen_sockets = Vec::new();
            for (namespace, sockets) in &opened {
                let space = after.get(*namespace);
                let socket = sockets[shard].try_clone();
                let socket = socket.map_err(unavailable("cannot share a listener"))?;
                let here = space.addresses(&self.helper);
                let here = here.map_err(unavailable(no_sockets))?;
                listen_sockets.push(ListenSocket {
                    tls: None,
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
            change.listen_sockets.push(listen_sockets);
        }
        Ok(change)
    }

    /// Shards show signs of life only while the helper does, where what is captured
    /// needs it.
    pub(super) fn rely_on_helper(&self, namespaces: &CapturedNamespaces) {
        let needs_helper = |space: &CapturedNamespace| {
            space.is_in_use() && space.namespace != Namespace::default()
        };
        self.reliance
            .set_needed(namespaces.iter().any(needs_helper));
    }
}

impl Prepared<'_> {
    /// Puts it in force.
    pub(crate) fn commit(self) -> Change {
        let Self {
            captured,
            mut now,
            settings,
            namespaces,
            claims,
            claimed,
            kernel,
            change,
        } = self;
        match kernel {
            Kernel::Programs {
                programs,
                staged,
                mut circuits,
            } => {
                // Open where they have to be before a rule names them, and
                // closed after the last one does.
                circuits.follow(&now.circuits, programs);
                let found = staged.commit();
                now.circuits.let_go(&circuits, programs);
                circuits.warn_of_contested(&claims);
                now.circuits = circuits;
                found.iter().for_each(say);
            }
            Kernel::Rules(replaced) => replaced.keep(),
        }
        captured.rely_on_helper(&namespaces);
        now.resolved.retain(|known| {
            let own = known.namespace == Namespace::default();
            let has_callers = own || namespaces.get(known.namespace).is_in_use();
            let mut claimed = claimed.iter().filter(|_| has_callers);
            claimed.any(|claimed| (&claimed.what, claimed.port) == (&known.name, known.port))
        });
        now.settings = settings;
        now.namespaces = namespaces;
        now.claims = claims;
        change
    }
}
