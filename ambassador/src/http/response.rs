//! The head of a response.

use std::mem::MaybeUninit;

use crate::http::fields::{self, Fields, Framing};
use crate::http::{BadMessage, Limits, Method};

/// A parsed response head; scratch that is used again for the next one.
#[derive(Debug, Default)]
pub struct ResponseHead {
    status: u16,
    /// From the status code to the end of the status line.
    status_line: (u32, u32),
    http10: bool,
    body: ResponseBody,
    /// Neither length nor encoding mean anything, nor may they be sent.
    unframed: bool,
    /// There are some, and a client that believed them would wait for a body.
    misframed: bool,
    fields: Fields,
}

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
        if matches!(bytes.first(), Some(b'\r' | b'\n')) {
            return Err(BadMessage::StartLine);
        }
        let mut table = [const { MaybeUninit::uninit() }; fields::FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let table = &mut table[..limits.fields_max.min(fields::FIELDS_MAX)];
        let status = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut parsed, bytes, table)
            .map_err(|error| fields::refusal(error, bytes))?;
        let length = match status {
            httparse::Status::Complete(length) if length <= limits.head_bytes_max => length,
            httparse::Status::Partial if bytes.len() <= limits.head_bytes_max => return Ok(None),
            _ => return Err(BadMessage::HeadTooLarge),
        };
        let head = &bytes[..length];
        fields::check_line_ends(head)?;
        let (Some(version), Some(code)) = (parsed.version, parsed.code) else {
            return Err(BadMessage::StartLine);
        };
        if !(100..=599).contains(&code) {
            return Err(BadMessage::StartLine);
        }
        self.status = code;
        self.http10 = version == 0;
        let start = memchr::memchr(b' ', head).ok_or(BadMessage::StartLine)? + 1;
        let end = memchr::memchr(b'\r', &head[start..]).ok_or(BadMessage::StartLine)? + start;
        self.status_line = (start as u32, end as u32);
        self.fields.read(head, parsed.headers);
        self.body = self.find_body(head, method)?;
        Ok(Some(length))
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Status code and reason phrase as they were sent.
    pub fn status_and_phrase<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.status_line.0 as usize..self.status_line.1 as usize]
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

    /// Whether the upstream's connection may carry another request.
    pub fn keep_alive(&self) -> bool {
        !self.fields.close && !self.misframed && (!self.http10 || self.fields.keep_alive)
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
        if self.unframed || method == Method::Head || self.status == 304 {
            return Ok(ResponseBody::None);
        }
        Ok(match framing {
            Framing::Unsaid => ResponseBody::UntilClose,
            Framing::Length(0) => ResponseBody::None,
            Framing::Length(length) => ResponseBody::Length(length),
            Framing::Chunked => ResponseBody::Chunked,
        })
    }
}

#[cfg(test)]
mod tests;
