//! Frames: headers read and written, and whole frames of the small kinds written
//! (RFC 9113 sections 4.1 and 6).

use crate::http2::error::ErrorCode;
use crate::http2::stream::StreamId;

/// What a client sends first (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame header.
pub(super) const HEADER_BYTES: usize = 9;

/// Bytes of a payload at most, in both directions: the default of
/// SETTINGS_MAX_FRAME_SIZE, below which no peer may go. Larger frames would only
/// have other streams wait.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16_384;

/// The highest bit of a stream id or a window increment is reserved.
const MASK_31: u32 = 0x7fff_ffff;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    Data = 0x0,
    Headers = 0x1,
    Priority = 0x2,
    Reset = 0x3,
    Settings = 0x4,
    PushPromise = 0x5,
    Ping = 0x6,
    GoAway = 0x7,
    WindowUpdate = 0x8,
    Continuation = 0x9,
    Unknown = 0xff,
}

/// Flags of a frame.
pub(super) mod flags {
    pub(in crate::http2) const END_STREAM: u8 = 0x1;
    pub(in crate::http2) const ACK: u8 = 0x1;
    pub(in crate::http2) const END_HEADERS: u8 = 0x4;
    pub(in crate::http2) const PADDED: u8 = 0x8;
    pub(in crate::http2) const PRIORITY: u8 = 0x20;
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Bytes of the payload.
    pub(super) length: usize,
    pub(super) kind: FrameKind,
    pub(super) flags: u8,
    /// 0 is the connection.
    pub(super) stream: StreamId,
}

impl FrameKind {
    const fn of(byte: u8) -> Self {
        match byte {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x2 => Self::Priority,
            0x3 => Self::Reset,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x6 => Self::Ping,
            0x7 => Self::GoAway,
            0x8 => Self::WindowUpdate,
            0x9 => Self::Continuation,
            _ => Self::Unknown,
        }
    }
}

impl FrameHeader {
    /// The header at the front of `bytes`, where all of it is there.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, ref stream @ ..] = bytes.first_chunk::<HEADER_BYTES>()?;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind: FrameKind::of(kind),
            flags,
            stream: StreamId(number(*stream)),
        })
    }

    /// As it is sent.
    pub(super) fn bytes(self) -> [u8; HEADER_BYTES] {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.stream.0.to_be_bytes();
        [a, b, c, self.kind as u8, self.flags, d, e, f, g]
    }

    /// Whether it has a flag.
    pub(super) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// A number of 31 bits.
pub(super) const fn number(bytes: [u8; 4]) -> u32 {
    u32::from_be_bytes(bytes) & MASK_31
}

/// Appends RST_STREAM (6.4).
pub(super) fn write_reset(out: &mut Vec<u8>, stream: StreamId, code: ErrorCode) {
    write(out, FrameKind::Reset, 0, stream, &code.0.to_be_bytes());
}

/// Appends WINDOW_UPDATE (6.9).
pub(super) fn write_window_update(out: &mut Vec<u8>, stream: StreamId, increment: u32) {
    let payload = increment.to_be_bytes();
    write(out, FrameKind::WindowUpdate, 0, stream, &payload);
}

/// Appends PING (6.7).
pub(super) fn write_ping(out: &mut Vec<u8>, flags: u8, payload: [u8; 8]) {
    write(out, FrameKind::Ping, flags, StreamId::CONNECTION, &payload);
}

/// Appends GOAWAY (6.8); `text` is for who reads the peer's log.
pub(super) fn write_go_away(out: &mut Vec<u8>, last: StreamId, code: ErrorCode, text: &str) {
    let mut payload = [last.0.to_be_bytes(), code.0.to_be_bytes()].concat();
    payload.extend_from_slice(text.as_bytes());
    write(out, FrameKind::GoAway, 0, StreamId::CONNECTION, &payload);
}

/// Appends SETTINGS that acknowledge those of the peer (6.5.3).
pub(super) fn write_settings_ack(out: &mut Vec<u8>) {
    let connection = StreamId::CONNECTION;
    write(out, FrameKind::Settings, flags::ACK, connection, &[]);
}

/// Appends a frame.
#[inline]
pub(super) fn write(
    out: &mut Vec<u8>,
    kind: FrameKind,
    flags: u8,
    stream: StreamId,
    payload: &[u8],
) {
    let header = FrameHeader {
        length: payload.len(),
        kind,
        flags,
        stream,
    };
    out.extend_from_slice(&header.bytes());
    out.extend_from_slice(payload);
}
