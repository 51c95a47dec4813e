//! A second try beside a slow one.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::task::Poll;

use crate::addr::Peer;
use crate::clock::{self, Instant};
use crate::http::{ResponseHead, challenge};
use crate::policy::breaker::Trial;
use crate::policy::hedge::{self, After};
use crate::proxy::answer::{ExchangeError, Held};
use crate::proxy::asked::Asked;
use crate::proxy::attempt::{HeldBack, Sending, Success, connect, judge, score_of};
use crate::proxy::context::Context;
use crate::proxy::deadlines::{Deadlines, Limit};
use crate::proxy::failure::{Failure, Unanswered};
use crate::proxy::heads::Heads;
use crate::proxy::judges::{Judges, Stage};
use crate::proxy::progress::Progress;
use crate::proxy::replay::Replay;
use crate::proxy::way::{Incoming, Way};
use crate::ring::{self, Gather, timer};
use crate::telemetry::{AttemptOutcome, RequestRecord, RetryCause};
use crate::together::{First, first, first_ok};
use crate::upstream::balancer::Picked;
use crate::upstream::key::PoolKey;
use crate::upstream::pool::{Checkout, Lease, Want};

/// What one try of two needs.
struct Leg<'a> {
    context: &'a Context,
    way: &'a Way,
    incoming: &'a Incoming<'a>,
    key: PoolKey,
    peer: Peer,
    asked: Asked,
    record: &'a RequestRecord,
    replay: &'a Replay,
    deadlines: &'a Deadlines<'a>,
    head: &'a mut ResponseHead,
}

/// What it got.
struct Answered {
    connection: Lease,
    held: Held,
    sent_at: Instant,
}

/// Whether a second try may be made beside one, and when.
pub(crate) enum SecondTry {
    /// It is not.
    Never,
    /// Once the first is slow (`hedge`).
    Hedge(Instant),
    /// Once the first has been silent for too long (`retry.elsewhere`).
    Silence(Instant),
}

impl Sending<'_> {
    /// Whether a second try may be made beside the one that begins, and when:
    /// only where the request is whole, changes nothing and may reach an upstream
    /// twice. `may_retry`: another one may follow.
    pub(crate) fn second_try(&self, judges: &Judges<'_>, may_retry: bool) -> SecondTry {
        let target = self.target();
        let policies = &target.upstream.policies;
        let hedges = policies.hedge.after != After::Off && !judges.is_probe();
        if hedges && self.may_be_in_two_places() {
            let (pools, now) = (&self.context.pools, ring::now());
            if let Some(due) = pools.slow_at(&target.shared, &policies.hedge, now) {
                return SecondTry::Hedge(due);
            }
        }
        let looks_elsewhere = policies.retry.elsewhere
            && may_retry
            && judges.endpoint.has_alternatives()
            && self.replay.is_empty()
            && self.may_be_in_two_places();
        match policies.timeouts.request.filter(|_| looks_elsewhere) {
            Some(limit) => SecondTry::Silence(ring::now() + limit / 2),
            None => SecondTry::Never,
        }
    }

    fn may_be_in_two_places(&self) -> bool {
        hedge::is_safe(self.asked.method)
            && !self.asked.upgrade
            && self.asked.presents.is_none()
            && self
                .bound
                .endpoint(&self.target().shared, self.namespace)
                .is_none()
            && self.body.is_done()
            && self.replay.is_whole()
    }

    /// One try, and a second one at another endpoint beside it where nothing of a
    /// response has come by `due` and `second` grants one. What comes of the
    /// first goes to the client as ever. Should the second be answered before
    /// that, its response is held back, and the first is given up as one that
    /// took too long.
    pub(crate) async fn attempt_beside<'t>(
        &mut self,
        judges: &mut Judges<'t>,
        (due, may_hold): (Instant, bool),
        second: impl FnOnce() -> Option<Picked>,
    ) -> Result<Success, Failure> {
        let (context, way, progress) = (self.context, self.way, self.progress);
        let record = self.record;
        let (target, label) = (&way.target, way.target.shared.label);
        let (namespace, incoming, deadlines) = (self.namespace, self.incoming, self.deadlines);
        let reputation = judges.reputation;
        // There is no body.
        let (asked, replay) = (self.asked, Replay::up_to(0));
        deadlines.notice_silence(due);
        let beside = async {
            // The first one tells, in the same task.
            poll_fn(|_| match deadlines.is_silence_kept() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
            let Some(other) = second() else {
                return pending().await;
            };
            context.telemetry.cells.retry(label, RetryCause::Silence);
            progress.begin_beside(other.endpoint);
            // Boxed, as it is rare: every request has the place of this.
            let mut head = Box::new(ResponseHead::default());
            let leg = Leg {
                context,
                way,
                incoming,
                key: PoolKey::http1(namespace, other.endpoint),
                peer: progress.peer(),
                asked,
                record,
                replay: &replay,
                deadlines,
                head: &mut head,
            };
            match Box::pin(leg.run()).await {
                Ok(answered) if progress.is_unanswered() => Box::new((answered, head, other)),
                Ok(_) => pending().await,
                Err(failure) => {
                    progress.open_tries.set(progress.open_tries.get() - 1);
                    context.telemetry.cells.attempt(label, failure.outcome());
                    failure.report(target, &mut Judges::of_second(other, None, reputation));
                    pending().await
                }
            }
        };
        let answered = {
            // Pinned where they are: they are too large to be moved.
            let (one, two) = (pin!(self.attempt(judges, may_hold)), pin!(beside));
            first(one, two).await
        };
        let (answered, head, other) = match answered {
            First::Left(tried) => return tried,
            First::Right(answered) => *answered,
        };
        let silent = Failure::Unanswered(Unanswered::expired(Limit::Try));
        self.end_try(silent.outcome());
        silent.report(target, judges);
        *self.response = *head;
        self.record.is_answered_by(other.endpoint);
        judges.replace(other, None);
        Ok(self.hold(answered, judges))
    }

    /// One try, and a second one beside it where there is no response by `due`
    /// and `second` grants one. The first response wins and is held back,
    /// whatever its status; the other try is given up. Interim responses are
    /// dropped: the client could not tell whose they are.
    pub(crate) async fn attempt_hedged<'t>(
        &mut self,
        judges: &mut Judges<'t>,
        due: Instant,
        second: impl FnOnce() -> Option<(Picked, Option<Trial<'t>>)>,
    ) -> Result<Success, Failure> {
        let (context, way) = (self.context, self.way);
        let cells = &context.telemetry.cells;
        let (target, label) = (&way.target, way.target.shared.label);
        let (endpoint, reputation) = (judges.endpoint.endpoint, judges.reputation);
        self.begin_try();
        self.record.is_tried_at(endpoint);
        let began = ring::now();
        self.deadlines.begin_try(began);
        // Each try sends a copy of what is kept.
        self.outgoing = None;

        let mut heads = (std::mem::take(self.response), ResponseHead::default());
        let leg = |endpoint, head| Leg {
            context,
            way,
            incoming: self.incoming,
            key: PoolKey::http1(self.namespace, endpoint),
            peer: self.progress.peer(),
            asked: self.asked,
            record: self.record,
            replay: &self.replay,
            deadlines: self.deadlines,
            head,
        };
        let race = async {
            let one = leg(endpoint, &mut heads.0);
            let mut one = pin!(one.run());
            match first(one.as_mut(), timer::sleep_until(due)).await {
                First::Left(answered) => return answered.map(First::Left),
                First::Right(()) => {}
            }
            let Some((other, trial)) = second() else {
                return one.await.map(First::Left);
            };
            cells.retry(label, RetryCause::Hedge);
            self.progress.begin_beside(other.endpoint);
            let second = other.endpoint;
            let two = async {
                match leg(second, &mut heads.1).run().await {
                    Ok(answered) => Ok((answered, other, trial)),
                    Err(failure) => {
                        self.end_try(failure.outcome());
                        failure.report(target, &mut Judges::of_second(other, trial, reputation));
                        Err(failure)
                    }
                }
            };
            let won = first_ok(one, two).await?;
            if self.progress.open_tries.get() > 1 {
                self.end_try(AttemptOutcome::Cancelled);
            }
            Ok(won)
        };
        let answered = match race.await {
            Ok(First::Left(answered)) => {
                *self.response = heads.0;
                answered
            }
            Ok(First::Right((answered, other, trial))) => {
                // The slower one says nothing about the upstream, but that it
                // was no faster than this.
                let took = ring::now().saturating_duration_since(began);
                let settings = &target.upstream.policies.hedge;
                context.pools.record_latency(&target.shared, settings, took);
                *self.response = heads.1;
                self.record.is_answered_by(other.endpoint);
                judges.replace(other, trial);
                answered
            }
            Err(failure) => {
                *self.response = heads.0;
                self.end_try(failure.outcome());
                failure.report(target, judges);
                self.outgoing = self.replay.again().map(Gather::from);
                return Err(failure);
            }
        };
        Ok(self.hold(answered, judges))
    }

    /// Holds back what one try of two got.
    fn hold(&mut self, answered: Answered, judges: &mut Judges<'_>) -> Success {
        let (context, target) = (self.context, &self.way.target);
        let Answered {
            mut connection,
            held,
            sent_at,
        } = answered;
        self.end_try(AttemptOutcome::Response);
        self.awaiting = None;
        let (response, status) = (&*self.response, self.response.status());
        let score = score_of(target, response, &held.head);
        let judges = (judges, Stage::MayGiveWay);
        let waited = (self.deadlines, sent_at);
        judge(context, target, response, &held.head, judges, waited);
        let offered = challenge::offered(response, &held.head);
        connection.tie = connection.tie.offered(offered);
        self.record.reused.set(connection.past.is_reused());
        Success::Held(Box::new(HeldBack {
            status,
            score,
            connection,
            held,
            sent_at,
        }))
    }
}

impl Leg<'_> {
    /// Sends a copy of the request and waits for a response head. A reused
    /// connection that turns out to have been dead is replaced.
    async fn run(self) -> Result<Answered, Failure> {
        let (context, target) = (self.context, &self.way.target);
        let (cells, label) = (&context.telemetry.cells, target.shared.label);
        let mut want = Want::Any;
        loop {
            let (key, peer) = (self.key, self.peer);
            let checkout = Checkout { key, want, peer };
            let connection = connect(context, target, checkout, self.deadlines).await;
            let mut connection = connection.map_err(Failure::Unanswered)?;
            let left = self.deadlines.left_for_caller(ring::now());
            let head = self.way.encode(self.incoming, connection.endpoint(), left);
            let body = self.replay.again().map(Gather::from).unwrap_or_default();
            let gather = body.behind(head);
            // Nothing of it goes to the client from here.
            let (progress, sent_at) = (Progress::new(self.record, None), clock::now());
            context.pools.watch(&target.shared, &connection);
            let heads = Heads {
                upstream: &connection.stream,
                method: self.asked.method,
                head: self.head,
                limits: &context.head_limits,
                deadlines: self.deadlines,
                uploading: false,
                progress: &progress,
            };
            let may_be_stale = want == Want::Any && connection.past.has_stood_idle();
            let asked = match heads.ask(gather).await {
                Ok(_) if may_be_stale && self.head.is_idle_timeout() => Err(ExchangeError::Stale),
                asked => asked,
            };
            match asked {
                Ok(held) => {
                    connection.is_answered(&target.shared);
                    connection.set_idle_limit(self.head.idle_limit());
                    return Ok(Answered {
                        connection,
                        held,
                        sent_at,
                    });
                }
                Err(error) if may_be_stale && error.may_be_a_dead_connection(&progress) => {
                    cells.attempt(label, AttemptOutcome::Reset);
                    cells.retry(label, RetryCause::Reset);
                    want = Want::Fresh;
                }
                Err(error) => return Err(Failure::of(&error)),
            }
        }
    }
}
