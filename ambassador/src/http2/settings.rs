//! SETTINGS: what is sent, and what the peer has sent (RFC 9113 section 6.5).

use crate::http2::error::ConnectionError;
use crate::http2::frame::{self, FrameKind, PAYLOAD_BYTES_MAX};
use crate::http2::role::Role;
use crate::http2::stream::StreamId;
use crate::http2::window::{WINDOW_DEFAULT, WINDOW_MAX};
use crate::message::HEAD_BYTES_MAX;
use crate::message::fields::FIELDS_MAX;

/// Parameters of one frame at most: nine are known to anyone.
pub(super) const PARAMETERS_MAX: usize = 64;

/// Streams that a client opens before it knows how many it may.
const STREAMS_BEFORE_SETTINGS: u32 = 100;

const PARAMETER_BYTES: usize = 6;

/// Parameters by their number.
pub(super) mod parameter {
    pub(in crate::http2) const HEADER_TABLE_SIZE: u16 = 0x1;
    pub(in crate::http2) const ENABLE_PUSH: u16 = 0x2;
    pub(in crate::http2) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub(in crate::http2) const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub(in crate::http2) const MAX_FRAME_SIZE: u16 = 0x5;
    pub(in crate::http2) const MAX_HEADER_LIST_SIZE: u16 = 0x6;
    /// RFC 8441.
    pub(in crate::http2) const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;
}

/// What this side allows its peer.
#[derive(Debug, Clone, Copy)]
pub struct LocalSettings {
    /// Streams that a client may have open at once.
    pub max_streams: u32,
    /// Bytes that may be on their way in one stream.
    pub window: u32,
    /// Bytes that may be on their way in all streams; not below 65,535.
    pub connection_window: u32,
    /// Bytes of a field section, counted as RFC 9113 section 6.5.2 does.
    pub list_max: usize,
    /// Fields of a field section.
    pub fields_max: usize,
    /// A client may use extended CONNECT (RFC 8441).
    pub connect_protocol: bool,
}

/// What the peer allows this side.
#[derive(Debug)]
pub(super) struct PeerSettings {
    /// Its first SETTINGS have come.
    pub(super) have_come: bool,
    /// The window of a stream at its start.
    pub(super) window: u32,
    /// Extended CONNECT may be used (RFC 8441).
    pub(super) connect_protocol: bool,
    /// Bytes of a field section, counted as section 6.5.2 does.
    pub(super) list_max: usize,
    max_streams: Option<u32>,
}

impl Default for LocalSettings {
    /// What callers get: 100 streams of 1 MiB, 4 MiB together; heads as large as those of
    /// HTTP/1 may be.
    fn default() -> Self {
        Self {
            max_streams: 100,
            window: 1 << 20,
            connection_window: 4 << 20,
            list_max: HEAD_BYTES_MAX,
            fields_max: FIELDS_MAX,
            connect_protocol: false,
        }
    }
}

impl LocalSettings {
    /// Appends the SETTINGS frame; what is the default is not sent.
    pub(super) fn write(&self, out: &mut Vec<u8>, role: Role) {
        let mut payload = Vec::with_capacity(5 * PARAMETER_BYTES);
        let mut put = |parameter: u16, value: u32| {
            payload.extend_from_slice(&parameter.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        };
        match role {
            Role::Client => put(parameter::ENABLE_PUSH, 0),
            Role::Server => put(parameter::MAX_CONCURRENT_STREAMS, self.max_streams),
        }
        put(parameter::INITIAL_WINDOW_SIZE, self.window);
        let list_max = u32::try_from(self.list_max).unwrap_or(u32::MAX);
        put(parameter::MAX_HEADER_LIST_SIZE, list_max);
        if role == Role::Server && self.connect_protocol {
            put(parameter::ENABLE_CONNECT_PROTOCOL, 1);
        }
        frame::write(out, FrameKind::Settings, 0, StreamId::CONNECTION, &payload);
    }
}

impl PeerSettings {
    /// The defaults, until SETTINGS come.
    pub(super) const fn new() -> Self {
        Self {
            have_come: false,
            window: WINDOW_DEFAULT,
            connect_protocol: false,
            list_max: usize::MAX,
            max_streams: Some(STREAMS_BEFORE_SETTINGS),
        }
    }

    /// A SETTINGS frame begins. The first one may name no limit of streams, and
    /// then there is none.
    pub(super) fn begin(&mut self) {
        if !self.have_come {
            self.have_come = true;
            self.max_streams = None;
        }
    }

    /// Streams that this side may have open at once.
    pub(super) fn max_streams(&self) -> u32 {
        self.max_streams.unwrap_or(u32::MAX)
    }

    /// Takes in one parameter; those that are not known are ignored (6.5.2).
    pub(super) fn set(
        &mut self,
        role: Role,
        (parameter, value): (u16, u32),
    ) -> Result<(), ConnectionError> {
        match (parameter, value) {
            // A server may not offer what only a client can allow.
            (parameter::ENABLE_PUSH, 1) if role == Role::Client => {
                return Err(ConnectionError::protocol("ENABLE_PUSH by a server"));
            }
            (parameter::ENABLE_PUSH, 2..) => {
                return Err(ConnectionError::protocol("ENABLE_PUSH above 1"));
            }
            (parameter::MAX_CONCURRENT_STREAMS, most) => self.max_streams = Some(most),
            (parameter::INITIAL_WINDOW_SIZE, window) if window > WINDOW_MAX => {
                let what = "INITIAL_WINDOW_SIZE above 2^31-1";
                return Err(ConnectionError::flow_control(what));
            }
            (parameter::INITIAL_WINDOW_SIZE, window) => self.window = window,
            (parameter::MAX_FRAME_SIZE, size) if !is_frame_size(size) => {
                return Err(ConnectionError::protocol("MAX_FRAME_SIZE out of bounds"));
            }
            (parameter::MAX_HEADER_LIST_SIZE, bytes) => self.list_max = bytes as usize,
            (parameter::ENABLE_CONNECT_PROTOCOL, 1) => self.connect_protocol = true,
            (parameter::ENABLE_CONNECT_PROTOCOL, 0) if !self.connect_protocol => {}
            (parameter::ENABLE_CONNECT_PROTOCOL, _) => {
                let what = "ENABLE_CONNECT_PROTOCOL above 1 or taken back";
                return Err(ConnectionError::protocol(what));
            }
            _ => {}
        }
        Ok(())
    }
}

/// The parameters of a SETTINGS frame, in order: number and value.
pub(super) fn parameters(payload: &[u8]) -> impl ExactSizeIterator<Item = (u16, u32)> {
    let (parameters, _) = payload.as_chunks::<PARAMETER_BYTES>();
    parameters
        .iter()
        .map(|&[a, b, c, d, e, f]| (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f])))
}

/// Whether a SETTINGS payload has only whole parameters.
pub(super) const fn is_whole(payload: &[u8]) -> bool {
    payload.len().is_multiple_of(PARAMETER_BYTES)
}

const fn is_frame_size(size: u32) -> bool {
    size >= PAYLOAD_BYTES_MAX as u32 && size < 1 << 24
}
