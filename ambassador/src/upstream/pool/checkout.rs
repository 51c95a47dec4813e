//! How a request gets a connection, or a place on one.

use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;

use super::dialling::{DialTarget, Dialled};
use super::lease::Lease;
use super::streams::{DialStage, DialTurn};
use super::{Checkout, CheckoutError, Freshness, Leased, Pools};
use crate::combinators::{First, first};
use crate::ring::{self, timer};
use crate::upstream::key::{PoolKey, Protocol};
use crate::upstream::limits::Opening;
use crate::upstream::permits::{Acquisition, Permit, Requester, Turn, Wait};
use crate::upstream::shared::Shared;

/// What comes of a wait for the right to open a connection.
enum Granted {
    /// The right.
    Permit(Permit),
    /// A connection that came free, or a place on one.
    Leased(Leased),
}

impl Pools {
    /// A connection for a key, or a place on one: on this shard, else of another, else a
    /// new one, else a place in the queue for one.
    pub(crate) async fn checkout(
        self: &Rc<Self>,
        shared: &Arc<Shared>,
        opening: Opening,
        checkout: Checkout<'_>,
    ) -> Result<Leased, CheckoutError> {
        let Checkout { key, freshness, .. } = checkout;
        if let Some(leased) = self.take(shared, key, freshness) {
            return Ok(leased);
        }
        let mut dial_turn = None;
        if self.is_shareable(shared, key) {
            match self.turn_to_dial(shared, opening, checkout).await? {
                Ok(turn) => dial_turn = turn,
                Err(place) => return Ok(place),
            }
        } else if freshness == Freshness::Any
            && let Some(connection) = self.take_over(shared, key).await
        {
            return Ok(Leased::Own(self.lend(shared, connection)));
        }
        let granted = self.permit(shared, opening, checkout, dial_turn.as_ref());
        let permit = match granted.await? {
            Granted::Permit(permit) => permit,
            Granted::Leased(leased) => return Ok(leased),
        };
        if let Some(turn) = &dial_turn {
            turn.is_at(DialStage::UnderWay);
        }
        let to = DialTarget {
            key,
            server_name: checkout.server_name,
        };
        match self.dial(shared, permit, opening, to).await? {
            Dialled::Exclusive(connection) => {
                if key.protocol == Protocol::Negotiated {
                    self.remember_http1(shared, key);
                }
                Ok(Leased::Own(self.lend(shared, connection)))
            }
            Dialled::Multiplexed(connection) => {
                let place = self.share(shared, connection);
                place.map(Leased::Shared).ok_or(CheckoutError::Overloaded)
            }
        }
    }

    /// A place on a connection of this shard that is shared, or an idle one.
    #[inline(always)]
    pub(crate) fn take(
        self: &Rc<Self>,
        shared: &Arc<Shared>,
        key: PoolKey,
        freshness: Freshness,
    ) -> Option<Leased> {
        if key.protocol != Protocol::Http1
            && let Some(place) = self.take_place(shared, key)
        {
            return Some(Leased::Shared(place));
        }
        let idle = self.take_idle(shared, key, freshness)?;
        Some(Leased::Own(idle))
    }

    /// Whether a new connection for a key may be shared, as far as is known.
    fn is_shareable(&self, shared: &Shared, key: PoolKey) -> bool {
        key.protocol != Protocol::Http1 && !self.is_http1(shared, key)
    }

    /// Of those who want to share a connection one dials, and the others wait. The turn
    /// to dial, which is nobody's where the endpoint turns out to speak HTTP/1; or a
    /// place, as the error.
    async fn turn_to_dial(
        self: &Rc<Self>,
        shared: &Arc<Shared>,
        opening: Opening,
        Checkout { key, peer, .. }: Checkout<'_>,
    ) -> Result<Result<Option<DialTurn<'_>>, Leased>, CheckoutError> {
        let until = ring::now() + opening.within;
        while self.is_shareable(shared, key) {
            if let Some(turn) = self.begin_dial(shared, key) {
                return Ok(Ok(Some(turn)));
            }
            self.await_place(shared, key, peer, until).await?;
            if let Some(leased) = self.take(shared, key, Freshness::Any) {
                return Ok(Err(leased));
            }
        }
        Ok(Ok(None))
    }

    /// The right to open a connection, unless one comes free before.
    async fn permit(
        self: &Rc<Self>,
        shared: &Arc<Shared>,
        opening: Opening,
        checkout: Checkout<'_>,
        dial_turn: Option<&DialTurn<'_>>,
    ) -> Result<Granted, CheckoutError> {
        let Checkout { key, freshness, .. } = checkout;
        let requester = Requester {
            shard: self.shard,
            peer: checkout.peer,
        };
        let until = ring::now() + opening.within;
        loop {
            if let Some(leased) = self.take(shared, key, freshness) {
                return Ok(Granted::Leased(leased));
            }
            // An idle connection of any shard closes for whoever waits: as many as there
            // are of them wait for no other request.
            let places = shared.limits.max_pending().saturating_add(shared.idle());
            let wait = match shared.permits.acquire(requester, places, ring::now()) {
                Acquisition::Now(permit) => return Ok(Granted::Permit(permit)),
                Acquisition::Full => return Err(CheckoutError::Overloaded),
                Acquisition::Later(wait) => wait,
            };
            if let Some(turn) = dial_turn {
                turn.is_at(DialStage::Queued);
            }
            self.ask_for_idle(shared);
            let mut waiting = Waiting {
                pools: self,
                upstream: shared.id,
                key,
                wait,
            };
            let turn = loop {
                let place = async {
                    match dial_turn {
                        Some(_) => self.place_freed(shared, key).await,
                        None => pending().await,
                    }
                };
                let turn = timer::timeout_at(until, &mut waiting.wait);
                match first(turn, place).await {
                    First::Left(turn) => break turn,
                    First::Right(()) => {
                        if let Some(leased) = self.take(shared, key, freshness) {
                            return Ok(Granted::Leased(leased));
                        }
                    }
                }
            };
            match turn {
                Err(_) => return Err(CheckoutError::PendingTimeout),
                Ok(Turn::TurnedAway) => return Err(CheckoutError::Overloaded),
                Ok(Turn::Dial(permit)) => return Ok(Granted::Permit(permit)),
                Ok(Turn::Reuse) => match self.take_set_aside(shared.id, key) {
                    Some(connection) if freshness == Freshness::Any && connection.serves(key) => {
                        let lease = Lease::new(connection, self);
                        return Ok(Granted::Leased(Leased::Own(lease)));
                    }
                    Some(other) => return Ok(Granted::Permit(other.permit)),
                    // A place on a connection that is shared.
                    None => {}
                },
            }
        }
    }
}

/// A caller in the queue. Should it leave, the connection that was set aside
/// for it goes on to the next.
struct Waiting<'a> {
    pools: &'a Rc<Pools>,
    upstream: u32,
    key: PoolKey,
    wait: Wait,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(Turn::Reuse) = self.wait.leave()
            && let Some(connection) = self.pools.take_set_aside(self.upstream, self.key)
        {
            self.pools.give_back(connection);
        }
    }
}
