//! The limits of an upstream's pools, as the configuration in force has them.
//!
//! All shards read the limits here, and no pool keeps a copy. So a reload takes
//! effect at once, also for requests that began before it. The cap on open
//! connections is in [`Permits`](super::permits::Permits), with the queue for it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::policy::limits;

/// The limits of one upstream. Each is read by itself: during a reload one may be
/// new and the next still old.
#[derive(Debug)]
pub struct Limits {
    max_pending: AtomicU32,
    max_idle: AtomicU32,
    min_idle: AtomicU32,
    idle_timeout: Time,
    max_lifetime: Time,
    connect: Time,
    head: Time,
    /// [`Time::NEVER`]: it is off.
    keep_alive: Time,
    /// [`Time::NEVER`]: it is off.
    ping: Time,
    max_streams: AtomicU32,
    window: AtomicU32,
    connection_window: AtomicU32,
}

/// How a connection is opened.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// How long that may take.
    pub within: Duration,
    /// Silence after which TCP asks whether the other side is still there.
    pub keep_alive: Option<Duration>,
}

/// A duration in nanoseconds.
#[derive(Debug)]
struct Time(AtomicU64);

impl Limits {
    /// The limits of a configuration.
    pub fn new(pool: &limits::Pool, timeouts: &limits::Timeouts, http2: limits::Http2) -> Self {
        let limits = Self {
            max_pending: AtomicU32::default(),
            max_idle: AtomicU32::default(),
            min_idle: AtomicU32::default(),
            idle_timeout: Time::new(),
            max_lifetime: Time::new(),
            connect: Time::new(),
            head: Time::new(),
            keep_alive: Time::new(),
            ping: Time::new(),
            max_streams: AtomicU32::default(),
            window: AtomicU32::default(),
            connection_window: AtomicU32::default(),
        };
        limits.set(pool, timeouts, http2);
        limits
    }

    /// Takes over the limits of another configuration.
    pub fn set(&self, pool: &limits::Pool, timeouts: &limits::Timeouts, http2: limits::Http2) {
        let limits::Pool {
            // That of the permits, and that of who counts requests.
            max_connections: _,
            max_requests: _,
            max_pending,
            max_idle,
            min_idle,
            idle_timeout,
            max_lifetime,
        } = *pool;
        self.max_pending.store(max_pending, Ordering::Relaxed);
        self.max_idle.store(max_idle, Ordering::Relaxed);
        self.min_idle.store(min_idle, Ordering::Relaxed);
        self.idle_timeout.set(idle_timeout);
        self.max_lifetime.set(max_lifetime);
        self.connect.set(timeouts.connect);
        self.head.set(timeouts.head);
        self.keep_alive
            .set(timeouts.keep_alive.unwrap_or(Duration::MAX));
        let limits::Http2 {
            ping,
            max_streams,
            window,
            connection_window,
        } = http2;
        self.ping.set(ping.unwrap_or(Duration::MAX));
        self.max_streams.store(max_streams, Ordering::Relaxed);
        self.window.store(window, Ordering::Relaxed);
        self.connection_window
            .store(connection_window, Ordering::Relaxed);
    }

    /// Callers that may wait for a connection.
    pub fn max_pending(&self) -> u32 {
        self.max_pending.load(Ordering::Relaxed)
    }

    /// Idle connections kept for reuse.
    pub fn max_idle(&self) -> u32 {
        self.max_idle.load(Ordering::Relaxed)
    }

    /// Idle connections kept open without traffic.
    pub fn min_idle(&self) -> u32 {
        self.min_idle.load(Ordering::Relaxed)
    }

    /// An idle connection older than this is closed.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout.get()
    }

    /// A connection is not reused after this age.
    pub fn max_lifetime(&self) -> Duration {
        self.max_lifetime.get()
    }

    /// By when a head must be whole that has begun, where no request knows of it.
    pub fn head(&self) -> Duration {
        self.head.get()
    }

    /// How a connection for `min_idle` is opened.
    pub fn opening(&self) -> Opening {
        Opening {
            within: self.connect.get(),
            keep_alive: self.keep_alive.get_if_any(),
        }
    }

    /// What a connection of HTTP/2 may carry.
    pub fn http2(&self) -> limits::Http2 {
        limits::Http2 {
            ping: self.ping.get_if_any(),
            max_streams: self.max_streams.load(Ordering::Relaxed),
            window: self.window.load(Ordering::Relaxed),
            connection_window: self.connection_window.load(Ordering::Relaxed),
        }
    }
}

impl Opening {
    /// How a connection is opened for a request with these timeouts, which its
    /// route may change.
    pub fn of(timeouts: &limits::Timeouts) -> Self {
        Self {
            within: timeouts.connect,
            keep_alive: timeouts.keep_alive,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(
            &limits::Pool::default(),
            &limits::Timeouts::default(),
            limits::Http2::default(),
        )
    }
}

impl Time {
    /// The longest that is told apart, 584 years.
    const NEVER: Duration = Duration::from_nanos(u64::MAX);

    fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn set(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanos, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    /// `None`: never.
    fn get_if_any(&self) -> Option<Duration> {
        Some(self.get()).filter(|time| *time < Self::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_what_was_set_last() {
        let limits = Limits::default();
        let pool = limits::Pool {
            max_pending: 7,
            max_idle: 2,
            min_idle: 3,
            idle_timeout: Duration::from_micros(4),
            max_lifetime: Duration::MAX,
            ..limits::Pool::default()
        };
        let timeouts = limits::Timeouts {
            connect: Duration::from_millis(5),
            head: Duration::from_millis(11),
            keep_alive: Some(Duration::from_secs(6)),
            ..limits::Timeouts::default()
        };
        let http2 = limits::Http2 {
            ping: Some(Duration::from_secs(7)),
            max_streams: 8,
            window: 9,
            connection_window: 10,
        };
        limits.set(&pool, &timeouts, http2);
        assert_eq!(limits.max_pending(), 7);
        assert_eq!(limits.max_idle(), 2);
        assert_eq!(limits.min_idle(), 3);
        assert_eq!(limits.idle_timeout(), Duration::from_micros(4));
        assert_eq!(limits.max_lifetime(), Time::NEVER);
        assert_eq!(limits.opening().within, Duration::from_millis(5));
        assert_eq!(limits.head(), Duration::from_millis(11));
        assert_eq!(limits.opening().keep_alive, Some(Duration::from_secs(6)));
        assert_eq!(limits.http2(), http2);
        let never = limits::Timeouts {
            keep_alive: None,
            ..timeouts
        };
        let unasked = limits::Http2 {
            ping: None,
            ..http2
        };
        limits.set(&pool, &never, unasked);
        assert_eq!(limits.opening().keep_alive, None);
        assert_eq!(limits.http2(), unasked);
    }
}
