//! Header fields as ranges into the bytes of a head.

mod kind;

use std::ops::Range;

pub(crate) use self::kind::Kind;
pub(super) use self::kind::kind_of;
use crate::http::BadMessage;
use crate::http::cursor::{Cursor, Span, Stop};
use crate::http::keep_alive::KeepAlive;

/// Digits of a Content-Length at most, zeros in front included: any such number
/// is below 2^63, so that it overflows no recipient's integer.
const LENGTH_DIGITS_MAX: usize = 18;

/// Fields in one head at most.
pub(super) const FIELDS_MAX: usize = 256;

/// Fields that `Connection` may name at most: every field of such a head is
/// looked up among them.
const NAMED_MAX: u32 = 64;

/// Bytes of a malformed line that are kept, to tell which it was.
const BLAMED_BYTES_MAX: usize = 64;

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

/// One field.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    name: Span,
    value: Span,
    /// What this proxy knows of the name.
    pub kind: Kind,
    /// How it goes on.
    pub form: Form,
}

/// Whether a line may be passed on as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// It may.
    AsSent,
    /// There are blanks before its colon, or it is folded: it is written anew.
    Anew,
}

/// The fields of a head, and what they say about the connection.
#[derive(Debug, Default)]
pub struct Fields {
    list: Vec<Field>,
    /// A bit for each [`Kind`] that occurs: most heads have few.
    kinds: u32,
    /// `Connection: close`.
    pub close: bool,
    /// `Connection: keep-alive`.
    pub keep_alive: bool,
    /// What `Keep-Alive` says.
    pub terms: KeepAlive,
    /// `Connection: upgrade`.
    pub upgrade: bool,
    /// `Upgrade` names a protocol other than `h2c`.
    pub names_protocol: bool,
    /// `TE: trailers`: the sender can take trailer fields.
    pub takes_trailers: bool,
    /// How many fields `Connection` names that are for this hop only.
    named_by_connection: u32,
    /// Not every line may be passed on as it came, nor every line end.
    loose: bool,
    /// The beginning of the line that was refused.
    blamed: Vec<u8>,
}

/// The framing fields of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
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

impl Field {
    /// Reads a line (RFC 9112 section 5).
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Stop> {
        let name = cursor.token();
        let (mut form, mut after_colon) = (Form::AsSent, name.1 + 1);
        if cursor.next()? != b':' {
            after_colon = Self::read_blanks(cursor, name)?;
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
        Ok(Self {
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
    fn read_fold(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Stop> {
        cursor.white_space();
        let (start, end) = cursor.text();
        cursor.line_end(BadMessage::FieldValue, BadMessage::BareCr)?;
        let length = cursor.bytes((start, end)).trim_ascii_end().len() as u32;
        if length > 0 {
            let is_empty = self.value.0 == self.value.1;
            self.value = (if is_empty { start } else { self.value.0 }, start + length);
        }
        self.form = Form::Anew;
        Ok(())
    }

    /// The name as it was sent.
    pub fn name<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        part(head, self.name)
    }

    /// The value without the white space around it.
    pub fn value<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        part(head, self.value)
    }

    /// Where name, colon, white space and value are.
    pub fn line(&self) -> Range<usize> {
        self.name.0 as usize..self.value.1 as usize
    }
}

impl Fields {
    /// Reads field lines up to the empty line and over it.
    pub fn read(&mut self, cursor: &mut Cursor<'_>, fields_max: usize) -> Result<(), Stop> {
        self.list.clear();
        self.kinds = 0;
        (self.close, self.keep_alive, self.upgrade) = (false, false, false);
        (self.names_protocol, self.takes_trailers) = (false, false);
        self.named_by_connection = 0;
        self.loose = false;
        self.terms = KeepAlive::default();
        self.blamed.clear();
        let mut names_h2c = false;
        loop {
            match cursor.peek()? {
                b'\r' | b'\n' => break,
                b' ' | b'\t' => {
                    self.read_fold(cursor)?;
                    continue;
                }
                _ => {}
            }
            let field = Field::read(cursor)?;
            if self.list.len() == fields_max {
                return Err(BadMessage::TooManyFields.into());
            }
            self.list.push(field);
            self.kinds |= field.kind.bit();
            self.loose |= field.form == Form::Anew;
            let value = cursor.bytes(field.value);
            let has = |known: &[u8]| tokens(value).any(|token| token.eq_ignore_ascii_case(known));
            match field.kind {
                Kind::Connection => self.read_connection(value),
                Kind::Upgrade => {
                    self.names_protocol |= !value.is_empty();
                    names_h2c |= has(b"h2c");
                }
                Kind::KeepAlive => self.terms.read(value),
                Kind::Te => self.takes_trailers |= has(b"trailers"),
                _ => {}
            }
        }
        cursor.line_end(BadMessage::FieldName, BadMessage::BareCr)?;
        self.loose |= cursor.has_lone_lf();
        match self.named_by_connection {
            0 => {}
            1..=NAMED_MAX => self.take_named(cursor.all()),
            _ => return Err(BadMessage::TooManyFields.into()),
        }
        // HTTP/2 in the clear would be a tunnel in which one request picks the
        // upstream of all that follow; RFC 9113 section 3.1 has dropped it.
        self.names_protocol &= !names_h2c;
        Ok(())
    }

    /// Whether some line has to be written anew, or ends with LF alone.
    pub fn is_loose(&self) -> bool {
        self.loose
    }

    /// The name, or what stands for it, of the line for which a head was
    /// refused; empty where it was not for a line.
    pub fn blamed(&self) -> &[u8] {
        &self.blamed
    }

    /// Takes note of the line for which a head is refused: where `cursor` is.
    #[cold]
    pub fn blame(&mut self, cursor: &Cursor<'_>, bad: BadMessage) {
        let line = match bad {
            BadMessage::FoldedLine => {
                let name = self.list.last().map_or((0, 0), |field| field.name);
                cursor.bytes(name)
            }
            BadMessage::FieldName | BadMessage::FieldValue | BadMessage::BareCr => cursor.line(),
            _ => b"",
        };
        let end = memchr::memchr3(b':', b'\r', b'\n', line).unwrap_or(line.len());
        let name = line[..end].trim_ascii();
        let name = &name[..name.len().min(BLAMED_BYTES_MAX)];
        self.blamed.extend_from_slice(name);
    }

    /// Reads a line that goes on with the one before. What has a meaning on the
    /// way has been read already, and must not become another.
    #[cold]
    fn read_fold(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Stop> {
        let folded = self.list.last_mut();
        let folded = folded.filter(|field| field.kind == Kind::EndToEnd && cursor.is_lenient());
        let folded = folded.ok_or(BadMessage::FoldedLine)?;
        self.loose = true;
        folded.read_fold(cursor)
    }

    /// Every field, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Field> {
        self.list.iter()
    }

    /// The value of the first field of this name that `Connection` does not name.
    pub fn value<'a>(&self, head: &'a [u8], name: &str) -> Option<&'a [u8]> {
        let field = self.list.iter().find(|field| {
            field.name(head).eq_ignore_ascii_case(name.as_bytes()) && field.kind != Kind::Named
        })?;
        Some(field.value(head))
    }

    /// Whether there is a field of this kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds & kind.bit() != 0
    }

    /// The one field of this kind; the error is `repeated` where there are
    /// more.
    pub fn only(&self, kind: Kind, repeated: BadMessage) -> Result<Option<&Field>, BadMessage> {
        if !self.has(kind) {
            return Ok(None);
        }
        let mut of_kind = self.list.iter().filter(|field| field.kind == kind);
        match (of_kind.next(), of_kind.next()) {
            (only, None) => Ok(only),
            _ => Err(repeated),
        }
    }

    /// How the body is delimited (RFC 9112 section 6). What the RFC lets a
    /// recipient repair is refused: a repeated length even where all are
    /// equal, a length beside an encoding.
    pub fn framing(&self, head: &[u8], http10: bool) -> Result<Framing, BadMessage> {
        let length = self.only(Kind::ContentLength, BadMessage::RepeatedLength)?;
        let encoding = self.only(Kind::TransferEncoding, BadMessage::TransferEncoding)?;
        match (length, encoding) {
            (None, None) => Ok(Framing::Unsaid),
            (Some(_), Some(_)) => Err(BadMessage::LengthWithEncoding),
            (Some(length), None) => number(length.value(head))
                .map(Framing::Length)
                .ok_or(BadMessage::Length),
            (None, Some(_)) if http10 => Err(BadMessage::EncodingBeforeHttp11),
            (None, Some(encoding)) => {
                codings(encoding.value(head)).ok_or(BadMessage::TransferEncoding)
            }
        }
    }

    /// Takes what `Connection` names out of what has a meaning: it does not go on,
    /// so that nothing may be decided by it that is told of the next hop.
    #[cold]
    fn take_named(&mut self, head: &[u8]) {
        self.kinds = 0;
        for at in 0..self.list.len() {
            let Field { name, kind, .. } = self.list[at];
            if kind.may_be_named() && self.names_for_this_hop(head, part(head, name)) {
                self.list[at].kind = Kind::Named;
            }
            self.kinds |= self.list[at].kind.bit();
        }
    }

    /// Whether `Connection` names fields of this name, those behind the body
    /// included (RFC 9110 section 7.6.1).
    pub fn names_for_this_hop(&self, head: &[u8], name: &[u8]) -> bool {
        self.named_by_connection > 0
            && self
                .list
                .iter()
                .filter(|field| field.kind == Kind::Connection)
                .flat_map(|field| tokens(field.value(head)))
                .any(|token| token.eq_ignore_ascii_case(name))
    }

    fn read_connection(&mut self, value: &[u8]) {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade = true;
            } else {
                self.named_by_connection += 1;
            }
        }
    }
}

/// A part of a head.
pub(super) fn part(head: &[u8], (start, end): Span) -> &[u8] {
    &head[start as usize..end as usize]
}

/// Digits and nothing else, too few to overflow.
fn number(digits: &[u8]) -> Option<u64> {
    if !(1..=LENGTH_DIGITS_MAX).contains(&digits.len()) {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Some(10 * number + u64::from(digit - b'0')),
        _ => None,
    })
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

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}
