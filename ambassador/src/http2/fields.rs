//! Reads the regular fields of a section (RFC 9113 section 8.2).

use crate::http2::block::{FieldBlock, Indexing, RawField};
use crate::message::BadMessage;
use crate::message::fields::{Field, Fields, Form, Kind, kind_of};
use crate::message::grammar::{is_field_text, is_token, number};

/// Takes in a field.
///
/// # Errors
/// It is none that a message may have.
#[inline]
pub(super) fn push(
    fields: &mut Fields,
    block: &FieldBlock,
    field: &RawField,
) -> Result<Kind, BadMessage> {
    let lines = block.bytes();
    let name = field.name(lines);
    let kind = match field.kind {
        Some(kind) => kind,
        None => check(name, field.value(lines)).inspect_err(|_| fields.blame(name))?,
    };
    let (name, value) = (field.name, field.value);
    let form = match field.indexing {
        Indexing::Free => Form::AsSent,
        Indexing::Never => Form::Secret,
    };
    fields.push(
        lines,
        Field {
            name,
            value,
            kind,
            form,
        },
    );
    Ok(kind)
}

/// What a field means, which is regular and belongs to no connection (RFC 9113
/// sections 8.2.1 and 8.2.2).
#[inline]
pub(super) fn check(name: &[u8], value: &[u8]) -> Result<Kind, BadMessage> {
    match name {
        [b':', ..] => return Err(BadMessage::PseudoField),
        name if !is_name(name) => return Err(BadMessage::FieldName),
        _ if !is_value(value) => return Err(BadMessage::FieldValue),
        _ => {}
    }
    match kind_of(name) {
        Kind::Connection | Kind::KeepAlive | Kind::TransferEncoding | Kind::Upgrade => {
            Err(BadMessage::ConnectionField)
        }
        Kind::HopByHop if name == b"proxy-connection" => Err(BadMessage::ConnectionField),
        Kind::Te if !value.eq_ignore_ascii_case(b"trailers") => Err(BadMessage::Te),
        kind => Ok(kind),
    }
}

/// A token in lower case. HTTP/2 would let more through than HTTP/1 has names for.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| IN_NAME[usize::from(*byte)])
}

static IN_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = is_token(byte as u8) && !(byte as u8).is_ascii_uppercase();
        byte += 1;
    }
    table
};

/// What HTTP/1 can carry, without white space around it.
fn is_value(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !is_blank(value.first()) && !is_blank(value.last()) && is_field_text(value)
}

/// What Content-Length says.
pub(super) fn content_length(fields: &Fields, head: &[u8]) -> Result<Option<u64>, BadMessage> {
    let length = fields.only(Kind::ContentLength, BadMessage::RepeatedLength)?;
    length
        .map(|length| number(length.value(head)).ok_or(BadMessage::Length))
        .transpose()
}
