//! Header fields as ranges into the bytes of a head.

use crate::http::BadMessage;

/// Digits of a Content-Length at most, zeros in front included: any such number
/// is below 2^63, so that it overflows no recipient's integer.
const LENGTH_DIGITS_MAX: usize = 18;

/// Fields in one head at most: the size of the parser's table.
pub const FIELDS_MAX: usize = 128;

/// One field; offsets are below the head limit, so 32 bits hold them.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    name_start: u32,
    name_end: u32,
    value_start: u32,
    value_end: u32,
    /// What this proxy knows of the name.
    pub kind: Kind,
}

/// Names with a meaning on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Passed on.
    EndToEnd,
    /// Decide framing or routing.
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Te,
    /// X-Upstream-Host and Proxy-Authorization: for the proxy that the client
    /// has addressed.
    ForProxy,
    /// For one hop only (RFC 9110 section 7.6.1): Keep-Alive,
    /// Proxy-Connection, HTTP2-Settings.
    HopByHop,
}

/// The fields of a head, and what they say about the connection.
#[derive(Debug, Default)]
pub struct Fields {
    list: Vec<Field>,
    /// `Connection: close`.
    pub close: bool,
    /// `Connection: keep-alive`.
    pub keep_alive: bool,
    /// `Connection: upgrade`.
    pub upgrade: bool,
    /// `Upgrade` names a protocol other than `h2c`.
    pub names_protocol: bool,
    /// `TE: trailers`: the sender can take trailer fields.
    pub takes_trailers: bool,
    /// `Connection` names fields that are for this hop only.
    named_by_connection: bool,
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
}

impl Field {
    /// The name as it was sent.
    pub fn name<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.name_start as usize..self.name_end as usize]
    }

    /// The value without the white space around it.
    pub fn value<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.value_start as usize..self.value_end as usize]
    }

    /// Name, colon, white space and value as they were sent.
    pub fn line<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        &head[self.name_start as usize..self.value_end as usize]
    }
}

impl Fields {
    /// Reads the fields that httparse found in `head`.
    pub fn read(&mut self, head: &[u8], parsed: &[httparse::Header<'_>]) {
        self.list.clear();
        (self.close, self.keep_alive, self.upgrade) = (false, false, false);
        (self.names_protocol, self.takes_trailers) = (false, false);
        self.named_by_connection = false;
        let mut names_h2c = false;
        for header in parsed {
            let name_start = offset(head, header.name.as_bytes());
            let value_start = match header.value {
                [] => name_start + header.name.len() as u32 + 1,
                value => offset(head, value),
            };
            let field = Field {
                name_start,
                name_end: name_start + header.name.len() as u32,
                value_start,
                value_end: value_start + header.value.len() as u32,
                kind: kind_of(header.name.as_bytes()),
            };
            let has =
                |known: &[u8]| tokens(header.value).any(|token| token.eq_ignore_ascii_case(known));
            match field.kind {
                Kind::Connection => self.read_connection(header.value),
                Kind::Upgrade => {
                    self.names_protocol |= !header.value.is_empty();
                    names_h2c |= has(b"h2c");
                }
                Kind::Te => self.takes_trailers |= has(b"trailers"),
                _ => {}
            }
            self.list.push(field);
        }
        // HTTP/2 in the clear would be a tunnel in which one request picks the
        // upstream of all that follow; RFC 9113 section 3.1 has dropped it.
        self.names_protocol &= !names_h2c;
    }

    /// Every field, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Field> {
        self.list.iter()
    }

    /// The value of the first field of this name.
    pub fn value<'a>(&self, head: &'a [u8], name: &str) -> Option<&'a [u8]> {
        let field = self
            .list
            .iter()
            .find(|field| field.name(head).eq_ignore_ascii_case(name.as_bytes()))?;
        Some(field.value(head))
    }

    /// The one field of this kind; the error is `repeated` where there are
    /// more.
    pub fn only(&self, kind: Kind, repeated: BadMessage) -> Result<Option<&Field>, BadMessage> {
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
            (Some(length), None) => {
                let digits = length.value(head);
                let sound = (1..=LENGTH_DIGITS_MAX).contains(&digits.len())
                    && digits.iter().all(u8::is_ascii_digit);
                let text = str::from_utf8(digits).ok().filter(|_| sound);
                text.and_then(|text| text.parse().ok())
                    .map(Framing::Length)
                    .ok_or(BadMessage::Length)
            }
            (None, Some(_)) if http10 => Err(BadMessage::EncodingBeforeHttp11),
            (None, Some(encoding)) => {
                let is_chunked = encoding.value(head).eq_ignore_ascii_case(b"chunked");
                is_chunked
                    .then_some(Framing::Chunked)
                    .ok_or(BadMessage::TransferEncoding)
            }
        }
    }

    /// Whether a field is for this hop only because `Connection` names it.
    /// Fields that decide framing and routing cannot be named away.
    pub fn is_named_by_connection(&self, head: &[u8], field: &Field) -> bool {
        self.named_by_connection
            && matches!(field.kind, Kind::EndToEnd | Kind::HopByHop)
            && self
                .list
                .iter()
                .filter(|other| other.kind == Kind::Connection)
                .flat_map(|connection| tokens(connection.value(head)))
                .any(|token| token.eq_ignore_ascii_case(field.name(head)))
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
                self.named_by_connection = true;
            }
        }
    }
}

/// The refusal for what httparse found wrong in `bytes`. It does not tell a
/// folded line from a bad name, nor a lone CR from a bad value; that is looked
/// for here.
#[cold]
pub fn refusal(error: httparse::Error, bytes: &[u8]) -> BadMessage {
    match error {
        httparse::Error::TooManyHeaders => BadMessage::TooManyFields,
        httparse::Error::Version => BadMessage::Version,
        httparse::Error::Token | httparse::Error::Status => BadMessage::StartLine,
        httparse::Error::HeaderName if has_folded_line(bytes) => BadMessage::FoldedLine,
        httparse::Error::HeaderName => BadMessage::FieldName,
        httparse::Error::HeaderValue | httparse::Error::NewLine if has_bare_cr(bytes) => {
            BadMessage::BareCr
        }
        httparse::Error::HeaderValue => BadMessage::FieldValue,
        httparse::Error::NewLine => BadMessage::StartLine,
    }
}

fn has_folded_line(bytes: &[u8]) -> bool {
    let head = up_to_empty_line(bytes);
    memchr::memchr_iter(b'\n', head).any(|at| matches!(head.get(at + 1), Some(b' ' | b'\t')))
}

fn has_bare_cr(bytes: &[u8]) -> bool {
    let head = up_to_empty_line(bytes);
    memchr::memchr_iter(b'\r', head)
        .any(|at| matches!(head.get(at + 1), Some(next) if *next != b'\n'))
}

fn up_to_empty_line(bytes: &[u8]) -> &[u8] {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 2);
    &bytes[..end.unwrap_or(bytes.len())]
}

/// httparse takes a lone LF for a line end; we do not, because the next
/// parser might not.
pub fn check_line_ends(head: &[u8]) -> Result<(), BadMessage> {
    for at in memchr::memchr_iter(b'\n', head) {
        if at == 0 || head[at - 1] != b'\r' {
            return Err(BadMessage::BareLf);
        }
    }
    Ok(())
}

/// Where `part`, a slice of `head`, begins in it.
fn offset(head: &[u8], part: &[u8]) -> u32 {
    (part.as_ptr() as usize - head.as_ptr() as usize) as u32
}

/// Where `part`, a slice of `head`, lies in it.
pub fn range(head: &[u8], part: &[u8]) -> (u32, u32) {
    let start = offset(head, part);
    (start, start + part.len() as u32)
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

fn kind_of(name: &[u8]) -> Kind {
    let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
    match name.len() {
        2 if is(b"te") => Kind::Te,
        4 if is(b"host") => Kind::Host,
        7 if is(b"upgrade") => Kind::Upgrade,
        10 if is(b"connection") => Kind::Connection,
        10 if is(b"keep-alive") => Kind::HopByHop,
        14 if is(b"http2-settings") => Kind::HopByHop,
        14 if is(b"content-length") => Kind::ContentLength,
        15 if is(b"x-upstream-host") => Kind::ForProxy,
        16 if is(b"proxy-connection") => Kind::HopByHop,
        19 if is(b"proxy-authorization") => Kind::ForProxy,
        17 if is(b"transfer-encoding") => Kind::TransferEncoding,
        _ => Kind::EndToEnd,
    }
}
