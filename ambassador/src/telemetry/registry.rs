//! Names become dense numbers once, so that counting needs no lookup.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The number of an upstream's name, for the life of the process: a name that
/// leaves the configuration and comes back goes on counting where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UpstreamIndex(pub u32);

impl UpstreamIndex {
    /// What no upstream claims.
    pub const UNMATCHED: Self = Self(0);
    /// All adopted upstreams together.
    pub const ADOPTED: Self = Self(1);
}

/// The number of a listener's name, for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenerIndex(pub u32);

impl ListenerIndex {
    /// The listener of captured connections.
    pub const CAPTURE: Self = Self(0);
}

/// The names behind the numbers, and the few counters of the control side.
/// Shared by all threads and locked: only start, reload and exposition use it.
#[derive(Debug)]
pub struct Registry {
    names: Mutex<Names>,
    /// What the control side counts.
    pub control: ControlCounters,
}

#[derive(Debug)]
struct Names {
    upstreams: Vec<Arc<str>>,
    listeners: Vec<Arc<str>>,
    dns_failures: Vec<u64>,
}

/// Counters that the control side writes, far from any request.
#[derive(Debug, Default)]
pub struct ControlCounters {
    /// Configurations taken over after the first.
    pub config_reloads: AtomicU64,
    /// Configurations refused, by their mistakes or because they need a restart.
    pub config_reload_failures: AtomicU64,
    /// When a configuration was last taken over, in seconds since 1970.
    pub config_loaded_at: AtomicU64,
    /// Whether the last one was refused.
    pub config_refused: AtomicBool,
    /// Access log lines lost: a buffer was full, or a write failed.
    pub access_log_dropped: Arc<AtomicU64>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            names: Mutex::new(Names {
                upstreams: vec!["unmatched".into(), "adopted".into()],
                listeners: vec!["capture".into()],
                dns_failures: Vec::new(),
            }),
            control: ControlCounters::default(),
        }
    }
}

impl Registry {
    /// The number of an upstream, given at its first call.
    pub fn upstream(&self, name: &str) -> UpstreamIndex {
        UpstreamIndex(index_of(&mut self.names().upstreams, name))
    }

    /// The number of a listener, given at its first call.
    pub fn listener(&self, name: &str) -> ListenerIndex {
        ListenerIndex(index_of(&mut self.names().listeners, name))
    }

    /// The name behind a number.
    pub fn upstream_name(&self, index: UpstreamIndex) -> Option<Arc<str>> {
        self.names().upstreams.get(index.0 as usize).cloned()
    }

    /// Every upstream's name, by number.
    pub fn upstream_names(&self) -> Vec<Arc<str>> {
        self.names().upstreams.clone()
    }

    /// Every listener's name, by number.
    pub fn listener_names(&self) -> Vec<Arc<str>> {
        self.names().listeners.clone()
    }

    /// A resolution for this upstream failed; its last good answer stays.
    pub fn dns_failure(&self, index: UpstreamIndex) {
        let mut names = self.names();
        let at = index.0 as usize;
        if names.dns_failures.len() <= at {
            names.dns_failures.resize(at + 1, 0);
        }
        names.dns_failures[at] += 1;
    }

    /// Failed resolutions by upstream number; shorter than the names where the
    /// rest never failed.
    pub fn dns_failures(&self) -> Vec<u64> {
        self.names().dns_failures.clone()
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        // Every critical section leaves the lists whole, so a panic elsewhere
        // in a holder does not spoil them.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ControlCounters {
    /// The first configuration is in force.
    pub fn loaded(&self, unix_seconds: u64) {
        self.config_loaded_at.store(unix_seconds, Ordering::Relaxed);
        self.config_refused.store(false, Ordering::Relaxed);
    }

    /// Counts a configuration taken over.
    pub fn reloaded(&self, unix_seconds: u64) {
        self.loaded(unix_seconds);
        self.config_reloads.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a configuration refused.
    pub fn reload_failed(&self) {
        self.config_refused.store(true, Ordering::Relaxed);
        self.config_reload_failures.fetch_add(1, Ordering::Relaxed);
    }
}

fn index_of(names: &mut Vec<Arc<str>>, name: &str) -> u32 {
    let at = names.iter().position(|known| &**known == name);
    let at = at.unwrap_or_else(|| {
        names.push(name.into());
        names.len() - 1
    });
    u32::try_from(at).expect("names come from a file of bounded size")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number() {
        let registry = Registry::default();
        assert_eq!(registry.upstream("unmatched"), UpstreamIndex::UNMATCHED);
        assert_eq!(registry.upstream("adopted"), UpstreamIndex::ADOPTED);
        let shop = registry.upstream("shop");
        assert_ne!(registry.upstream("stock"), shop);
        assert_eq!(registry.upstream("shop"), shop);
        assert_eq!(registry.upstream_name(shop).as_deref(), Some("shop"));
        assert_eq!(registry.listener("capture"), ListenerIndex::CAPTURE);
    }

    #[test]
    fn dns_failures_are_counted_by_upstream() {
        let registry = Registry::default();
        let shop = registry.upstream("shop");
        registry.dns_failure(shop);
        registry.dns_failure(shop);
        assert_eq!(registry.dns_failures(), [0, 0, 2]);
    }
}
