//! Follows a message body through the bytes of a connection and says where it
//! ends. The bytes are passed on as they came, framing included; so what is let
//! through here is what the next party parses, and only what it can parse in no
//! other way is. In a response that may be more than the grammar has: blanks
//! behind a size, zeros before it.

use std::ops::Range;

use crate::http1::cursor::Grammar;
use crate::message::grammar::is_token;
use crate::message::{BadMessage, Length, ResponseHead};

/// Bytes of one chunk's extensions, and of blanks before them, at most. Nothing uses them; they have been
/// used to exhaust servers (CVE-2023-39326).
const EXTENSION_BYTES_MAX: u32 = 256;

/// Bytes of the trailer section at most.
const TRAILER_BYTES_MAX: u32 = 16 * 1024;

/// Hexadecimal digits of a chunk size at most: what fits 64 bits.
const SIZE_DIGITS_MAX: u8 = 15;

/// Zeros in front of a chunk size at most, where they do not count as digits.
const ZEROS_MAX: u8 = 64;

/// Fields that are refused in a trailer section: a recipient that merges
/// trailers into the head (RFC 9110 section 6.5.1 forbids it) would change
/// framing, routing or the connection with them.
const HEAD_ONLY: [&[u8]; 8] = [
    b"connection",
    b"content-length",
    b"host",
    b"keep-alive",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

/// Where in a body the next byte falls.
#[derive(Debug, Clone)]
pub struct BodyReader {
    state: State,
    grammar: Grammar,
}

/// What a part of the input was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that belong to the body, from the front of the input.
    pub consumed: usize,
    /// How many of these, at their end, belong to the trailer section: to the
    /// field lines behind the last chunk, and the empty line.
    pub trailers: usize,
    /// The body ended with them.
    pub done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Done,
    Length(u64),
    UntilClose,
    Size { value: u64, digits: u8, zeros: u8 },
    Blanks { size: u64, left: u32 },
    Extension { size: u64, left: u32, quote: Quote },
    SizeLf { size: u64 },
    Data(u64),
    DataCr,
    DataLf,
    Trailer { left: u32, part: Line },
}

/// Where in a quoted string (RFC 9110 section 5.6.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quote {
    Outside,
    Inside,
    /// Behind a backslash.
    Escaped,
}

/// Where in a line of the trailer section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Start,
    /// Which of [`HEAD_ONLY`] begin with the bytes so far, a bit for each.
    Name {
        length: u8,
        could_be: u8,
    },
    Value,
    Lf,
    EndLf,
}

impl BodyReader {
    /// The body of a request: chunked where its length is not known.
    pub fn of_request(length: Length) -> Self {
        Self::new(State::of(length), Grammar::Strict)
    }

    /// The body of a response: chunked where its length is not known.
    pub fn of_response(length: Length) -> Self {
        Self::new(State::of(length), Grammar::Lenient)
    }

    /// The body of a response that ends with the connection.
    pub fn until_close() -> Self {
        Self::new(State::UntilClose, Grammar::Lenient)
    }

    /// The body that follows `response`.
    pub(crate) fn behind(response: &ResponseHead) -> Self {
        match response.ends_with_connection() {
            true => Self::until_close(),
            false => Self::of_response(response.length()),
        }
    }

    fn new(state: State, grammar: Grammar) -> Self {
        Self { state, grammar }
    }

    /// Nothing of it is left.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes in the next bytes of the connection.
    #[inline]
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Progress, BadMessage> {
        // A part of a body whose length is known, and nothing behind it: most are.
        if let State::Length(left) = self.state
            && let Some(left) = left.checked_sub(bytes.len() as u64)
        {
            let done = left == 0;
            self.state = if done {
                State::Done
            } else {
                State::Length(left)
            };
            return Ok(Progress {
                consumed: bytes.len(),
                trailers: 0,
                done,
            });
        }
        self.advance_over(bytes, |_| ())
    }

    /// Takes in the next bytes and appends what is content to `data`: a
    /// chunked body loses its framing and its trailers.
    pub fn advance_into(
        &mut self,
        bytes: &[u8],
        data: &mut Vec<u8>,
    ) -> Result<Progress, BadMessage> {
        self.advance_over(bytes, |part| data.extend_from_slice(&bytes[part]))
    }

    /// Takes in the next bytes and tells `data` which of them are content.
    #[inline]
    pub(crate) fn advance_over(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(Range<usize>),
    ) -> Result<Progress, BadMessage> {
        let mut at = 0;
        let mut trailers_at = self.state.is_trailer().then_some(0);
        while at < bytes.len() && self.state != State::Done {
            let rest = &bytes[at..];
            if let Some((after, length)) = self.state.after_plain(rest) {
                self.state = after;
                at += length;
                continue;
            }
            match self.state {
                State::Length(left) | State::Data(left) => {
                    let take =
                        usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    data(at..at + take);
                    at += take;
                    let left = left - take as u64;
                    self.state = match (self.state, left) {
                        (State::Length(_), 0) => State::Done,
                        (State::Length(_), left) => State::Length(left),
                        (_, 0) => State::DataCr,
                        (_, left) => State::Data(left),
                    };
                }
                State::UntilClose => {
                    data(at..bytes.len());
                    at = bytes.len();
                }
                framing => {
                    self.state = framing.after(bytes[at], self.grammar)?;
                    at += 1;
                    if trailers_at.is_none() && self.state.is_trailer() {
                        trailers_at = Some(at);
                    }
                }
            }
        }
        Ok(Progress {
            consumed: at,
            trailers: trailers_at.map_or(0, |start| at - start),
            done: self.is_done(),
        })
    }
}

impl State {
    const FIRST_CHUNK: Self = Self::Size {
        value: 0,
        digits: 0,
        zeros: 0,
    };

    fn of(length: Length) -> Self {
        match length {
            Length::None | Length::Exact(0) => Self::Done,
            Length::Exact(length) => Self::Length(length),
            Length::Unknown => Self::FIRST_CHUNK,
        }
    }

    fn is_trailer(self) -> bool {
        matches!(self, Self::Trailer { .. })
    }

    /// The state after the framing between two chunks as most have it, and how
    /// much that was: what is at hand whole is not walked over by the byte.
    #[inline]
    fn after_plain(self, bytes: &[u8]) -> Option<(Self, usize)> {
        match self {
            Self::DataCr => {
                let rest = bytes.strip_prefix(b"\r\n")?;
                match plain_size(rest) {
                    Some((size, length)) => Some((Self::Data(size), 2 + length)),
                    None => Some((Self::FIRST_CHUNK, 2)),
                }
            }
            Self::Size { digits: 0, .. } => {
                let (size, length) = plain_size(bytes)?;
                Some((Self::Data(size), length))
            }
            _ => None,
        }
    }

    /// The state after one byte of chunk framing (RFC 9112 section 7.1).
    fn after(self, byte: u8, grammar: Grammar) -> Result<Self, BadMessage> {
        match self {
            Self::Size {
                value,
                digits,
                zeros,
            } => after_size((value, digits, zeros), byte, grammar),
            Self::Blanks { size, left } => after_blank(size, left, byte),
            Self::Extension { size, left, quote } => {
                after_extension(size, left, quote, (byte, grammar))
            }
            Self::SizeLf { size } => match (byte, size) {
                (b'\n', 0) => Ok(Self::Trailer {
                    left: TRAILER_BYTES_MAX,
                    part: Line::Start,
                }),
                (b'\n', size) => Ok(Self::Data(size)),
                _ => Err(BadMessage::ChunkSize),
            },
            Self::DataCr if byte == b'\r' => Ok(Self::DataLf),
            Self::DataLf if byte == b'\n' => Ok(Self::FIRST_CHUNK),
            Self::DataCr | Self::DataLf => Err(BadMessage::ChunkEnd),
            Self::Trailer { left: 0, .. } => Err(BadMessage::TrailerTooLarge),
            Self::Trailer { left, part } => after_trailer(left - 1, part, byte),
            Self::Done | Self::Length(_) | Self::Data(_) | Self::UntilClose => Ok(self),
        }
    }
}

/// A size that is not 0, digits and line end alone, and how long that is.
fn plain_size(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut size = 0;
    for (at, byte) in bytes
        .iter()
        .enumerate()
        .take(usize::from(SIZE_DIGITS_MAX) + 1)
    {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if size > 0 && bytes.get(at + 1) == Some(&b'\n') => return Some((size, at + 2)),
            _ => return None,
        };
        size = size * 16 + u64::from(digit);
    }
    None
}

fn after_size(
    (value, digits, zeros): (u64, u8, u8),
    byte: u8,
    grammar: Grammar,
) -> Result<State, BadMessage> {
    let lenient = grammar == Grammar::Lenient;
    match byte {
        b'0' if lenient && digits == 1 && value == 0 && zeros < ZEROS_MAX => Ok(State::Size {
            value,
            digits,
            zeros: zeros + 1,
        }),
        b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F' if digits < SIZE_DIGITS_MAX => {
            let digit = (byte as char).to_digit(16).unwrap_or_default();
            Ok(State::Size {
                value: value * 16 + u64::from(digit),
                digits: digits + 1,
                zeros,
            })
        }
        b' ' | b'\t' if lenient && digits > 0 => after_blank(value, EXTENSION_BYTES_MAX, byte),
        b'\r' | b';' if digits > 0 => after_blank(value, EXTENSION_BYTES_MAX, byte),
        _ => Err(BadMessage::ChunkSize),
    }
}

/// What may come behind a size and blanks. Digits may not: some read them on,
/// some do not.
fn after_blank(size: u64, left: u32, byte: u8) -> Result<State, BadMessage> {
    match byte {
        b'\r' => Ok(State::SizeLf { size }),
        b';' => Ok(State::Extension {
            size,
            left,
            quote: Quote::Outside,
        }),
        b' ' | b'\t' if left > 0 => Ok(State::Blanks {
            size,
            left: left - 1,
        }),
        _ => Err(BadMessage::ChunkSize),
    }
}

/// An extension runs to the end of its line; its inner grammar does not matter
/// as long as nothing in it can pass for a line end. A string that is still
/// open there does not end with the line to some.
fn after_extension(
    size: u64,
    left: u32,
    quote: Quote,
    (byte, grammar): (u8, Grammar),
) -> Result<State, BadMessage> {
    let quote = match (quote, byte) {
        (Quote::Outside, b'\r') => return Ok(State::SizeLf { size }),
        (Quote::Outside, b'"') => Quote::Inside,
        (Quote::Inside, b'"') => Quote::Outside,
        (Quote::Inside, b'\\') => Quote::Escaped,
        (Quote::Escaped, _) => Quote::Inside,
        (quote, _) => quote,
    };
    let lenient = grammar == Grammar::Lenient;
    match byte {
        b'\t' | b' '..=b'~' if left > 0 => {}
        0x80..=0xff if left > 0 && lenient && quote != Quote::Outside => {}
        _ => return Err(BadMessage::ChunkExtension),
    }
    let left = left - 1;
    Ok(State::Extension { size, left, quote })
}

fn after_trailer(left: u32, part: Line, byte: u8) -> Result<State, BadMessage> {
    let next = match (part, byte) {
        (Line::Start, b'\r') => Line::EndLf,
        (Line::Start, byte) if is_token(byte) => after_name(0, u8::MAX, byte),
        (Line::Name { length, could_be }, byte) if is_token(byte) => {
            after_name(length, could_be, byte)
        }
        (Line::Name { length, could_be }, b':') => {
            if is_head_only(length, could_be) {
                return Err(BadMessage::TrailerName);
            }
            Line::Value
        }
        (Line::Value, b'\r') => Line::Lf,
        (Line::Value, b'\t' | b' '..=b'~' | 0x80..=0xff) => Line::Value,
        (Line::Lf, b'\n') => Line::Start,
        (Line::EndLf, b'\n') => return Ok(State::Done),
        _ => return Err(BadMessage::Trailer),
    };
    Ok(State::Trailer { left, part: next })
}

fn after_name(length: u8, could_be: u8, byte: u8) -> Line {
    let byte = byte.to_ascii_lowercase();
    let mut still = 0;
    for (bit, name) in HEAD_ONLY.iter().enumerate() {
        if name.get(usize::from(length)) == Some(&byte) {
            still |= could_be & (1 << bit);
        }
    }
    Line::Name {
        length: length.saturating_add(1),
        could_be: still,
    }
}

fn is_head_only(length: u8, could_be: u8) -> bool {
    let is = |(bit, name): (usize, &&[u8])| {
        could_be & (1 << bit) != 0 && name.len() == usize::from(length)
    };
    HEAD_ONLY.iter().enumerate().any(is)
}

#[cfg(test)]
mod tests;
