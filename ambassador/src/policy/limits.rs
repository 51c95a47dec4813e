//! What one upstream may use: connections, waiters, time.

use std::time::Duration;

use super::pace::MinRate;

/// Limits of the connections to one upstream, over all shards together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Open connections at most; `None`: no cap (adopted upstreams).
    pub max_connections: Option<u32>,
    /// Requests that may wait for a connection, beside those for which an idle one
    /// closes; one more is `overloaded`.
    pub max_pending: u32,
    /// Requests in flight at most, waiting ones included; `None`: no cap
    /// (adopted upstreams).
    pub max_requests: Option<u32>,
    /// Idle connections kept for reuse.
    pub max_idle: u32,
    /// Idle connections kept open without traffic.
    pub min_idle: u32,
    /// An idle connection older than this is closed.
    pub idle_timeout: Duration,
    /// A connection is not reused after this age.
    pub max_lifetime: Duration,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            max_connections: Some(100),
            max_pending: 50,
            max_requests: Some(1_024),
            max_idle: 32,
            min_idle: 0,
            idle_timeout: Duration::from_secs(60),
            max_lifetime: Duration::from_secs(600),
        }
    }
}

/// What connections of HTTP/2 may carry, and when they are asked for a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2 {
    /// Silence after which the peer is asked whether it is still there; `None`: never.
    pub ping: Option<Duration>,
    /// Requests on one connection at once; the peer may allow fewer.
    pub max_streams: u32,
    /// Bytes of one body that the peer may send ahead of its reader (RFC 9113 section
    /// 5.2).
    pub window: u32,
    /// The same of all bodies of a connection together.
    pub connection_window: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            ping: Some(Duration::from_secs(30)),
            max_streams: 100,
            window: 1 << 20,
            connection_window: 4 << 20,
        }
    }
}

/// How many proxies a request may have come through before this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hops {
    /// `None`: they are not counted.
    pub max: Option<u32>,
}

impl Default for Hops {
    fn default() -> Self {
        // More than stand in a row anywhere on purpose.
        Self { max: Some(16) }
    }
}

/// How long a step may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// From the dial to an established connection.
    pub connect: Duration,
    /// From a request's last byte to the first of its response.
    pub first_byte: Option<Duration>,
    /// From a try's first byte, or the search for a connection, to the final
    /// response head.
    pub per_try: Option<Duration>,
    /// From the whole request to the final response head, all tries and the
    /// waits between them included.
    pub request: Option<Duration>,
    /// Without a byte in either direction, for connections that carry requests
    /// and their bodies.
    pub idle: Duration,
    /// The same for what is relayed: TCP, upgrades and CONNECT.
    pub tunnel: Duration,
    /// From the first byte of a head to its end: of a request's, and of a
    /// response's.
    pub head: Duration,
    /// How fast the bytes of a body have to move at least; `None`: they need not.
    pub min_rate: Option<MinRate>,
    /// Silence after which TCP asks whether the other side is still there;
    /// `None`: never.
    pub keep_alive: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: None,
            per_try: None,
            request: Some(Duration::from_secs(10)),
            idle: Duration::from_secs(300),
            tunnel: Duration::from_secs(3_600),
            head: Duration::from_secs(10),
            min_rate: None,
            keep_alive: Some(Duration::from_secs(60)),
        }
    }
}
