//! Numbers of names, given back once nobody uses them: an upstream's when its
//! last request has ended, a listener's with its last connection.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::reload::Known;
use crate::proxy::generation::Generation;
use crate::shard::Shard;
use crate::telemetry::{ListenerIndex, Registry, UpstreamIndex};
use crate::upstream::shared::Shared;

/// The numbers that are in use.
#[derive(Default)]
pub(super) struct Labels {
    upstreams: HashMap<UpstreamIndex, Weak<Shared>>,
    /// Those that have left the configuration.
    leaving: HashMap<ListenerIndex, Weak<()>>,
}

impl Labels {
    /// Takes note of the upstreams of a generation, whether it comes into force or
    /// not.
    pub(super) fn follow(&mut self, generation: &Generation) {
        let shared = generation.targets().map(|(_, shared)| shared);
        self.upstreams
            .extend(shared.map(|shared| (shared.label, Arc::downgrade(shared))));
    }

    /// Takes note of the listeners that a reload has left and of those that are
    /// back.
    pub(super) fn follow_listeners(&mut self, before: &Known, now: &Known, shards: &[Shard]) {
        let now: Vec<ListenerIndex> = now.values().map(|(_, index)| *index).collect();
        for index in &now {
            if self.leaving.remove(index).is_some() {
                let index = *index;
                for shard in shards {
                    shard.tell(move |context| context.telemetry.cells.listener_stays(index));
                }
            }
        }
        let before = before.values().map(|(_, index)| *index);
        for index in before.filter(|index| !now.contains(index)) {
            let token = Arc::new(());
            self.leaving.insert(index, Arc::downgrade(&token));
            for shard in shards {
                let token = Arc::clone(&token);
                shard.tell(move |context| context.telemetry.cells.listener_leaves(index, token));
            }
        }
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
