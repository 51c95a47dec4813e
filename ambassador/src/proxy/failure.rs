//! How a try of a request fails, who is at fault, and what that says.

use crate::message::{BadMessage, Reason};
use crate::policy::retry::Cause;
use crate::proxy::answer::ExchangeError;
use crate::proxy::deadlines::Limit;
use crate::proxy::shortage::is_shortage;
use crate::proxy::verdict::Score;
use crate::telemetry::{AttemptOutcome, TlsOutcome};
use crate::upstream::dial::DialError;
use crate::upstream::pool::CheckoutError;

/// How a try ended badly.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Without a response. Another try may have one.
    Unanswered(Unanswered),
    /// The request body is malformed.
    BadRequest(BadMessage),
    /// The response was cut after the client had been sent a part.
    Cut(Option<BadMessage>),
    /// The same because its body came too slowly.
    SlowResponse,
    /// The time that its caller gave a call was over amid the response.
    Late,
    /// The client reads its response too slowly.
    SlowReader,
    /// The client is gone.
    ClientGone,
}

/// Whose fault it is that there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The caller's: its own time limit was the shorter one, it withholds its
    /// body, speaks HTTP/1.0 alone, or one side takes no heads as large as those of
    /// the other.
    Caller,
    /// This machine's: it lacks descriptors, ports, memory, a credential or its
    /// identity, or the address leads back to it.
    Machine,
    /// Nobody's: the limits of the pool were reached.
    Pool,
    /// Nobody's: a connection ended while no request was on its way.
    Nobody,
    /// The endpoint's. It alone counts for breaker and ejection.
    Endpoint,
}

/// What exactly is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// With what the upstream sent.
    Malformed(BadMessage),
    /// With the TLS handshake.
    Tls(TlsOutcome),
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unanswered {
    /// What the client is told where no other try follows.
    pub reason: Reason,
    /// What it is as a cause of another try; `None`: none.
    pub cause: Option<Cause>,
    /// Who is at fault.
    pub fault: Fault,
    /// What exactly is wrong, where the reason leaves that open.
    pub detail: Option<Detail>,
    outcome: AttemptOutcome,
}

impl Unanswered {
    /// The connection ended before a response.
    pub(super) const RESET: Self = Self {
        reason: Reason::UpstreamReset,
        cause: Some(Cause::Reset),
        fault: Fault::Endpoint,
        detail: None,
        outcome: AttemptOutcome::Reset,
    };

    /// The connection has ended that is the client's own, between two requests:
    /// nobody's fault, and no other can stand in.
    pub(super) const LOST: Self = Self {
        reason: Reason::UpstreamReset,
        cause: None,
        fault: Fault::Nobody,
        detail: None,
        outcome: AttemptOutcome::Reset,
    };

    /// Its head is larger than the endpoint takes, and was not sent.
    const OVERSIZED: Self = Self {
        reason: Reason::HeadersTooLarge,
        cause: None,
        fault: Fault::Caller,
        detail: Some(Detail::Malformed(BadMessage::TooLargeForUpstream)),
        outcome: AttemptOutcome::HeadersTooLarge,
    };

    /// This machine lacks descriptors, ports or memory.
    const SHORTAGE: Self = Self {
        reason: Reason::Overloaded,
        cause: None,
        fault: Fault::Machine,
        detail: None,
        outcome: AttemptOutcome::Overloaded,
    };

    /// No TLS session came about, or none that the endpoint goes on with.
    fn tls(outcome: TlsOutcome) -> Self {
        // Another endpoint may be better at it only where nobody has spoken.
        let may_be_better = outcome == TlsOutcome::Closed;
        let fault = match outcome {
            TlsOutcome::NoIdentity => Fault::Machine,
            _ => Fault::Endpoint,
        };
        Self {
            reason: Reason::TlsFailed,
            cause: may_be_better.then_some(Cause::ConnectFailure),
            fault,
            detail: Some(Detail::Tls(outcome)),
            outcome: AttemptOutcome::TlsFailed,
        }
    }

    /// There is no valid credential: nothing is sent without one.
    pub(super) const WITHOUT_CREDENTIAL: Self = Self {
        reason: Reason::AuthUnavailable,
        cause: None,
        fault: Fault::Machine,
        detail: None,
        outcome: AttemptOutcome::AuthUnavailable,
    };

    /// Another configuration is in force, and leads to none that this may go to.
    pub(super) const OUTGROWN: Self = Self {
        reason: Reason::NoEndpoint,
        cause: None,
        fault: Fault::Machine,
        detail: None,
        outcome: AttemptOutcome::ConnectFailed,
    };

    pub(super) fn malformed(bad: BadMessage) -> Self {
        let (cause, fault) = match bad {
            // Sound, but its client knows no such thing.
            BadMessage::CodedForOldCaller | BadMessage::TooLargeForCaller => (None, Fault::Caller),
            // It is well, and does not do this.
            BadMessage::NoExtendedConnect | BadMessage::NotSwitched | BadMessage::Http1Required => {
                (None, Fault::Nobody)
            }
            _ => (Some(Cause::Malformed), Fault::Endpoint),
        };
        Self {
            reason: Reason::ProtocolError,
            cause,
            fault,
            detail: Some(Detail::Malformed(bad)),
            outcome: AttemptOutcome::ProtocolError,
        }
    }

    pub(super) fn expired(limit: Limit) -> Self {
        let (reason, cause, outcome) = match limit {
            Limit::Idle => (Reason::RequestTimeout, None, AttemptOutcome::IdleTimeout),
            Limit::Rate => (Reason::RequestTimeout, None, AttemptOutcome::TooSlow),
            Limit::Request | Limit::Caller => {
                (Reason::RequestTimeout, None, AttemptOutcome::RequestTimeout)
            }
            Limit::Try => {
                let cause = Some(Cause::TryTimeout);
                (Reason::TryTimeout, cause, AttemptOutcome::TryTimeout)
            }
        };
        let fault = match limit {
            Limit::Caller => Fault::Caller,
            Limit::Idle | Limit::Rate | Limit::Request | Limit::Try => Fault::Endpoint,
        };
        Self {
            reason,
            cause,
            fault,
            detail: None,
            outcome,
        }
    }

    /// Why there is no connection.
    pub(crate) fn without_connection(error: &CheckoutError) -> Self {
        use AttemptOutcome::{ConnectFailed, ConnectTimeout};
        let failure = Some(Cause::ConnectFailure);
        let (reason, cause, outcome, fault) = match error {
            CheckoutError::Overloaded => (Reason::Overloaded, None, ConnectFailed, Fault::Pool),
            CheckoutError::PendingTimeout => {
                (Reason::ConnectTimeout, None, ConnectTimeout, Fault::Pool)
            }
            CheckoutError::Dial(DialError::Loop) => {
                (Reason::Loop, None, ConnectFailed, Fault::Machine)
            }
            CheckoutError::Dial(DialError::Socket(_)) => return Self::SHORTAGE,
            CheckoutError::Dial(DialError::Connect(error)) if is_shortage(error) => {
                return Self::SHORTAGE;
            }
            CheckoutError::Dial(DialError::Timeout) => (
                Reason::ConnectTimeout,
                failure,
                ConnectTimeout,
                Fault::Endpoint,
            ),
            CheckoutError::Dial(DialError::Connect(_)) => (
                Reason::ConnectFailed,
                failure,
                ConnectFailed,
                Fault::Endpoint,
            ),
            CheckoutError::Dial(DialError::Tls(error)) => return Self::tls(error.outcome),
        };
        Self {
            reason,
            cause,
            fault,
            detail: None,
            outcome,
        }
    }

    /// What the breaker is told of a request whose last try ended like this;
    /// `None`: nothing.
    pub(crate) fn score(&self) -> Option<Score> {
        (self.fault == Fault::Endpoint).then_some(Score::Failure)
    }

    /// Whether nothing came in time, or there was no place for it: the adaptive
    /// limit goes by that.
    pub(super) fn is_dropped(&self) -> bool {
        use Reason::{ConnectTimeout, RequestTimeout, TryTimeout};
        match self.fault {
            Fault::Caller | Fault::Machine | Fault::Nobody => false,
            Fault::Pool => true,
            Fault::Endpoint => {
                matches!(self.reason, ConnectTimeout | RequestTimeout | TryTimeout)
            }
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
            | ExchangeError::Unprocessed
            | ExchangeError::Stale => Self::Unanswered(Unanswered::RESET),
            ExchangeError::Http1Required => {
                Self::Unanswered(Unanswered::malformed(BadMessage::Http1Required))
            }
            ExchangeError::Oversized => Self::Unanswered(Unanswered::OVERSIZED),
            ExchangeError::Refused(outcome) => Self::Unanswered(Unanswered::tls(*outcome)),
            ExchangeError::Shortage => Self::Unanswered(Unanswered::SHORTAGE),
            ExchangeError::Response(bad) => Self::Unanswered(Unanswered::malformed(*bad)),
            ExchangeError::Expired(limit) => Self::Unanswered(Unanswered::expired(*limit)),
            ExchangeError::Request(bad) => Self::BadRequest(*bad),
            ExchangeError::Cut(bad) => Self::Cut(*bad),
            ExchangeError::SlowResponse => Self::SlowResponse,
            ExchangeError::SlowReader => Self::SlowReader,
            ExchangeError::ClientGone => Self::ClientGone,
        }
    }

    /// The same where the caller kept the upstream waiting.
    pub(super) fn of_the_caller(self) -> Self {
        match self {
            Self::Unanswered(unanswered) => Self::Unanswered(Unanswered {
                fault: Fault::Caller,
                ..unanswered
            }),
            other => other,
        }
    }

    /// What the breaker is told of a request whose last try ended like this;
    /// `None`: nothing.
    pub(super) fn score(&self) -> Option<Score> {
        match self {
            Self::Unanswered(unanswered) => unanswered.score(),
            Self::BadRequest(_)
            | Self::Cut(_)
            | Self::SlowResponse
            | Self::Late
            | Self::SlowReader
            | Self::ClientGone => None,
        }
    }

    pub(super) fn outcome(&self) -> AttemptOutcome {
        match self {
            Self::Unanswered(unanswered) => unanswered.outcome,
            Self::Cut(_) => AttemptOutcome::Reset,
            Self::SlowResponse => AttemptOutcome::TooSlow,
            Self::Late => AttemptOutcome::RequestTimeout,
            Self::BadRequest(_) | Self::SlowReader | Self::ClientGone => AttemptOutcome::Cancelled,
        }
    }
}

#[cfg(test)]
mod tests;
