//! DATA frames as they come (RFC 9113 sections 5.2 and 6.1).

use super::Connection;
use super::receive::{Content, IDLE_STREAM, Position, Step};
use crate::clock::Instant;
use crate::http2::error::{ConnectionError, ErrorCode};
use crate::http2::event::Event;
use crate::http2::frame::{self, FrameHeader, flags};
use crate::http2::streams::Place;

impl<T> Connection<T> {
    /// A DATA frame begins; `pad` is the length of its padding. The whole payload
    /// counts against both windows, the padding is given back at once.
    pub(super) fn begin_data(
        &mut self,
        header: FrameHeader,
        pad: Option<u8>,
        now: Instant,
    ) -> Result<Option<Event>, ConnectionError> {
        let FrameHeader { length, stream, .. } = header;
        let end = header.has(flags::END_STREAM);
        let place = self.streams.place(stream);
        let padding = pad.map_or(0, usize::from);
        let overhead = padding + usize::from(pad.is_some());
        let Some(content) = length.checked_sub(overhead) else {
            return Err(ConnectionError::protocol("more padding than payload"));
        };
        if place == Place::Idle {
            return Err(IDLE_STREAM);
        }
        if self.receive_window.take(length).is_err() {
            let what = "more DATA than the connection's window";
            return Err(ConnectionError::flow_control(what));
        }
        match content {
            0 if !end => self.budgets.spend_control(now)?,
            _ => self.budgets.earn_by_data(),
        }
        let Place::Active(at) = place else {
            self.ignore_data(header, pad);
            self.data_when_closed(place, header, now)?;
            return Ok(None);
        };
        let taken = self.streams.at(at).take_data(length, content);
        let ended = taken.and_then(|()| match end {
            true => self.streams.at(at).check_end(),
            false => Ok(()),
        });
        if let Err(code) = ended {
            self.ignore_data(header, pad);
            return self.fail(stream, code, now);
        }
        if overhead > 0 {
            self.credit_stream(stream, overhead as u32);
            self.credit_connection(overhead as u32);
        }
        if content > 0 {
            self.position = Position::Data(Content {
                stream,
                left: content,
                padding,
                end,
            });
            return Ok(None);
        }
        self.ignore(padding);
        if !end {
            return Ok(None);
        }
        self.streams.finish_receive(at);
        let bytes = 0..0;
        Ok(Some(Event::Data { stream, bytes, end }))
    }

    /// Gives out as much of the content as there is, of an input of so many bytes.
    pub(super) fn read_data(&mut self, content: Content, input: usize) -> Step {
        let Content { stream, left, .. } = content;
        let bytes = left.min(input);
        let (Place::Active(at), 1..) = (self.streams.place(stream), bytes) else {
            return (0, None);
        };
        self.streams.at(at).unreleased += bytes as u32;
        let left = left - bytes;
        let end = content.end && left == 0;
        match left {
            0 => self.ignore(content.padding),
            left => self.position = Position::Data(Content { left, ..content }),
        }
        if end {
            self.streams.finish_receive(at);
        }
        let event = Event::Data {
            stream,
            bytes: 0..bytes,
            end,
        };
        (bytes, Some(event))
    }

    /// Passes over content of a stream that was reset while its frame came.
    pub(super) fn pass_over_data(&mut self, content: Content) {
        self.credit_connection(content.left as u32);
        self.ignore(content.left + content.padding);
        if content.end {
            self.streams.forget_reset(content.stream);
        }
    }

    /// Passes over the payload of a frame, of which `pad` is read already.
    fn ignore_data(&mut self, header: FrameHeader, pad: Option<u8>) {
        self.credit_connection(header.length as u32);
        self.ignore(header.length - usize::from(pad.is_some()));
    }

    fn data_when_closed(
        &mut self,
        place: Place,
        header: FrameHeader,
        now: Instant,
    ) -> Result<(), ConnectionError> {
        if place == Place::ResetHere {
            if header.has(flags::END_STREAM) {
                self.streams.forget_reset(header.stream);
            }
            return Ok(());
        }
        self.budgets.spend_error(now)?;
        self.streams.remember_reset(header.stream);
        frame::write_reset(&mut self.output, header.stream, ErrorCode::STREAM_CLOSED);
        Ok(())
    }
}
