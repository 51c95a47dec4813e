//! Reads the head of a response (RFC 9113 section 8.3.2).

use crate::http2::block::FieldBlock;
use crate::http2::fields;
use crate::message::fields::Kind;
use crate::message::{BadMessage, Length, Method, ResponseHead, Version};

/// Reads the head of an answer to a request with `method`, whose parts are in the
/// lines of `block`; `ends`: the stream ends with it.
///
/// # Errors
/// The response is malformed, a stream error, or its head is too large.
pub fn read_response(
    response: &mut ResponseHead,
    block: &FieldBlock,
    method: Method,
    ends: bool,
) -> Result<(), BadMessage> {
    response.fields.clear();
    response.version = Version::Http2;
    if block.is_too_large() {
        return Err(BadMessage::HeadTooLarge);
    }
    read_status(response, block)?;
    for field in block.fields().iter().skip(1) {
        let kind = fields::push(&mut response.fields, block, field)?;
        if kind == Kind::Te {
            response.fields.blame(b"te");
            return Err(BadMessage::ConnectionField);
        }
    }
    response.length = find_length(response, block.bytes(), method, ends)?;
    response.fields.close(block.bytes())
}

/// Takes in `:status`, the one pseudo field of a response, which is the first.
fn read_status(response: &mut ResponseHead, block: &FieldBlock) -> Result<(), BadMessage> {
    let lines = block.bytes();
    let field = block
        .fields()
        .first()
        .ok_or(BadMessage::MissingPseudoField)?;
    match field.name(lines) {
        b":status" => {}
        [b':', ..] => {
            response.fields.blame(field.name(lines));
            return Err(BadMessage::PseudoField);
        }
        _ => return Err(BadMessage::MissingPseudoField),
    }
    let [
        hundreds @ b'1'..=b'9',
        tens @ b'0'..=b'9',
        ones @ b'0'..=b'9',
    ] = field.value(lines)
    else {
        response.fields.blame(b":status");
        return Err(BadMessage::PseudoValue);
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    response.status = 100 * digit(hundreds) + 10 * digit(tens) + digit(ones);
    response.status_line = field.value;
    Ok(())
}

/// How long the body is; exactly nothing where the end of the stream alone says so.
fn find_length(
    response: &mut ResponseHead,
    lines: &[u8],
    method: Method,
    ends: bool,
) -> Result<Length, BadMessage> {
    let length = fields::content_length(&response.fields, lines)?;
    let is_tunnel = method == Method::Connect && (200..300).contains(&response.status);
    response.unframed = is_tunnel || matches!(response.status, 100..=199 | 204);
    (response.misframed, response.coded, response.until_close) = (false, false, false);
    match (response.status, length) {
        // There is no Upgrade (RFC 9113 section 8.6).
        (101, _) => return Err(BadMessage::UnexpectedUpgrade),
        // Another head follows (section 8.1).
        (100..=199, _) if ends => return Err(BadMessage::InterimEnd),
        (100..=199, Some(1..)) => return Err(BadMessage::InterimWithBody),
        _ => {}
    }
    if response.unframed || method == Method::Head || response.status == 304 {
        return Ok(Length::None);
    }
    match length {
        Some(1..) if ends => Err(BadMessage::LengthWithoutBody),
        None if !ends => Ok(Length::Unknown),
        // HTTP/1 has to say so.
        None => Ok(Length::Exact(0)),
        Some(0) => Ok(Length::None),
        Some(length) => Ok(Length::Exact(length)),
    }
}

#[cfg(test)]
mod tests;
