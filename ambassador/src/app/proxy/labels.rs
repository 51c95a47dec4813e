//! Gives numbers of names back when nothing uses them any more: an upstream's
//! after its last request, a listener's after its last connection.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use super::listeners::ListenersByName;
use crate::proxy::generation::Generation;
use crate::shard::{LeavingNames, Shard};
use crate::telemetry::{ListenerIndex, Registry, UpstreamIndex};
use crate::upstream::shared::Shared;

/// The numbers that are in use.
#[derive(Default)]
pub(super) struct Labels {
    upstreams: HashMap<UpstreamIndex, Weak<Shared>>,
    /// Those that have left the configuration.
    leaving: HashMap<ListenerIndex, Weak<()>>,
}

/// Names that get numbers from some moment on. Dropped, they are forgotten again:
/// nothing was counted for them. The main thread alone gives numbers.
pub(super) struct NewNames<'a> {
    registry: &'a Registry,
    upstreams: BTreeMap<UpstreamIndex, Arc<str>>,
    listeners: BTreeMap<ListenerIndex, Arc<str>>,
    are_kept: bool,
}

impl<'a> NewNames<'a> {
    /// Those that come after this.
    pub(super) fn from_now_on(registry: &'a Registry) -> Self {
        Self {
            registry,
            upstreams: registry.upstream_names(),
            listeners: registry.listener_names(),
            are_kept: false,
        }
    }

    /// They are in use.
    pub(super) fn keep(mut self) {
        self.are_kept = true;
    }
}

impl Drop for NewNames<'_> {
    fn drop(&mut self) {
        if self.are_kept {
            return;
        }
        let is_new = |index: &UpstreamIndex| !self.upstreams.contains_key(index);
        let upstreams = self.registry.upstream_names().into_keys();
        for index in upstreams.filter(is_new) {
            self.registry.forget_upstream(index);
        }
        let is_new = |index: &ListenerIndex| !self.listeners.contains_key(index);
        let listeners = self.registry.listener_names().into_keys();
        for index in listeners.filter(is_new) {
            self.registry.forget_listener(index);
        }
    }
}

impl Labels {
    /// Takes note of the upstreams of a generation.
    pub(super) fn follow(&mut self, generation: &Generation) {
        let shared = generation.targets().map(|(_, shared)| shared);
        self.upstreams
            .extend(shared.map(|shared| (shared.label, Arc::downgrade(shared))));
    }

    /// Takes note of the listeners that a reload has left and of those that are
    /// back.
    pub(super) fn follow_listeners(
        &mut self,
        before: &ListenersByName,
        now: &ListenersByName,
    ) -> LeavingNames {
        let mut names = LeavingNames::default();
        let now: Vec<ListenerIndex> = now.values().map(|(_, index)| *index).collect();
        for index in &now {
            if self.leaving.remove(index).is_some() {
                names.stay.push(*index);
            }
        }
        let before = before.values().map(|(_, index)| *index);
        for index in before.filter(|index| !now.contains(index)) {
            let token = Arc::new(());
            self.leaving.insert(index, Arc::downgrade(&token));
            names.leave.push((index, token));
        }
        names
    }

    /// Gives back what nobody uses.
    pub(super) fn give_back(&mut self, registry: &Registry, shards: &[Shard]) {
        let mut gone = Vec::new();
        self.upstreams.retain(|index, shared| {
            let in_use = shared.strong_count() > 0;
            if !in_use {
                gone.push(*index);
            }
            in_use
        });
        self.leaving.retain(|index, token| {
            let in_use = token.strong_count() > 0;
            if !in_use {
                registry.forget_listener(*index);
            }
            in_use
        });
        if gone.is_empty() {
            return;
        }
        for index in &gone {
            registry.forget_upstream(*index);
        }
        let gone: Arc<[UpstreamIndex]> = gone.into();
        for shard in shards {
            let gone = Arc::clone(&gone);
            shard.tell(move |context| {
                for index in gone.iter() {
                    context.telemetry.cells.forget_upstream(*index);
                }
            });
        }
    }
}
