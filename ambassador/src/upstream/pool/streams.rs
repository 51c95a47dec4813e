//! Places for requests on connections that they share: one connection for an endpoint,
//! and another one only when its streams are used up.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::stream_lease::StreamLease;
use super::sweep::Surplus;
use super::waiting::{Turn, Waiting};
use super::{CheckoutError, Pool, Pools};
use crate::addr::Peer;
use crate::clock::Instant;
use crate::ring::{self, timer};
use crate::upstream::key::PoolKey;
use crate::upstream::multiplexed::MultiplexedConnection;
use crate::upstream::shared::Shared;

/// Endpoints that are remembered to speak HTTP/1 where either would do.
const HTTP1_REMEMBERED_MAX: usize = 64;

/// The shared connections of one upstream on one shard.
#[derive(Default)]
pub(super) struct SharedConnections {
    open: Vec<Rc<MultiplexedConnection>>,
    /// For whom one is being dialled, or is about to be.
    dialling: Vec<(PoolKey, DialStage)>,
    /// Those that chose HTTP/1 when they had the choice.
    http1: VecDeque<PoolKey>,
    /// Who waits for a place.
    waiting: Rc<Waiting>,
}

impl SharedConnections {
    /// Whether there are none, and nobody dials or waits for one.
    pub(super) fn is_unused(&self) -> bool {
        self.open.is_empty() && self.dialling.is_empty() && self.waiting.len() == 0
    }
}

/// How far a dial is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DialStage {
    /// It waits for the right to open a connection.
    Queued,
    /// It has it, or is about to ask.
    UnderWay,
}

/// The one dial for a key. Dropped, others may dial.
pub(super) struct DialTurn<'a> {
    pools: &'a Pools,
    upstream: u32,
    key: PoolKey,
}

impl Pools {
    /// A place on a shared connection for a key; `None`: there is none.
    pub(super) fn take_place(&self, shared: &Shared, key: PoolKey) -> Option<StreamLease> {
        self.take_place_where(shared, key, |_| true)
    }

    /// The same on one whose peer allows extended CONNECT.
    pub(crate) fn take_place_for_switch(
        &self,
        shared: &Shared,
        key: PoolKey,
    ) -> Option<StreamLease> {
        self.take_place_where(shared, key, |one| {
            one.multiplexed().takes_extended_connect()
        })
    }

    fn take_place_where(
        &self,
        shared: &Shared,
        key: PoolKey,
        is_fit: impl Fn(&MultiplexedConnection) -> bool,
    ) -> Option<StreamLease> {
        let max_streams = shared.limits.http2().max_streams;
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&shared.id)?;
        let connections = pool.shared_connections.open.iter();
        let mut for_key =
            connections.filter(|one| one.key() == key && !one.is_over() && is_fit(one));
        let connection = for_key.find(|one| one.take_place(max_streams))?;
        let waiting = Rc::clone(&pool.shared_connections.waiting);
        Some(StreamLease::new(Rc::clone(connection), waiting, self.shard))
    }

    /// Whether an endpoint that had the choice has chosen HTTP/1.
    pub(super) fn is_http1(&self, shared: &Shared, key: PoolKey) -> bool {
        let pools = self.pools.borrow();
        let pool = pools.get(&shared.id);
        pool.is_some_and(|pool| pool.shared_connections.http1.contains(&key))
    }

    /// The turn to dial for a key; `None`: somebody dials.
    pub(super) fn begin_dial(&self, shared: &Arc<Shared>, key: PoolKey) -> Option<DialTurn<'_>> {
        self.with_pool(shared, |pool| {
            let dialling = &mut pool.shared_connections.dialling;
            if dialling.iter().any(|(other, _)| *other == key) {
                return None;
            }
            dialling.push((key, DialStage::UnderWay));
            Some(())
        })?;
        Some(DialTurn {
            pools: self,
            upstream: shared.id,
            key,
        })
    }

    /// Waits until there may be a place, or somebody has dialled. As many wait as will
    /// have a place on what is dialled, beside the first, and on what may be dialled
    /// after that, and `max_pending` more. Where
    /// nothing can be dialled, `max_pending` wait in all, with those of other shards.
    /// Peers take turns, and make room for each other, as in the queue for permits.
    pub(super) async fn await_place(
        &self,
        shared: &Arc<Shared>,
        key: PoolKey,
        peer: Peer,
        until: Instant,
    ) -> Result<(), CheckoutError> {
        let (waiting, stage) = self.with_pool(shared, |pool| {
            let connections = &pool.shared_connections;
            let mut dialling = connections.dialling.iter();
            let stage = dialling.find(|(other, _)| *other == key);
            (
                Rc::clone(&connections.waiting),
                stage.map(|(_, stage)| *stage),
            )
        });
        let max_pending = shared.limits.max_pending();
        let max = match stage {
            // An idle connection of any shard closes for whoever waits.
            Some(DialStage::Queued) => {
                let in_all = max_pending.saturating_add(shared.idle());
                let own = waiting.len() as u32;
                own.saturating_add(in_all).saturating_sub(shared.pending())
            }
            Some(DialStage::UnderWay) | None => {
                let connections = shared.permits.free().saturating_add(1);
                let places = shared
                    .limits
                    .http2()
                    .max_streams
                    .saturating_mul(connections);
                places.saturating_sub(1).saturating_add(max_pending)
            }
        };
        let turn = waiting.turn(key, peer, max);
        let turn = turn.ok_or(CheckoutError::Overloaded)?;
        let _counted = shared.awaits_place();
        match timer::timeout_at(until, turn).await {
            Ok(Turn::Look) => Ok(()),
            Ok(Turn::TurnedAway) => Err(CheckoutError::Overloaded),
            Err(_) => Err(CheckoutError::PendingTimeout),
        }
    }

    /// Resolves when there may be a place for a key on a shared connection.
    pub(super) async fn place_freed(&self, shared: &Arc<Shared>, key: PoolKey) {
        let waiting = self.with_pool(shared, |pool| Rc::clone(&pool.shared_connections.waiting));
        waiting.turn_of_dialler(key).await;
    }

    /// Keeps a connection that many share, and drives it to its end.
    /// Gives the first place on it.
    pub(super) fn share(
        self: &Rc<Self>,
        shared: &Arc<Shared>,
        one: Rc<MultiplexedConnection>,
    ) -> Option<StreamLease> {
        self.forget_http1(shared, one.key());
        let place = one.take_place(1);
        if shared.is_retired() || self.closing.get() {
            one.leave();
        }
        let waiting = self.with_pool(shared, |pool| {
            pool.shared_connections.open.push(Rc::clone(&one));
            Rc::clone(&pool.shared_connections.waiting)
        });
        let place = place.then(|| StreamLease::new(Rc::clone(&one), waiting, self.shard));
        let (pools, shared) = (Rc::downgrade(self), Arc::clone(shared));
        ring::spawn(async move {
            one.drive().await;
            if let Some(pools) = pools.upgrade() {
                pools.unshare(&shared, &one);
            }
        });
        self.start_sweeping();
        place
    }

    /// A shared connection has ended: only itself is removed.
    fn unshare(&self, shared: &Shared, one: &Rc<MultiplexedConnection>) {
        let waiting = {
            let mut pools = self.pools.borrow_mut();
            let Some(pool) = pools.get_mut(&shared.id) else {
                return;
            };
            let connections = &mut pool.shared_connections;
            connections.open.retain(|other| !Rc::ptr_eq(other, one));
            Rc::clone(&connections.waiting)
        };
        waiting.wake_all();
    }

    /// An endpoint that had the choice has chosen HTTP/1.
    pub(super) fn remember_http1(&self, shared: &Arc<Shared>, key: PoolKey) {
        self.with_pool(shared, |pool| {
            let http1 = &mut pool.shared_connections.http1;
            if http1.contains(&key) {
                return;
            }
            if http1.len() == HTTP1_REMEMBERED_MAX {
                http1.pop_front();
            }
            http1.push_back(key);
        });
    }

    /// It has chosen HTTP/2.
    fn forget_http1(&self, shared: &Arc<Shared>, key: PoolKey) {
        self.with_pool(shared, |pool| {
            pool.shared_connections.http1.retain(|other| *other != key);
        });
    }

    /// Closes a shared connection on which nothing is under way. `false`: there is none.
    pub(super) fn close_idle_shared(&self, id: u32) -> bool {
        let idle = {
            let pools = self.pools.borrow();
            let Some(pool) = pools.get(&id) else {
                return false;
            };
            let open = pool.shared_connections.open.iter();
            let mut idle = open.filter(|one| one.is_idle() && !one.is_over());
            idle.next().cloned()
        };
        let is_there = idle.is_some();
        if let Some(idle) = idle {
            idle.leave();
        }
        is_there
    }
}

impl Pool {
    /// The shared connections that are to leave: those above a limit, too old, or idle for
    /// too long, but for the `keep` that stay however long they are idle. `closing` other
    /// connections are about to close.
    pub(super) fn expire_shared(
        &self,
        keep: usize,
        surplus: Surplus,
        closing: usize,
        now: Instant,
    ) -> Vec<Rc<MultiplexedConnection>> {
        let above = self.shared_above(surplus, closing, now);
        let is_above = |one| above.iter().any(|other| Rc::ptr_eq(one, other));
        let limits = &self.shared.limits;
        let (idle_timeout, max_lifetime) = (limits.idle_timeout(), limits.max_lifetime());
        let mut left = self.shared_count();
        let open = self.shared_connections.open.iter();
        let expired = open.filter(|one| {
            let lifetime = one.lifetime();
            let idle = one
                .idle_since()
                .map(|since| now.saturating_duration_since(since));
            let is_too_long = idle.is_some_and(|idle| idle >= lifetime.share_of(idle_timeout));
            let expires = !one.is_over()
                && (is_above(*one)
                    || lifetime.is_old(max_lifetime, now)
                    || is_too_long && left > keep);
            left -= usize::from(expires);
            expires
        });
        expired.cloned().collect()
    }

    /// Idle shared connections above `max_idle` or a lowered cap, the longest idle ones.
    fn shared_above(
        &self,
        surplus: Surplus,
        closing: usize,
        now: Instant,
    ) -> Vec<Rc<MultiplexedConnection>> {
        let shared = &self.shared;
        let above_idle = shared.idle().saturating_sub(shared.limits.max_idle()) as usize;
        let above_cap = (shared.above_cap() as usize).saturating_sub(closing);
        if above_idle.max(above_cap) == 0 {
            return Vec::new();
        }
        let open = self.shared_connections.open.iter();
        let idle = open.filter(|one| !one.is_over());
        let idle = idle.filter_map(|one| Some((one.idle_since()?, one)));
        let mut idle: Vec<_> = idle.collect();
        idle.sort_by_key(|(since, _)| *since);
        let is_rested = |since: Instant| now.saturating_duration_since(since) >= surplus.idle_for();
        let rested = idle.iter().take_while(|(since, _)| is_rested(*since));
        let above = above_idle.min(rested.count()).max(above_cap);
        let above = idle.into_iter().take(above);
        above.map(|(_, one)| Rc::clone(one)).collect()
    }

    /// Shared connections that take more requests.
    pub(super) fn shared_count(&self) -> usize {
        let open = self.shared_connections.open.iter();
        open.filter(|one| !one.is_over()).count()
    }

    /// All shared connections.
    pub(super) fn shared_open(&self) -> &[Rc<MultiplexedConnection>] {
        &self.shared_connections.open
    }
}

impl DialTurn<'_> {
    /// The dial is that far.
    pub(super) fn is_at(&self, stage: DialStage) {
        let mut pools = self.pools.pools.borrow_mut();
        if let Some(pool) = pools.get_mut(&self.upstream) {
            let mut dialling = pool.shared_connections.dialling.iter_mut();
            let entry = dialling.find(|(key, _)| *key == self.key);
            entry.into_iter().for_each(|(_, entry)| *entry = stage);
        }
    }
}

impl Drop for DialTurn<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut pools = self.pools.pools.borrow_mut();
            let Some(pool) = pools.get_mut(&self.upstream) else {
                return;
            };
            let connections = &mut pool.shared_connections;
            connections.dialling.retain(|(key, _)| *key != self.key);
            Rc::clone(&connections.waiting)
        };
        waiting.wake_all();
    }
}
