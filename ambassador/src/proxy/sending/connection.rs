//! What a try goes over: a connection of its own, or a stream of one that is shared.

use super::{Lane, Sending};
use crate::clock;
use crate::combinators::rarely;
use crate::message::BadMessage;
use crate::proxy::answer::ExchangeError;
use crate::proxy::attempt::Try;
use crate::proxy::bound::BoundLease;
use crate::proxy::caller::Caller;
use crate::proxy::deadlines::{Awaited, Deadline};
use crate::proxy::failure::Unanswered;
use crate::proxy::outbound::Outbound;
use crate::proxy::routing::Incoming;
use crate::proxy::websocket;
use crate::ring::{self, timer};
use crate::route::settings::Protocol;
use crate::upstream::key::{self, PoolKey};
use crate::upstream::pool::{Freshness, Leased};

/// What connection a try goes over.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionKind {
    /// Whether an idle one will do.
    pub freshness: Freshness,
    /// What is spoken over it.
    pub protocol: key::Protocol,
}

impl Sending<'_> {
    /// What a try goes over.
    pub(super) async fn reach(
        &mut self,
        one: &mut Try<'_>,
        kind: ConnectionKind,
    ) -> Result<Outbound, Unanswered> {
        let ConnectionKind {
            freshness,
            mut protocol,
        } = kind;
        loop {
            let outbound = self.connection(one, freshness, protocol).await?;
            if !self.facts.upgrade {
                return Ok(outbound);
            }
            match rarely(self.for_switch(outbound)).await? {
                Some(outbound) => return Ok(outbound),
                None => protocol = key::Protocol::Http1,
            }
        }
    }

    /// What a request goes over that asks for a switch of protocols: over HTTP/2 its peer
    /// has to allow that (RFC 8441 section 3). `None`: HTTP/1.1 is the way.
    async fn for_switch(&mut self, outbound: Outbound) -> Result<Option<Outbound>, Unanswered> {
        let Deadline { at, limit } = self.deadlines.of_head(Awaited::FirstByte, ring::now());
        let takes_it = timer::timeout_at(at, outbound.takes_switch()).await;
        let takes_it = takes_it.map_err(|_| Unanswered::expired(limit))?;
        if takes_it || !self.has_to_switch() {
            return Ok(Some(outbound));
        }
        match self.target().upstream.protocol {
            Protocol::Auto => Ok(None),
            _ => Err(Unanswered::malformed(BadMessage::NoExtendedConnect)),
        }
    }

    /// Whether anything but a switch is a failure. Any other upgrade is an offer that may
    /// be passed over (RFC 9110 section 7.8).
    fn has_to_switch(&self) -> bool {
        let Incoming { request, head, .. } = self.incoming;
        let protocol = request.protocol(head);
        request.is_extended_connect() || protocol.is_some_and(websocket::is_it)
    }

    /// A stream for a switch, of a connection that is there and whose peer allows that,
    /// where the protocol is open: it saves a connection.
    fn shared_for_switch(&self, key: PoolKey, freshness: Freshness) -> Option<Leased> {
        let is_open = self.facts.upgrade
            && self.target().upstream.protocol == Protocol::Auto
            && self.route.server().is_some();
        if !is_open || freshness == Freshness::New {
            return None;
        }
        let key = PoolKey {
            protocol: key::Protocol::Negotiated,
            ..key
        };
        let pools = &self.context.pools;
        let place = pools.take_place_for_switch(&self.target().shared, key)?;
        Some(Leased::Shared(place))
    }

    /// What replaces a connection of this kind that was useless for a request; `None`: it
    /// was not.
    pub(super) fn replacement(
        &self,
        error: &ExchangeError,
        outbound: &Outbound,
        kind: ConnectionKind,
    ) -> Option<ConnectionKind> {
        let is_open = self.target().upstream.protocol == Protocol::Auto;
        if is_open && matches!(error, ExchangeError::Http1Required) {
            return Some(ConnectionKind {
                protocol: key::Protocol::Http1,
                freshness: match self.facts.upgrade {
                    // It would go over HTTP/2 again where there is a connection.
                    true => Freshness::New,
                    false => kind.freshness,
                },
            });
        }
        let may_be_replaced = kind.freshness == Freshness::Any || outbound.has_ended();
        let was_useless = may_be_replaced && error.may_be_of(outbound, self.progress);
        was_useless.then_some(ConnectionKind {
            freshness: Freshness::New,
            ..kind
        })
    }

    /// The client's own connection, else an idle one, else a new one.
    async fn connection(
        &mut self,
        one: &mut Try<'_>,
        freshness: Freshness,
        protocol: key::Protocol,
    ) -> Result<Outbound, Unanswered> {
        match self.target().credential() {
            Some(credential) if !credential.is_valid(ring::now()) => {
                return Err(Unanswered::WITHOUT_CREDENTIAL);
            }
            Some(_) if self.target().is_outgrown() => return Err(Unanswered::OUTGROWN),
            _ => {}
        }
        let (namespace, identity) = (self.namespace, self.route.identity());
        let key = PoolKey::new(protocol, namespace, one.endpoint(), identity);
        let (context, shared) = (self.context, &self.route.target.shared);
        let kept = match (self.bound.take(shared, key), self.lane) {
            (BoundLease::Live(connection), _) => {
                if connection.tie.has_begun() {
                    self.lane = Lane::Bound;
                }
                Some(Leased::Own(connection))
            }
            (BoundLease::Nothing, Lane::Pool) => self
                .shared_for_switch(key, freshness)
                .or_else(|| context.pools.take(shared, key, freshness)),
            (BoundLease::Lost, _) | (BoundLease::Nothing, Lane::Bound) => {
                self.outgoing = None;
                return Err(Unanswered::LOST);
            }
        };
        if let Some(kept) = kept {
            if kept.past().is_reused() {
                context.telemetry.cells.pool_reuse(shared.label);
            }
            return Ok(Outbound::over(kept));
        }
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.detach();
        }
        let until = self.deadlines.of_checkout();
        let caller = Caller {
            namespace: self.namespace,
            peer: self.progress.peer(),
            server: self.route.server(),
            protocol,
        };
        let sought = Some(one.endpoint());
        let began = clock::now();
        let reached = rarely(one.reach(caller, freshness, until)).await;
        self.progress.waited(began, clock::now());
        let leased = reached?;
        // Another address of its name may have been faster. A try beside another
        // one is not what the log tells of before it is answered.
        let endpoint = &self.record.passage.endpoint;
        if endpoint.get() == sought {
            endpoint.set(Some(leased.key().endpoint));
        }
        Ok(Outbound::over(leased))
    }
}
