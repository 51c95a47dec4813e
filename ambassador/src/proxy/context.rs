//! What every connection of a shard needs, owned by the shard.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::addr::Authority;
use crate::clock::{Instant, OncePerSecond};
use crate::message;
use crate::multiplex;
use crate::proxy::adopted;
use crate::proxy::clients::{Clients, Excess};
use crate::proxy::drain::Drain;
use crate::proxy::generation::{Generation, Target};
use crate::proxy::listener::{ListenerSettings, ShardListener};
use crate::proxy::memory::{Memory, State};
use crate::proxy::room::Room;
use crate::proxy::server_first::{Observation, Place, ServerFirst};
use crate::ring::{self, Remote, growth};
use crate::route::AdoptKey;
use crate::telemetry::{
    BreakerGauge, ListenerIndex, PoolGauge, ShedCause, Snapshot, Telemetry, UpstreamIndex,
};
use crate::upstream::dial::Namespace;
use crate::upstream::pool::Pools;

/// The state of one shard that its connections share.
pub struct Context {
    /// The shard's number.
    pub shard: u16,
    /// The limits of message heads.
    pub head_limits: message::Limits,
    /// Connections to upstreams.
    pub pools: Rc<Pools>,
    /// Counters and the access log.
    pub telemetry: Rc<Telemetry>,
    /// Whether a captured connection is surely one of a captured program.
    pub tokens: Cell<Tokens>,
    /// Its clients as a whole.
    pub clients: Rc<Clients>,
    /// That of the process.
    pub memory: Arc<Memory>,
    /// Whether the shard wants to end.
    pub drain: Drain,
    /// Begins when the shard drains and serves nothing any more.
    pub served: Drain,
    /// Connections being served, tunnels included.
    pub connections: Cell<usize>,
    /// Listeners that accept.
    accepting: Cell<usize>,
    drain_deadline: Cell<Option<Instant>>,
    drain_grace: Cell<Duration>,
    generation: RefCell<Arc<Generation>>,
    adopted: RefCell<adopted::Cache>,
    server_first: RefCell<ServerFirst>,
    peers: RefCell<Vec<Remote>>,
    listeners: RefCell<HashMap<(ListenerIndex, Namespace), Rc<ShardListener>>>,
}

/// Whether a program can use a token that was given to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// The guard programs keep it from that, or there are no tokens.
    Guarded,
    /// It can: a captured connection may be anybody's.
    Borrowable,
}

/// What one exchange is read into, one after another.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The head of the request.
    pub request: message::RequestHead,
    /// The head of its response.
    pub response: message::ResponseHead,
    /// Whom the request is for.
    pub authority: Option<Authority>,
}

thread_local! {
    static CURRENT: RefCell<std::rc::Weak<Context>> =
        const { RefCell::new(std::rc::Weak::new()) };
}

impl Context {
    /// The context of shard `shard`; [`Context::current`] finds it again.
    pub fn new(
        shard: u16,
        generation: Arc<Generation>,
        pools: Rc<Pools>,
        telemetry: Rc<Telemetry>,
        memory: Arc<Memory>,
    ) -> Rc<Self> {
        let context = Rc::new(Self {
            shard,
            head_limits: message::Limits::default(),
            pools,
            telemetry,
            tokens: Cell::new(Tokens::Guarded),
            clients: Rc::default(),
            memory,
            drain: Drain::default(),
            served: Drain::default(),
            connections: Cell::new(0),
            accepting: Cell::new(0),
            drain_deadline: Cell::new(None),
            drain_grace: Cell::new(Duration::ZERO),
            generation: RefCell::new(generation),
            adopted: RefCell::default(),
            server_first: RefCell::default(),
            peers: RefCell::default(),
            listeners: RefCell::default(),
        });
        context.clients.when_grown(|| {
            if let Some(context) = Self::current() {
                context.look_at_memory();
            }
        });
        CURRENT.with_borrow_mut(|current| *current = Rc::downgrade(&context));
        context
    }

    /// The context of this thread, where it is a shard that has not ended.
    pub fn current() -> Option<Rc<Self>> {
        CURRENT.with_borrow(std::rc::Weak::upgrade)
    }

    /// The configuration as of now.
    pub fn generation(&self) -> Arc<Generation> {
        Arc::clone(&self.generation.borrow())
    }

    /// Replaces the configuration; requests in flight keep theirs. Idle
    /// connections to upstreams that are gone close, and those above the limits
    /// of the new one.
    pub fn set_generation(&self, generation: Arc<Generation>) {
        let before = self.generation.replace(Arc::clone(&generation));
        for shared in before.left_behind(&generation) {
            shared.retire();
            self.pools.forget(shared.id);
            let cells = &self.telemetry.cells;
            cells.pool(shared.label, |gauge| *gauge = PoolGauge::default());
            cells.breaker(shared.label, |gauge| gauge.state = 0);
            cells.concurrency_limit(shared.label, None);
        }
        self.pools
            .obey_limits(generation.targets().map(|(_, shared)| shared));
    }

    /// The upstream of its own that an authority or address becomes.
    pub fn adopt(&self, generation: &Generation, key: AdoptKey<'_>) -> Target {
        let (target, evicted) = generation.adopt(&mut self.adopted.borrow_mut(), key, ring::now());
        for id in evicted {
            self.pools.forget(id);
        }
        target
    }

    /// Names the other shards.
    pub fn set_peers(&self, peers: Vec<Remote>) {
        self.pools.set_peers(peers.clone());
        self.peers.replace(peers);
        // Each has its part of what `min_idle` wants.
        let generation = self.generation();
        self.pools
            .obey_limits(generation.targets().map(|(_, shared)| shared));
    }

    /// Takes no new connections from now on; what is in flight may finish until
    /// `deadline`, what is about to come in has `grace`. A later call may only
    /// bring the deadline forward.
    pub fn begin_drain(&self, deadline: Instant, grace: Duration) {
        self.drain_grace.set(grace);
        let known = self.drain_deadline.get();
        self.drain_deadline
            .set(Some(known.map_or(deadline, |known| known.min(deadline))));
        if deadline <= ring::now() {
            self.served.begin();
        }
        self.pools.close_idle();
        self.drain.begin();
        self.end_if_served();
    }

    fn end_if_served(&self) {
        if self.drain.has_begun() && self.connections.get() == 0 && self.accepting.get() == 0 {
            self.served.begin();
        }
    }

    /// What a drain gives to connections and requests that are on their way.
    pub fn drain_grace(&self) -> Duration {
        self.drain_grace.get()
    }

    /// When a drain must have ended.
    pub fn drain_deadline(&self) -> Instant {
        self.drain_deadline.get().unwrap_or_else(ring::now)
    }

    /// A listener that accepts from now on, in one namespace, and how a reload
    /// reaches it.
    pub fn add_listener(
        &self,
        settings: ListenerSettings,
        room: Arc<Room>,
        namespace: Namespace,
    ) -> Rc<ShardListener> {
        let key = (settings.index, namespace);
        let listener = Rc::new(ShardListener::new(settings, room));
        self.listeners
            .borrow_mut()
            .insert(key, Rc::clone(&listener));
        listener
    }

    /// Stops accepting on a listener; its connections go on.
    pub fn stop_listener(&self, listener: ListenerIndex, namespace: Namespace) {
        let stopped = self.listeners.borrow_mut().remove(&(listener, namespace));
        if let Some(stopped) = stopped {
            stopped.stop.begin();
        }
    }

    /// Gives listeners, by their number, another meaning; connections that they
    /// have accepted keep the old one.
    pub fn change_listeners(&self, new_settings: Vec<(ListenerIndex, ListenerSettings)>) {
        let mut listeners = self.listeners.borrow_mut();
        let here = Namespace::default();
        // All are taken out first: two may swap their names.
        let changed: Vec<_> = new_settings
            .into_iter()
            .filter_map(|(before, settings)| Some((listeners.remove(&(before, here))?, settings)))
            .collect();
        for (listening, settings) in changed {
            let key = (settings.index, here);
            listening.change(settings);
            listeners.insert(key, listening);
        }
    }

    /// Somebody has waited for a connection to the upstream of this number for a
    /// while: has the worst of those who hold one give it up, of this shard, else
    /// of another.
    pub fn make_room(&self, upstream: u32) {
        if self.make_room_here(upstream) {
            return;
        }
        for peer in self.peers.borrow().iter() {
            let tell = Box::new(move || {
                if let Some(context) = Self::current() {
                    context.make_room_here(upstream);
                }
            });
            // A shard that is too busy to listen is asked again.
            let _ = peer.send(tell);
        }
    }

    fn make_room_here(&self, upstream: u32) -> bool {
        let made = self.clients.make_room(upstream, ring::now());
        if made {
            self.telemetry.cells.shed(ShedCause::Share);
        }
        made
    }

    /// Tells how much this shard holds for its connections. Where that is too
    /// much with what others hold, the worst of the shard that holds the most go.
    pub fn look_at_memory(&self) {
        let memory = &self.memory;
        let grown = growth::look_again_at(usize::MAX);
        if memory.limit().is_none() {
            return;
        }
        memory.has_grown(grown as u64);
        growth::look_again_at(self.free_memory().look_after());
    }

    /// Sheds clients while too much is held, and this shard has the worst of them: it may
    /// have been told to when it had. Says how the memory is then.
    fn free_memory(&self) -> State {
        let memory = &self.memory;
        loop {
            memory.tell(self.shard, self.clients.load(ring::now()));
            let state = memory.state();
            let State::Full { over, free } = state else {
                memory.clear();
                return state;
            };
            let worst = memory.worst_shard();
            if worst != self.shard {
                self.have_memory_freed_by(worst);
                return state;
            }
            if !memory.is_of_connections() {
                memory.fill();
                return state;
            }
            let excess = Excess { over, free };
            let shed = self.clients.shed_for_memory(excess, ring::now());
            for _ in 0..shed.clients {
                self.telemetry.cells.shed(ShedCause::Memory);
            }
            tell_of_shed(shed.clients, shed.bytes);
            if shed.clients == 0 {
                memory.fill();
                return state;
            }
            memory.was_shed(shed.here);
        }
    }

    fn have_memory_freed_by(&self, worst: u16) {
        // The others, in their order, without this one.
        let place = usize::from(worst) - usize::from(worst > self.shard);
        if let Some(worst) = self.peers.borrow().get(place) {
            let tell = Box::new(|| {
                if let Some(context) = Self::current() {
                    context.free_memory();
                }
            });
            // One that is too busy to listen is told again.
            let _ = worst.send(tell);
        }
    }

    /// Counts a listener in.
    pub fn listener_opened(&self) {
        self.accepting.set(self.accepting.get() + 1);
    }

    /// Counts a listener out.
    pub fn listener_closed(&self) {
        self.accepting.set(self.accepting.get() - 1);
        self.end_if_served();
    }

    /// Counts a connection in.
    pub fn connection_opened(&self) {
        self.connections.set(self.connections.get() + 1);
    }

    /// Counts a connection out.
    pub fn connection_closed(&self) {
        self.connections.set(self.connections.get() - 1);
        self.end_if_served();
    }

    /// Whether the server there is known to speak first.
    pub(crate) fn speaks_first(&self, place: Place) -> bool {
        self.server_first.borrow().knows(place, ring::now())
    }

    /// Remembers, on every shard, that the server there speaks first.
    pub(crate) fn learn_speaks_first(&self, place: Place) {
        let learnt = self.server_first.borrow_mut().hear(place, ring::now());
        if learnt == Observation::Known {
            return;
        }
        for peer in self.peers.borrow().iter() {
            let tell = Box::new(move || {
                if let Some(context) = Self::current() {
                    context.server_first.borrow_mut().hear(place, ring::now());
                }
            });
            // A shard that was too busy to listen learns it by itself.
            let _ = peer.send(tell);
        }
    }

    /// A copy of the shard's counters. What is counted over all shards comes
    /// from the first.
    pub fn snapshot(&self) -> Snapshot {
        if self.shard == 0 {
            self.fill_gauges();
        }
        self.telemetry.cells.task_panics(ring::task_panics());
        self.telemetry.cells.floods(multiplex::floods());
        self.telemetry.cells.snapshot()
    }

    fn fill_gauges(&self) {
        let generation = self.generation();
        let cells = &self.telemetry.cells;
        for label in [UpstreamIndex::ADOPTED, UpstreamIndex::UNMATCHED] {
            cells.pool(label, |gauge| *gauge = PoolGauge::default());
            cells.breaker(label, |gauge| *gauge = BreakerGauge::default());
        }
        for (upstream, shared) in generation.targets() {
            let settings = &upstream.policies.concurrency;
            let healths = shared.health_by_namespace();
            let limits = healths
                .iter()
                .filter_map(|(_, health)| health.concurrency.limit(settings));
            cells.concurrency_limit(shared.label, limits.min());
        }
        let adopted = generation.adopted_shared();
        let named = generation.targets().map(|(_, shared)| shared);
        for shared in named
            .inspect(|shared| {
                cells.pool(shared.label, |gauge| *gauge = PoolGauge::default());
                cells.breaker(shared.label, |gauge| *gauge = BreakerGauge::default());
            })
            .chain(&adopted)
            .chain([generation.unmatched_shared()])
        {
            cells.pool(shared.label, |gauge| {
                gauge.open += shared.permits.in_use();
                gauge.idle += shared.idle();
                gauge.pending += shared.pending();
            });
            let (mut state, mut transitions) = (0, shared.other_namespaces.forgotten());
            for (_, health) in shared.health_by_namespace() {
                let breaker = &health.breaker;
                state = state.max(breaker.state() as u8);
                transitions += breaker.transitions();
            }
            let breaker = BreakerGauge {
                state,
                opened: transitions.opened,
                half_opened: transitions.half_opened,
                closed: transitions.closed,
            };
            cells.breaker(shared.label, |gauge| gauge.merge(&breaker));
        }
    }
}

/// Says in the log, once a second, that connections are ended for their memory.
fn tell_of_shed(clients: usize, bytes: u64) {
    static TOLD: OncePerSecond = OncePerSecond::new();
    if clients > 0 && TOLD.is_due() {
        tracing::warn!(
            clients,
            bytes,
            "memory_limit is reached: stalled connections that hold the most are ended"
        );
    }
}

#[cfg(test)]
mod tests;
