//! What a try goes over: a connection of its own, or a stream of one that is shared.

use super::{Lane, Sending};
use crate::clock;
use crate::proxy::attempt::Try;
use crate::proxy::bound::BoundLease;
use crate::proxy::caller::Caller;
use crate::proxy::failure::Unanswered;
use crate::proxy::outbound::Outbound;
use crate::ring;
use crate::upstream::key::PoolKey;
use crate::upstream::pool::{Freshness, Leased};

impl Sending<'_> {
    /// The client's own connection, else an idle one, else a new one.
    pub(super) async fn connection(
        &mut self,
        one: &mut Try<'_>,
        freshness: Freshness,
    ) -> Result<Outbound, Unanswered> {
        match self.target().credential() {
            Some(credential) if !credential.is_valid(ring::now()) => {
                return Err(Unanswered::WITHOUT_CREDENTIAL);
            }
            Some(_) if self.target().is_outgrown() => return Err(Unanswered::OUTGROWN),
            _ => {}
        }
        let protocol = self.route.protocol(self.incoming, self.facts);
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
            (BoundLease::Nothing, Lane::Pool) => context.pools.take(shared, key, freshness),
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
        let reached = one.reach(caller, freshness, until).await;
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
