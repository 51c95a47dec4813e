//! What the response to a request on its way says, and whether it may be held back.

use crate::proxy::answer::Response;
use crate::proxy::attempt::{Body, Try};
use crate::proxy::deadlines::Limit;
use crate::proxy::failure::Failure;
use crate::proxy::sending::{AnsweredTry, HoldBack, Sending};
use crate::proxy::verdict::{Answer, Verdict};
use crate::route::settings::Protocol;

impl Sending<'_> {
    /// The response of which the head has come, for the policies.
    #[inline(always)]
    pub(crate) fn answer<'b>(&'b self, answered: &'b AnsweredTry) -> Answer<'b> {
        if self.is_judged_as_call() {
            return self.answer_to_call(answered);
        }
        let response = &*self.response;
        Answer {
            verdict: Verdict::Status(response.status()),
            is_whole: false,
            response,
            head: &answered.held.head,
        }
    }

    #[inline(never)]
    fn answer_to_call<'b>(&'b self, answered: &'b AnsweredTry) -> Answer<'b> {
        let (response, head) = (&*self.response, &*answered.held.head);
        let trailers = answered.outbound.trailers_at_hand();
        let verdict = Verdict::of_call(response, head, trailers.as_deref());
        Answer {
            verdict: verdict.within(self.deadlines.told()),
            is_whole: trailers.is_some(),
            response,
            head,
        }
    }

    /// Whether the code of its end is what counts.
    #[inline(always)]
    fn is_judged_as_call(&self) -> bool {
        self.facts.is_call && self.target().upstream.protocol == Protocol::Grpc
    }

    /// Whether it is sent again where its server has refused it.
    pub(crate) fn repeats_refused_calls(&self) -> bool {
        let retry = &self.target().upstream.policies.retry;
        self.is_judged_as_call() && retry.repeats_refused_calls()
    }

    /// Whether a response is held back for another try. Not where an interim one went to
    /// the client: it was answered.
    #[inline(always)]
    pub(crate) fn may_hold(&self, one: &Try<'_>, answer: Answer<'_>, hold_back: HoldBack) -> bool {
        if answer.response.status() == 101 || !self.progress.is_unanswered() {
            return false;
        }
        match hold_back {
            HoldBack::Forbidden => false,
            HoldBack::Allowed => one.cause_in(answer).is_some(),
            HoldBack::Refused => {
                let retry = &self.target().upstream.policies.retry;
                answer.is_refused_call()
                    && self.replay.is_whole_after_refusal()
                    && one
                        .cause_in(answer)
                        .is_some_and(|cause| retry.applies_to(cause))
            }
        }
    }

    /// What became of a body, by how it was passed on and what was known at its head.
    pub(crate) fn body_of(&self, passed: &Result<Response, Failure>, verdict: Verdict) -> Body {
        match (passed, verdict) {
            (Err(Failure::SlowResponse), _) => Body::Failed,
            (Err(Failure::Late), _) => Body::Ended(Verdict::Expired(Limit::Caller)),
            (Err(Failure::Cut(_)), Verdict::Open) => Body::Failed,
            (Ok(Response::Complete { .. }), Verdict::Open) => match self.progress.end.get() {
                Some(end) => Body::Ended(end.within(self.deadlines.told())),
                None => Body::Came,
            },
            _ => Body::Came,
        }
    }
}
