//! What a request must pass before its first try: the limits, over all shards, the
//! faults that are injected on purpose, and the circuit breaker.

use std::time::Duration;

use crate::addr::OriginalDst;
use crate::clock::Instant;
use crate::message::{CallerTimeout, LocalReply, Method, Reason, RequestHead};
use crate::policy;
use crate::policy::rate_limit::{self, Turn};
use crate::proxy::context::{Context, Tokens};
use crate::proxy::downstream::RecvRequest;
use crate::proxy::fault::{self, Fate};
use crate::proxy::generation::Awaiting;
use crate::proxy::refusal::Refusal;
use crate::proxy::routing::RouteDecision;
use crate::ring::{self, Chunk, timer};
use crate::route::settings::Protocol;
use crate::telemetry::RequestRecord;
use crate::upstream::health::UpstreamHealth;
use crate::upstream::in_flight::Entered;

/// The text for a request in a circle.
const IN_A_CIRCLE: &str = "it has come through more proxies than max_hops: they go in a circle";

/// The text for a captured request where nobody guards tokens.
const UNGUARDED: &str = "captured requests get no credentials: the guard that keeps other programs from posing as captured ones is not attached";

/// The text for a request whose answer would show its caller the credential (RFC 9110
/// section 9.3.8).
const TRACED: &str = "TRACE gets back what the upstream was sent: not where the upstream has auth";

/// A routed request that asks for admission; nothing of it was sent.
pub(crate) struct Admission<'a, 'b> {
    /// The shard's state.
    pub context: &'a Context,
    /// Where it goes.
    pub route: &'a RouteDecision,
    /// The health of its upstream.
    pub health: &'a UpstreamHealth,
    /// Where its connection was going.
    pub original: Option<OriginalDst>,
    /// Its head, parsed.
    pub request: &'b RequestHead,
    /// Its head.
    pub head: &'b mut Chunk,
    /// Its body, as it comes.
    pub recv: RecvRequest<'b>,
    /// How long its caller waits.
    pub timeout: CallerTimeout,
    /// Its record.
    pub record: &'b RequestRecord,
    /// When its head was there.
    pub now: Instant,
}

/// A request that may be tried.
pub(crate) struct Admitted<'a> {
    /// It is in flight until this is dropped.
    pub in_flight: Entered<'a>,
    /// It waits for its response until this is dropped.
    pub awaiting: Awaiting<'a>,
    /// For how long it was held up on purpose, which is not the upstream's time.
    pub delayed: Duration,
}

impl<'a> Admission<'a, '_> {
    /// Admits it, after a wait if the policies say so.
    ///
    /// # Errors
    /// It is refused.
    pub(crate) async fn admit(&mut self) -> Result<Admitted<'a>, Refusal> {
        let target = &self.route.target;
        let (shared, policies) = (&target.shared, &target.upstream.policies);
        if target.upstream.protocol == Protocol::Tcp {
            let detail = without_requests(&target.upstream.name);
            return Err(LocalReply::new(Reason::NoRoute).with_detail(detail).into());
        }
        if self.may_be_borrowed() {
            let reply = LocalReply::new(Reason::AuthUnavailable);
            return Err(reply.with_detail(UNGUARDED).into());
        }
        if self.request.method() == Method::Trace && target.credential().is_some() {
            let reply = LocalReply::new(Reason::BadRequest).with_detail(TRACED);
            return Err(reply.into());
        }
        if self.route.is_circle() {
            let reply = LocalReply::new(Reason::Loop).with_detail(IN_A_CIRCLE);
            return Err(reply.into());
        }
        let in_flight = shared.requests.enter(policies.pool.max_requests);
        let in_flight = in_flight.ok_or(Reason::Overloaded)?;
        let awaiting = target.enter_awaiting(self.health);
        let awaiting = awaiting.ok_or(Reason::Overloaded)?;
        if let Some(settings) = &policies.rate_limit {
            self.take_turn(settings).await?;
        }
        self.context.pools.count_request(shared, self.now);
        let delayed = match &policies.fault {
            None => Duration::ZERO,
            Some(settings) => self.meet_faults(settings).await?,
        };
        // Whether its caller still waits.
        let is_over = |limit| self.now + limit <= ring::now();
        if self.timeout.limit().is_some_and(is_over) {
            return Err(Reason::RequestTimeout.into());
        }
        Ok(Admitted {
            in_flight,
            awaiting,
            delayed,
        })
    }

    /// Whether it came by a token that may be another's, and would be shown to its
    /// upstream as if it were not.
    #[inline(always)]
    fn may_be_borrowed(&self) -> bool {
        self.context.tokens.get() == Tokens::Borrowable
            && self.original.is_some()
            && self.route.target.upstream.has_credentials()
    }

    /// Waits for its turn, where requests have a rate.
    async fn take_turn(&mut self, settings: &rate_limit::Settings) -> Result<(), Refusal> {
        let target = &self.route.target;
        let policies = &target.upstream.policies;
        let patience = policies.timeouts.request.unwrap_or(policies.timeouts.idle);
        let limit = self.timeout.limit();
        let patience = limit.map_or(patience, |limit| limit.min(patience));
        match target.rate_limit().take(settings, patience, self.now) {
            Turn::Now => Ok(()),
            Turn::After(wait) => {
                self.detach();
                timer::sleep(wait).await;
                Ok(())
            }
            Turn::Refused(wait) => Err(LocalReply::new(Reason::RateLimited)
                .with_retry_after(wait)
                .into()),
        }
    }

    /// Injects faults, once for a request. Returns how long it was delayed.
    async fn meet_faults(
        &mut self,
        settings: &policy::fault::Settings,
    ) -> Result<Duration, Refusal> {
        let policies = &self.route.target.upstream.policies;
        let faults = fault::of_request(settings, self.request, self.head, self.original);
        if faults.delay.is_some() {
            self.detach();
        }
        let limits = [policies.timeouts.request, self.timeout.limit()];
        let limit = limits.into_iter().flatten().min();
        let until = limit.map(|limit| self.now + limit);
        let cells = &self.context.telemetry.cells;
        match fault::inject(cells, faults, until, &self.record.passage).await {
            Fate::Serve => Ok(faults.delay.unwrap_or_default()),
            Fate::Abort(status) => {
                let reply = LocalReply::new(Reason::FaultInjected);
                Err(reply.with_status(status).into())
            }
            Fate::Reset => Err(Refusal::Reset(Reason::FaultInjected)),
        }
    }

    /// Releases shared buffers, before a wait.
    fn detach(&mut self) {
        self.head.detach();
        self.recv.detach();
    }
}

/// What a caller is told who sends a request to an upstream of `protocol: tcp`.
fn without_requests(upstream: &str) -> String {
    format!(
        "the upstream {upstream} has protocol tcp, which has no requests: reach it by a tcp listener, or by a captured connection"
    )
}
