//! What one version of the configuration means to the request path: the route
//! table beside the shared state of its upstreams. Replaced whole on reload; a
//! request in flight keeps the one it started with.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::addr::OriginalDst;
use crate::policy::limits;
use crate::route::settings::{Endpoints, HeaderRules, Protocol, Settings, Upstream};
use crate::route::{AdoptKey, Table};
use crate::telemetry::{Registry, UpstreamIndex};
use crate::upstream::shared::Shared;

/// Adopted upstreams at most; the least recently used one leaves.
const ADOPTED_MAX: usize = 1_024;

/// One version of the configuration.
pub struct Generation {
    /// Finds upstreams.
    pub table: Table,
    /// By the place of the upstream in the table's settings.
    shared: Vec<Arc<Shared>>,
    unmatched: Target,
    adopted: Arc<Adopted>,
}

/// An upstream with its policies as one request sees them.
#[derive(Clone)]
pub struct Target {
    /// Its definition.
    pub upstream: Arc<Upstream>,
    /// What all shards share of it.
    pub shared: Arc<Shared>,
    adopted: Option<Arc<AdoptedEntry>>,
}

/// The upstreams made from what programs call, kept over reloads.
pub struct Adopted {
    started: Instant,
    entries: Mutex<HashMap<String, Arc<AdoptedEntry>>>,
    evictions: AtomicU64,
}

struct AdoptedEntry {
    upstream: Arc<Upstream>,
    shared: Arc<Shared>,
    in_flight: AtomicU32,
    used_ms: AtomicU64,
    requests: AtomicU64,
}

/// A use of an adopted upstream; while one exists it is not evicted.
pub struct AdoptedUse(Option<Arc<AdoptedEntry>>);

/// What is shown of an adopted upstream.
#[derive(Debug, Clone)]
pub struct AdoptedView {
    /// The authority or address.
    pub name: Arc<str>,
    /// Requests and connections routed to it.
    pub requests: u64,
    /// Open connections.
    pub connections: u32,
}

impl Generation {
    /// Builds a generation; upstreams that `previous` knows by the same name
    /// keep their connections and counts.
    pub fn new(settings: Settings, registry: &Registry, previous: Option<&Self>) -> Self {
        let table = Table::new(settings);
        let shared = table
            .settings()
            .upstreams
            .iter()
            .map(|upstream| {
                let known = previous.and_then(|previous| previous.shared_of(&upstream.name));
                let shared = known.unwrap_or_else(|| {
                    let label = registry.upstream(&upstream.name);
                    Arc::new(Shared::new(label, upstream.pool.max_connections))
                });
                shared.permits.set_cap(upstream.pool.max_connections);
                if let Endpoints::Static(list) = &upstream.endpoints {
                    let list = list.iter().map(|endpoint| endpoint.address).collect();
                    shared.endpoints.publish(list);
                }
                shared
            })
            .collect();
        let policies = &table.settings().adopted;
        let unmatched = Target {
            upstream: Arc::new(original_upstream(
                "unmatched",
                &policies.pool,
                &policies.timeouts,
                &policies.headers,
            )),
            shared: previous.map_or_else(
                || Arc::new(Shared::new(UpstreamIndex::UNMATCHED, None)),
                |previous| Arc::clone(&previous.unmatched.shared),
            ),
            adopted: None,
        };
        let adopted = previous.map_or_else(
            || Arc::new(Adopted::new()),
            |previous| Arc::clone(&previous.adopted),
        );
        Self {
            table,
            shared,
            unmatched,
            adopted,
        }
    }

    /// The upstream at a place in the table's settings.
    pub fn target(&self, index: usize) -> Target {
        Target {
            upstream: Arc::clone(&self.table.settings().upstreams[index]),
            shared: Arc::clone(&self.shared[index]),
            adopted: None,
        }
    }

    /// The upstream of this name.
    pub fn target_by_name(&self, name: &str) -> Option<Target> {
        let upstreams = &self.table.settings().upstreams;
        let index = upstreams.iter().position(|known| &*known.name == name)?;
        Some(self.target(index))
    }

    /// Where unclaimed connections go: their original destination.
    pub fn unmatched(&self) -> Target {
        self.unmatched.clone()
    }

    /// The upstream of its own that an authority or address becomes.
    pub fn adopt(&self, key: AdoptKey<'_>, now: Instant) -> Target {
        let entry = self.adopted.entry(key, &self.table.settings().adopted, now);
        Target {
            upstream: Arc::clone(&entry.upstream),
            shared: Arc::clone(&entry.shared),
            adopted: Some(entry),
        }
    }

    /// Every upstream of the configuration with its shared state.
    pub fn targets(&self) -> impl Iterator<Item = (&Arc<Upstream>, &Arc<Shared>)> {
        self.table.settings().upstreams.iter().zip(&self.shared)
    }

    /// The shared state of those that have no name in the configuration.
    pub fn unmatched_shared(&self) -> &Arc<Shared> {
        &self.unmatched.shared
    }

    /// What has been adopted.
    pub fn adopted(&self) -> Vec<AdoptedView> {
        self.adopted.view()
    }

    /// The shared state of what has been adopted.
    pub fn adopted_shared(&self) -> Vec<Arc<Shared>> {
        self.adopted.shared()
    }

    fn shared_of(&self, name: &str) -> Option<Arc<Shared>> {
        let upstreams = &self.table.settings().upstreams;
        let index = upstreams.iter().position(|known| &*known.name == name)?;
        Some(Arc::clone(&self.shared[index]))
    }
}

impl Target {
    /// Marks the upstream as in use until the result is dropped.
    pub fn begin_use(&self) -> AdoptedUse {
        if let Some(entry) = &self.adopted {
            entry.in_flight.fetch_add(1, Ordering::Relaxed);
            entry.requests.fetch_add(1, Ordering::Relaxed);
        }
        AdoptedUse(self.adopted.clone())
    }
}

impl Drop for AdoptedUse {
    fn drop(&mut self) {
        if let Some(entry) = &self.0 {
            entry.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Adopted {
    fn new() -> Self {
        Self {
            started: crate::clock::now(),
            entries: Mutex::default(),
            evictions: AtomicU64::new(0),
        }
    }

    fn entry(
        &self,
        key: AdoptKey<'_>,
        policies: &crate::route::settings::AdoptedPolicies,
        now: Instant,
    ) -> Arc<AdoptedEntry> {
        let name = match key {
            AdoptKey::Authority(authority) => authority.to_string(),
            AdoptKey::Address(OriginalDst(address)) => address.to_string(),
        };
        let now_ms = now.saturating_duration_since(self.started).as_millis() as u64;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(&name) {
            entry.used_ms.store(now_ms, Ordering::Relaxed);
            return Arc::clone(entry);
        }
        if entries.len() >= ADOPTED_MAX {
            self.evict(&mut entries);
        }
        let entry = Arc::new(AdoptedEntry {
            upstream: Arc::new(original_upstream(
                &name,
                &policies.pool,
                &policies.timeouts,
                &policies.headers,
            )),
            shared: Arc::new(Shared::new(UpstreamIndex::ADOPTED, None)),
            in_flight: AtomicU32::new(0),
            used_ms: AtomicU64::new(now_ms),
            requests: AtomicU64::new(0),
        });
        entries.insert(name, Arc::clone(&entry));
        entry
    }

    /// The least recently used one that is not in use leaves. When all are in
    /// use the map grows past its limit by what is in flight, no further.
    fn evict(&self, entries: &mut HashMap<String, Arc<AdoptedEntry>>) {
        let oldest = entries
            .iter()
            .filter(|(_, entry)| entry.in_flight.load(Ordering::Relaxed) == 0)
            .min_by_key(|(_, entry)| entry.used_ms.load(Ordering::Relaxed))
            .map(|(name, _)| name.clone());
        if let Some(name) = oldest {
            entries.remove(&name);
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn shared(&self) -> Vec<Arc<Shared>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .values()
            .map(|entry| Arc::clone(&entry.shared))
            .collect()
    }

    fn view(&self) -> Vec<AdoptedView> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut view: Vec<_> = entries
            .values()
            .map(|entry| AdoptedView {
                name: Arc::clone(&entry.upstream.name),
                requests: entry.requests.load(Ordering::Relaxed),
                connections: entry.shared.permits.in_use(),
            })
            .collect();
        view.sort_by(|a, b| a.name.cmp(&b.name));
        view
    }
}

/// An upstream whose endpoint is the original destination, without caps: what
/// its caller would have opened directly is not for the proxy to refuse.
fn original_upstream(
    name: &str,
    pool: &limits::Pool,
    timeouts: &limits::Timeouts,
    headers: &HeaderRules,
) -> Upstream {
    Upstream {
        name: name.into(),
        claims: Vec::new(),
        endpoints: Endpoints::Original,
        protocol: Protocol::Auto,
        pool: limits::Pool {
            max_connections: None,
            min_idle: 0,
            ..pool.clone()
        },
        timeouts: timeouts.clone(),
        headers: headers.clone(),
    }
}
