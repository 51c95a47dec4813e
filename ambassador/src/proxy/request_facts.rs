//! The facts of a request that decide about its response.

use crate::message::challenge::{self, Challenger};
use crate::message::{Method, RequestHead};

/// The facts of a request that decide about its response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestFacts {
    /// Decides whether a response has a body.
    pub method: Method,
    /// The client speaks HTTP/1.0: no chunks, no interim responses.
    pub http10: bool,
    /// The client would send another request on this connection.
    pub keep_alive: bool,
    /// The client asked to switch protocols.
    pub upgrade: bool,
    /// Who gets its credentials, if they authenticate the connection.
    pub presents: Option<Challenger>,
}

impl RequestFacts {
    /// Takes it from a parsed head.
    pub(crate) fn of(request: &RequestHead, head: &[u8]) -> Self {
        Self {
            method: request.method(),
            http10: request.is_http10(),
            keep_alive: request.keep_alive(),
            upgrade: request.is_upgrade(),
            presents: challenge::presented(request, head),
        }
    }
}
