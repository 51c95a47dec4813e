//! Frames (RFC 9113, sections 4.1 and 6).

use super::hpack::{self, Field};

/// Types of frames.
#[expect(missing_docs, reason = "the names of RFC 9113, section 6")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
#[expect(missing_docs, reason = "the names of RFC 9113, section 6")]
pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Error codes.
#[expect(missing_docs, reason = "the names of RFC 9113, section 7")]
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const CONNECT_ERROR: u32 = 10;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
    pub const HTTP_1_1_REQUIRED: u32 = 13;
}

/// Settings.
#[expect(
    missing_docs,
    reason = "the names of RFC 9113, section 6.5.2, and of RFC 8441"
)]
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// What a frame carries at most where the peer says nothing else (section 6.5.2).
pub(crate) const PAYLOAD_MAX: usize = 1 << 14;

/// A frame that came, or is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// One of [`kind`], or none of them.
    pub kind: u8,
    /// Some of [`flag`].
    pub flags: u8,
    /// The number of its stream, with the reserved bit.
    pub stream: u32,
    /// What follows the nine octets of its head.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Any frame.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
        let payload = payload.into();
        Frame {
            kind,
            flags,
            stream,
            payload,
        }
    }

    /// DATA.
    pub fn data(stream: u32, bytes: impl AsRef<[u8]>) -> Frame {
        Frame::new(kind::DATA, 0, stream, bytes.as_ref())
    }

    /// HEADERS with a whole field block.
    pub fn headers(stream: u32, block: impl Into<Vec<u8>>) -> Frame {
        Frame::new(kind::HEADERS, flag::END_HEADERS, stream, block)
    }

    /// HEADERS with these fields.
    pub fn fields(stream: u32, fields: &[Field<'_>]) -> Frame {
        Frame::headers(stream, hpack::block(fields))
    }

    /// A GET for `web.test`, whole.
    pub fn get(stream: u32, path: &str) -> Frame {
        Frame::fields(stream, &request("GET", path)).ending()
    }

    /// The head of a POST for `web.test`.
    pub fn post(stream: u32, path: &str) -> Frame {
        Frame::fields(stream, &request("POST", path))
    }

    /// CONTINUATION with the end of a field block.
    pub fn continuation(stream: u32, fragment: impl Into<Vec<u8>>) -> Frame {
        Frame::new(kind::CONTINUATION, flag::END_HEADERS, stream, fragment)
    }

    /// PRIORITY; `depends` may have the bit for an exclusive dependency.
    pub fn priority(stream: u32, depends: u32, weight: u8) -> Frame {
        let payload = [&depends.to_be_bytes()[..], &[weight]].concat();
        Frame::new(kind::PRIORITY, 0, stream, payload)
    }

    /// RST_STREAM.
    pub fn reset(stream: u32, code: u32) -> Frame {
        Frame::new(kind::RST_STREAM, 0, stream, code.to_be_bytes())
    }

    /// SETTINGS.
    pub fn settings(values: &[(u16, u32)]) -> Frame {
        let values = values.iter();
        let pairs = values
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()[..]].concat());
        Frame::new(kind::SETTINGS, 0, 0, pairs.collect::<Vec<u8>>())
    }

    /// PING.
    pub fn ping(opaque: &[u8; 8]) -> Frame {
        Frame::new(kind::PING, 0, 0, *opaque)
    }

    /// GOAWAY.
    pub fn go_away(last: u32, code: u32) -> Frame {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        Frame::new(kind::GOAWAY, 0, 0, payload)
    }

    /// WINDOW_UPDATE.
    pub fn window_update(stream: u32, increment: u32) -> Frame {
        Frame::new(kind::WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
    }

    /// PUSH_PROMISE with these fields.
    pub fn push_promise(stream: u32, promised: u32, fields: &[Field<'_>]) -> Frame {
        let payload = [&promised.to_be_bytes()[..], &hpack::block(fields)].concat();
        Frame::new(kind::PUSH_PROMISE, flag::END_HEADERS, stream, payload)
    }

    /// With more flags.
    pub fn with(mut self, flags: u8) -> Frame {
        self.flags |= flags;
        self
    }

    /// With END_STREAM.
    pub fn ending(self) -> Frame {
        self.with(flag::END_STREAM)
    }

    /// As an acknowledgement.
    pub fn ack(self) -> Frame {
        self.with(flag::ACK)
    }

    /// HEADERS or CONTINUATION without END_HEADERS.
    pub fn unfinished(mut self) -> Frame {
        self.flags &= !flag::END_HEADERS;
        self
    }

    /// With so many octets of padding.
    pub fn padded(self, count: u8) -> Frame {
        let padding = vec![0; usize::from(count)];
        let mut frame = self.padded_by_claim(count);
        frame.payload.extend(padding);
        frame
    }

    /// With a pad length and no padding.
    pub fn padded_by_claim(mut self, claim: u8) -> Frame {
        self.payload.insert(0, claim);
        self.with(flag::PADDED)
    }

    /// HEADERS that say whom their stream depends on.
    pub fn depending(mut self, on: u32, weight: u8) -> Frame {
        let start = [&on.to_be_bytes()[..], &[weight]].concat();
        self.payload.splice(0..0, start);
        self.with(flag::PRIORITY)
    }

    /// On this stream.
    pub fn on(mut self, stream: u32) -> Frame {
        self.stream = stream;
        self
    }

    /// HEADERS cut into one frame for each of so many octets, and CONTINUATIONs.
    pub fn in_parts_of(self, octets: usize) -> Vec<Frame> {
        let last = self.payload.len().div_ceil(octets) - 1;
        let parts = self.payload.chunks(octets).enumerate();
        let frames = parts.map(|(number, part)| {
            let frame = match number {
                0 => Frame::new(self.kind, self.flags, self.stream, part),
                _ => Frame::continuation(self.stream, part),
            };
            if number == last {
                frame
            } else {
                frame.unfinished()
            }
        });
        frames.collect()
    }

    /// Its octets.
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("no frame of a test is larger");
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The same of HEADERS that may have a block too long for a frame: it goes on in
    /// CONTINUATIONs.
    pub(crate) fn in_frames(&self) -> Vec<u8> {
        if self.payload.len() <= PAYLOAD_MAX {
            return self.bytes();
        }
        let frames = self.clone().in_parts_of(PAYLOAD_MAX);
        frames.iter().flat_map(Frame::bytes).collect()
    }

    /// Whether it has a flag.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it is the last one of its stream.
    pub fn is_last(&self) -> bool {
        let ends = matches!(self.kind, kind::DATA | kind::HEADERS) && self.has(flag::END_STREAM);
        ends || self.kind == kind::RST_STREAM
    }

    /// The number of four octets at this place of its payload.
    pub fn number(&self, at: usize) -> Option<u32> {
        let octets = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(octets.try_into().expect("four")))
    }

    /// The error code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> Option<u32> {
        match self.kind {
            kind::RST_STREAM => self.number(0),
            kind::GOAWAY => self.number(4),
            _ => None,
        }
    }

    /// What it is, in short.
    pub fn summary(&self) -> String {
        let Frame {
            kind,
            flags,
            stream,
            payload,
        } = self;
        let code = self.code().map(|code| format!(" code {code}"));
        let code = code.unwrap_or_default();
        format!(
            "[type {kind} flags {flags:#x} stream {stream} length {}{code}]",
            payload.len()
        )
    }

    /// The payload without padding and priority.
    pub fn content(&self) -> &[u8] {
        let mut content = &self.payload[..];
        if !matches!(self.kind, kind::DATA | kind::HEADERS) {
            return content;
        }
        if let (true, [count, rest @ ..]) = (self.has(flag::PADDED), content) {
            content = &rest[..rest.len().saturating_sub(usize::from(*count))];
        }
        if self.kind == kind::HEADERS && self.has(flag::PRIORITY) {
            content = content.get(5..).unwrap_or_default();
        }
        content
    }
}

/// The fields of a request for `web.test`.
pub fn request<'a>(method: &'a str, path: &'a str) -> [Field<'a>; 4] {
    [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "web.test"),
    ]
}
