//! A credential that the upstream refuses is fetched anew, and the request sent once
//! more with the fresh one, within its try.

use std::pin::Pin;
use std::time::Duration;

use crate::proxy::attempt::Try;
use crate::proxy::failure::Failure;
use crate::proxy::heads::Interims;
use crate::proxy::sending::{AnsweredTry, Sending};
use crate::ring::{self, Gather, timer};
use crate::telemetry::{AttemptOutcome, RetryCause};
use crate::upstream::credential::Renewal;

/// How long a request waits at most for a credential in place of a refused one.
const RENEWED_WITHIN: Duration = Duration::from_secs(5);

impl Sending<'_> {
    /// Tries as the policies count them: one that was made because of a stale
    /// credential takes nothing from those that the upstream may fail.
    pub(crate) fn tries_made(&self) -> u16 {
        let again = u16::from(self.presented.is_renewed);
        self.record.attempts.get().saturating_sub(again)
    }

    /// Whether the response that has come refuses the credential (RFC 9110 section
    /// 15.5.2).
    #[inline(always)]
    pub(crate) fn is_refused(&self) -> bool {
        self.presented.number != 0 && self.response.status() == 401
    }

    /// Has the refused credential replaced. Sends the request once more where it can
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
        let Some(credential) = &self.target().credential else {
            return Ok(answered);
        };
        let number = self.presented.number;
        credential.refuse(number, ring::now());
        let may_go_again = !self.presented.is_renewed
            && self.replay.is_whole_after_refusal()
            && self.progress.is_unanswered();
        if !may_go_again {
            return Ok(answered);
        }
        answered.held.detach();
        let latest = ring::now() + RENEWED_WITHIN;
        let of_request = self.deadlines.of_request();
        let until = of_request.map_or(latest, |until| until.min(latest));
        let renewal = timer::timeout_at(until, credential.renewed(number, ring::now));
        if !matches!(renewal.await, Ok(Renewal::Done)) {
            return Ok(answered);
        }
        self.presented.is_renewed = true;
        one.end(AttemptOutcome::Response);
        let cells = &self.context.telemetry.cells;
        cells.retry(self.target().shared.label, RetryCause::Credential);
        self.give_way(answered);
        self.outgoing = self.replay.again_after_refusal().map(Gather::from);
        self.deadlines.begin_try(ring::now());
        self.ask(one, Interims::Pass).await
    }
}
