//! A complete response made here.

use std::time::Duration;

use crate::http::{BadMessage, Method, Reason};

/// A reply in the upstream's stead.
#[derive(Debug, Clone)]
pub(crate) struct LocalReply {
    reason: Reason,
    status: u16,
    detail: Option<Box<str>>,
    retry_after: Option<Duration>,
    without_body: bool,
    close: bool,
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
            close: false,
        }
    }

    /// The reply to a request with this method: HEAD gets no body.
    pub(crate) fn to(mut self, method: Method) -> Self {
        self.without_body = method == Method::Head;
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
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Its reason.
    pub(crate) fn reason(&self) -> Reason {
        self.reason
    }

    /// Its status.
    pub(crate) fn status(&self) -> u16 {
        self.status
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

    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let reason = self.reason;
        let text = self.detail.as_deref().unwrap_or(reason.text());
        let connection = match self.close {
            true => "connection: close\r\n",
            false => "",
        };
        let retry_after = match self.retry_after {
            Some(wait) => format!("retry-after: {}\r\n", wait.as_secs_f64().ceil()),
            None => String::new(),
        };
        let mut reply = format!(
            "HTTP/1.1 {} {}\r\nx-ambassador-reason: {}\r\ncontent-type: text/plain\r\n\
             {retry_after}content-length: {}\r\n{connection}\r\n",
            self.status,
            phrase(self.status),
            reason.as_str(),
            text.len() + 1,
        );
        if !self.without_body {
            reply.push_str(text);
            reply.push('\n');
        }
        reply.into_bytes()
    }
}

/// The phrases of RFC 9110 section 15 and RFC 6585 for the statuses that reasons have
/// and the usual ones of injected faults.
fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        508 => "Loop Detected",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_names_its_reason_and_has_a_length() {
        for reason in Reason::ALL {
            let reply = String::from_utf8(LocalReply::new(reason).encode()).unwrap();
            let (head, body) = reply.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("x-ambassador-reason: {}", reason.as_str())));
            assert!(head.contains(&format!("content-length: {}", body.len())));
            assert!(!phrase(reason.status()).is_empty(), "{reason:?}");
        }
    }

    #[test]
    fn it_asks_to_stay_away_in_whole_seconds() {
        let reply = LocalReply::new(Reason::RateLimited).retry_after(Duration::from_millis(1_200));
        let reply = String::from_utf8(reply.encode()).unwrap();
        assert!(reply.contains("\r\nretry-after: 2\r\n"), "{reply}");
        assert!(
            reply.starts_with("HTTP/1.1 429 Too Many Requests\r\n"),
            "{reply}"
        );
    }

    #[test]
    fn it_may_have_the_status_of_what_went_before() {
        let reply = LocalReply::new(Reason::RetryBudget).with_status_of(Reason::TryTimeout);
        let reply = String::from_utf8(reply.encode()).unwrap();
        assert!(reply.starts_with("HTTP/1.1 504 "), "{reply}");
        assert!(
            reply.contains("x-ambassador-reason: retry-budget\r\n"),
            "{reply}"
        );
    }

    #[test]
    fn head_gets_the_length_without_the_body() {
        let reply = LocalReply::new(Reason::NoRoute).to(Method::Head).closing();
        let reply = String::from_utf8(reply.encode()).unwrap();
        assert!(reply.ends_with("connection: close\r\n\r\n"), "{reply}");
    }
}
