//! The look at idle connections once a second, and those that are dialled ahead.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::Pools;
use super::dialling::{DialTarget, Dialled};
use crate::addr::Peer;
use crate::ring::{self, timer};
use crate::upstream::connection::ConnectionUse;
use crate::upstream::dial::Namespace;
use crate::upstream::key::{Identity, PoolKey, Protocol};
use crate::upstream::permits::{Acquisition, Requester};
use crate::upstream::shared::Shared;

/// How often idle connections are looked over while there are any. A peer that
/// closes one is noticed at the next reuse anyhow; this bounds how long its
/// socket and permit linger.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How long an idle connection above `max_idle` is kept: requests that come at the
/// same time again, as those of a busy client do, find it.
const SURPLUS_FOR: Duration = Duration::from_secs(1);

/// Which idle connections above `max_idle` a sweep closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surplus {
    /// Those that were not used for a second.
    Rested,
    /// All of them: the limit may have changed.
    All,
}

impl Surplus {
    /// How long one has to have been idle.
    pub(super) fn idle_for(self) -> Duration {
        match self {
            Self::Rested => SURPLUS_FOR,
            Self::All => Duration::ZERO,
        }
    }
}

/// Whether a sweep left something to sweep later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweep {
    NothingLeft,
    SomethingLeft,
}

impl Pools {
    /// Looks again and again, as long as there is something to look at.
    pub(super) fn start_sweeping(self: &Rc<Self>) {
        if self.sweeping.replace(true) {
            return;
        }
        let pools = Rc::downgrade(self);
        ring::spawn(async move {
            loop {
                timer::sleep(SWEEP_EVERY).await;
                let Some(pools) = pools.upgrade() else { return };
                if pools.sweep(Surplus::Rested) == Sweep::NothingLeft {
                    pools.sweeping.set(false);
                    return;
                }
            }
        });
    }

    /// Closes what is dead, idle for too long or too old, and dials what
    /// `min_idle` wants.
    pub(super) fn sweep(self: &Rc<Self>, surplus: Surplus) -> Sweep {
        let now = ring::now();
        let (mut expired, mut leaving) = (Vec::new(), Vec::new());
        let mut wanted = Vec::new();
        let mut left = Sweep::NothingLeft;
        let mut pools = self.pools.borrow_mut();
        let over = pools
            .extract_if(|_, pool| pool.is_over())
            .collect::<Vec<_>>();
        for pool in pools.values_mut() {
            let keep = self.share_of(pool.shared.limits.min_idle());
            let before = expired.len();
            pool.take_expired(keep, surplus, now, &mut expired);
            let closing = expired.len() - before;
            leaving.append(&mut pool.expire_shared(keep, surplus, closing, now));
            pool.withdraw_unheld(self.shard);
            for _ in pool.idle.len() + pool.shared_count() + pool.dialing..keep {
                pool.dialing += 1;
                wanted.push(Arc::clone(&pool.shared));
            }
            if !pool.idle.is_empty() || keep > 0 || !pool.shared_open().is_empty() {
                left = Sweep::SomethingLeft;
            }
        }
        drop(pools);
        drop((over, expired));
        leaving.iter().for_each(|one| one.leave());
        for shared in wanted {
            let pools = Rc::clone(self);
            ring::spawn(async move { pools.dial_ahead(shared).await });
        }
        left
    }

    /// This shard's part of the idle connections that an upstream is to have.
    pub(super) fn share_of(&self, min_idle: u32) -> usize {
        if self.closing.get() {
            return 0;
        }
        let shards = self.peers.borrow().len() + 1;
        let (each, more) = (min_idle as usize / shards, min_idle as usize % shards);
        each + usize::from(usize::from(self.shard) < more)
    }

    async fn dial_ahead(self: Rc<Self>, shared: Arc<Shared>) {
        let endpoint = {
            let mut pools = self.pools.borrow_mut();
            let pool = pools.get_mut(&shared.id);
            pool.and_then(|pool| pool.balancer.next_in_turn(&shared.endpoints))
        };
        let requester = Requester {
            shard: self.shard,
            peer: Peer::Local,
        };
        if let Some(endpoint) = endpoint
            && let Acquisition::Now(permit) = shared.permits.acquire(requester, 0, ring::now())
        {
            let server = shared.default_server();
            let identity = server
                .as_ref()
                .map_or(Identity::ANONYMOUS, |it| it.identity);
            let protocol = shared.default_protocol();
            let key = PoolKey::new(protocol, Namespace::default(), endpoint, identity);
            let to = DialTarget {
                key,
                server_name: server.as_ref().and_then(|server| server.name.as_ref()),
            };
            match self
                .dial(&shared, permit, shared.limits.opening(), to)
                .await
            {
                Ok(Dialled::Multiplexed(connection)) => drop(self.share(&shared, connection)),
                Ok(Dialled::Exclusive(mut connection)) => {
                    if protocol == Protocol::Negotiated {
                        self.remember_http1(&shared, key);
                    }
                    connection.past = ConnectionUse::Waited;
                    self.give_back(connection);
                }
                // The next sweep tries again; requests report the cause.
                Err(error) => tracing::debug!(%endpoint, ?error, "min_idle: dial failed"),
            }
        }
        if let Some(pool) = self.pools.borrow_mut().get_mut(&shared.id) {
            pool.dialing = pool.dialing.saturating_sub(1);
        }
    }
}
