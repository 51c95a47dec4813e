//! Cuts the peer's bytes into frames, and has each taken in.

use super::Connection;
use crate::clock::Instant;
use crate::http2::error::{Cause, ConnectionError, ErrorCode};
use crate::http2::event::Event;
use crate::http2::frame::{
    FrameHeader, FrameKind, HEADER_BYTES, PAYLOAD_BYTES_MAX, PREFACE, flags,
};
use crate::http2::stream::StreamId;
use crate::http2::streams::Place;

/// Where the next byte of the peer falls.
#[derive(Debug, Clone, Copy)]
pub(super) enum Position {
    /// In the preface of a client, of which so much has come.
    Preface { matched: usize },
    /// In the header of a frame, or where that is held already, behind what is held.
    Frame,
    /// In the content of a DATA frame.
    Data(Content),
    /// In something that is ignored.
    Ignored { left: usize },
}

/// The content of a DATA frame that is still to come; it is not empty.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    pub(super) stream: StreamId,
    pub(super) left: usize,
    /// Bytes of padding behind it.
    pub(super) padding: usize,
    /// The stream ends with it.
    pub(super) end: bool,
}

/// How many bytes of the input were used, and what happened.
pub(super) type Step = (usize, Option<Event>);

impl<T> Connection<T> {
    /// Takes in bytes from the front of `input`: how many were used, and what
    /// happened with them. It is called again with the rest until it has used all
    /// and nothing happens.
    ///
    /// # Errors
    /// The connection has ended: GOAWAY is in the output.
    pub fn receive(&mut self, input: &[u8], now: Instant) -> Result<Step, ConnectionError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.advance(input, now)
            .inspect_err(|failure| self.end(*failure))
    }

    /// Ends the connection: the peer has not acknowledged our SETTINGS in time (6.5.3).
    pub(crate) fn settings_timeout(&mut self) -> ConnectionError {
        let code = ErrorCode::SETTINGS_TIMEOUT;
        let failure = ConnectionError::violation(code, "SETTINGS that were not acknowledged");
        self.end(failure);
        failure
    }

    /// Ends the connection: the rest of a frame or of a field section has not come in
    /// time.
    pub(crate) fn rest_timeout(&mut self) -> ConnectionError {
        let failure = ConnectionError {
            code: ErrorCode::ENHANCE_YOUR_CALM,
            cause: Cause::Slowness,
        };
        self.end(failure);
        failure
    }

    fn end(&mut self, failure: ConnectionError) {
        self.failure = Some(failure);
        let last = self.last_of_peer();
        self.send_go_away(last, failure.code, failure.cause.text());
    }

    fn advance(&mut self, input: &[u8], now: Instant) -> Result<Step, ConnectionError> {
        for _ in 0..std::mem::take(&mut self.refused) {
            self.budgets.spend_error(now)?;
        }
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let (step, event) = match self.position {
                Position::Frame => self.read_frame(rest, now)?,
                Position::Data(content) if !self.is_active(content.stream) => {
                    self.pass_over_data(content);
                    continue;
                }
                Position::Data(content) => self.read_data(content, rest.len()),
                Position::Ignored { left } => {
                    let ignored = left.min(rest.len());
                    self.ignore(left - ignored);
                    (ignored, None)
                }
                Position::Preface { matched } => (self.read_preface(matched, rest)?, None),
            };
            if let Some(mut event) = event {
                if let Event::Data { bytes, .. } = &mut event {
                    *bytes = bytes.start + used..bytes.end + used;
                }
                return Ok((used + step, Some(event)));
            }
            if step == 0 {
                return Ok((used, None));
            }
            used += step;
        }
    }

    /// So many bytes that follow are not looked at.
    pub(super) fn ignore(&mut self, left: usize) {
        self.position = match left {
            0 => Position::Frame,
            left => Position::Ignored { left },
        };
    }

    fn read_preface(&mut self, matched: usize, rest: &[u8]) -> Result<usize, ConnectionError> {
        let expected = &PREFACE[matched..];
        let step = expected.len().min(rest.len());
        if rest[..step] != expected[..step] {
            return Err(ConnectionError::protocol("not the preface of HTTP/2"));
        }
        self.position = match matched + step {
            matched if matched == PREFACE.len() => Position::Frame,
            matched => Position::Preface { matched },
        };
        Ok(step)
    }

    fn read_frame(&mut self, rest: &[u8], now: Instant) -> Result<Step, ConnectionError> {
        if self.partial.is_empty() {
            return match self.unit(rest)? {
                Some(unit) if rest.len() >= unit => self.take_unit(&rest[..unit], now),
                _ => {
                    self.partial.extend_from_slice(rest);
                    Ok((rest.len(), None))
                }
            };
        }
        let needed = self.unit(&self.partial)?.unwrap_or(HEADER_BYTES);
        let step = rest.len().min(needed - self.partial.len());
        self.partial.extend_from_slice(&rest[..step]);
        match self.unit(&self.partial)? {
            Some(unit) if self.partial.len() >= unit => {
                let held = std::mem::take(&mut self.partial);
                let (_, event) = self.take_unit(&held, now)?;
                Ok((step, event))
            }
            _ => Ok((step, None)),
        }
    }

    /// How much of the frame at the front of `bytes` has to be there for it to be
    /// taken in, where its header is: of DATA what is before the content.
    fn unit(&self, bytes: &[u8]) -> Result<Option<usize>, ConnectionError> {
        let Some(header) = FrameHeader::read(bytes) else {
            return Ok(None);
        };
        self.check(header)?;
        Ok(Some(match header.kind {
            FrameKind::Unknown => HEADER_BYTES,
            FrameKind::Data => HEADER_BYTES + usize::from(header.has(flags::PADDED)),
            _ => HEADER_BYTES + header.length,
        }))
    }

    /// What a header alone has to fulfil.
    fn check(&self, header: FrameHeader) -> Result<(), ConnectionError> {
        // A server is told by what comes first that this is HTTP/2, a client too (3.4).
        let is_settings = header.kind == FrameKind::Settings && !header.has(flags::ACK);
        if !self.peer.have_come && !is_settings {
            return Err(ConnectionError::protocol("no SETTINGS at the start"));
        }
        if header.length > PAYLOAD_BYTES_MAX {
            return Err(ConnectionError::frame_size("a frame above 16,384 bytes"));
        }
        let is_on_connection = header.stream == StreamId::CONNECTION;
        let is_misplaced = match header.kind {
            FrameKind::Settings | FrameKind::Ping | FrameKind::GoAway => !is_on_connection,
            FrameKind::WindowUpdate | FrameKind::Unknown => false,
            _ => is_on_connection,
        };
        if is_misplaced {
            let what = "a frame of a kind that is not for its stream";
            return Err(ConnectionError::protocol(what));
        }
        if header.kind == FrameKind::Data && header.has(flags::PADDED) && header.length == 0 {
            return Err(ConnectionError::frame_size(
                "padded DATA without its length",
            ));
        }
        match (&self.section, header.kind) {
            (None, FrameKind::Continuation) => {
                let what = "CONTINUATION without a field section";
                Err(ConnectionError::protocol(what))
            }
            (Some(section), FrameKind::Continuation) if section.stream == header.stream => Ok(()),
            (Some(_), _) => {
                let what = "a frame inside a field section";
                Err(ConnectionError::protocol(what))
            }
            (None, _) => Ok(()),
        }
    }

    /// Takes in what [`unit`](Self::unit) says.
    fn take_unit(&mut self, unit: &[u8], now: Instant) -> Result<Step, ConnectionError> {
        let Some(header) = FrameHeader::read(unit) else {
            return Ok((0, None));
        };
        let payload = &unit[HEADER_BYTES..];
        let event = match header.kind {
            FrameKind::Data => self.begin_data(header, payload.first().copied(), now)?,
            FrameKind::Headers => self.take_headers(header, payload, now)?,
            FrameKind::Continuation => self.take_continuation(header, payload, now)?,
            FrameKind::Reset => self.take_reset(header, payload, now)?,
            FrameKind::WindowUpdate => self.take_window_update(header, payload, now)?,
            FrameKind::Settings => self.take_settings(header, payload, now)?,
            FrameKind::Ping => self.take_ping(header, payload, now)?,
            FrameKind::GoAway => self.take_go_away(payload, now)?,
            FrameKind::Priority => self.take_priority(header, payload, now)?,
            FrameKind::PushPromise => {
                return Err(ConnectionError::protocol(
                    "PUSH_PROMISE, which is not allowed",
                ));
            }
            FrameKind::Unknown => {
                self.budgets.spend_control(now)?;
                self.ignore(header.length);
                None
            }
        };
        if self.section.is_none() {
            self.whole += 1;
        }
        Ok((unit.len(), event))
    }

    /// Resets a stream for what the peer did in it.
    pub(super) fn fail(
        &mut self,
        id: StreamId,
        code: ErrorCode,
        now: Instant,
    ) -> Result<Option<Event>, ConnectionError> {
        self.budgets.spend_error(now)?;
        self.reset(id, code);
        Ok(Some(Event::Failed { stream: id, code }))
    }

    fn is_active(&self, id: StreamId) -> bool {
        matches!(self.streams.place(id), Place::Active(_))
    }
}

/// What ends a connection on which a frame comes for a stream nobody opened.
pub(super) const IDLE_STREAM: ConnectionError =
    ConnectionError::protocol("a frame on a stream that was not opened");
