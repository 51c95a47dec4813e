//! Reads the head of a response.

use crate::http1::cursor::{Cursor, Grammar, Stop};
use crate::http1::fields;
use crate::http1::framing::{self, Framing};
use crate::message::{BadMessage, Length, Limits, Method, ResponseHead};

/// Empty lines before a status line that are passed over: some servers send one
/// behind an interim response, or a body.
const LEADING_LINES_MAX: usize = 2;

/// Reads a head from the front of `bytes`, the answer to a request with
/// `method`: its length, or `None` where it is not whole yet.
pub fn parse_response(
    response: &mut ResponseHead,
    bytes: &[u8],
    method: Method,
    limits: &Limits,
) -> Result<Option<usize>, BadMessage> {
    let mut cursor = Cursor::new(bytes, Grammar::Lenient);
    let walk = read(response, &mut cursor, limits.fields_max);
    if let Err(Stop::Bad(bad)) = walk {
        fields::blame(&mut response.fields, &cursor, bad);
    }
    let Some(length) = cursor.length(walk, limits)? else {
        return Ok(None);
    };
    if response.status < 100 {
        return Err(BadMessage::StartLine);
    }
    let head = &bytes[..length];
    response.length = find_length(response, head, method)?;
    Ok(Some(length))
}

/// Reads status line and fields, and where they are.
fn read(
    response: &mut ResponseHead,
    cursor: &mut Cursor<'_>,
    fields_max: usize,
) -> Result<(), Stop> {
    const BAD: BadMessage = BadMessage::StartLine;
    let mut lines = 0;
    while matches!(cursor.peek()?, b'\r' | b'\n') {
        if lines == LEADING_LINES_MAX {
            return Err(BadMessage::LeadingLines.into());
        }
        cursor.line_end(BAD, BAD)?;
        lines += 1;
    }
    response.version = cursor.version()?;
    if cursor.next()? != b' ' {
        return Err(BadMessage::Version.into());
    }
    let start = cursor.position() as u32;
    response.status = 0;
    for _ in 0..3 {
        match cursor.next()? {
            digit @ b'0'..=b'9' => response.status = 10 * response.status + u16::from(digit - b'0'),
            _ => return Err(BAD.into()),
        }
    }
    // The phrase need not be there, nor the space before it.
    if cursor.peek()? == b' ' {
        cursor.text();
    }
    response.status_line = (start, cursor.position() as u32);
    cursor.line_end(BAD, BAD)?;
    fields::read(&mut response.fields, cursor, fields_max)
}

/// RFC 9112 section 6.3, in its order.
fn find_length(
    response: &mut ResponseHead,
    head: &[u8],
    method: Method,
) -> Result<Length, BadMessage> {
    let framing = framing::of_head(&response.fields, head, response.version)?;
    let is_tunnel = method == Method::Connect && (200..300).contains(&response.status);
    response.unframed = is_tunnel || matches!(response.status, 100..=199 | 204);
    response.misframed =
        response.unframed && !matches!(framing, Framing::Unsaid | Framing::Length(0));
    if response.misframed && response.status < 200 {
        // What follows is the final response to some, a body to others.
        return Err(BadMessage::InterimWithBody);
    }
    (response.coded, response.until_close) = (false, false);
    if response.unframed || method == Method::Head || response.status == 304 {
        return Ok(Length::None);
    }
    response.coded = matches!(framing, Framing::CodedAndChunked | Framing::Coded);
    Ok(match framing {
        Framing::Unsaid | Framing::Coded => {
            response.until_close = true;
            Length::Unknown
        }
        Framing::Length(0) => Length::None,
        Framing::Length(length) => Length::Exact(length),
        Framing::Chunked | Framing::CodedAndChunked => Length::Unknown,
    })
}

#[cfg(test)]
mod tests;
