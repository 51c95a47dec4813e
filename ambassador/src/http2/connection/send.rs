//! Field sections and content as they are sent.

use super::{Connection, OUTPUT_BYTES_MAX};
use crate::http2::block::{FIELD_OVERHEAD, Indexing};
use crate::http2::frame::{self, FrameHeader, FrameKind, HEADER_BYTES, PAYLOAD_BYTES_MAX, flags};
use crate::http2::role::Role;
use crate::http2::stream::{SendState, StreamId};

/// A field to send: its name, in any case, its value, and whether tables may
/// have it.
pub(crate) type FieldLine<'a> = (&'a [u8], &'a [u8], Indexing);

/// Why no stream can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenError {
    /// The peer allows no more at once: when one is closed, it can.
    NoStreamFree,
    /// The connection takes no more: it is ending, or all ids are used up.
    Ended,
}

impl<T> Connection<T> {
    /// Whether a stream can be opened now.
    pub(crate) fn check_open(&self) -> Result<(), OpenError> {
        let is_used_up = self.streams.highest() >= StreamId::MAX;
        let has_ended = self.is_draining() || self.failure.is_some();
        if self.role == Role::Server || is_used_up || has_ended {
            return Err(OpenError::Ended);
        }
        match self.free_streams() {
            0 => Err(OpenError::NoStreamFree),
            _ => Ok(()),
        }
    }

    /// Opens a stream with the head of a request, which ends it where `end`. Both
    /// are one step, as ids have to reach the peer in order (RFC 9113 section 5.1.1).
    ///
    /// # Errors
    /// None can be opened now.
    pub fn open<'a>(
        &mut self,
        user: T,
        fields: impl Iterator<Item = FieldLine<'a>>,
        end: bool,
    ) -> Result<StreamId, OpenError> {
        self.check_open()?;
        let id = match self.streams.highest() {
            StreamId::CONNECTION => StreamId(1),
            StreamId(highest) => StreamId(highest + 2),
        };
        let stream = self.new_stream(id, Some(user));
        self.streams.use_id(id);
        self.streams.insert(stream);
        self.send_headers(id, fields, end);
        Ok(id)
    }

    /// Whether the peer takes a section of these fields, as far as it has said (6.5.2).
    pub(crate) fn takes_section<'a>(&self, fields: impl Iterator<Item = FieldLine<'a>>) -> bool {
        // Most have no limit, and then nothing need be summed up.
        if self.peer.list_max == usize::MAX {
            return true;
        }
        let bytes = fields.map(|(name, value, _)| name.len() + value.len() + FIELD_OVERHEAD);
        bytes.sum::<usize>() <= self.peer.list_max
    }

    /// Sends a field section, which ends the stream where `end`. Where the stream is
    /// gone, nothing happens.
    pub fn send_headers<'a>(
        &mut self,
        id: StreamId,
        fields: impl Iterator<Item = FieldLine<'a>>,
        end: bool,
    ) {
        let Some(at) = self.sendable(id) else {
            return;
        };
        let start = self.output.len();
        self.output.extend_from_slice(&[0; HEADER_BYTES]);
        self.encoder.begin(&mut self.output);
        for (name, value, indexing) in fields {
            let output = &mut self.output;
            self.encoder.field(output, name, value, indexing);
        }
        self.frame_section(id, start, end);
        if end {
            self.finish_send(at);
        }
    }

    /// Puts the header before a field section in the output, which begins at `start`;
    /// a large one is cut, and goes on in CONTINUATION frames.
    fn frame_section(&mut self, id: StreamId, start: usize, end: bool) {
        let end_stream = if end { flags::END_STREAM } else { 0 };
        let encoded = self.output.len() - start - HEADER_BYTES;
        let mut header = FrameHeader {
            length: encoded.min(PAYLOAD_BYTES_MAX),
            kind: FrameKind::Headers,
            flags: end_stream,
            stream: id,
        };
        let rest = self.output.split_off(start + HEADER_BYTES + header.length);
        if rest.is_empty() {
            header.flags |= flags::END_HEADERS;
        }
        self.output[start..start + HEADER_BYTES].copy_from_slice(&header.bytes());
        let mut parts = rest.chunks(PAYLOAD_BYTES_MAX).peekable();
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            let flags = if is_last { flags::END_HEADERS } else { 0 };
            frame::write(&mut self.output, FrameKind::Continuation, flags, id, part);
        }
    }

    /// Bytes of content that may be sent in a stream now: by both windows, and by
    /// what waits in the output.
    pub fn capacity(&self, id: StreamId) -> usize {
        let Some(stream) = self.streams.get(id) else {
            return 0;
        };
        if stream.send == SendState::Finished {
            return 0;
        }
        let room = OUTPUT_BYTES_MAX.saturating_sub(self.output.len());
        let windows = stream.send_window.available();
        windows.min(self.send_window.available()).min(room)
    }

    /// Sends content, as much as may be sent now; where all of it goes and `end`, the
    /// stream ends with it. Says how much went. No content at all needs no window.
    pub fn send_data(&mut self, id: StreamId, bytes: &[u8], end: bool) -> usize {
        let Some(at) = self.sendable(id) else {
            return 0;
        };
        let taken = self.capacity(id).min(bytes.len());
        let ends = end && taken == bytes.len();
        if taken == 0 && !ends {
            return 0;
        }
        self.send_window.take(taken);
        self.streams.at(at).send_window.take(taken);
        self.budgets.earn_by_sent(taken);
        let mut rest = &bytes[..taken];
        loop {
            let (part, behind) = rest.split_at(rest.len().min(PAYLOAD_BYTES_MAX));
            let is_last = ends && behind.is_empty();
            let flags = if is_last { flags::END_STREAM } else { 0 };
            frame::write(&mut self.output, FrameKind::Data, flags, id, part);
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        if ends {
            self.finish_send(at);
        }
        taken
    }

    fn finish_send(&mut self, at: usize) {
        self.streams.finish_send(at);
        if self.role == Role::Server {
            self.budgets.earn_by_answer();
        }
    }

    /// Where in the table a stream is in which something may be sent.
    fn sendable(&mut self, id: StreamId) -> Option<usize> {
        let at = self.streams.find(id)?;
        (self.streams.at(at).send == SendState::Open).then_some(at)
    }
}
