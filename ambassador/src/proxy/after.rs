//! What happens to a client's connection after a request.

/// What becomes of the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// It may carry another request.
    KeepAlive,
    /// It is closed.
    Close,
    /// It is closed once the unread rest of the request has been drained.
    Linger,
    /// It is reset: the response was cut, or there is none to give.
    Reset,
}
