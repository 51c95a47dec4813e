//! The head of a response.

use std::time::Duration;

use crate::message::fields::{Fields, Span, part};
use crate::message::{Length, Reason, Version};

/// A parsed response head; scratch that is used again for the next one.
#[derive(Debug, Default)]
pub struct ResponseHead {
    /// Its status code.
    pub(crate) status: u16,
    /// From the status code to the end of the status line.
    pub(crate) status_line: Span,
    /// What its sender speaks.
    pub(crate) version: Version,
    /// How long its body is.
    pub(crate) length: Length,
    /// Its body ends with the connection: nothing else says where.
    pub(crate) until_close: bool,
    /// Neither length nor encoding mean anything, nor may they be sent.
    pub(crate) unframed: bool,
    /// There are some, and a client that believed them would wait for a body.
    pub(crate) misframed: bool,
    /// Its body has other codings than chunked.
    pub(crate) coded: bool,
    /// Its fields.
    pub(crate) fields: Fields,
}

impl ResponseHead {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Status code and reason phrase as they were sent.
    pub fn status_and_phrase<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        part(head, self.status_line)
    }

    /// An interim response other than 101 (RFC 9110 section 15.2).
    pub fn is_informational(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// How long the body is.
    pub fn length(&self) -> Length {
        self.length
    }

    /// Whether the body ends with the connection (RFC 9112 section 6.3).
    pub fn ends_with_connection(&self) -> bool {
        self.until_close
    }

    /// Whether the body says itself where it ends.
    pub fn is_chunked(&self) -> bool {
        self.length == Length::Unknown && !self.until_close
    }

    /// The fields, in order.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Whether it may have neither Content-Length nor Transfer-Encoding
    /// (RFC 9110 section 8.6, RFC 9112 section 6.1).
    pub fn is_unframed(&self) -> bool {
        self.unframed
    }

    /// Whether its body has transfer codings besides chunked, which only HTTP/1.1
    /// has a field for.
    pub fn is_coded(&self) -> bool {
        self.coded
    }

    /// Whether the upstream's connection may carry another request.
    pub fn keep_alive(&self) -> bool {
        !self.fields.close
            && !self.misframed
            && (self.version != Version::Http10 || self.fields.keep_alive)
            && self.fields.terms.allows_another()
    }

    /// Whether an upstream that closes an idle connection may say so like this.
    pub fn is_idle_timeout(&self) -> bool {
        self.status == 408 && !self.keep_alive()
    }

    /// Whether a proxy of this kind says that the request goes in a circle.
    #[inline]
    pub fn is_of_a_circle(&self, head: &[u8]) -> bool {
        self.status == Reason::Loop.status() && self.names_a_circle(head)
    }

    /// The same of the answer to a call, whose status says nothing.
    pub(crate) fn names_a_circle(&self, head: &[u8]) -> bool {
        let reason = self.fields.value(head, "x-ambassador-reason");
        reason == Some(Reason::Loop.as_str().as_bytes())
    }

    /// For how long the connection may stand idle after this; `None`: the
    /// upstream does not say.
    pub fn idle_limit(&self) -> Option<Duration> {
        self.fields.terms.idle_limit()
    }
}
