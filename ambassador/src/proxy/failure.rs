//! How a try of a request fails, and what that says.

use crate::http::{BadMessage, Reason};
use crate::policy::breaker::Trial;
use crate::policy::concurrency::Sample;
use crate::policy::retry::Cause;
use crate::proxy::deadlines::Limit;
use crate::proxy::exchange::ExchangeError;
use crate::proxy::generation::Target;
use crate::ring;
use crate::telemetry::AttemptOutcome;
use crate::upstream::balancer::{Grade, Picked};
use crate::upstream::dial::DialError;
use crate::upstream::pool::CheckoutError;

/// How a try ended badly.
#[derive(Debug)]
pub enum Failure {
    /// Without a response. Another try may have one.
    Unanswered(Unanswered),
    /// The request body is malformed.
    BadRequest(BadMessage),
    /// The response was cut after the client had been sent a part.
    Cut,
    /// The client is gone.
    ClientGone,
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered {
    /// What the client is told where no other try follows.
    pub reason: Reason,
    /// What it is as a cause of another try; `None`: none.
    pub cause: Option<Cause>,
    outcome: AttemptOutcome,
    /// It speaks against the upstream.
    blames_upstream: bool,
}

impl Unanswered {
    /// The request's time is over, and nothing was learnt of the upstream.
    pub(super) const OUT_OF_TIME: Self = Self {
        reason: Reason::RequestTimeout,
        cause: None,
        outcome: AttemptOutcome::RequestTimeout,
        blames_upstream: false,
    };

    /// The connection has ended that is the client's own, between two requests:
    /// nobody's fault, and no other can stand in.
    pub(super) const LOST: Self = Self {
        reason: Reason::UpstreamReset,
        cause: None,
        outcome: AttemptOutcome::Reset,
        blames_upstream: false,
    };

    pub(super) fn reset() -> Self {
        Self {
            reason: Reason::UpstreamReset,
            cause: Some(Cause::Reset),
            outcome: AttemptOutcome::Reset,
            blames_upstream: true,
        }
    }

    pub(super) fn expired(limit: Limit) -> Self {
        let (reason, cause, outcome) = match limit {
            Limit::Idle => (Reason::RequestTimeout, None, AttemptOutcome::IdleTimeout),
            Limit::Request => (Reason::RequestTimeout, None, AttemptOutcome::RequestTimeout),
            Limit::Try => {
                let cause = Some(Cause::TryTimeout);
                (Reason::TryTimeout, cause, AttemptOutcome::TryTimeout)
            }
        };
        Self {
            reason,
            cause,
            outcome,
            blames_upstream: true,
        }
    }

    /// Why there is no connection. A lack of places, and an address that is this
    /// proxy's own, say nothing about the upstream.
    pub fn without_connection(error: &CheckoutError) -> Self {
        use AttemptOutcome::{ConnectFailed, ConnectTimeout};
        let failure = Some(Cause::ConnectFailure);
        let (reason, cause, outcome) = match error {
            CheckoutError::Overloaded => (Reason::Overloaded, None, ConnectFailed),
            CheckoutError::PendingTimeout => (Reason::ConnectTimeout, None, ConnectTimeout),
            CheckoutError::Dial(DialError::Loop) => (Reason::Loop, None, ConnectFailed),
            CheckoutError::Dial(DialError::Timeout) => {
                (Reason::ConnectTimeout, failure, ConnectTimeout)
            }
            CheckoutError::Dial(DialError::Connect(_)) => {
                (Reason::ConnectFailed, failure, ConnectFailed)
            }
        };
        Self {
            reason,
            cause,
            outcome,
            blames_upstream: cause.is_some(),
        }
    }

    /// How the try is counted.
    pub fn outcome(&self) -> AttemptOutcome {
        self.outcome
    }

    /// Tells endpoint, breaker and adaptive limit of a try that ended like this.
    pub(super) fn report(&self, target: &Target, picked: &mut Picked, trial: Trial<'_>) {
        use Reason::{ConnectTimeout, Overloaded, RequestTimeout, TryTimeout};
        let now = ring::now();
        // Nothing came in time, or there was no place for it.
        if matches!(
            self.reason,
            ConnectTimeout | Overloaded | RequestTimeout | TryTimeout
        ) {
            target.report_load(Sample::Dropped, now);
        }
        if self.blames_upstream {
            let grade = Grade::Bad { retry_after: None };
            picked.ended(grade, &target.upstream.policies.outlier, now);
            trial.failed(now);
        }
    }
}

impl Failure {
    /// That of an exchange; what may be sent again is another matter.
    pub(super) fn of(error: &ExchangeError) -> Self {
        match error {
            ExchangeError::Unsent(_)
            | ExchangeError::Send
            | ExchangeError::Ended
            | ExchangeError::Stale => Self::Unanswered(Unanswered::reset()),
            ExchangeError::Response(_) => Self::Unanswered(Unanswered {
                reason: Reason::ProtocolError,
                cause: None,
                outcome: AttemptOutcome::ProtocolError,
                blames_upstream: true,
            }),
            ExchangeError::Expired(limit) => Self::Unanswered(Unanswered::expired(*limit)),
            ExchangeError::Request(bad) => Self::BadRequest(*bad),
            ExchangeError::Cut => Self::Cut,
            ExchangeError::ClientGone => Self::ClientGone,
        }
    }

    /// Tells endpoint and breaker of a try that ended like this. Only what has no
    /// response says anything about them.
    pub(super) fn report(&self, target: &Target, picked: &mut Picked, trial: Trial<'_>) {
        if let Self::Unanswered(unanswered) = self {
            unanswered.report(target, picked, trial);
        }
    }

    pub(super) fn outcome(&self) -> AttemptOutcome {
        match self {
            Self::Unanswered(unanswered) => unanswered.outcome,
            Self::Cut => AttemptOutcome::Reset,
            Self::BadRequest(_) | Self::ClientGone => AttemptOutcome::Cancelled,
        }
    }
}
