//! A body in chunks that are signed, as AWS SDKs send it (`Content-Encoding:
//! aws-chunked`): on its way the signatures in it are replaced by those of other keys.
//!
//! ```text
//! 10000;chunk-signature=64 digits CRLF data CRLF ... 0;chunk-signature=64 digits CRLF
//! [name:value CRLF ... x-amz-trailer-signature:64 digits CRLF] CRLF
//! ```
//!
//! A signature stands before what it signs, so a chunk goes on when all of it has come.
//! Nothing changes its place: the length of the body stays, and so does the framing of
//! HTTP/1 around it.

use std::mem;
use std::ops::Range;

use aws_lc_rs::digest::{self, SHA256};

use super::sigv4::{ChunkSignatures, Hex, SIGNATURE_DIGITS};
use crate::http1::BodyReader;
use crate::message::{BadMessage, Length};

/// The largest chunk: all of it is held. SDKs make them of 64 to 128 KiB.
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// A line with its end: a size or name, and a signature or hash.
const LINE_BYTES_MAX: usize = 256;
/// The lines of a trailer in all.
const TRAILER_BYTES_MAX: usize = 4 << 10;

const CHUNK_SIGNATURE: &[u8] = b"chunk-signature=";
const TRAILER_SIGNATURE: &[u8] = b"x-amz-trailer-signature";

/// What follows the last chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkTrailer {
    /// Nothing.
    None,
    /// Fields, and the signature of them.
    Signed,
}

/// A body in signed chunks, on its way.
pub struct SignedBody {
    /// The framing of HTTP/1.
    framing: BodyReader,
    chunks: Chunks,
    /// What has come and cannot go on yet, as it came.
    held: Vec<u8>,
}

/// What of the content has been read.
struct Chunks {
    trailer: ChunkTrailer,
    signatures: ChunkSignatures,
    part: Part,
    line: Line,
    content: digest::Context,
    /// The fields of the trailer, as they are signed.
    fields: Vec<Vec<u8>>,
    trailer_bytes: usize,
    /// How much of what is held may go on.
    ready: usize,
}

/// What the next byte is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The line before a chunk.
    Head,
    /// A chunk of which so much is missing.
    Data(usize),
    /// The line end behind a chunk.
    DataEnd,
    /// A field of the trailer, or its signature.
    Trailer,
    /// The empty line at the end.
    LastLine,
    /// Nothing is left.
    Done,
}

/// A line, and where each byte of it is among what is held: chunks of HTTP/1 may
/// divide it.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    places: Vec<usize>,
}

impl ChunkTrailer {
    /// That of a body of which a head says this in `x-amz-content-sha256`; `None`: it
    /// is in no such chunks.
    pub(crate) fn said(content: &[u8]) -> Option<Self> {
        match content {
            b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => Some(Self::None),
            b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => Some(Self::Signed),
            _ => None,
        }
    }
}

impl SignedBody {
    /// A body of this length, as HTTP/1 frames it, of which nothing has come.
    pub fn new(length: Length, trailer: ChunkTrailer, signatures: ChunkSignatures) -> Self {
        Self::framed(BodyReader::of_request(length), trailer, signatures)
    }

    /// The same of a body that comes without framing.
    pub(crate) fn of_content(trailer: ChunkTrailer, signatures: ChunkSignatures) -> Self {
        Self::framed(BodyReader::until_close(), trailer, signatures)
    }

    fn framed(framing: BodyReader, trailer: ChunkTrailer, signatures: ChunkSignatures) -> Self {
        Self {
            framing,
            chunks: Chunks {
                trailer,
                signatures,
                part: Part::Head,
                line: Line::default(),
                content: digest::Context::new(&SHA256),
                fields: Vec::new(),
                trailer_bytes: 0,
                ready: 0,
            },
            held: Vec::new(),
        }
    }

    /// Takes in the next bytes of the body. Gives those that go on, with the signatures
    /// replaced.
    ///
    /// # Errors
    /// It is not in such chunks, or one is too large.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Vec<u8>, BadMessage> {
        let Self {
            framing,
            chunks,
            held,
        } = self;
        let before = held.len();
        held.extend_from_slice(bytes);
        let mut read = Ok(());
        framing.advance_over(bytes, |part| {
            if read.is_ok() {
                read = chunks.take(held, before + part.start..before + part.end);
            }
        })?;
        read?;
        if chunks.needs_nothing() {
            chunks.ready = held.len();
        }
        let ready = mem::take(&mut chunks.ready);
        if ready == 0 {
            return Ok(Vec::new());
        }
        chunks.line.places.iter_mut().for_each(|at| *at -= ready);
        let rest = held.split_off(ready);
        Ok(mem::replace(held, rest))
    }

    /// Whether nothing is missing of it.
    pub fn is_done(&self) -> bool {
        matches!(self.chunks.part, Part::LastLine | Part::Done) && self.held.is_empty()
    }

    /// How many bytes are held.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// What has come and has not gone on.
    pub fn into_held(self) -> Vec<u8> {
        self.held
    }
}

impl Chunks {
    /// Whether nothing of what has come is needed.
    fn needs_nothing(&self) -> bool {
        self.line.bytes.is_empty()
    }

    /// Takes in a part of what is held.
    fn take(&mut self, held: &mut [u8], mut at: Range<usize>) -> Result<(), BadMessage> {
        while !at.is_empty() {
            if let Part::Data(left) = self.part {
                let end = at.end.min(at.start + left);
                self.content.update(&held[at.start..end]);
                self.part = Part::Data(left - (end - at.start));
                at.start = end;
                if self.part == Part::Data(0) {
                    self.sign_chunk(held);
                    self.part = Part::DataEnd;
                }
            } else {
                let byte = held[at.start];
                self.line.add(byte, at.start)?;
                at.start += 1;
                if byte == b'\n' {
                    self.part = self.after_line(held)?;
                }
            }
            if !matches!(self.part, Part::Data(_)) && self.line.is_whole() {
                self.line.clear();
                self.ready = at.start;
            }
        }
        Ok(())
    }

    /// What comes after the line that is whole.
    fn after_line(&mut self, held: &mut [u8]) -> Result<Part, BadMessage> {
        let line = &self.line.bytes[..];
        let is_empty = line == b"\r\n";
        match self.part {
            Part::Head => match chunk_size(line)? {
                0 => {
                    self.sign_chunk(held);
                    Ok(match self.trailer {
                        ChunkTrailer::None => Part::LastLine,
                        ChunkTrailer::Signed => Part::Trailer,
                    })
                }
                size => Ok(Part::Data(size)),
            },
            Part::DataEnd if is_empty => Ok(Part::Head),
            Part::LastLine if is_empty => Ok(Part::Done),
            Part::Trailer => self.after_trailer_line(held),
            Part::Data(_) | Part::DataEnd | Part::LastLine | Part::Done => {
                Err(BadMessage::SignedChunk)
            }
        }
    }

    /// Some end a field with a line feed alone and have an empty line behind it.
    fn after_trailer_line(&mut self, held: &mut [u8]) -> Result<Part, BadMessage> {
        let line = self.line.bytes.trim_ascii();
        self.trailer_bytes += self.line.bytes.len();
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(BadMessage::TrailerTooLarge);
        }
        if line.is_empty() {
            return Ok(Part::Trailer);
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or(BadMessage::SignedChunk)?);
        let (name, value) = (name.to_ascii_lowercase(), value[1..].trim_ascii());
        if name != TRAILER_SIGNATURE {
            self.fields.push([&name, &b":"[..], value, b"\n"].concat());
            return Ok(Part::Trailer);
        }
        if !is_signature(value) {
            return Err(BadMessage::SignedChunk);
        }
        self.fields.sort();
        let signature = self.signatures.of_trailer(&self.fields.concat());
        self.line.replace_signature(held, signature);
        Ok(Part::LastLine)
    }

    /// Puts the signature of the chunk that has come into the line before it.
    fn sign_chunk(&mut self, held: &mut [u8]) {
        let content = mem::replace(&mut self.content, digest::Context::new(&SHA256));
        let hash = Hex(content.finish().as_ref()).to_string();
        let signature = self.signatures.of_chunk(&hash);
        self.line.replace_signature(held, signature);
    }
}

impl Line {
    fn add(&mut self, byte: u8, place: usize) -> Result<(), BadMessage> {
        if self.bytes.len() == LINE_BYTES_MAX {
            return Err(BadMessage::SignedChunk);
        }
        self.bytes.push(byte);
        self.places.push(place);
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.bytes.last().is_none_or(|byte| *byte == b'\n')
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
    }

    /// The signature that stands at its end.
    fn replace_signature(&self, held: &mut [u8], signature: &str) {
        let end = self.bytes.trim_ascii_end().len();
        let places = &self.places[end.saturating_sub(SIGNATURE_DIGITS)..end];
        for (place, digit) in places.iter().zip(signature.bytes()) {
            held[*place] = digit;
        }
    }
}

/// How long the chunk is behind this line.
fn chunk_size(line: &[u8]) -> Result<usize, BadMessage> {
    let bad = BadMessage::SignedChunk;
    let line = line.strip_suffix(b"\r\n").ok_or(bad)?;
    let end = line.iter().position(|byte| *byte == b';').ok_or(bad)?;
    let signature = line[end + 1..].strip_prefix(CHUNK_SIGNATURE);
    if !signature.is_some_and(is_signature) {
        return Err(bad);
    }
    let digits = str::from_utf8(&line[..end]).map_err(|_| bad)?;
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(bad);
    }
    match usize::from_str_radix(digits, 16) {
        Ok(size) if size <= CHUNK_BYTES_MAX => Ok(size),
        _ => Err(BadMessage::SignedChunkTooLarge),
    }
}

fn is_signature(text: &[u8]) -> bool {
    text.len() == SIGNATURE_DIGITS && text.iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests;
