//! Frames made from an input, most of them nearly right.

use crate::frame::*;
use crate::source::Source;

/// Sections that a client may send, those of requests first.
pub const OF_CLIENT: &[Fields] = &[
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", "/"),
    ],
    &[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", "/"),
        ("content-length", "5"),
    ],
    &[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", "/long"),
        ("content-length", "70000"),
    ],
    &[(":method", "CONNECT"), (":authority", "a.test:1")],
    &[("x-trailer", "1")],
    &[],
];

/// Sections that a server may send, those of responses first.
pub const OF_SERVER: &[Fields] = &[
    &[(":status", "200")],
    &[(":status", "200"), ("content-length", "5")],
    &[(":status", "100")],
    &[(":status", "103"), ("link", "</a>")],
    &[(":status", "204")],
    &[(":status", "304"), ("content-length", "5")],
    &[("x-trailer", "1")],
    &[],
];

const STREAMS: [u32; 16] = [
    1,
    3,
    5,
    7,
    1,
    3,
    5,
    9,
    0,
    2,
    11,
    13,
    15,
    0x8000_0001,
    0x7fff_ffff,
    4,
];

const NUMBERS: [u32; 10] = [
    0,
    1,
    5,
    1_000,
    16_384,
    65_535,
    65_536,
    0x7fff_0000,
    0x7fff_ffff,
    0xffff_ffff,
];

const LENGTHS: [usize; 8] = [0, 1, 5, 100, 1_000, 16_384, 4, 16_383];

/// A frame, or the frames of one field section.
pub fn frames_of(source: &mut Source<'_>, sections: &[Fields]) -> Vec<Frame> {
    let kind = source.byte() % 16;
    let stream = source.one_of(&STREAMS);
    let one = |kind, flags, stream, payload| {
        vec![Frame {
            kind,
            flags,
            stream,
            payload,
        }]
    };
    match kind {
        0..=2 => headers(source, sections, stream),
        3..=5 => {
            let flags = source.one_of(&[0, END_STREAM, 0, END_STREAM, PADDED, 9, 0xf6, 0xff]);
            let length = source.one_of(&LENGTHS);
            let payload = padded(source, flags, vec![0; length]);
            one(DATA, flags, stream, payload)
        }
        6 => one(RST_STREAM, 0, stream, numbers(source, 1)),
        7 => one(WINDOW_UPDATE, 0, stream, numbers(source, 1)),
        8 => {
            let stream = source.one_of(&[0, 0, 0, 0, 0, 0, 0, 1]);
            let mut payload = Vec::new();
            for _ in 0..source.byte() % 4 {
                let parameter = u16::from(source.byte() % 10);
                payload.extend_from_slice(&parameter.to_be_bytes());
                payload.append(&mut numbers(source, 1));
            }
            one(SETTINGS, 0, stream, payload)
        }
        9 => {
            let flags = source.one_of(&[0, ACK]);
            one(PING, flags, 0, numbers(source, 2))
        }
        10 => one(GOAWAY, 0, 0, numbers(source, 2)),
        11 => {
            let mut payload = source.one_of(&STREAMS).to_be_bytes().to_vec();
            payload.push(source.byte());
            one(PRIORITY, 0, stream, payload)
        }
        12 => one(SETTINGS, ACK, 0, Vec::new()),
        13 => {
            let payload = section(source.one_of(sections));
            one(CONTINUATION, END_HEADERS, stream, payload)
        }
        14 => {
            let mut payload = 2_u32.to_be_bytes().to_vec();
            payload.append(&mut section(source.one_of(sections)));
            one(PUSH_PROMISE, END_HEADERS, stream, payload)
        }
        // No field section of any bytes.
        _ => {
            let kind = match source.byte() {
                HEADERS | PUSH_PROMISE | CONTINUATION => 0xa,
                kind => kind,
            };
            let flags = source.byte();
            let length = usize::from(source.byte() % 32);
            one(kind, flags, stream, source.take(length).to_vec())
        }
    }
}

/// A field section, in one frame or in several.
fn headers(source: &mut Source<'_>, sections: &[Fields], stream: u32) -> Vec<Frame> {
    let flags = source.byte() & (END_STREAM | PADDED | WITH_PRIORITY);
    let section = section(source.one_of(sections));
    let parts = source.one_of(&[1, 1, 1, 2, 3, 12]);
    let size = section.len().div_ceil(parts).max(1);
    let mut parts: Vec<Vec<u8>> = section.chunks(size).map(<[u8]>::to_vec).collect();
    let mut first = match parts.is_empty() {
        true => Vec::new(),
        false => parts.remove(0),
    };
    if flags & WITH_PRIORITY != 0 {
        let mut priority = source.one_of(&STREAMS).to_be_bytes().to_vec();
        priority.push(source.byte());
        first.splice(0..0, priority);
    }
    let payload = padded(source, flags, first);
    let mut frames = vec![Frame {
        kind: HEADERS,
        flags,
        stream,
        payload,
    }];
    frames.extend(parts.into_iter().map(|payload| Frame {
        kind: CONTINUATION,
        flags: 0,
        stream,
        payload,
    }));
    let last = frames.len() - 1;
    frames[last].flags |= END_HEADERS;
    frames
}

/// A payload with the padding that its flags say, or less.
fn padded(source: &mut Source<'_>, flags: u8, payload: Vec<u8>) -> Vec<u8> {
    if flags & PADDED == 0 {
        return payload;
    }
    let said = source.byte();
    let is_there = source.byte() < 0xf0;
    let mut padded = vec![said];
    padded.extend(payload);
    if is_there {
        padded.resize(padded.len() + usize::from(said), 0);
    }
    padded.truncate(PAYLOAD_BYTES_MAX);
    padded
}

fn numbers(source: &mut Source<'_>, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        let number = match source.byte() {
            0xff => source.number(),
            choice => NUMBERS[usize::from(choice) % NUMBERS.len()],
        };
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes
}
