//! The facts of a request that decide about its response.

use crate::message::challenge::{self, Challenger};
use crate::message::{Method, RequestHead, Version};

/// The facts of a request that decide about its response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestFacts {
    /// Decides whether a response has a body.
    pub method: Method,
    /// What the client speaks.
    pub version: Version,
    /// The client asked to switch protocols.
    pub upgrade: bool,
    /// It is a call of gRPC.
    pub is_call: bool,
    /// Who gets its credentials, if they authenticate the connection.
    pub presents: Option<Challenger>,
}

impl RequestFacts {
    /// Takes it from a parsed head.
    pub(crate) fn of(request: &RequestHead, head: &[u8]) -> Self {
        Self {
            method: request.method(),
            version: request.version,
            upgrade: request.is_upgrade(),
            is_call: request.is_call(head),
            presents: challenge::presented(request, head),
        }
    }
}
