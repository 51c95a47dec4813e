//! Walks over the bytes of a head: tokens, text, line ends.
//!
//! What it walks over is what RFC 9110 and RFC 9112 allow there and nothing
//! else; what that means is for the heads to say.

use crate::message::grammar::{count_printable, count_token};
use crate::message::{BadMessage, Limits, Version};

/// How closely a message has to keep to the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grammar {
    /// To the letter: requests, with which callers might reach past the proxy.
    Strict,
    /// But for what misleads nobody, because it is written as it should be for
    /// the next party: responses, which clients would take as they are.
    Lenient,
}

/// Where in a head the next byte is.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    rest: &'a [u8],
    grammar: Grammar,
    /// A line ended with LF alone: no end to other parsers.
    lone_lf: bool,
}

/// A part of the bytes, from where to where; heads are far below 4 GiB.
pub(super) type Span = (u32, u32);

/// Why a walk ends before the head does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The rest has not come yet.
    Partial,
    /// A rule is broken.
    Bad(BadMessage),
}

impl From<BadMessage> for Stop {
    fn from(bad: BadMessage) -> Self {
        Self::Bad(bad)
    }
}

impl<'a> Cursor<'a> {
    /// At the first of `bytes`.
    pub(super) fn new(bytes: &'a [u8], grammar: Grammar) -> Self {
        Self {
            bytes,
            rest: bytes,
            grammar,
            lone_lf: false,
        }
    }

    /// Bytes walked over.
    #[inline]
    pub(super) fn position(&self) -> usize {
        self.bytes.len() - self.rest.len()
    }

    /// All bytes that it walks over, and those behind.
    pub(super) fn all(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether what misleads nobody is let through.
    #[inline]
    pub(super) fn is_lenient(&self) -> bool {
        self.grammar == Grammar::Lenient
    }

    /// Whether a line has ended with LF alone.
    pub(super) fn has_lone_lf(&self) -> bool {
        self.lone_lf
    }

    /// The bytes of a part.
    pub(super) fn bytes(&self, (start, end): Span) -> &'a [u8] {
        &self.bytes[start as usize..end as usize]
    }

    /// The line that the byte before the next belongs to, and all behind it; empty
    /// for the first line.
    pub(super) fn line(&self) -> &'a [u8] {
        let before = &self.bytes[..self.position().saturating_sub(1)];
        match memchr::memrchr(b'\n', before) {
            Some(end) => &self.bytes[end + 1..],
            None => b"",
        }
    }

    /// How long the head is over which a walk has ended so; `None` where it is
    /// not whole yet. A line that ended with LF alone is refused only here, so
    /// that what else is wrong has a say first; a lenient walk takes it for an
    /// end like any other.
    pub(super) fn length(
        &self,
        walk: Result<(), Stop>,
        limits: &Limits,
    ) -> Result<Option<usize>, BadMessage> {
        let length = match walk {
            Ok(()) => self.position(),
            Err(Stop::Partial) => self.bytes.len(),
            Err(Stop::Bad(bad)) => return Err(bad),
        };
        match walk {
            _ if length > limits.head_bytes_max => Err(BadMessage::HeadTooLarge),
            Ok(()) if self.lone_lf && !self.is_lenient() => Err(BadMessage::BareLf),
            Ok(()) => Ok(Some(length)),
            Err(_) => Ok(None),
        }
    }

    /// The next byte, which stays the next.
    #[inline]
    pub(super) fn peek(&self) -> Result<u8, Stop> {
        self.rest.first().copied().ok_or(Stop::Partial)
    }

    /// The next byte.
    #[inline]
    pub(super) fn next(&mut self) -> Result<u8, Stop> {
        let (byte, rest) = self.rest.split_first().ok_or(Stop::Partial)?;
        self.rest = rest;
        Ok(*byte)
    }

    /// As many bytes of a token as there are (RFC 9110 section 5.6.2).
    #[inline(always)]
    pub(super) fn token(&mut self) -> Span {
        self.skip(count_token(self.rest))
    }

    /// As many visible bytes as there are, those above ASCII too.
    #[inline]
    pub(super) fn word(&mut self) -> Span {
        self.skip(count_printable(self.rest, b'!'))
    }

    /// Over spaces and tabs.
    #[inline]
    pub(super) fn white_space(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// As many visible bytes, spaces and tabs as there are, those above ASCII
    /// too: a field value with white space behind it (RFC 9110 section 5.5).
    #[inline(always)]
    pub(super) fn text(&mut self) -> Span {
        let (start, mut end) = self.skip(count_printable(self.rest, b' '));
        while let [b'\t', rest @ ..] = self.rest {
            self.rest = rest;
            (_, end) = self.skip(count_printable(self.rest, b' '));
        }
        (start, end)
    }

    /// Over the version, HTTP/1.0 or 1.1.
    #[inline]
    pub(super) fn version(&mut self) -> Result<Version, Stop> {
        let version = match self.rest.first_chunk() {
            Some(b"HTTP/1.1") => Version::Http11,
            Some(b"HTTP/1.0") => Version::Http10,
            None if b"HTTP/1.".starts_with(self.rest) => return Err(Stop::Partial),
            Some(_) | None => return Err(BadMessage::Version.into()),
        };
        self.skip(b"HTTP/1.1".len());
        Ok(version)
    }

    /// The end of a line; `other` is the refusal where there is something else,
    /// `lone_cr` where CR comes without LF.
    #[inline(always)]
    pub(super) fn line_end(&mut self, other: BadMessage, lone_cr: BadMessage) -> Result<(), Stop> {
        if let [b'\r', b'\n', rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(());
        }
        match self.next()? {
            b'\n' => {
                self.lone_lf = true;
                Ok(())
            }
            b'\r' => self.peek().and(Err(lone_cr.into())),
            _ => Err(other.into()),
        }
    }

    #[inline]
    fn skip(&mut self, count: usize) -> Span {
        let start = self.position();
        self.rest = &self.rest[count..];
        (start as u32, (start + count) as u32)
    }
}
