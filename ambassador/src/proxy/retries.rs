//! One try of a request after another, until there is an answer, or no reason and
//! no way to make one more.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::combinators::rarely;
use crate::policy::retry::{Cause, Resend, RetryInput};
use crate::proxy::attempt::Try;
use crate::proxy::delivered::Delivered;
use crate::proxy::failure::Failure;
use crate::proxy::heads::Interims;
use crate::proxy::routing::{self, Incoming};
use crate::proxy::sending::{AnsweredTry, Handover, HoldBack, Sending};
use crate::proxy::tries::{Tries, TriesEnd};
use crate::proxy::verdict::Score;
use crate::ring;
use crate::telemetry::Rule;

/// How a try ended well.
enum Tried {
    /// The client has been answered.
    Delivered(Delivered),
    /// There is a response, of which nothing has gone to the client.
    Held(Box<AnsweredTry>),
}

/// How a try has ended whose response has not gone to the client: one may be held
/// back.
type Undelivered = Result<Box<AnsweredTry>, Failure>;

/// How the last try ended, and why no other one followed.
type RunEnd = (Result<Delivered, Failure>, TriesEnd);

impl Sending<'_> {
    /// Makes one try after another. Says how the last one ended, and why no other
    /// one followed.
    pub(crate) async fn run<'t>(&mut self, tries: &mut Tries<'t>, one: &mut Try<'t>) -> RunEnd {
        loop {
            let is_last = self.tries_made() + 1 >= tries.most();
            let resend = match !is_last && one.may_be_repeated() {
                true => Resend::Allowed,
                false => Resend::Forbidden,
            };
            let tried = match self.attempt(tries, one, resend).await {
                Ok(Tried::Delivered(delivered)) => {
                    if one.is_told_of() {
                        self.tell_why_it_stands(tries, resend);
                    }
                    return (Ok(delivered), TriesEnd::Done);
                }
                Ok(Tried::Held(answered)) => Ok(answered),
                Err(failure) => Err(failure),
            };
            let after = rarely(self.after(tries, one, tried, resend)).await;
            if let ControlFlow::Break(ended) = after {
                return ended;
            }
        }
    }

    /// Goes on after a try that did not answer the client: waits until there may be
    /// another one, or ends the request.
    async fn after<'t>(
        &mut self,
        tries: &mut Tries<'t>,
        one: &mut Try<'t>,
        tried: Undelivered,
        resend: Resend,
    ) -> ControlFlow<RunEnd> {
        let stopped = match self.again(tries, one, &tried, resend).await {
            Ok(()) => {
                if let Ok(answered) = tried {
                    self.give_way(one, *answered);
                }
                return ControlFlow::Continue(());
            }
            Err(stopped) => stopped,
        };
        one.conclude(self.score(&tried, one));
        let result = match tried {
            Ok(mut answered) => {
                let passed = self.pass(one, &mut answered).await;
                passed.map(|response| self.passed(*answered, response))
            }
            Err(failure) => Err(failure),
        };
        ControlFlow::Break((result, stopped))
    }

    /// Waits until another try is due, where there is a reason for one and a way to make
    /// it. Else says why there is none.
    async fn again<'t>(
        &self,
        tries: &mut Tries<'t>,
        one: &mut Try<'t>,
        tried: &Undelivered,
        resend: Resend,
    ) -> Result<(), TriesEnd> {
        let Some(cause) = self.cause(tried, one) else {
            return Err(tries.stop(self.rule_of_end(tried), TriesEnd::Done));
        };
        if let Some(rule) = self.rule_against(tries, tried, resend) {
            return Err(tries.stop(rule, TriesEnd::Done));
        }
        let input = RetryInput {
            cause,
            tries: self.tries_made(),
            resend: Resend::Allowed,
            place: tries.place_after(one),
            retry_after: self.retry_after(tried),
            deadline: self.deadlines.of_request(),
        };
        tries.next(one, input).await
    }

    /// Makes one try, and a second one beside it where that may help.
    async fn attempt<'t>(
        &mut self,
        tries: &Tries<'t>,
        one: &mut Try<'t>,
        resend: Resend,
    ) -> Result<Tried, Failure> {
        self.record.is_tried_at(one.endpoint());
        self.deadlines.begin_try(ring::now());
        let hold_back = match resend {
            Resend::Allowed if self.replay.is_whole() => HoldBack::Allowed,
            Resend::Allowed if self.repeats_refused_calls() => HoldBack::Refused,
            _ => HoldBack::Forbidden,
        };
        let mut answered = match self.second(one, resend) {
            None => self.ask(one, Interims::Pass).await?,
            Some(second) => self.ask_beside(one, tries, second).await?,
        };
        if self.may_be_refused() {
            answered = self.ask_renewed(one, answered).await?;
        }
        Ok(match self.take(one, &mut answered, hold_back).await? {
            Handover::Passed(response) => Tried::Delivered(self.passed(answered, response)),
            Handover::Held => Tried::Held(Box::new(answered)),
        })
    }

    /// Why a bad response went to the client.
    #[cold]
    fn tell_why_it_stands(&self, tries: &Tries<'_>, resend: Resend) {
        let rule = self.rule_against_resend(tries, resend);
        let rule = rule.or_else(|| (!self.replay.is_whole()).then(|| self.rule_of_replay()));
        tries.stop(rule.unwrap_or(Rule::On), TriesEnd::Done);
    }

    /// Why an end is no cause of another try.
    fn rule_of_end(&self, tried: &Undelivered) -> Rule {
        match tried {
            Ok(_) | Err(Failure::Unanswered(_)) => Rule::On,
            Err(_) => Rule::HasBegun,
        }
    }

    /// What forbids another try, whatever the cause of one is.
    fn rule_against(&self, tries: &Tries<'_>, tried: &Undelivered, resend: Resend) -> Option<Rule> {
        let rule = self.rule_against_resend(tries, resend);
        if rule.is_some() || self.can_send_again(tried) {
            return rule;
        }
        Some(match self.progress.is_unanswered() {
            true => self.rule_of_replay(),
            false => Rule::HasBegun,
        })
    }

    fn rule_against_resend(&self, tries: &Tries<'_>, resend: Resend) -> Option<Rule> {
        match resend {
            Resend::Allowed => None,
            Resend::Forbidden if self.tries_made() >= tries.most() => Some(Rule::Attempts),
            // The probe of a circuit is one try.
            Resend::Forbidden => Some(Rule::CircuitBreaker),
        }
    }

    /// Why the request is not kept to be sent again.
    fn rule_of_replay(&self) -> Rule {
        let Incoming { request, head, .. } = self.incoming;
        let policies = &self.target().upstream.policies;
        match routing::may_be_sent_twice(policies, request, head) {
            true => Rule::BodyLimit,
            false => Rule::Methods,
        }
    }

    /// Whether the request may be sent after that.
    fn can_send_again(&self, tried: &Undelivered) -> bool {
        match tried {
            // It was held back for that.
            Ok(_) => self.replay.is_whole_after_refusal(),
            Err(_) => self.outgoing.is_some(),
        }
    }

    /// What of a try's end is a cause of another one.
    fn cause(&self, tried: &Undelivered, one: &Try<'_>) -> Option<Cause> {
        let cause = match tried {
            Ok(answered) => return one.cause_in(self.answer(answered)),
            Err(Failure::Unanswered(unanswered)) => unanswered.cause,
            Err(_) => None,
        };
        cause.filter(|cause| one.is_cause(*cause))
    }

    /// What the breaker is told of a request of which this was the last try, where
    /// it was not told; `None`: nothing.
    fn score(&self, tried: &Undelivered, one: &Try<'_>) -> Option<Score> {
        match tried {
            Ok(answered) => {
                let score = one.score_of(self.answer(answered));
                score.filter(|_| !self.progress.withheld.is_long(ring::now))
            }
            Err(failure) => failure.score(),
        }
    }

    /// How long the upstream asks its callers to stay away.
    fn retry_after(&self, tried: &Undelivered) -> Option<Duration> {
        let answered = tried.as_ref().ok()?;
        self.answer(answered).retry_after()
    }
}
