//! The head of a request.

use std::mem::MaybeUninit;

use crate::addr::Authority;
use crate::http::fields::{self, Fields, Framing, Kind};
use crate::http::{BadMessage, Limits, Method};

/// A parsed request head; scratch that is used again for the next one.
#[derive(Debug, Default)]
pub struct RequestHead {
    method: Method,
    method_end: u32,
    method_start: u32,
    target: (u32, u32),
    /// Within the target: where the authority of an absolute form is.
    target_authority: Option<(u32, u32)>,
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
        check_leading_lines(bytes)?;
        let mut table = [const { MaybeUninit::uninit() }; fields::FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        let table = &mut table[..limits.fields_max.min(fields::FIELDS_MAX)];
        let status = parsed
            .parse_with_uninit_headers(bytes, table)
            .map_err(|error| fields::refusal(error, bytes))?;
        let length = match status {
            httparse::Status::Complete(length) if length <= limits.head_bytes_max => length,
            httparse::Status::Partial if bytes.len() <= limits.head_bytes_max => return Ok(None),
            _ => return Err(BadMessage::HeadTooLarge),
        };
        let head = &bytes[..length];
        fields::check_line_ends(head)?;
        let (Some(method), Some(target), Some(version)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(BadMessage::StartLine);
        };
        self.method = Method::parse(method.as_bytes());
        (self.method_start, self.method_end) = fields::range(head, method.as_bytes());
        self.http10 = version == 0;
        self.fields.read(head, parsed.headers);
        self.read_target(head, target)?;
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
        &head[self.method_start as usize..self.method_end as usize]
    }

    /// The request target as it was sent.
    pub fn target<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.target.0 as usize..self.target.1 as usize]
    }

    /// Path and query; for an absolute form with neither, `/`, or `*` where
    /// the method is OPTIONS (RFC 9112 section 3.2.4). Where an absolute form
    /// has a query but no path, it begins with the question mark.
    pub fn path<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        match &head[self.path_start as usize..self.target.1 as usize] {
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
        let (start, end) = self.target_authority?;
        Some(&head[start as usize..end as usize])
    }

    /// Whom the request is for: the authority of its target, else `Host`
    /// (RFC 9112 section 3.3). `None`: HTTP/1.0 without either, or an empty
    /// `Host`. The host is kept in `buffer`.
    pub fn authority(&self, head: &[u8], buffer: String) -> Result<Option<Authority>, BadMessage> {
        let bytes = match (self.method, self.target_authority) {
            (Method::Connect, _) => self.target(head),
            (_, Some((start, end))) => &head[start as usize..end as usize],
            (_, None) => match self.fields.only(Kind::Host, BadMessage::RepeatedHost)? {
                None => return Ok(None),
                Some(host) if host.value(head).is_empty() => return Ok(None),
                Some(host) => host.value(head),
            },
        };
        Authority::parse_with(bytes, buffer)
            .map(Some)
            .map_err(|_| BadMessage::Host)
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

    fn read_target(&mut self, head: &[u8], target: &str) -> Result<(), BadMessage> {
        let bytes = target.as_bytes();
        // A fragment is never sent (RFC 9110 section 7.1); what follows it is
        // path to some and nothing to others.
        let allowed = |byte: &u8| byte.is_ascii_graphic() && *byte != b'#';
        if !bytes.iter().all(allowed) {
            return Err(BadMessage::Target);
        }
        self.target = fields::range(head, bytes);
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

fn check_leading_lines(bytes: &[u8]) -> Result<(), BadMessage> {
    let mut rest = bytes;
    for _ in 0..LEADING_LINES_MAX {
        rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
    }
    match rest.first() {
        Some(b'\n') => Err(BadMessage::BareLf),
        Some(b'\r') if bytes.len() - rest.len() == 2 * LEADING_LINES_MAX => {
            Err(BadMessage::LeadingLines)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
