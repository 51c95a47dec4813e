//! What all shards share of one upstream: its permits, its endpoints, counts.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::addr::EndpointAddr;
use crate::clock;
use crate::policy::breaker::Breaker;
use crate::policy::budget::Budget;
use crate::policy::rate_limit::RateLimit;
use crate::telemetry::UpstreamIndex;
use crate::upstream::in_flight::InFlight;
use crate::upstream::permits::Permits;

/// One upstream as all shards see it. It outlives reloads: connections and
/// their counts belong to the name, not to a version of the file.
pub struct Shared {
    /// Unique for the life of the process; the key of the shards' pools.
    pub id: u32,
    /// What metrics call it; all adopted upstreams have one label together.
    pub label: UpstreamIndex,
    /// The cap of its connections.
    pub permits: Arc<Permits>,
    /// Its endpoints, where they do not depend on the connection.
    pub endpoints: Published,
    /// Its circuit breaker.
    pub breaker: Breaker,
    /// How many of its requests may be tried again.
    pub retry_budget: Budget,
    /// How many requests it gets in a second.
    pub rate_limit: RateLimit,
    /// Its requests in flight.
    pub requests: InFlight,
    next_endpoint: AtomicUsize,
    idle: AtomicU32,
    retired: AtomicBool,
}

impl Shared {
    /// An upstream without connections.
    pub fn new(label: UpstreamIndex, max_connections: Option<u32>) -> Self {
        static NEXT_ID: AtomicU32 = AtomicU32::new(0);
        let now = clock::now();
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            label,
            permits: Arc::new(Permits::new(max_connections)),
            endpoints: Published::default(),
            breaker: Breaker::new(now),
            retry_budget: Budget::new(now),
            rate_limit: RateLimit::new(now),
            requests: InFlight::default(),
            next_endpoint: AtomicUsize::new(0),
            idle: AtomicU32::new(0),
            retired: AtomicBool::new(false),
        }
    }

    /// It left the configuration: its connections are not kept any more.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether it left the configuration.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Round-robin over `endpoints`; `None` when there are none.
    pub fn pick(&self, endpoints: &[EndpointAddr]) -> Option<EndpointAddr> {
        match endpoints {
            [] => None,
            [only] => Some(*only),
            many => {
                let turn = self.next_endpoint.fetch_add(1, Ordering::Relaxed);
                Some(many[turn % many.len()])
            }
        }
    }

    /// Idle connections on all shards.
    pub fn idle(&self) -> u32 {
        self.idle.load(Ordering::SeqCst)
    }

    /// Counts one more idle connection unless there are `max_idle` already.
    /// Sequentially consistent, as the queue of permits is: who becomes idle
    /// counts itself, then looks for waiters; who waits queues, then looks for
    /// idle ones.
    pub(super) fn try_add_idle(&self, max_idle: u32) -> bool {
        let add = |idle| (idle < max_idle).then(|| idle + 1);
        self.idle
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, add)
            .is_ok()
    }

    pub(super) fn remove_idle(&self) {
        self.idle.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A list of endpoints that the control side replaces whole. Readers keep the
/// list they saw and compare a version: no lock unless it has changed.
#[derive(Default)]
pub struct Published {
    version: AtomicU64,
    list: Mutex<Arc<[EndpointAddr]>>,
}

/// A reader's copy of a [`Published`] list.
#[derive(Default)]
pub struct Seen {
    version: u64,
    list: Arc<[EndpointAddr]>,
}

impl Published {
    /// Replaces the list.
    pub fn publish(&self, list: Arc<[EndpointAddr]>) {
        *self.list.lock().unwrap_or_else(PoisonError::into_inner) = list;
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The list at this moment, for the control side.
    pub fn current(&self) -> Arc<[EndpointAddr]> {
        Arc::clone(&self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Seen {
    /// The newest list, taken again only when it was replaced.
    pub fn refresh(&mut self, published: &Published) -> &[EndpointAddr] {
        let version = published.version.load(Ordering::Acquire);
        if version != self.version {
            self.list = published.current();
            self.version = version;
        }
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(ports: &[u16]) -> Arc<[EndpointAddr]> {
        ports
            .iter()
            .map(|port| EndpointAddr(([127, 0, 0, 1], *port).into()))
            .collect()
    }

    #[test]
    fn endpoints_take_turns() {
        let shared = Shared::new(UpstreamIndex::UNMATCHED, None);
        let list = endpoints(&[1, 2, 3]);
        let picked: Vec<u16> = (0..6)
            .filter_map(|_| shared.pick(&list))
            .map(|endpoint| endpoint.0.port())
            .collect();
        assert_eq!(picked, [1, 2, 3, 1, 2, 3]);
        assert_eq!(shared.pick(&[]), None);
    }

    #[test]
    fn a_reader_sees_a_replaced_list() {
        let published = Published::default();
        let mut seen = Seen::default();
        assert!(seen.refresh(&published).is_empty());
        published.publish(endpoints(&[7]));
        assert_eq!(seen.refresh(&published).len(), 1);
        published.publish(endpoints(&[7, 8]));
        assert_eq!(seen.refresh(&published).len(), 2);
    }
}
