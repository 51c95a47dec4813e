//! The look at idle connections once a second, and those that are dialled ahead.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::{Pools, limits};
use crate::addr::Peer;
use crate::ring::{self, timer};
use crate::upstream::connection::Past;
use crate::upstream::dial::Namespace;
use crate::upstream::permits::{Acquire, Asker};
use crate::upstream::shared::Shared;

/// How often idle connections are looked over while there are any. A peer that
/// closes one is noticed at the next reuse anyhow; this bounds how long its
/// socket and permit linger.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// An idle connection that `min_idle` wants.
struct Warm {
    shared: Arc<Shared>,
    limits: limits::Pool,
    timeouts: limits::Timeouts,
}

/// What a look has left.
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
                if pools.sweep() == Sweep::NothingLeft {
                    pools.sweeping.set(false);
                    return;
                }
            }
        });
    }

    /// Closes what is dead, idle for too long or too old, and dials what
    /// `min_idle` wants.
    pub(super) fn sweep(self: &Rc<Self>) -> Sweep {
        let now = ring::now();
        let mut expired = Vec::new();
        let mut wanted = Vec::new();
        let mut left = Sweep::NothingLeft;
        for pool in self.pools.borrow_mut().values_mut() {
            pool.take_expired(now, &mut expired);
            pool.withdraw_unheld(self.shard);
            if !self.closing.get() {
                for _ in pool.idle.len() + pool.dialing..pool.keep {
                    pool.dialing += 1;
                    wanted.push(Warm {
                        shared: Arc::clone(&pool.shared),
                        limits: pool.limits.clone(),
                        timeouts: pool.timeouts.clone(),
                    });
                }
            }
            if !pool.idle.is_empty() || pool.keep > 0 {
                left = Sweep::SomethingLeft;
            }
        }
        drop(expired);
        for warm in wanted {
            let pools = Rc::clone(self);
            ring::spawn(async move { pools.warm_one(warm).await });
        }
        left
    }

    async fn warm_one(self: Rc<Self>, warm: Warm) {
        let (shared, policies) = (&warm.shared, (&warm.limits, &warm.timeouts));
        let endpoint = self.with_pool(shared, policies, |pool| {
            pool.balancer.next_in_turn(&shared.endpoints)
        });
        let asker = Asker {
            shard: self.shard,
            peer: Peer::Local,
        };
        if let Some(endpoint) = endpoint
            && let Acquire::Now(permit) = shared.permits.acquire(asker, 0, ring::now())
        {
            match self
                .dial(permit, policies.1, (Namespace::default(), endpoint))
                .await
            {
                Ok(mut connection) => {
                    connection.past = Past::Waited;
                    self.keep(shared, policies, connection);
                }
                // The next sweep tries again; requests report the cause.
                Err(error) => tracing::debug!(%endpoint, ?error, "min_idle: dial failed"),
            }
        }
        if let Some(pool) = self.pools.borrow_mut().get_mut(&shared.id) {
            pool.dialing -= 1;
        }
    }
}
