//! One try of a request: a connection to the endpoint, an exchange over it, and
//! what is learnt from how that went.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::addr::EndpointAddr;
use crate::clock;
use crate::http::{BodyReader, ResponseHead, challenge};
use crate::policy::breaker::Trial;
use crate::policy::concurrency::Sample;
use crate::policy::retry::{Cause, Retry};
use crate::policy::retry_after;
use crate::proxy::bound::{self, Taken};
use crate::proxy::client::Client;
use crate::proxy::context::Context;
use crate::proxy::deadlines::{Deadlines, Limit};
use crate::proxy::exchange::{
    Answer, Asked, Exchange, ExchangeError, Held, Response, Seen, Verdict,
};
use crate::proxy::failure::{Failure, Unanswered};
use crate::proxy::generation::{Awaiting, Target};
use crate::proxy::replay::Replay;
use crate::ring::{self, Chunk, Gather, timer};
use crate::telemetry::{AttemptOutcome, Direction, RequestGuard, UpstreamIndex};
use crate::upstream::balancer::{Grade, Picked};
use crate::upstream::connection::{Connection, Place, Tie};
use crate::upstream::pool::Want;

/// A request on its way to its upstream, over all its tries.
pub struct Sending<'a> {
    /// Whose request it is.
    pub client: &'a mut Client,
    /// Where it goes.
    pub target: &'a Target,
    /// What decides about its response.
    pub asked: Asked,
    /// Where its body is.
    pub body: &'a mut BodyReader,
    /// Scratch for the response.
    pub response: &'a mut ResponseHead,
    /// What is told of it.
    pub record: &'a mut RequestGuard,
    /// What the next try sends first; `None`: it may have arrived, and must not
    /// a second time.
    pub outgoing: Option<Gather>,
    /// What is kept of what has been sent.
    pub replay: Replay,
    /// Until when it may wait.
    pub deadlines: &'a Deadlines,
    /// That it waits for its response; `None`: it does no more.
    pub awaiting: Option<Awaiting<'a>>,
    /// Which connections it may go over.
    pub lane: Lane,
}

/// Which connections a request may go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Any to its endpoint.
    Pool,
    /// The one on which its client has begun to authenticate.
    Bound,
}

/// How a try ended well.
pub enum Success {
    /// The client has been answered.
    Passed(Passed),
    /// There is a response, of which nothing has gone to the client.
    Held(HeldBack),
}

/// How a client was answered.
pub enum Passed {
    /// The response went to it whole.
    Complete {
        /// The client's connection may carry another request.
        keep_alive: bool,
        /// When the last of the response was handed to the client.
        ended: Instant,
    },
    /// The protocol was switched; what the upstream sent after its head.
    Switched(Connection, Option<Chunk>),
}

/// A response that may have to give way to that of another try.
pub struct HeldBack {
    pub(super) connection: Connection,
    pub(super) held: Held,
    /// When the request was handed to the kernel.
    pub(super) sent_at: Instant,
    /// Its status.
    pub status: u16,
}

impl Sending<'_> {
    /// Makes one try. `may_hold`: a response whose status is one to try again for
    /// is held back. A reused connection that turns out to have been dead is
    /// replaced within the same try.
    pub async fn attempt(
        &mut self,
        picked: &mut Picked,
        trial: Trial<'_>,
        may_hold: bool,
    ) -> Result<Success, Failure> {
        let context = Rc::clone(&self.client.context);
        let endpoint = picked.endpoint;
        let mut trial = Some(trial);
        let mut want = Want::Any;
        self.record.passage.endpoint = Some(endpoint);
        self.deadlines.begin_try(ring::now());
        let failure = loop {
            self.record.attempts += 1;
            let connection = match self.connection(&context, endpoint, want).await {
                Ok(connection) => connection,
                Err(unanswered) => break Failure::Unanswered(unanswered),
            };
            let (past, seen) = (connection.past, Seen::default());
            let error = match self
                .exchange(&context, connection, &seen, (picked, &mut trial), may_hold)
                .await
            {
                Ok(success) => return Ok(success),
                Err(error) => error,
            };
            self.note(&seen);
            let was_dead =
                past.has_stood_idle() && want == Want::Any && error.may_be_a_dead_connection(&seen);
            let failure = self.fail(error, &seen);
            if was_dead && self.outgoing.is_some() {
                context
                    .telemetry
                    .cells
                    .attempt(self.label(), failure.outcome());
                let cause = Cause::Reset.as_str();
                context.telemetry.cells.retry(self.label(), cause);
                want = Want::Fresh;
                continue;
            }
            break failure;
        };
        tracing::debug!(upstream = %self.target.upstream.name, %endpoint, ?failure, "try failed");
        context
            .telemetry
            .cells
            .attempt(self.label(), failure.outcome());
        // None: it was judged by a response that was cut then.
        if let Some(trial) = trial {
            failure.report(self.target, picked, trial);
        }
        Err(failure)
    }

    /// Whether the request may be sent after that.
    pub fn can_send_again(&self, tried: &Result<Success, Failure>) -> bool {
        match tried {
            Ok(_) => self.replay.is_whole(),
            Err(_) => self.outgoing.is_some(),
        }
    }

    /// How long the upstream asks its callers to stay away.
    pub fn retry_after(&self, tried: &Result<Success, Failure>) -> Option<Duration> {
        let Ok(Success::Held(back)) = tried else {
            return None;
        };
        asked_wait(self.response, &back.held.head)
    }

    /// Sends the response that was held back on to the client, after all.
    pub async fn pass(&mut self, back: HeldBack) -> Result<Passed, Failure> {
        self.awaiting = None;
        let context = Rc::clone(&self.client.context);
        let HeldBack {
            connection,
            held,
            sent_at,
            ..
        } = back;
        let seen = Seen::default();
        seen.head_at.set(Some(ring::now()));
        let exchange = self.over(&context, &connection, &seen);
        match exchange.pass(held).await {
            Ok(passed) => Ok(self.passed(connection, passed, &seen, sent_at)),
            Err(error) => {
                self.note(&seen);
                Err(self.fail(error, &seen))
            }
        }
    }

    /// Gives up a response that was held back, for another try. Its connection
    /// stays where all of it has come.
    pub fn give_way(&mut self, back: HeldBack) {
        self.outgoing = self.replay.again();
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

    /// Keeps a connection after a complete exchange: for this client where it has
    /// become its own, else for all.
    fn keep(&mut self, connection: Connection) -> bound::Held {
        let (shared, policies) = (&self.target.shared, self.target.pool_policies());
        match connection.tie {
            Tie::Free => {
                let pools = &self.client.context.pools;
                pools.checkin(shared, policies, connection);
                bound::Held::Well
            }
            Tie::Offered(_) | Tie::Begun(_) => self.client.bound.keep(shared, connection),
        }
    }

    /// The client's own connection, else an idle one, else a new one.
    async fn connection(
        &mut self,
        context: &Context,
        endpoint: EndpointAddr,
        want: Want,
    ) -> Result<Connection, Unanswered> {
        let place = (self.client.origin.namespace, endpoint);
        let shared = &self.target.shared;
        let kept = match (self.client.bound.take(shared, place), self.lane) {
            (Taken::Live(connection), _) => Some(connection),
            (Taken::Nothing, Lane::Pool) => context.pools.take_idle(shared, place, want),
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
        connect(context, self.target, place, self.deadlines, want).await
    }

    /// One exchange over a connection.
    async fn exchange(
        &mut self,
        context: &Context,
        mut connection: Connection,
        seen: &Seen,
        (picked, trial): (&mut Picked, &mut Option<Trial<'_>>),
        may_hold: bool,
    ) -> Result<Success, ExchangeError> {
        let target = self.target;
        self.record.reused = connection.past.is_reused();
        let policies = &target.upstream.policies;
        let sent_at = clock::now();
        let mut awaiting = self.awaiting.take();
        // Whether it may have been given up before the request came.
        let may_be_stale =
            connection.past.has_stood_idle() && self.lane == Lane::Pool && self.replay.is_whole();
        let mut idle_limit = None;
        let mut tie = connection.tie.presented(self.asked.presents);
        let waited = (self.deadlines, sent_at);
        let judge = |response: &ResponseHead, head: &[u8]| {
            if may_be_stale && seen.bytes_out.get() == 0 && response.is_idle_timeout() {
                return Verdict::Replace;
            }
            idle_limit = response.idle_limit();
            tie = tie.offered(challenge::offered(response, head));
            let trial = (trial.take(), waited);
            judge(context, target, response, head, picked, trial);
            // Not where an interim response went to the client: it was answered.
            let may_hold = may_hold && seen.bytes_out.get() == 0;
            if may_hold && policies.retry.on_statuses.contains(response.status()) {
                return Verdict::Hold;
            }
            // What streams for long does not keep others waiting.
            awaiting = None;
            Verdict::Pass
        };
        let mut outgoing = self.outgoing.take().unwrap_or_default();
        self.deadlines.tell(&mut outgoing, ring::now());
        let cells = &context.telemetry.cells;
        cells.bytes(self.label(), Direction::Sent, outgoing.bytes() as u64);
        let exchanged = self
            .over(context, &connection, seen)
            .run(outgoing, judge)
            .await;
        self.awaiting = awaiting;
        let answer = exchanged?;
        (connection.tie, connection.idle_limit) = (tie, idle_limit);
        cells.attempt(self.label(), AttemptOutcome::Response);
        Ok(match answer {
            Answer::Passed(response) => {
                Success::Passed(self.passed(connection, response, seen, sent_at))
            }
            Answer::Held(mut held) => {
                held.detach();
                Success::Held(HeldBack {
                    connection,
                    held,
                    sent_at,
                    status: self.response.status(),
                })
            }
        })
    }

    fn over<'b>(
        &'b mut self,
        context: &'b Context,
        connection: &'b Connection,
        seen: &'b Seen,
    ) -> Exchange<'b> {
        Exchange {
            client: &self.client.stream,
            ahead: &mut self.client.ahead,
            upstream: &connection.stream,
            asked: self.asked,
            body: self.body,
            head: self.response,
            replay: &mut self.replay,
            limits: &context.head_limits,
            deadlines: self.deadlines,
            drain: &context.drain,
            cells: &context.telemetry.cells,
            label: self.target.shared.label,
            seen,
        }
    }

    /// What comes after a response went to the client.
    fn passed(
        &mut self,
        connection: Connection,
        response: Response,
        seen: &Seen,
        sent_at: Instant,
    ) -> Passed {
        self.note(seen);
        self.note_overhead(seen, sent_at);
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
            Response::Switched(upstream_first) => Passed::Switched(connection, upstream_first),
        }
    }

    /// What failed, and what may be sent again after it.
    fn fail(&mut self, error: ExchangeError, seen: &Seen) -> Failure {
        self.outgoing = match seen.bytes_out.get() {
            0 => self.replay.again(),
            // An interim response went to the client: the request has arrived.
            _ => None,
        };
        let failure = match error {
            ExchangeError::Unsent(whole) => {
                self.outgoing = Some(whole);
                Failure::Unanswered(Unanswered::reset())
            }
            // The caller's own limit: it may be the caller who was slow.
            ExchangeError::Expired(Limit::Request) if !self.body.is_done() => {
                Failure::Unanswered(Unanswered::OUT_OF_TIME)
            }
            error => Failure::of(&error),
        };
        if self.lane == Lane::Bound {
            // No other connection can stand in for the one that is gone.
            self.outgoing = None;
        }
        failure
    }

    /// Writes down what an exchange tells about itself.
    fn note(&mut self, seen: &Seen) {
        let record = &mut *self.record;
        record.status = seen.status.get();
        record.passage.bytes_out.set(seen.bytes_out.get());
        record
            .passage
            .count(Direction::Sent, seen.bytes_in.replace(0));
    }

    fn note_overhead(&mut self, seen: &Seen, sent_at: Instant) {
        let started = self.record.passage.started;
        let before = sent_at.saturating_duration_since(started);
        let after = match (seen.head_at.get(), seen.forwarded_at.get()) {
            // The shard's clock stands while a turn lasts.
            (Some(head_at), Some(forwarded_at)) => {
                forwarded_at.saturating_duration_since(head_at.max(sent_at))
            }
            _ => Duration::ZERO,
        };
        self.record.overhead = before + after;
    }

    fn label(&self) -> UpstreamIndex {
        self.target.shared.label
    }
}

/// What of a try's end is a cause of another one.
pub fn cause(tried: &Result<Success, Failure>, retry: &Retry) -> Option<Cause> {
    let cause = match tried {
        Ok(Success::Held(back)) => Some(Cause::Status(back.status)),
        Err(Failure::Unanswered(unanswered)) => unanswered.cause,
        Ok(Success::Passed(_)) | Err(_) => None,
    };
    cause.filter(|cause| retry.applies_to(*cause))
}

/// A connection to `place`: an idle one, else a new one, within the limits of the
/// try.
pub(super) async fn connect(
    context: &Context,
    target: &Target,
    place: Place,
    deadlines: &Deadlines,
    want: Want,
) -> Result<Connection, Unanswered> {
    let (shared, policies) = (&target.shared, target.pool_policies());
    let checkout = context.pools.checkout(shared, policies, place, want);
    let checked_out = match deadlines.of_checkout() {
        None => checkout.await,
        Some((until, limit)) => match timer::timeout_at(until, checkout).await {
            Ok(checked_out) => checked_out,
            Err(_) => return Err(Unanswered::expired(limit)),
        },
    };
    let connection = checked_out.map_err(|error| Unanswered::without_connection(&error))?;
    if connection.past.is_reused() {
        context.telemetry.cells.pool_reuse(shared.label);
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
    picked: &mut Picked,
    (trial, (deadlines, sent_at)): (Option<Trial<'_>>, (&Deadlines, Instant)),
) {
    let policies = &target.upstream.policies;
    let (status, now) = (response.status(), ring::now());
    let has_failed = policies.circuit_breaker.failure_statuses.contains(status);
    // Failures and refusals may come faster than answers do.
    if policies.concurrency.adaptive
        && !has_failed
        && status != 429
        && let Some(waited) = deadlines.waited(now)
    {
        target.report_load(Sample::Answered(waited), now);
    }
    let took = now.saturating_duration_since(sent_at);
    let pools = &context.pools;
    pools.record_latency(&target.shared, &policies.hedge, took);
    let asks = matches!(status, 429 | 500..=599);
    let retry_after = asks.then(|| asked_wait(response, head)).flatten();
    picked.ended(
        Grade::of_status(status, retry_after),
        &policies.outlier,
        now,
    );
    if let Some(trial) = trial {
        match has_failed {
            true => trial.failed(now),
            false => trial.succeeded(now),
        }
    }
}

/// What a response says of when to come back.
fn asked_wait(response: &ResponseHead, head: &[u8]) -> Option<Duration> {
    let field = response.fields().value(head, "retry-after")?;
    retry_after::parse(field, clock::wall())
}
