//! A new connection that carries no requests: for a relay or CONNECT. For a CONNECT to
//! what speaks HTTP/2 it is a place on a connection that is shared.

use crate::policy::retry::{Cause, Resend, RetryInput};
use crate::proxy::attempt::Try;
use crate::proxy::caller::Caller;
use crate::proxy::failure::{Failure, Unanswered};
use crate::proxy::tries::{Tries, TriesEnd};
use crate::upstream::pool::{Freshness, Leased};

/// Connects where `one` goes, and where that cannot be reached to the next ones:
/// an endpoint that refuses is none that others must suffer for. `on_try` is told
/// of each try.
pub(crate) async fn reach<'a>(
    tries: &mut Tries<'a>,
    one: &mut Try<'a>,
    caller: Caller<'_>,
    mut on_try: impl FnMut(&mut Try<'a>),
) -> Result<Leased, Unanswered> {
    let mut count = 0;
    loop {
        on_try(one);
        count += 1;
        let unanswered = match one.reach(caller, Freshness::New, None).await {
            Ok(leased) => return Ok(leased),
            Err(unanswered) => unanswered,
        };
        one.has_failed(&Failure::Unanswered(unanswered));
        let is_cause = |cause: &Cause| *cause == Cause::ConnectFailure && one.is_cause(*cause);
        let input = unanswered.cause.filter(is_cause).map(|cause| RetryInput {
            cause,
            tries: count,
            resend: match count < tries.most() && one.has_alternatives() {
                true => Resend::Allowed,
                false => Resend::Forbidden,
            },
            place: tries.place_after(one),
            retry_after: None,
            deadline: None,
        });
        let next = match input {
            Some(input) => tries.next(one, input).await,
            None => Err(TriesEnd::Done),
        };
        if next.is_err() {
            one.conclude(unanswered.score());
            return Err(unanswered);
        }
    }
}
