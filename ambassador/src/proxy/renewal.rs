//! A credential that the upstream refuses is fetched anew, and the request sent once
//! more with the fresh one, within its try.

use std::pin::Pin;
use std::time::Duration;

use crate::clock::Instant;
use crate::credential::aws_error;
use crate::proxy::attempt::Try;
use crate::proxy::failure::Failure;
use crate::proxy::heads::Interims;
use crate::proxy::presented::Presented;
use crate::proxy::sending::{AnsweredTry, Sending};
use crate::ring::{self, timer};
use crate::telemetry::{AttemptOutcome, RetryCause};
use crate::upstream::credential::Renewal;

/// How long a request waits at most for a credential in place of a refused one.
const RENEWED_WITHIN: Duration = Duration::from_secs(5);

/// How long the beginning of a body is waited for that may say so.
const BODY_WITHIN: Duration = Duration::from_secs(1);

impl Sending<'_> {
    /// Tries as the policies count them: one that was made because of a stale
    /// credential takes nothing from those that the upstream may fail.
    pub(crate) fn tries_made(&self) -> u16 {
        let again = u16::from(self.presented.as_ref().is_some_and(|it| it.is_renewed));
        self.record.attempts.get().saturating_sub(again)
    }

    /// Whether the response that has come may refuse the credential.
    #[inline(always)]
    pub(crate) fn may_be_refused(&self) -> bool {
        self.presented.is_some() && matches!(self.response.status(), 400 | 401 | 403)
    }

    /// Has a refused credential replaced. Sends the request once more where it can
    /// be, else gives the response back that there is. Boxed and out of the way, as it is
    /// rare.
    #[cold]
    #[inline(never)]
    pub(crate) fn ask_renewed<'s>(
        &'s mut self,
        one: &'s mut Try<'_>,
        answered: AnsweredTry,
    ) -> Pin<Box<dyn Future<Output = Result<AnsweredTry, Failure>> + 's>> {
        Box::pin(self.renew_and_ask(one, answered))
    }

    async fn renew_and_ask(
        &mut self,
        one: &mut Try<'_>,
        mut answered: AnsweredTry,
    ) -> Result<AnsweredTry, Failure> {
        let Some(presented) = &self.presented else {
            return Ok(answered);
        };
        let is_renewed = presented.is_renewed;
        if !self.is_refused(&mut answered).await {
            return Ok(answered);
        }
        self.refuse_presented(presented);
        let may_go_again =
            !is_renewed && self.replay.is_whole_after_refusal() && self.progress.is_unanswered();
        if !may_go_again {
            return Ok(answered);
        }
        answered.held.detach();
        let until = self.renewal_until(RENEWED_WITHIN);
        let renewal = timer::timeout_at(until, self.presented_renewed(presented));
        if !matches!(renewal.await, Ok(Renewal::Done)) {
            return Ok(answered);
        }
        self.presented.get_or_insert_default().is_renewed = true;
        one.is_notable();
        one.end(AttemptOutcome::Response);
        let cells = &self.context.telemetry.cells;
        cells.retry(self.target().shared.label, RetryCause::Credential);
        self.give_way(one, answered);
        self.deadlines.begin_try(ring::now());
        self.ask(one, Interims::Pass).await
    }

    /// Whether the response refuses the credential (RFC 9110 section 15.5.2). Where keys
    /// sign, it may say so in its body, whose beginning is taken in for that.
    async fn is_refused(&self, answered: &mut AnsweredTry) -> bool {
        let status = self.response.status();
        if status == 401 {
            return true;
        }
        let credential = self.target().credential();
        let signs = credential.is_some_and(|credential| credential.auth.signs());
        if !signs || !aws_error::STATUSES.contains(&status) {
            return false;
        }
        let fields = self.response.fields();
        match fields.value(&answered.held.head, aws_error::ERROR_TYPE_FIELD) {
            Some(value) => aws_error::type_says_keys_are_over(value),
            None => {
                let until = self.renewal_until(BODY_WITHIN);
                let begun = answered.begun_body(self.response, until).await;
                aws_error::body_says_keys_are_over(&begun)
            }
        }
    }

    /// The upstream has refused what the request carried.
    fn refuse_presented(&self, presented: &Presented) {
        let target = self.target();
        if let Some(credential) = target.credential()
            && presented.number != 0
        {
            credential.refuse(presented.number, ring::now());
        }
        if let Some(placeholders) = target.placeholders()
            && presented.secrets != 0
        {
            placeholders.refuse(presented.secrets, ring::now());
        }
    }

    /// Until there is something else to carry, or it is known that there is not.
    async fn presented_renewed(&self, presented: &Presented) -> Renewal {
        let target = self.target();
        let mut renewal = Renewal::Failed;
        if let Some(credential) = target.credential()
            && presented.number != 0
        {
            renewal = credential.renewed(presented.number, ring::now).await;
        }
        if let Some(placeholders) = target.placeholders()
            && presented.secrets != 0
            && renewal == Renewal::Failed
        {
            renewal = placeholders.renewed(presented.secrets, ring::now).await;
        }
        renewal
    }

    /// In this time from now, or when that of the request is over.
    fn renewal_until(&self, within: Duration) -> Instant {
        let latest = ring::now() + within;
        let of_request = self.deadlines.of_request();
        of_request.map_or(latest, |until| until.min(latest))
    }
}
