//! How the body of a message is delimited (RFC 9112 section 6).

use crate::message::fields::{Fields, Kind};
use crate::message::grammar::number;
use crate::message::{BadMessage, Version};

/// Transfer codings besides chunked (RFC 9112 section 7, and those that are
/// content codings by right). A name that nobody knows may be taken for chunked
/// by somebody.
const CODINGS: [&[u8]; 8] = [
    b"gzip",
    b"x-gzip",
    b"deflate",
    b"compress",
    b"x-compress",
    b"identity",
    b"br",
    b"zstd",
];

/// The framing fields of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// Neither field.
    Unsaid,
    /// Content-Length.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
    /// Other codings, and chunked last.
    CodedAndChunked,
    /// Other codings only.
    Coded,
}

/// How the body is delimited (RFC 9112 section 6). What the RFC lets a
/// recipient repair is refused: a repeated length even where all are
/// equal, a length beside an encoding.
#[inline(always)]
pub(super) fn of_head(
    fields: &Fields,
    head: &[u8],
    version: Version,
) -> Result<Framing, BadMessage> {
    let length = fields.only(Kind::ContentLength, BadMessage::RepeatedLength)?;
    let encoding = fields.only(Kind::TransferEncoding, BadMessage::TransferEncoding)?;
    match (length, encoding) {
        (None, None) => Ok(Framing::Unsaid),
        (Some(_), Some(_)) => Err(BadMessage::LengthWithEncoding),
        (Some(length), None) => number(length.value(head))
            .map(Framing::Length)
            .ok_or(BadMessage::Length),
        (None, Some(_)) if version == Version::Http10 => Err(BadMessage::EncodingBeforeHttp11),
        (None, Some(encoding)) => codings(encoding.value(head)).ok_or(BadMessage::TransferEncoding),
    }
}

/// What the codings of a body mean for where it ends.
fn codings(value: &[u8]) -> Option<Framing> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Some(Framing::Chunked);
    }
    let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    loop {
        let coding = codings.next();
        let is = |known: &[u8]| coding.is_some_and(|coding| coding.eq_ignore_ascii_case(known));
        match coding {
            None => return Some(Framing::Coded),
            // It is not the only one.
            Some(_) if is(b"chunked") => {
                let is_last = codings.next().is_none();
                return is_last.then_some(Framing::CodedAndChunked);
            }
            Some(_) if CODINGS.into_iter().any(is) => {}
            Some(_) => return None,
        }
    }
}
