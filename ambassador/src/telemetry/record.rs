//! What is known of one request or one relayed connection.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use super::journal::Journal;
use super::labels::{
    Direction, FaultKind, GrpcStatus, MethodLabel, ReasonLabel, RelayProtocol, RequestProtocol,
    TcpOutcome,
};
use super::registry::{ListenerIndex, UpstreamIndex};
use super::tls::TlsSummary;
use crate::addr::{EndpointAddr, OriginalDst};
use crate::clock::Instant;

/// The part that requests and relayed connections share: from where to where,
/// since when, how many bytes.
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
    metered: [Cell<u64>; Direction::ALL.len()],
    /// Where it went, the last time it was tried.
    pub endpoint: Cell<Option<EndpointAddr>>,
    /// Where a captured client meant to go.
    pub original: Option<OriginalDst>,
    /// The client, where it has an address.
    pub client: Option<SocketAddr>,
    /// What was injected into it on purpose.
    pub faults: Cell<FaultSet>,
    /// What the connection to the endpoint is encrypted with, else that of the client;
    /// `None`: they are in clear.
    pub tls: Cell<Option<TlsSummary>>,
    /// Its steps, where one went badly or somebody wants to see them.
    pub journal: Journal,
}

/// Faults, each of them once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultSet(u8);

/// What is known of one request: the one ledger of its tries, outcomes and bytes.
/// Whoever works on the request writes into it, so it is there however that ends;
/// what is not filled in keeps the value that says "did not happen".
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// From where to where.
    pub passage: Passage,
    /// What its caller speaks.
    pub protocol: RequestProtocol,
    /// The method.
    pub method: MethodLabel,
    /// The status sent to the client; 0: none.
    pub status: Cell<u16>,
    /// With what it ended, where it is a gRPC call that has.
    pub grpc_status: Cell<Option<GrpcStatus>>,
    /// The reason, where the proxy had its own say in the answer.
    pub reason: Option<ReasonLabel>,
    /// Time spent in this process: what passed while nothing was awaited from
    /// the client or the upstream. Waiting for a turn on the shard is part of it.
    pub overhead: Cell<Duration>,
    /// Tries made.
    pub attempts: Cell<u16>,
    /// The last try went over a connection that had carried a request before.
    pub reused: Cell<bool>,
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
    /// Who the client is by its certificate; empty: it has shown none.
    pub peer_id: &'a [u8],
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
            endpoint: Cell::new(None),
            original: None,
            client: None,
            faults: Cell::default(),
            tls: Cell::new(None),
            journal: Journal::default(),
        }
    }

    /// Adds bytes that went one way; the metrics count them at its end.
    pub fn count(&self, direction: Direction, bytes: u64) {
        let count = self.bytes(direction);
        count.set(count.get() + bytes);
    }

    /// Another fault was injected into it.
    pub fn add_fault(&self, kind: FaultKind) {
        let mut faults = self.faults.get();
        faults.add(kind);
        self.faults.set(faults);
    }

    /// Bytes that the metrics have not counted; they do now.
    pub(super) fn take_unmetered(&self, direction: Direction) -> u64 {
        let bytes = self.bytes(direction).get();
        bytes - self.metered[direction as usize].replace(bytes)
    }

    fn bytes(&self, direction: Direction) -> &Cell<u64> {
        match direction {
            Direction::Sent => &self.bytes_in,
            Direction::Received => &self.bytes_out,
        }
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
            protocol: RequestProtocol::Http1,
            method: MethodLabel::Other,
            status: Cell::new(0),
            grpc_status: Cell::new(None),
            reason: None,
            overhead: Cell::default(),
            attempts: Cell::new(0),
            reused: Cell::new(false),
            tunnel: None,
        }
    }
}

impl RequestRecord {
    /// Another try begins.
    pub fn begin_try(&self) {
        self.attempts.set(self.attempts.get() + 1);
    }

    /// Where it is tried, now.
    pub fn is_tried_at(&self, endpoint: EndpointAddr) {
        self.passage.endpoint.set(Some(endpoint));
    }
}
