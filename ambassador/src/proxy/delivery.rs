//! What its caller gets in the end, however its request went.

use crate::clock;
use crate::message::{LocalReply, Reason, ResponseHead};
use crate::proxy::after::After;
use crate::proxy::delivered::{Complete, SwitchedLease};
use crate::proxy::downstream::Downstream;
use crate::proxy::failure::{Detail, Failure, Unanswered};
use crate::proxy::generation::Target;
use crate::proxy::refusal::Refusal;
use crate::proxy::reply::{answer, refuse};
use crate::proxy::request_facts::RequestFacts;
use crate::proxy::switch;
use crate::proxy::tries::TriesEnd;
use crate::telemetry::{Direction, ReasonLabel, RequestGuard};
use crate::upstream::balancer::Pick;
use crate::upstream::in_flight::Entered;

/// What a caller is told that was slow while others waited.
const SHED: &str = "given up: it was slow while others had to wait, or while memory was short";
/// What the log says of a response that was cut.
const SLOW_RESPONSE: &str = "the response came more slowly than timeouts.min_rate";
/// The same where the caller is at fault.
const SLOW_READER: &str = "the response was read more slowly than timeouts.min_rate";

/// How a request went.
pub(crate) enum Outcome<'a> {
    /// Its caller was answered; and why no other try was made.
    Complete(Complete, TriesEnd),
    /// The protocol was switched.
    Switched(Box<Switched<'a>>),
    /// Nothing of it was sent.
    Refused(Refusal),
    /// It was tried in vain; and why no other try was made.
    Failed(Failure, TriesEnd),
    /// Its caller has left.
    Left,
}

/// What a connection becomes another protocol's with.
pub(crate) struct Switched<'a> {
    /// The upstream's connection.
    pub to: Box<SwitchedLease>,
    /// The request is in flight to the end of the tunnel.
    pub _in_flight: Entered<'a>,
    /// So is its endpoint busy.
    pub _pick: Pick,
}

/// A request whose outcome is known.
pub(crate) struct Delivery<'a> {
    /// What of it decides about a reply.
    pub facts: RequestFacts,
    /// The head of the last response.
    pub response: &'a ResponseHead,
}

impl<'a> Delivery<'a> {
    /// It has ended, with so much of its body read.
    pub(crate) fn new(facts: RequestFacts, response: &'a ResponseHead) -> Self {
        Self { facts, response }
    }

    /// Its caller has been answered.
    pub(crate) fn complete(
        self,
        downstream: &Downstream<'_>,
        mut record: RequestGuard,
        complete: Complete,
        stopped: TriesEnd,
    ) -> After {
        record.reason = stopped.reason().map(ReasonLabel::from);
        record.complete(complete.ended);
        downstream.after(complete.after)
    }

    /// Gives its caller what there is to give.
    pub(crate) async fn deliver(
        self,
        downstream: &mut Downstream<'_>,
        mut record: RequestGuard,
        target: &Target,
        outcome: Outcome<'_>,
    ) -> After {
        let (failure, stopped) = match outcome {
            Outcome::Failed(failure, stopped) => (failure, stopped),
            Outcome::Complete(complete, stopped) => {
                return self.complete(downstream, record, complete, stopped);
            }
            Outcome::Switched(switched) => {
                let SwitchedLease { lease, first } = *switched.to;
                let caller = downstream.caller_end();
                return switch::tunnel(caller, record, target, lease, first).await;
            }
            Outcome::Refused(refusal) => return self.refuse(downstream, record, refusal).await,
            Outcome::Left => return self.leave(downstream, record).await,
        };
        match failure {
            Failure::Unanswered(unanswered) => {
                let refusal = self.unanswered(unanswered, stopped);
                self.refuse(downstream, record, refusal).await
            }
            Failure::BadRequest(bad) => {
                self.refuse(downstream, record, Refusal::Malformed(bad))
                    .await
            }
            Failure::Cut(malformed) => {
                if let Some(bad) = malformed {
                    record.explain(bad.text());
                }
                self.break_off(downstream, record, Reason::UpstreamReset)
                    .await
            }
            Failure::SlowResponse => {
                record.explain(SLOW_RESPONSE);
                self.break_off(downstream, record, Reason::UpstreamReset)
                    .await
            }
            Failure::Late => {
                self.break_off(downstream, record, Reason::RequestTimeout)
                    .await
            }
            Failure::SlowReader => {
                record.explain(SLOW_READER);
                cut(record, ReasonLabel::ClientGone)
            }
            Failure::ClientGone => self.leave(downstream, record).await,
        }
    }

    /// Turns a refusal into a reply: the one place that does. What has begun cannot
    /// be answered in another way.
    pub(crate) async fn refuse(
        self,
        downstream: &mut Downstream<'_>,
        mut record: RequestGuard,
        refusal: Refusal,
    ) -> After {
        let has_begun = record.status.get() != 0;
        match refusal {
            Refusal::Reset(reason) => cut(record, reason.into()),
            Refusal::Reply(reply) if has_begun => cut(record, reply.reason().into()),
            Refusal::Reply(reply) => answer(downstream, record, self.facts, reply).await,
            Refusal::Malformed(bad) if has_begun => {
                record.explain(bad.text());
                cut(record, bad.reason().into())
            }
            Refusal::Malformed(bad) => refuse(downstream, record, bad, b"").await,
        }
    }

    /// What a caller is told whose request has no response.
    fn unanswered(&self, unanswered: Unanswered, stopped: TriesEnd) -> Refusal {
        let reply = match stopped.reason() {
            Some(Reason::RetryBudget) => {
                LocalReply::new(Reason::RetryBudget).with_status_of(unanswered.reason)
            }
            stopped => LocalReply::new(stopped.unwrap_or(unanswered.reason)),
        };
        Refusal::Reply(match unanswered.detail {
            Some(Detail::Malformed(bad)) => {
                reply.with_detail(bad.about(self.response.fields().blamed()))
            }
            Some(Detail::Tls(outcome)) => reply.with_detail(outcome.as_str()),
            None => reply,
        })
    }

    /// Ends a response of which a part has gone out. A call ends with a code; whoever
    /// has made another request sees the reset alone.
    async fn break_off(
        self,
        downstream: &mut Downstream<'_>,
        mut record: RequestGuard,
        reason: Reason,
    ) -> After {
        let reply = LocalReply::new(reason).for_call(self.facts.is_call);
        let Some(code) = reply.code() else {
            return cut(record, reason.into());
        };
        record.reason = Some(reason.into());
        let Some(length) = downstream.end_call(&reply).await else {
            return After::Reset;
        };
        record.grpc_status.set(Some(code.into()));
        record.passage.count(Direction::Received, length);
        record.complete(clock::now());
        downstream.after(After::KeepAlive)
    }

    /// Its caller has left, or was made to.
    async fn leave(self, downstream: &mut Downstream<'_>, record: RequestGuard) -> After {
        let is_unanswered = record.passage.bytes_out.get() == 0;
        if downstream.client().member.is_shed() && is_unanswered {
            let reply = LocalReply::new(Reason::Overloaded).with_detail(SHED);
            return answer(downstream, record, self.facts, reply).await;
        }
        cut(record, downstream.departure())
    }
}

/// Its connection is reset.
fn cut(mut record: RequestGuard, reason: ReasonLabel) -> After {
    record.reason = Some(reason);
    After::Reset
}
