//! Gives names dense numbers once, so that counting needs no lookup.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::labels::{CredentialOutcome, HealthCheckResult};
use super::places::{self, Places};

/// The number of an upstream's name, until nobody uses the name any more: then it
/// is forgotten with what was counted, and its place is given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamIndex(pub u32);

impl UpstreamIndex {
    /// What no upstream claims.
    pub const UNMATCHED: Self = Self(0);
    /// All adopted upstreams together.
    pub const ADOPTED: Self = Self(1);

    /// Its place among those of all upstreams.
    pub fn place(self) -> usize {
        places::place(self.0)
    }

    /// Whether it was given its place after `other` had it.
    pub fn is_newer_than(self, other: Self) -> bool {
        places::is_newer(self.0, other.0)
    }
}

/// The number of a listener's name, as long as that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerIndex(pub u32);

impl ListenerIndex {
    /// The listener of captured connections.
    pub const CAPTURE: Self = Self(0);

    /// Its place among those of all listeners.
    pub fn place(self) -> usize {
        places::place(self.0)
    }

    /// Whether it was given its place after `other` had it.
    pub fn is_newer_than(self, other: Self) -> bool {
        places::is_newer(self.0, other.0)
    }
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
    upstreams: Places,
    listeners: Places,
}

/// Counters that the control side writes, far from any request.
#[derive(Debug, Default)]
pub struct ControlCounters {
    /// Configurations taken over after the first.
    pub config_reloads: AtomicU64,
    /// Configurations refused, by their mistakes or because they need a restart.
    pub config_reload_failures: AtomicU64,
    /// Changed files of certificates that were refused.
    pub certificate_reload_failures: AtomicU64,
    /// Processes that run commands that have ended by themselves.
    pub command_runner_deaths: AtomicU64,
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
                upstreams: Places::of(&["unmatched", "adopted"]),
                listeners: Places::of(&["capture"]),
            }),
            control: ControlCounters::default(),
        }
    }
}

impl Registry {
    /// The number of an upstream, given at its first call.
    pub fn upstream(&self, name: &str) -> UpstreamIndex {
        UpstreamIndex(self.names().upstreams.number_of(name))
    }

    /// The number of a listener, given at its first call.
    pub fn listener(&self, name: &str) -> ListenerIndex {
        ListenerIndex(self.names().listeners.number_of(name))
    }

    /// Every upstream's name.
    pub fn upstream_names(&self) -> BTreeMap<UpstreamIndex, Arc<str>> {
        let names = self.names();
        let named = names.upstreams.named();
        named
            .map(|place| (UpstreamIndex(place.number), Arc::clone(&place.name)))
            .collect()
    }

    /// Every listener's name.
    pub fn listener_names(&self) -> BTreeMap<ListenerIndex, Arc<str>> {
        let names = self.names();
        let named = names.listeners.named();
        named
            .map(|place| (ListenerIndex(place.number), Arc::clone(&place.name)))
            .collect()
    }

    /// Nobody uses this number any more.
    pub fn forget_upstream(&self, index: UpstreamIndex) {
        self.names().upstreams.forget(index.0);
    }

    /// Nobody uses this number any more.
    pub fn forget_listener(&self, index: ListenerIndex) {
        self.names().listeners.forget(index.0);
    }

    /// A resolution for this upstream failed; its last good answer stays.
    pub fn dns_failure(&self, index: UpstreamIndex) {
        if let Some(place) = self.names().upstreams.get(index.0) {
            place.counts.dns_failures += 1;
        }
    }

    /// Failed resolutions by upstream, where there are any.
    pub fn dns_failures(&self) -> Vec<(Arc<str>, u64)> {
        let names = self.names();
        let named = names.upstreams.named();
        let failing = named.filter(|place| place.counts.dns_failures > 0);
        failing
            .map(|place| (Arc::clone(&place.name), place.counts.dns_failures))
            .collect()
    }

    /// The credential of this upstream was fetched.
    pub(crate) fn credential_refresh(&self, index: UpstreamIndex, outcome: CredentialOutcome) {
        if let Some(place) = self.names().upstreams.get(index.0) {
            place.counts.credential_refreshes[outcome as usize] += 1;
        }
    }

    /// Fetched credentials by upstream and how that went, where there are any.
    pub(crate) fn credential_refreshes(&self) -> Vec<(Arc<str>, CredentialOutcome, u64)> {
        let names = self.names();
        let named = names.upstreams.named();
        let counted = named.flat_map(|place| {
            let counts = place.counts.credential_refreshes;
            let outcomes = CredentialOutcome::ALL.iter();
            outcomes
                .map(move |outcome| (Arc::clone(&place.name), *outcome, counts[*outcome as usize]))
        });
        counted.filter(|(.., count)| *count > 0).collect()
    }

    /// An endpoint of this upstream was checked.
    pub(crate) fn health_check(&self, index: UpstreamIndex, result: HealthCheckResult) {
        if let Some(place) = self.names().upstreams.get(index.0) {
            place.counts.health_checks[result as usize] += 1;
        }
    }

    /// Checks of endpoints by upstream and what they found, where there are any.
    pub(crate) fn health_checks(&self) -> Vec<(Arc<str>, HealthCheckResult, u64)> {
        let names = self.names();
        let named = names.upstreams.named();
        let counted = named.flat_map(|place| {
            let counts = place.counts.health_checks;
            let results = HealthCheckResult::ALL.iter();
            results.map(move |result| (Arc::clone(&place.name), *result, counts[*result as usize]))
        });
        counted.filter(|(.., count)| *count > 0).collect()
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

    /// Counts files of certificates refused.
    pub(crate) fn certificate_refused(&self) {
        self.certificate_reload_failures
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the end of a process that runs commands.
    pub(crate) fn runner_died(&self) {
        self.command_runner_deaths.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a configuration refused.
    pub fn reload_failed(&self) {
        self.config_refused.store(true, Ordering::Relaxed);
        self.config_reload_failures.fetch_add(1, Ordering::Relaxed);
    }
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
        assert_eq!(&*registry.upstream_names()[&shop], "shop");
        assert_eq!(registry.listener("capture"), ListenerIndex::CAPTURE);
    }

    #[test]
    fn a_forgotten_name_makes_room_and_its_number_means_nobody() {
        let registry = Registry::default();
        let gone = registry.upstream("gone");
        registry.dns_failure(gone);
        registry.forget_upstream(gone);
        registry.forget_upstream(gone);
        let next = registry.upstream("next");
        assert_ne!(next, gone);
        assert_eq!(next.place(), gone.place());
        assert!(next.is_newer_than(gone) && !gone.is_newer_than(next));
        registry.dns_failure(gone);
        assert_eq!(registry.dns_failures(), []);
        assert_eq!(registry.upstream_names().get(&gone), None);
        registry.forget_upstream(gone);
        assert_eq!(&*registry.upstream_names()[&next], "next");
        for round in 0..10_000 {
            let one = registry.upstream(&format!("round {round}"));
            assert!(one.place() < 5, "places are used again");
            registry.forget_upstream(one);
        }
    }

    #[test]
    fn dns_failures_are_counted_by_upstream() {
        let registry = Registry::default();
        let shop = registry.upstream("shop");
        registry.dns_failure(shop);
        registry.dns_failure(shop);
        assert_eq!(registry.dns_failures(), [("shop".into(), 2)]);
    }
}
