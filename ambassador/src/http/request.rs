//! The head of a request.

use crate::addr::Authority;
use crate::http::cursor::{Cursor, Grammar, Span, Stop};
use crate::http::fields::{Fields, Framing, Kind, part};
use crate::http::{BadMessage, Limits, Method};

/// A parsed request head; scratch that is used again for the next one.
#[derive(Debug, Default)]
pub struct RequestHead {
    method: Method,
    method_text: Span,
    target: Span,
    /// Within the target: where the authority of an absolute form is.
    target_authority: Option<Span>,
    /// Where the path of the target begins.
    path_start: u32,
    http10: bool,
    body: RequestBody,
    fields: Fields,
}

/// Where the body of a request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequestBody {
    /// At once.
    #[default]
    None,
    /// After this many bytes; not 0.
    Length(u64),
    /// After the last chunk and the trailers.
    Chunked,
}

/// Empty lines before a request line that are passed over: some old clients
/// send one after a body (RFC 9112 section 2.2).
const LEADING_LINES_MAX: usize = 2;

impl RequestHead {
    /// Reads a head from the front of `bytes`: its length, or `None` where it
    /// is not whole yet.
    pub fn parse(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, BadMessage> {
        let mut cursor = Cursor::new(bytes, Grammar::Strict);
        let walk = self.read(&mut cursor, limits.fields_max);
        if let Err(Stop::Bad(bad)) = walk {
            self.fields.blame(&cursor, bad);
        }
        let Some(length) = cursor.length(walk, limits)? else {
            return Ok(None);
        };
        let head = &bytes[..length];
        self.method = Method::parse(self.method_bytes(head));
        self.read_target(head)?;
        let host = self.fields.only(Kind::Host, BadMessage::RepeatedHost)?;
        match host {
            None if !self.http10 => return Err(BadMessage::MissingHost),
            // Nobody reads it beside a target that names an authority, but it
            // has to be a host all the same.
            Some(host) if self.is_absolute() || self.is_connect() => {
                let host = host.value(head);
                if !host.is_empty() && Authority::parse(host).is_err() {
                    return Err(BadMessage::Host);
                }
            }
            _ => {}
        }
        self.body = match self.fields.framing(head, self.http10)? {
            Framing::Unsaid | Framing::Length(0) => RequestBody::None,
            Framing::Length(length) => RequestBody::Length(length),
            Framing::Chunked => RequestBody::Chunked,
            // Its end is known, but not to every server that gets it.
            Framing::CodedAndChunked => return Err(BadMessage::TransferCoding),
            Framing::Coded => return Err(BadMessage::TransferEncoding),
        };
        // Such a body would be content to one party and tunnelled bytes to
        // another (RFC 9110 section 9.3.6).
        if self.is_connect() && self.body != RequestBody::None {
            return Err(BadMessage::ConnectWithBody);
        }
        Ok(Some(length))
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The method as it was sent.
    pub fn method_bytes<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        part(head, self.method_text)
    }

    /// The request target as it was sent.
    pub fn target<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        part(head, self.target)
    }

    /// Path and query; for an absolute form with neither, `/`, or `*` where
    /// the method is OPTIONS (RFC 9112 section 3.2.4). Where an absolute form
    /// has a query but no path, it begins with the question mark.
    pub fn path<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        match part(head, (self.path_start, self.target.1)) {
            [] if self.method == Method::Options => b"*",
            [] => b"/",
            path => path,
        }
    }

    /// Whether the target names its authority: `http://host/path`.
    pub fn is_absolute(&self) -> bool {
        self.target_authority.is_some()
    }

    /// The bytes of the authority in an absolute target.
    pub fn target_authority<'a>(&self, head: &'a [u8]) -> Option<&'a [u8]> {
        Some(part(head, self.target_authority?))
    }

    /// Whom the request is for: the authority of its target, else `Host`
    /// (RFC 9112 section 3.3). `None`: HTTP/1.0 without either, or an empty
    /// `Host`. The host is kept in `buffer`.
    pub fn authority(&self, head: &[u8], buffer: String) -> Result<Option<Authority>, BadMessage> {
        if self.method != Method::Connect && self.target_authority.is_none() {
            self.fields.only(Kind::Host, BadMessage::RepeatedHost)?;
        }
        let bytes = self.authority_bytes(head);
        if bytes.is_empty() && self.method != Method::Connect && self.target_authority.is_none() {
            return Ok(None);
        }
        Authority::parse_with(bytes, buffer)
            .map(Some)
            .map_err(|_| BadMessage::Host)
    }

    /// The bytes that say whom the request is for; empty: nothing does.
    pub fn authority_bytes<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        match (self.method, self.target_authority) {
            (Method::Connect, _) => self.target(head),
            (_, Some(authority)) => part(head, authority),
            (_, None) => self.field(head, "host").unwrap_or_default(),
        }
    }

    /// The value of the first field of this name.
    pub fn field<'a>(&self, head: &'a [u8], name: &str) -> Option<&'a [u8]> {
        self.fields.value(head, name)
    }

    /// The fields, in order.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Where the body ends.
    pub fn body(&self) -> RequestBody {
        self.body
    }

    /// HTTP/1.0.
    pub fn is_http10(&self) -> bool {
        self.http10
    }

    /// Whether the connection may carry another request (RFC 9112 section 9.3).
    pub fn keep_alive(&self) -> bool {
        !self.fields.close && (!self.http10 || self.fields.keep_alive)
    }

    /// Whether a switch of protocols is asked for (RFC 9110 section 7.8);
    /// asking for `h2c` does not count.
    pub fn is_upgrade(&self) -> bool {
        self.fields.upgrade && self.fields.names_protocol && !self.http10 && !self.is_connect()
    }

    /// Whether the client can take trailer fields (RFC 9110 section 10.1.4).
    pub fn takes_trailers(&self) -> bool {
        self.fields.takes_trailers && !self.http10
    }

    /// CONNECT.
    pub fn is_connect(&self) -> bool {
        self.method == Method::Connect
    }

    /// Reads request line and fields, and where they are.
    fn read(&mut self, cursor: &mut Cursor<'_>, fields_max: usize) -> Result<(), Stop> {
        skip_leading_lines(cursor)?;
        self.method_text = cursor.token();
        end_word(cursor, self.method_text)?;
        self.target = cursor.word();
        end_word(cursor, self.target)?;
        self.http10 = cursor.is_http10()?;
        cursor.line_end(BadMessage::StartLine, BadMessage::BareCr)?;
        self.fields.read(cursor, fields_max)
    }

    fn read_target(&mut self, head: &[u8]) -> Result<(), BadMessage> {
        let bytes = self.target(head);
        // A fragment is never sent (RFC 9110 section 7.1); what follows it is
        // path to some and nothing to others. Bytes above ASCII should not be
        // sent either, but are, and mean the same to everybody.
        if memchr::memchr(b'#', bytes).is_some() {
            return Err(BadMessage::Target);
        }
        self.path_start = self.target.0;
        self.target_authority = None;
        let is_asterisk = bytes == b"*" && self.method == Method::Options;
        if self.method == Method::Connect {
            return match Authority::parse(bytes) {
                Ok(authority) if authority.port().is_some() => Ok(()),
                _ => Err(BadMessage::Target),
            };
        }
        if bytes.starts_with(b"/") || is_asterisk {
            return Ok(());
        }
        const SCHEME: &[u8] = b"http://";
        let has_scheme =
            bytes.len() > SCHEME.len() && bytes[..SCHEME.len()].eq_ignore_ascii_case(SCHEME);
        if !has_scheme {
            return Err(BadMessage::Target);
        }
        let rest = &bytes[SCHEME.len()..];
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?'))
            .unwrap_or(rest.len());
        // Neither empty nor with user information (RFC 9110 section 4.2.4).
        if Authority::parse(&rest[..end]).is_err() {
            return Err(BadMessage::Target);
        }
        let start = self.target.0 + SCHEME.len() as u32;
        self.path_start = start + end as u32;
        self.target_authority = Some((start, self.path_start));
        Ok(())
    }
}

fn skip_leading_lines(cursor: &mut Cursor<'_>) -> Result<(), Stop> {
    let mut lines = 0;
    loop {
        match cursor.peek()? {
            b'\n' => return Err(BadMessage::BareLf.into()),
            b'\r' if lines == LEADING_LINES_MAX => return Err(BadMessage::LeadingLines.into()),
            b'\r' => cursor.line_end(BadMessage::StartLine, BadMessage::BareCr)?,
            _ => return Ok(()),
        }
        lines += 1;
    }
}

/// The one space behind a part of the request line, which is not empty.
fn end_word(cursor: &mut Cursor<'_>, (start, end): Span) -> Result<(), Stop> {
    match cursor.next()? {
        b' ' if start < end => Ok(()),
        _ => Err(BadMessage::StartLine.into()),
    }
}

#[cfg(test)]
mod tests;
