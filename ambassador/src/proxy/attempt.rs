//! One try of a request: a connection to the endpoint, an exchange over it, and
//! what is learnt from how that went.

use std::time::Duration;

use crate::addr::EndpointAddr;
use crate::clock::{self, Instant};
use crate::http::{BodyReader, ResponseHead, challenge};
use crate::policy::concurrency::Sample;
use crate::policy::retry::Cause;
use crate::policy::retry_after;
use crate::proxy::answer::{Answer, ExchangeError, Held, Response, Verdict};
use crate::proxy::asked::Asked;
use crate::proxy::bound::{self, Bound, Taken};
use crate::proxy::context::Context;
use crate::proxy::deadlines::Deadlines;
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::{Failure, Unanswered};
use crate::proxy::generation::{Awaiting, Target};
use crate::proxy::judges::{Body, Judges, Score, Stage};
use crate::proxy::progress::Progress;
use crate::proxy::race;
use crate::proxy::replay::Replay;
use crate::proxy::trailers::Trailers;
use crate::proxy::way::{Incoming, Way};
use crate::ring::{self, Chunk, Gather, timer};
use crate::telemetry::{AttemptOutcome, RequestRecord, RetryCause, UpstreamIndex};
use crate::transport::Transport;
use crate::upstream::balancer::Grade;
use crate::upstream::connection::{Connection, Tie};
use crate::upstream::dial::Namespace;
use crate::upstream::key::PoolKey;
use crate::upstream::pool::{Checkout, Lease, Want};

/// A request on its way to its upstream, over all its tries.
pub(crate) struct Sending<'a> {
    /// The shard's state.
    pub context: &'a Context,
    /// The client's socket.
    pub client: &'a Transport,
    /// Bytes of the client received before.
    pub ahead: &'a mut Option<Chunk>,
    /// The upstream connection that is the client's own.
    pub bound: &'a mut Bound,
    /// Which connections it may go over.
    pub lane: Lane,
    /// Where its upstream's sockets are made.
    pub namespace: Namespace,
    /// Where it goes.
    pub way: &'a Way,
    /// As it came.
    pub incoming: &'a Incoming<'a>,
    /// What decides about its response.
    pub asked: Asked,
    /// Where its body is.
    pub body: &'a mut BodyReader,
    /// Scratch for the response.
    pub response: &'a mut ResponseHead,
    /// What is told of it.
    pub record: &'a RequestRecord,
    /// What has happened so far.
    pub progress: &'a Progress<'a>,
    /// What of the body the next try sends along with the head; `None`: the
    /// request may have arrived, and must not a second time.
    pub outgoing: Option<Gather>,
    /// What is kept of the body that has been sent.
    pub replay: Replay,
    /// Until when it may wait.
    pub deadlines: &'a Deadlines<'a>,
    /// That it waits for its response; `None`: it does no more.
    pub awaiting: Option<Awaiting<'a>>,
}

/// Which connections a request may go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Any to its endpoint.
    Pool,
    /// The one on which its client has begun to authenticate.
    Bound,
}

/// How a try ended well.
pub(crate) enum Success {
    /// The client has been answered.
    Passed(Passed),
    /// There is a response, of which nothing has gone to the client.
    Held(Box<HeldBack>),
}

/// How a client was answered.
pub(crate) enum Passed {
    /// The response went to it whole.
    Complete {
        /// The client's connection may carry another request.
        keep_alive: bool,
        /// When the last of the response was handed to the client.
        ended: Instant,
    },
    /// The protocol was switched; what the upstream sent after its head.
    Switched(Box<Lease>, Option<Chunk>),
}

/// A response that may have to give way to that of another try.
pub(crate) struct HeldBack {
    pub(super) connection: Lease,
    pub(super) held: Held,
    /// When the request was handed to the kernel.
    pub(super) sent_at: Instant,
    /// Its status.
    pub status: u16,
    /// What it says of the upstream.
    pub(super) score: Option<Score>,
}

impl Sending<'_> {
    /// Makes one try. `may_hold`: a response whose status is one to try again for
    /// is held back. A reused connection that turns out to have been dead is
    /// replaced within the same try.
    pub(crate) async fn attempt(
        &mut self,
        judges: &mut Judges<'_>,
        may_hold: bool,
    ) -> Result<Success, Failure> {
        let endpoint = judges.endpoint.endpoint;
        let mut want = Want::Any;
        self.record.is_tried_at(endpoint);
        self.deadlines.begin_try(ring::now());
        let failure = loop {
            self.begin_try();
            let connection = match self.connection(endpoint, want).await {
                Ok(connection) => connection,
                Err(unanswered) => break Failure::Unanswered(unanswered),
            };
            self.follow(&connection, judges);
            let past = connection.past;
            let error = match self.exchange(connection, judges, may_hold).await {
                Ok(success) => return Ok(success),
                Err(error) => error,
            };
            let was_dead = past.has_stood_idle()
                && want == Want::Any
                && error.may_be_a_dead_connection(self.progress);
            let failure = self.fail(error);
            if was_dead && self.outgoing.is_some() {
                self.end_try(failure.outcome());
                let cells = &self.context.telemetry.cells;
                cells.retry(self.label(), RetryCause::Reset);
                want = Want::Fresh;
                continue;
            }
            break failure;
        };
        let upstream = &self.target().upstream.name;
        tracing::debug!(%upstream, %endpoint, ?failure, "try failed");
        self.end_try(failure.outcome());
        failure.report(self.target(), judges);
        Err(failure)
    }

    /// Tries that have begun.
    pub(crate) fn tries(&self) -> u16 {
        self.record.attempts.get()
    }

    /// Whether the request may be sent after that.
    pub(crate) fn can_send_again(&self, tried: &Result<Success, Failure>) -> bool {
        match tried {
            Ok(_) => self.replay.is_whole(),
            Err(_) => self.outgoing.is_some(),
        }
    }

    /// How long the upstream asks its callers to stay away.
    pub(crate) fn retry_after(&self, tried: &Result<Success, Failure>) -> Option<Duration> {
        let Ok(Success::Held(back)) = tried else {
            return None;
        };
        asked_wait(self.response, &back.held.head)
    }

    /// Sends the response that was held back on to the client, after all.
    pub(crate) async fn pass(&mut self, back: Box<HeldBack>) -> Result<Passed, Failure> {
        self.awaiting = None;
        let HeldBack {
            connection,
            held,
            sent_at,
            ..
        } = *back;
        self.progress.head_at.set(Some(ring::now()));
        match self.over(&connection).pass(held).await {
            Ok(passed) => Ok(self.passed(connection, passed, sent_at)),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Gives up a response that was held back, for another try. Its connection
    /// stays where all of it has come.
    pub(crate) fn give_way(&mut self, back: HeldBack) {
        self.outgoing = self.replay.again().map(Gather::from);
        let HeldBack {
            connection,
            mut held,
            ..
        } = back;
        let mut body = BodyReader::of_response(self.response.body());
        let mut rest = held.rest.take();
        let mut clean = self.response.keep_alive() && self.body.is_done();
        while clean
            && !body.is_done()
            && let Some(chunk) = rest.take().or_else(|| connection.stream.try_recv())
        {
            let progress = body.advance(&chunk);
            clean = progress.is_ok_and(|progress| progress.consumed == chunk.len());
        }
        if clean && body.is_done() && rest.is_none() {
            self.keep(connection);
        }
    }

    /// Keeps to the endpoint that a connection leads to: another address of the
    /// name may have been faster.
    fn follow(&mut self, connection: &Connection, judges: &mut Judges<'_>) {
        if connection.endpoint() != judges.endpoint.endpoint {
            race::follow(self.context, self.target(), judges, connection.key());
            self.record
                .passage
                .endpoint
                .set(Some(connection.endpoint()));
        }
    }

    /// Counts the beginning of a try.
    pub(super) fn begin_try(&mut self) {
        self.record.begin_try();
        self.progress.begin_try();
        let open = &self.progress.open_tries;
        open.set(open.get() + 1);
    }

    /// Counts the end of one.
    pub(super) fn end_try(&self, outcome: AttemptOutcome) {
        let open = &self.progress.open_tries;
        open.set(open.get().saturating_sub(1));
        self.context.telemetry.cells.attempt(self.label(), outcome);
    }

    /// Keeps a connection after a complete exchange: for this client where it has
    /// become its own, else for all.
    fn keep(&mut self, mut connection: Lease) -> bound::Held {
        match connection.tie {
            Tie::Free => {
                connection.complete();
                bound::Held::Well
            }
            Tie::Offered(_) | Tie::Begun(_) => self.bound.keep(connection),
        }
    }

    /// The client's own connection, else an idle one, else a new one.
    async fn connection(
        &mut self,
        endpoint: EndpointAddr,
        want: Want,
    ) -> Result<Lease, Unanswered> {
        let key = PoolKey::http1(self.namespace, endpoint);
        let (context, shared) = (self.context, &self.way.target.shared);
        let kept = match (self.bound.take(shared, key), self.lane) {
            (Taken::Live(connection), _) => Some(connection),
            (Taken::Nothing, Lane::Pool) => context.pools.take_idle(shared, key, want),
            (Taken::Lost, _) | (Taken::Nothing, Lane::Bound) => {
                self.outgoing = None;
                return Err(Unanswered::LOST);
            }
        };
        if let Some(connection) = kept {
            if connection.tie.has_begun() {
                self.lane = Lane::Bound;
            }
            if connection.past.is_reused() {
                context.telemetry.cells.pool_reuse(shared.label);
            }
            return Ok(connection);
        }
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.detach();
        }
        let peer = self.progress.peer();
        let checkout = Checkout { key, want, peer };
        connect(context, self.target(), checkout, self.deadlines).await
    }

    /// The head for `endpoint`, and what of the body goes along with it.
    fn encode(&mut self, endpoint: EndpointAddr) -> (Gather, usize) {
        let left = self.deadlines.left_for_caller(ring::now());
        let head = self.way.encode(self.incoming, endpoint, left);
        let head_bytes = head.len();
        let body = self.outgoing.take().unwrap_or_default();
        (body.behind(head), head_bytes)
    }

    /// One exchange over a connection.
    async fn exchange(
        &mut self,
        mut connection: Lease,
        judges: &mut Judges<'_>,
        may_hold: bool,
    ) -> Result<Success, ExchangeError> {
        let (context, target) = (self.context, &self.way.target);
        self.record.reused.set(connection.past.is_reused());
        let sent_at = clock::now();
        let mut awaiting = self.awaiting.take();
        // Whether it may have been given up before the request came.
        let may_be_stale =
            connection.past.has_stood_idle() && self.lane == Lane::Pool && self.replay.is_whole();
        context.pools.watch(&target.shared, &connection);
        let mut idle_limit = None;
        let waited = (self.deadlines, sent_at);
        let progress = self.progress;
        let rate = target.upstream.policies.timeouts.min_rate;
        let mut tie = connection.tie.presented(self.asked.presents);
        let judge = |response: &ResponseHead, head: &[u8]| {
            if may_be_stale && progress.is_unanswered() && response.is_idle_timeout() {
                return Verdict::Replace;
            }
            connection.is_answered(&target.shared);
            idle_limit = response.idle_limit();
            tie = tie.offered(challenge::offered(response, head));
            // Not where an interim response went to the client: it was answered.
            let may_hold = may_hold && progress.is_unanswered();
            let cause = Cause::Status(response.status());
            let holds = may_hold && is_cause(cause, target, judges);
            let (verdict, stage) = match holds {
                true => (Verdict::Hold, Stage::MayGiveWay),
                // A probe keeps others waiting.
                false if rate.is_some() && !judges.is_probe() => (Verdict::Pass, Stage::Streams),
                false => (Verdict::Pass, Stage::Last),
            };
            if !progress.withheld.is_long(ring::now) {
                judge(context, target, response, head, (judges, stage), waited);
            }
            if verdict == Verdict::Pass {
                // What streams for long does not keep others waiting.
                awaiting = None;
            }
            verdict
        };
        let (outgoing, head_bytes) = self.encode(connection.endpoint());
        let exchanged = self.over(&connection).run(outgoing, judge).await;
        self.awaiting = awaiting;
        if rate.is_some() {
            let body = match exchanged {
                Err(ExchangeError::SlowResponse) => Body::TooSlow,
                _ => Body::Came,
            };
            judges.settle(body, &target.upstream.policies.outlier, ring::now());
        }
        let answer = exchanged.map_err(|error| error.behind_head(head_bytes))?;
        connection.tie = tie;
        connection.set_idle_limit(idle_limit);
        self.end_try(AttemptOutcome::Response);
        Ok(match answer {
            Answer::Passed(response) => Success::Passed(self.passed(connection, response, sent_at)),
            Answer::Held(mut held) => {
                let score = score_of(target, self.response, &held.head);
                let score = score.filter(|_| !self.progress.withheld.is_long(ring::now));
                held.detach();
                Success::Held(Box::new(HeldBack {
                    connection,
                    held,
                    sent_at,
                    status: self.response.status(),
                    score,
                }))
            }
        })
    }

    fn over<'b>(&'b mut self, connection: &'b Connection) -> Exchange<'b> {
        Exchange {
            client: self.client,
            ahead: self.ahead,
            upstream: &connection.stream,
            asked: self.asked,
            body: self.body,
            trailers: Trailers {
                way: self.way,
                incoming: self.incoming,
            },
            head: self.response,
            replay: &mut self.replay,
            limits: &self.context.head_limits,
            deadlines: self.deadlines,
            drain: &self.context.drain,
            cells: &self.context.telemetry.cells,
            progress: self.progress,
        }
    }

    /// What comes after a response went to the client.
    fn passed(&mut self, connection: Lease, response: Response, sent_at: Instant) -> Passed {
        self.note_overhead(sent_at);
        match response {
            Response::Complete {
                reusable,
                keep_alive,
                ended,
            } => {
                let held = match (reusable, connection.tie.has_begun()) {
                    (true, _) => self.keep(connection),
                    (false, true) => bound::Held::Lost,
                    (false, false) => bound::Held::Well,
                };
                Passed::Complete {
                    // The client is to see that its own connection has ended.
                    keep_alive: keep_alive && held == bound::Held::Well,
                    ended,
                }
            }
            Response::Switched(upstream_first) => {
                Passed::Switched(Box::new(connection), upstream_first)
            }
        }
    }

    /// What failed, and what may be sent again after it.
    fn fail(&mut self, error: ExchangeError) -> Failure {
        self.outgoing = match self.progress.is_unanswered() {
            true => self.replay.again().map(Gather::from),
            // An interim response went to the client: the request has arrived.
            false => None,
        };
        let failure = match error {
            ExchangeError::Unsent(body) => {
                self.outgoing = Some(*body);
                Failure::Unanswered(Unanswered::RESET)
            }
            error => Failure::of(&error),
        };
        let failure = match self.progress.withheld.is_long(ring::now) {
            true => failure.of_the_caller(),
            false => failure,
        };
        if self.lane == Lane::Bound {
            // No other connection can stand in for the one that is gone.
            self.outgoing = None;
        }
        failure
    }

    fn note_overhead(&mut self, sent_at: Instant) {
        let started = self.record.passage.started;
        let before = sent_at.saturating_duration_since(started);
        let progress = self.progress;
        let after = match (progress.head_at.get(), progress.forwarded_at.get()) {
            // The shard's clock stands while a turn lasts.
            (Some(head_at), Some(forwarded_at)) => {
                forwarded_at.saturating_duration_since(head_at.max(sent_at))
            }
            _ => Duration::ZERO,
        };
        self.record.overhead.set(before + after);
    }

    pub(super) fn target(&self) -> &Target {
        &self.way.target
    }

    pub(super) fn label(&self) -> UpstreamIndex {
        self.way.target.shared.label
    }
}

/// What of a try's end is a cause of another one.
pub(crate) fn cause(
    tried: &Result<Success, Failure>,
    target: &Target,
    judges: &Judges<'_>,
) -> Option<Cause> {
    let cause = match tried {
        Ok(Success::Held(back)) => back.score.map(|_| Cause::Status(back.status)),
        Err(Failure::Unanswered(unanswered)) => unanswered.cause,
        Ok(Success::Passed(_)) | Err(_) => None,
    };
    cause.filter(|cause| is_cause(*cause, target, judges))
}

/// Whether this is one to try again for: in any case, or because the endpoint
/// got wrong what another one may get right.
fn is_cause(cause: Cause, target: &Target, judges: &Judges<'_>) -> bool {
    let policies = &target.upstream.policies;
    let is_endpoints = match cause {
        Cause::Status(status) => policies.circuit_breaker.failure_statuses.contains(status),
        Cause::Malformed => true,
        Cause::ConnectFailure | Cause::Reset | Cause::TryTimeout => false,
    };
    let may_be_better = || judges.endpoint.has_well_alternative();
    policies.retry.applies_to(cause) || is_endpoints && policies.retry.elsewhere && may_be_better()
}

/// What the breaker is told of a request of which this was the last try, where
/// it was not told; `None`: nothing.
pub(crate) fn score(tried: &Result<Success, Failure>) -> Option<Score> {
    match tried {
        Ok(Success::Held(back)) => back.score,
        Ok(Success::Passed(_)) => None,
        Err(failure) => failure.score(),
    }
}

/// What a response says of the upstream; `None`: nothing, and no other try would
/// go better. A caller may have said how many proxies its request has come
/// through.
pub(super) fn score_of(target: &Target, response: &ResponseHead, head: &[u8]) -> Option<Score> {
    let failures = &target.upstream.policies.circuit_breaker.failure_statuses;
    match failures.contains(response.status()) {
        _ if response.is_of_a_circle(head) => None,
        true => Some(Score::Failure),
        false => Some(Score::Success),
    }
}

/// A connection: an idle one, else a new one, within the limits of the try.
pub(super) async fn connect(
    context: &Context,
    target: &Target,
    checkout: Checkout,
    deadlines: &Deadlines<'_>,
) -> Result<Lease, Unanswered> {
    let checkout = race::checkout(context, target, checkout);
    let checked_out = match deadlines.of_checkout() {
        None => checkout.await,
        Some((until, limit)) => match timer::timeout_at(until, checkout).await {
            Ok(checked_out) => checked_out,
            Err(_) => return Err(Unanswered::expired(limit)),
        },
    };
    let connection = checked_out.map_err(|error| Unanswered::without_connection(&error))?;
    if connection.past.is_reused() {
        context.telemetry.cells.pool_reuse(target.shared.label);
    }
    Ok(connection)
}

/// Tells endpoint and breaker of a response. They go by its head: a body may
/// take for ever.
pub(super) fn judge(
    context: &Context,
    target: &Target,
    response: &ResponseHead,
    head: &[u8],
    (judges, stage): (&mut Judges<'_>, Stage),
    (deadlines, sent_at): (&Deadlines<'_>, Instant),
) {
    let policies = &target.upstream.policies;
    let (status, now) = (response.status(), ring::now());
    let Some(score) = score_of(target, response, head) else {
        return;
    };
    // Failures and refusals may come faster than answers do.
    if policies.concurrency.adaptive
        && score == Score::Success
        && status != 429
        && let Some(waited) = deadlines.waited(now)
    {
        target.report_load(judges.reputation, Sample::Answered(waited), now);
    }
    let took = now.saturating_duration_since(sent_at);
    let pools = &context.pools;
    pools.record_latency(&target.shared, &policies.hedge, took);
    let asks = matches!(status, 429 | 500..=599);
    let retry_after = asks.then(|| asked_wait(response, head)).flatten();
    let how = (score, Grade::of_status(status, retry_after));
    judges.tell(how, stage, &policies.outlier, now);
}

/// What a response says of when to come back.
fn asked_wait(response: &ResponseHead, head: &[u8]) -> Option<Duration> {
    let field = response.fields().value(head, "retry-after")?;
    retry_after::parse(field, clock::wall())
}
