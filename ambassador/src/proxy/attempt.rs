//! One try: the endpoint that it goes to, and what is learnt from how it goes.
//!
//! Two learn from it: the endpoint, and the circuit breaker of the upstream. With
//! one endpoint every try speaks for the upstream. With several, what one endpoint
//! gets wrong and another makes good is that endpoint's failure alone: the breaker
//! counts each request once, by its last try.

mod course;
mod stage;

use std::time::Duration;

use crate::addr::EndpointAddr;
use crate::clock::{self, Instant};
use crate::message::Reason;
use crate::policy::breaker::{State, Trial};
use crate::policy::concurrency::Sample;
use crate::policy::retry::Cause;
use crate::proxy::caller::Caller;
use crate::proxy::context::Context;
use crate::proxy::deadlines::Deadline;
use crate::proxy::failure::{Failure, Fault, Unanswered};
use crate::proxy::generation::Target;
use crate::proxy::pick::{self, Criteria};
use crate::proxy::race;
use crate::proxy::verdict::{Answer, Score, Verdict};
use crate::ring::{self, timer};
use crate::telemetry::{AttemptOutcome, Journal, Step};
use crate::upstream::balancer::{Grade, Pick, PickInput, Probe};
use crate::upstream::health::UpstreamHealth;
use crate::upstream::key::{Identity, PoolKey};
use crate::upstream::pool::{Checkout, ConnectionUse, Freshness, Leased};
use course::Course;
use stage::Counts;
pub(crate) use stage::{Admitted, Body, Stage};

/// A try at one endpoint, which is busy until this is dropped. Dropped before its
/// end it is abandoned: it is counted as cancelled, and nobody learns from it.
pub(crate) struct Try<'a> {
    context: &'a Context,
    target: &'a Target,
    health: &'a UpstreamHealth,
    picked: Pick,
    /// `None`: the breaker was told.
    trial: Option<Trial<'a>>,
    counts: Counts,
    /// A success that counts once the body has come in time, as of its head.
    put_off: Option<(Grade, Instant)>,
    /// It has begun, and its end was not counted.
    is_open: bool,
    /// When the request was last handed to the kernel.
    pub sent_at: Instant,
    /// What its request tells of it.
    journal: &'a Journal,
    course: Course,
}

impl<'a> Try<'a> {
    /// The first try of a request or connection. Says in `criteria` whether it and
    /// those after it may be the probe of an endpoint.
    ///
    /// # Errors
    /// `circuit-open` and `no-endpoint`.
    #[inline(always)]
    pub(crate) fn first(
        context: &'a Context,
        target: &'a Target,
        health: &'a UpstreamHealth,
        criteria: &mut Criteria<'_>,
        journal: &'a Journal,
    ) -> Result<Self, Reason> {
        let settings = &target.upstream.policies.circuit_breaker;
        let breaker = &health.breaker;
        let now = ring::now();
        let Some(trial) = breaker.admit(settings, context.shard, now) else {
            return Err(Reason::CircuitOpen);
        };
        criteria.probe = Probe::beside(&trial);
        let Some(picked) = pick::pick(&context.pools, target, criteria) else {
            return Err(Reason::NoEndpoint);
        };
        let counts = match picked.has_alternatives() {
            true => Counts::Requests,
            false => Counts::Tries,
        };
        Ok(Self {
            context,
            target,
            health,
            picked,
            trial: Some(trial),
            counts,
            put_off: None,
            is_open: false,
            sent_at: now,
            journal,
            course: Course::new(now),
        })
    }

    /// A second one beside another one, as its request may be in two places;
    /// `None`: the circuit is not closed. Unless every try counts for it, the
    /// breaker learns nothing of this one.
    pub(crate) fn second<P: FnOnce() -> Option<Pick>>(
        &self,
        picked: P,
    ) -> impl FnOnce() -> Option<Self> + use<'a, P> {
        let (context, target, health) = (self.context, self.target, self.health);
        let (counts, journal) = (self.counts, self.journal);
        move || {
            if health.breaker.state() != State::Closed {
                return None;
            }
            let picked = picked()?;
            let settings = &target.upstream.policies.circuit_breaker;
            let admit = || {
                let breaker = &health.breaker;
                breaker.admit(settings, context.shard, ring::now())
            };
            let trial = match counts {
                Counts::Tries => Some(admit()?),
                Counts::Requests => None,
            };
            Some(Self {
                context,
                target,
                health,
                picked,
                trial,
                counts: Counts::Tries,
                put_off: None,
                is_open: false,
                sent_at: ring::now(),
                journal,
                course: Course::new(ring::now()),
            })
        }
    }

    /// Where it goes.
    pub(crate) fn endpoint(&self) -> EndpointAddr {
        self.picked.endpoint
    }

    /// Whether there is another endpoint.
    pub(crate) fn has_alternatives(&self) -> bool {
        self.picked.has_alternatives()
    }

    /// Whether the request is the probe of a half-open breaker.
    pub(crate) fn is_probe(&self) -> bool {
        self.trial.as_ref().is_some_and(Trial::is_probe)
    }

    /// Whether another try may follow, as far as the breaker goes. The probe of
    /// an upstream with one endpoint is one try.
    pub(crate) fn may_be_repeated(&self) -> bool {
        self.counts == Counts::Requests || !self.is_probe()
    }

    /// Whether this is a cause to try again: in any case, or because this endpoint
    /// got wrong what another one may get right.
    #[inline(always)]
    pub(crate) fn is_cause(&self, cause: Cause) -> bool {
        let policies = &self.target.upstream.policies;
        let is_endpoints = match cause {
            Cause::Status(status) => policies.circuit_breaker.failure_statuses.contains(status),
            Cause::Code(code) => policies.circuit_breaker.failure_codes.contains(code),
            Cause::Malformed => true,
            Cause::ConnectFailure | Cause::Reset | Cause::TryTimeout => false,
        };
        let may_be_better = || self.picked.has_well_alternative();
        policies.retry.applies_to(cause)
            || is_endpoints && policies.retry.elsewhere && may_be_better()
    }

    /// Whether it has begun, and not ended.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Begins.
    pub(crate) fn begin(&mut self) {
        self.is_open = true;
        if self.journal.is_kept() {
            self.begin_again();
        }
    }

    /// The course of another one begins. The shard's clock stands while a turn lasts, and
    /// the last step was in it.
    #[cold]
    fn begin_again(&mut self) {
        self.course = Course::new(clock::now());
    }

    /// Its request is sent now, over a connection that has carried one before or has
    /// not.
    #[inline(always)]
    pub(crate) fn is_sent(&mut self, past: ConnectionUse) {
        self.sent_at = clock::now();
        self.course.is_sent = true;
        self.course.reused = past.is_reused();
    }

    /// Whether its end is one that somebody may ask about.
    #[inline(always)]
    pub(crate) fn is_told_of(&self) -> bool {
        self.course.is_notable
    }

    /// It is told of however it ends: another one follows.
    pub(crate) fn is_notable(&mut self) {
        self.course.is_notable = true;
    }

    /// A connection to the endpoint, by `until`: an idle one, else a new one. Goes
    /// on with the endpoint that the connection leads to, where another address of
    /// the name was faster.
    pub(crate) async fn reach(
        &mut self,
        caller: Caller<'_>,
        freshness: Freshness,
        until: Option<Deadline>,
    ) -> Result<Leased, Unanswered> {
        if self.target.is_outgrown() {
            return Err(Unanswered::OUTGROWN);
        }
        let server = caller.server;
        let identity = server.map_or(Identity::ANONYMOUS, |server| server.identity);
        let checkout = Checkout {
            key: PoolKey::new(caller.protocol, caller.namespace, self.endpoint(), identity),
            freshness,
            peer: caller.peer,
            server_name: server.and_then(|server| server.name.as_ref()),
        };
        let checkout = race::checkout(self.context, self.target, checkout);
        let checked_out = match until {
            None => checkout.await,
            Some(Deadline { at, limit }) => match timer::timeout_at(at, checkout).await {
                Ok(checked_out) => checked_out,
                Err(_) => return Err(Unanswered::expired(limit)),
            },
        };
        let leased = checked_out.map_err(|error| Unanswered::without_connection(&error))?;
        if leased.past().is_reused() {
            let label = self.target.shared.label;
            self.context.telemetry.cells.pool_reuse(label);
        }
        if leased.key().endpoint != self.endpoint() {
            self.follow(leased.key());
        }
        Ok(leased)
    }

    /// Tells the endpoint that another one was faster by so much that it counts as
    /// a failed connect, and goes on with that one.
    fn follow(&mut self, winner: PoolKey) {
        let now = ring::now();
        let policies = &self.target.upstream.policies;
        let bad = Grade::Bad { retry_after: None };
        self.picked.ended(bad, &policies.outlier, now);
        let input = PickInput {
            load_balancing: &policies.load_balancing,
            key: None,
            tried: &[],
            probe: Probe::Avoided,
            random: &clock::random_u64,
            now,
        };
        let list = self.target.list_for(winner.namespace);
        let (pools, shared) = (&self.context.pools, &self.target.shared);
        self.picked = pools.pick_bound(shared, list, winner.endpoint, &input);
    }

    /// Asks the breaker for another try.
    pub(crate) fn admit_again(&mut self) -> Admitted {
        let breaker = &self.health.breaker;
        let settings = &self.target.upstream.policies.circuit_breaker;
        let admitted = match self.counts {
            Counts::Tries => {
                self.trial = breaker.admit(settings, self.context.shard, ring::now());
                self.trial.is_some()
            }
            Counts::Requests => self.is_probe() || breaker.state() == State::Closed,
        };
        match admitted {
            true => Admitted::Yes,
            false => Admitted::No,
        }
    }

    /// The next one goes there.
    pub(crate) fn move_to(&mut self, picked: Pick) {
        self.picked = picked;
    }

    /// Of two, the other one is the one that counts.
    pub(crate) fn give_way_to(&mut self, mut other: Self) {
        if self.is_open {
            self.end(AttemptOutcome::Cancelled);
        }
        std::mem::swap(&mut self.picked, &mut other.picked);
        self.is_open = std::mem::take(&mut other.is_open);
        self.sent_at = other.sent_at;
        self.course = other.course;
        if other.trial.is_some() {
            self.trial = other.trial.take();
        }
    }

    /// Counts how it has ended.
    #[inline(always)]
    pub(crate) fn end(&mut self, outcome: AttemptOutcome) {
        self.is_open = false;
        let label = self.target.shared.label;
        self.context.telemetry.cells.attempt(label, outcome);
        let went_badly = outcome != AttemptOutcome::Response;
        if went_badly || self.course.is_notable || self.journal.is_kept() {
            self.note(outcome);
        }
    }

    /// Tells the journal.
    #[cold]
    fn note(&self, outcome: AttemptOutcome) {
        let step = self.course.ended(self.endpoint(), self.sent_at, outcome);
        self.journal.add(Step::Try(step));
    }

    /// Learns from the head of a response; a body may take for ever. `waited`: for
    /// how long, since the whole request was there.
    pub(crate) fn is_answered(
        &mut self,
        answer: Answer<'_>,
        stage: Stage,
        waited: Option<Duration>,
    ) {
        let policies = &self.target.upstream.policies;
        let now = ring::now();
        self.course.head = Some((now, answer.response.status()));
        let Some(score) = self.score_of(answer) else {
            return;
        };
        self.course.is_notable |= score == Score::Failure;
        // Failures and refusals may come faster than answers do.
        if policies.concurrency.adaptive
            && score == Score::Success
            && !answer.verdict.is_throttled()
            && let Some(waited) = waited
        {
            let sample = Sample::Answered(waited);
            self.target.report_load(self.health, sample, now);
        }
        let took = now.saturating_duration_since(self.sent_at);
        let pools = &self.context.pools;
        pools.record_latency(&self.target.shared, &policies.hedge, took);
        let grade = answer.verdict.grade(score, None);
        let grade = match grade {
            Grade::Good => grade,
            Grade::Throttled { .. } | Grade::Bad { .. } => {
                answer.verdict.grade(score, answer.retry_after())
            }
        };
        self.tell(score, grade, stage);
    }

    /// Learns from a failure, and counts it. Only what has no response says
    /// anything of endpoint and breaker. Whether another try follows is another
    /// matter.
    pub(crate) fn has_failed(&mut self, failure: &Failure) {
        let upstream = &self.target.upstream.name;
        let endpoint = self.picked.endpoint;
        tracing::debug!(%upstream, %endpoint, ?failure, "try failed");
        if self.is_open {
            self.end(failure.outcome());
        }
        let Failure::Unanswered(unanswered) = failure else {
            return;
        };
        // Nothing came in time, or there was no place for it.
        if unanswered.is_dropped() {
            self.target
                .report_load(self.health, Sample::Dropped, ring::now());
        }
        if unanswered.fault == Fault::Endpoint {
            let bad = Grade::Bad { retry_after: None };
            self.tell(Score::Failure, bad, Stage::MayGiveWay);
        }
    }

    /// A connection for opaque bytes has come about, which is all that can be
    /// known of how well the upstream is.
    pub(crate) fn is_relayed(&mut self) {
        self.tell(Score::Success, Grade::Good, Stage::Last);
    }

    /// Learns what became of a body that it waited for.
    pub(crate) fn settle(&mut self, body: Body) {
        let Some((grade, at)) = self.put_off.take() else {
            return;
        };
        let policies = &self.target.upstream.policies;
        let score = match body {
            Body::Came => Some(Score::Success),
            Body::Failed => Some(Score::Failure),
            Body::Ended(end) => end.score(&policies.circuit_breaker),
        };
        match score {
            Some(Score::Success) => {
                self.picked.ended(grade, &policies.outlier, at);
                self.tell_breaker(Score::Success, at);
            }
            Some(Score::Failure) => {
                self.course.is_notable = true;
                let bad = Grade::Bad { retry_after: None };
                self.tell(Score::Failure, bad, Stage::Last);
            }
            None => {}
        }
    }

    /// It was the last one of its request: tells the breaker, unless it was told.
    pub(crate) fn conclude(&mut self, score: Option<Score>) {
        if let Some(score) = score {
            self.tell_breaker(score, ring::now());
        }
    }

    /// What a response says of the upstream; `None`: nothing, and no other try
    /// would go better.
    #[inline(always)]
    pub(crate) fn score_of(&self, answer: Answer<'_>) -> Option<Score> {
        answer.score(&self.target.upstream.policies.circuit_breaker)
    }

    /// What of a response is a cause of another try; `None`: nothing.
    #[inline(always)]
    pub(crate) fn cause_in(&self, answer: Answer<'_>) -> Option<Cause> {
        let cause = match answer.verdict {
            Verdict::Status(status) => Cause::Status(status),
            verdict => self.cause_in_call(verdict)?,
        };
        let says_something = || self.score_of(answer).is_some();
        (self.is_cause(cause) && says_something()).then_some(cause)
    }

    #[inline(never)]
    fn cause_in_call(&self, verdict: Verdict) -> Option<Cause> {
        let causes = verdict.causes().into_iter().flatten();
        causes.into_iter().find(|cause| self.is_cause(*cause))
    }

    /// Leaves the endpoint, which is busy as long as it is kept.
    pub(crate) fn into_pick(mut self) -> Pick {
        let nobody = Pick::unwatched(self.endpoint());
        std::mem::replace(&mut self.picked, nobody)
    }

    /// Tells endpoint and breaker.
    #[inline(always)]
    fn tell(&mut self, score: Score, grade: Grade, stage: Stage) {
        let now = ring::now();
        if stage == Stage::Streams && score == Score::Success {
            self.put_off = Some((grade, now));
            return;
        }
        let settings = &self.target.upstream.policies.outlier;
        self.picked.ended(grade, settings, now);
        if stage != Stage::MayGiveWay || self.counts == Counts::Tries {
            self.tell_breaker(score, now);
        }
    }

    /// Tells the breaker how the request went, unless it was told. What an
    /// endpoint gets wrong that is out, or went out by it, says nothing of the
    /// upstream while another one is well.
    #[inline(always)]
    fn tell_breaker(&mut self, score: Score, now: Instant) {
        if let Some(trial) = self.trial.take() {
            match score {
                Score::Success => trial.succeeded(now),
                // One bad part is not the whole: another would have served it.
                Score::Failure if self.picked.has_well_alternative() => {
                    trial.failed_in_part(now);
                }
                Score::Failure => trial.failed(now),
            }
        }
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.end(AttemptOutcome::Cancelled);
        }
    }
}
