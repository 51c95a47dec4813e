//! Writes a record down when its request or relayed connection has ended,
//! however that came.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use super::access_log::{Line, LogRecord, Sink, has_failed};
use super::call::{Call, CallQuery, Failures};
use super::cells::Cells;
use super::labels::{ReasonLabel, RelayProtocol, TcpOutcome};
use super::record::{Description, Passage, RelayRecord, RequestRecord};
use crate::clock::{self, Instant};

/// What one shard counts and logs.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Its counters.
    pub cells: Cells,
    log: RefCell<Option<Sink>>,
    failures: RefCell<Failures>,
}

/// Holds the record of a relayed connection; dropping it writes the record down.
#[derive(Debug)]
pub struct RelayGuard {
    record: RelayRecord,
    line: Option<Line>,
    telemetry: Rc<Telemetry>,
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

impl Telemetry {
    /// The telemetry of a shard, with its end of the access log where that is on.
    pub fn new(log: Option<Sink>) -> Self {
        Self {
            cells: Cells::default(),
            log: RefCell::new(log),
            failures: RefCell::default(),
        }
    }

    /// The same, that keeps as many failures as `failures` has room for.
    pub(crate) fn keeping(self, failures: Failures) -> Self {
        self.failures.replace(failures);
        self
    }

    /// The failures that are asked for, the newest first.
    pub(crate) fn failures(&self, query: &CallQuery) -> Vec<Call> {
        self.failures.borrow().find(query)
    }

    /// Changes the access log after a reload; requests in flight that already
    /// are to be logged go to the new one.
    pub fn set_log(&self, log: Option<Sink>) {
        *self.log.borrow_mut() = log;
    }

    /// Starts the record of a request, and decides whether it is logged. The record is
    /// made where it stays, as it is long.
    #[inline(always)]
    pub fn begin(self: &Rc<Self>, passage: Passage) -> RequestGuard {
        RequestGuard {
            record: RequestRecord::new(passage),
            ended: None,
            line: self.sample(),
            telemetry: Rc::clone(self),
        }
    }

    /// Starts the record of a relayed connection, and decides whether it is
    /// logged.
    pub fn begin_relay(self: &Rc<Self>, passage: Passage, protocol: RelayProtocol) -> RelayGuard {
        RelayGuard {
            record: RelayRecord {
                passage,
                protocol,
                outcome: TcpOutcome::Drained,
            },
            line: self.sample(),
            telemetry: Rc::clone(self),
        }
    }

    fn sample(&self) -> Option<Line> {
        self.log.borrow_mut().as_mut().and_then(Sink::sample)
    }

    fn log(&self, line: &Line, ended: Instant, logged: LogRecord<'_>) {
        if let Some(log) = self.log.borrow_mut().as_mut() {
            log.write(line, ended, logged);
        }
    }

    fn take_back(&self, line: Line) {
        if let Some(log) = self.log.borrow_mut().as_mut() {
            log.take_back(line);
        }
    }

    /// Writes a request down that is logged, or has failed.
    #[inline(never)]
    fn end(&self, line: Line, record: &mut RequestRecord, cancelled: bool, ended: Instant) {
        let logged = LogRecord::Request { record, cancelled };
        self.log(&line, ended, logged);
        if has_failed(logged) {
            let call = Call::new(&line, record, cancelled, ended, clock::unix_ms());
            self.failures.borrow_mut().keep(call);
        }
        self.take_back(line);
    }
}

impl RequestGuard {
    /// Whether this request goes to the access log.
    pub fn is_logged(&self) -> bool {
        self.line.is_some()
    }

    /// Whether a step of it went badly, or its answer is a failure: it is to be described
    /// for who asks why.
    #[inline]
    pub fn is_notable(&self) -> bool {
        self.record.passage.journal.is_kept() || self.record.status.get() >= 500
    }

    /// Copies what the log shows of it, and who asks why it has failed sees.
    pub fn describe(&mut self, description: Description<'_>) {
        self.line.get_or_insert_default().describe(description);
    }

    /// Says more than the reason does, if this request is logged.
    pub fn explain(&mut self, detail: &str) {
        if let Some(line) = &mut self.line {
            line.explain(self.record.method.as_str(), detail);
        }
    }

    /// Copies who has sent a request of which nothing else is known.
    pub fn describe_sender(&mut self, peer_id: &[u8]) {
        let method = self.record.method.as_str();
        let line = self.line.get_or_insert_default();
        line.describe_sender(method, peer_id);
    }

    /// Adds the server name that is asked for through the tunnel, if this request
    /// is logged.
    pub fn describe_tls(&mut self, server_name: &str) {
        if let Some(line) = &mut self.line {
            line.describe_tls(server_name);
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
        if cancelled && self.record.tunnel.is_none() {
            // Whoever else ends a request says why.
            self.record.reason.get_or_insert(ReasonLabel::Drained);
        }
        let record = &self.record;
        self.telemetry.cells.meter_rest(&record.passage);
        self.telemetry.cells.request(record, ended);
        if let Some(outcome) = record.tunnel {
            let upstream = record.passage.upstream;
            self.telemetry.cells.tcp_connection(upstream, outcome);
        }
        if let Some(line) = self.line.take() {
            self.telemetry.end(line, &mut self.record, cancelled, ended);
        }
    }
}

impl RelayGuard {
    /// Copies the server name that a TLS client asks for, if this connection
    /// is logged.
    pub fn describe(&mut self, server_name: &str) {
        if let Some(line) = &mut self.line {
            line.describe_tls(server_name);
        }
    }

    /// Copies who the client is by its certificate, if this connection is logged.
    pub fn describe_peer(&mut self, id: &[u8]) {
        if let Some(line) = &mut self.line {
            line.describe_peer(id);
        }
    }

    /// Says more than the outcome does, if this connection is logged.
    pub fn explain(&mut self, detail: &str) {
        if let Some(line) = &mut self.line {
            line.detail(detail);
        }
    }
}

impl Drop for RelayGuard {
    fn drop(&mut self) {
        let record = &self.record;
        let upstream = record.passage.upstream;
        self.telemetry.cells.meter_rest(&record.passage);
        self.telemetry
            .cells
            .tcp_connection(upstream, record.outcome);
        if let Some(line) = self.line.take() {
            let logged = LogRecord::Relay(record);
            self.telemetry.log(&line, clock::now(), logged);
            self.telemetry.take_back(line);
        }
    }
}

impl Deref for RelayGuard {
    type Target = RelayRecord;

    fn deref(&self) -> &RelayRecord {
        &self.record
    }
}

impl DerefMut for RelayGuard {
    fn deref_mut(&mut self) -> &mut RelayRecord {
        &mut self.record
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
    use crate::telemetry::labels::{Direction, MethodLabel};
    use crate::telemetry::registry::{ListenerIndex, UpstreamIndex};

    fn captured() -> Passage {
        Passage::new(ListenerIndex::CAPTURE, clock::now())
    }

    #[test]
    fn a_request_in_flight_stays_small() {
        assert!(
            size_of::<RequestGuard>() <= 312,
            "{}",
            size_of::<RequestGuard>()
        );
    }

    #[test]
    fn a_request_that_is_dropped_is_counted() {
        let telemetry = Rc::new(Telemetry::default());
        drop(telemetry.begin(captured()));
        let mut request = telemetry.begin(captured());
        request.method = MethodLabel::Get;
        request.status.set(204);
        assert!(!request.is_logged());
        request.complete(clock::now());

        let snapshot = telemetry.cells.snapshot();
        let unmatched = snapshot.upstream(UpstreamIndex::UNMATCHED).unwrap();
        let mut keys: Vec<_> = unmatched
            .requests()
            .map(|(key, count)| (key.method.as_str(), key.status, count))
            .collect();
        keys.sort_unstable();
        assert_eq!(keys, [("GET", 204, 1), ("OTHER", 0, 1)]);
    }

    #[test]
    fn bytes_are_counted_once_and_alike() {
        let telemetry = Rc::new(Telemetry::default());
        let request = telemetry.begin(captured());
        request.passage.count(Direction::Sent, 100);
        let (cells, passage) = (&telemetry.cells, &request.passage);
        // As they move.
        cells.meter(passage, Direction::Sent, 20);
        cells.meter(passage, Direction::Received, 7);
        let counted = |direction| {
            let snapshot = cells.snapshot();
            let unmatched = snapshot.upstream(UpstreamIndex::UNMATCHED);
            unmatched.expect("it has bytes").bytes(direction)
        };
        assert_eq!(counted(Direction::Sent), 120);
        passage.count(Direction::Received, 3);
        assert_eq!(counted(Direction::Received), 7);
        let logged = (passage.bytes_in.get(), passage.bytes_out.get());
        assert_eq!(logged, (120, 10));
        drop(request);
        let snapshot = telemetry.cells.snapshot();
        let unmatched = snapshot.upstream(UpstreamIndex::UNMATCHED).unwrap();
        assert_eq!(unmatched.bytes(Direction::Sent), 120);
        assert_eq!(unmatched.bytes(Direction::Received), 10);
    }

    #[test]
    fn a_relay_is_counted_once_by_how_it_ended() {
        let telemetry = Rc::new(Telemetry::default());
        drop(telemetry.begin_relay(captured(), RelayProtocol::Tcp));
        let mut relay = telemetry.begin_relay(captured(), RelayProtocol::Tls);
        relay.outcome = TcpOutcome::NoRoute;
        drop(relay);
        let mut tunnel = telemetry.begin(captured());
        tunnel.tunnel = Some(TcpOutcome::Closed);
        tunnel.complete(clock::now());

        let snapshot = telemetry.cells.snapshot();
        let unmatched = snapshot.upstream(UpstreamIndex::UNMATCHED).unwrap();
        let counts = TcpOutcome::ALL.iter().map(|outcome| {
            let count = unmatched.tcp_connections(*outcome);
            (outcome.as_str(), count)
        });
        let counts: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, [("closed", 1), ("no-route", 1), ("drained", 1)]);
    }
}
