//! Adopted upstreams: each authority or address that no upstream of the file
//! claims becomes an upstream of its own.
//!
//! All shards share their map, behind a lock that only the first request to each
//! takes; afterwards a shard finds it in a cache of its own. An adopted upstream
//! in use is not evicted, and an evicted one cannot be used any more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::addr::{Authority, OriginalDst};
use crate::clock::Instant;
use crate::policy::breaker::State;
use crate::route::AdoptKey;
use crate::route::settings::{Endpoints, Policies, Protocol, Upstream};
use crate::telemetry::UpstreamIndex;
use crate::upstream::limits::Limits;
use crate::upstream::shared::Shared;

/// Adopted upstreams at most; the least recently used one leaves.
const ADOPTED_MAX: usize = 1_024;

/// The count of holders that stands for an eviction.
const EVICTED: u32 = u32::MAX;

/// The adopted upstreams of all shards, kept over reloads.
pub struct Adopted {
    started: Instant,
    entries: Mutex<HashMap<String, Arc<Entry>>>,
    /// What the configuration in force says of the pools of all of them.
    limits: Arc<Limits>,
    evictions: AtomicU64,
}

/// One of them. Its policies belong to a version of the configuration, and are
/// not here.
struct Entry {
    name: Arc<str>,
    shared: Arc<Shared>,
    holders: AtomicU32,
    used_ms: AtomicU64,
    requests: AtomicU64,
}

/// Keeps an adopted upstream from being evicted.
pub struct Hold(Arc<Entry>);

/// An adopted upstream, held.
#[derive(Clone)]
pub struct Adoption {
    /// Its policies.
    pub upstream: Arc<Upstream>,
    /// What all shards share of it.
    pub shared: Arc<Shared>,
    /// Keeps it.
    pub hold: Hold,
}

/// What is shown of an adopted upstream.
#[derive(Clone)]
pub struct AdoptedView {
    /// The authority or address.
    pub name: Arc<str>,
    /// Requests and connections routed to it.
    pub requests: u64,
    /// What all shards share of it.
    pub shared: Arc<Shared>,
}

/// What one shard knows of them: an entry is found without a lock, and without
/// an allocation. It has no limit of its own: what was evicted leaves it too.
#[derive(Default)]
pub struct Cache {
    by_authority: HashMap<Authority, Cached>,
    by_address: HashMap<OriginalDst, Cached>,
    evictions_seen: u64,
    /// Evicted, and made anew before anyone looked.
    replaced: Vec<u32>,
}

struct Cached {
    entry: Arc<Entry>,
    upstream: Arc<Upstream>,
    version: u64,
}

/// The policies of a version of the configuration.
#[derive(Clone, Copy)]
pub struct Version<'a> {
    /// Different for each version.
    pub number: u64,
    /// What adopted upstreams inherit.
    pub policies: &'a Policies,
}

impl Cache {
    /// The upstream that `key` means; made where there is none. `None`: there are
    /// as many as there may be, and none of them may leave.
    pub fn adopt(
        &mut self,
        adopted: &Adopted,
        version: Version<'_>,
        key: AdoptKey<'_>,
        now: Instant,
    ) -> Option<Adoption> {
        let known = match key {
            AdoptKey::Authority(authority) => self.by_authority.get_mut(authority),
            AdoptKey::Address(address) => self.by_address.get_mut(&address),
        };
        if let Some(cached) = known
            && let Some(known) = cached.adoption(version)
        {
            adopted.touch(&cached.entry, now);
            return Some(known);
        }
        let hold = adopted.hold(key, now)?;
        let cached = Cached {
            upstream: Arc::new(as_upstream(&hold.0.name, version.policies)),
            entry: Arc::clone(&hold.0),
            version: version.number,
        };
        let adoption = cached.held_by(hold);
        let replaced = match key {
            AdoptKey::Authority(authority) => self.by_authority.insert(authority.clone(), cached),
            AdoptKey::Address(address) => self.by_address.insert(address, cached),
        };
        let ids = replaced.iter().map(|cached| cached.entry.shared.id);
        self.replaced.extend(ids);
        Some(adoption)
    }

    /// Drops what was evicted since the last call and gives the ids of the
    /// pools that nobody uses any more. One comparison when nothing was.
    pub fn take_evicted(&mut self, adopted: &Adopted) -> Vec<u32> {
        let evictions = adopted.evictions.load(Ordering::Acquire);
        if std::mem::replace(&mut self.evictions_seen, evictions) == evictions {
            return Vec::new();
        }
        let mut ids = std::mem::take(&mut self.replaced);
        let mut stays = |cached: &Cached| {
            let evicted = cached.entry.is_evicted();
            if evicted {
                ids.push(cached.entry.shared.id);
            }
            !evicted
        };
        self.by_authority.retain(|_, cached| stays(cached));
        self.by_address.retain(|_, cached| stays(cached));
        ids
    }
}

impl Cached {
    /// `None`: it was evicted.
    fn adoption(&mut self, version: Version<'_>) -> Option<Adoption> {
        let hold = Entry::hold(&self.entry)?;
        if self.version != version.number {
            self.upstream = Arc::new(as_upstream(&self.entry.name, version.policies));
            self.version = version.number;
        }
        Some(self.held_by(hold))
    }

    fn held_by(&self, hold: Hold) -> Adoption {
        Adoption {
            upstream: Arc::clone(&self.upstream),
            shared: Arc::clone(&self.entry.shared),
            hold,
        }
    }
}

impl Adopted {
    /// None yet, for which these policies are in force.
    pub fn new(policies: &Policies) -> Self {
        Self {
            started: crate::clock::now(),
            entries: Mutex::default(),
            limits: Arc::new(Limits::new(
                &policies.pool,
                &policies.timeouts,
                policies.http2,
            )),
            evictions: AtomicU64::new(0),
        }
    }

    /// These policies are in force from now on.
    pub fn set_limits(&self, policies: &Policies) {
        self.limits
            .set(&policies.pool, &policies.timeouts, policies.http2);
    }

    /// An upstream that is in no configuration.
    pub fn shared_as(&self, label: UpstreamIndex) -> Shared {
        Shared::new(label, Arc::clone(&self.limits))
    }

    fn hold(&self, key: AdoptKey<'_>, now: Instant) -> Option<Hold> {
        let name = match key {
            AdoptKey::Authority(authority) => authority.to_string(),
            AdoptKey::Address(OriginalDst(address)) => address.to_string(),
        };
        let mut entries = self.entries();
        if let Some(hold) = entries.get(&name).and_then(Entry::hold) {
            self.touch(&hold.0, now);
            return Some(hold);
        }
        if entries.len() >= ADOPTED_MAX && self.evict(&mut entries) == Evicted::None {
            return None;
        }
        let entry = Arc::new(Entry {
            name: name.as_str().into(),
            shared: Arc::new(self.shared_as(UpstreamIndex::ADOPTED)),
            holders: AtomicU32::new(1),
            used_ms: AtomicU64::new(0),
            requests: AtomicU64::new(0),
        });
        self.touch(&entry, now);
        entries.insert(name, Arc::clone(&entry));
        Some(Hold(entry))
    }

    /// The least recently used one that nobody holds leaves. One that is left
    /// alone by its circuit breaker would be forgotten to have failed.
    fn evict(&self, entries: &mut HashMap<String, Arc<Entry>>) -> Evicted {
        loop {
            let oldest = entries
                .iter()
                .filter(|(_, entry)| entry.holders.load(Ordering::Relaxed) == 0)
                .filter(|(_, entry)| entry.shared.health.breaker.state() == State::Closed)
                .min_by_key(|(_, entry)| entry.used_ms.load(Ordering::Relaxed))
                .map(|(name, entry)| (name.clone(), Arc::clone(entry)));
            let Some((name, entry)) = oldest else {
                return Evicted::None;
            };
            // A shard may have taken hold of it since.
            if entry.try_evict() {
                entries.remove(&name);
                self.evictions.fetch_add(1, Ordering::Release);
                return Evicted::One;
            }
        }
    }

    fn touch(&self, entry: &Entry, now: Instant) {
        let now_ms = now.saturating_duration_since(self.started).as_millis() as u64;
        // All shards read it: written only when it changes.
        if entry.used_ms.load(Ordering::Relaxed) != now_ms {
            entry.used_ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// The shared state of all.
    pub fn shared(&self) -> Vec<Arc<Shared>> {
        let entries = self.entries();
        entries
            .values()
            .map(|entry| Arc::clone(&entry.shared))
            .collect()
    }

    /// What is shown of all, by name.
    pub fn view(&self) -> Vec<AdoptedView> {
        let mut view: Vec<_> = self
            .entries()
            .values()
            .map(|entry| AdoptedView {
                name: Arc::clone(&entry.name),
                requests: entry.requests.load(Ordering::Relaxed),
                shared: Arc::clone(&entry.shared),
            })
            .collect();
        view.sort_by(|a, b| a.name.cmp(&b.name));
        view
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(PartialEq, Eq)]
enum Evicted {
    One,
    None,
}

impl Entry {
    fn hold(self: &Arc<Self>) -> Option<Hold> {
        let one_more = |holders| (holders != EVICTED).then(|| holders + 1);
        self.holders
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        Some(Hold(Arc::clone(self)))
    }

    fn try_evict(&self) -> bool {
        let evicted =
            self.holders
                .compare_exchange(0, EVICTED, Ordering::Relaxed, Ordering::Relaxed);
        evicted.is_ok()
    }

    fn is_evicted(&self) -> bool {
        self.holders.load(Ordering::Relaxed) == EVICTED
    }
}

impl Hold {
    /// Counts a request or connection.
    pub fn count_use(&self) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
    }
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        self.0.holders.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holders.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An upstream whose endpoint is the original destination.
pub(crate) fn as_upstream(name: &str, policies: &Policies) -> Upstream {
    Upstream {
        name: name.into(),
        claims: Vec::new(),
        endpoints: Endpoints::Original,
        protocol: Protocol::Auto,
        tls: None,
        auth: None,
        placeholders: Vec::new(),
        on_failure: None,
        policies: policies.clone(),
    }
}

#[cfg(test)]
mod tests;
