//! A second try beside a slow one.

use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use crate::clock;
use crate::http::{ResponseHead, challenge};
use crate::policy::breaker::Trial;
use crate::policy::hedge::{self, After};
use crate::policy::retry::Cause;
use crate::proxy::attempt::{HeldBack, Sending, Success, connect, judge};
use crate::proxy::context::Context;
use crate::proxy::deadlines::Deadlines;
use crate::proxy::exchange::{Asked, ExchangeError, Held, Seen};
use crate::proxy::failure::Failure;
use crate::proxy::generation::Target;
use crate::proxy::heads::Heads;
use crate::proxy::replay::Replay;
use crate::ring::{self, Gather, timer};
use crate::telemetry::{AttemptOutcome, Direction};
use crate::together::{First, first, first_ok};
use crate::upstream::balancer::Picked;
use crate::upstream::connection::{Connection, Place};
use crate::upstream::pool::Want;

/// What one try of two needs.
struct Leg<'a> {
    context: &'a Context,
    target: &'a Target,
    place: Place,
    asked: Asked,
    replay: &'a Replay,
    deadlines: &'a Deadlines,
    head: &'a mut ResponseHead,
}

/// What it got.
struct Answered {
    connection: Connection,
    held: Held,
    sent_at: Instant,
}

impl Sending<'_> {
    /// Whether a second try may be made beside a slow one: the request is whole,
    /// changes nothing and may reach an upstream twice.
    pub fn may_be_hedged(&self) -> bool {
        self.target.upstream.policies.hedge.after != After::Off
            && hedge::is_safe(self.asked.method)
            && self.asked.presents.is_none()
            && self
                .client
                .bound
                .endpoint(&self.target.shared, self.client.origin.namespace)
                .is_none()
            && !self.asked.upgrade
            && self.body.is_done()
            && self.replay.is_whole()
    }

    /// One try, and a second one beside it where there is no response by `due`
    /// and `second` grants one. The first response wins and is held back,
    /// whatever its status; the other try is given up. Interim responses are
    /// dropped: the client could not tell whose they are.
    pub async fn attempt_hedged<'t>(
        &mut self,
        picked: &mut Picked,
        trial: Trial<'t>,
        due: Instant,
        second: impl FnOnce() -> Option<(Picked, Trial<'t>)>,
    ) -> Result<Success, Failure> {
        let context = Rc::clone(&self.client.context);
        let cells = &context.telemetry.cells;
        let (target, label) = (self.target, self.target.shared.label);
        let namespace = self.client.origin.namespace;
        self.record.attempts += 1;
        self.record.passage.endpoint = Some(picked.endpoint);
        let began = ring::now();
        self.deadlines.begin_try(began);
        let outgoing = self.outgoing.take();

        let mut heads = (std::mem::take(self.response), ResponseHead::default());
        let leg = |place, head| Leg {
            context: &context,
            target,
            place,
            asked: self.asked,
            replay: &self.replay,
            deadlines: self.deadlines,
            head,
        };
        let race = async {
            let one = leg((namespace, picked.endpoint), &mut heads.0);
            let mut one = pin!(one.run(outgoing));
            match first(one.as_mut(), timer::sleep_until(due)).await {
                First::Left(answered) => return answered.map(First::Left),
                First::Right(()) => {}
            }
            let Some((mut other, trial)) = second() else {
                return one.await.map(First::Left);
            };
            cells.retry(label, "hedge");
            let place = (namespace, other.endpoint);
            let two = async {
                match leg(place, &mut heads.1).run(None).await {
                    Ok(answered) => Ok((answered, other, trial)),
                    Err(failure) => {
                        cells.attempt(label, failure.outcome());
                        failure.report(target, &mut other, trial);
                        Err(failure)
                    }
                }
            };
            let won = first_ok(one, two).await?;
            cells.attempt(label, AttemptOutcome::Cancelled);
            Ok(won)
        };
        let won = match first(race, self.client.stream.broken()).await {
            First::Left(won) => won,
            First::Right(()) => Err(Failure::ClientGone),
        };
        let (answered, trial) = match won {
            Ok(First::Left(answered)) => {
                *self.response = heads.0;
                (answered, trial)
            }
            Ok(First::Right((answered, other, its_trial))) => {
                // The slower one says nothing about the upstream, but that it
                // was no faster than this.
                let took = ring::now().saturating_duration_since(began);
                let settings = &target.upstream.policies.hedge;
                context.pools.record_latency(&target.shared, settings, took);
                trial.abandoned();
                *self.response = heads.1;
                *picked = other;
                self.record.attempts += 1;
                self.record.passage.endpoint = Some(picked.endpoint);
                (answered, its_trial)
            }
            Err(failure) => {
                cells.attempt(label, failure.outcome());
                failure.report(target, picked, trial);
                self.outgoing = self.replay.again();
                return Err(failure);
            }
        };
        let Answered {
            mut connection,
            held,
            sent_at,
        } = answered;
        let offered = challenge::offered(self.response, &held.head);
        connection.tie = connection.tie.offered(offered);
        cells.attempt(label, AttemptOutcome::Response);
        self.awaiting = None;
        let trial = (Some(trial), (self.deadlines, sent_at));
        judge(&context, target, self.response, &held.head, picked, trial);
        self.record.reused = connection.past.is_reused();
        Ok(Success::Held(HeldBack {
            status: self.response.status(),
            connection,
            held,
            sent_at,
        }))
    }
}

impl Leg<'_> {
    /// Sends the request, where it is at hand already, else a copy, and waits for a
    /// response head. A reused connection that turns out to have been dead is
    /// replaced.
    async fn run(self, mut outgoing: Option<Gather>) -> Result<Answered, Failure> {
        let (context, target) = (self.context, self.target);
        let (cells, label) = (&context.telemetry.cells, target.shared.label);
        let mut want = Want::Any;
        loop {
            if let Some(outgoing) = &mut outgoing {
                outgoing.detach();
            }
            let connection = connect(context, target, self.place, self.deadlines, want).await;
            let mut connection = connection.map_err(Failure::Unanswered)?;
            let gather = outgoing.take().or_else(|| self.replay.again());
            let mut gather = gather.unwrap_or_default();
            self.deadlines.tell(&mut gather, ring::now());
            cells.bytes(label, Direction::Sent, gather.bytes() as u64);
            let (seen, sent_at) = (Seen::default(), clock::now());
            let heads = Heads {
                upstream: &connection.stream,
                method: self.asked.method,
                head: self.head,
                limits: &context.head_limits,
                deadlines: self.deadlines,
                uploading: false,
                seen: &seen,
            };
            let may_be_stale = want == Want::Any && connection.past.has_stood_idle();
            let asked = match heads.ask(gather).await {
                Ok(_) if may_be_stale && self.head.is_idle_timeout() => Err(ExchangeError::Stale),
                asked => asked,
            };
            match asked {
                Ok(held) => {
                    connection.idle_limit = self.head.idle_limit();
                    return Ok(Answered {
                        connection,
                        held,
                        sent_at,
                    });
                }
                Err(error) if may_be_stale && error.may_be_a_dead_connection(&seen) => {
                    cells.attempt(label, AttemptOutcome::Reset);
                    cells.retry(label, Cause::Reset.as_str());
                    want = Want::Fresh;
                }
                Err(error) => return Err(Failure::of(&error)),
            }
        }
    }
}
