//! Frames without content as they come (RFC 9113 sections 6.3 to 6.9).

use super::receive::IDLE_STREAM;
use super::{Connection, PING_PAYLOAD};
use crate::clock::Instant;
use crate::http2::error::{ConnectionError, ErrorCode, Flood};
use crate::http2::event::Event;
use crate::http2::frame::{self, FrameHeader, flags};
use crate::http2::role::Role;
use crate::http2::settings::{self, parameter};
use crate::http2::stream::{SendState, StreamId};
use crate::http2::streams::Place;
use crate::http2::window::{Growth, WINDOW_DEFAULT};

impl<T> Connection<T> {
    /// PRIORITY has no meaning any more, only a form (6.3).
    pub(super) fn take_priority(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<Option<Event>, ConnectionError> {
        self.budgets.spend_control(now)?;
        let id = header.stream;
        let place = self.streams.place(id);
        let error = match *payload {
            [a, b, c, d, _weight] if frame::number([a, b, c, d]) == id.0 => {
                ConnectionError::protocol("a stream that depends on itself")
            }
            [_, _, _, _, _] => return Ok(None),
            _ => ConnectionError::frame_size("PRIORITY that has not 5 bytes"),
        };
        match place {
            Place::Active(_) => self.fail(id, error.code, now),
            _ => Err(error),
        }
    }

    /// RST_STREAM.
    pub(super) fn take_reset(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<Option<Event>, ConnectionError> {
        let id = header.stream;
        let place = self.streams.place(id);
        let code = exactly(payload, "RST_STREAM that has not 4 bytes")?;
        let code = ErrorCode(u32::from_be_bytes(code));
        match place {
            Place::Active(at) => {
                let is_answered = self.streams.at(at).send == SendState::Finished;
                if self.role == Role::Server && !is_answered {
                    self.budgets.spend_reset(now)?;
                }
                self.streams.close(at);
                Ok(Some(Event::Reset { stream: id, code }))
            }
            Place::Idle => Err(IDLE_STREAM),
            Place::ResetHere | Place::Closed | Place::Skipped => {
                self.budgets.spend_control(now)?;
                self.streams.forget_reset(id);
                Ok(None)
            }
        }
    }

    /// SETTINGS. They are acknowledged at once.
    pub(super) fn take_settings(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<Option<Event>, ConnectionError> {
        self.budgets.spend_control(now)?;
        if header.has(flags::ACK) {
            return self.take_acknowledgement(payload).map(|()| None);
        }
        if !settings::is_whole(payload) {
            return Err(ConnectionError::frame_size(
                "SETTINGS with part of a parameter",
            ));
        }
        let parameters = settings::parameters(payload);
        if parameters.len() > settings::PARAMETERS_MAX {
            return Err(Flood::Settings.into());
        }
        let window = self.peer.window;
        self.peer.begin();
        for (number, value) in parameters {
            match number {
                // More than one may come, and the smallest counts (RFC 7541 section 4.2).
                parameter::HEADER_TABLE_SIZE => self.encoder.set_table_max(value),
                _ => self.peer.set(self.role, (number, value))?,
            }
        }
        let by = i64::from(self.peer.window) - i64::from(window);
        if self.streams.shift_send_windows(by).is_err() {
            let what = "SETTINGS that make a window too large";
            return Err(ConnectionError::flow_control(what));
        }
        frame::write_settings_ack(&mut self.output);
        Ok(Some(Event::Settings))
    }

    /// Our SETTINGS apply from now on: until then a peer may have known only the
    /// default window (6.5.3).
    fn take_acknowledgement(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        if !payload.is_empty() {
            return Err(ConnectionError::frame_size(
                "acknowledged SETTINGS with content",
            ));
        }
        if !self.local_acknowledged {
            self.local_acknowledged = true;
            let by = i64::from(self.local.window) - i64::from(WINDOW_DEFAULT);
            for stream in self.streams.iter_mut() {
                stream.receive_window.shift(by);
            }
        }
        Ok(())
    }

    /// PING.
    pub(super) fn take_ping(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<Option<Event>, ConnectionError> {
        self.budgets.spend_control(now)?;
        let payload: [u8; 8] = exactly(payload, "PING that has not 8 bytes")?;
        if !header.has(flags::ACK) {
            frame::write_ping(&mut self.output, flags::ACK, payload);
            return Ok(None);
        }
        let is_answer = self.awaits_pong && payload == PING_PAYLOAD;
        self.awaits_pong &= !is_answer;
        Ok(is_answer.then_some(Event::Pong))
    }

    /// GOAWAY; a later one may lower the last stream, not raise it (6.8).
    pub(super) fn take_go_away(
        &mut self,
        payload: &[u8],
        now: Instant,
    ) -> Result<Option<Event>, ConnectionError> {
        self.budgets.spend_control(now)?;
        let Some(&[a, b, c, d, ref code @ ..]) = payload.first_chunk::<8>() else {
            return Err(ConnectionError::frame_size("GOAWAY below 8 bytes"));
        };
        let last = StreamId(frame::number([a, b, c, d]));
        let code = ErrorCode(u32::from_be_bytes(*code));
        if self.peer_last.is_some_and(|before| last > before) {
            return Err(ConnectionError::protocol(
                "GOAWAY that raises the last stream",
            ));
        }
        self.peer_last = Some(last);
        Ok(Some(Event::GoAway { last, code }))
    }

    /// WINDOW_UPDATE.
    pub(super) fn take_window_update(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<Option<Event>, ConnectionError> {
        self.budgets.spend_control(now)?;
        let increment = exactly(payload, "WINDOW_UPDATE that has not 4 bytes")?;
        let increment = frame::number(increment);
        let id = header.stream;
        if id == StreamId::CONNECTION {
            return self.widen_connection(increment);
        }
        let at = match self.streams.place(id) {
            Place::Active(at) => at,
            Place::Idle => return Err(IDLE_STREAM),
            Place::ResetHere | Place::Closed | Place::Skipped => return Ok(None),
        };
        if increment == 0 {
            return self.fail(id, ErrorCode::PROTOCOL_ERROR, now);
        }
        let stream = self.streams.at(at);
        match stream.send_window.grow(increment) {
            Ok(Growth::Opened) if stream.send == SendState::Open => {
                Ok(Some(Event::Window { stream: Some(id) }))
            }
            Ok(_) => Ok(None),
            Err(_) => self.fail(id, ErrorCode::FLOW_CONTROL_ERROR, now),
        }
    }

    fn widen_connection(&mut self, increment: u32) -> Result<Option<Event>, ConnectionError> {
        if increment == 0 {
            return Err(ConnectionError::protocol("WINDOW_UPDATE by nothing"));
        }
        match self.send_window.grow(increment) {
            Ok(Growth::Opened) => Ok(Some(Event::Window { stream: None })),
            Ok(Growth::Wider) => Ok(None),
            Err(_) => {
                let what = "a connection window above 2^31-1";
                Err(ConnectionError::flow_control(what))
            }
        }
    }
}

/// A payload that has one length.
fn exactly<const BYTES: usize>(
    payload: &[u8],
    otherwise: &'static str,
) -> Result<[u8; BYTES], ConnectionError> {
    let exact = payload.try_into();
    exact.map_err(|_| ConnectionError::frame_size(otherwise))
}
