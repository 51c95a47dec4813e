//! Writes a response made here.

use crate::message::LocalReply;

/// The bytes of `reply`.
pub(crate) fn encode_reply(reply: &LocalReply) -> Vec<u8> {
    let reason = reply.reason();
    let text = reply.text();
    let connection = match reply.close {
        true => "connection: close\r\n",
        false => "",
    };
    let retry_after = match reply.retry_after {
        Some(wait) => format!("retry-after: {}\r\n", wait.as_secs_f64().ceil()),
        None => String::new(),
    };
    let mut bytes = format!(
        "HTTP/1.1 {} {}\r\nx-ambassador-reason: {}\r\ncontent-type: text/plain\r\n\
         {retry_after}content-length: {}\r\n{connection}\r\n",
        reply.status(),
        phrase(reply.status()),
        reason.as_str(),
        text.len() + 1,
    );
    if !reply.without_body {
        bytes.push_str(text);
        bytes.push('\n');
    }
    bytes.into_bytes()
}

/// The phrases of RFC 9110 section 15 and RFC 6585. Some clients take a status for none
/// that has no phrase.
pub(super) fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        402 => "Payment Required",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        505 => "HTTP Version Not Supported",
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
    use std::time::Duration;

    use super::*;
    use crate::message::{Method, Reason};

    #[test]
    fn a_reply_names_its_reason_and_has_a_length() {
        for reason in Reason::ALL {
            let reply = String::from_utf8(encode_reply(&LocalReply::new(reason))).unwrap();
            let (head, body) = reply.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("x-ambassador-reason: {}", reason.as_str())));
            assert!(head.contains(&format!("content-length: {}", body.len())));
            assert!(!phrase(reason.status()).is_empty(), "{reason:?}");
        }
    }

    #[test]
    fn it_asks_to_stay_away_in_whole_seconds() {
        let reply =
            LocalReply::new(Reason::RateLimited).with_retry_after(Duration::from_millis(1_200));
        let reply = String::from_utf8(encode_reply(&reply)).unwrap();
        assert!(reply.contains("\r\nretry-after: 2\r\n"), "{reply}");
        assert!(
            reply.starts_with("HTTP/1.1 429 Too Many Requests\r\n"),
            "{reply}"
        );
    }

    #[test]
    fn it_may_have_the_status_of_what_went_before() {
        let reply = LocalReply::new(Reason::RetryBudget).with_status_of(Reason::TryTimeout);
        let reply = String::from_utf8(encode_reply(&reply)).unwrap();
        assert!(reply.starts_with("HTTP/1.1 504 "), "{reply}");
        assert!(
            reply.contains("x-ambassador-reason: retry-budget\r\n"),
            "{reply}"
        );
    }

    #[test]
    fn head_gets_the_length_without_the_body() {
        let reply = LocalReply::new(Reason::NoRoute).to(Method::Head).closing();
        let reply = String::from_utf8(encode_reply(&reply)).unwrap();
        assert!(reply.ends_with("connection: close\r\n\r\n"), "{reply}");
    }
}
