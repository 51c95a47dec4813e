//! The tries of a request, or of a connection without requests.

use crate::addr::EndpointAddr;
use crate::clock;
use crate::message::Reason;
use crate::policy::retry::{NextEndpoint, Resend, RetryCost, RetryDecision, RetryInput};
use crate::proxy::attempt::{Admitted, Try};
use crate::proxy::context::Context;
use crate::proxy::generation::Target;
use crate::proxy::pick::{self, Criteria};
use crate::ring::{self, timer};
use crate::telemetry::{Decision, Journal, RetryCause, Rule};
use crate::upstream::balancer::Pick;
use crate::upstream::health::UpstreamHealth;

/// The tries of one request, and the endpoints they went to.
pub(crate) struct Tries<'a> {
    context: &'a Context,
    target: &'a Target,
    health: &'a UpstreamHealth,
    criteria: Criteria<'static>,
    tried: Vec<EndpointAddr>,
    journal: &'a Journal,
}

/// Why no other try follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TriesEnd {
    /// None is due: the last result stands.
    Done,
    /// It was refused: the circuit is open, or the budget is used up.
    By(Reason),
}

impl TriesEnd {
    /// The reason for the caller, if any.
    pub(crate) fn reason(self) -> Option<Reason> {
        match self {
            Self::Done => None,
            Self::By(reason) => Some(reason),
        }
    }
}

/// The cause of a second try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecondTryCause {
    /// The first has no final response yet (`hedge`).
    Slow,
    /// Nothing of a response has come (`retry.elsewhere`).
    Silent,
}

impl SecondTryCause {
    /// Its label in metrics.
    pub(crate) fn cause(self) -> RetryCause {
        match self {
            Self::Slow => RetryCause::Hedge,
            Self::Silent => RetryCause::Silence,
        }
    }
}

impl<'a> Tries<'a> {
    /// No try was made yet.
    pub(crate) fn new(
        context: &'a Context,
        target: &'a Target,
        health: &'a UpstreamHealth,
        criteria: Criteria<'static>,
        journal: &'a Journal,
    ) -> Self {
        Self {
            context,
            target,
            health,
            criteria,
            tried: Vec::new(),
            journal,
        }
    }

    /// Begins the first try.
    ///
    /// # Errors
    /// `circuit-open` and `no-endpoint`.
    #[inline(always)]
    pub(crate) fn begin(&mut self) -> Result<Try<'a>, Reason> {
        let (context, journal) = (self.context, self.journal);
        Try::first(
            context,
            self.target,
            self.health,
            &mut self.criteria,
            journal,
        )
    }

    /// Picks the endpoint of a second try beside the one at `busy`, and takes its
    /// budget; `None`: the budget is used up, or no endpoint is better.
    pub(crate) fn pick_beside(&self, busy: &[EndpointAddr], why: SecondTryCause) -> Option<Pick> {
        let (shared, policies) = (&self.target.shared, &self.target.upstream.policies);
        let (pools, now) = (&self.context.pools, ring::now());
        let picked = self.pick(busy)?;
        let grant = || match why {
            SecondTryCause::Silent => {
                let budget = &policies.retry.budget;
                shared.retry_budget.withdraw(budget, now)
            }
            SecondTryCause::Slow => {
                let budget = policies.hedge.budget();
                shared.hedge_budget.withdraw(&budget, now)
            }
        };
        let is_worse = busy.contains(&picked.endpoint) || !picked.has_well_alternative();
        if why == SecondTryCause::Silent && is_worse {
            return None;
        }
        pools.report_requests(shared, now);
        grant().then_some(picked)
    }

    fn pick(&self, tried: &[EndpointAddr]) -> Option<Pick> {
        let criteria = Criteria {
            tried,
            ..self.criteria
        };
        pick::pick(&self.context.pools, self.target, &criteria)
    }

    /// The largest number of tries.
    pub(crate) fn most(&self) -> u16 {
        self.target.upstream.policies.retry.attempts
    }

    /// The endpoint of a try that follows this one.
    pub(crate) fn place_after(&self, one: &Try<'_>) -> NextEndpoint {
        match self.tried.is_empty() && one.has_alternatives() {
            true => NextEndpoint::AnotherFirst,
            false => NextEndpoint::Any,
        }
    }

    /// Decides whether another try follows, waits for its moment, and chooses its
    /// endpoint.
    ///
    /// # Errors
    /// No other one follows.
    pub(crate) async fn next(
        &mut self,
        one: &mut Try<'a>,
        input: RetryInput,
    ) -> Result<(), TriesEnd> {
        let (shared, policies) = (&self.target.shared, &self.target.upstream.policies);
        let now = ring::now();
        let refuses_at = |then| self.health.breaker.refuses_at(then);
        let next = policies
            .retry
            .next(&input, refuses_at, now, clock::random_u64);
        let (wait, cost) = match next {
            RetryDecision::Stop => {
                let rule = match input.resend {
                    Resend::Allowed => Rule::Deadline,
                    Resend::Forbidden => Rule::Attempts,
                };
                return Err(self.stop(rule, TriesEnd::Done));
            }
            RetryDecision::CircuitOpen => return Err(self.circuit_open()),
            RetryDecision::Again { wait, cost } => (wait, cost),
        };
        self.context.pools.report_requests(shared, now);
        let budget = &policies.retry.budget;
        if cost == RetryCost::Budget && !shared.retry_budget.withdraw(budget, now) {
            let end = TriesEnd::By(Reason::RetryBudget);
            return Err(self.stop(Rule::Budget, end));
        }
        let (cells, cause) = (&self.context.telemetry.cells, input.cause.into());
        cells.retry(shared.label, cause);
        self.journal.decided(Decision::Again { cause, wait });
        if !wait.is_zero() {
            timer::sleep(wait).await;
        }

        // Time may have run out meanwhile, or the upstream was given up, or become another.
        let is_late = input.deadline.is_some_and(|until| until <= ring::now());
        if is_late {
            return Err(self.stop(Rule::Deadline, TriesEnd::Done));
        }
        if self.target.is_outgrown() {
            return Err(self.stop(Rule::Reload, TriesEnd::Done));
        }
        if one.admit_again() == Admitted::No {
            return Err(self.circuit_open());
        }
        self.tried.push(one.endpoint());
        if let Some(next) = self.pick(&self.tried) {
            one.move_to(next);
        }
        Ok(())
    }

    fn circuit_open(&self) -> TriesEnd {
        let end = TriesEnd::By(Reason::CircuitOpen);
        self.stop(Rule::CircuitBreaker, end)
    }

    /// Tells the journal why no other one follows.
    pub(crate) fn stop(&self, rule: Rule, end: TriesEnd) -> TriesEnd {
        self.journal.decided(Decision::Stop(rule));
        end
    }
}
