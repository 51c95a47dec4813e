//! One HTTP/2 connection as a state machine: bytes come in, events and bytes go
//! out (RFC 9113). It knows no socket and no clock, and keeps a value of its user
//! for each stream.
//!
//! Only clients open streams: nobody may push.

mod control;
mod data;
mod headers;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use self::headers::PartialSection;
use self::receive::Position;
use crate::http2::block::FieldBlock;
use crate::http2::error::{ConnectionError, ErrorCode};
use crate::http2::flood::Budgets;
use crate::http2::frame::{self, FrameHeader, FrameKind, HEADER_BYTES, PREFACE};
use crate::http2::hpack::{Decoder, Encoder};
use crate::http2::role::Role;
use crate::http2::settings::{LocalSettings, PeerSettings};
use crate::http2::stream::{ReceiveState, SendState, Stream, StreamId};
use crate::http2::streams::Streams;
use crate::http2::window::{ReceiveWindow, SendWindow, WINDOW_DEFAULT};

/// Our SETTINGS_HEADER_TABLE_SIZE, which is the default.
const TABLE_BYTES_MAX: u16 = 4_096;

/// Bytes of output above which nothing is added that can wait.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// What is kept of the start of DATA, whose content goes on: its header and the length
/// of its padding.
const FRAME_START_MAX: usize = HEADER_BYTES + 1;

/// What the PING carries that is sent here.
const PING_PAYLOAD: [u8; 8] = *b"ambassad";

/// One end of a connection.
#[derive(Debug)]
pub struct Connection<T> {
    role: Role,
    local: LocalSettings,
    /// The peer has acknowledged them.
    local_acknowledged: bool,
    peer: PeerSettings,
    streams: Streams<T>,
    /// Where in the peer's bytes the next one falls.
    position: Position,
    /// The beginning of a frame of which the rest has not come.
    partial: Vec<u8>,
    /// A field section of which CONTINUATION frames are to come.
    section: Option<PartialSection>,
    /// Frames and field sections that have come whole.
    whole: u64,
    receive_window: ReceiveWindow,
    send_window: SendWindow,
    decoder: Decoder,
    encoder: Encoder,
    block: FieldBlock,
    budgets: Budgets,
    /// Streams that its user has refused since bytes came last.
    refused: u32,
    /// A PING was sent that is not answered yet.
    awaits_pong: bool,
    /// The last stream that our GOAWAY leaves to the peer, once there was one.
    local_last: Option<StreamId>,
    /// The last stream that the peer's GOAWAY leaves to us, once there was one.
    peer_last: Option<StreamId>,
    /// Why it ended.
    failure: Option<ConnectionError>,
    output: Vec<u8>,
}

impl<T> Connection<T> {
    /// A new one; what it begins with is in the output (RFC 9113 section 3.4).
    pub fn new(role: Role, local: LocalSettings) -> Self {
        let mut output = Vec::new();
        if role == Role::Client {
            output.extend_from_slice(PREFACE);
        }
        local.write(&mut output, role);
        let connection_window = local.connection_window.max(WINDOW_DEFAULT);
        if connection_window > WINDOW_DEFAULT {
            let increment = connection_window - WINDOW_DEFAULT;
            frame::write_window_update(&mut output, StreamId::CONNECTION, increment);
        }
        Self {
            role,
            local,
            local_acknowledged: false,
            peer: PeerSettings::new(),
            streams: Streams::new(),
            position: match role {
                Role::Client => Position::Frame,
                Role::Server => Position::Preface { matched: 0 },
            },
            partial: Vec::new(),
            section: None,
            whole: 0,
            receive_window: ReceiveWindow::new(connection_window),
            send_window: SendWindow::new(WINDOW_DEFAULT),
            decoder: Decoder::new(TABLE_BYTES_MAX),
            encoder: Encoder::default(),
            block: FieldBlock::new(local.list_max, local.fields_max),
            budgets: Budgets::new(),
            refused: 0,
            awaits_pong: false,
            local_last: None,
            peer_last: None,
            failure: None,
            output,
        }
    }

    /// The rest of a frame or of a field section is to come: of the one of this number.
    pub(crate) fn awaits_rest(&self) -> Option<u64> {
        let is_awaited = self.section.is_some() || !self.partial.is_empty();
        is_awaited.then_some(self.whole)
    }

    /// The stream of the field section that has begun and is not whole, where its frame
    /// tells that already.
    pub(crate) fn section_under_way(&self) -> Option<StreamId> {
        match &self.section {
            Some(section) => Some(section.stream),
            None => FrameHeader::read(&self.partial)
                .filter(|header| header.kind == FrameKind::Headers)
                .map(|header| header.stream),
        }
    }

    /// Bytes that are kept until the rest of a frame or of a field section comes. Of DATA
    /// nothing is: it goes on as it comes.
    #[inline]
    pub(crate) fn unfinished_bytes(&self) -> usize {
        let section = self.section.as_ref().map_or(0, PartialSection::bytes);
        match self.partial.len() {
            ..=FRAME_START_MAX => section,
            _ => section + self.partial.capacity(),
        }
    }

    /// The field section of the last [`Event::Headers`](crate::http2::event::Event),
    /// until the next one.
    pub fn block(&mut self) -> &mut FieldBlock {
        &mut self.block
    }

    /// What is to be sent; it may be taken out.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// So much is to be sent that no more should be received before some of it is.
    pub fn is_full(&self) -> bool {
        self.output.len() >= OUTPUT_BYTES_MAX
    }

    /// What the user keeps for a stream.
    pub(crate) fn user(&mut self, id: StreamId) -> Option<&mut T> {
        self.streams.get_mut(id)?.user.as_mut()
    }

    /// Keeps something for a stream; what was kept before is dropped.
    pub(crate) fn set_user(&mut self, id: StreamId, user: T) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.user = Some(user);
        }
    }

    /// Everything that is kept for streams.
    pub(crate) fn users(&mut self) -> impl Iterator<Item = (StreamId, &mut T)> {
        let streams = self.streams.iter_mut();
        streams.filter_map(|stream| Some((stream.id, stream.user.as_mut()?)))
    }

    /// How many streams are not closed.
    pub fn streams(&self) -> usize {
        self.streams.active()
    }

    /// How many more streams may be opened now.
    pub(crate) fn free_streams(&self) -> usize {
        let most = self.peer.max_streams() as usize;
        most.saturating_sub(self.streams.active())
    }

    /// The peer has said what it allows.
    pub(crate) fn is_settled(&self) -> bool {
        self.peer.have_come
    }

    /// The peer has acknowledged our SETTINGS.
    pub(crate) fn is_acknowledged(&self) -> bool {
        self.local_acknowledged
    }

    /// The peer allows extended CONNECT (RFC 8441).
    pub(crate) fn takes_extended_connect(&self) -> bool {
        self.peer.connect_protocol
    }

    /// No new streams are to come: one of the two has said so.
    pub(crate) fn is_draining(&self) -> bool {
        self.local_last.is_some() || self.peer_last.is_some()
    }

    /// Takes out a stream that the peer has not processed, as its GOAWAY says: its
    /// request may be sent to another one (RFC 9113 section 6.8).
    pub fn take_unprocessed(&mut self) -> Option<(StreamId, Option<T>)> {
        let stream = self.streams.remove_above(self.peer_last?)?;
        self.credit_connection(stream.unreleased);
        Some((stream.id, stream.user))
    }

    /// Says how many bytes of content are to come in a stream, as its head does.
    /// Content that is shorter or longer resets it (8.1.1).
    pub fn expect_length(&mut self, id: StreamId, length: Option<u64>) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.length_left = length;
        }
    }

    /// Whether as much content has come in a stream as its head says that there is.
    pub(crate) fn has_all_content(&mut self, id: StreamId) -> bool {
        let stream = self.streams.get_mut(id);
        stream.is_some_and(|stream| stream.length_left == Some(0))
    }

    /// A stream carries the bytes of a tunnel: trailers reset it (8.5).
    pub(crate) fn makes_tunnel(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.is_tunnel = true;
        }
    }

    /// Gives back what was received and is dealt with, so that the peer may send
    /// more. A stream that goes gives back the rest by itself.
    pub fn release(&mut self, id: StreamId, bytes: u32) {
        let Some(stream) = self.streams.get_mut(id) else {
            return;
        };
        let bytes = bytes.min(stream.unreleased);
        stream.unreleased -= bytes;
        self.credit_stream(id, bytes);
        self.credit_connection(bytes);
    }

    /// Resets a stream; what still comes for it is ignored. It stays in the table
    /// until its user forgets it.
    pub fn reset(&mut self, id: StreamId, code: ErrorCode) {
        let Some(at) = self.streams.find(id) else {
            return;
        };
        let stream = self.streams.at(at);
        if stream.is_closed() {
            return;
        }
        if stream.receive != ReceiveState::Finished {
            self.streams.remember_reset(id);
        }
        self.streams.close(at);
        self.budgets.earn_by_stream();
        frame::write_reset(&mut self.output, id, code);
    }

    /// Resets a stream for what the peer sent in it, also where that has ended it.
    pub fn refuse(&mut self, id: StreamId, code: ErrorCode) {
        self.refused = self.refused.saturating_add(1);
        let is_closed = self.streams.get(id).is_some_and(Stream::is_closed);
        match is_closed {
            true => frame::write_reset(&mut self.output, id, code),
            false => self.reset(id, code),
        }
    }

    /// The user is done with a stream. One that is not closed is reset: by
    /// NO_ERROR where the peer has the whole answer, as it need not go on with the
    /// request (8.1).
    pub fn forget(&mut self, id: StreamId) -> Option<T> {
        let stream = self.streams.get(id)?;
        let is_answered = self.role == Role::Server && stream.send == SendState::Finished;
        self.reset(
            id,
            match is_answered {
                true => ErrorCode::NO_ERROR,
                false => ErrorCode::CANCEL,
            },
        );
        let stream = self.streams.remove(id)?;
        self.credit_connection(stream.unreleased);
        stream.user
    }

    /// Ends the connection for streams that were not begun yet. Where it has ended for an
    /// error, that stays the last word.
    pub(crate) fn go_away(&mut self, code: ErrorCode) {
        if self.failure.is_none() {
            let last = self.last_of_peer();
            self.send_go_away(last, code, "");
        }
    }

    /// Announces the end: the peer should open no more streams, and those that it
    /// opens before it knows are served still (RFC 9113 section 6.8).
    pub fn announce_end(&mut self) {
        if self.local_last.is_none() {
            self.send_go_away(StreamId::MAX, ErrorCode::NO_ERROR, "");
        }
    }

    /// A PING was sent that is not answered yet.
    #[cfg(test)]
    pub(crate) fn awaits_pong(&self) -> bool {
        self.awaits_pong
    }

    /// Sends a PING, if none is on its way.
    pub fn ping(&mut self) {
        if !self.awaits_pong {
            self.awaits_pong = true;
            frame::write_ping(&mut self.output, 0, PING_PAYLOAD);
        }
    }

    fn send_go_away(&mut self, last: StreamId, code: ErrorCode, text: &str) {
        self.local_last = Some(last);
        frame::write_go_away(&mut self.output, last, code, text);
    }

    /// The last stream of the peer that is processed here.
    fn last_of_peer(&self) -> StreamId {
        match self.role {
            Role::Client => StreamId::CONNECTION,
            Role::Server => self
                .streams
                .highest()
                .min(self.local_last.unwrap_or(StreamId::MAX)),
        }
    }

    /// Bytes of the connection's window are dealt with.
    fn credit_connection(&mut self, bytes: u32) {
        let size = self.local.connection_window.max(WINDOW_DEFAULT);
        if let Some(increment) = self.receive_window.give_back(bytes, size) {
            frame::write_window_update(&mut self.output, StreamId::CONNECTION, increment);
        }
    }

    /// Bytes of a stream's window are dealt with.
    fn credit_stream(&mut self, id: StreamId, bytes: u32) {
        let size = self.local.window;
        if let Some(stream) = self.streams.get_mut(id)
            && stream.receive != ReceiveState::Finished
            && let Some(increment) = stream.receive_window.give_back(bytes, size)
        {
            frame::write_window_update(&mut self.output, id, increment);
        }
    }
}
