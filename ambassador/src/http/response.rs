//! The head of a response.

use std::time::Duration;

use crate::http::cursor::{Cursor, Grammar, Span, Stop};
use crate::http::fields::{Fields, Framing, part};
use crate::http::{BadMessage, Limits, Method, Reason};

/// A parsed response head; scratch that is used again for the next one.
#[derive(Debug, Default)]
pub struct ResponseHead {
    status: u16,
    /// From the status code to the end of the status line.
    status_line: Span,
    http10: bool,
    body: ResponseBody,
    /// Neither length nor encoding mean anything, nor may they be sent.
    unframed: bool,
    /// There are some, and a client that believed them would wait for a body.
    misframed: bool,
    /// Its body has other codings than chunked.
    coded: bool,
    fields: Fields,
}

/// Empty lines before a status line that are passed over: some servers send one
/// behind an interim response, or a body.
const LEADING_LINES_MAX: usize = 2;

/// Where the body of a response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResponseBody {
    /// At once.
    #[default]
    None,
    /// After this many bytes.
    Length(u64),
    /// After the last chunk and the trailers.
    Chunked,
    /// With the connection.
    UntilClose,
}

impl ResponseHead {
    /// Reads a head from the front of `bytes`, the answer to a request with
    /// `method`: its length, or `None` where it is not whole yet.
    pub fn parse(
        &mut self,
        bytes: &[u8],
        method: Method,
        limits: &Limits,
    ) -> Result<Option<usize>, BadMessage> {
        let mut cursor = Cursor::new(bytes, Grammar::Lenient);
        let walk = self.read(&mut cursor, limits.fields_max);
        if let Err(Stop::Bad(bad)) = walk {
            self.fields.blame(&cursor, bad);
        }
        let Some(length) = cursor.length(walk, limits)? else {
            return Ok(None);
        };
        if self.status < 100 {
            return Err(BadMessage::StartLine);
        }
        let head = &bytes[..length];
        self.body = self.find_body(head, method)?;
        Ok(Some(length))
    }

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

    /// Where the body ends.
    pub fn body(&self) -> ResponseBody {
        self.body
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
            && (!self.http10 || self.fields.keep_alive)
            && self.fields.terms.allows_another()
    }

    /// Whether an upstream that closes an idle connection may say so like this.
    pub fn is_idle_timeout(&self) -> bool {
        self.status == 408 && !self.keep_alive()
    }

    /// Whether a proxy of this kind says that the request goes in a circle.
    pub fn is_of_a_circle(&self, head: &[u8]) -> bool {
        self.status == Reason::Loop.status()
            && self.fields.value(head, "x-ambassador-reason")
                == Some(Reason::Loop.as_str().as_bytes())
    }

    /// For how long the connection may stand idle after this; `None`: the
    /// upstream does not say.
    pub fn idle_limit(&self) -> Option<Duration> {
        self.fields.terms.idle_limit()
    }

    /// Reads status line and fields, and where they are.
    fn read(&mut self, cursor: &mut Cursor<'_>, fields_max: usize) -> Result<(), Stop> {
        const BAD: BadMessage = BadMessage::StartLine;
        let mut lines = 0;
        while matches!(cursor.peek()?, b'\r' | b'\n') {
            if lines == LEADING_LINES_MAX {
                return Err(BadMessage::LeadingLines.into());
            }
            cursor.line_end(BAD, BAD)?;
            lines += 1;
        }
        self.http10 = cursor.is_http10()?;
        if cursor.next()? != b' ' {
            return Err(BadMessage::Version.into());
        }
        let start = cursor.position() as u32;
        self.status = 0;
        for _ in 0..3 {
            match cursor.next()? {
                digit @ b'0'..=b'9' => self.status = 10 * self.status + u16::from(digit - b'0'),
                _ => return Err(BAD.into()),
            }
        }
        // The phrase need not be there, nor the space before it.
        if cursor.peek()? == b' ' {
            cursor.text();
        }
        self.status_line = (start, cursor.position() as u32);
        cursor.line_end(BAD, BAD)?;
        self.fields.read(cursor, fields_max)
    }

    /// RFC 9112 section 6.3, in its order.
    fn find_body(&mut self, head: &[u8], method: Method) -> Result<ResponseBody, BadMessage> {
        let framing = self.fields.framing(head, self.http10)?;
        let is_tunnel = method == Method::Connect && (200..300).contains(&self.status);
        self.unframed = is_tunnel || matches!(self.status, 100..=199 | 204);
        self.misframed = self.unframed && !matches!(framing, Framing::Unsaid | Framing::Length(0));
        if self.misframed && self.status < 200 {
            // What follows is the final response to some, a body to others.
            return Err(BadMessage::InterimWithBody);
        }
        self.coded = false;
        if self.unframed || method == Method::Head || self.status == 304 {
            return Ok(ResponseBody::None);
        }
        self.coded = matches!(framing, Framing::CodedAndChunked | Framing::Coded);
        Ok(match framing {
            Framing::Unsaid | Framing::Coded => ResponseBody::UntilClose,
            Framing::Length(0) => ResponseBody::None,
            Framing::Length(length) => ResponseBody::Length(length),
            Framing::Chunked | Framing::CodedAndChunked => ResponseBody::Chunked,
        })
    }
}

#[cfg(test)]
mod tests;
