//! Keeps the memory of the process within its limit: puts the limit in force, has
//! each shard check once a second, and has the allocator return freed memory. It
//! is a thread of its own, because in `exec` the main thread waits for the
//! command, and no shard may wait for the allocator.

use std::io;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use crate::clock;
use crate::proxy::context::Context;
use crate::proxy::memory::{self, Limit, Memory};
use crate::ring::Remote;
use crate::telemetry::MemoryKind;
use crate::workload::MemoryLimits;
use crate::workload::memory::give_back_freed;

/// How often it looks, and how often where little is left.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_CLOSELY_EVERY: Duration = Duration::from_millis(250);

/// How long a shard may take to look; one that hangs is passed over.
const LOOKED_WITHIN: Duration = Duration::from_millis(100);

/// The share of the cgroup's limit that `auto` means. The rest is for the helper
/// and for what the kernel keeps for sockets that move.
const SHARE_OF_CGROUP: f64 = 0.8;

/// Who looks after it.
struct Keeper {
    shards: Vec<Remote>,
    cgroup: MemoryLimits,
    /// The limit that was in force last.
    known: Option<u64>,
}

/// Begins to look after `memory`, until everybody else has forgotten it.
pub(super) fn keep(memory: &Arc<Memory>, shards: Vec<Remote>) -> io::Result<()> {
    let mut keeper = Keeper {
        shards,
        cgroup: MemoryLimits::find(),
        known: None,
    };
    let memory = Arc::downgrade(memory);
    let thread = thread::Builder::new().name("memory".to_owned());
    thread.spawn(move || while keeper.look_and_rest(&memory) {})?;
    Ok(())
}

impl Keeper {
    /// `false`: there is nothing to look after any more.
    fn look_and_rest(&mut self, memory: &Weak<Memory>) -> bool {
        let Some(memory) = memory.upgrade() else {
            return false;
        };
        memory.keep();
        let limit = self.limit(memory.setting());
        memory.set_limit(limit);
        if limit != self.known {
            self.tell_of_change(limit);
            self.known = limit;
        }
        if let Some(limit) = limit {
            self.look(&memory, limit);
        }
        let rest = self.rest(&memory);
        drop(memory);
        match rest {
            Some(rest) => thread::park_timeout(rest),
            None => thread::park(),
        }
        true
    }

    fn limit(&self, setting: Limit) -> Option<u64> {
        match setting {
            Limit::None => None,
            Limit::Bytes(bytes) => Some(bytes),
            Limit::Auto => {
                let cgroup = self.cgroup.smallest();
                cgroup.map(|bytes| (bytes as f64 * SHARE_OF_CGROUP) as u64)
            }
        }
    }

    fn tell_of_change(&self, limit: Option<u64>) {
        let needed = memory::needed(self.shards.len() as u16);
        match limit {
            Some(limit) if limit < needed => tracing::warn!(
                limit,
                needed,
                "memory_limit is too small for this number of workers"
            ),
            Some(limit) => tracing::debug!(limit, "memory_limit"),
            None => tracing::debug!("memory is not limited"),
        }
    }

    /// Has the shards look. Where little is left, what was freed is given back:
    /// what was shed before the shards have looked once more is.
    fn look(&self, memory: &Memory, limit: u64) {
        let leaving = memory.leaving();
        self.have_shards_look();
        if leaving > 0 || memory.state().is_tight(limit) {
            give_back_freed();
            memory.has_left(leaving);
            self.have_shards_look();
        }
    }

    fn have_shards_look(&self) {
        let (tell, told) = sync_channel(self.shards.len());
        for remote in &self.shards {
            let tell = tell.clone();
            let look = Box::new(move || {
                if let Some(context) = Context::current() {
                    context.look_at_memory();
                }
                // Who asked may have given up.
                let _ = tell.try_send(());
            });
            // One that is too busy to listen, or has ended, does without.
            let _ = remote.send(look);
        }
        drop(tell);
        let until = clock::now() + LOOKED_WITHIN;
        for _ in &self.shards {
            let left = until.saturating_duration_since(clock::now());
            if told.recv_timeout(left).is_err() {
                return;
            }
        }
    }

    /// How long until the next look; `None`: until the setting changes.
    fn rest(&self, memory: &Memory) -> Option<Duration> {
        match memory.limit() {
            Some(limit) if memory.state().is_tight(limit) => Some(LOOK_CLOSELY_EVERY),
            Some(_) => Some(LOOK_EVERY),
            // That of the cgroup may change.
            None if memory.setting() == Limit::Auto && !self.cgroup.is_empty() => Some(LOOK_EVERY),
            None => None,
        }
    }
}

/// What `/metrics` says of it.
pub(super) fn figures(memory: &Memory) -> Vec<(MemoryKind, u64)> {
    let mut figures = vec![(MemoryKind::Held, memory.held())];
    if let Some(limit) = memory.limit() {
        figures.push((MemoryKind::Connections, memory.of_connections()));
        figures.push((MemoryKind::Limit, limit));
    }
    figures
}
