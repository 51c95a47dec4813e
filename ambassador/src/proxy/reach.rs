//! A new connection for what is no request: a relay, or CONNECT.

use std::time::Duration;

use crate::addr::{EndpointAddr, Peer};
use crate::clock;
use crate::policy::retry::Cause;
use crate::proxy::context::Context;
use crate::proxy::failure::Unanswered;
use crate::proxy::generation::Target;
use crate::proxy::judges::{Admitted, Judges, Score, Stage};
use crate::proxy::race;
use crate::proxy::way::{self, Aim};
use crate::ring::{self, timer};
use crate::telemetry::RetryCause;
use crate::upstream::balancer::Grade;
use crate::upstream::key::PoolKey;
use crate::upstream::pool::{Checkout, Lease, Want};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Opaque bytes: that it came about is all that can be known of how well the
    /// upstream is.
    Relay,
    /// To see who speaks: a request may follow, which tells more.
    Guess,
}

/// A connection, whose endpoint is busy with it for as long as the judges are
/// kept.
pub(crate) struct Reached<'a> {
    /// The connection.
    pub connection: Lease,
    /// Those who are told of it; they were, unless it was for a guess.
    pub judges: Judges<'a>,
}

impl Reached<'_> {
    /// It turns out to be for a relay.
    pub(crate) fn is_for_relay(&mut self, target: &Target) {
        let how = (Score::Success, Grade::Good);
        let settings = &target.upstream.policies.outlier;
        self.judges.tell(how, Stage::Last, settings, ring::now());
    }
}

/// Why there is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unreached {
    /// What is told of the last try.
    pub unanswered: Unanswered,
    /// Where it went.
    pub endpoint: EndpointAddr,
}

/// Connects to `judges.endpoint`, and where that cannot be reached to the next
/// ones: an endpoint that refuses is none that others must suffer for.
/// `peer` is who asks; `on_try` is called with the endpoint of each try.
pub(crate) async fn reach<'a>(
    context: &Context,
    target: &'a Target,
    peer: Peer,
    mut judges: Judges<'a>,
    (first_aim, purpose): (Aim<'_>, Purpose),
    mut on_try: impl FnMut(EndpointAddr),
) -> Result<Reached<'a>, Unreached> {
    let (shared, policies) = (&target.shared, &target.upstream.policies);
    let mut tried = Vec::new();
    let unanswered = loop {
        let endpoint = judges.endpoint.endpoint;
        on_try(endpoint);
        let key = PoolKey::http1(first_aim.namespace, endpoint);
        let want = Want::Fresh;
        let checkout = race::checkout(context, target, Checkout { key, want, peer });
        let unanswered = match checkout.await {
            Ok(connection) => {
                if connection.endpoint() != endpoint {
                    race::follow(context, target, &mut judges, connection.key());
                }
                let mut reached = Reached { connection, judges };
                if purpose == Purpose::Relay {
                    reached.is_for_relay(target);
                }
                return Ok(reached);
            }
            Err(error) => {
                tracing::debug!(%endpoint, ?error, "dial failed");
                Unanswered::without_connection(&error)
            }
        };
        unanswered.report(target, &mut judges);

        let now = ring::now();
        let may_move = unanswered.cause == Some(Cause::ConnectFailure)
            && policies.retry.applies_to(Cause::ConnectFailure)
            && tried.len() + 1 < usize::from(policies.retry.attempts)
            && judges.endpoint.has_alternatives()
            && !judges.reputation.breaker.refuses_at(now);
        if !may_move {
            break unanswered;
        }
        context.pools.report_requests(shared, now);
        let is_first_move = tried.is_empty();
        if !is_first_move && !shared.retry_budget.withdraw(&policies.retry.budget, now) {
            break unanswered;
        }
        let cells = &context.telemetry.cells;
        cells.retry(shared.label, RetryCause::ConnectFailure);
        tried.push(endpoint);
        let wait = match tried.len() {
            _ if is_first_move => Duration::ZERO,
            tries => policies.retry.wait(tries as u16, None, clock::random_u64()),
        };
        if !wait.is_zero() {
            timer::sleep(wait).await;
        }
        let settings = &policies.circuit_breaker;
        if judges.admit_again(settings, context.shard) == Admitted::No {
            break unanswered;
        }
        let aim = Aim {
            tried: &tried,
            ..first_aim
        };
        match way::pick(&context.pools, target, aim) {
            Some(next) => judges.endpoint = next,
            None => break unanswered,
        }
    };
    if let Some(score) = unanswered.score() {
        judges.tell_breaker(score, ring::now());
    }
    Err(Unreached {
        unanswered,
        endpoint: judges.endpoint.endpoint,
    })
}
