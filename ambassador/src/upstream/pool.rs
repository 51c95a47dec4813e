//! The pools of one shard: idle connections to upstreams, and how requests get
//! one.
//!
//! The newest connection is reused first, so that the old ones run into their
//! idle limit. A read is armed on every one of them (the ring does that for
//! all streams), so a close or stray bytes are seen before reuse. Caps count
//! over all shards through [`Permits`](super::permits::Permits).

mod blocked;
mod checkout;
mod choice;
mod dialling;
mod idle;
mod lease;
mod stream_lease;
mod streams;
mod sweep;
mod takeover;
mod waiting;

pub(crate) use self::lease::Lease;
pub(crate) use self::stream_lease::StreamLease;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use rustls_pki_types::ServerName;

use crate::addr::Peer;
use crate::clock::Instant;
use crate::policy::hedge::{self, HedgeDelay, Latencies};
use crate::ring::{self, Remote};
use crate::upstream::balancer::Balancer;
use crate::upstream::connection::Connection;
pub(crate) use crate::upstream::connection::ConnectionUse;
use crate::upstream::dial::{DialError, Dialer};
use crate::upstream::key::PoolKey;
use crate::upstream::other_namespaces::NamespaceState;
use crate::upstream::permits::Handover;
use crate::upstream::pool::idle::Idle;
use crate::upstream::pool::streams::SharedConnections;
use crate::upstream::pool::sweep::{Surplus, Sweep};
use crate::upstream::pool::takeover::{Answer, Demand};
use crate::upstream::shared::Shared;
use crate::workload::SocketStock;

/// Requests that a shard counts by itself before it tells the others: they matter
/// only where something is tried again.
const REPORT_EVERY: u32 = 64;

/// The pools of one shard.
pub struct Pools {
    shard: u16,
    dialer: Rc<Dialer>,
    peers: RefCell<Vec<Remote>>,
    pools: RefCell<HashMap<u32, Pool>>,
    sweeping: Cell<bool>,
    closing: Cell<bool>,
    /// What other shards were asked and have not answered yet, or somebody is
    /// about to take.
    answers: RefCell<HashMap<u64, Answer>>,
    /// The number of the next question.
    questions: Cell<u64>,
}

struct Pool {
    shared: Arc<Shared>,
    balancer: Balancer,
    /// What its name means in other namespaces, and the same for that.
    other_namespaces: HashMap<u16, (Arc<NamespaceState>, Balancer)>,
    /// Oldest first.
    idle: Vec<Idle>,
    /// The slots under which other shards find this one, a bit for each.
    announced: u8,
    /// How many requests there were here lately.
    demand: Demand,
    /// Until when other shards are not asked: they need what they have.
    alone_until: Option<Instant>,
    /// Set aside for waiters that were told so; neither idle nor in use.
    #[expect(clippy::vec_box, reason = "they are handed out by pointer, not copied")]
    set_aside: Vec<Box<Connection>>,
    /// Connections that many requests share.
    shared_connections: SharedConnections,
    /// Those that are being dialled for `min_idle`.
    dialing: usize,
    /// Requests that the budgets have not been told of.
    requests: u32,
    /// How long it took to answer lately, where somebody wants to know.
    latencies: Option<Latencies>,
}

/// Which connections a caller accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// An idle one where there is one.
    Any,
    /// One that has just been dialled: for replays and opaque streams.
    New,
}

/// A request for a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checkout<'a> {
    /// The pool key.
    pub key: PoolKey,
    /// Whether an idle one will do.
    pub freshness: Freshness,
    /// The peer that it is for.
    pub peer: Peer,
    /// The name of the server, where the key asks for one that is verified, and the
    /// settings leave the name open.
    pub server_name: Option<&'a ServerName<'static>>,
}

/// What a request goes over.
pub(crate) enum Leased {
    /// A connection of its own.
    Own(Lease),
    /// A stream of one that it shares.
    Shared(StreamLease),
}

impl Leased {
    /// The pool key of its connection.
    pub(crate) fn key(&self) -> PoolKey {
        match self {
            Self::Own(lease) => lease.key(),
            Self::Shared(lease) => lease.connection().key(),
        }
    }

    /// The connection of its own.
    #[cfg(test)]
    pub(crate) fn connection(self) -> Lease {
        match self {
            Self::Own(lease) => lease,
            Self::Shared(_) => panic!("it is a stream"),
        }
    }

    /// How its connection was used before.
    pub(crate) fn past(&self) -> ConnectionUse {
        match self {
            Self::Own(lease) => lease.past,
            Self::Shared(lease) => lease.connection().past(),
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum CheckoutError {
    /// `max_pending` callers wait already, and its peer has its share of them.
    Overloaded,
    /// No place under `max_connections` came free within the connect timeout.
    PendingTimeout,
    /// The dial failed.
    Dial(DialError),
}

thread_local! {
    static CURRENT: RefCell<std::rc::Weak<Pools>> = const { RefCell::new(std::rc::Weak::new()) };
}

impl Pools {
    /// The pools of shard `shard`, and the target of requests by other shards
    /// to give up an idle connection.
    pub fn new(shard: u16, dialer: Rc<Dialer>) -> Rc<Self> {
        let pools = Rc::new(Self {
            shard,
            dialer,
            peers: RefCell::default(),
            pools: RefCell::default(),
            sweeping: Cell::new(false),
            closing: Cell::new(false),
            answers: RefCell::default(),
            questions: Cell::new(0),
        });
        CURRENT.with_borrow_mut(|current| *current = Rc::downgrade(&pools));
        pools
    }

    /// Adds the sockets of one more network namespace, the next by number.
    pub fn add_namespace(&self, stock: SocketStock) {
        self.dialer.add(stock);
    }

    /// The number of the shard.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// What opens connections.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Names the other shards.
    pub fn set_peers(&self, peers: Vec<Remote>) {
        self.peers.replace(peers);
    }

    /// Counts a request, for the budgets of retries and second tries.
    #[inline(always)]
    pub fn count_request(&self, shared: &Arc<Shared>, now: Instant) {
        self.with_pool(shared, |pool| {
            pool.requests += 1;
            pool.demand.count(now);
            if pool.requests >= REPORT_EVERY {
                pool.report_requests(shared, now);
            }
        });
    }

    /// Tells those budgets of every request so far.
    pub fn report_requests(&self, shared: &Shared, now: Instant) {
        if let Some(pool) = self.pools.borrow_mut().get_mut(&shared.id) {
            pool.report_requests(shared, now);
        }
    }

    /// Takes note of how long an upstream took to answer, where these settings go
    /// by that.
    pub fn record_latency(&self, shared: &Shared, settings: &hedge::Settings, took: Duration) {
        if settings.after == HedgeDelay::P95
            && let Some(pool) = self.pools.borrow_mut().get_mut(&shared.id)
        {
            pool.latencies.get_or_insert_default().record(took);
        }
    }

    /// When a try that begins now is slow, for this upstream and these settings;
    /// `None`: it is not known.
    pub fn slow_at(
        &self,
        shared: &Shared,
        settings: &hedge::Settings,
        now: Instant,
    ) -> Option<Instant> {
        let pools = self.pools.borrow();
        let latencies = pools.get(&shared.id)?.latencies.as_ref();
        settings.due(latencies, now)
    }

    /// Lends a connection that is new to this shard, which may have had none to
    /// this upstream.
    fn lend(self: &Rc<Self>, shared: &Arc<Shared>, connection: Box<Connection>) -> Lease {
        if !shared.is_retired() {
            self.with_pool(shared, |_| ());
        }
        Lease::new(connection, self)
    }

    /// Keeps a connection that nobody uses any more, or closes it where the limits
    /// of its upstream say so.
    #[inline(always)]
    fn give_back(self: &Rc<Self>, connection: Box<Connection>) {
        let now = ring::now();
        let mut pools = self.pools.borrow_mut();
        // Dropping a connection may wake waiters: not while the pools are
        // borrowed. It is dropped after them where it is not kept.
        let Some(pool) = pools.get_mut(&connection.upstream()) else {
            return;
        };
        let (shared, limits) = (&pool.shared, &pool.shared.limits);
        let reusable = !self.closing.get()
            && !shared.is_retired()
            && shared.above_cap() == 0
            && !connection.is_old(limits.max_lifetime(), now)
            && !connection.stream.is_closed_or_busy();
        if !reusable {
            return;
        }
        // The next sweep closes those above max_idle that are not used again.
        let may_be_idle = limits.max_idle() > 0;
        shared.add_idle();
        match shared.permits.hand_over(self.shard, now) {
            Handover::NobodyWaits if may_be_idle => {
                pool.push(Idle::new(connection, now), self.shard);
                return self.start_sweeping();
            }
            // None may be idle, or its place is another shard's: it closes.
            Handover::NobodyWaits | Handover::Close => {}
            // With waiters the connection is theirs, whatever max_idle says.
            Handover::Granted => pool.set_aside.push(connection),
        }
        pool.shared.remove_idle();
    }

    /// Closes every idle connection and keeps none from now on: the shard
    /// drains.
    pub fn close_idle(&self) {
        self.closing.set(true);
        let mut shared = Vec::new();
        for pool in self.pools.borrow_mut().values_mut() {
            pool.clear();
            pool.withdraw_unheld(self.shard);
            shared.extend_from_slice(pool.shared_open());
        }
        shared.iter().for_each(|one| one.leave());
    }

    /// Applies the limits in force: closes idle connections above them, and dials
    /// for `min_idle`.
    pub fn obey_limits<'a>(self: &Rc<Self>, upstreams: impl Iterator<Item = &'a Arc<Shared>>) {
        for shared in upstreams.filter(|shared| shared.limits.min_idle() > 0) {
            self.with_pool(shared, |_| ());
        }
        if self.sweep(Surplus::All) == Sweep::SomethingLeft {
            self.start_sweeping();
        }
    }

    /// Forgets an upstream that was evicted, or that retired: its idle
    /// connections close, those in use close when they come back.
    pub fn forget(&self, id: u32) {
        let forgotten = self.pools.borrow_mut().remove(&id);
        // Dropping a connection may wake waiters: not while we are borrowed.
        if let Some(mut pool) = forgotten {
            pool.clear();
            pool.withdraw_unheld(self.shard);
            pool.shared_open().iter().for_each(|one| one.leave());
        }
    }

    #[inline(always)]
    fn with_pool<R>(&self, shared: &Arc<Shared>, use_it: impl FnOnce(&mut Pool) -> R) -> R {
        let mut pools = self.pools.borrow_mut();
        match pools.get_mut(&shared.id) {
            Some(pool) => use_it(pool),
            None => use_it(pools.entry(shared.id).or_insert_with(|| Pool::new(shared))),
        }
    }

    /// The newest live idle connection for a key, unless others wait for one:
    /// newcomers do not overtake them.
    #[inline(always)]
    pub fn take_idle(
        self: &Rc<Self>,
        shared: &Arc<Shared>,
        key: PoolKey,
        freshness: Freshness,
    ) -> Option<Lease> {
        if freshness == Freshness::New || shared.permits.waiting() > 0 {
            return None;
        }
        // Dropping a connection may wake waiters: not while we are borrowed.
        let mut dead = Vec::new();
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&shared.id)?;
        let newest = pool.take_newest(key, ring::now(), &mut dead)?;
        Some(Lease::new(newest, self))
    }

    /// One of those set aside for waiters, for this key if there is such a one.
    fn take_set_aside(&self, id: u32, key: PoolKey) -> Option<Box<Connection>> {
        let mut pools = self.pools.borrow_mut();
        let set_aside = &mut pools.get_mut(&id)?.set_aside;
        let newest = set_aside.iter().rposition(|one| one.key() == key);
        let one = newest.or(set_aside.len().checked_sub(1))?;
        Some(set_aside.swap_remove(one))
    }

    fn take_oldest(&self, id: u32) -> Option<Box<Connection>> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&id)?;
        (!pool.idle.is_empty()).then(|| pool.remove(0).connection)
    }

    /// Closes one on which nothing is under way. `false`: there is none.
    fn close_one_idle(&self, id: u32) -> bool {
        self.take_oldest(id).is_some() || self.close_idle_shared(id)
    }

    /// Idle connections hold permits. A caller who finds none left closes one
    /// of this shard, or asks the others to close one of theirs.
    fn ask_for_idle(&self, shared: &Arc<Shared>) {
        if self.close_one_idle(shared.id) || shared.idle() == 0 {
            return;
        }
        let id = shared.id;
        for peer in self.peers.borrow().iter() {
            let give_up = Box::new(move || {
                let pools = CURRENT.with_borrow(std::rc::Weak::upgrade);
                if let Some(pools) = pools {
                    pools.close_one_idle(id);
                }
            });
            // A full mailbox means the shard is busy serving, which is what
            // frees permits too.
            let _ = peer.send(give_up);
        }
    }
}

impl Pool {
    #[cold]
    fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            balancer: Balancer::default(),
            other_namespaces: HashMap::default(),
            idle: Vec::new(),
            announced: 0,
            demand: Demand::new(ring::now()),
            alone_until: None,
            set_aside: Vec::new(),
            shared_connections: SharedConnections::default(),
            dialing: 0,
            requests: 0,
            latencies: None,
        }
    }

    /// Whether its upstream has retired, and a last request has left it behind empty.
    fn is_over(&self) -> bool {
        let is_empty = self.idle.is_empty() && self.set_aside.is_empty() && self.dialing == 0;
        self.shared.is_retired() && is_empty && self.shared_connections.is_unused()
    }

    fn report_requests(&mut self, shared: &Shared, now: Instant) {
        let requests = std::mem::take(&mut self.requests);
        shared.retry_budget.deposit(requests, now);
        shared.hedge_budget.deposit(requests, now);
    }
}

#[cfg(test)]
mod tests;
