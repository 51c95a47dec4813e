//! Walks over the bytes of a head: tokens, text, line ends.
//!
//! What it walks over is what RFC 9110 and RFC 9112 allow there and nothing
//! else; what that means is for the heads to say.

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
        self.skip(count_while(self.rest, |byte| TOKEN[usize::from(byte)]))
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

/// Whether a byte may stand in a token.
pub(crate) const fn is_token(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
    ) || byte.is_ascii_alphanumeric()
}

/// The same for every byte: names are most of what is walked over bytewise.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        table[byte] = is_token(byte as u8);
        byte += 1;
    }
    table
};

/// Bytes up to the first that is not wanted.
#[inline(always)]
fn count_while(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> usize {
    count(bytes, &wanted, |word| {
        word.iter().position(|byte| !wanted(*byte))
    })
}

/// Bytes up to the first that is below `least` or DEL; `least` is at most 128.
///
/// In each word the high bit of a byte is set where subtracting borrowed: the
/// byte was smaller. A borrow can spoil bytes above the first, never below.
#[inline(always)]
fn count_printable(bytes: &[u8], least: u8) -> usize {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const DEL: u8 = 0x7f;
    let below = |word: u64, least: u8| word.wrapping_sub(EACH * u64::from(least)) & !word;
    let wanted = |byte| byte >= least && byte != DEL;
    count(bytes, wanted, |word| {
        let word = u64::from_le_bytes(*word);
        let is_del = below(word ^ (EACH * u64::from(DEL)), 1);
        let stops = (below(word, least) | is_del) & (EACH << 7);
        (stops != 0).then(|| stops.trailing_zeros() as usize / 8)
    })
}

/// Bytes up to the first that is not wanted; `first_unwanted` looks for it in
/// eight at a time.
#[inline(always)]
fn count(
    bytes: &[u8],
    wanted: impl Fn(u8) -> bool,
    first_unwanted: impl Fn(&[u8; 8]) -> Option<usize>,
) -> usize {
    let (words, rest) = bytes.as_chunks();
    for (at, word) in words.iter().enumerate() {
        if let Some(within) = first_unwanted(word) {
            return 8 * at + within;
        }
    }
    let within = rest.iter().position(|byte| !wanted(*byte));
    8 * words.len() + within.unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_of_tokens_is_that_of_the_grammar() {
        for byte in 0..=u8::MAX {
            let is_mark = b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_token(byte), byte.is_ascii_alphanumeric() || is_mark);
        }
    }

    proptest! {
        #[test]
        fn eight_at_a_time_is_as_one_by_one(
            bytes in prop::collection::vec(
                prop_oneof![8 => b' '..=b'~', 1 => any::<u8>()],
                0..40,
            ),
            least in prop::sample::select(vec![b' ', b'!']),
        ) {
            let wanted = |byte: u8| byte >= least && byte != 0x7f;
            let expected = bytes.iter().position(|byte| !wanted(*byte));
            let expected = expected.unwrap_or(bytes.len());
            prop_assert_eq!(count_printable(&bytes, least), expected);
            prop_assert_eq!(count_while(&bytes, wanted), expected);
        }
    }
}
