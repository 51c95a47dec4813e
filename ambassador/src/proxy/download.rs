//! The way down of one exchange: the heads of the responses, and the body of the
//! last one.

use std::future::Future;
use std::task::Poll;

use crate::clock;
use crate::combinators::at_once;
use crate::message::{BadMessage, End, Framing};
use crate::policy::pace::Part;
use crate::proxy::after::After;
use crate::proxy::answer::{ExchangeError, HeldResponse, Response};
use crate::proxy::context::Context;
use crate::proxy::deadlines::Limit;
use crate::proxy::downstream::{Begun, NextRequest, ResponsePlan, SendResponse};
use crate::proxy::heads::{Heads, INTERIM_MAX, Interims, ended_or};
use crate::proxy::paced::{Paced, PeerTimeout, within};
use crate::proxy::request_facts::RequestFacts;
use crate::proxy::verdict::Verdict;
use crate::ring::{self, Chunk, Gather, SendError};
use crate::telemetry::{Direction, GrpcStatus};

/// The way down of one exchange.
pub(crate) struct Download<'a> {
    /// Where it goes.
    pub send: SendResponse<'a>,
    pub heads: Heads<'a>,
    pub facts: RequestFacts,
    /// The shard's state.
    pub context: &'a Context,
    /// How the upstream does.
    pub sends: Paced,
    /// How the client does.
    pub reads: Paced,
}

impl<'a> Download<'a> {
    /// The head of the final response. Interim ones before it are passed on, or
    /// dropped.
    pub(super) async fn head(&mut self, interims: Interims) -> Result<HeldResponse, ExchangeError> {
        let mut ahead = None;
        for _ in 0..=INTERIM_MAX {
            let (mut head, mut rest) = self.heads.next(ahead.take()).await?;
            let response = self.heads.from.response();
            if response.status() == 101 && !self.facts.upgrade {
                return Err(ExchangeError::Response(BadMessage::UnexpectedUpgrade));
            }
            if !response.is_informational() {
                self.heads.progress.head_at.set(Some(ring::now()));
                return Ok(HeldResponse { head, rest });
            }
            if interims == Interims::Pass && self.send.takes_interim() {
                // A caller that reads nothing holds no shared buffer.
                head.detach();
                if let Some(rest) = &mut rest {
                    rest.detach();
                }
                self.send_interim(&head).await?;
            }
            ahead = rest;
        }
        Err(ExchangeError::Response(BadMessage::TooManyInterim))
    }

    /// Passes the response on whose head has come.
    pub(super) async fn pass(
        &mut self,
        held: &mut HeldResponse,
    ) -> Result<Response, ExchangeError> {
        match self.heads.from.is_switch() {
            true => self.switch(held).await,
            false => self.pass_response(held).await,
        }
    }

    /// Passes on the head of a response behind which other bytes follow.
    async fn switch(&mut self, held: &mut HeldResponse) -> Result<Response, ExchangeError> {
        held.detach();
        let status = self.heads.from.response().status();
        let status = self.send.status_of_switch(status);
        self.heads.progress.record.status.set(status);
        self.send_interim(&held.head).await?;
        Ok(Response::Switched)
    }

    /// More of a body: only silence ends it, and slowness where that is no matter
    /// of what the client has yet to send.
    async fn receive_body(&mut self) -> Result<Chunk, ExchangeError> {
        if let Some(chunk) = self.heads.from.try_recv() {
            return Ok(chunk);
        }
        let Heads {
            deadlines,
            progress,
            from,
            ..
        } = &self.heads;
        let patience = deadlines.patience(deadlines.idle(), Part::Sends);
        let sent = || {
            let bytes = progress.record.passage.bytes_out.get() as i64;
            progress.body_read.get().then_some(bytes)
        };
        match within(patience, &mut self.sends, from.recv(), sent).await {
            Ok(received) => ended_or(received),
            Err(PeerTimeout::Silent) => Err(ExchangeError::Expired(Limit::Idle)),
            Err(PeerTimeout::TooSlow) => Err(ExchangeError::SlowResponse),
        }
    }

    /// Sends a head behind which more of a response, or another protocol, follows.
    async fn send_interim(&mut self, head: &[u8]) -> Result<(), ExchangeError> {
        let (response, plan) = (self.heads.from.response(), ResponsePlan::INTERIM);
        let begun = self.send.respond(response, head, plan, None, End::More);
        self.sent(begun).await
    }

    /// Waits until the caller has been sent what has begun.
    async fn sent(&mut self, mut begun: Begun<'_>) -> Result<(), ExchangeError> {
        self.until_read(&mut begun.sending).await?;
        self.count(&begun);
        Ok(())
    }

    #[inline(always)]
    fn count(&self, begun: &Begun<'_>) {
        let passage = &self.heads.progress.record.passage;
        self.context
            .telemetry
            .cells
            .meter(passage, Direction::Received, begun.bytes);
    }

    /// Waits for what is over when the client has read enough.
    async fn until_read(
        &mut self,
        sent: impl Future<Output = Result<(), SendError>>,
    ) -> Result<(), ExchangeError> {
        let (caller, deadlines) = (self.send, self.heads.deadlines);
        let patience = deadlines.patience(deadlines.idle(), Part::Reads);
        let taken = || Some(caller.taken());
        match within(patience, &mut self.reads, sent, taken).await {
            Ok(Ok(())) => Ok(()),
            Err(PeerTimeout::TooSlow) => Err(ExchangeError::SlowReader),
            Ok(Err(error)) => Err(self.not_sent(&error)),
            Err(PeerTimeout::Silent) => Err(ExchangeError::ClientGone),
        }
    }

    /// Why a part of the response has not gone to the caller.
    #[cold]
    fn not_sent(&self, error: &SendError) -> ExchangeError {
        let error = ExchangeError::of_client(&error.source);
        if let ExchangeError::Response(_) = error {
            // Not even its head: another one may.
            self.heads.progress.record.status.set(0);
        }
        error
    }

    /// Passes a final response on, head and body.
    async fn pass_response(&mut self, held: &mut HeldResponse) -> Result<Response, ExchangeError> {
        // What the caller still sends of its body is no request.
        let is_early = !self.heads.progress.body_read.get();
        let next = match is_early || self.context.drain.has_begun() {
            true => NextRequest::Refused,
            false => NextRequest::Allowed,
        };
        let from = &mut self.heads.from;
        let plan = self.send.plan(from.response(), next);
        let plan = plan.map_err(ExchangeError::Response)?;
        let first_part = from.begin_body(plan.framing, held.rest.take());
        let first_part = first_part.map_err(ExchangeError::Response)?;
        let was_whole = from.is_whole();
        let status = from.response().status();
        self.heads.progress.record.status.set(status);
        if self.facts.is_call {
            self.look_at_head(&held.head);
        }
        let (response, end) = (self.heads.from.response(), self.heads.from.end());
        let mut begun = self
            .send
            .respond(response, &held.head, plan, first_part, end);
        // Most is taken at once, and needs no limit.
        match at_once(&mut begun.sending).await {
            Poll::Ready(sent) => sent.map_err(|error| self.not_sent(&error))?,
            Poll::Pending => {
                // A caller that reads nothing holds no shared buffer.
                held.head = Chunk::from(Vec::new());
                self.until_read(&mut begun.sending).await?;
            }
        }
        self.count(&begun);
        let forwarded_at = clock::now();
        self.heads.progress.forwarded_at.set(Some(forwarded_at));

        if !was_whole || plan.after == After::Close {
            // The shared buffer that it is in is free again.
            held.head = Chunk::from(Vec::new());
        }
        if !was_whole {
            self.pass_body(plan.framing).await?;
        }
        if self.facts.is_call {
            self.look_at_end(status);
        }
        if plan.after == After::Close {
            let flushed = self.send.flush();
            self.until_read(flushed).await?;
        }
        Ok(Response::Complete {
            reuse: self.heads.from.reuse(),
            after: plan.after,
            ended: match was_whole {
                true => forwarded_at,
                false => clock::now(),
            },
        })
    }

    /// Notes what the response to a call says, as far as it has come.
    #[inline(never)]
    fn look_at_head(&self, head: &[u8]) {
        let response = self.heads.from.response();
        self.note(Verdict::of_call(response, head, self.trailers()));
    }

    /// The same where all of it has been passed on, and its head did not tell.
    #[inline(never)]
    fn look_at_end(&self, status: u16) {
        if self.heads.progress.end.get() == Some(Verdict::Open) {
            let trailers = self.trailers().unwrap_or_default();
            self.note(Verdict::of_trailers(status, trailers));
        }
    }

    fn note(&self, verdict: Verdict) {
        let progress = &self.heads.progress;
        let code = verdict.code().map(GrpcStatus::from);
        progress.record.grpc_status.set(code);
        progress.end.set(Some(verdict));
    }

    /// A list of the trailers, where all has come.
    fn trailers(&self) -> Option<&[u8]> {
        match self.heads.from.end() {
            End::Whole(trailers) => Some(trailers),
            End::More => None,
        }
    }

    /// Passes on what is still to come of a body.
    async fn pass_body(&mut self, framing: Framing) -> Result<(), ExchangeError> {
        while !self.heads.from.is_whole() {
            let chunk = match self.receive_body().await {
                Ok(chunk) => chunk,
                Err(ExchangeError::Ended) if self.heads.from.ends_here() => {
                    return match self.send.end() {
                        Some(begun) => self.sent(begun).await,
                        None => Ok(()),
                    };
                }
                Err(error @ (ExchangeError::SlowResponse | ExchangeError::Shortage)) => {
                    return Err(error);
                }
                Err(_) => return Err(ExchangeError::Cut(None)),
            };
            let from = &mut self.heads.from;
            let mut gather = Gather::default();
            let mut next = Some(chunk);
            while let Some(chunk) = next.take() {
                let part = from.take_body(chunk);
                gather.push(part.map_err(|bad| ExchangeError::Cut(Some(bad)))?);
                if !from.is_whole() && gather.has_room() {
                    next = from.try_recv();
                }
            }
            let begun = self.send.pass(gather, framing, self.heads.from.end());
            self.sent(begun).await?;
        }
        Ok(())
    }
}
