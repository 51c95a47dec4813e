//! Reads the field lines of a head (RFC 9112 section 5).

use crate::http1::cursor::{Cursor, Stop};
use crate::message::BadMessage;
use crate::message::fields::{Field, Fields, Form, Span, kind_of};

/// Reads field lines up to the empty line and over it.
#[inline(always)]
pub(super) fn read(
    fields: &mut Fields,
    cursor: &mut Cursor<'_>,
    fields_max: usize,
) -> Result<(), Stop> {
    fields.clear();
    loop {
        match cursor.peek()? {
            b'\r' | b'\n' => break,
            b' ' | b'\t' => {
                fold(fields, cursor)?;
                continue;
            }
            _ => {}
        }
        let field = read_field(cursor)?;
        if fields.len() == fields_max {
            return Err(BadMessage::TooManyFields.into());
        }
        fields.push(cursor.all(), field);
    }
    cursor.line_end(BadMessage::FieldName, BadMessage::BareCr)?;
    if cursor.has_lone_lf() {
        fields.loosen();
    }
    Ok(fields.close(cursor.all())?)
}

/// Tells `fields` for which line a head is refused: where `cursor` is.
#[cold]
pub(super) fn blame(fields: &mut Fields, cursor: &Cursor<'_>, bad: BadMessage) {
    let line = match bad {
        BadMessage::FoldedLine => {
            let name = fields.last_mut().map_or((0, 0), |field| field.name);
            cursor.bytes(name)
        }
        BadMessage::FieldName | BadMessage::FieldValue | BadMessage::BareCr => cursor.line(),
        _ => b"",
    };
    let end = memchr::memchr3(b':', b'\r', b'\n', line).unwrap_or(line.len());
    fields.blame(line[..end].trim_ascii());
}

/// Reads a line that goes on with the one before. What has a meaning on the
/// way has been read already, and must not become another.
#[cold]
fn fold(fields: &mut Fields, cursor: &mut Cursor<'_>) -> Result<(), Stop> {
    let folded = fields.last_mut();
    let folded = folded.filter(|field| field.kind.is_end_to_end() && cursor.is_lenient());
    let folded = folded.ok_or(BadMessage::FoldedLine)?;
    read_fold(folded, cursor)?;
    fields.loosen();
    Ok(())
}

/// Reads a line (RFC 9112 section 5).
#[inline(always)]
fn read_field(cursor: &mut Cursor<'_>) -> Result<Field, Stop> {
    let name = cursor.token();
    let (mut form, mut after_colon) = (Form::AsSent, name.1 + 1);
    if cursor.next()? != b':' {
        after_colon = read_blanks(cursor, name)?;
        form = Form::Anew;
    }
    if name.0 == name.1 {
        return Err(BadMessage::FieldName.into());
    }
    cursor.white_space();
    let (start, end) = cursor.text();
    cursor.line_end(BadMessage::FieldValue, BadMessage::BareCr)?;
    let value = match cursor.bytes((start, end)).trim_ascii_end().len() as u32 {
        0 => (after_colon, after_colon),
        length => (start, start + length),
    };
    Ok(Field {
        name,
        value,
        kind: kind_of(cursor.bytes(name)),
        form,
    })
}

/// Reads blanks between name and colon, which are to be removed on the way
/// (RFC 9112 section 5.1), where the first of them was read already; gives
/// where the value begins.
#[cold]
fn read_blanks(cursor: &mut Cursor<'_>, name: Span) -> Result<u32, Stop> {
    let is_blank = matches!(cursor.bytes((name.1, name.1 + 1)), b" " | b"\t");
    let is_framing = kind_of(cursor.bytes(name)).is_framing();
    if !is_blank || is_framing || !cursor.is_lenient() {
        return Err(BadMessage::FieldName.into());
    }
    cursor.white_space();
    match cursor.next()? {
        b':' => Ok(cursor.position() as u32),
        _ => Err(BadMessage::FieldName.into()),
    }
}

/// Reads a line that goes on with the value of the one before (RFC 9112
/// section 5.2).
fn read_fold(field: &mut Field, cursor: &mut Cursor<'_>) -> Result<(), Stop> {
    cursor.white_space();
    let (start, end) = cursor.text();
    cursor.line_end(BadMessage::FieldValue, BadMessage::BareCr)?;
    let length = cursor.bytes((start, end)).trim_ascii_end().len() as u32;
    if length > 0 {
        let is_empty = field.value.0 == field.value.1;
        field.value = (if is_empty { start } else { field.value.0 }, start + length);
    }
    field.form = Form::Anew;
    Ok(())
}
