//! One request or one relayed connection, from its start to its end, written
//! down by a drop guard.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::time::Duration;

use super::access_log::{Line, Sink, Told};
use super::cells::Cells;
use super::labels::{DRAINED, Direction, FaultKind, RelayProtocol, TcpOutcome};
use super::registry::{ListenerIndex, UpstreamIndex};
use crate::addr::{EndpointAddr, OriginalDst};
use crate::clock::{self, Instant};

/// What one shard counts and logs.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Its counters.
    pub cells: Cells,
    log: RefCell<Option<Sink>>,
}

/// What is known of a request and of a relayed connection alike: from where to
/// where, since when, how much.
#[derive(Debug, Clone)]
pub struct Passage {
    /// Whose it is; unmatched until it is routed.
    pub upstream: UpstreamIndex,
    /// Which listener accepted its connection.
    pub listener: ListenerIndex,
    /// When the shard learnt that the request head was complete, or accepted
    /// the connection.
    pub started: Instant,
    /// Bytes that the client has sent, as far as they were taken; heads included.
    pub bytes_in: Cell<u64>,
    /// Bytes sent to the client, heads included.
    pub bytes_out: Cell<u64>,
    /// Those of each direction that the metrics have counted already.
    metered: [Cell<u64>; Direction::COUNT],
    /// Where it went, the last time it was tried.
    pub endpoint: Option<EndpointAddr>,
    /// Where a captured client meant to go.
    pub original: Option<OriginalDst>,
    /// The client, where it has an address.
    pub client: Option<SocketAddr>,
    /// What was injected into it on purpose.
    pub faults: FaultSet,
}

/// What of a request has moved while a part of the proxy works on it that cannot
/// reach its record.
#[derive(Debug, Default)]
pub struct Moved {
    /// The status that the client was sent; 0: none yet.
    pub status: Cell<u16>,
    bytes: [Cell<u64>; Direction::COUNT],
}

/// Endpoints that were tried before the last one and are remembered at most.
const EARLIER_MAX: usize = 8;

/// Faults, each of them once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultSet(u8);

/// What is known of one request. The proxy fills it as it goes; what is not
/// filled in keeps the value that says "did not happen".
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// From where to where.
    pub passage: Passage,
    /// The method's word, `OTHER` outside the standard.
    pub method: &'static str,
    /// The status sent to the client; 0: none.
    pub status: u16,
    /// The reason word, where the proxy had its own say in the answer.
    pub reason: Option<&'static str>,
    /// Time spent in this process: what passed while nothing was awaited from
    /// the client or the upstream. Waiting for a turn on the shard is part of it.
    pub overhead: Duration,
    /// Tries made.
    pub attempts: u16,
    /// Where it was tried before `passage.endpoint`, the first of them.
    pub earlier: Vec<EndpointAddr>,
    /// The last try went over a connection that had carried a request before.
    pub reused: bool,
    /// How the tunnel that it became has ended.
    pub tunnel: Option<TcpOutcome>,
}

/// What is known of one connection that is relayed, or should have been.
#[derive(Debug, Clone)]
pub struct RelayRecord {
    /// From where to where.
    pub passage: Passage,
    /// What it carries, as far as that is known.
    pub protocol: RelayProtocol,
    /// How it ended; cut by the drain until something else is known.
    pub outcome: TcpOutcome,
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
    moved: Moved,
    ended: Option<Instant>,
    line: Option<Line>,
    telemetry: Rc<Telemetry>,
}

impl Passage {
    /// One that has just begun.
    pub fn new(listener: ListenerIndex, started: Instant) -> Self {
        Self {
            upstream: UpstreamIndex::UNMATCHED,
            listener,
            started,
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            metered: Default::default(),
            endpoint: None,
            original: None,
            client: None,
            faults: FaultSet::default(),
        }
    }

    /// Adds bytes that went one way; the metrics count them at its end.
    pub fn count(&self, direction: Direction, bytes: u64) {
        let count = self.bytes(direction);
        count.set(count.get() + bytes);
    }

    /// Adds bytes that the metrics are to count now.
    pub fn meter(&self, cells: &Cells, direction: Direction, bytes: u64) {
        cells.bytes(self.upstream, direction, bytes);
        self.count_metered(direction, bytes);
    }

    fn count_metered(&self, direction: Direction, bytes: u64) {
        self.count(direction, bytes);
        let metered = &self.metered[direction as usize];
        metered.set(metered.get() + bytes);
    }

    /// Has the metrics count what they have not.
    fn meter_rest(&self, cells: &Cells) {
        for direction in Direction::ALL {
            let metered = self.metered[*direction as usize].get();
            let rest = self.bytes(*direction).get() - metered;
            if rest > 0 {
                cells.bytes(self.upstream, *direction, rest);
            }
        }
    }

    fn bytes(&self, direction: Direction) -> &Cell<u64> {
        match direction {
            Direction::Sent => &self.bytes_in,
            Direction::Received => &self.bytes_out,
        }
    }
}

impl Moved {
    /// Adds bytes that the metrics have counted.
    pub fn count(&self, direction: Direction, bytes: u64) {
        let count = &self.bytes[direction as usize];
        count.set(count.get() + bytes);
    }

    /// Bytes that went one way.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.bytes[direction as usize].get()
    }
}

impl FaultSet {
    /// Adds one.
    pub fn add(&mut self, kind: FaultKind) {
        self.0 |= 1 << kind as u8;
    }

    /// Those that are in it.
    pub fn iter(self) -> impl Iterator<Item = FaultKind> {
        let all = FaultKind::ALL.iter().copied();
        all.filter(move |kind| self.0 & 1 << *kind as u8 != 0)
    }
}

impl RequestRecord {
    /// A request whose head is complete.
    pub fn new(passage: Passage) -> Self {
        Self {
            passage,
            method: "OTHER",
            status: 0,
            reason: None,
            overhead: Duration::ZERO,
            attempts: 0,
            earlier: Vec::new(),
            reused: false,
            tunnel: None,
        }
    }
}

impl RequestRecord {
    /// Another try goes to this endpoint.
    pub fn is_tried_at(&mut self, endpoint: EndpointAddr) {
        if let Some(before) = self.passage.endpoint.replace(endpoint)
            && self.earlier.len() < EARLIER_MAX
        {
            self.earlier.push(before);
        }
    }

    /// These tries were made beside others, and may be the ones that were answered.
    pub fn was_tried_beside(&mut self, endpoints: &[EndpointAddr]) {
        self.attempts += endpoints.len() as u16;
        for endpoint in endpoints {
            let is_known =
                self.passage.endpoint == Some(*endpoint) || self.earlier.contains(endpoint);
            if !is_known && self.earlier.len() < EARLIER_MAX {
                self.earlier.push(*endpoint);
            }
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
    pub fn begin(self: &Rc<Self>, passage: Passage) -> RequestGuard {
        RequestGuard {
            record: RequestRecord::new(passage),
            moved: Moved::default(),
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

    fn log(&self, line: Option<Line>, ended: Instant, told: Told<'_>) {
        if let Some(line) = line
            && let Some(log) = self.log.borrow_mut().as_mut()
        {
            log.write(line, ended, told);
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

    /// Says more than the reason does, if this request is logged.
    pub fn explain(&mut self, detail: &str) {
        if let Some(line) = &mut self.line {
            line.explain(self.record.method, detail);
        }
    }

    /// The record, and beside it what moves.
    pub fn parts(&mut self) -> (&mut RequestRecord, &Moved) {
        (&mut self.record, &self.moved)
    }

    /// Puts down in the record what has moved.
    pub fn settle(&mut self) {
        let moved = std::mem::take(&mut self.moved);
        for direction in Direction::ALL {
            let bytes = moved.bytes(*direction);
            self.record.passage.count_metered(*direction, bytes);
        }
        if moved.status.get() != 0 {
            self.record.status = moved.status.get();
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
        self.settle();
        if cancelled && self.record.tunnel.is_none() {
            // Whoever else ends a request says why.
            self.record.reason.get_or_insert(DRAINED);
        }
        let record = &self.record;
        record.passage.meter_rest(&self.telemetry.cells);
        self.telemetry.cells.request(record, ended);
        if let Some(outcome) = record.tunnel {
            let upstream = record.passage.upstream;
            self.telemetry.cells.tcp_connection(upstream, outcome);
        }
        let told = Told::Request { record, cancelled };
        self.telemetry.log(self.line.take(), ended, told);
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
}

impl Drop for RelayGuard {
    fn drop(&mut self) {
        let record = &self.record;
        let upstream = record.passage.upstream;
        record.passage.meter_rest(&self.telemetry.cells);
        self.telemetry
            .cells
            .tcp_connection(upstream, record.outcome);
        let told = Told::Relay(record);
        self.telemetry.log(self.line.take(), clock::now(), told);
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

    #[test]
    fn bytes_are_counted_once_and_alike() {
        let telemetry = Rc::new(Telemetry::default());
        let mut request = telemetry.begin(captured());
        request.passage.count(Direction::Sent, 100);
        let moved = request.parts().1;
        // As they moved.
        telemetry
            .cells
            .bytes(UpstreamIndex::UNMATCHED, Direction::Sent, 20);
        moved.count(Direction::Sent, 20);
        moved.status.set(200);
        request.settle();
        request
            .passage
            .meter(&telemetry.cells, Direction::Received, 7);
        request.passage.count(Direction::Received, 3);
        let told = (
            request.status,
            request.passage.bytes_in.get(),
            request.passage.bytes_out.get(),
        );
        assert_eq!(told, (200, 120, 10));
        drop(request);
        let snapshot = telemetry.cells.snapshot();
        let unmatched = snapshot.upstream(UpstreamIndex::UNMATCHED).unwrap();
        assert_eq!(unmatched.bytes(Direction::Sent), 120);
        assert_eq!(unmatched.bytes(Direction::Received), 10);
    }

    #[test]
    fn earlier_endpoints_are_remembered_up_to_a_limit() {
        let mut record = RequestRecord::new(captured());
        let endpoint = |port: u16| EndpointAddr(([127, 0, 0, 1], port).into());
        for port in 1..=20 {
            record.is_tried_at(endpoint(port));
        }
        let earlier: Vec<_> = (1..=EARLIER_MAX as u16).map(endpoint).collect();
        assert_eq!(record.earlier, earlier);
        assert_eq!(record.passage.endpoint, Some(endpoint(20)));
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
