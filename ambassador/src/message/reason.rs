//! Why a reply was made here: one word for the header, the log and metrics.

/// The reasons and their statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing to dial: the name was never resolved.
    NoEndpoint,
    /// The dial was refused or unreachable.
    ConnectFailed,
    /// The dial, or the wait for a connection, took too long.
    ConnectTimeout,
    /// The upstream ended the connection before its answer was whole.
    UpstreamReset,
    /// What the upstream sent is not HTTP.
    ProtocolError,
    /// No TLS session came about with the upstream.
    TlsFailed,
    /// There was no answer in the time that the request has.
    RequestTimeout,
    /// There was no answer in the time that a try has.
    TryTimeout,
    /// The circuit is open: the upstream failed too often.
    CircuitOpen,
    /// The retry budget is used up. The status is that of the failure.
    RetryBudget,
    /// The rate limit of the upstream is used up.
    RateLimited,
    /// `max_pending` callers wait already, or `max_requests` are in flight.
    Overloaded,
    /// No upstream may take it.
    NoRoute,
    /// The request would come back to this proxy, or goes in a circle of proxies.
    Loop,
    /// The request is malformed.
    BadRequest,
    /// The request's head is too large.
    HeadersTooLarge,
    /// The upstream has a credential, and there is none that is valid.
    AuthUnavailable,
    /// A fault was injected on purpose. The status is as configured.
    FaultInjected,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 18] = [
        Self::NoEndpoint,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::UpstreamReset,
        Self::ProtocolError,
        Self::TlsFailed,
        Self::RequestTimeout,
        Self::TryTimeout,
        Self::CircuitOpen,
        Self::RetryBudget,
        Self::RateLimited,
        Self::Overloaded,
        Self::NoRoute,
        Self::Loop,
        Self::BadRequest,
        Self::HeadersTooLarge,
        Self::AuthUnavailable,
        Self::FaultInjected,
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoEndpoint => "no-endpoint",
            Self::ConnectFailed => "connect-failed",
            Self::ConnectTimeout => "connect-timeout",
            Self::UpstreamReset => "upstream-reset",
            Self::ProtocolError => "protocol-error",
            Self::TlsFailed => "tls-failed",
            Self::RequestTimeout => "request-timeout",
            Self::TryTimeout => "try-timeout",
            Self::CircuitOpen => "circuit-open",
            Self::RetryBudget => "retry-budget",
            Self::RateLimited => "rate-limited",
            Self::Overloaded => "overloaded",
            Self::NoRoute => "no-route",
            Self::Loop => "loop",
            Self::BadRequest => "bad-request",
            Self::HeadersTooLarge => "headers-too-large",
            Self::AuthUnavailable => "auth-unavailable",
            Self::FaultInjected => "fault-injected",
        }
    }

    /// The status of such a reply.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NoRoute => 404,
            Self::RateLimited => 429,
            Self::HeadersTooLarge => 431,
            Self::ConnectFailed | Self::UpstreamReset | Self::ProtocolError | Self::TlsFailed => {
                502
            }
            Self::NoEndpoint
            | Self::Overloaded
            | Self::CircuitOpen
            | Self::RetryBudget
            | Self::AuthUnavailable
            | Self::FaultInjected => 503,
            Self::ConnectTimeout | Self::RequestTimeout | Self::TryTimeout => 504,
            Self::Loop => 508,
        }
    }

    /// What the body of the reply says.
    pub fn text(self) -> &'static str {
        match self {
            Self::NoEndpoint => "the upstream has no endpoint",
            Self::ConnectFailed => "cannot connect to the upstream",
            Self::ConnectTimeout => "no connection to the upstream in time",
            Self::UpstreamReset => "the upstream closed the connection before it answered",
            Self::ProtocolError => "the upstream's answer is not HTTP",
            Self::TlsFailed => "no TLS session came about with the upstream",
            Self::RequestTimeout | Self::TryTimeout => "the upstream did not answer in time",
            Self::CircuitOpen => {
                "circuit open: the upstream failed too often and gets no requests for now"
            }
            Self::RetryBudget => "the upstream failed, and the retry budget is used up",
            Self::RateLimited => "the rate limit of the upstream is used up",
            Self::Overloaded => "too many requests to this upstream are in flight or waiting",
            Self::NoRoute => "no upstream is configured for this request",
            Self::Loop => "the request would come back to this proxy",
            Self::BadRequest => "the request is malformed",
            Self::HeadersTooLarge => "the request's header fields are too large",
            Self::AuthUnavailable => "there is no valid credential for the upstream",
            Self::FaultInjected => "this fault is injected on purpose",
        }
    }
}
