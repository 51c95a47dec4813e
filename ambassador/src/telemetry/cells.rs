//! The counters of one shard, and a copy of them for the admin side.

mod tally;

use std::cell::RefCell;
use std::ops::AddAssign;
use std::sync::Arc;

use self::tally::Tally;
use super::floods::FloodCounts;
use super::gauges::{BreakerGauge, PoolGauge};
use super::histogram::Histogram;
use super::labels::{
    AttemptOutcome, Direction, DroppedAccept, FaultKind, GrpcStatus, MethodLabel, ReasonLabel,
    RetryCause, ShedCause, TcpOutcome,
};
use super::record::{Passage, RequestRecord};
use super::registry::{ListenerIndex, UpstreamIndex};
use crate::clock::Instant;

/// The counters of one shard. Not `Sync`: only its thread counts and copies.
/// No method calls out while it counts, so the borrow is never held twice.
#[derive(Debug, Default)]
pub struct Cells {
    inner: RefCell<Snapshot>,
    /// Listeners that are forgotten with their last connection. Whoever waits for
    /// that sees that the other end is gone.
    leaving: RefCell<Vec<(ListenerIndex, Arc<()>)>>,
}

/// A copy of one shard's counters, or the sum of several.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// By place; `None` where a shard has not met the upstream.
    upstreams: Vec<Option<(UpstreamIndex, Box<UpstreamCells>)>>,
    /// Open connections, by place.
    connections: Vec<Option<(ListenerIndex, i64)>>,
    dropped_accepts: [u64; DroppedAccept::ALL.len()],
    shed: [u64; ShedCause::ALL.len()],
    floods: FloodCounts,
    task_panics: u64,
}

/// What is counted of one upstream.
#[derive(Debug, Clone, Default)]
pub struct UpstreamCells {
    requests: Tally<RequestKey>,
    duration: Histogram,
    overhead: Histogram,
    attempts: [u64; AttemptOutcome::ALL.len()],
    retries: [u64; RetryCause::ALL.len()],
    tcp_connections: [u64; TcpOutcome::ALL.len()],
    bytes: [u64; Direction::ALL.len()],
    faults: [u64; FaultKind::ALL.len()],
    pool: PoolGauge,
    breaker: BreakerGauge,
    concurrency_limit: Option<u32>,
    pool_reuse: u64,
}

/// The labels of `ambassador_requests_total` beside the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKey {
    /// The method.
    pub method: MethodLabel,
    /// The final status; 0: none was sent; from 1 to 9: one of that class.
    pub status: u16,
    /// With what a gRPC call ended; none: it did not, or is none.
    pub grpc_status: Option<GrpcStatus>,
    /// The reason; none: the reply is the upstream's own.
    pub reason: Option<ReasonLabel>,
}

/// Series of requests that one upstream has at most on a shard before what is new
/// counts by the class of its status: an upstream may answer with any of 900.
const REQUEST_SERIES_MAX: usize = 64;

impl RequestKey {
    /// The same with the class of its status in place of the status.
    fn by_class(self) -> Self {
        let status = match self.status {
            100.. => self.status / 100,
            other => other,
        };
        Self { status, ..self }
    }

    /// Whether it was answered by an error of the server, or not at all.
    pub fn is_error(&self) -> bool {
        use GrpcStatus::{DataLoss, DeadlineExceeded, Internal, Unavailable, Unknown};
        let failed = [DataLoss, DeadlineExceeded, Internal, Unavailable, Unknown];
        matches!(self.status, 0 | 5..=9 | 500..)
            || self
                .grpc_status
                .is_some_and(|status| failed.contains(&status))
    }

    /// Its status as a label says it: `404`, or `4xx` where only the class was
    /// counted.
    pub fn status_label(&self) -> String {
        match self.status {
            class @ 1..=9 => format!("{class}xx"),
            status => status.to_string(),
        }
    }
}

impl Cells {
    /// Counts a finished request and its durations; not its bytes, which
    /// [`Cells::bytes`] counts as they move.
    pub fn request(&self, record: &RequestRecord, ended: Instant) {
        self.upstream(record.passage.upstream, |cells| {
            let key = RequestKey {
                method: record.method,
                status: record.status.get(),
                grpc_status: record.grpc_status.get(),
                reason: record.reason,
            };
            let max = REQUEST_SERIES_MAX;
            cells.requests.count_within(max, key, RequestKey::by_class);
            // A connection that switched protocols lasts as long as it likes.
            if record.tunnel.is_none() {
                let duration = ended.saturating_duration_since(record.passage.started);
                cells.duration.record(duration);
                cells.overhead.record(record.overhead.get().min(duration));
            }
        });
    }

    /// Counts bytes as they move, and those that were not counted before.
    #[inline(always)]
    pub fn meter(&self, passage: &Passage, direction: Direction, bytes: u64) {
        passage.count(direction, bytes);
        let bytes = passage.take_unmetered(direction);
        self.bytes(passage.upstream, direction, bytes);
    }

    /// Counts what was not when it moved.
    #[inline(always)]
    pub fn meter_rest(&self, passage: &Passage) {
        for direction in Direction::ALL {
            let rest = passage.take_unmetered(*direction);
            if rest > 0 {
                self.bytes(passage.upstream, *direction, rest);
            }
        }
    }

    /// Counts the end of one try.
    #[inline]
    pub fn attempt(&self, upstream: UpstreamIndex, outcome: AttemptOutcome) {
        self.upstream(upstream, |cells| cells.attempts[outcome as usize] += 1);
    }

    /// Counts a try after the first.
    pub fn retry(&self, upstream: UpstreamIndex, cause: RetryCause) {
        self.upstream(upstream, |cells| cells.retries[cause as usize] += 1);
    }

    /// Counts the end of a relayed connection or tunnel.
    pub fn tcp_connection(&self, upstream: UpstreamIndex, outcome: TcpOutcome) {
        self.upstream(upstream, |cells| {
            cells.tcp_connections[outcome as usize] += 1;
        });
    }

    /// Counts bytes that the application has sent or received, heads included.
    #[inline]
    pub fn bytes(&self, upstream: UpstreamIndex, direction: Direction, count: u64) {
        self.upstream(upstream, |cells| cells.bytes[direction as usize] += count);
    }

    /// Counts a fault that was injected.
    pub fn fault(&self, upstream: UpstreamIndex, kind: FaultKind) {
        self.upstream(upstream, |cells| cells.faults[kind as usize] += 1);
    }

    /// Counts a request that found an idle connection.
    #[inline]
    pub fn pool_reuse(&self, upstream: UpstreamIndex) {
        self.upstream(upstream, |cells| cells.pool_reuse += 1);
    }

    /// Changes the pool gauges of an upstream on this shard. `change` gets a copy,
    /// so that it may count other things itself.
    pub fn pool(&self, upstream: UpstreamIndex, change: impl FnOnce(&mut PoolGauge)) {
        let mut pool = PoolGauge::default();
        self.upstream(upstream, |cells| pool = cells.pool);
        change(&mut pool);
        self.upstream(upstream, |cells| cells.pool = pool);
    }

    /// Changes what is shown of an upstream's circuit breaker. `change` gets a
    /// copy, as with [`Cells::pool`].
    pub fn breaker(&self, upstream: UpstreamIndex, change: impl FnOnce(&mut BreakerGauge)) {
        let mut breaker = BreakerGauge::default();
        self.upstream(upstream, |cells| breaker = cells.breaker);
        change(&mut breaker);
        self.upstream(upstream, |cells| cells.breaker = breaker);
    }

    /// Sets what the adaptive limit of requests in flight is; `None`: there is
    /// none.
    pub fn concurrency_limit(&self, upstream: UpstreamIndex, limit: Option<u32>) {
        self.upstream(upstream, |cells| cells.concurrency_limit = limit);
    }

    /// A connection was accepted.
    pub fn connection_opened(&self, listener: ListenerIndex) {
        open(&mut self.inner.borrow_mut().connections, listener, 1);
    }

    /// An accepted connection ended.
    pub fn connection_closed(&self, listener: ListenerIndex) {
        open(&mut self.inner.borrow_mut().connections, listener, -1);
        if !self.leaving.borrow().is_empty() {
            self.forget_unused();
        }
    }

    /// Forgets an upstream: nobody uses its number any more.
    pub fn forget_upstream(&self, upstream: UpstreamIndex) {
        let mut inner = self.inner.borrow_mut();
        if let Some(place) = inner.upstreams.get_mut(upstream.place())
            && place.as_ref().is_some_and(|(index, _)| *index == upstream)
        {
            *place = None;
        }
    }

    /// Forgets a listener with its last connection, and drops `token` then.
    pub fn listener_leaves(&self, listener: ListenerIndex, token: Arc<()>) {
        self.leaving.borrow_mut().push((listener, token));
        self.forget_unused();
    }

    /// A listener that was to leave is there again.
    pub fn listener_stays(&self, listener: ListenerIndex) {
        let mut leaving = self.leaving.borrow_mut();
        leaving.retain(|(index, _)| *index != listener);
    }

    fn forget_unused(&self) {
        let mut inner = self.inner.borrow_mut();
        self.leaving.borrow_mut().retain(|(listener, _)| {
            let in_use = inner.connections(*listener) > 0;
            if !in_use
                && let Some(place) = inner.connections.get_mut(listener.place())
                && place.is_some_and(|(index, _)| index == *listener)
            {
                *place = None;
            }
            in_use
        });
    }

    /// An accepted connection was reset at once.
    pub fn dropped_accept(&self, cause: DroppedAccept) {
        self.inner.borrow_mut().dropped_accepts[cause as usize] += 1;
    }

    /// A connection was ended for the sake of others.
    pub fn shed(&self, cause: ShedCause) {
        self.inner.borrow_mut().shed[cause as usize] += 1;
    }

    /// Takes over how many connections of HTTP/2 were ended for floods, which who drives
    /// them counts.
    pub fn floods(&self, counts: FloodCounts) {
        self.inner.borrow_mut().floods = counts;
    }

    /// Takes over how many tasks have panicked, which their executor counts.
    pub fn task_panics(&self, total: u64) {
        self.inner.borrow_mut().task_panics = total;
    }

    /// A copy of everything counted so far.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.borrow().clone()
    }

    #[inline(always)]
    fn upstream(&self, upstream: UpstreamIndex, count: impl FnOnce(&mut UpstreamCells)) {
        let mut inner = self.inner.borrow_mut();
        if let Some(cells) = cells_of(&mut inner.upstreams, upstream) {
            count(cells);
        }
    }
}

impl Snapshot {
    /// Adds what another shard counted.
    pub fn merge(&mut self, other: &Self) {
        for (upstream, theirs) in other.upstreams.iter().flatten() {
            if let Some(cells) = cells_of(&mut self.upstreams, *upstream) {
                cells.merge(theirs);
            }
        }
        for (listener, theirs) in other.connections.iter().flatten() {
            open(&mut self.connections, *listener, *theirs);
        }
        add(&mut self.dropped_accepts, &other.dropped_accepts);
        add(&mut self.shed, &other.shed);
        self.floods.merge(&other.floods);
        self.task_panics += other.task_panics;
    }

    /// What was counted of one upstream, if anything.
    #[cfg(test)]
    pub fn upstream(&self, index: UpstreamIndex) -> Option<&UpstreamCells> {
        let (known, cells) = self.upstreams.get(index.place())?.as_ref()?;
        (*known == index).then_some(cells)
    }

    /// Every upstream of which something was counted.
    pub fn upstreams(&self) -> impl Iterator<Item = (UpstreamIndex, &UpstreamCells)> {
        let known = self.upstreams.iter().flatten();
        known.map(|(index, cells)| (*index, &**cells))
    }

    /// Open connections of one listener.
    pub fn connections(&self, listener: ListenerIndex) -> i64 {
        let open = self.connections.get(listener.place());
        open.copied()
            .flatten()
            .filter(|(known, _)| *known == listener)
            .map_or(0, |(_, open)| open)
    }

    /// Connections reset right after they were accepted.
    pub fn dropped_accepts(&self, cause: DroppedAccept) -> u64 {
        self.dropped_accepts[cause as usize]
    }

    /// Connections ended for the sake of others.
    pub fn shed(&self, cause: ShedCause) -> u64 {
        self.shed[cause as usize]
    }

    /// Connections of HTTP/2 ended for floods.
    pub fn floods(&self) -> &FloodCounts {
        &self.floods
    }

    /// Tasks that panicked.
    pub fn task_panics(&self) -> u64 {
        self.task_panics
    }
}

impl UpstreamCells {
    /// Finished requests by their labels.
    pub fn requests(&self) -> impl Iterator<Item = (RequestKey, u64)> + Clone {
        self.requests.counts.iter().copied()
    }

    /// From the complete request head to the end of the response.
    pub fn duration(&self) -> &Histogram {
        &self.duration
    }

    /// The part of the duration that was spent in this process.
    pub fn overhead(&self) -> &Histogram {
        &self.overhead
    }

    /// Tries by outcome.
    pub fn attempts(&self, outcome: AttemptOutcome) -> u64 {
        self.attempts[outcome as usize]
    }

    /// Tries after the first, by cause.
    pub fn retries(&self, cause: RetryCause) -> u64 {
        self.retries[cause as usize]
    }

    /// Relayed connections and tunnels by outcome.
    pub fn tcp_connections(&self, outcome: TcpOutcome) -> u64 {
        self.tcp_connections[outcome as usize]
    }

    /// Bytes moved.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.bytes[direction as usize]
    }

    /// Faults injected.
    pub fn faults(&self, kind: FaultKind) -> u64 {
        self.faults[kind as usize]
    }

    /// The pool as it is now.
    pub fn pool(&self) -> PoolGauge {
        self.pool
    }

    /// The circuit breaker as it is now.
    pub fn breaker(&self) -> BreakerGauge {
        self.breaker
    }

    /// How many requests may be in flight now, where that is adaptive.
    pub fn concurrency_limit(&self) -> Option<u32> {
        self.concurrency_limit
    }

    /// Requests that found an idle connection.
    pub fn pool_reuse(&self) -> u64 {
        self.pool_reuse
    }

    fn merge(&mut self, other: &Self) {
        self.requests.merge(&other.requests);
        self.duration.merge(&other.duration);
        self.overhead.merge(&other.overhead);
        add(&mut self.attempts, &other.attempts);
        add(&mut self.retries, &other.retries);
        add(&mut self.tcp_connections, &other.tcp_connections);
        add(&mut self.bytes, &other.bytes);
        add(&mut self.faults, &other.faults);
        self.pool.merge(&other.pool);
        self.breaker.merge(&other.breaker);
        // One shard fills it in.
        self.concurrency_limit = self.concurrency_limit.or(other.concurrency_limit);
        self.pool_reuse += other.pool_reuse;
    }
}

/// The cells of an upstream; `None`: another has its place since.
#[inline]
fn cells_of(
    list: &mut Vec<Option<(UpstreamIndex, Box<UpstreamCells>)>>,
    upstream: UpstreamIndex,
) -> Option<&mut UpstreamCells> {
    let place = upstream.place();
    let is_known = matches!(list.get(place), Some(Some((known, _))) if *known == upstream);
    if !is_known {
        begin(list, upstream)?;
    }
    let (_, cells) = list[place].as_mut()?;
    Some(cells)
}

/// Makes the cells of an upstream that has none.
#[cold]
fn begin(
    list: &mut Vec<Option<(UpstreamIndex, Box<UpstreamCells>)>>,
    upstream: UpstreamIndex,
) -> Option<()> {
    let place = slot(list, upstream.place());
    if let Some((known, _)) = place
        && !upstream.is_newer_than(*known)
    {
        return None;
    }
    *place = Some((upstream, Box::default()));
    Some(())
}

/// Adds to the open connections of a listener, unless another has its place.
fn open(list: &mut Vec<Option<(ListenerIndex, i64)>>, listener: ListenerIndex, more: i64) {
    let place = slot(list, listener.place());
    match place {
        Some((known, open)) if *known == listener => *open += more,
        Some((known, _)) if !listener.is_newer_than(*known) => {}
        Some(_) | None => *place = Some((listener, more)),
    }
}

fn slot<T: Default>(list: &mut Vec<T>, at: usize) -> &mut T {
    if at >= list.len() {
        list.resize_with(at + 1, T::default);
    }
    &mut list[at]
}

fn add<T: AddAssign + Copy, const N: usize>(mine: &mut [T; N], theirs: &[T; N]) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        *mine += *theirs;
    }
}

#[cfg(test)]
mod tests;
