//! A complete response made here.

use crate::http::{BadMessage, Method, Reason};

/// A reply in the upstream's stead.
#[derive(Debug, Clone, Copy)]
pub struct LocalReply {
    reason: Reason,
    detail: Option<BadMessage>,
    without_body: bool,
    close: bool,
}

impl LocalReply {
    /// A reply for this reason on a connection that goes on.
    pub fn new(reason: Reason) -> Self {
        Self {
            reason,
            detail: None,
            without_body: false,
            close: false,
        }
    }

    /// The reply to a request with this method: HEAD gets no body.
    pub fn to(mut self, method: Method) -> Self {
        self.without_body = method == Method::Head;
        self
    }

    /// Says which rule a malformed request broke.
    pub fn because(mut self, bad: BadMessage) -> Self {
        self.detail = Some(bad);
        self
    }

    /// The connection ends after it.
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Its bytes.
    pub fn encode(self) -> Vec<u8> {
        let reason = self.reason;
        let text = self.detail.map_or(reason.text(), BadMessage::text);
        let connection = if self.close {
            "connection: close\r\n"
        } else {
            ""
        };
        let mut reply = format!(
            "HTTP/1.1 {} {}\r\nx-ambassador-reason: {}\r\ncontent-type: text/plain\r\n\
             content-length: {}\r\n{connection}\r\n",
            reason.status(),
            phrase(reason.status()),
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

/// The phrases of RFC 9110 section 15 for the statuses that reasons have.
fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        404 => "Not Found",
        431 => "Request Header Fields Too Large",
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
    fn head_gets_the_length_without_the_body() {
        let reply = LocalReply::new(Reason::NoRoute).to(Method::Head).closing();
        let reply = String::from_utf8(reply.encode()).unwrap();
        assert!(reply.ends_with("connection: close\r\n\r\n"), "{reply}");
    }
}
