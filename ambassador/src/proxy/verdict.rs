//! What a response says of its upstream: a request by its status, a gRPC call by its
//! code, which may come behind its messages.

use std::time::Duration;

use crate::clock;
use crate::message::grpc::{CallEnd, Code, Pushback};
use crate::message::{ResponseHead, field_list};
use crate::policy::breaker;
use crate::policy::retry::Cause;
use crate::policy::retry_after;
use crate::proxy::deadlines::Limit;
use crate::upstream::balancer::Grade;

/// What a response says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A request was answered with this status.
    Status(u16),
    /// A call has ended.
    Ended(CallEnd),
    /// A call was answered with this status by a proxy in between, or by no server of
    /// gRPC.
    Bridged(u16),
    /// A call has ended for a limit of time that its server was told.
    Expired(Limit),
    /// A call goes on: its end will tell.
    Open,
}

/// What a try says of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Score {
    /// It did what it is there for.
    Success,
    /// It did not.
    Failure,
}

/// A response of which the head has come.
#[derive(Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub verdict: Verdict,
    /// Of a call: nothing follows the head but trailers.
    pub is_whole: bool,
    pub response: &'a ResponseHead,
    pub head: &'a [u8],
}

impl Verdict {
    /// What the response to a call says. `trailers`: a list of them, where nothing else
    /// is to come.
    pub(crate) fn of_call(response: &ResponseHead, head: &[u8], trailers: Option<&[u8]>) -> Self {
        let fields = response.fields().iter();
        let fields = fields.map(|field| (field.name(head), field.value(head)));
        match (CallEnd::read(fields), trailers, response.status()) {
            (Some(end), _, _) => Self::Ended(end),
            (None, Some(trailers), status) => Self::of_trailers(status, trailers),
            (None, None, 200) => Self::Open,
            (None, None, status) => Self::Bridged(status),
        }
    }

    /// What these trailers say of a call whose response has this status and no code.
    pub(crate) fn of_trailers(status: u16, trailers: &[u8]) -> Self {
        match CallEnd::read(field_list::fields(trailers)) {
            Some(end) => Self::Ended(end),
            None => Self::Bridged(status),
        }
    }

    /// The same of a call whose server was told to end it within a limit.
    pub(crate) fn within(self, told: Option<Limit>) -> Self {
        match (self, told) {
            (Self::Ended(end), Some(limit)) if end.code == Code::DeadlineExceeded => {
                Self::Expired(limit)
            }
            _ => self,
        }
    }

    /// The code that its caller sees; `None`: none, or not yet.
    pub(crate) fn code(self) -> Option<Code> {
        match self {
            Self::Ended(end) => Some(end.code),
            Self::Bridged(status) => Some(Code::of_http(status)),
            Self::Expired(_) => Some(Code::DeadlineExceeded),
            Self::Status(_) | Self::Open => None,
        }
    }

    /// What of it may be a cause of another try.
    #[inline]
    pub(crate) fn causes(self) -> [Option<Cause>; 2] {
        match self {
            Self::Status(status) => [Some(Cause::Status(status)), None],
            Self::Ended(end) => {
                let may_go_again = end.pushback != Some(Pushback::Never);
                [may_go_again.then_some(Cause::Code(end.code)), None]
            }
            Self::Bridged(status) => {
                let code = Code::of_http(status);
                [Some(Cause::Status(status)), Some(Cause::Code(code))]
            }
            Self::Expired(_) | Self::Open => [None, None],
        }
    }

    /// Whether the upstream has failed by it; `None`: it says nothing of the upstream.
    #[inline(always)]
    pub(crate) fn score(self, settings: &breaker::Settings) -> Option<Score> {
        let failed = match self {
            Self::Status(status) => settings.failure_statuses.contains(status),
            call => call.has_failed(settings)?,
        };
        Some(match failed {
            true => Score::Failure,
            false => Score::Success,
        })
    }

    #[inline(never)]
    fn has_failed(self, settings: &breaker::Settings) -> Option<bool> {
        let (statuses, codes) = (settings.failure_statuses, settings.failure_codes);
        match self {
            Self::Status(status) => Some(statuses.contains(status)),
            Self::Ended(end) => Some(codes.contains(end.code)),
            Self::Bridged(status) => {
                Some(statuses.contains(status) || codes.contains(Code::of_http(status)))
            }
            Self::Expired(Limit::Caller) => None,
            Self::Expired(_) => Some(true),
            Self::Open => Some(false),
        }
    }

    /// What it says of the endpoint, which asks for no requests for so long.
    pub(crate) fn grade(self, score: Score, retry_after: Option<Duration>) -> Grade {
        match (self, score) {
            (Self::Status(status), _) => Grade::of_status(status, retry_after),
            _ if self.is_throttled() => Grade::Throttled { retry_after },
            (_, Score::Failure) => Grade::Bad { retry_after },
            (_, Score::Success) => Grade::Good,
        }
    }

    /// Whether the endpoint asks for fewer requests, which may come faster than an
    /// answer does.
    pub(crate) fn is_throttled(self) -> bool {
        match self {
            Self::Status(status) | Self::Bridged(status) => status == 429,
            Self::Ended(end) => end.code == Code::ResourceExhausted,
            Self::Expired(_) | Self::Open => false,
        }
    }
}

impl Answer<'_> {
    /// The same as [`Verdict::score`]; that a request goes in a circle would no other
    /// try change. A caller may have said how many proxies its request has come through.
    #[inline(always)]
    pub(crate) fn score(&self, settings: &breaker::Settings) -> Option<Score> {
        let is_of_a_circle = match self.verdict {
            Verdict::Status(_) => self.response.is_of_a_circle(self.head),
            _ => self.response.names_a_circle(self.head),
        };
        match is_of_a_circle {
            true => None,
            false => self.verdict.score(settings),
        }
    }

    /// Whether a server says that it has done nothing: its call ends before anything
    /// else.
    pub(crate) fn is_refused_call(&self) -> bool {
        self.is_whole && matches!(self.verdict, Verdict::Ended(_))
    }

    /// How long the upstream asks its callers to stay away.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self.verdict {
            Verdict::Status(_) | Verdict::Bridged(_) => {
                let field = self.response.fields().value(self.head, "retry-after")?;
                retry_after::parse(field, clock::wall())
            }
            Verdict::Ended(CallEnd {
                pushback: Some(Pushback::After(wait)),
                ..
            }) => Some(wait),
            Verdict::Ended(_) | Verdict::Expired(_) | Verdict::Open => None,
        }
    }
}

#[cfg(test)]
mod tests;
