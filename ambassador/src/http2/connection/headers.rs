//! Field sections as they come: HEADERS and CONTINUATION frames, and which part
//! of which message they are (RFC 9113 sections 4.3, 5.1, 6.2, 6.10 and 8.1).

use super::Connection;
use super::receive::IDLE_STREAM;
use crate::clock::Instant;
use crate::http2::error::{ConnectionError, ErrorCode, Flood};
use crate::http2::event::{Event, Section};
use crate::http2::frame::{self, FrameHeader, flags};
use crate::http2::hpack::CompressionError;
use crate::http2::role::Role;
use crate::http2::stream::{ReceiveState, SendState, Stream, StreamId};
use crate::http2::streams::Place;
use crate::http2::window::{ReceiveWindow, SendWindow, WINDOW_DEFAULT};

/// CONTINUATION frames of one field section at most (CVE-2024-27316).
const CONTINUATIONS_MAX: u8 = 8;

/// A field section is given up when its encoded bytes are so many times what its
/// fields may be.
const ENCODED_FACTOR_MAX: usize = 4;

/// Streams in the table at most, for each that a client may have open: those that
/// are closed stay until their user forgets them.
const TABLE_FACTOR_MAX: usize = 2;

/// A field section of which more is to come.
#[derive(Debug)]
pub(super) struct PartialSection {
    pub(super) stream: StreamId,
    traits: Traits,
    fragments: Vec<u8>,
    continuations: u8,
}

impl PartialSection {
    /// Bytes that are kept of it.
    pub(super) fn bytes(&self) -> usize {
        self.fragments.capacity()
    }
}

/// What its HEADERS frame says of a field section.
#[derive(Debug, Clone, Copy)]
struct Traits {
    /// The stream ends with it.
    end: bool,
    /// The stream is to depend on itself (RFC 7540 section 5.3.1).
    depends_on_itself: bool,
}

impl<T> Connection<T> {
    /// HEADERS.
    pub(super) fn take_headers(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<Option<Event>, ConnectionError> {
        let mut fragment = payload;
        if header.has(flags::PADDED) {
            let Some((pad, rest)) = fragment.split_first() else {
                return Err(ConnectionError::frame_size(
                    "padded HEADERS without its length",
                ));
            };
            let Some(end) = rest.len().checked_sub(usize::from(*pad)) else {
                return Err(ConnectionError::protocol("more padding than payload"));
            };
            fragment = &rest[..end];
        }
        let mut traits = Traits {
            end: header.has(flags::END_STREAM),
            depends_on_itself: false,
        };
        if header.has(flags::PRIORITY) {
            let Some((priority, rest)) = fragment.split_first_chunk::<5>() else {
                return Err(ConnectionError::frame_size(
                    "HEADERS shorter than its priority",
                ));
            };
            let &[a, b, c, d, _weight] = priority;
            traits.depends_on_itself = frame::number([a, b, c, d]) == header.stream.0;
            fragment = rest;
        }
        if header.has(flags::END_HEADERS) {
            return self.take_section(header.stream, traits, fragment, now);
        }
        self.section = Some(PartialSection {
            stream: header.stream,
            traits,
            fragments: fragment.to_vec(),
            continuations: 0,
        });
        Ok(None)
    }

    /// CONTINUATION, of the section that is being received.
    pub(super) fn take_continuation(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<Option<Event>, ConnectionError> {
        let Some(section) = &mut self.section else {
            return Ok(None);
        };
        section.continuations += 1;
        if section.continuations > CONTINUATIONS_MAX {
            return Err(Flood::Continuations.into());
        }
        let encoded = section.fragments.len() + payload.len();
        if encoded > self.local.list_max.saturating_mul(ENCODED_FACTOR_MAX) {
            return Err(Flood::HeaderList.into());
        }
        section.fragments.extend_from_slice(payload);
        if !header.has(flags::END_HEADERS) {
            return Ok(None);
        }
        match self.section.take() {
            Some(section) => {
                self.take_section(section.stream, section.traits, &section.fragments, now)
            }
            None => Ok(None),
        }
    }

    /// A whole field section. It is decoded whatever it is for, as later ones may
    /// refer to it (4.3).
    fn take_section(
        &mut self,
        id: StreamId,
        traits: Traits,
        encoded: &[u8],
        now: Instant,
    ) -> Result<Option<Event>, ConnectionError> {
        let decoded = self.decoder.decode(encoded, &mut self.block);
        decoded.map_err(|error| match error {
            CompressionError::Bomb => Flood::HeaderList.into(),
            error => ConnectionError::violation(ErrorCode::COMPRESSION_ERROR, error.text()),
        })?;
        match self.streams.place(id) {
            Place::Active(at) => match self.part_of_message(at, traits) {
                Ok(section) => {
                    self.budgets.earn_by_stream();
                    Ok(Some(Event::Headers {
                        stream: id,
                        section,
                        end: traits.end,
                    }))
                }
                Err(code) => self.fail(id, code, now),
            },
            Place::Idle => self.take_request(id, traits, now),
            Place::ResetHere => {
                match traits.end {
                    true => self.streams.forget_reset(id),
                    false => self.budgets.spend_control(now)?,
                }
                Ok(None)
            }
            Place::Closed => {
                let code = ErrorCode::STREAM_CLOSED;
                let what = "HEADERS on a closed stream";
                Err(ConnectionError::violation(code, what))
            }
            Place::Skipped => {
                let what = "HEADERS on a stream below others";
                Err(ConnectionError::protocol(what))
            }
        }
    }

    /// What part of its message a section is, in a stream that is not closed.
    ///
    /// # Errors
    /// The stream has to be reset.
    fn part_of_message(&mut self, at: usize, traits: Traits) -> Result<Section, ErrorCode> {
        let is_interim = self.is_interim();
        let stream = self.streams.at(at);
        let section = match (stream.receive, traits.end) {
            _ if traits.depends_on_itself => return Err(ErrorCode::PROTOCOL_ERROR),
            (ReceiveState::Finished, _) => return Err(ErrorCode::STREAM_CLOSED),
            // Interim responses do not end a stream, trailers do (8.1).
            (ReceiveState::Head, true) if is_interim => return Err(ErrorCode::PROTOCOL_ERROR),
            (ReceiveState::Content, false) => return Err(ErrorCode::PROTOCOL_ERROR),
            (ReceiveState::Content, true) if stream.is_tunnel => {
                return Err(ErrorCode::PROTOCOL_ERROR);
            }
            (ReceiveState::Head, _) if is_interim => Section::Response,
            (ReceiveState::Head, _) => {
                stream.receive = ReceiveState::Content;
                Section::Response
            }
            (ReceiveState::Content, true) => {
                stream.check_end()?;
                Section::Trailers
            }
        };
        if traits.end {
            self.streams.finish_receive(at);
        }
        Ok(section)
    }

    /// Whether the section has a status of 1xx.
    fn is_interim(&self) -> bool {
        let lines = self.block.bytes();
        let mut fields = self.block.fields().iter();
        let status = fields.find(|field| field.name(lines) == b":status");
        status.is_some_and(|status| status.value(lines).starts_with(b"1"))
    }

    /// A section on a stream that nobody has used: a request, if a client may send
    /// one there.
    fn take_request(
        &mut self,
        id: StreamId,
        traits: Traits,
        now: Instant,
    ) -> Result<Option<Event>, ConnectionError> {
        if self.role == Role::Client || !id.is_of_client() {
            return Err(IDLE_STREAM);
        }
        let most = self.local.max_streams as usize;
        let is_full = self.streams.active() >= most
            || self.streams.len() >= most.saturating_mul(TABLE_FACTOR_MAX);
        self.streams.use_id(id);
        if self.local_last.is_some_and(|last| id > last) {
            // The client does not know yet (6.8).
            self.budgets.spend_control(now)?;
            self.expect_more(id, traits);
            return Ok(None);
        }
        if traits.depends_on_itself || is_full {
            self.budgets.spend_control(now)?;
            let code = match is_full {
                true => ErrorCode::REFUSED_STREAM,
                false => ErrorCode::PROTOCOL_ERROR,
            };
            frame::write_reset(&mut self.output, id, code);
            self.expect_more(id, traits);
            return Ok(None);
        }
        let mut stream = self.new_stream(id, None);
        if traits.end {
            stream.receive = ReceiveState::Finished;
        }
        self.streams.insert(stream);
        self.budgets.earn_by_stream();
        Ok(Some(Event::Headers {
            stream: id,
            section: Section::Request,
            end: traits.end,
        }))
    }

    /// What more comes of a stream that did not begin is ignored.
    fn expect_more(&mut self, id: StreamId, traits: Traits) {
        if !traits.end {
            self.streams.remember_reset(id);
        }
    }

    /// A stream at its start.
    pub(super) fn new_stream(&self, id: StreamId, user: Option<T>) -> Stream<T> {
        let window = match self.local_acknowledged {
            true => self.local.window,
            false => WINDOW_DEFAULT,
        };
        Stream {
            id,
            user,
            receive: match self.role {
                Role::Client => ReceiveState::Head,
                Role::Server => ReceiveState::Content,
            },
            send: SendState::Open,
            receive_window: ReceiveWindow::new(window),
            send_window: SendWindow::new(self.peer.window),
            unreleased: 0,
            length_left: None,
            is_tunnel: false,
        }
    }
}
