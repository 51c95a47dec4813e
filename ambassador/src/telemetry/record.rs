//! What is known of one request or one relayed connection.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use super::labels::{Direction, FaultKind, RelayProtocol, TcpOutcome};
use super::registry::{ListenerIndex, UpstreamIndex};
use crate::addr::{EndpointAddr, OriginalDst};
use crate::clock::Instant;

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
pub(super) const EARLIER_MAX: usize = 8;

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

    /// Adds bytes that the metrics have counted.
    pub(super) fn count_metered(&self, direction: Direction, bytes: u64) {
        self.count(direction, bytes);
        let metered = &self.metered[direction as usize];
        metered.set(metered.get() + bytes);
    }

    /// Bytes that the metrics have not counted.
    pub(super) fn unmetered(&self, direction: Direction) -> u64 {
        self.bytes(direction).get() - self.metered[direction as usize].get()
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
