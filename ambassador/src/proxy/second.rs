//! A second try beside one that is slow (`hedge`), or silent while another
//! endpoint is well (`retry.elsewhere`).

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use crate::clock::Instant;
use crate::combinators::{First, first, first_ok, rarely};
use crate::message::ResponseHead;
use crate::policy::hedge::{self, HedgeDelay};
use crate::policy::retry::Resend;
use crate::proxy::attempt::Try;
use crate::proxy::body::BodyForm;
use crate::proxy::bound::Bound;
use crate::proxy::context::Context;
use crate::proxy::deadlines::{Deadlines, Limit};
use crate::proxy::downstream::{NoBody, RecvRequest, SendResponse};
use crate::proxy::failure::{Failure, Unanswered};
use crate::proxy::heads::Interims;
use crate::proxy::progress::Progress;
use crate::proxy::replay::Replay;
use crate::proxy::request_facts::RequestFacts;
use crate::proxy::routing::{Incoming, RouteDecision};
use crate::proxy::sending::{AnsweredTry, Lane, Sending};
use crate::proxy::tries::{SecondTryCause, Tries};
use crate::ring::{self, Gather, timer};
use crate::telemetry::{Decision, RequestRecord};
use crate::upstream::dial::Namespace;

/// A second try that may be made beside one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SecondTry {
    /// Not before.
    due: Instant,
    /// For what.
    pub why: SecondTryCause,
}

impl<'a> Sending<'a> {
    /// Whether a second try may be made beside the one that begins, and when:
    /// only where the request is whole, changes nothing and may reach an upstream
    /// twice. `again`: whether another one may follow.
    pub(crate) fn second(&self, one: &Try<'_>, resend: Resend) -> Option<SecondTry> {
        let target = self.target();
        let policies = &target.upstream.policies;
        let hedges = policies.hedge.after != HedgeDelay::Off && !one.is_probe();
        if hedges && self.may_be_in_two_places() {
            let (pools, now) = (&self.context.pools, ring::now());
            if let Some(due) = pools.slow_at(&target.shared, &policies.hedge, now) {
                let why = SecondTryCause::Slow;
                return Some(SecondTry { due, why });
            }
        }
        let looks_elsewhere = policies.retry.elsewhere
            && resend == Resend::Allowed
            && one.has_alternatives()
            && self.replay.is_empty()
            && self.may_be_in_two_places();
        let limit = policies.timeouts.request.filter(|_| looks_elsewhere)?;
        Some(SecondTry {
            due: ring::now() + limit / 2,
            why: SecondTryCause::Silent,
        })
    }

    fn may_be_in_two_places(&self) -> bool {
        let shared = &self.target().shared;
        hedge::is_safe(self.facts.method)
            && !self.facts.upgrade
            && self.facts.presents.is_none()
            && self.bound.endpoint(shared, self.namespace).is_none()
            && self.recv.is_whole()
            && self.replay.is_whole()
    }

    /// One try, and where it is slow or silent a second one beside it: whichever
    /// is answered first. The other one is given up.
    pub(crate) async fn ask_beside<'t>(
        &mut self,
        one: &mut Try<'t>,
        tries: &Tries<'t>,
        second: SecondTry,
    ) -> Result<AnsweredTry, Failure> {
        let (context, target, record) = (self.context, self.target(), self.record);
        let (busy, began) = ([one.endpoint()], ring::now());
        let SecondTry { why, .. } = second;
        let grant = one.second(|| tries.pick_beside(&busy, why));
        let beside = self.beside();
        let interims = match why {
            SecondTryCause::Slow => Interims::Drop,
            SecondTryCause::Silent => Interims::Pass,
        };
        let wait = second.wait(self.deadlines);
        let answered = {
            let mut asks = pin!(self.ask(one, interims));
            match first(asks.as_mut(), wait).await {
                First::Left(answered) => return answered,
                First::Right(()) => {}
            }
            let Some(other) = grant() else {
                return asks.await;
            };
            let (shared, cells) = (&target.shared, &context.telemetry.cells);
            cells.retry(shared.label, why.cause());
            record
                .passage
                .journal
                .decided(Decision::Beside(why.cause()));
            first_ok(asks, rarely(beside.ask(other))).await?
        };
        let other = match answered {
            First::Left(answered) => return Ok(answered),
            First::Right(other) => *other,
        };
        match why {
            // The slower one says nothing about the upstream, but that it was no
            // faster than this.
            SecondTryCause::Slow => {
                let took = ring::now().saturating_duration_since(began);
                let settings = &target.upstream.policies.hedge;
                context.pools.record_latency(&target.shared, settings, took);
            }
            SecondTryCause::Silent if one.is_open() => {
                one.has_failed(&Failure::Unanswered(Unanswered::expired(Limit::Try)));
            }
            SecondTryCause::Silent => {}
        }
        *self.response = other.response;
        record.is_tried_at(other.attempt.endpoint());
        self.progress.waited(one.sent_at, other.attempt.sent_at);
        one.give_way_to(other.attempt);
        Ok(other.answered)
    }

    /// The same request for another try beside.
    fn beside(&self) -> SecondRequest<'a> {
        SecondRequest {
            context: self.context,
            send: self.send,
            namespace: self.namespace,
            route: self.route,
            incoming: self.incoming,
            facts: self.facts,
            record: self.record,
            replay: self.replay.clone(),
            form: self.recv.form(),
            no_body: NoBody::behind(self.recv.end().trailers()),
            deadlines: self.deadlines,
        }
    }
}

impl SecondTry {
    /// Waits for the moment to make it.
    fn wait(self, deadlines: &Deadlines<'_>) -> impl Future<Output = ()> {
        if self.why == SecondTryCause::Silent {
            deadlines.notice_silence(self.due);
        }
        async move {
            match self.why {
                SecondTryCause::Slow => timer::sleep_until(self.due).await,
                SecondTryCause::Silent => {
                    // The first one tells, in the same task.
                    poll_fn(|_| match deadlines.is_silence_kept() {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    })
                    .await;
                }
            }
        }
    }
}

/// A request of which a copy is sent elsewhere.
struct SecondRequest<'a> {
    context: &'a Context,
    send: SendResponse<'a>,
    namespace: Namespace,
    route: &'a RouteDecision,
    incoming: &'a Incoming<'a>,
    facts: RequestFacts,
    record: &'a RequestRecord,
    replay: Replay,
    /// The form of its body.
    form: BodyForm,
    /// What stands behind that.
    no_body: NoBody,
    deadlines: &'a Deadlines<'a>,
}

/// What came of the copy.
struct SecondResponse<'t> {
    answered: AnsweredTry,
    response: ResponseHead,
    attempt: Try<'t>,
}

impl SecondRequest<'_> {
    async fn ask<'t>(mut self, mut attempt: Try<'t>) -> Result<Box<SecondResponse<'t>>, Failure> {
        let mut response = ResponseHead::default();
        let progress = Progress::new(self.record, None);
        let answered = Sending {
            context: self.context,
            recv: RecvRequest::none(&mut self.no_body, self.form, self.send),
            send: self.send,
            bound: &mut Bound::default(),
            lane: Lane::Pool,
            namespace: self.namespace,
            route: self.route,
            incoming: self.incoming,
            facts: self.facts,
            response: &mut response,
            record: self.record,
            progress: &progress,
            outgoing: self.replay.again().map(Gather::from),
            replay: self.replay,
            deadlines: self.deadlines,
            awaiting: None,
            presented: None,
        }
        .ask(&mut attempt, Interims::Drop)
        .await?;
        Ok(Box::new(SecondResponse {
            answered,
            response,
            attempt,
        }))
    }
}
