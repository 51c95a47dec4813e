//! What a try is told of what may follow it, of the body of its response, and by the
//! breaker.

use crate::proxy::verdict::Verdict;

/// Whether another try may follow this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its result is that of the request.
    Last,
    /// The same, but the body of its response may yet come too slowly, or end badly.
    Streams,
    /// Another one may follow.
    MayGiveWay,
}

/// What became of the body of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// It came, or it was not the upstream that kept it from coming.
    Came,
    /// It came more slowly than it may, or not to its end where that was to tell.
    Failed,
    /// It was that of a call, of which the end says this.
    Ended(Verdict),
}

/// What the breaker counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// Every try: there is one endpoint.
    Tries,
    /// Every request, by its last try.
    Requests,
}

/// Whether the breaker lets another try through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// It does.
    Yes,
    /// The circuit is open.
    No,
}
