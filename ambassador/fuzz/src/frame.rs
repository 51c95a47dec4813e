//! Frames and field sections as bytes (RFC 9113 section 4.1, RFC 7541 section 6.2).

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

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const WITH_PRIORITY: u8 = 0x20;

/// What a client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// No frame that is sent has a longer payload (section 6.5.2).
pub const PAYLOAD_BYTES_MAX: usize = 16_384;

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// Fields by name and value.
pub type Fields = &'static [(&'static str, &'static str)];

impl Frame {
    /// As it is sent.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = (self.payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[self.kind, self.flags]);
        bytes.extend_from_slice(&self.stream.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// Whether it has a flag.
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The number of 32 bits at a place of the payload, 0 where there is none.
    pub fn number_at(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..).and_then(<[u8]>::first_chunk::<4>);
        bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }
}

/// The frames in what was sent; part of one is a fault.
pub fn frames(mut sent: &[u8]) -> Vec<Frame> {
    sent = sent.strip_prefix(PREFACE).unwrap_or(sent);
    let mut frames = Vec::new();
    while !sent.is_empty() {
        let (header, rest) = sent.split_at(9);
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        assert!(length <= PAYLOAD_BYTES_MAX, "a frame of {length} bytes");
        let (payload, rest) = rest.split_at(length);
        frames.push(Frame {
            kind: header[3],
            flags: header[4],
            stream: u32::from_be_bytes([header[5], header[6], header[7], header[8]]),
            payload: payload.to_vec(),
        });
        sent = rest;
    }
    frames
}

/// A field section as literals that no table takes, with texts below 127 bytes.
pub fn section(fields: Fields) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0x10);
        for text in [name, value] {
            bytes.push(text.len() as u8);
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}
