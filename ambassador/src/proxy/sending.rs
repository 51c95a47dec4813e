//! A request on its way to its upstream, over all its tries.

mod connection;

use std::future::pending;

use crate::clock::Instant;
use crate::combinators::{First, first};
use crate::credential::Credential;
use crate::message::{BadMessage, End, RequestRewrite, ResponseHead};
use crate::proxy::after::After;
use crate::proxy::answer::{ExchangeError, HeldResponse, Response};
use crate::proxy::attempt::{Stage, Try};
use crate::proxy::body::BodyForm;
use crate::proxy::bound::{self, Bound};
use crate::proxy::context::Context;
use crate::proxy::deadlines::Deadlines;
use crate::proxy::delivered::{Complete, Delivered, SwitchedLease};
use crate::proxy::download::Download;
use crate::proxy::downstream::{RecvRequest, SendResponse};
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::generation::{Awaiting, Target};
use crate::proxy::heads::{Heads, Interims};
use crate::proxy::outbound::{Outbound, Reading};
use crate::proxy::presented::Presented;
use crate::proxy::progress::Progress;
use crate::proxy::replay::Replay;
use crate::proxy::request_facts::RequestFacts;
use crate::proxy::routing::{Incoming, RouteDecision, TryFacts};
use crate::proxy::trailers::Trailers;
use crate::proxy::upload::Upload;
use crate::proxy::verdict::Verdict;
use crate::ring::{self, Chunk, Gather, timer};
use crate::telemetry::{AttemptOutcome, Direction, RequestRecord, RetryCause};
use crate::upstream::dial::Namespace;
use crate::upstream::pool::Freshness;
use connection::ConnectionKind;

/// A request on its way to its upstream, over all its tries.
pub(crate) struct Sending<'a> {
    /// The shard's state.
    pub context: &'a Context,
    /// Its body, as it comes.
    pub recv: RecvRequest<'a>,
    /// The way of its response.
    pub send: SendResponse<'a>,
    /// The upstream connection that is the client's own.
    pub bound: &'a mut Bound,
    /// Which connections it may go over.
    pub lane: Lane,
    /// Where its upstream's sockets are made.
    pub namespace: Namespace,
    /// Where it goes.
    pub route: &'a RouteDecision,
    /// As it came.
    pub incoming: &'a Incoming<'a>,
    /// What decides about its response.
    pub facts: RequestFacts,
    /// Scratch for the response.
    pub response: &'a mut ResponseHead,
    /// Its record.
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
    /// The credential that goes with it; `None`: its upstream has none. Boxed, as most
    /// have none.
    pub presented: Option<Box<Presented>>,
}

/// Which connections a request may go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Any to its endpoint.
    Pool,
    /// The one on which its client has begun to authenticate.
    Bound,
}

/// Whether a response may be held back for another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HoldBack {
    /// Where it is one to try again for.
    Allowed,
    /// Where it is one to try again for, and says that the request was not processed.
    Refused,
    /// It goes to the client.
    Forbidden,
}

/// A response of which the head has come.
pub(crate) struct AnsweredTry {
    /// Over what it comes.
    pub outbound: Outbound,
    /// Its head, and what came along.
    pub held: HeldResponse,
}

/// What became of a response of which the head has come.
pub(crate) enum Handover {
    /// It went to the client.
    Passed(Response),
    /// It is held back: nothing of it has gone to the client.
    Held,
}

impl AnsweredTry {
    /// The beginning of its body, taken in: enough to tell an error by, or what comes by
    /// `until`.
    pub(crate) async fn begun_body(&mut self, response: &ResponseHead, until: Instant) -> Vec<u8> {
        let rest = self.held.rest.take();
        let begun = self.outbound.begun(response, rest, until).await;
        self.held.rest = begun.rest;
        begun.content
    }
}

impl<'a> Sending<'a> {
    /// One try: sends the request until the head of its response has come, and
    /// tells `one` of a failure. A connection that turns out to have been dead, or to be
    /// refused for a certificate that has ended, is replaced within it; so is one over
    /// HTTP/2 where the server requires HTTP/1.1 and the protocol is open.
    pub(crate) async fn ask(
        &mut self,
        one: &mut Try<'_>,
        interims: Interims,
    ) -> Result<AnsweredTry, Failure> {
        let mut kind = ConnectionKind {
            freshness: Freshness::Any,
            protocol: self.route.protocol(self.incoming, self.facts),
        };
        let failure = loop {
            self.begin(one);
            let mut outbound = match self.reach(one, kind).await {
                Ok(outbound) => outbound,
                Err(unanswered) => break Failure::Unanswered(unanswered),
            };
            let (shared, past) = (&self.route.target.shared, outbound.past());
            self.record.reused.set(past.is_reused());
            if let Some(tls) = outbound.tls() {
                self.record.passage.tls.set(Some(tls));
            }
            one.is_sent(past);
            // Whether it may have been given up before the request came.
            let may_be_stale =
                past.has_stood_idle() && self.lane == Lane::Pool && self.replay.is_whole();
            outbound.begin(self.context, shared, self.facts);
            let head = match self.route.target.has_secrets() {
                false => self.head(&outbound, None),
                true => match self.authenticated(&outbound) {
                    Ok(head) => head,
                    Err(failure) => break failure,
                },
            };
            let head_bytes = head.len();
            // Most have none, and an empty one need not be moved.
            let body = self.outgoing.take_if(|body| !body.is_empty());
            let mut exchange = self.over(&outbound);
            let mut begun = exchange.begin(head, body);
            let answered = exchange.ask(&mut begun, interims).await;
            let error = match answered {
                Ok(held) if self.facts.upgrade && !self.has_switched(&outbound, &held) => {
                    ExchangeError::Response(BadMessage::NotSwitched)
                }
                Ok(_)
                    if may_be_stale
                        && self.progress.is_unanswered()
                        && self.response.is_idle_timeout() =>
                {
                    ExchangeError::Stale
                }
                Ok(held) => {
                    outbound.is_answered(shared, self.response, &held.head);
                    return Ok(AnsweredTry { outbound, held });
                }
                Err(error) => self.explained(error, &outbound).behind_head(head_bytes),
            };
            let replacement = self.replacement(&error, &outbound, kind);
            let failure = self.fail(error);
            self.progress.waited(one.sent_at, ring::now());
            let Some(replacement) = replacement.filter(|_| self.outgoing.is_some()) else {
                break failure;
            };
            one.end(failure.outcome());
            let cells = &self.context.telemetry.cells;
            cells.retry(shared.label, RetryCause::Reset);
            kind = replacement;
        };
        one.has_failed(&failure);
        Err(failure)
    }

    /// An error, as what its connection or stream tells explains it.
    fn explained(&self, error: ExchangeError, outbound: &Outbound) -> ExchangeError {
        match outbound.refusal() {
            Some(outcome) if !self.progress.any_byte.get() => {
                self.target().shared.handshakes.failed(outcome);
                ExchangeError::Refused(outcome)
            }
            _ => error.on_stream(outbound.stream_failure()),
        }
    }

    /// Tells `one` of the head of its response, and passes that on, or holds it
    /// back for another try.
    pub(crate) async fn take(
        &mut self,
        one: &mut Try<'_>,
        answered: &mut AnsweredTry,
        hold_back: HoldBack,
    ) -> Result<Handover, Failure> {
        let rate = self.target().upstream.policies.timeouts.min_rate;
        let answer = self.answer(answered);
        let verdict = answer.verdict;
        let stage = match self.may_hold(one, answer, hold_back) {
            true => Stage::MayGiveWay,
            // A probe keeps others waiting.
            false if (rate.is_some() || matches!(verdict, Verdict::Open)) && !one.is_probe() => {
                Stage::Streams
            }
            false => Stage::Last,
        };
        if !self.progress.withheld.is_long(ring::now) {
            let waited = self.deadlines.waited(ring::now());
            one.is_answered(answer, stage, waited);
        }
        if stage == Stage::MayGiveWay {
            one.is_notable();
            one.end(AttemptOutcome::Response);
            answered.held.detach();
            return Ok(Handover::Held);
        }
        let passed = self.pass(one, answered).await;
        if stage == Stage::Streams {
            one.settle(self.body_of(&passed, verdict));
        }
        match passed {
            Ok(passed) => {
                one.end(AttemptOutcome::Response);
                Ok(Handover::Passed(passed))
            }
            Err(failure) => {
                one.has_failed(&failure);
                Err(failure)
            }
        }
    }

    /// Passes a response on.
    pub(crate) async fn pass(
        &mut self,
        one: &Try<'_>,
        answered: &mut AnsweredTry,
    ) -> Result<Response, Failure> {
        // What streams for long does not keep others waiting.
        self.awaiting = None;
        self.progress.head_at.set(Some(ring::now()));
        let AnsweredTry { outbound, held } = answered;
        self.progress.reads_from(outbound);
        // The time of a call ends amid its response, too.
        let until = self.deadlines.of_caller().filter(|_| self.facts.is_call);
        let late = async {
            match until {
                None => pending().await,
                Some(until) => timer::sleep_until(until).await,
            }
        };
        let passed = match first(self.over(outbound).pass(held), late).await {
            First::Left(passed) => passed,
            First::Right(()) => return Err(Failure::Late),
        };
        let response = passed.map_err(|error| self.fail(error))?;
        let overhead = self.progress.overhead(one.sent_at);
        self.record.overhead.set(overhead);
        Ok(response)
    }

    /// Takes what of the body has come along with the head; what follows it stays
    /// ahead.
    #[inline(always)]
    pub(crate) fn take_along(&mut self) -> Result<(), BadMessage> {
        let (route, incoming) = (self.route, self.incoming);
        if let Some(along) = self.recv.piece_at_hand(Trailers { route, incoming })? {
            let passage = &self.record.passage;
            passage.count(Direction::Sent, along.came);
            self.progress.keeps_more(self.replay.add(&along.chunk));
            self.outgoing.get_or_insert_default().push(along.chunk);
        }
        if self.recv.is_whole() {
            self.progress.body_read.set(true);
            self.deadlines.request_is_whole(self.deadlines.began());
        }
        Ok(())
    }

    /// Gives up a response that was held back, for another try. Its connection
    /// stays where all of it has come.
    pub(crate) fn give_way(&mut self, one: &Try<'_>, answered: AnsweredTry) {
        if let Some(head_at) = self.progress.head_at.get() {
            self.progress.waited(one.sent_at, head_at);
        }
        self.outgoing = self.replay.again_after_refusal().map(Gather::from);
        let AnsweredTry { outbound, held } = answered;
        if self.recv.is_whole() {
            outbound.give_up(self.response, held.rest, self.bound);
        }
    }

    /// Whether a response to what asks for a switch says what its caller takes it for:
    /// to one that speaks HTTP/2 any success is the switch (RFC 8441 section 5).
    #[cold]
    fn has_switched(&self, outbound: &Outbound, held: &HeldResponse) -> bool {
        let is_success = (200..300).contains(&self.response.status());
        let is_extended = self.incoming.request.is_extended_connect();
        !(is_success && is_extended) && outbound.has_switched(self.response, &held.head)
    }

    /// Where it goes.
    pub(crate) fn target(&self) -> &'a Target {
        &self.route.target
    }

    fn begin(&self, one: &mut Try<'_>) {
        one.begin();
        self.record.begin_try();
        self.progress.begin_try();
    }

    /// The head for the endpoint.
    #[inline(always)]
    pub(crate) fn head(&self, outbound: &Outbound, credential: Option<&Credential>) -> Chunk {
        let facts = TryFacts {
            endpoint: outbound.endpoint(),
            deadlines: self.deadlines,
            credential,
        };
        let Incoming { request, head, .. } = self.incoming;
        let write = |rewrite: &RequestRewrite<'_>| outbound.encode(request, head, rewrite);
        self.route.rewrite(self.incoming, facts, write)
    }

    #[inline(always)]
    fn over<'b>(&'b mut self, outbound: &'b Outbound) -> Exchange<'b> {
        let reading = Reading {
            method: self.facts.method,
            limits: &self.context.head_limits,
            head: self.response,
        };
        let (to, from) = outbound.halves(reading, self.recv.form());
        let (deadlines, progress) = (self.deadlines, self.progress);
        let trailers = Trailers {
            route: self.route,
            incoming: self.incoming,
        };
        let uploading = !self.recv.is_whole();
        let (caller, cells) = (self.send, &self.context.telemetry.cells);
        let (signed, replay) = (self.presented.as_mut(), &mut self.replay);
        let upload = |recv| Upload {
            recv,
            caller,
            to,
            trailers,
            signed: signed.and_then(|it| it.body.as_mut()),
            replay,
            deadlines,
            cells,
            progress,
            sends: None,
            reads: None,
        };
        let (upload, end) = match uploading {
            true => (Some(upload(self.recv.reborrow())), End::More),
            false => (None, self.recv.end()),
        };
        let download = Download {
            send: self.send,
            heads: Heads {
                from,
                deadlines,
                uploading,
                progress,
            },
            facts: self.facts,
            context: self.context,
            sends: None,
            reads: None,
        };
        Exchange {
            to,
            upload,
            end,
            download,
        }
    }

    /// What comes after a response went to the client.
    #[inline(always)]
    pub(crate) fn passed(&mut self, answered: AnsweredTry, response: Response) -> Delivered {
        let AnsweredTry { outbound, held } = answered;
        match response {
            Response::Complete {
                reuse,
                after,
                ended,
            } => Delivered::Complete(Complete {
                after: match outbound.finish(reuse, self.bound) {
                    bound::BoundOutcome::Well => after,
                    // The client is to see that its own connection has ended.
                    bound::BoundOutcome::Lost => After::Close,
                },
                ended,
            }),
            Response::Switched => Delivered::Switched(Box::new(SwitchedLease {
                lease: outbound.into_leased(),
                first: held.rest,
            })),
        }
    }

    /// What failed, and what may be sent again after it.
    pub(crate) fn fail(&mut self, error: ExchangeError) -> Failure {
        self.outgoing = match self.progress.is_unanswered() {
            true => self.replay.again().map(Gather::from),
            // An interim response went to the client: the request has arrived.
            false => None,
        };
        let failure = Failure::of(&error);
        match error {
            ExchangeError::Unsent(body) if self.recv.form() == BodyForm::Http1 => {
                self.outgoing = Some(self.with_held(*body));
            }
            // What was not taken may have been put into chunks.
            ExchangeError::Unsent(_)
            | ExchangeError::Unprocessed
            | ExchangeError::Http1Required => {
                self.outgoing = self.replay.again_after_refusal().map(Gather::from);
            }
            _ => {}
        }
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
}
