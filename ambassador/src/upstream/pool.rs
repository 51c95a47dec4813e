//! One shard's connections to upstreams that no request is using.
//!
//! The newest connection is reused first, so that the old ones run into their
//! idle limit. A read is armed on every one of them (the ring does that for
//! all streams), so a close or stray bytes are seen before reuse. Caps count
//! over all shards through [`Permits`](super::permits::Permits).

mod blocked;
mod idle;
mod sweep;
mod takeover;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use crate::addr::{EndpointAddr, Peer};
use crate::clock::Instant;
use crate::policy::hedge::{self, After, Latencies};
use crate::policy::limits;
use crate::ring::{self, Liveness, Remote, timer};
use crate::upstream::balancer::{Ask, Balancer, Picked};
use crate::upstream::connection::{Connection, Past, Place};
use crate::upstream::dial::{DialError, Dialer, Namespace};
use crate::upstream::elsewhere::There;
use crate::upstream::endpoints::Published;
use crate::upstream::permits::{Acquire, Asker, HandOver, Permit, Turn, Wait};
use crate::upstream::pool::idle::Idle;
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
    limits: limits::Pool,
    timeouts: limits::Timeouts,
    balancer: Balancer,
    /// What its name means in other namespaces, and the same for that.
    elsewhere: HashMap<u16, (Arc<There>, Balancer)>,
    /// Oldest first.
    idle: Vec<Idle>,
    /// The slots under which other shards find this one, a bit for each.
    announced: u8,
    /// How many requests there were here lately.
    demand: Demand,
    /// Until when other shards are not asked: they need what they have.
    alone_until: Option<Instant>,
    /// Set aside for waiters that were told so; neither idle nor in use.
    set_aside: Vec<Connection>,
    /// Idle connections this shard keeps open without traffic.
    keep: usize,
    dialing: usize,
    /// Requests that the budgets have not been told of.
    requests: u32,
    /// How long it took to answer lately, where somebody wants to know.
    latencies: Option<Latencies>,
}

/// The limits and timeouts under which a caller asks.
pub(crate) type Policies<'a> = (&'a limits::Pool, &'a limits::Timeouts);

/// Which connections a caller accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// An idle one where there is one.
    Any,
    /// One that has just been dialled: for replays and opaque streams.
    Fresh,
}

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Checkout {
    /// Where it leads.
    pub place: Place,
    /// Which one.
    pub want: Want,
    /// For whom it is.
    pub peer: Peer,
}

/// Why there is no connection.
#[derive(Debug)]
pub enum CheckoutError {
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

    /// Makes the sockets of one more network namespace, the next by number.
    pub fn add_namespace(&self, stock: SocketStock) {
        self.dialer.add(stock);
    }

    /// Whose they are.
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

    /// One of the endpoints published for `shared` in a namespace; `None`: there
    /// are none.
    pub fn pick(
        &self,
        shared: &Arc<Shared>,
        policies: Policies<'_>,
        namespace: Namespace,
        ask: &Ask<'_>,
    ) -> Option<Picked> {
        if shared.is_retired() {
            // Its last requests: what is known of its endpoints is forgotten.
            let last = |published: &Published| {
                let list = published.current();
                let turn = published.next_turn().checked_rem(list.len())?;
                Some(Picked::unwatched(list[turn].address))
            };
            return match namespace == Namespace::default() {
                true => last(&shared.endpoints),
                false => last(&shared.elsewhere.there(namespace).endpoints),
            };
        }
        self.with_pool(shared, policies, |pool| {
            let (published, balancer) = pool.endpoints_in(shared, namespace);
            balancer.pick(published, ask)
        })
    }

    /// An endpoint of the other address family that gets requests.
    pub fn of_other_family(
        &self,
        shared: &Shared,
        (namespace, endpoint): Place,
    ) -> Option<EndpointAddr> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&shared.id)?;
        let (published, balancer) = pool.endpoints_in(shared, namespace);
        balancer.of_other_family(published, endpoint)
    }

    /// The endpoint of `place`, for a request whose connection is given.
    pub fn pick_bound(
        &self,
        shared: &Arc<Shared>,
        policies: Policies<'_>,
        (namespace, endpoint): Place,
        ask: &Ask<'_>,
    ) -> Picked {
        if shared.is_retired() {
            return Picked::unwatched(endpoint);
        }
        self.with_pool(shared, policies, |pool| {
            let (published, balancer) = pool.endpoints_in(shared, namespace);
            balancer.pick_bound(published, endpoint, ask)
        })
    }

    /// What the name of `shared` means in a namespace that is not the proxy's own.
    pub fn there(
        &self,
        shared: &Arc<Shared>,
        policies: Policies<'_>,
        namespace: Namespace,
    ) -> Arc<There> {
        match shared.is_retired() {
            // Its last requests.
            true => shared.elsewhere.there(namespace),
            false => self.with_pool(shared, policies, |pool| {
                Arc::clone(&pool.in_namespace(shared, namespace).0)
            }),
        }
    }

    /// Forgets what names mean in a namespace where nothing is captured any
    /// more.
    pub fn forget_namespace(&self, namespace: Namespace) {
        for pool in self.pools.borrow_mut().values_mut() {
            pool.elsewhere.remove(&namespace.0);
        }
    }

    /// Counts a request, for the budgets of retries and second tries.
    pub fn count_request(&self, shared: &Arc<Shared>, policies: Policies<'_>, now: Instant) {
        self.with_pool(shared, policies, |pool| {
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
        if settings.after == After::P95
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

    /// A connection to `place`: an idle one of this shard, else of another, else
    /// a new one, else a place
    /// in the queue for one.
    pub async fn checkout(
        self: &Rc<Self>,
        shared: &Arc<Shared>,
        (limits, timeouts): Policies<'_>,
        checkout: Checkout,
    ) -> Result<Connection, CheckoutError> {
        let Checkout { place, want, peer } = checkout;
        if let Some(connection) = self.take_idle(shared, place, want) {
            return Ok(connection);
        }
        if want == Want::Any
            && let Some(connection) = self.take_over(shared, place).await
        {
            return Ok(connection);
        }
        let shard = self.shard;
        let asker = Asker { shard, peer };
        let permit = loop {
            if let Some(connection) = self.take_idle(shared, place, want) {
                return Ok(connection);
            }
            let now = ring::now();
            let wait = match shared.permits.acquire(asker, limits.max_pending, now) {
                Acquire::Now(permit) => break permit,
                Acquire::Full => return Err(CheckoutError::Overloaded),
                Acquire::Later(wait) => wait,
            };
            self.ask_for_idle(shared);
            let mut waiting = Waiting {
                pools: self,
                shared,
                policies: (limits, timeouts),
                place,
                wait,
            };
            match timer::timeout(timeouts.connect, &mut waiting.wait).await {
                Err(_) => return Err(CheckoutError::PendingTimeout),
                Ok(Turn::TurnedAway) => return Err(CheckoutError::Overloaded),
                Ok(Turn::Dial(permit)) => break permit,
                Ok(Turn::Reuse) => match self.take_set_aside(shared.id, place) {
                    Some(connection) if want == Want::Any && connection.is_live_at(place) => {
                        return Ok(connection);
                    }
                    Some(other) => break other.permit,
                    None => {}
                },
            }
        };
        self.dial(permit, timeouts, place).await
    }

    async fn dial(
        &self,
        permit: Permit,
        timeouts: &limits::Timeouts,
        (namespace, endpoint): Place,
    ) -> Result<Connection, CheckoutError> {
        let stream = self
            .dialer
            .dial(namespace, endpoint, timeouts.connect)
            .await
            .map_err(CheckoutError::Dial)?;
        stream.keep_alive(timeouts.keep_alive, Liveness::Progress);
        Ok(Connection::new(stream, (namespace, endpoint), permit))
    }

    /// Keeps a connection after a complete exchange, or closes it where its
    /// limits say so.
    pub fn checkin(
        self: &Rc<Self>,
        shared: &Arc<Shared>,
        policies: Policies<'_>,
        mut connection: Connection,
    ) {
        connection.past = Past::Used;
        self.keep(shared, policies, connection);
    }

    fn keep(self: &Rc<Self>, shared: &Arc<Shared>, policies: Policies<'_>, connection: Connection) {
        let now = ring::now();
        let (limits, _) = policies;
        let reusable = !self.closing.get()
            && !shared.is_retired()
            && shared.permits.above_cap() == 0
            && !connection.is_old(limits.max_lifetime, now)
            && !connection.stream.is_closed_or_busy();
        if !reusable {
            return;
        }
        let counted = shared.try_add_idle(limits.max_idle);
        match shared.permits.hand_over(self.shard, now) {
            HandOver::NobodyWaits if counted => {
                let idle = Idle::new(connection, now);
                self.with_pool(shared, policies, |pool| pool.push(idle, self.shard));
                return self.start_sweeping();
            }
            // max_idle is reached, or its place is another shard's: it closes.
            HandOver::NobodyWaits | HandOver::Close => {}
            // With waiters the connection is theirs, whatever max_idle says.
            HandOver::Granted => {
                self.with_pool(shared, policies, |pool| pool.set_aside.push(connection));
            }
        }
        if counted {
            shared.remove_idle();
        }
    }

    /// Closes every idle connection and keeps none from now on: the shard
    /// drains.
    pub fn close_idle(&self) {
        self.closing.set(true);
        for pool in self.pools.borrow_mut().values_mut() {
            pool.keep = 0;
            pool.clear();
            pool.withdraw_unheld(self.shard);
        }
    }

    /// Puts the limits and timeouts of another configuration in force for the
    /// pools that there are; idle connections above the new limits close.
    pub fn set_policies<'a>(self: &Rc<Self>, of: impl Fn(&Shared) -> Policies<'a>) {
        for pool in self.pools.borrow_mut().values_mut() {
            let (limits, timeouts) = of(&pool.shared);
            pool.limits = limits.clone();
            pool.timeouts = timeouts.clone();
        }
        self.sweep();
    }

    /// Sets how many idle connections this shard keeps open to an upstream,
    /// and dials them.
    pub fn keep_warm(self: &Rc<Self>, shared: &Arc<Shared>, policies: Policies<'_>, keep: usize) {
        if keep == 0 {
            if let Some(pool) = self.pools.borrow_mut().get_mut(&shared.id) {
                pool.keep = 0;
            }
            return;
        }
        self.with_pool(shared, policies, |pool| pool.keep = keep);
        self.sweep();
        self.start_sweeping();
    }

    /// Forgets an upstream that was evicted, or that retired: its idle
    /// connections close, those in use close when they come back.
    pub fn forget(&self, id: u32) {
        let forgotten = self.pools.borrow_mut().remove(&id);
        // Dropping a connection may wake waiters: not while we are borrowed.
        if let Some(mut pool) = forgotten {
            pool.clear();
            pool.withdraw_unheld(self.shard);
        }
    }

    fn with_pool<R>(
        &self,
        shared: &Arc<Shared>,
        (limits, timeouts): Policies<'_>,
        use_it: impl FnOnce(&mut Pool) -> R,
    ) -> R {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.entry(shared.id).or_insert_with(|| Pool {
            shared: Arc::clone(shared),
            limits: limits.clone(),
            timeouts: timeouts.clone(),
            balancer: Balancer::default(),
            elsewhere: HashMap::default(),
            idle: Vec::new(),
            announced: 0,
            demand: Demand::new(ring::now()),
            alone_until: None,
            set_aside: Vec::new(),
            keep: 0,
            dialing: 0,
            requests: 0,
            latencies: None,
        });
        use_it(pool)
    }

    /// The newest live idle connection to `place`, unless others wait for
    /// one: newcomers do not overtake them.
    pub fn take_idle(&self, shared: &Arc<Shared>, place: Place, want: Want) -> Option<Connection> {
        if want == Want::Fresh || shared.permits.waiting() > 0 {
            return None;
        }
        self.take_newest(shared.id, place)
    }

    fn take_newest(&self, id: u32, wanted: Place) -> Option<Connection> {
        // Dropping a connection may wake waiters: not while we are borrowed.
        let mut dead = Vec::new();
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&id)?;
        pool.take_newest(wanted, ring::now(), &mut dead)
    }

    /// One of those set aside for waiters, to `place` if there is such a one.
    fn take_set_aside(&self, id: u32, place: Place) -> Option<Connection> {
        let mut pools = self.pools.borrow_mut();
        let set_aside = &mut pools.get_mut(&id)?.set_aside;
        let newest = set_aside.iter().rposition(|one| one.place() == place);
        let one = newest.or(set_aside.len().checked_sub(1))?;
        Some(set_aside.swap_remove(one))
    }

    fn take_oldest(&self, id: u32) -> Option<Connection> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&id)?;
        (!pool.idle.is_empty()).then(|| pool.remove(0).connection)
    }

    /// Idle connections hold permits. A caller who finds none left closes one
    /// of this shard, or asks the others to close one of theirs.
    fn ask_for_idle(&self, shared: &Arc<Shared>) {
        if self.take_oldest(shared.id).is_some() || shared.idle() == 0 {
            return;
        }
        let id = shared.id;
        for peer in self.peers.borrow().iter() {
            let give_up = Box::new(move || {
                let pools = CURRENT.with_borrow(std::rc::Weak::upgrade);
                drop(pools.and_then(|pools| pools.take_oldest(id)));
            });
            // A full mailbox means the shard is busy serving, which is what
            // frees permits too.
            let _ = peer.send(give_up);
        }
    }
}

impl Pool {
    /// What is published in a namespace, and the choice among it. Only the first
    /// request there takes a lock.
    fn endpoints_in<'a>(
        &'a mut self,
        shared: &'a Shared,
        namespace: Namespace,
    ) -> (&'a Published, &'a mut Balancer) {
        if namespace == Namespace::default() {
            return (&shared.endpoints, &mut self.balancer);
        }
        let (there, balancer) = self.in_namespace(shared, namespace);
        (&there.endpoints, balancer)
    }

    fn in_namespace(
        &mut self,
        shared: &Shared,
        namespace: Namespace,
    ) -> &mut (Arc<There>, Balancer) {
        let known = self.elsewhere.entry(namespace.0);
        known.or_insert_with(|| (shared.elsewhere.there(namespace), Balancer::default()))
    }

    fn report_requests(&mut self, shared: &Shared, now: Instant) {
        let requests = std::mem::take(&mut self.requests);
        shared.retry_budget.deposit(requests, now);
        shared.hedge_budget.deposit(requests, now);
    }
}

/// A caller in the queue. Should it leave, the connection that was set aside
/// for it goes on to the next.
struct Waiting<'a> {
    pools: &'a Rc<Pools>,
    shared: &'a Arc<Shared>,
    policies: Policies<'a>,
    place: Place,
    wait: Wait,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(Turn::Reuse) = self.wait.leave()
            && let Some(connection) = self.pools.take_set_aside(self.shared.id, self.place)
        {
            self.pools.keep(self.shared, self.policies, connection);
        }
    }
}
