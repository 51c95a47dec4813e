//! A complete response made here.

use std::time::Duration;

use crate::message::grpc::Code;
use crate::message::{BadMessage, Method, Reason};

/// A reply in the upstream's stead.
#[derive(Debug, Clone)]
pub(crate) struct LocalReply {
    reason: Reason,
    status: u16,
    detail: Option<Box<str>>,
    /// For how long the caller is asked to stay away.
    pub(crate) retry_after: Option<Duration>,
    /// It is the answer to a HEAD.
    pub(crate) without_body: bool,
    /// It is the answer to a call of gRPC, which is trailers alone.
    pub(crate) for_call: bool,
    /// The connection ends after it.
    pub(crate) close: bool,
}

impl LocalReply {
    /// A reply for this reason on a connection that goes on.
    pub(crate) fn new(reason: Reason) -> Self {
        Self {
            reason,
            status: reason.status(),
            detail: None,
            retry_after: None,
            without_body: false,
            for_call: false,
            close: false,
        }
    }

    /// The reply to a request with this method: HEAD gets no body.
    pub(crate) fn to(mut self, method: Method) -> Self {
        self.without_body = method == Method::Head;
        self
    }

    /// The reply to a call of gRPC, if that is what it answers.
    pub(crate) fn for_call(mut self, is_call: bool) -> Self {
        self.for_call = is_call;
        self
    }

    /// The refusal of a malformed request: says which rule it broke, and with
    /// which field.
    pub(crate) fn refusing(bad: BadMessage, field: &[u8]) -> Self {
        Self {
            status: bad.status(),
            ..Self::new(bad.reason()).with_detail(bad.about(field))
        }
    }

    /// Says more than the reason does.
    pub(crate) fn with_detail(mut self, detail: impl Into<Box<str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The status of another reason.
    pub(crate) fn with_status_of(mut self, reason: Reason) -> Self {
        self.status = reason.status();
        self
    }

    /// A status of its own.
    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Asks the caller to stay away for so long, rounded up to whole seconds
    /// (RFC 9110 section 10.2.3).
    pub(crate) fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Its reason.
    pub(crate) fn reason(&self) -> Reason {
        self.reason
    }

    /// Its status, as it is sent.
    pub(crate) fn status(&self) -> u16 {
        match self.for_call {
            true => 200,
            false => self.status,
        }
    }

    /// With what a call ends by it; `None`: it answers none.
    pub(crate) fn code(&self) -> Option<Code> {
        self.for_call.then(|| Code::of_reply(self.status))
    }

    /// What it says to whoever reads it.
    pub(crate) fn text(&self) -> &str {
        self.detail().unwrap_or(self.reason.text())
    }

    /// What it says besides its reason.
    pub(crate) fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The connection ends after it.
    pub(crate) fn closing(mut self) -> Self {
        self.close = true;
        self
    }
}
