//! One request, from its head to its end, written down by a drop guard.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::access_log::{Line, Sink};
use super::cells::Cells;
use super::registry::{ListenerIndex, UpstreamIndex};
use crate::addr::{EndpointAddr, OriginalDst};
use crate::clock;

/// What one shard counts and logs.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Its counters.
    pub cells: Cells,
    log: RefCell<Option<Sink>>,
}

/// What is known of one request. The proxy fills it as it goes; what is not
/// filled in keeps the value that says "did not happen".
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// Whose request it is; unmatched until it is routed.
    pub upstream: UpstreamIndex,
    /// Which listener accepted its connection.
    pub listener: ListenerIndex,
    /// The method's word, `OTHER` outside the standard.
    pub method: &'static str,
    /// The status sent to the client; 0: none.
    pub status: u16,
    /// The reason word, where the proxy had its own say in the answer.
    pub reason: Option<&'static str>,
    /// When the request head was complete.
    pub started: Instant,
    /// Time spent in this process: what passed while nothing was awaited from
    /// the client or the upstream.
    pub overhead: Duration,
    /// Bytes received from the client, head included.
    pub bytes_in: u64,
    /// Bytes sent to the client, head included.
    pub bytes_out: u64,
    /// Tries made.
    pub attempts: u16,
    /// The last try went over a connection that had carried a request before.
    pub reused: bool,
    /// Where the last try went.
    pub endpoint: Option<EndpointAddr>,
    /// Where a captured client meant to go.
    pub original: Option<OriginalDst>,
    /// The client, where it has an address.
    pub client: Option<SocketAddr>,
}

/// What only the access log shows; copied when this request is logged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Description<'a> {
    /// The method as it was sent.
    pub method: &'a [u8],
    /// The authority as it was sent.
    pub authority: &'a [u8],
    /// The path and query as they were sent.
    pub path: &'a [u8],
    /// The `x-request-id`, kept or made.
    pub request_id: &'a [u8],
}

/// Holds the record of a request in flight; dropping it writes the record down,
/// as cancelled unless [`RequestGuard::complete`] was called.
#[derive(Debug)]
pub struct RequestGuard {
    record: RequestRecord,
    ended: Option<Instant>,
    line: Option<Line>,
    telemetry: Rc<Telemetry>,
}

impl RequestRecord {
    /// A request whose head is complete.
    pub fn new(listener: ListenerIndex, started: Instant) -> Self {
        Self {
            upstream: UpstreamIndex::UNMATCHED,
            listener,
            method: "OTHER",
            status: 0,
            reason: None,
            started,
            overhead: Duration::ZERO,
            bytes_in: 0,
            bytes_out: 0,
            attempts: 0,
            reused: false,
            endpoint: None,
            original: None,
            client: None,
        }
    }
}

impl Telemetry {
    /// The telemetry of a shard, with its end of the access log where that is on.
    pub fn new(log: Option<Sink>) -> Self {
        Self {
            cells: Cells::default(),
            log: RefCell::new(log),
        }
    }

    /// Changes the access log after a reload; requests in flight that already
    /// are to be logged go to the new one.
    pub fn set_log(&self, log: Option<Sink>) {
        *self.log.borrow_mut() = log;
    }

    /// Starts the record of a request, and decides whether it is logged.
    pub fn begin(self: &Rc<Self>, listener: ListenerIndex, started: Instant) -> RequestGuard {
        let line = self.log.borrow_mut().as_mut().and_then(Sink::sample);
        RequestGuard {
            record: RequestRecord::new(listener, started),
            ended: None,
            line,
            telemetry: Rc::clone(self),
        }
    }
}

impl RequestGuard {
    /// Whether this request goes to the access log.
    pub fn is_logged(&self) -> bool {
        self.line.is_some()
    }

    /// Copies what only the log shows, if this request is logged.
    pub fn describe(&mut self, description: Description<'_>) {
        if let Some(line) = &mut self.line {
            line.describe(description);
        }
    }

    /// The response went out whole, or the tunnel ended.
    pub fn complete(mut self, ended: Instant) {
        self.ended = Some(ended);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let cancelled = self.ended.is_none();
        let ended = self.ended.unwrap_or_else(clock::now);
        self.telemetry.cells.request(&self.record, ended);
        if let Some(line) = self.line.take()
            && let Some(log) = self.telemetry.log.borrow_mut().as_mut()
        {
            log.write(line, &self.record, ended, cancelled);
        }
    }
}

impl Deref for RequestGuard {
    type Target = RequestRecord;

    fn deref(&self) -> &RequestRecord {
        &self.record
    }
}

impl DerefMut for RequestGuard {
    fn deref_mut(&mut self) -> &mut RequestRecord {
        &mut self.record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_in_flight_stays_small() {
        assert!(
            size_of::<RequestGuard>() <= 280,
            "{}",
            size_of::<RequestGuard>()
        );
    }

    #[test]
    fn a_request_that_is_dropped_is_counted() {
        let telemetry = Rc::new(Telemetry::default());
        drop(telemetry.begin(ListenerIndex::CAPTURE, clock::now()));
        let mut request = telemetry.begin(ListenerIndex::CAPTURE, clock::now());
        request.method = "GET";
        request.status = 204;
        assert!(!request.is_logged());
        request.complete(clock::now());

        let snapshot = telemetry.cells.snapshot();
        let unmatched = snapshot.upstream(UpstreamIndex::UNMATCHED).unwrap();
        let mut keys: Vec<_> = unmatched
            .requests()
            .map(|(key, count)| (key.method, key.status, count))
            .collect();
        keys.sort_unstable();
        assert_eq!(keys, [("GET", 204, 1), ("OTHER", 0, 1)]);
    }
}
