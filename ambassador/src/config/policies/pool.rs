//! `pool`: caps, which are at least 1, and idle connections within them.

use crate::config::read::Place;
use crate::config::setting::{Layer, settings};
use crate::config::values::{Count, Period};
use crate::policy::limits;

settings! {
    /// Limits of the connections and requests of one upstream.
    Pool for limits::Pool as pool, checked by idle_within_caps {
        /// Open connections at most.
        max_connections: Count<1> = pool.max_connections,
        /// Requests that may wait for a connection. Those for which an idle one of
        /// another thread or endpoint closes do not count. Callers (captured cgroups,
        /// client addresses) take turns. When the queue is full, the newest
        /// request of the caller with the most waiting ones is `overloaded`.
        max_pending: Count = pool.max_pending,
        /// Requests in flight at most, with those that wait. Further ones are
        /// `overloaded`.
        max_requests: Count<1> = pool.max_requests,
        /// Idle connections kept for reuse. One above that closes after a second
        /// without use; with 0 it closes at once.
        max_idle: Count = pool.max_idle,
        /// Idle connections to keep open without traffic.
        min_idle: Count = pool.min_idle,
        /// An idle connection is closed after this time, less a random share of
        /// up to a tenth; sooner if `Keep-Alive: timeout=` of the upstream says
        /// so.
        idle_timeout: Period = pool.idle_timeout,
        /// A connection older than this, less a random share of up to a tenth, is
        /// not reused.
        max_lifetime: Period = pool.max_lifetime,
    }
}

/// Said where it was written: the layer may set only one of the two.
fn idle_within_caps(written: &Pool, _: &Place, pool: &mut limits::Pool, layer: &mut Layer<'_>) {
    let (min_idle, max_idle) = (pool.min_idle, pool.max_idle);
    let (min, max) = (written.min_idle.as_ref(), written.max_idle.as_ref());
    if let Some(at) = min.or(max).filter(|_| min_idle > max_idle) {
        let what = format!("min_idle {min_idle} is over max_idle {max_idle}");
        layer.findings.mistake_at(at, what);
    }
    if let Some(cap) = pool.max_connections.filter(|cap| min_idle > *cap) {
        let what = format!("min_idle {min_idle} is over max_connections {cap}");
        match (min, written.max_connections.as_ref()) {
            (Some(at), _) => layer.findings.mistake_at(at, what),
            (None, Some(at)) => layer.findings.mistake_at(at, what),
            (None, None) => {}
        }
    }
}
