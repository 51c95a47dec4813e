//! Reads the head of a request.

use crate::addr::Authority;
use crate::http1::cursor::{Cursor, Grammar, Stop};
use crate::http1::fields;
use crate::http1::framing::{self, Framing};
use crate::message::fields::{Kind, Span};
use crate::message::{BadMessage, Length, Limits, Method, RequestHead};

/// Empty lines before a request line that are passed over: some old clients
/// send one after a body (RFC 9112 section 2.2).
const LEADING_LINES_MAX: usize = 2;

/// Reads a head from the front of `bytes`: its length, or `None` where it
/// is not whole yet.
pub fn parse_request(
    request: &mut RequestHead,
    bytes: &[u8],
    limits: &Limits,
) -> Result<Option<usize>, BadMessage> {
    let mut cursor = Cursor::new(bytes, Grammar::Strict);
    let walk = read(request, &mut cursor, limits.fields_max);
    if let Err(Stop::Bad(bad)) = walk {
        fields::blame(&mut request.fields, &cursor, bad);
    }
    let Some(length) = cursor.length(walk, limits)? else {
        return Ok(None);
    };
    let head = &bytes[..length];
    request.method = Method::parse(request.method_bytes(head));
    read_target(request, head)?;
    let host = request.fields.only(Kind::Host, BadMessage::RepeatedHost)?;
    match host {
        None if !request.is_http10() => return Err(BadMessage::MissingHost),
        // Nobody reads it beside a target that names an authority, but it
        // has to be a host all the same.
        Some(host) if request.is_absolute() || request.is_connect() => {
            let host = host.value(head);
            if !host.is_empty() && Authority::parse(host).is_err() {
                return Err(BadMessage::Host);
            }
        }
        _ => {}
    }
    request.length = match framing::of_head(&request.fields, head, request.version)? {
        Framing::Unsaid | Framing::Length(0) => Length::None,
        Framing::Length(length) => Length::Exact(length),
        Framing::Chunked => Length::Unknown,
        // Its end is known, but not to every server that gets it.
        Framing::CodedAndChunked => return Err(BadMessage::TransferCoding),
        Framing::Coded => return Err(BadMessage::TransferEncoding),
    };
    // Such a body would be content to one party and tunnelled bytes to
    // another (RFC 9110 section 9.3.6).
    if request.is_connect() && request.length != Length::None {
        return Err(BadMessage::ConnectWithBody);
    }
    Ok(Some(length))
}

/// Reads request line and fields, and where they are.
fn read(request: &mut RequestHead, cursor: &mut Cursor<'_>, fields_max: usize) -> Result<(), Stop> {
    skip_leading_lines(cursor)?;
    request.method_text = cursor.token();
    end_word(cursor, request.method_text)?;
    request.target = cursor.word();
    end_word(cursor, request.target)?;
    request.version = cursor.version()?;
    cursor.line_end(BadMessage::StartLine, BadMessage::BareCr)?;
    fields::read(&mut request.fields, cursor, fields_max)
}

fn read_target(request: &mut RequestHead, head: &[u8]) -> Result<(), BadMessage> {
    let bytes = request.target(head);
    // A fragment is never sent (RFC 9110 section 7.1); what follows it is
    // path to some and nothing to others. Bytes above ASCII should not be
    // sent either, but are, and mean the same to everybody.
    if bytes.contains(&b'#') {
        return Err(BadMessage::Target);
    }
    request.path_start = request.target.0;
    (request.target_authority, request.protocol) = (None, None);
    let is_asterisk = bytes == b"*" && request.method == Method::Options;
    if request.method == Method::Connect {
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
    let start = request.target.0 + SCHEME.len() as u32;
    request.path_start = start + end as u32;
    request.target_authority = Some((start, request.path_start));
    Ok(())
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
